"""Every value of a ledger's lines that follows from rows and weights, written from docs/spec/ledger.md alone: nothing of Formation is imported.

Not here: what needs the attention of earlier positions (NOT_FROM_ROWS), which only an audit redoes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from independent_arithmetic import F, Weights, dot, dot64, norm, rms_norm, sigmoid
from safetensors.numpy import load_file

Values = dict[str, Any]
NOT_FROM_ROWS = {
    "cache_entry_sha256", "attention_entropy", "attention_strongest", "attention_entropies", "attention_strongest_by_head",
    "bytes", "method", "draw", "low", "high", "kept", "kept_mass",
}  # fmt: skip
LN2 = float.fromhex("0x1.62e42fefa39efp-1")


@dataclass(frozen=True)
class Near:
    """A sum of exponentials, whose functions the page leaves to the source: the value up to rounding"""

    value: float
    tolerance: float


def near(value: float, *terms: float) -> Near:
    return Near(float(value), 1e-12 * float(sum(map(abs, terms)) + 1))


# ---- the bundle


class Recorded:
    """Lines by (position, slot), and rows, of a bundle with all rows and full capture"""

    def __init__(self, folder: Path) -> None:
        first, *rest = (json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines())
        self.run = first["measured"]
        self.lines = {(line["position"], line["slot"]): line for line in rest}
        self._rows = {name: tensors(folder / name) for name in ("rows", "router")}
        self.prompt = json.loads((folder / "anchor.json").read_text())["prompt"]["ids"]
        self.token = {p: line["measured"]["id"] for (p, slot), line in self.lines.items() if slot == "token"}
        self.ids = self.prompt + [self.token[p] for p in sorted(self.token)]

    def rows(self, folder: str, tensor: str, position: int) -> np.ndarray:
        return self._rows[folder][f"{tensor}.{position}"]


def tensors(folder: Path) -> dict[str, np.ndarray]:
    return {name: values for file in sorted(folder.iterdir()) for name, values in load_file(file).items()}


def field_table(page: str) -> dict[tuple[str, str], dict[str, list[str]]]:
    """(slot, tag) -> field -> the reasons it may be absent for"""
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    for section in re.split(r"^### ", page, flags=re.M)[1:]:
        heading, *lines = section.splitlines()
        named = re.fullmatch(r"Slots? `(\w+).*(measured|derived)", heading)
        rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line.startswith("| `")]
        if named:
            found[named[1], named[2]] = {row[0].strip("`"): [reason.strip() for reason in row[-1].split(",")] for row in rows}
    return found


def sha256(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, "<f4").tobytes()).hexdigest()


def text(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(dot64(a, b) / (np.sqrt(dot64(a, a)) * np.sqrt(dot64(b, b))))


def order(values: np.ndarray) -> np.ndarray:
    """Descending, ties low first"""
    return np.argsort(-values, kind="stable")


def remainder(whole: np.ndarray, *parts: np.ndarray) -> np.ndarray:
    rest = whole.astype(np.float64)
    for part in parts:
        rest = rest - part.astype(np.float64)
    return rest


# ---- one cell


@dataclass
class Cell:
    """Rows of one layer at one position, and what the weights make of them"""

    run: Recorded
    weights: Weights
    position: int
    layer: int

    def __post_init__(self) -> None:
        boundaries = self.run.rows("rows", "residual", self.position)
        self.x, self.after = boundaries[self.layer], boundaries[self.layer + 1]
        self.a = self.run.rows("rows", "attention_write", self.position)[self.layer]
        self.m = self.run.rows("rows", "mlp_write", self.position)[self.layer]
        self.u = self.x + self.a
        assert (self.u + self.m).tobytes() == self.after.tobytes()

    @property
    def dense(self) -> bool:
        return self.layer < int(self.run.run["shape"]["dense_layers"])

    @cached_property
    def h(self) -> np.ndarray:
        weight = self.weights.tensor(f"model.layers.{self.layer}.post_attention_layernorm")
        return rms_norm(self.u, weight, self.weights.text["rms_norm_eps"])

    def measured(self) -> Values:
        largest = int(np.abs(self.after).argmax())
        found: Values = {
            "residual_sha256": sha256(self.after), "attention_write_sha256": sha256(self.a), "mlp_write_sha256": sha256(self.m),
            "attention_write_norm": float(norm(self.a)), "after_attention_norm": float(norm(self.u)), "mlp_write_norm": float(norm(self.m)),
            "residual_norm": float(norm(self.after)), "residual_largest": float(abs(self.after[largest])), "residual_largest_dimension": largest,
        }  # fmt: skip
        if self.dense:
            assert self.weights.mlp(f"model.layers.{self.layer}.mlp", self.h).tobytes() == self.m.tobytes()
            return found
        return found | self.routing() | self.experts()

    def routing(self) -> Values:
        expert_layer = self.layer - self.run.run["shape"]["dense_layers"]
        q, c = (self.run.rows("router", name, self.position)[expert_layer] for name in ("logits", "selection"))
        assert dot(self.h, self.weights.tensor(f"model.layers.{self.layer}.mlp.gate")).tobytes() == q.tobytes()
        b = self.weights.tensor(f"model.layers.{self.layer}.mlp.gate.e_score_correction_bias")
        assert text(b) == next(entry["biases"] for entry in self.run.run["router_biases"] if entry["layer"] == self.layer)
        s = sigmoid(q)
        assert (s + b).tobytes() == c.tobytes()
        k = self.run.run["shape"]["chosen"]
        self.chosen, refused = np.sort(order(c)[:k]), order(c)[k : k + 8]
        self.gates = self.gates_of(s[self.chosen])
        columns = {"logits": q, "scores": s, "selection": c, "biases": b}
        return (
            {"chosen": self.chosen.tolist(), "runners_up": refused.tolist(), "gates": text(self.gates)}
            | {"router_logits_sha256": sha256(q), "router_selection_sha256": sha256(c)}
            | {f"chosen_{name}": text(values[self.chosen]) for name, values in columns.items()}
            | {f"runner_up_{name}": text(values[refused]) for name, values in columns.items()}
        )

    def gates_of(self, s: np.ndarray) -> np.ndarray:
        total = F(0)
        for each in s:
            total = total + each
        return (s / (total + F(1e-20))) * F(self.run.run["router"]["scale"])

    def experts(self) -> Values:
        prefix = f"model.layers.{self.layer}.mlp"
        outputs = np.array([self.weights.mlp(f"{prefix}.experts.{e}", self.h) for e in self.chosen])
        self.writes, self.shared = outputs * self.gates[:, None], self.weights.mlp(f"{prefix}.shared_experts", self.h)
        total = self.writes[0]
        for write in (*self.writes[1:], self.shared):
            total = total + write
        assert total.tobytes() == self.m.tobytes()
        return {
            "expert_output_norms": text(norm(outputs)), "expert_write_norms": text(norm(self.writes)),
            "expert_write_cosines": [cosine(write, self.m) for write in self.writes],
            "shared_output_norm": float(norm(self.shared)), "shared_write_norm": float(norm(self.shared)),
            "shared_write_cosine": cosine(self.shared, self.m),
        }  # fmt: skip

    def derived(self, measured: Values) -> Values:
        """What follows from the line itself, and the shares of the writes"""
        square = dot64(self.after, self.after)
        found: Values = {
            "attention_relative": measured["attention_write_norm"] / measured["residual_norm"],
            "mlp_relative": measured["mlp_write_norm"] / measured["residual_norm"],
            "attention_cosine": cosine(self.a, self.after), "attention_projection": float(dot64(self.a, self.after) / square),
            "mlp_cosine": cosine(self.m, self.after), "mlp_projection": float(dot64(self.m, self.after) / square),
        }  # fmt: skip
        if not self.dense:
            chosen, refused = (decoded(measured[name]) for name in ("chosen_selection", "runner_up_selection"))
            found |= {"gate_sum": in_order(decoded(measured["gates"])), "router_margin": min(chosen) - refused[0]}
        return found


def decoded(vector: str) -> list[float]:
    return [float(value) for value in np.frombuffer(base64.b64decode(vector), "<f4")]


def in_order(values: list[float]) -> float:
    total = 0.0
    for value in values:
        total = total + value
    return total


# ---- one step


class Head:
    """lm_head, the final norm, and the mean row of lm_head"""

    def __init__(self, weights: Weights, eps: float) -> None:
        self.w, self.g, self.eps = weights.tensor("lm_head"), weights.tensor("model.norm"), eps
        total = np.zeros(self.w.shape[1], np.float64)
        for row in self.w.astype(np.float64):
            total = total + row
        self.mean = total / float(len(self.w))

    def logits(self, x: np.ndarray) -> np.ndarray:
        return dot(rms_norm(x, self.g, self.eps), self.w)


@dataclass
class Step:
    """A step at `position`: its cells, its token y"""

    head: Head
    cells: list[Cell]
    token: int

    def __post_init__(self) -> None:
        last = self.cells[-1].after
        self.z = self.head.logits(last)
        self.runner_up = next(int(i) for i in order(self.z) if i != self.token)
        self.scale = float(np.sqrt(dot64(last, last) / len(last) + self.head.eps))
        own = self.head.w[self.token].astype(np.float64)
        self.aims = {"": own, "_centred": own - self.head.mean, "_runner_up": own - self.head.w[self.runner_up]}

    def share(self, infix: str, component: np.ndarray) -> float:
        return float(dot64(self.aims[infix] * self.head.g.astype(np.float64), component) / self.scale)

    def length(self, infix: str) -> float:
        d = self.aims[infix] * self.head.g.astype(np.float64)
        return float(np.sqrt(dot64(d, d)))

    def embed(self) -> Values:
        return {f"dla{infix}": self.share(infix, self.cells[0].x) for infix in self.aims}

    def layer(self, cell: Cell) -> Values:
        parts: dict[str, np.ndarray] = {
            "attention": cell.a, "attention_rounding": remainder(cell.u, cell.x, cell.a),
            "mlp": cell.m, "mlp_rounding": remainder(cell.after, cell.u, cell.m),
        }  # fmt: skip
        if not cell.dense:
            parts |= {"shared": cell.shared, "combination_rounding": remainder(cell.m, *cell.writes, cell.shared)}
        found: Values = {f"dla{infix}_{name}": self.share(infix, part) for infix in self.aims for name, part in parts.items()}
        if not cell.dense:
            found |= {f"dla{infix}_experts": [self.share(infix, write) for write in cell.writes] for infix in self.aims}
        return found | self.lens("lens", cell.after) | self.lens("mid_lens", cell.u)

    def lens(self, prefix: str, x: np.ndarray) -> Values:
        z = self.head.logits(x)
        top = order(z)[:5]
        found: Values = {f"{prefix}_top": top.tolist(), f"{prefix}_top_logits": text(z[top])}
        facts = Distribution(z)
        for infix, token in (("", self.token), ("_runner_up", self.runner_up)):
            found[f"{prefix}{infix}_logit"] = float(z[token])
            found[f"{prefix}{infix}_logprob"] = near(float(z[token]) - facts.lse, z[token], facts.lse)
            found[f"{prefix}{infix}_rank"] = 1 + int((z > z[token]).sum())
        final = Distribution(self.z)
        terms = final.p * (final.logp - facts.logp)
        return found | {
            f"{prefix}_entropy": near(facts.lse - facts.mean, facts.lse, facts.mean),
            f"{prefix}_kl": near(math.fsum(terms), *(final.p * (np.abs(final.logp) + np.abs(facts.logp)))),
        }

    def measured(self) -> Values:
        top, facts, own = order(self.z)[:20], Distribution(self.z), self.z[self.token]
        return {
            "logits_sha256": sha256(self.z), "top": top.tolist(), "top_logits": text(self.z[top]), "chosen_logit": float(own),
            "log_sum_exp": near(facts.lse, facts.lse), "mean_logit": near(facts.mean, *(facts.p * np.abs(self.z))),
            "mean_square_logit": near(facts.mean_square, facts.mean_square), "rank_low": 1 + int((self.z > own).sum()),
            "rank_high": int((self.z >= own).sum()), "final_scale": self.scale,
        }  # fmt: skip

    def derived(self, head: Values, embed: Values, layers: list[Values]) -> Values:
        """Of lm_head, from the line's measured values and from the values of the step's other lines"""
        surprisal = head["log_sum_exp"] - head["chosen_logit"]
        top = decoded(head["top_logits"])
        powers = [math.exp(z - head["log_sum_exp"]) for z in top]
        dtypes = {"float16": 25, "bfloat16": 134, "float32": 150, "float64": 1075}
        prints_zero = [f"UNDERFLOW({dtype})" for dtype, bits in dtypes.items() if surprisal >= bits * LN2]
        parts = ("dla_attention", "dla_attention_rounding", "dla_mlp", "dla_mlp_rounding")
        dla = in_order([embed["dla"], *(layer[name] for layer in layers for name in parts)])
        first = len(layers)
        while first and layers[first - 1]["lens_rank"] == 1:
            first -= 1
        return {
            "logprob": head["chosen_logit"] - head["log_sum_exp"], "surprisal_nats": surprisal, "surprisal_bits": surprisal / LN2,
            "entropy_nats": head["log_sum_exp"] - head["mean_logit"],
            "varentropy": head["mean_square_logit"] - head["mean_logit"] * head["mean_logit"], "top_margin": top[0] - top[1],
            "top_masses": [near(math.fsum(powers[:count]), 1) for count in (1, 5, 20)],
            "zero_kind": prints_zero[-1] if prints_zero else "POSITIVE",
            "arrival_layer": first if first < len(layers) else {"absent": "never"},
            **{f"direction_norm{infix}": self.length(infix) for infix in self.aims},
            "exact_logit": self.share("", self.cells[-1].after), "dla_logit": dla, "lm_head_rounding": head["chosen_logit"] - dla,
        }  # fmt: skip


class Distribution:
    """The softmax of logits in binary64, with the functions of numpy"""

    def __init__(self, logits: np.ndarray) -> None:
        z = logits.astype(np.float64)
        self.lse = float(z.max() + np.log(math.fsum(np.exp(z - z.max()))))
        self.logp = z - self.lse
        self.p = np.exp(self.logp)
        self.mean, self.mean_square = math.fsum(self.p * z), math.fsum(self.p * z * z)
