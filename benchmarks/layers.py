"""True size is tested too: one dense layer and one mixture-of-experts layer of Kimi K2.5, every tap against binary64.

    python benchmarks/layers.py                      # 7168 wide, 18432 inner, 384 int4 experts of 2048, top-8, 64 heads: 10.5 GB
    python benchmarks/layers.py --experts 16         # 1.7 GB

Writes a synthetic checkpoint of the two layers, runs a few positions through the engine, computes every tap again in binary64 from
the stored weights (dequantised by code of its own) and prints how far apart they are. Exit code 1 if a bound is broken.

Each stage starts from the engine's own tap before it, so that a bound says something about that stage. Two bounds are checked:
- proven: a dot of length K in sixteen lanes is off by at most (K/16 + 5) u Σ|w x|, u = 2^-24: one rounding for the product, K/16 - 1 in
  the lane, 4 in the fold, and one to spare. Errors of its input pass on as |W| e. A worst case: over several matrices it grows far beyond
  what happens (through the query's three matrices it says nothing any more), so it is not the only one.
- likely: roundings as independent (Higham and Mary 2019, SIAM J. Sci. Comput. 41 A2815): sqrt(K/16 + 5) u Σ|w x|, input errors add up as
  sqrt(W² e²); six times that is exceeded once in 10^8.
Not checked here: the rotary frequencies (taken from the model; tests/model), and exp beyond its stated 2 u.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.synthetic_checkpoint import k25_config, write_checkpoint

import formation
from formation.model.latent_attention import INNER_NORM_EPS
from formation.model.taps import Site, Tap

F64 = NDArray[np.float64]
U = 2.0**-24
LIKELY = 6.0
BLOCK_VALUES = 1 << 23  # of a weight, widened to binary64 at a time


# ---- values with their error bounds


@dataclass(frozen=True)
class Value:
    """Binary64 values, and how far the engine's may be: at most `proven`; with a standard deviation of at most `likely`."""

    value: F64
    proven: F64
    likely: F64

    def __getitem__(self, item: Any) -> Value:
        return Value(self.value[item], self.proven[item], self.likely[item])

    def reshape(self, *shape: int) -> Value:
        return Value(self.value.reshape(shape), self.proven.reshape(shape), self.likely.reshape(shape))

    def rounded(self, relative: float) -> Value:
        """After roundings of `relative` u in all."""
        error = relative * U * np.abs(self.value)
        return Value(self.value, self.proven * (1 + relative * U) + error, np.hypot(self.likely, error))


def exact(values: np.ndarray) -> Value:
    """What the engine itself holds."""
    wide = values.astype(np.float64)
    return Value(wide, np.zeros_like(wide), np.zeros_like(wide))


def joined(values: list[Value], axis: int) -> Value:
    return Value(*(np.concatenate([getattr(v, part) for v in values], axis) for part in ("value", "proven", "likely")))


def dot(w: F64, x: Value) -> Value:
    """w [N, K], x [T, K] -> [T, N]"""
    roundings = w.shape[1] / 16 + 5
    size = np.abs(w)
    spread = np.abs(x.value) @ size.T
    passed = x.proven @ size.T
    own = np.sqrt(roundings) * U * spread
    likely = np.sqrt(own * own + (x.likely * x.likely) @ (w * w).T)
    return Value(x.value @ w.T, passed + 1.001 * roundings * U * (spread + passed), likely)


def rms_norm(x: Value, w: F64, eps: float) -> Value:
    """x / sqrt(mean(x²) + eps) · w; an error of x also changes the scale, by the first order with 1 % to spare."""
    squares, width = (x.value**2).sum(-1, keepdims=True), x.value.shape[-1]
    scale = w / np.sqrt(squares / width + eps)
    y = x.value * scale
    drift = (np.abs(x.value) * x.proven).sum(-1, keepdims=True) / squares
    wander = np.sqrt((x.value**2 * x.likely**2).sum(-1, keepdims=True)) / squares
    roundings = width / 16 + 5
    proven = 1.01 * (np.abs(scale) * x.proven + np.abs(y) * (drift + (roundings / 2 + 5) * U))
    return Value(y, proven, np.hypot(np.abs(scale) * x.likely, np.abs(y) * (wander + (np.sqrt(roundings) / 2 + 5) * U)))


