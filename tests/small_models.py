"""Small random checkpoints with the shapes of the real ones, for tests that need a whole model."""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path
from typing import Any

from tools.synthetic_checkpoint import FP8, k25_config, qwen3_moe_config, qwen3_next_config, write_checkpoint

TEXT = {
    "hidden_size": 96, "num_hidden_layers": 4, "intermediate_size": 160, "moe_intermediate_size": 64, "num_attention_heads": 4,
    "num_key_value_heads": 4, "q_lora_rank": 48, "kv_lora_rank": 32, "qk_nope_head_dim": 24, "qk_rope_head_dim": 8, "v_head_dim": 24,
    "vocab_size": 512, "num_experts_per_tok": 4, "n_routed_experts": 24, "max_position_embeddings": 256,
}  # fmt: skip
QWEN = {
    "hidden_size": 96, "moe_intermediate_size": 64, "shared_expert_intermediate_size": 64, "num_experts_per_tok": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 24,
    "linear_value_head_dim": 40, "vocab_size": 512, "max_position_embeddings": 256, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
K2_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}<|im_system|>{% else %}<|im_user|>{% endif %}"
    "{{ m.role }}<|im_middle|>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_assistant|>assistant<|im_middle|>{% endif %}"
)
SPECIALS = {0: "[BOS]", 1: "[EOS]", 2: "<|im_end|>", 3: "<|im_user|>", 4: "<|im_assistant|>", 10: "<|im_system|>", 17: "<|im_middle|>"}


def small_config(**text: Any) -> dict[str, Any]:
    """Kimi K2.5's config with small shapes; keyword arguments change keys of its text config."""
    config = copy.deepcopy(k25_config(4, 24))
    config["text_config"] |= TEXT | text
    return config


def flat_config(model_type: str = "deepseek_v3", **text: Any) -> dict[str, Any]:
    """The same without the wrapper of K2.5, unquantised."""
    flat = small_config()["text_config"] | {"model_type": model_type, "architectures": ["DeepseekV3ForCausalLM"]}
    del flat["quantization_config"]
    return flat | text


def fp8_config(**text: Any) -> dict[str, Any]:
    return flat_config("kimi_k2", quantization_config=FP8, **text)


def qwen_config(**keys: Any) -> dict[str, Any]:
    """Qwen3-Next's config with small shapes: three delta layers, then one with attention."""
    return qwen3_next_config(4, 24) | QWEN | keys


def qwen3_config(**keys: Any) -> dict[str, Any]:
    """The config of Qwen3 with experts, with small shapes."""
    return qwen3_moe_config(4, 24) | {name: value for name, value in QWEN.items() if not name.startswith(("linear_", "shared_"))} | keys


def small_checkpoint(folder: Path, config: dict[str, Any] | None = None, *, seed: int = 0, dtype: str = "BF16") -> Path:
    """Writes weights, and a tokenizer of single bytes with K2's special tokens and chat format."""
    write_checkpoint(folder, config or small_config(), seed=seed, dtype=dtype, pool=1 << 16)
    lines = (base64.b64encode(bytes([b])) + b" " + str(b).encode() + b"\n" for b in range(256))
    (folder / "tiktoken.model").write_bytes(b"".join(lines))
    added = {str(256 + i): {"content": name, "special": True} for i, name in SPECIALS.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added, "eos_token": "[EOS]", "bos_token": "[BOS]"}))
    (folder / "chat_template.jinja").write_text(K2_TEMPLATE)
    return folder
