"""Finds the C library of the kernels, loads it once, and declares its functions as formation.h does.

Search order: the file named by FORMATION_LIBRARY, the library beside this package, that of an editable install. The library
chooses the instruction set itself, from the CPU or from FORMATION_ISA (avx512, avx2 or plain); all give the same bits.
"""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig
from functools import cache
from pathlib import Path

from formation.errors import KernelError

ABI = 1
ISAS = ("avx512", "avx2", "plain")
BUILD_HINT = "install the package with `pip install .` (it needs a C compiler), or build with cmake and set FORMATION_LIBRARY to the library"

P, I64, I32, F32, F64, U64 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float, ctypes.c_double, ctypes.c_uint64


class WeightStruct(ctypes.Structure):
    """fk_weight"""

    _fields_ = [("kind", ctypes.c_int32), ("rows", I64), ("cols", I64), ("data", P), ("scale", P)]


class RouterStruct(ctypes.Structure):
    """fk_router"""

    _fields_ = [
        ("experts", I64),
        ("chosen", I64),
        ("groups", I64),
        ("kept_groups", I64),
        ("softmax", ctypes.c_int32),
        ("group_top2", ctypes.c_int32),
        ("normalise", ctypes.c_int32),
        ("scale", F32),
    ]


class DrawStruct(ctypes.Structure):
    """fk_draw"""

    _fields_ = [("id", I64), ("kept", I64), ("draw", F64), ("low", F64), ("high", F64), ("kept_mass", F64)]


STATUS_FUNCTIONS = {
    "fk_linear": [P, P, P, I64, I32],
    "fk_heads_linear": [P, I64, I64, I64, I64, P, P, I64, I32],
    "fk_heads_linear_t": [P, I64, I64, I64, I64, P, P, I64, I32],
    "fk_gather": [P, P, P, I64, I32],
    "fk_rmsnorm": [P, I64, P, F32, P, I64, I64, I64, I32],
    "fk_rope_table": [P, P, F32, P, P, I64, I64],
    "fk_rope_interleaved": [P, I64, I64, P, P, I64, I64, I64, I32],
    "fk_rope_halves": [P, I64, I64, P, P, I64, I64, I64, I32],
    "fk_cache_store": [P, I64, I64, P, I64],
    "fk_cache_load": [P, I64, I64, P, I64],
    "fk_mla_attend": [P, P, P, F32, P, P, I64, I64, I64, I64, I64, I32],
    "fk_gqa_attend": [P, P, P, F32, P, P, I64, I64, I64, I64, I64, I64, I32],
    "fk_conv_silu": [P, P, P, I64, I64, I64, I32],
    "fk_l2norm": [P, F32, P, I64, I64, I32],
    "fk_delta_gates": [P, P, P, P, P, P, I64, I64, I32],
    "fk_delta_rule": [P, P, P, P, P, F32, P, P, I64, I64, I64, I64, I64, I32],
    "fk_rmsnorm_gated": [P, P, P, F32, P, I64, I64, I32],
    "fk_add": [P, P, P, I64, I32],
    "fk_silu_mul": [P, P, P, I64, I32],
    "fk_sigmoid_mul": [P, P, P, I64, I32],
    "fk_accumulate": [P, P, P, P, P, I64, I64, I32],
    "fk_route": [P, P, P, P, P, P, P, I64, I32],
    "fk_pow64": [P, P, P, I64],
    "fk_finite": [P, I64, P],
    "fk_sample": [P, I64, F64, I64, F64, F64, F64, P],
    "fk_norms": [P, P, I64, I64, I32],
    "fk_dots64": [P, P, I64, P, I64, I64, I32],
    "fk_remainder": [P, P, P, I64, I64],
    "fk_attribute": [P, P, P, F64, P, I64, I64, I32],
    "fk_attribute64": [P, P, P, F64, P, I64, I64, I32],
    "fk_column_sums": [P, P, I64, I64, I32],
    "fk_logit_statistics": [P, P, I64, I64, I32],
    "fk_ranks": [P, I64, P, P, I64, I64, I32],
    "fk_largest": [P, P, I64, I64, I64, I32],
    "fk_divergences": [P, F64, P, P, P, I64, I64, I32],
    "fk_entropies": [P, P, I64, I64, I32],
} | {f"fk_{name}": [P, P, I64] for name in ("exp", "log", "sigmoid", "silu", "softplus", "exp64", "log64", "sin64", "cos64")}


@cache
def load() -> ctypes.CDLL:
    """The library, loaded and checked. Raises KernelError when it is missing, of another version, or lacks the wanted instruction set."""
    path = find()
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelError(f"{path}: expected a library of kernels, got {error}", hint=BUILD_HINT) from error
    declare(path, library)
    check_isa(library)
    return library


def find() -> Path:
    named = os.environ.get("FORMATION_LIBRARY")
    installed = Path(sysconfig.get_path("platlib"), "formation", "kernels", library_name())  # of an editable install
    places = [Path(named)] if named else [Path(__file__).with_name(library_name()), installed]
    for path in places:
        if path.is_file():
            return path
    raise KernelError(f"expected the library of kernels at {places[0]}, got no such file", hint=BUILD_HINT)


def library_name() -> str:
    return "libformation_kernels.dylib" if sys.platform == "darwin" else "libformation_kernels.so"


def declare(path: Path, library: ctypes.CDLL) -> None:
    try:
        version = int(library.fk_abi())
        if version != ABI:
            raise KernelError(f"{path}: expected kernels of interface {ABI}, got {version}", hint=BUILD_HINT)
        for name, arguments in STATUS_FUNCTIONS.items():
            getattr(library, name).argtypes = arguments
        library.fk_isa.restype, library.fk_isa_available.argtypes = ctypes.c_char_p, [ctypes.c_char_p]
        library.fk_uniform.restype, library.fk_uniform.argtypes = F64, [U64, U64, U64]
        library.fk_argmax.restype, library.fk_argmax.argtypes = I64, [P, I64]
    except AttributeError as error:
        raise KernelError(f"{path}: expected the functions of interface {ABI}, got {error}", hint=BUILD_HINT) from error


def check_isa(library: ctypes.CDLL) -> None:
    if library.fk_isa() is not None:
        return
    present = [name for name in ISAS if library.fk_isa_available(name.encode())]
    wanted = os.environ.get("FORMATION_ISA")
    raise KernelError(
        f"FORMATION_ISA: expected one of {', '.join(present)}, got {wanted}",
        hint="unset FORMATION_ISA to take the fastest; every choice gives the same bits",
    )


def demand(name: str, status: int) -> None:
    """Raises for a status that is not FK_OK."""
    if status == -1:
        raise ValueError(f"{name}: expected arguments within its domain, got a refusal from the kernel")
    if status == -2:
        raise KernelError(f"{name}: expected memory for its scratch, got none", hint="free memory or lower the budget")
    if status != 0:
        raise KernelError(f"{name}: expected status 0, got {status}", hint=BUILD_HINT)
