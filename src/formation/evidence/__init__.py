"""Evidence: a recorded run becomes a bundle that anyone can check. The flow, from a recorder's folder to a verdict:

    keys.py       who signs: Ed25519 keys, made once per user, and public keys that are refused if anyone could forge under them
    note.py       a tree's size and root -> tree-head.txt, signed            (C2SP signed-note, tlog-checkpoint)
    envelope.py   a statement about files -> attestation.json, signed        (in-toto Statement, DSSE, Sigstore bundle)
    payloads.py   digests of the weights' tensors -> tensor-digests.json, if that pass was made
    seal.py       a folder -> tree head and attestation
    receipt.py    one line of the ledger -> a file that proves it            (C2SP tlog-proof)
    strict.py     bytes -> values, or a refusal that says which check refused them

    container.py  a folder or a ZIP (archive.py) -> streams, by allow-listed name
    documents.py  what the small documents must say, to the last field
    ledger_pass.py   the one pass over the ledger, with rows beside it (sidecar_pass.py) and the anchor at hand (run_facts.py)
    verify.py     a bundle, receipt or digest -> numbered checks (checks.py) -> a verdict in levels (report.py)
    search.py     what under a path has a digest

Nothing here imports numpy, the kernels, a model, weights or a network module. `cryptography` is loaded when a signature is made or checked.
"""
