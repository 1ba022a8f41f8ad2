"""How a linear map is stored: plain, int4 `pack-quantized` (compressed-tensors) or fp8 in 128x128 blocks; mixed as the config's `ignore` says.

The names in the checkpoint say which storage a module has, the config says which storages are to be expected: they must agree.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from formation.errors import UnsupportedError
from formation.kernels.tensor import DTYPE_BYTES, Tensor
from formation.model.config import Keys

GROUP = 32
BLOCK = 128


class Stored(NamedTuple):
    """A tensor a part expects in the checkpoint; the first dtype is what is assumed where only names are known."""

    name: str
    dtypes: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return DTYPE_BYTES[self.dtypes[0]] * math.prod(self.shape)

    @property
    def parameters(self) -> int:
        """Trained numbers it holds: scales and shapes hold none, a packed int32 holds eight."""
        if self.name.endswith((".weight_scale", ".weight_scale_inv", ".weight_shape")):
            return 0
        return math.prod(self.shape) * (8 if self.name.endswith(".weight_packed") else 1)


@dataclass(frozen=True)
class Quantisation:
    """`scheme` is None, "int4" or "fp8"; `ignore` are the module patterns that stay plain."""

    scheme: str | None = None
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _compiled(self.ignore)

    def keeps_plain(self, module: str) -> bool:
        """Whether the config says that this module is not quantised (exact name, or `re:` pattern from its start)."""
        if self.scheme is None:
            return True
        bare = module.removeprefix("language_model.")  # published patterns are written for either name
        names = (module,) if bare == module else (module, bare)
        return any(pattern.match(name) for pattern in _compiled(self.ignore) for name in names)

    def describe(self) -> str:
        return {None: "none", "int4": f"int4, groups of {GROUP}", "fp8": f"fp8 e4m3, {BLOCK}x{BLOCK} blocks"}[self.scheme]

    def stored(self, module: str, rows: int, cols: int, names: Collection[str]) -> tuple[Stored, ...]:
        """The tensors that hold the matrix [rows, cols] of `module`, given the names that the checkpoint has."""
        packed = f"{module}.weight_packed" in names
        blocks = f"{module}.weight_scale_inv" in names
        if (packed or blocks) and (self.keeps_plain(module) or packed != (self.scheme == "int4")):
            raise UnsupportedError(
                f"tensor {module}.weight: expected plain storage, since quantization_config is {self.describe()!r}, "
                f"got {'int4' if packed else 'fp8'} tensors"
            )
        if packed and cols % GROUP:
            raise UnsupportedError(f"tensor {module}.weight_packed: expected a multiple of {GROUP} columns, got {cols}")
        if packed:
            return (
                Stored(f"{module}.weight_packed", ("I32",), (rows, cols // 8)),
                Stored(f"{module}.weight_scale", ("BF16",), (rows, cols // GROUP)),
                Stored(f"{module}.weight_shape", ("I32", "I64"), (2,)),
            )
        if blocks:
            scales = (-(-rows // BLOCK), -(-cols // BLOCK))
            return Stored(f"{module}.weight", ("F8_E4M3",), (rows, cols)), Stored(f"{module}.weight_scale_inv", ("F32",), scales)
        return (plain(f"{module}.weight", rows, cols),)


def plain(name: str, *shape: int) -> Stored:
    return Stored(name, ("BF16", "F32", "F16"), shape)


@lru_cache(maxsize=16)
def _compiled(patterns: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    """Of exact names, and of what follows `re:`. Raises UnsupportedError for one that is no pattern."""
    try:
        return tuple(re.compile(p[3:] if p.startswith("re:") else re.escape(p) + r"\Z") for p in patterns)
    except re.error as error:
        raise UnsupportedError(f"quantization_config: expected patterns of module names, got {error.pattern!r}: {error}") from None


def non_finite(tensor: Tensor) -> int | None:
    """Flat index of the first NaN or infinity of a stored floating-point tensor; None when there is none."""
    raw = tensor.data.tobytes()
    masks = {"F32": ("<u4", 0x7F800000), "BF16": ("<u2", 0x7F80), "F16": ("<u2", 0x7C00)}
    if tensor.dtype == "F8_E4M3":
        bad = (np.frombuffer(raw, "u1") & 0x7F) == 0x7F
    elif tensor.dtype in masks:
        code, mask = masks[tensor.dtype]
        bad = (np.frombuffer(raw, code) & mask) == mask
    else:
        return None
    return int(bad.argmax()) if bad.any() else None


def read_quantisation(keys: Keys) -> Quantisation:
    section = keys.section("quantization_config") or keys.section("compression_config")
    if section is None:
        return Quantisation()
    method = section.choice("quant_method", ("compressed-tensors", "fp8"))
    return _read_fp8(section) if method == "fp8" else _read_packed(section)


def _read_fp8(section: Keys) -> Quantisation:
    section.choice("fmt", ("e4m3",), "e4m3")
    if section.values.get("weight_block_size") != [BLOCK, BLOCK]:
        raise UnsupportedError(f"{section.where}: weight_block_size: expected [128, 128], got {section.values.get('weight_block_size')}")
    # activation_scheme tells servers how to quantise activations; the contract keeps them in binary32.
    section.skip("weight_block_size", "activation_scheme", "scale_fmt")
    ignore = section.values.get("modules_to_not_convert") or ()
    section.skip("modules_to_not_convert")
    section.finish(frozenset())
    return Quantisation("fp8", tuple(map(str, ignore)))


def _read_packed(section: Keys) -> Quantisation:
    section.choice("format", ("pack-quantized",))
    if section.values.get("kv_cache_scheme") is not None:
        raise UnsupportedError(f"{section.where}: kv_cache_scheme: expected null, got {section.values['kv_cache_scheme']!r}")
    section.skip("kv_cache_scheme", "quantization_status", "global_compression_ratio", "sparsity_config", "transform_config", "version")
    for name in ("sparsity_config", "transform_config"):
        if section.values.get(name):
            raise UnsupportedError(f"{section.where}: {name}: expected nothing, got {section.values[name]!r}")
    groups = section.section("config_groups")
    if groups is None or len(groups.values) != 1:
        raise UnsupportedError(f"{section.where}: config_groups: expected one group, got {groups and sorted(groups.values)}")
    (group_name,) = groups.values
    group = groups.section(group_name)
    assert group is not None or groups.values[group_name] is None
    _check_group(group, f"{groups.where}: {group_name}")
    ignore = section.values.get("ignore") or ()
    section.skip("ignore")
    section.finish(frozenset())
    return Quantisation("int4", tuple(map(str, ignore)))


def _check_group(group: Keys | None, where: str) -> None:
    weights = group.section("weights") if group else None
    if group is None or weights is None:
        raise UnsupportedError(f"{where}: weights: expected an object, got null")
    for name in ("input_activations", "output_activations"):
        if group.values.get(name) is not None:
            raise UnsupportedError(f"{where}: {name}: expected null, got {group.values[name]!r}")
    expected = {"num_bits": 4, "type": "int", "symmetric": True, "group_size": GROUP, "strategy": "group"}
    for name, value in expected.items():
        if weights.values.get(name) != value:
            raise UnsupportedError(f"{weights.where}: {name}: expected {value!r}, got {weights.values.get(name)!r}")
    if weights.values.get("actorder") or weights.values.get("dynamic"):
        raise UnsupportedError(f"{weights.where}: expected static weights in their own order, got actorder or dynamic")
