"""Two sides in dialogue, every token measured.

    transcript.py      what two sides said, and what a transcript's header states about it
    markdown.py        the transcript as text, read and written to the same bytes; jsonl.py, the lossless form; foreign.py, other programs' forms
    formats.py         from a file to a transcript and back
    conditions.py      what a dialogue can be asked while it goes on; stops.py, when it is over and from what that follows; stop_words.py, how such
                       rules are written; simulate.py, where they would have ended a transcript
    event_table.py     the kinds of events of a dialogue and their fields; events.py writes and reads the chained log of them
    edits.py           bias, penalties and masks on logits; chain.py, how the contract's sampler chooses after them
    measure.py         all that is measured of one token, under the five distributions of run/distributions.py; reach.py, which texts are tokens
    taught.py          a transcript as a model would have been given it; score.py, how probable what a side said was; chance.py, how often something
                       was to be expected
    side.py            what is asked of a side; context.py, what of the dialogue it is given; local.py, a side that is a checkpoint
    remote.py          a side that is a server: remote_address.py, where it is; remote_http.py, one request; remote_chat.py, the chat asked for;
                       remote_reply.py, its answers; remote_stream.py, in pieces; remote_spelling.py, the bytes of its tokens; remote_probe.py,
                       what it can do
    cast.py            both sides from their names, under one memory budget
    conduct.py         the dialogue itself, begun and resumed; so_far.py, what its events say so far; interrupts.py, Ctrl-C; times.py, its clock
    given.py           what a side was given and said, as sequences of ids; recorded.py, their recordings; agreement.py, whether bundles are of a log
    certificate.py     a lower bound on every token's probability; lm_head.py, what it is computed from; attained.py, how near a state comes;
                       certified.py, both as a document
    divergence.py      how far two distributions are from each other; intervals.py, of what was counted, and of a slope
    claims/            what is said about tokens, held against measurement
    forks/             the tree of what else could have been said, and the challenge
    page.py            the page of a whole dialogue

V is the vocabulary's size, K the number of tokens that a rule left.
"""
