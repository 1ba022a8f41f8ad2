"""What every peer's program shares: what is asked of it on stdin, and what each of its steps costs.

Asked: {"folder": checkpoint, "work": a folder of its own, "prompt": ids, "forced": the ids that follow, whatever a model says, "threads": n}.
Answered on the last line of stdout: {"load": cost, "prompt": cost, "steps": [cost …]} with cost = {"seconds", "read_bytes"}; work/logits.npy
has the logits after the prompt and after each forced id [1 + steps, vocabulary], in binary32.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def bytes_from_disk() -> int:
    """Of this process, page faults and read-ahead included"""
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["read_bytes"])


def cost(action: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    read, began = bytes_from_disk(), time.perf_counter()
    result = action()
    return result, {"seconds": time.perf_counter() - began, "read_bytes": bytes_from_disk() - read}


def steps_of(model: Any) -> Callable[[list[int]], np.ndarray]:
    """Of a model with the interface of transformers, its cache kept from step to step. torch is imported here: not every peer has it."""
    import torch

    cache: list[Any] = [None]

    @torch.no_grad()
    def step(ids: list[int]) -> np.ndarray:
        out = model(torch.tensor([ids]), past_key_values=cache[0], use_cache=True)
        cache[0] = out.past_key_values
        return out.logits[0, -1].float().numpy()

    return step


def run(load: Callable[[dict[str, Any]], Callable[[list[int]], np.ndarray]]) -> None:
    """`load` gives a function that takes the next ids and gives the logits after the last of them."""
    asked = json.load(sys.stdin)
    step, loading = cost(lambda: load(asked))
    logits, prompt = cost(lambda: step(asked["prompt"]))
    rows, steps = [logits], []
    for token in asked["forced"]:
        logits, each = cost(lambda token=token: step([token]))
        rows.append(logits)
        steps.append(each)
    np.save(Path(asked["work"]) / "logits.npy", np.stack(rows).astype(np.float32))
    print(json.dumps({"load": loading, "prompt": prompt, "steps": steps}), flush=True)
