"""A small unsealed bundle, made of the parts that sealing looks at; what the ledger says is no model's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from formation.ledger import canonical, merkle
from formation.ledger.anchor import Anchor

TENSORS = ["a.weight", "b.weight", "c.weight"]
TABLE = [{"file": "m.safetensors", "name": name, "dtype": "F32", "shape": [1], "begin": 4 * i, "end": 4 * i + 4} for i, name in enumerate(TENSORS)]
ROOT = merkle.root_of(merkle.leaf_hash(canonical.encode(row)) for row in TABLE).hex()
ANCHOR = Anchor((5, 6), None, "ab" * 32, ROOT, "f32x16/1", "cd" * 32, {"method": "greedy"}, 2, ())
SLOTS = ("embed", "layer 0", "layer 1")


def ledger_lines() -> list[dict[str, Any]]:
    """A run line, a prompt position, two steps."""
    places = [(-1, "run", "run"), *((0, slot, "prompt") for slot in SLOTS)]
    places += [(p, slot, "generated") for p in (1, 2) for slot in (*SLOTS, "lm_head", "sampler", "token")]
    return [
        {"run_id": ANCHOR.run_id, "position": position, "slot": slot, "kind": kind, "measured": {"n": n}, "derived": {}}
        for n, (position, slot, kind) in enumerate(places)
    ]


def documents() -> dict[str, bytes]:
    values: dict[str, Any] = {
        "checkpoint.json": {"files": [], "tensor_table": TABLE, "tensor_table_root": ROOT},
        "contract.json": {"name": "f32x16/1"},
        "host.json": {},
        "parity.json": {"parity": "passed"},
    }
    return {
        **{name: canonical.encode(value) for name, value in values.items()},
        "anchor.json": ANCHOR.encode(),
        "io.jsonl": b"{}\n",
        "ledger.jsonl": b"".join(canonical.encode(line) + b"\n" for line in ledger_lines()),
        "rows/00000000.safetensors": b"rows",
        "router/00000000.safetensors": b"router",
    }


def write_bundle(folder: Path) -> Path:
    for name, data in documents().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder
