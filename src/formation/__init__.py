"""Formation: run a mixture-of-experts model bigger than memory, the same bits everywhere, and see how each token formed.

    checkpoint -> weights -> model -> run -> (probe -> ledger -> evidence -> verify, audit, explorer, note)

    import formation

    checkpoint = formation.open("path/to/Kimi-K2.5")
    with formation.Engine(checkpoint, memory="8GiB", threads=2) as engine:
        logits = engine.logits([1, 2, 3])                       # float32 [3, vocabulary]
        for step in engine.generate([1, 2, 3], 5, formation.Greedy()):
            print(step.id, step.reads.disk_bytes)

Names are resolved when first used, so that the command line starts at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from formation.version import __version__ as __version__

if TYPE_CHECKING:
    from formation.evidence.bundle import Bundle
    from formation.recording import record
    from formation.run.generate import Engine, Step
    from formation.run.sample import Greedy, Sample
    from formation.weights.checkpoint import Checkpoint
    from formation.weights.checkpoint import open_checkpoint as open

__all__ = ["Bundle", "Checkpoint", "Engine", "Greedy", "Sample", "Step", "open", "record"]

_HOMES = {
    "Bundle": ("formation.evidence.bundle", "Bundle"),
    "Checkpoint": ("formation.weights.checkpoint", "Checkpoint"),
    "Engine": ("formation.run.generate", "Engine"),
    "Greedy": ("formation.run.sample", "Greedy"),
    "Sample": ("formation.run.sample", "Sample"),
    "Step": ("formation.run.generate", "Step"),
    "open": ("formation.weights.checkpoint", "open_checkpoint"),
    "record": ("formation.recording", "record"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'formation' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
