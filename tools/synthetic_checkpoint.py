"""Write a checkpoint of random weights: true names, shapes, dtypes and scales of an architecture, any number of layers and experts.

    python tools/synthetic_checkpoint.py /data/k25-3 --layers 4 --experts 384        # Kimi K2.5's tensors, about 29 GB
    python tools/synthetic_checkpoint.py /data/qwen --model qwen3_next               # Qwen3-Next-80B-A3B's, about 14 GB
    python tools/synthetic_checkpoint.py /data/qwen3 --model qwen3_moe --layers 48   # all of Qwen3-30B-A3B's, 61 GB
    python tools/synthetic_checkpoint.py /tmp/tiny --config some/config.json         # the shapes of any config.json

It computes nothing sensible, at the speed of the real thing: for benchmarks and tests. What is written is what
`formation.model` expects for the config, one shard per layer, in the order in which the safetensors library writes.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from formation.kernels.tensor import DTYPE_BYTES
from formation.model.architecture import Model, part_keys
from formation.model.catalog import read_model
from formation.model.quantisation import Quantisation, Stored

POOL = 1 << 24  # random numbers that all tensors take their values from, at random offsets
LAYERS_OF_K25 = 61
LAYERS_OF_QWEN3_NEXT = 48
LAYERS_OF_QWEN3_MOE = 48
WRITE_ORDER = ("I64", "F32", "I32", "BF16", "F16", "F8_E4M3", "I8")  # of the safetensors library: wide dtypes first, then by name

YARN_OF_K25 = {
    "type": "yarn", "factor": 64.0, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 4096,
}  # fmt: skip
INT4 = {
    "quant_method": "compressed-tensors", "format": "pack-quantized", "kv_cache_scheme": None, "quantization_status": "compressed",
    "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", r"re:.*mlp\.(gate|up|gate_up|down)_proj.*"],
    "config_groups": {"group_0": {
        "input_activations": None, "output_activations": None, "targets": ["Linear"],
        "weights": {"num_bits": 4, "type": "int", "symmetric": True, "group_size": 32, "strategy": "group", "dynamic": False},
    }},
}  # fmt: skip
QWEN3 = {  # what the published configs of that family have in common
    "hidden_size": 2048, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [], "rope_scaling": None, "rms_norm_eps": 1e-6,
    "hidden_act": "silu", "tie_word_embeddings": False, "attention_bias": False, "attention_dropout": 0.0, "use_sliding_window": False,
    "bos_token_id": 151643, "eos_token_id": 151645, "initializer_range": 0.02, "output_router_logits": False, "router_aux_loss_coef": 0.001,
    "torch_dtype": "bfloat16", "use_cache": True,
}  # fmt: skip
FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}


def k25_config(layers: int = LAYERS_OF_K25, experts: int = 384) -> dict[str, Any]:
    """Kimi K2.5's config with fewer layers or experts; vocabulary and dense width shrink with the layers, to keep the mix."""
    share = min(1.0, layers / LAYERS_OF_K25)
    text = {
        "model_type": "kimi_k2", "hidden_size": 7168, "num_hidden_layers": layers, "first_k_dense_replace": 1,
        "intermediate_size": _near(18432 * share, 128), "moe_intermediate_size": 2048, "n_routed_experts": experts, "n_shared_experts": 1,
        "num_experts_per_tok": min(8, experts), "num_attention_heads": 64, "num_key_value_heads": 64, "q_lora_rank": 1536,
        "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size": _near(163840 * share, 256),
        "rms_norm_eps": 1e-5, "rope_theta": 50000.0, "rope_scaling": YARN_OF_K25, "max_position_embeddings": 262144,
        "scoring_func": "sigmoid", "topk_method": "noaux_tc", "n_group": 1, "topk_group": 1, "norm_topk_prob": True,
        "routed_scaling_factor": 2.827, "hidden_act": "silu", "tie_word_embeddings": False, "quantization_config": INT4,
    }  # fmt: skip
    return {"architectures": ["KimiK25ForConditionalGeneration"], "model_type": "kimi_k25", "text_config": text}


