"""Re-execution: what was recorded is computed again, elsewhere or otherwise, and must have the same bits.

An audit, with the weights, of a bundle that somebody else made:

    recorded.py    lines and rows, opened only as they were committed
    challenge.py   what is drawn, after the ledger was hashed
    prompt.py      the prompt's text against its ids
    examination.py the audit of one bundle, from its ledger to its report
    weights.py     the parts that are needed, hashed before use, once for all bundles
    layers.py      cells and columns computed again           steps.py   what is checked of every token
    compare.py     bit for bit, value by value                course.py  these two, of one bundle, in the order of its run
    execution.py   the courses of all bundles in the order of the weights
    odds.py        what would have been found                 report.py, seal.py   what is said of it, and signed
    reexecute.py   audits in one page

Parity, by whoever records:

    parity.py      capture did not perturb the run: it is repeated without capture, in fresh processes
    stepwise.py    such a repetition, step by step with a KV cache
"""

from formation.audit.reexecute import audit, audit_together
from formation.audit.report import AuditReport

__all__ = ["AuditReport", "audit", "audit_together"]
