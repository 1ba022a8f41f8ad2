"""AirLLM: links or writes the checkpoint again, a file a layer, and reads each layer whole for each token.

Its AutoModel takes AirLLMBaseModel for every architecture it has no class of its own for, DeepSeek-V3 among them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import metered
import numpy as np
import torch
from airllm import AirLLMBaseModel


class WithoutTokenizer(AirLLMBaseModel):
    """The checkpoint has none: ids go in, logits come out."""

    def get_tokenizer(self, hf_token: str | None = None) -> None:
        return None


def load(asked: dict[str, Any]) -> Callable[[list[int]], np.ndarray]:
    torch.set_num_threads(asked["threads"])
    model = WithoutTokenizer(asked["folder"], layer_shards_saving_path=asked["work"], device="cpu")
    return metered.steps_of(model)


metered.run(load)
