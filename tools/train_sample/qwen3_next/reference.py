"""The second sample's folder in transformers, F32, read by the library's own loader."""

import pathlib

import torch
from transformers import Qwen3NextForCausalLM


def load(folder: pathlib.Path) -> Qwen3NextForCausalLM:
    """Raises ValueError where the library misses a tensor, or finds one that belongs to nothing."""
    options = {"dtype": torch.float32, "attn_implementation": "eager", "output_loading_info": True}
    model, found = Qwen3NextForCausalLM.from_pretrained(folder, **options)
    wrong = {kind: sorted(names) for kind, names in found.items() if names}
    if wrong:
        raise ValueError(f"{folder}: expected exactly the tensors of its config, got {wrong}")
    return model.eval()
