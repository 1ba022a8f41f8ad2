"""From tapped tensors to the values of the ledger. Observing changes no bit of the forward pass: taps are copied, never kept or written.

encode.py       values as JSON: digests, vectors, numbers, absences; and which fields a line must have
readout.py      what is measured of one position: norms, routing, experts, attention, logits
layer.py        what one layer showed of the positions of a pass, held against the rules that its parts must obey bit for bit
layer_probe.py  one layer, within a pass or alone: from its taps to what the ledger says of each cell
step.py         what can be derived once a step's token is known: attribution and lens
head.py         the final norm and lm_head, as the derivations need them
pending.py      a step from its rows to its lines
aside.py        work that nobody waits for yet, done while the run would wait for its disk
recorder.py     the probe that puts all of it together
sidecars.py     rows and router logits, put beside the ledger
spool.py        finished values of a long pass, kept outside memory
cost.py         what recording keeps in memory, before running

Letters: n new positions of a pass, D hidden, H heads, E experts, K chosen experts, V vocabulary, B boundaries.
"""
