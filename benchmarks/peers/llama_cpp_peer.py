"""llama.cpp over its mmap, through llama-cpp-python; the checkpoint is converted first, a second copy of it (see convert_for_llama.py)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import metered
import numpy as np
from llama_cpp import Llama


def load(asked: dict[str, Any]) -> Callable[[list[int]], np.ndarray]:
    path = str(Path(asked["work"]) / "model.gguf")
    model = Llama(path, n_ctx=256, n_threads=asked["threads"], n_threads_batch=asked["threads"], use_mmap=True, logits_all=False, verbose=False)

    def step(ids: list[int]) -> np.ndarray:
        model.eval(ids)
        return np.array(model._ctx.get_logits_ith(-1)[: model.n_vocab()], np.float32)

    return step


metered.run(load)