def swiglu(gate: Value, up: Value) -> Value:
    """silu(gate) · up; silu's slope is at most 1.1"""
    s = gate.value / (1 + np.exp(-gate.value))
    proven = 1.1 * gate.proven * (np.abs(up.value) + up.proven) + np.abs(s) * up.proven
    likely = np.hypot(1.1 * gate.likely * up.value, s * up.likely)
    return Value(s * up.value, proven, likely).rounded(8)


def softmax(scores: Value) -> Value:
    """Over the last axis. An error d of a score multiplies its weight by exp(d)."""
    e = np.exp(scores.value - scores.value.max(-1, keepdims=True))
    w = e / e.sum(-1, keepdims=True)
    off = np.expm1(np.minimum(2 * scores.proven.max(-1, keepdims=True), 700.0))
    wander = np.hypot(scores.likely, np.sqrt((w * w * scores.likely**2).sum(-1, keepdims=True)))
    return Value(w, w * off, w * wander).rounded(w.shape[-1] / 16 + 10)


def rotate(x: Value, positions: np.ndarray, inv_freq: np.ndarray) -> Value:
    """Interleaved pairs of x [T, H, R]; the angle, its cosine and its sine are rounded to binary32."""
    angle = positions[:, None, None] * inv_freq.astype(np.float64)  # [T, 1, R/2]
    c, s, table = np.cos(angle), np.sin(angle), (1 + angle) * U
    a, b = x[..., 0::2], x[..., 1::2]
    out = Value(*(np.empty_like(x.value) for _ in range(3)))
    for first, second, sign, place in ((a, b, -1.0, 0), (b, a, 1.0, 1)):
        size = np.abs(first.value) + np.abs(second.value)
        out.value[..., place::2] = first.value * c + sign * second.value * s
        out.proven[..., place::2] = first.proven * np.abs(c) + second.proven * np.abs(s) + size * (table + 3 * U) * 1.01
        out.likely[..., place::2] = np.sqrt((first.likely * c) ** 2 + (second.likely * s) ** 2 + (size * (table + 3 * U)) ** 2)
    return out


# ---- the stored weights, widened by code of this file


