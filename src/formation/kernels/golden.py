"""Golden vectors: what every kernel must give for fixed inputs, as SHA-256 digests. They are part of the contract's identity.

golden.json, beside this file, is the only copy: per case a digest of the inputs and one of the outputs. Inputs come from an integer hash,
not from a generator of some library. `check` runs the C library on this machine; the tests run `reference` against the same digests.
`python -m formation.kernels.golden` prints the file anew from `reference`: a changed digest is a new contract version.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formation.kernels.choices import Router
from formation.kernels.tensor import F32, Kind, Weight

CONTRACT = "f32x16/1"
Array = NDArray[Any]
Kernels = Any  # an object with the functions of `reference`, `reference_delta` and `reference_readout`
Run = Callable[[Kernels, list[Array]], list[Array]]
PATH = Path(__file__).with_name("golden.json")


@dataclass(frozen=True)
class Case:
    """One kernel on fixed inputs: `run(kernels, inputs)` gives the arrays that are digested."""

    name: str
    inputs: list[Array]
    run: Run


# ---- inputs ----


def hashed(seed: int, count: int) -> NDArray[np.uint32]:
    """The 32-bit finaliser of MurmurHash3 over seed * 2^20 + index"""
    h = (np.arange(count, dtype=np.uint64) + (seed << 20)).astype(np.uint32)
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return h ^ (h >> np.uint32(16))


def numbers(seed: int, *shape: int, scale: float = 1.0) -> F32:
    """Multiples of 2^-23 in [-1, 1), times a scale"""
    integers = hashed(seed, int(np.prod(shape))).view(np.int32) >> 8
    return (integers.astype(np.float32) * np.float32(2.0**-23) * np.float32(scale)).reshape(shape)


def octets(seed: int, count: int) -> NDArray[np.uint8]:
    return (hashed(seed, count) >> 24).astype(np.uint8)


def stored(kind: Kind, seed: int, rows: int, cols: int) -> list[Array]:
    """The bytes of a matrix, and of its scales when it has them"""
    values = numbers(seed, rows, cols)
    if kind is Kind.F32:
        return [values.view(np.uint8).reshape(-1)]
    if kind is Kind.F16:
        return [values.astype(np.float16).view(np.uint8).reshape(-1)]
    if kind is Kind.BF16:
        return [bf16(values)]
    if kind is Kind.INT4:
        return [octets(seed, rows * cols // 2), bf16(numbers(seed + 1, rows, cols // 32, scale=0.0625))]
    codes = octets(seed, rows * cols)
    blocks = numbers(seed + 1, -(-rows // 128), -(-cols // 128), scale=0.0625)
    return [np.where(codes & 127 == 127, codes ^ 1, codes).astype(np.uint8), blocks.view(np.uint8).reshape(-1)]


def bf16(values: F32) -> NDArray[np.uint8]:
    return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8).reshape(-1)


def weight(kind: Kind, rows: int, cols: int, parts: list[Array]) -> Weight:
    return Weight(f"golden {kind.name.lower()}", kind, rows, cols, parts[0], parts[1] if len(parts) > 1 else None)


# ---- cases ----


def calling(name: str, make: Callable[[list[Array]], Weight] | None = None, **keywords: Any) -> Run:
    """Calls one kernel with the inputs as its arguments; with `make`, the matrix is made of all inputs but the first and comes first."""

    def run(kernels: Kernels, inputs: list[Array]) -> list[Array]:
        arguments = inputs if make is None else [make(inputs[1:]), inputs[0]]
        result = getattr(kernels, name)(*arguments, **keywords)
        return list(result) if isinstance(result, tuple) else [result]

    return run


def matrix_cases() -> list[Case]:
    found = []
    for kind in Kind:
        rows, cols = 150, 160 if kind is Kind.INT4 else 157
        parts, make = stored(kind, 10 + kind, rows, cols), partial(weight, kind, rows, cols)
        indices = np.array([0, 149, 7, 130, 7], np.int64)
        heads, wide = numbers(32, 2, 3, cols), numbers(33, 2, 3, 37)
        found += [
            Case(f"linear/{kind.name}", [numbers(31, 5, cols), *parts], calling("linear", make)),
            Case(f"gather/{kind.name}", [indices, *parts], calling("gather", make)),
            Case(f"heads_linear/{kind.name}", [heads, *parts], calling("heads_linear", make, stride=48, first=5, rows=37)),
            Case(f"heads_linear_t/{kind.name}", [wide, *parts], calling("heads_linear_t", make, stride=48, first=5)),
        ]
    return found


def rotated(name: str, kernels: Kernels, inputs: list[Array]) -> list[Array]:
    x = inputs[0].copy()
    getattr(kernels, name)(x, inputs[1], inputs[2])
    return [x]


def combine(kernels: Kernels, inputs: list[Array]) -> list[Array]:
    acc, started = inputs[0].copy(), inputs[1].copy()
    kernels.accumulate(acc, started, inputs[2], inputs[3], inputs[4])
    kernels.accumulate(acc, started, inputs[2], inputs[3], None)
    return [acc, started]


def row_cases() -> list[Case]:
    positions, inv_freq = np.array([0, 1, 17, 4095, 131071], np.int64), np.abs(numbers(41, 24))
    rows, started = np.array([3, 0, 2], np.int64), np.array([0, 0, 0, 1], np.uint8)
    a, b = numbers(44, 301, scale=20), numbers(45, 301)
    return [
        Case("rmsnorm", [numbers(40, 3, 157), numbers(42, 157)], calling("rmsnorm", eps=1e-5)),
        Case("rope_table", [positions, inv_freq], calling("rope_table", factor=1.25)),
        *(
            Case(name, [numbers(43, 5, 3, 48), numbers(46, 5, 24), numbers(47, 5, 24)], partial(rotated, name))
            for name in ("rope_interleaved", "rope_halves")
        ),
        Case("add", [a, b], calling("add")),
        Case("silu_mul", [a, b], calling("silu_mul")),
        Case("sigmoid_mul", [a, b], calling("sigmoid_mul")),
        Case("accumulate", [numbers(48, 4, 53), started, rows, numbers(49, 3, 53), numbers(50, 3)], combine),
    ]


def attend(kernels: Kernels, inputs: list[Array]) -> list[Array]:
    keys, q, positions = inputs
    cache, weights = kernels.new_cache(len(keys), keys.shape[1]), np.zeros((*q.shape[:2], len(keys)), np.float32)
    kernels.cache_store(cache, 0, keys)
    y = kernels.mla_attend(q, cache, positions, 0.3125, 44, weights=weights)
    return [cache, y, weights, kernels.cache_load(cache, 5, 40)]


def attend_in_groups(kernels: Kernels, inputs: list[Array]) -> list[Array]:
    keys, q, positions = inputs
    cache, weights = kernels.new_cache(len(keys), keys.shape[1]), np.zeros((*q.shape[:2], len(keys)), np.float32)
    kernels.cache_store(cache, 0, keys)
    return [kernels.gqa_attend(q, cache, positions, 0.3125, 2, weights=weights), weights]


def recur(kernels: Kernels, inputs: list[Array]) -> list[Array]:
    """Five rows, then two more from the state that they left"""
    state = kernels.new_state(4, 37, 21)
    first = kernels.delta_rule(*(np.ascontiguousarray(a[:5]) for a in inputs), 0.25, state)
    after = state.copy()
    rest = kernels.delta_rule(*(np.ascontiguousarray(a[5:]) for a in inputs), 0.25, state)
    return [first, rest, *(kernels.state_matrices(s, 37, 21) for s in (after, state))]


def delta_cases() -> list[Case]:
    q, k, v = numbers(100, 7, 2, 37), numbers(101, 7, 2, 37, scale=0.25), numbers(102, 7, 4, 21, scale=4)
    decay, beta = np.abs(numbers(103, 7, 4)), np.abs(numbers(104, 7, 4))
    rows, gate, heads = numbers(105, 6, 37), numbers(106, 6, 37, scale=8), [numbers(seed, 20, scale=3) for seed in (107, 108)]
    return [
        Case("gqa_attend", [numbers(82, 45, 2 * (40 + 28)), numbers(83, 3, 6, 40, scale=4), np.array([0, 16, 44], np.int64)], attend_in_groups),
        Case("conv_silu", [numbers(109, 9, 53, scale=4), numbers(110, 4, 53)], calling("conv_silu")),
        Case("l2norm", [rows], calling("l2norm", eps=1e-6)),
        Case("rmsnorm_gated", [rows, gate, numbers(111, 37)], calling("rmsnorm_gated", eps=1e-6)),
        Case("delta_gates", [numbers(112, 6, 20, scale=6), numbers(113, 6, 20, scale=6), *heads], calling("delta_gates")),
        Case("delta_rule", [q, k, v, decay, beta], recur),
    ]


def function_cases() -> list[Case]:
    wide, positive = numbers(60, 2000, scale=100), np.abs(numbers(61, 2000)) + np.float32(2.0**-20)
    x, p = wide.astype(np.float64), positive.astype(np.float64)
    narrow = ["exp", "sigmoid", "silu", "softplus"]
    return [
        *(Case(name, [wide], calling(name)) for name in narrow),
        *(Case(name, [x * 7.0], calling(name)) for name in ("exp64", "sin64", "cos64")),
        Case("log", [positive * np.float32(1000)], calling("log")),
        Case("log64", [p * 1000.0], calling("log64")),
        Case("pow64", [p[:200] * 50000.0, x[:200] / 100.0], calling("pow64")),
    ]


def routed(router: Router, kernels: Kernels, inputs: list[Array]) -> list[Array]:
    r = kernels.route(router, inputs[0], inputs[1] if len(inputs) > 1 else None)
    return [r.scores, r.selection, r.chosen, r.gates]


def drawn(kernels: Kernels, inputs: list[Array]) -> list[Array]:
    settings = [(1.0, 0, 1.0, 0.0), (0.7, 40, 1.0, 0.0), (1.3, 0, 0.9, 0.0), (1.0, 0, 1.0, 0.05), (0.8, 50, 0.8, 0.02)]
    found = []
    for position, (temperature, top_k, top_p, min_p) in enumerate(settings):
        u = kernels.uniform(2**63 + 11, 5, position)
        d = kernels.sample(inputs[0], temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, draw=u)
        found.append(np.array([d.id, d.kept, d.draw, d.low, d.high, d.kept_mass], np.float64))
    return [np.stack(found), np.array([kernels.argmax(inputs[0])], np.int64)]


def choice_cases() -> list[Case]:
    logits, bias = numbers(70, 4, 48, scale=4), numbers(71, 48, scale=0.25)
    grouped = Router(experts=48, chosen=6, groups=6, kept_groups=3, scale=2.5)
    attention: list[Array] = [numbers(80, 45, 60), numbers(81, 3, 5, 60, scale=4), np.array([0, 16, 44], np.int64)]
    return [
        Case("route/sigmoid", [logits, bias], partial(routed, Router(experts=48, chosen=6, scale=2.827))),
        Case("route/groups", [logits, bias], partial(routed, grouped)),
        Case("route/softmax", [logits], partial(routed, Router(experts=48, chosen=10, softmax=True))),
        Case("mla_attend", attention, attend),
        Case("sample", [numbers(72, 500, scale=6)], drawn),
    ]


def summed(kernels: Kernels, inputs: list[Array]) -> list[Array]:
    sums = inputs[1].copy()
    kernels.column_sums(inputs[0], sums)
    return [sums]


def statistics(kernels: Kernels, inputs: list[Array]) -> list[Array]:
    s, r = kernels.logit_statistics(inputs[0]), kernels.ranks(inputs[0], 7)
    return [s.largest, s.log_sum_exp, s.mean, s.mean_square, r.low, r.high]


def readout_cases() -> list[Case]:
    rows, wide = numbers(90, 4, 157, scale=8), numbers(91, 4, 157).astype(np.float64) * 3.0
    weights, row = np.abs(numbers(92, 4, 45)), numbers(93, 157)
    logits = np.round(numbers(94, 3, 500, scale=9) * np.float32(16)) / np.float32(16)  # with ties
    lse = np.array([4.5, 4.25, 4.0], np.float64)
    return [
        Case("norms", [rows], calling("norms")),
        Case("dots64", [rows, rows[::-1].copy()], calling("dots64")),
        Case("remainder", [row, rows], calling("remainder")),
        Case("attribute", [wide[0], row, rows], calling("attribute", scale=1.375)),
        Case("attribute64", [wide[0], row, wide], calling("attribute", scale=1.375)),
        Case("column_sums", [rows, wide[1]], summed),
        Case("statistics and ranks", [logits], statistics),
        Case("largest", [logits], calling("largest", count=20)),
        Case("entropies", [weights], calling("entropies")),
        Case("divergences", [logits[0], logits, lse], lambda kernels, i: [kernels.divergences(i[0], 4.5, i[1], i[2])]),
    ]


def cases() -> list[Case]:
    return [*matrix_cases(), *row_cases(), *delta_cases(), *function_cases(), *choice_cases(), *readout_cases()]


# ---- digests ----


def digest(arrays: list[Array]) -> str:
    """SHA-256 over each array's type, shape and little-endian bytes"""
    h = hashlib.sha256()
    for a in arrays:
        little = np.ascontiguousarray(a).astype(a.dtype.newbyteorder("<"))
        h.update(f"{a.dtype.name}{list(a.shape)}".encode())
        h.update(little.tobytes())
    return h.hexdigest()


