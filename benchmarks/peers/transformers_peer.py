"""transformers with a disk device map (`map`: what does not fit stays on disk, from where it is read), or accelerate's disk offload (`offload`).

python transformers_peer.py map|offload
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import metered
import numpy as np
import torch
from accelerate import disk_offload
from transformers import AutoModelForCausalLM


def load(asked: dict[str, Any]) -> Callable[[list[int]], np.ndarray]:
    torch.set_num_threads(asked["threads"])
    away = str(Path(asked["work"]) / "offloaded")
    how: dict[str, Any] = {"dtype": torch.bfloat16, "attn_implementation": "eager"}
    if sys.argv[1] == "map":
        how |= {"device_map": "auto", "max_memory": {"cpu": asked["weights_bytes"]}, "offload_folder": away}
    model = AutoModelForCausalLM.from_pretrained(asked["folder"], **how)
    if sys.argv[1] == "offload":
        disk_offload(model, away, execution_device=torch.device("cpu"))
    return metered.steps_of(model)


metered.run(load)