class Weights:
    """Tensors of a checkpoint under a prefix, in binary64."""

    def __init__(self, checkpoint: formation.Checkpoint, prefix: str) -> None:
        self.checkpoint = checkpoint
        self.prefix = prefix

    def raw(self, name: str, dtype: str) -> np.ndarray:
        entry = self.checkpoint.tensors[self.prefix + name]
        data = np.memmap(self.checkpoint.path / entry.file, np.uint8, "r", entry.begin, (entry.end - entry.begin,))
        return np.frombuffer(data, dtype).reshape(entry.shape)

    def vector(self, name: str) -> F64:
        return self.raw(name, "<f4").astype(np.float64) if name.endswith("bias") else _bf16(self.raw(name, "<u2"))

    def matrix(self, name: str, rows: slice) -> F64:
        """Rows of a linear map, plain bf16 or int4 in groups of 32 (w = bf16(q · scale))."""
        if f"{self.prefix}{name}.weight" in self.checkpoint.tensors:
            return _bf16(self.raw(f"{name}.weight", "<u2")[rows])
        packed = self.raw(f"{name}.weight_packed", "<u4")[rows]  # [N, K/8]
        q = (packed[..., None] >> np.arange(0, 32, 4, dtype=np.uint32) & 15).astype(np.int32) - 8  # [N, K/8, 8]
        scale = _bf16(self.raw(f"{name}.weight_scale", "<u2")[rows]).astype(np.float32)  # [N, K/32]
        product = q.reshape(*scale.shape, 32).astype(np.float32) * scale[..., None]  # exact: 4 bits by 8 bits
        bits = product.view(np.uint32)
        nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16  # ties to even
        return _bf16(nearest.reshape(len(packed), -1))

    def linear(self, name: str, x: Value) -> Value:
        """x [T, K] -> [T, N]"""
        kind = "weight" if f"{self.prefix}{name}.weight" in self.checkpoint.tensors else "weight_packed"
        count = self.checkpoint.tensors[f"{self.prefix}{name}.{kind}"].shape[0]
        step = max(1, BLOCK_VALUES // x.value.shape[-1])
        blocks = [slice(n, min(n + step, count)) for n in range(0, count, step)]
        return joined([dot(self.matrix(name, rows), x) for rows in blocks], axis=-1)

    def mlp(self, prefix: str, x: Value) -> Value:
        inner = swiglu(self.linear(f"{prefix}.gate_proj", x), self.linear(f"{prefix}.up_proj", x))
        return self.linear(f"{prefix}.down_proj", inner)


def _bf16(bits: np.ndarray) -> F64:
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


# ---- what the engine did, and what it should have done


class Keep:
    """A probe that keeps everything, joined over the chunks of a pass."""

    def __init__(self) -> None:
        self._parts: defaultdict[Site, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)

    def wants(self, tap: Tap) -> bool:
        return True

    def __call__(self, site: Site, positions: np.ndarray, values: np.ndarray) -> None:
        self._parts[site].append((positions.copy(), values.copy()))

    def of(self, tap: Tap, layer: int = -1, expert: int = -1) -> np.ndarray:
        return np.concatenate([values for _, values in self._parts[Site(tap, layer, expert)]])

    def positions(self, tap: Tap, layer: int, expert: int) -> np.ndarray:
        return np.concatenate([positions for positions, _ in self._parts[Site(tap, layer, expert)]])


@dataclass(frozen=True)
class Finding:
    """One line of the table. Ratios above 1 break a bound."""

    where: str
    values: int
    relative: float  # worst difference over the root mean square of the reference
    proven: float  # worst ratio of difference to bound
    likely: float

    @property
    def broken(self) -> bool:
        return not (self.proven <= 1 and self.likely <= 1)


def compare(where: str, expected: Value, found: np.ndarray) -> Finding:
    difference = np.abs(found.astype(np.float64) - expected.value)
    scale = float(np.sqrt(np.mean(expected.value**2)))

    def ratio(bound: F64) -> float:
        return float(np.max(np.where(difference == 0, 0.0, difference / np.maximum(bound, 1e-300))))

    return Finding(where, difference.size, float(difference.max()) / scale, ratio(expected.proven), ratio(LIKELY * expected.likely))


class Layer:
    """The reference of one layer, checked tap by tap."""

    def __init__(self, model: Any, checkpoint: formation.Checkpoint, keep: Keep, layer: int) -> None:
        self.model = model
        self.keep = keep
        self.layer = layer
        self.weights = Weights(checkpoint, f"{model.prefix}model.layers.{layer}.")
        self.findings: list[Finding] = []

    def tap(self, tap: Tap, expert: int = -1) -> np.ndarray:
        return self.keep.of(tap, self.layer, expert)

    def check(self, tap: Tap, expected: Value) -> None:
        self.findings.append(compare(f"layer {self.layer}, {tap.replace('_', ' ')}", expected, self.tap(tap)))

    def norm(self, name: str, x: Value, eps: float | None = None) -> Value:
        return rms_norm(x, self.weights.vector(f"{name}.weight"), self.model.eps if eps is None else eps)

    def run(self) -> list[Finding]:
        x = exact(self.keep.of(Tap.RESIDUAL, self.layer - 1) if self.layer else self.keep.of(Tap.EMBEDDING))
        self.attention(self.norm("input_layernorm", x))
        a = exact(self.tap(Tap.ATTENTION_WRITE))
        self.check(Tap.AFTER_ATTENTION, exact(x.value + a.value).rounded(1))
        u = exact(self.tap(Tap.AFTER_ATTENTION))
        h = self.norm("post_attention_layernorm", u)
        if self.layer < self.model.shape.dense_layers:
            self.check(Tap.MLP_WRITE, self.weights.mlp("mlp", h))
        else:
            self.mixture(h)
        self.check(Tap.RESIDUAL, exact(u.value + self.tap(Tap.MLP_WRITE)).rounded(1))
        return self.findings

    def attention(self, h: Value) -> None:
        att, heads = self.model.mixers[self.layer], self.model.heads
        positions = np.arange(len(h.value))
        both = self.weights.linear("self_attn.kv_a_proj_with_mqa", h)  # [T, C+R]
        rotated = rotate(both[:, None, att.latent :], positions, att.rope.inverse_frequencies)[:, 0]
        latent = self.norm("self_attn.kv_a_layernorm", both[:, : att.latent], INNER_NORM_EPS)
        self.check(Tap.CACHE_ENTRY, joined([latent, rotated], axis=-1))
        keys = self.tap(Tap.CACHE_ENTRY).astype(np.float64)  # [T, C+R]
        low = self.norm("self_attn.q_a_layernorm", self.weights.linear("self_attn.q_a_proj", h), INNER_NORM_EPS)
        q = self.weights.linear("self_attn.q_b_proj", low).reshape(len(positions), heads, att.query_width)
        turned = rotate(q[..., att.nope :], positions, att.rope.inverse_frequencies)
        outward = self.weights.matrix("self_attn.kv_b_proj", slice(None)).reshape(heads, att.nope + att.value, att.latent)
        shares = [self.softmax_of(keys, dot(outward[n, : att.nope].T, q[:, n, : att.nope]), turned[:, n]) for n in range(heads)]  # [T, keys] each
        self.check(Tap.ATTENTION_WEIGHTS, joined([s.reshape(len(positions), 1, -1) for s in shares], axis=1))
        found = exact(self.tap(Tap.ATTENTION_WEIGHTS))  # [T, H, keys]
        mixed = [dot(keys[:, : att.latent].T, found[:, n]).rounded(3) for n in range(heads)]  # the engine divides after summing
        out = joined([dot(outward[n, att.nope :], m) for n, m in enumerate(mixed)], axis=-1)  # [T, H·V]
        self.check(Tap.ATTENTION_WRITE, self.weights.linear("self_attn.o_proj", out))

    def softmax_of(self, keys: F64, content: Value, turned: Value) -> Value:
        """One head's weights over the keys that each position sees, zero beyond."""
        scores = dot(keys, joined([content, turned], axis=-1))  # [T, keys]
        scale = self.model.mixers[self.layer].scale
        scores = Value(*(part * scale for part in (scores.value, scores.proven, scores.likely))).rounded(1)
        out = Value(*(np.zeros_like(scores.value) for _ in range(3)))
        for t in range(len(scores.value)):
            seen = softmax(scores[t, : t + 1])
            for name in ("value", "proven", "likely"):
                getattr(out, name)[t, : t + 1] = getattr(seen, name)
        return out

    def mixture(self, h: Value) -> None:
        logits = self.weights.linear("mlp.gate", h)
        self.check(Tap.ROUTER_LOGITS, logits)
        given = self.tap(Tap.ROUTER_LOGITS).astype(np.float64)
        self.check(Tap.ROUTER_SCORES, exact(1 / (1 + np.exp(-given))).rounded(6))
        bias = self.weights.vector("mlp.gate.e_score_correction_bias")
        self.check(Tap.ROUTER_SELECTION, exact(self.tap(Tap.ROUTER_SCORES) + bias).rounded(1))
        self.chosen(1 / (1 + np.exp(-logits.value)) + bias)
        chosen = self.tap(Tap.CHOSEN)  # [T, K]
        s = np.take_along_axis(self.tap(Tap.ROUTER_SCORES).astype(np.float64), chosen, 1)
        self.check(Tap.GATES, exact(s / (s.sum(1, keepdims=True) + 1e-20) * self.model.moe.router.scale).rounded(12))
        self.experts(h, chosen)

    def chosen(self, selection: F64) -> None:
        """The chosen set is exact: the largest of the engine's own selection values, and of the reference's."""
        found, count = self.tap(Tap.CHOSEN), self.model.shape.chosen
        wrong = 0
        for values in (self.tap(Tap.ROUTER_SELECTION), selection):
            expected = np.sort(np.argsort(-values, axis=1, kind="stable")[:, :count], axis=1)
            wrong += int((expected != found).sum())
        self.findings.append(Finding(f"layer {self.layer}, chosen experts (exact)", found.size, 0.0, 2.0 * (wrong > 0), 0.0))

    def experts(self, h: Value, chosen: np.ndarray) -> None:
        gates, worst = self.tap(Tap.GATES).astype(np.float64), []
        write, size = np.zeros_like(h.value), np.zeros_like(h.value)
        for expert in np.unique(chosen).tolist():
            rows, places = np.nonzero(chosen == expert)
            output = self.tap(Tap.EXPERT_OUTPUT, expert)
            worst.append(compare("", self.weights.mlp(f"mlp.experts.{expert}", h[rows]), output))
            term = gates[rows, places, None] * output
            write[rows] += term
            size[rows] += np.abs(term)
        names = ("relative", "proven", "likely")
        most = {name: max(getattr(w, name) for w in worst) for name in names}
        self.findings.append(Finding(f"layer {self.layer}, {len(worst)} experts' outputs", sum(w.values for w in worst), **most))
        shared = self.tap(Tap.EXPERT_OUTPUT)
        self.check(Tap.EXPERT_OUTPUT, self.weights.mlp("mlp.shared_experts", h))
        error = (chosen.shape[1] + 2) * U * (size + np.abs(shared))
        self.check(Tap.MLP_WRITE, Value(write + shared, error, error))


def check_head(model: Any, checkpoint: formation.Checkpoint, keep: Keep, layers: int) -> list[Finding]:
    weights = Weights(checkpoint, model.prefix)
    normed = rms_norm(exact(keep.of(Tap.RESIDUAL, layers - 1)), weights.vector("model.norm.weight"), model.eps)
    logits = weights.linear("lm_head", exact(keep.of(Tap.FINAL_NORM)))
    return [compare("final norm", normed, keep.of(Tap.FINAL_NORM)), compare("logits", logits, keep.of(Tap.LOGITS))]


def config_of_two_layers(experts: int) -> dict[str, Any]:
    config = k25_config(2, experts)
    config["text_config"] |= {"intermediate_size": 18432, "vocab_size": 1024}
    return config


def show(findings: list[Finding]) -> None:
    print(f"{'tap':42} {'values':>9} {'worst/rms':>10} {'of proven':>10} {'of likely':>10}")
    for f in findings:
        print(f"{f.where:42} {f.values:9} {f.relative:10.1e} {f.proven:10.1e} {f.likely:10.1e}{'   BROKEN' if f.broken else ''}")


def run(folder: Path, positions: int, memory: str) -> list[Finding]:
    checkpoint, keep = formation.open(folder), Keep()
    with formation.Engine(checkpoint, memory=memory, probe=keep) as engine:
        model: Any = engine.model
        engine.logits(np.random.default_rng(1).integers(0, model.shape.vocabulary, positions).tolist())
    findings = [f for layer in range(model.shape.layers) for f in Layer(model, checkpoint, keep, layer).run()]
    return findings + check_head(model, checkpoint, keep, model.shape.layers)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("out/layers"), help="written if absent, and then deleted (default out/layers)")
    parser.add_argument("--experts", type=int, default=384)
    parser.add_argument("--positions", type=int, default=4)
    parser.add_argument("--memory", default="4GiB")
    parser.add_argument("--keep", action="store_true", help="do not delete the checkpoint")
    args = parser.parse_args()
    ours = not args.folder.exists()
    try:
        if ours:
            write_checkpoint(args.folder, config_of_two_layers(args.experts), progress=True)
        findings = run(args.folder, args.positions, args.memory)
    finally:
        if ours and not args.keep:
            shutil.rmtree(args.folder, ignore_errors=True)
    show(findings)
    return int(any(f.broken for f in findings))


if __name__ == "__main__":
    sys.exit(main())
