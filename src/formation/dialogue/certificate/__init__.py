"""The certificate of no zero: how improbable any token can be, whatever the context.

    lm_head.py      what it is computed from: the final norm and lm_head, in blocks
    bounds.py       a lower bound on the probability of every token, and a sharper one of those that are named
    attained.py     how near a final state comes to the bound
    certified.py    both, of a checkpoint, as a document

No text is run, and the rounding of norm and head is in the bounds.
"""
