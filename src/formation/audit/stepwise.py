"""A run from its anchor, step by step with a KV cache and without capture, in a process of its own: digests of every step and every cell.

    python -m formation.audit.stepwise < {"checkpoint", "mirrors", "bundle", "memory", "threads"}   > {"ids": […], "logits": […], "cache": [[…]…]}

No probe is installed: the caches are read when the last step has ended, as they lie, and states of delta layers as they pass.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from formation.ledger.start import read_anchor
from formation.run.child import asked_of_parent
from formation.run.order import Order, order_of
from formation.run.replay import Keeping, digest
from formation.weights.mirror import open_mirrored


def stepwise(engine: Keeping, order: Order) -> dict[str, Any]:
    """{"ids": [token of each step], "logits": [digest of each step], "cache": [[digest per position] per layer]}"""
    ids, logits = [], []
    past = engine.followed_past(len(order.prompt_ids) + order.tokens - 1)
    for step in engine.generate(order.prompt_ids, order.tokens, order.chooser, stop=order.stop, past=past):
        ids.append(step.id)
        logits.append(digest(step.logits))
    positions = len(order.prompt_ids) + len(ids) - 1  # the last token is never stepped
    return {"ids": ids, "logits": logits, "cache": engine.kept(positions)}


def main() -> int:
    asked = asked_of_parent()
    order = order_of(read_anchor(Path(asked["bundle"])))
    with Keeping(open_mirrored(asked["checkpoint"], asked["mirrors"]), memory=asked["memory"], threads=asked["threads"]) as engine:
        json.dump(stepwise(engine, order), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
