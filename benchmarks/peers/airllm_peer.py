"""AirLLM, which writes the checkpoint again layer by layer and reads each layer for each token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import metered
import numpy as np
import torch
from airllm import AutoModel


def load(asked: dict[str, Any]) -> Callable[[list[int]], np.ndarray]:
    torch.set_num_threads(asked["threads"])
    model = AutoModel.from_pretrained(asked["folder"], layer_shards_saving_path=asked["work"], device="cpu")
    seen: list[int] = []

    @torch.no_grad()
    def step(ids: list[int]) -> np.ndarray:
        seen.extend(ids)
        return model(torch.tensor([seen]), use_cache=False).logits[0, -1].float().numpy()

    return step


metered.run(load)