def qwen3_next_config(layers: int = LAYERS_OF_QWEN3_NEXT, experts: int = 512) -> dict[str, Any]:
    """Qwen3-Next-80B-A3B's config with fewer layers or experts; the vocabulary shrinks with the layers."""
    share = min(1.0, layers / LAYERS_OF_QWEN3_NEXT)
    return QWEN3 | {
        "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "num_hidden_layers": layers, "intermediate_size": 5120,
        "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512, "num_experts": experts, "num_experts_per_tok": min(10, experts),
        "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 256, "partial_rotary_factor": 0.25, "rope_theta": 10000000,
        "full_attention_interval": 4, "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128,
        "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4, "max_position_embeddings": 262144, "vocab_size": _near(151936 * share, 128),
    }  # fmt: skip


def qwen3_moe_config(layers: int = LAYERS_OF_QWEN3_MOE, experts: int = 128) -> dict[str, Any]:
    """Qwen3-30B-A3B's config with fewer layers or experts; the vocabulary shrinks with the layers."""
    share = min(1.0, layers / LAYERS_OF_QWEN3_MOE)
    return QWEN3 | {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_hidden_layers": layers, "intermediate_size": 6144,
        "moe_intermediate_size": 768, "num_experts": experts, "num_experts_per_tok": min(8, experts), "num_attention_heads": 32,
        "num_key_value_heads": 4, "head_dim": 128, "rope_theta": 1000000.0, "max_position_embeddings": 40960, "max_window_layers": 48,
        "sliding_window": None, "vocab_size": _near(151936 * share, 128),
    }  # fmt: skip


CONFIGS = {"kimi_k25": k25_config, "qwen3_moe": qwen3_moe_config, "qwen3_next": qwen3_next_config}


def _near(value: float, multiple: int) -> int:
    return max(multiple, round(value / multiple) * multiple)