def measure(kernels: Kernels, case: Case) -> dict[str, str]:
    return {"inputs": digest(case.inputs), "outputs": digest(case.run(kernels, case.inputs))}


def recorded() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(PATH.read_text())["cases"]
    return found


def contract_digest(found: dict[str, dict[str, str]]) -> str:
    """SHA-256 over the contract's name and every case's digests, sorted by name"""
    lines = [CONTRACT, *(f"{name} {found[name]['inputs']} {found[name]['outputs']}" for name in sorted(found))]
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


CONTRACT_DIGEST = contract_digest(recorded())


def one_of(modules: Sequence[ModuleType], name: str) -> Callable[..., Any]:
    """The function of that name in the first module that has it. Raises AttributeError."""
    found: Callable[..., Any] = next((vars(module)[name] for module in modules if name in vars(module)), None) or getattr(modules[-1], name)
    return found


class Threaded:
    """The functions of `ops`, `delta` and `readout` with the thread count filled in, so that they are called as those of the reference."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def __getattr__(self, name: str) -> Callable[..., Any]:
        from formation.kernels import delta, ops, readout

        function = one_of((ops, delta, readout), name)
        return partial(function, threads=self.threads) if "threads" in function.__annotations__ else function


class Plain:
    """The functions of `reference`, `reference_delta` and `reference_readout`"""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        from formation.kernels import reference, reference_delta, reference_readout

        return one_of((reference, reference_delta, reference_readout), name)


def check(threads: int = 2) -> list[tuple[str, bool]]:
    """Per case: does the C library, on the instruction set in use, give the recorded outputs for the recorded inputs"""
    kernels, wanted = Threaded(threads), recorded()
    return [(case.name, measure(kernels, case) == wanted[case.name]) for case in cases()]


def write() -> None:
    """Prints golden.json as the reference computes it now."""
    found = {case.name: measure(Plain(), case) for case in sorted(cases(), key=lambda case: case.name)}
    json.dump({"contract": CONTRACT, "cases": found}, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    write()
