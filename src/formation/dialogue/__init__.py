"""Two sides in dialogue, every token measured.

    transcript.py      what two sides said, and what a transcript's header states about it
    markdown.py        the transcript as text, read and written to the same bytes; jsonl.py, the lossless form; foreign.py, other programs' forms
    formats.py         from a file to a transcript and back
    conditions.py      what a dialogue can be asked while it goes on; stops.py, when it is over and from what that follows; stop_words.py, how such
                       rules are written; simulate.py, where they would have ended a transcript
    event_table.py     the kinds of events of a dialogue and their fields; events.py writes and reads the chained log of them
    edits.py           bias, penalties and masks on logits; chain.py, how the contract's sampler chooses after them
    distributions.py   the five distributions of a token, kept apart; zero.py, what a probability of zero means; reach.py, which texts are tokens
    measure.py         all that is measured of one token

V is the vocabulary's size, K the number of tokens that a rule left.
"""