class Random:
    """Values for tensors, of the right kind, fast: slices of one pool, so that 29 GB take no longer than their writing."""

    def __init__(self, seed: int, pool: int = POOL) -> None:
        self._rng = np.random.default_rng(seed)
        self._normal = self._rng.standard_normal(pool, np.float32)
        self._bits = self._rng.integers(0, 256, 8 * pool, np.uint8)

    def tensor(self, stored: Stored, dtype: str) -> Iterator[bytes | memoryview]:
        """The tensor's bytes in pieces, none of them larger than the pool."""
        count = int(np.prod(stored.shape))
        width = stored.shape[-1] if len(stored.shape) > 1 else 1
        if stored.name.endswith(".weight_packed"):
            return self._raw(4 * count)
        if dtype == "F8_E4M3":
            return (piece & 0xB7 for piece in self._raw(count))  # without the NaN codes, and small
        if stored.name.endswith("weight_scale"):  # of q in -8..7, so that a dequantised row has norm 1
            return (_cast(np.abs(v) * 0.1 + 0.9, 1 / (4.6 * (32 * width) ** 0.5), dtype) for v in self._pieces(count))
        if stored.name.endswith("weight_scale_inv"):
            return (_cast(np.abs(v) * 0.1 + 0.9, 0.25 / (128 * width) ** 0.5, dtype) for v in self._pieces(count))
        if "norm" in stored.name:
            return (_cast(v * 0.1 + 1, 1.0, dtype) for v in self._pieces(count))
        scale = 0.01 if stored.name.endswith("bias") else 1.0 if "embed_tokens" in stored.name else width**-0.5
        return (_cast(v, scale, dtype) for v in self._pieces(count))

    def _pieces(self, count: int) -> Iterator[np.ndarray]:
        return self._slices(self._normal, count)

    def _raw(self, count: int) -> Iterator[np.ndarray]:
        return self._slices(self._bits, count)

    def _slices(self, pool: np.ndarray, count: int) -> Iterator[np.ndarray]:
        longest = max(1, len(pool) // 2)
        for begin in range(0, count, longest):
            size = min(longest, count - begin)
            offset = int(self._rng.integers(0, len(pool) - size + 1))
            yield pool[offset : offset + size]


def _cast(values: np.ndarray, scale: float, dtype: str) -> bytes:
    values = (values * np.float32(scale)).astype(np.float32)
    if dtype == "BF16":
        return (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    return values.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()


class Names:
    """Answers which quantised tensors a published checkpoint of this quantisation has: routed experts, or all but the head."""

    def __init__(self, quantisation: Quantisation) -> None:
        self.quantisation = quantisation

    def __contains__(self, name: object) -> bool:
        module, _, kind = str(name).rpartition(".")
        if kind == "weight_packed":
            return self.quantisation.scheme == "int4" and not self.quantisation.keeps_plain(module)
        plain = module.endswith(("lm_head", "embed_tokens")) or self.quantisation.keeps_plain(module)
        return kind == "weight_scale_inv" and self.quantisation.scheme == "fp8" and not plain

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def shards_of(model: Model) -> list[list[Stored]]:
    """One list per layer, then embedding, norm and head."""
    names, shards = Names(model.quantisation), [[] for _ in range(model.shape.layers + 1)]
    for key in part_keys(model.shape):
        shard = key[1] if key[0] in ("layer", "expert") else -1
        shards[shard] += [s for s in model.part(key, names).stored if s not in shards[-1]]
    return shards


def write_checkpoint(
    folder: Path, config: dict[str, Any], *, seed: int = 0, dtype: str = "BF16", pool: int = POOL, digits: int = 5, progress: bool = False
) -> Path:
    """Writes config.json, shards and index into a new folder. `dtype` is that of plain weights; `digits` pads shard numbers."""
    model, random = read_model(config), Random(seed, pool)
    folder.mkdir(parents=True)
    shards, weight_map, total = shards_of(model), {}, 0
    for number, stored in enumerate(shards, 1):
        name = f"model-{number:0{digits}}-of-{len(shards):0{digits and digits + 1}}.safetensors"
        total += write_shard(folder / name, stored, random, dtype)
        weight_map |= dict.fromkeys((s.name for s in stored), name)
        if progress:
            print(f"{name}: {total / 1e9:.2f} GB", file=sys.stderr, flush=True)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    return folder


def write_shard(path: Path, stored: list[Stored], random: Random, plain: str) -> int:
    """One safetensors file in the library's order; returns the bytes of its tensors."""
    dtypes = {s.name: plain if plain in s.dtypes and s.dtypes[0] == "BF16" and len(s.dtypes) == 3 else s.dtypes[0] for s in stored}
    ordered = sorted(stored, key=lambda s: (WRITE_ORDER.index(dtypes[s.name]), s.name))
    header, end = {}, 0
    for s in ordered:
        begin, end = end, end + DTYPE_BYTES[dtypes[s.name]] * int(np.prod(s.shape))
        header[s.name] = {"dtype": dtypes[s.name], "shape": list(s.shape), "data_offsets": [begin, end]}
    encoded = json.dumps({"__metadata__": {"format": "pt"}} | header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        shapes = {s.name: s.shape for s in stored}
        for s in ordered:
            if s.name.endswith(".weight_shape"):
                rows, packed = shapes[s.name.removesuffix("shape") + "packed"]
                file.write(struct.pack("<ii", rows, packed * 8))
                continue
            for piece in random.tensor(s, dtypes[s.name]):
                file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", type=Path, help="shapes of this config.json instead of a published one's")
    parser.add_argument("--model", choices=sorted(CONFIGS), default="kimi_k25", help="whose published config (default Kimi K2.5's)")
    parser.add_argument("--layers", type=int, default=4, help="dense layer included (default 4: about 29 GB)")
    parser.add_argument("--experts", type=int, help="default: as many as published")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    shrunk = {"layers": args.layers} | ({} if args.experts is None else {"experts": args.experts})
    config = json.loads(args.config.read_text()) if args.config else CONFIGS[args.model](**shrunk)
    write_checkpoint(args.folder, config, seed=args.seed, progress=True)


if __name__ == "__main__":
    main()
