"""Changes to a written checkpoint, by the publishers' own library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

EXTRA = "model-of-what-is-skipped.safetensors"


def add_tensors(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """One more shard, and its lines in the index."""
    save_file(dict(tensors), folder / EXTRA)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] |= dict.fromkeys(tensors, EXTRA)
    index["metadata"]["total_size"] += sum(t.nbytes for t in tensors.values())
    path.write_text(json.dumps(index))
