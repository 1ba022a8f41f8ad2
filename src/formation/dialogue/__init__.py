"""Two sides in dialogue, every token measured.

    transcripts/       what two sides said, as files
    stops/             when a dialogue is over, and from what that follows
    event_table.py     the kinds of events of a dialogue and their fields; events.py writes and reads the chained log of them
    edits.py           bias, penalties and masks on logits; chain.py, how the contract's sampler chooses after them
    measure.py         all that is measured of one token, under the five distributions of run/distributions.py
    taught.py          a transcript as a model would have been given it; score.py, how probable what a side said was; chance.py, how often something
                       was to be expected
    side.py            what is asked of a side; context.py, what of the dialogue it is given; local.py, a side that is a checkpoint
    remote/            a side that is a server
    cast.py            both sides from their names, under one memory budget
    conduct.py         the dialogue itself, begun and resumed; so_far.py, what its events say so far; interrupts.py, Ctrl-C; times.py, its clock
    given.py           what a side was given and said, as sequences of ids; agreement.py, whether bundles are of a log
    certificate/       a lower bound on every token's probability, in every context
    named.py           a token as a person names it; reach.py, which texts are tokens
    divergence.py      how far two distributions are from each other; intervals.py, of what was counted, and of a slope
    claims/            what is said about tokens, held against measurement
    forks/             the tree of what else could have been said, and the challenge
    page.py            the page of a whole dialogue

V is the vocabulary's size, K the number of tokens that a rule left.
"""
