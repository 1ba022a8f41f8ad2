"""A run from its anchor, step by step with a KV cache and without capture, in a process of its own: digests of every step and every cell.

    python -m formation.audit.stepwise < {"checkpoint", "bundle", "memory", "threads"}   > {"ids": […], "logits": […], "cache": [[…]…]}

No probe is installed: the caches are read when the last step has ended, as they lie.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from formation.kernels import ops
from formation.ledger.start import read_anchor
from formation.run.generate import Engine
from formation.run.order import Order, order_of
from formation.run.replay import digest
from formation.weights.checkpoint import open_checkpoint


class Keeping(Engine):
    """Keeps hold of the caches of the run it is in."""

    caches: list[Any]

    def _new_caches(self, positions: int) -> list[Any]:
        self.caches = super()._new_caches(positions)
        return self.caches


def stepwise(engine: Keeping, order: Order) -> dict[str, Any]:
    """{"ids": [token of each step], "logits": [digest of each step], "cache": [[digest per position] per layer]}"""
    ids, logits = [], []
    for step in engine.generate(order.prompt_ids, order.tokens, order.sampler, stop=order.stop):
        ids.append(step.id)
        logits.append(digest(step.logits))
    positions = len(order.prompt_ids) + len(ids) - 1  # the last token is never stepped
    keys = [ops.cache_load(cache.values, 0, positions) for cache in engine.caches]
    return {"ids": ids, "logits": logits, "cache": [[digest(row) for row in layer] for layer in keys]}


def main() -> int:
    asked = json.load(sys.stdin)
    order = order_of(read_anchor(Path(asked["bundle"])))
    with Keeping(open_checkpoint(asked["checkpoint"]), memory=asked["memory"], threads=asked["threads"]) as engine:
        json.dump(stepwise(engine, order), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
