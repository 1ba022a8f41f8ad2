"""Claims: what is said in a dialogue about its own tokens, held against a measurement.

    claim.py        a claim, what was found, and the verdict; the document that a page shows
    judge.py        from what was found and what the claim says to the verdict
    procedure.py    what a procedure is, and what it is given
    catalog.py      every procedure by its name
    in_transcript.py  counts and durations
    standards.py    what a standard or arithmetic says: Unicode, UTF-8, HTTP, exit statuses, softmax, entropy, divergence
    inventory.py    what a checkpoint and its tokenizer have
    at_positions.py probability, rank, kind of zero, entropy, slope: of tokens that were said
    of_a_run.py     what a run here does: weights, passes, cache, going back
    models.py       the checkpoints that stand in for the sides, each a model.py; readings.py, what it or a log says of each token; trial.py, the run
    read.py         claims.toml, strictly
    lexicon.py      words that a claim may hide behind: suggestions, no judgement

No model judges. What is measured here is about a model, a template and a context that are here, never about what another machine did.
"""
