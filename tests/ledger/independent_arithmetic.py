"""The arithmetic of docs/spec/numerics.md, written from that page alone: numpy, and nothing of Formation.

Letters: K length of a sum, N outputs, V vocabulary, D hidden.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import deserialize

F = np.float32
LANES = 16

# ---- rules 1 and 2


def lane_sum(terms: np.ndarray) -> np.ndarray:
    """[…, K] -> […], in the type of the terms: sixteen lanes from +0, the tail of zeros, then folded"""
    missing = -terms.shape[-1] % LANES
    padded = np.concatenate([terms, np.zeros((*terms.shape[:-1], missing), terms.dtype)], axis=-1)
    lanes = np.zeros((*terms.shape[:-1], LANES), terms.dtype)
    for k in range(0, padded.shape[-1], LANES):
        lanes = lanes + padded[..., k : k + LANES]
    for half in (8, 4, 2, 1):
        lanes = lanes[..., :half] + lanes[..., half : 2 * half]
    return lanes[..., 0]


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return lane_sum(a * b)


def dot64(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Widened first: products and sums of binary32 values in binary64"""
    return dot(a.astype(np.float64), b.astype(np.float64))


def norm(x: np.ndarray) -> np.ndarray:
    return np.sqrt(dot(x, x))


def rms_norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    r = F(1) / np.sqrt(dot(x, x) / F(len(x)) + F(eps))
    return (x * r) * weight


# ---- functions

H, L, LOG2E = F(float.fromhex("0x1.62e4p-1")), F(float.fromhex("0x1.7f7d1cp-20")), F(float.fromhex("0x1.715476p+0"))
P_EXP = [F(float.fromhex(p)) for p in ("0x1.a1256cp-13", "0x1.6d43b0p-10", "0x1.1110e0p-7", "0x1.5554e8p-5", "0x1.555556p-3", "0x1p-1")]
MAGIC = F(1.5 * 2**23)


def exp(x: np.ndarray) -> np.ndarray:
    y = np.minimum(x, F(89))
    n = (y * LOG2E + MAGIC) - MAGIC
    r = (y - n * H) - n * L
    rest = ((y - n * H) - r) - n * L
    p = np.full_like(r, P_EXP[0])
    for coefficient in P_EXP[1:]:
        p = p * r + coefficient
    e = (r + (rest + (r * r) * p)) + F(1)
    half = np.floor(n / F(2))
    return np.where(x < F(-80), F(0), e * np.exp2(half) * np.exp2(n - half))


def sigmoid(x: np.ndarray) -> np.ndarray:
    z = exp(-np.abs(x))
    return np.where(x >= 0, F(1) / (z + F(1)), z / (z + F(1)))


def swiglu(x: np.ndarray, gate: np.ndarray, up: np.ndarray, down: np.ndarray) -> np.ndarray:
    g = dot(x, gate)
    return dot((g * sigmoid(g)) * dot(x, up), down)


# ---- weights, rule 4


class Weights:
    """A checkpoint's tensors, as the safetensors library reads them, widened or dequantised."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.text = json.loads((folder / "config.json").read_text())["text_config"]
        self._files = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
        self.tensor = cache(self._tensor)
        self._shard = cache(lambda file: dict(deserialize((folder / file).read_bytes())))

    def _raw(self, name: str) -> tuple[str, np.ndarray]:
        entry: dict[str, Any] = self._shard(self._files[f"language_model.{name}"])[f"language_model.{name}"]
        types = {"BF16": "<u2", "F32": "<f4", "I32": "<i4"}
        return entry["dtype"], np.frombuffer(entry["data"], types[entry["dtype"]]).reshape(entry["shape"])

    def _tensor(self, module: str) -> np.ndarray:
        """`module`.weight, or its packed form, or the tensor of that very name, as binary32"""
        if f"language_model.{module}.weight_packed" in self._files:
            return self._unpacked(module)
        dtype, values = self._raw(f"{module}.weight" if f"language_model.{module}.weight" in self._files else module)
        return widened(values) if dtype == "BF16" else values

    def _unpacked(self, module: str) -> np.ndarray:
        words = self._raw(f"{module}.weight_packed")[1].view("<u4")
        q = ((words[..., None] >> np.arange(0, 32, 4, dtype=np.uint32)) & 15).astype(np.int32).reshape(len(words), -1) - 8
        scale = np.repeat(widened(self._raw(f"{module}.weight_scale")[1]), 32, axis=1)
        return to_bf16(q.astype(F) * scale)

    def mlp(self, prefix: str, x: np.ndarray) -> np.ndarray:
        return swiglu(x, *(self.tensor(f"{prefix}.{kind}_proj") for kind in ("gate", "up", "down")))


def widened(bf16: np.ndarray) -> np.ndarray:
    return (bf16.astype(np.uint32) << 16).view(F)


def to_bf16(x: np.ndarray) -> np.ndarray:
    """To nearest even, still binary32"""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(F)
