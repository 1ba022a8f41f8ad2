"""What if another token had stood there: a dialogue or a recorded run, taken up at one of its tokens in several ways.

    choices.py       what may stand at a fork, as it is written and as ids
    stem.py          what all branches have in common, computed once, and how each of them grows from it
    tree.py          the tokens of all branches as an immutable tree
    log.py           branches.jsonl: one line for each branch, on disk when it is whole, so that a fork that was cut off goes on
    apart.py         how far a branch is from the base: KL and JS at each offset, the first token that differs
    outcomes.py      what came of the branches, with intervals
    source.py        what is forked; of_dialogue.py, a dialogue; of_bundle.py, a recorded run, whose branches are recorded too
    forking.py       a fork, from the choices to the tables
    challenge.py     one model nominates a token (nominate.py), the other speaks in five ways; answer.py, what that says

The base is read, never written. A draw depends on seed, branch number and position: branches with the same numbers share their chances.
"""
