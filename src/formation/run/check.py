"""Does the checkpoint hold what its config promises: every tensor, of the right shape and dtype, and nothing that nobody knows?"""

from __future__ import annotations

from formation.errors import CheckpointError
from formation.model.architecture import Key, Model, Part, parts_of
from formation.model.quantisation import Stored
from formation.weights.checkpoint import Checkpoint


def check_tensors(model: Model, checkpoint: Checkpoint) -> dict[Key, Part]:
    """The parts of the model, in the order of the forward pass. Raises CheckpointError that names the first tensor that is wrong."""
    parts = parts_of(model, checkpoint.tensors)
    known: set[str] = set()
    for part in parts.values():
        for stored in part.stored:
            _check(stored, checkpoint)
            known.add(stored.name)
    for name in checkpoint.tensors:
        if name not in known and not model.skips(name):
            raise CheckpointError(
                f"tensor {name} in {checkpoint.tensors[name].file}: expected only tensors of the architecture, got one that it does not use",
                hint="the config and the weights may belong to different models",
            )
    return parts


def _check(stored: Stored, checkpoint: Checkpoint) -> None:
    entry = checkpoint.tensors.get(stored.name)
    if entry is None:
        raise CheckpointError(f"checkpoint {checkpoint.path}: expected tensor {stored.name}, got none", hint="a shard may be missing")
    if entry.dtype not in stored.dtypes or tuple(entry.shape) != stored.shape:
        raise CheckpointError(
            f"tensor {stored.name} in {entry.file}: expected {' or '.join(stored.dtypes)} {list(stored.shape)}, got {entry.dtype} {list(entry.shape)}"
        )
