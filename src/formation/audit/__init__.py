"""Re-execution: what was recorded is computed again, elsewhere or otherwise, and must have the same bits.

An audit, with the weights, of a bundle that somebody else made:

    recorded.py    lines and rows, opened only as they were committed
    challenge.py   what is drawn, after the ledger was hashed
    weights.py     the parts that are needed, hashed before use
    layers.py      cells and columns computed again           steps.py   what is checked of every token
    prompt.py      the prompt's text against its ids
    compare.py     bit for bit, value by value                execution.py   all of it in the order of the weights
    odds.py        what would have been found                 report.py, seal.py   what is said of it, and signed
    reexecute.py   the audit in one page

Parity, by whoever records:

    parity.py      capture did not perturb the run: it is repeated without capture, in fresh processes
    stepwise.py    such a repetition, step by step with a KV cache
"""

from formation.audit.reexecute import audit
from formation.audit.report import AuditReport

__all__ = ["AuditReport", "audit"]
