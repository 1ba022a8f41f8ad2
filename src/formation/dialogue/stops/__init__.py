"""When a dialogue is over, and from what that follows.

    conditions.py   what a dialogue can be asked while it goes on
    rules.py        the rules of one dialogue: any of them ends it, with its evidence
    words.py        how such rules are written
    simulate.py     where they would have ended a transcript

A rule is a value and a sentence, and what it saw when it held is the evidence of the end.
"""
