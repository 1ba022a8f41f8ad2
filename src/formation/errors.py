"""Every error Formation raises on purpose, and the exit code each one means.

    FormationError
    ├── UsageError                2  the call itself is wrong: an option, an id, a prompt that cannot be
    │   └── PromptError           2  a prompt that does not fit the model (length, id outside the vocabulary)
    ├── EnvironmentFault          3  file, memory or disk
    │   ├── CheckpointError       3  the checkpoint folder is not what it must be
    │   │   ├── HeaderError       3  a safetensors header that lies
    │   │   ├── UnsupportedError  3  architecture, quantisation or config key we do not understand
    │   │   └── NonFiniteError    3  NaN or infinity where it first appears
    │   ├── ReadError             3  the file system failed or a file changed during the run
    │   ├── BudgetError           3  the memory budget cannot hold what the run needs
    │   └── KernelError           3  the C library is missing or refuses
    ├── EvidenceError             1  what a run recorded does not hold together
    │   ├── RuleBroken            1  a sum rule of the ledger
    │   ├── ParityBroken          1  a run without capture gave other bits
    │   └── Refused               1  bytes that are not the evidence they claim to be; names its check (evidence/strict.py)
    └── Interrupted             130  Ctrl-C

Sentences are lowercase, without a full stop, "expected X, got Y", and name the object. `hint` says what to do next.
"""

from __future__ import annotations


class FormationError(Exception):
    """Base of the tree: a sentence, an optional hint, and the exit code of the command line."""

    exit_code = 3

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(FormationError):
    exit_code = 2


class PromptError(UsageError):
    pass


class EnvironmentFault(FormationError):
    exit_code = 3


class CheckpointError(EnvironmentFault):
    pass


class HeaderError(CheckpointError):
    pass


class UnsupportedError(CheckpointError):
    pass


class NonFiniteError(CheckpointError):
    pass


class ReadError(EnvironmentFault):
    pass


class BudgetError(EnvironmentFault):
    pass


class KernelError(EnvironmentFault):
    pass


class EvidenceError(FormationError):
    exit_code = 1


class RuleBroken(EvidenceError):
    pass


class ParityBroken(EvidenceError):
    pass


class Interrupted(FormationError):
    exit_code = 130
