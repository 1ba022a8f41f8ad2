"""A small ledger that obeys every rule, made without the code under test wherever a value can be had elsewhere, and ways to break it.

Three layers, the first dense; four positions: a prompt's, two generated ones (drawn, greedy), a scored one. Routing comes from the kernels'
numpy reference, sums from math.fsum, logarithms from math. Rows are as wide as the hidden size says, and zero behind the first sixteen numbers.
"""

from __future__ import annotations

import copy
import math
import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np

from formation.exact64 import exp64
from formation.kernels import reference_choose
from formation.kernels.choices import Router
from formation.ledger import canonical, fields

Line = dict[str, Any]
KINDS = ("prompt", "generated", "generated", "scored")
METHODS = ("", "sample", "greedy", "forced")
SHAPE = {"layers": 3, "dense_layers": 1, "hidden": 16, "heads": 2, "experts": 8, "chosen": 2, "vocabulary": 40}
ROUTER = Router(experts=8, chosen=2, scale=float(np.float32(2.827)))
RUN_ID = "ab" * 32
EXPERTS = "expert_output_norms expert_write_norms expert_write_cosines shared_output_norm shared_write_norm shared_gate shared_write_cosine"
DENSE, NOT_A_STEP = {"absent": "dense layer"}, {"absent": "not a step"}
DELTA = {"key_heads": 1, "heads": 3, "key": 4, "value": 5, "taps": 4}
OF_DELTA_LAYERS = ("attention", "delta", "delta")
LEVEL = {"prompt": "minimal", "steps": "full"}
Row = np.ndarray[Any, np.dtype[np.float32]]  # [WIDTH], what is not zero of it
WIDTH = 16


def f32(x: float) -> float:
    return float(np.float32(x))


def base64_of(values: Sequence[float]) -> str:
    return canonical.encode_f32(struct.pack(f"<{len(values)}f", *values))


def norm(row: Row) -> float:
    return f32(math.sqrt(dot(row, row)))


def dot(v: Row, w: Row) -> float:
    return math.fsum(float(a) * float(b) for a, b in zip(v, w, strict=True))


def cosine(v: Row, w: Row) -> float:
    return dot(v, w) / (math.sqrt(dot(v, v)) * math.sqrt(dot(w, w)))


class Maker:
    """One ledger; the same for the same arguments."""

    def __init__(
        self, router: Router = ROUTER, *, biased: bool = True, shared: bool = True, seed: int = 7, shape: dict[str, int] = SHAPE, steps: str = "full",
        gated: bool = False, kinds: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.random, self.numbers = random.Random(seed), random.Random(seed)
        self.router, self.biased, self.shared, self.shape, self.gated = router, biased, shared, shape, gated
        self.kinds = kinds or ("attention",) * shape["layers"]
        self.capture = LEVEL | {"steps": steps}
        moe, experts = range(shape["dense_layers"], shape["layers"]), range(shape["experts"])
        self.biases = {n: [f32(self.random.uniform(-0.1, 0.1)) for _ in experts] for n in moe} if biased else {}
        self.sidecars: dict[tuple[int, int], bytes] = {}  # router logits
        self.selections: dict[tuple[int, int], bytes] = {}

    def lines(self) -> list[Line]:
        lines = [self.run()]
        for position, (kind, method) in enumerate(zip(KINDS, METHODS, strict=True)):
            lines += self.position(position, kind, method)
        return lines

    def run(self) -> Line:
        r = self.router
        router = {"groups": r.groups, "kept_groups": r.kept_groups, "softmax": r.softmax, "group_top2": r.group_top2,
                  "normalise": r.normalise, "scale": r.scale, "biased": self.biased, "shared_gated": self.gated}  # fmt: skip
        biases: Any = [{"layer": n, "biases": base64_of(b)} for n, b in self.biases.items()] if self.biased else {"absent": "no bias"}
        measured = {"fields_sha256": fields.digest(), "capture": self.capture, "shape": self.shape, "router": router}
        measured |= {"norm_eps": f32(1e-6), "router_biases": biases, "layer_kinds": list(self.kinds)}
        measured["delta"] = DELTA if "delta" in self.kinds else {"absent": "no delta layer"}
        return {"run_id": RUN_ID, "position": -1, "slot": "run", "kind": "run", "measured": measured, "derived": {}}

    def position(self, position: int, kind: str, method: str) -> list[Line]:
        step = kind != "prompt"
        rows = [self.logits() for _ in range(self.shape["layers"])]
        y = self.token(rows[-1], method)
        self.x = self.row()
        embed: dict[str, Any] = {"residual_sha256": self.digest(), "residual_norm": norm(self.x)}
        made = [self.layer(position, n, step, rows[n], rows[-1], y) for n in range(self.shape["layers"])]
        if step:
            embed |= {f"dla{c}": self.random.gauss(0, 1) for c in fields.COMPONENTS}
        slots = [("embed", embed), *((f"layer {n}", values) for n, values in enumerate(made))]
        if step:
            slots += [("lm_head", self.head(embed, made, rows[-1], y)), ("sampler", sampler(method, rows[-1], y))]
            slots.append(("token", {"id": y, "bytes": "4pyT"}))
        return [self.line(position, slot, kind, values) for slot, values in slots]

    def line(self, position: int, slot: str, kind: str, values: dict[str, Any]) -> Line:
        level = self.capture["prompt" if kind == "prompt" else "steps"]
        tags = {field.name: field.tag for field in fields.fields_of(slot.split(" ")[0], level)}
        split = {tag: {k: v for k, v in values.items() if tags.get(k) == tag} for tag in fields.TAGS}
        return {"run_id": RUN_ID, "position": position, "slot": slot, "kind": kind, **split}

    # ---- what stands in a layer

    def layer(self, position: int, n: int, step: bool, row: list[float], final: list[float], y: int) -> dict[str, Any]:
        values: dict[str, Any] = {f"{name}_sha256": self.digest() for name in ("residual", "attention_write", "mlp_write")}
        values |= self.mixer(position, n)
        values |= self.routing(position, n)
        a, m, experts = self.row(), self.row(), dict.fromkeys(EXPERTS.split(), DENSE)
        if n >= self.shape["dense_layers"]:
            m, experts = self.experts(canonical.values_f32(canonical.decode_f32(values["gates"])))
        u = self.x + a
        self.x = after = u + m
        for name, one in (("attention_write", a), ("after_attention", u), ("mlp_write", m), ("residual", after)):
            values[f"{name}_norm"] = norm(one)
        largest = int(np.abs(after).argmax())
        values |= {"residual_largest": float(abs(after[largest])), "residual_largest_dimension": largest}
        if not step:
            return values
        for name, write in (("attention", a), ("mlp", m)):
            values[f"{name}_relative"] = values[f"{name}_write_norm"] / values["residual_norm"]
            values |= {f"{name}_cosine": cosine(write, after), f"{name}_projection": dot(write, after) / dot(after, after)}
        values |= experts
        for component in fields.COMPONENTS:
            values |= self.attribution(f"dla{component}_", n)
        return values | lens("lens", row, final, y) | lens("mid_lens", self.logits(), final, y)

    def routing(self, position: int, n: int) -> dict[str, Any]:
        if n < self.shape["dense_layers"]:
            names = [field.name for field in fields.fields_of("layer", "minimal") if "dense layer" in field.absent]
            return dict.fromkeys(names, DENSE)
        q = np.array([[self.random.gauss(0, 1) for _ in range(self.shape["experts"])]], np.float32)
        bias = np.array(self.biases[n], np.float32) if self.biased else None
        found = reference_choose.route(self.router, q, bias)
        s, c = found.scores[0], found.selection[0]
        chosen = [int(e) for e in found.chosen[0]]
        open_experts = reference_choose.open_experts(self.router, c)
        refused = sorted((e for e in open_experts if e not in chosen), key=lambda e: (-float(c[e]), e))[:8]
        self.sidecars[position, n] = q.astype("<f4").tobytes()
        self.selections[position, n] = c.astype("<f4").tobytes()
        values: dict[str, Any] = {"chosen": chosen, "runners_up": refused, "gates": base64_of(found.gates[0].tolist())}
        for prefix, ids in (("chosen_", chosen), ("runner_up_", refused)):
            for name, row in (("logits", q[0]), ("scores", s), ("selection", c)):
                values[f"{prefix}{name}"] = base64_of([float(row[e]) for e in ids])
            values[f"{prefix}biases"] = base64_of([float(bias[e]) for e in ids]) if bias is not None else {"absent": "no bias"}
        values["router_logits_sha256"] = sha256(self.sidecars[position, n]).hexdigest()
        values["router_selection_sha256"] = sha256(c.astype("<f4").tobytes()).hexdigest()
        values["gate_sum"] = math.fsum(found.gates[0].tolist())
        margin = min(float(c[e]) for e in chosen) - float(c[refused[0]]) if refused else None
        values["router_margin"] = {"absent": "all chosen"} if margin is None else margin
        return values

    def mixer(self, position: int, n: int) -> dict[str, Any]:
        """What attention says of a position, or a delta net, and that the other says nothing"""
        kind = self.kinds[n]
        reason = "delta layer" if kind == "delta" else "attention layer"
        other = [field.name for field in fields.fields_of("layer", "full") if reason in field.absent]
        own = self.delta() if kind == "delta" else {"cache_entry_sha256": self.digest()} | self.attention(position)
        return own | {name: {"absent": reason} for name in other}

    def delta(self) -> dict[str, Any]:
        norms = [self.norm() for _ in range(DELTA["heads"])]
        found: dict[str, Any] = {"delta_state_sha256": self.digest(), "delta_state_norm": f32(math.hypot(*norms))}
        found["delta_state_norms"] = base64_of(norms)
        for gate in ("delta_beta", "delta_decay"):
            heads = [f32(self.random.uniform(0, 1)) for _ in range(DELTA["heads"])]
            found |= {f"{gate}s": base64_of(heads), f"{gate}_min": min(heads), f"{gate}_max": max(heads)}
            found[f"{gate}_mean"] = sum(heads) / len(heads)
        return found

    def attention(self, position: int) -> dict[str, Any]:
        """Softmax over the positions so far, of each head"""
        heads = [[f32(p) for p in softmax([self.numbers.gauss(0, 2) for _ in range(position + 1)])[1]] for _ in range(self.shape["heads"])]
        every = [{"head": h, "position": p, "weight": w} for h, row in enumerate(heads) for p, w in enumerate(row)]
        every.sort(key=lambda each: (-each["weight"], each["head"], each["position"]))
        by_head = [each for h in range(len(heads)) for each in [each for each in every if each["head"] == h][:3]]
        entropies = [0.0 - math.fsum(w * math.log(w) for w in row) for row in heads]
        total = 0.0
        for entropy in entropies:
            total += entropy
        mean = {"attention_entropy": total / len(heads), "attention_entropies": entropies}
        return {**mean, "attention_strongest": every[:8], "attention_strongest_by_head": by_head}

    def experts(self, gates: Sequence[float]) -> tuple[Row, dict[str, Any]]:
        """The MLP write, and what is recorded of its parts"""
        outputs, gate = [self.row() for _ in gates], np.float32(0.5 if self.gated else 1.0)
        writes = [np.float32(weight) * output for weight, output in zip(gates, outputs, strict=True)]
        whole = self.row()
        m = sum(writes, np.zeros(WIDTH, np.float32)) + (gate * whole if self.shared else np.float32(0))
        shared: dict[str, Any] = {
            "shared_output_norm": norm(whole), "shared_write_norm": norm(gate * whole), "shared_write_cosine": cosine(gate * whole, m),
        }  # fmt: skip
        shared = shared if self.shared else {name: {"absent": "no shared expert"} for name in shared}
        shared["shared_gate"] = float(gate) if self.gated else {"absent": "no gate"}
        norms = {"expert_output_norms": base64_of(list(map(norm, outputs))), "expert_write_norms": base64_of(list(map(norm, writes)))}
        return m, {**norms, "expert_write_cosines": [cosine(row, m) for row in writes], **shared}

    def attribution(self, prefix: str, n: int) -> dict[str, Any]:
        value = lambda: self.random.gauss(0, 1)  # noqa: E731
        attention = {f"{prefix}attention": value(), f"{prefix}attention_rounding": value() * 1e-7, f"{prefix}mlp_rounding": value() * 1e-7}
        if n < self.shape["dense_layers"]:
            absent = dict.fromkeys((f"{prefix}experts", f"{prefix}shared", f"{prefix}combination_rounding"), DENSE)
            return {**attention, f"{prefix}mlp": value(), **absent}
        experts, shared, rounding = [value() for _ in range(self.shape["chosen"])], value(), value() * 1e-7
        total = math.fsum([*experts, shared if self.shared else 0.0, rounding])
        stored: Any = shared if self.shared else {"absent": "no shared expert"}
        parts = {f"{prefix}experts": experts, f"{prefix}shared": stored, f"{prefix}combination_rounding": rounding}
        return {**attention, f"{prefix}mlp": total, **parts}

    # ---- what stands behind the layers

    def head(self, embed: dict[str, Any], layers: list[dict[str, Any]], row: list[float], y: int) -> dict[str, Any]:
        """The embedding's contribution is what makes the sum come out a little beside y's logit."""
        names = ("dla_attention", "dla_attention_rounding", "dla_mlp", "dla_mlp_rounding")
        parts = [layer[name] for layer in layers for name in names]
        embed["dla"] = row[y] * (1 + 2**-24) - math.fsum(parts)
        total = embed["dla"]
        for part in parts:
            total += part
        lse, p = softmax(row)
        mean, square = math.fsum(a * z for a, z in zip(p, row, strict=True)), math.fsum(a * z * z for a, z in zip(p, row, strict=True))
        top = descending(row)[:20]
        ranks = [layer["lens_rank"] for layer in layers]
        late = next((n for n in range(len(ranks)) if set(ranks[n:]) == {1}), None)
        return {
            "logits_sha256": self.digest(), "top": top, "top_logits": base64_of([row[v] for v in top]), "chosen_logit": row[y],
            "log_sum_exp": lse, "mean_logit": mean, "mean_square_logit": square,
            "final_scale": math.sqrt(dot(self.x, self.x) / self.shape["hidden"] + 1e-6),
            "rank_low": 1 + sum(z > row[y] for z in row), "rank_high": sum(z >= row[y] for z in row),
            "logprob": row[y] - lse, "surprisal_nats": lse - row[y], "surprisal_bits": (lse - row[y]) / math.log(2), "entropy_nats": lse - mean,
            "varentropy": square - mean * mean, "top_margin": row[top[0]] - row[top[1]], "zero_kind": "POSITIVE",
            "top_masses": tops([row[v] for v in top], lse),
            "arrival_layer": {"absent": "never"} if late is None else late,
            "direction_norm": 1.25, "direction_norm_centred": 1.5, "direction_norm_runner_up": 1.75,
            "exact_logit": math.fsum([embed["dla"], *parts]), "dla_logit": total, "lm_head_rounding": row[y] - total,
        }  # fmt: skip

    def token(self, row: list[float], method: str) -> int:
        return descending(row)[{"sample": 2, "forced": 30}.get(method, 0)]

    def logits(self) -> list[float]:
        return [f32(self.random.gauss(0, 2)) for _ in range(self.shape["vocabulary"])]

    def norm(self) -> float:
        return f32(self.random.uniform(0.5, 4))

    def row(self) -> Row:
        return np.array([self.numbers.gauss(0, 1) for _ in range(WIDTH)], np.float32)

    def digest(self) -> str:
        return sha256(self.random.randbytes(8)).hexdigest()


def descending(row: list[float]) -> list[int]:
    return sorted(range(len(row)), key=lambda v: (-row[v], v))


def softmax(row: list[float]) -> tuple[float, list[float]]:
    lse = max(row) + math.log(math.fsum(math.exp(z - max(row)) for z in row))
    return lse, [math.exp(z - lse) for z in row]


def lens(prefix: str, row: list[float], final: list[float], y: int) -> dict[str, Any]:
    lse, p = softmax(row)
    final_lse, final_p = softmax(final)
    other = next(v for v in descending(final) if v != y)
    values: dict[str, Any] = {}
    for infix, token in (("", y), ("runner_up_", other)):
        values |= {f"{prefix}_{infix}logit": row[token], f"{prefix}_{infix}logprob": row[token] - lse}
        values[f"{prefix}_{infix}rank"] = 1 + sum(z > row[token] for z in row)
    top = descending(row)[:5]
    kl = math.fsum(a * ((z - final_lse) - (w - lse)) for a, z, w in zip(final_p, final, row, strict=True))
    return values | {
        f"{prefix}_top": top, f"{prefix}_top_logits": base64_of([row[v] for v in top]), f"{prefix}_kl": kl,
        f"{prefix}_entropy": lse - math.fsum(a * z for a, z in zip(p, row, strict=True)),
    }  # fmt: skip


def tops(best: list[float], lse: float) -> list[float]:
    """Of scores, descending: with the library's exponential, as these must have its bits"""
    found = []
    for count in (1, 5, 20):
        total = 0.0
        for z in best[:count]:
            total += exp64(z - lse)
        found.append(total)
    return found


SAMPLED = [field.name for field in fields.fields_of("sampler", "minimal") if "greedy" in field.absent]


def sampler(method: str, row: list[float], y: int, temperature: float = 0.8, kept: int = 5) -> dict[str, Any]:
    """The draw is in the middle of y's interval, and the `kept` largest logits are left"""
    if method != "sample":
        return {"method": method, **{name: {"absent": method} for name in SAMPLED}}
    order, highest = descending(row), max(row)
    kept = max(kept, order.index(y) + 1)
    scores = row if temperature == 1 else [z / temperature - highest / temperature for z in row]
    left = sorted(order[:kept])
    centred = scores if kept == len(row) else [z / temperature - highest / temperature for z in row]
    tempered, drawn = of_scores("tempered", scores, range(len(row)), y), of_scores("sampler", centred, left, y)
    q = {v: math.exp(centred[v] - drawn["sampler_log_sum_exp"]) for v in left}
    low, mass = math.fsum(q[v] for v in left if v < y), math.fsum(math.exp(scores[v] - tempered["tempered_log_sum_exp"]) for v in left)
    ranks = {"tempered_rank_low": 1 + sum(x > scores[y] for x in scores), "tempered_rank_high": sum(x >= scores[y] for x in scores)}
    interval = {"draw": low + q[y] / 2, "low": low, "high": low + q[y], "kept": kept, "kept_mass": min(mass, 1.0)}
    if kept == len(row):
        interval["kept_mass"] = 1
    return {"method": method, **interval, "truncated_mass": 1 - interval["kept_mass"], **ranks, **tempered, **drawn}


def of_scores(prefix: str, scores: list[float], left: Sequence[int], y: int) -> dict[str, Any]:
    lse, p = softmax([scores[v] for v in left])
    mean = math.fsum(a * scores[v] for a, v in zip(p, left, strict=True))
    square = math.fsum(a * scores[v] * scores[v] for a, v in zip(p, left, strict=True))
    values: dict[str, Any] = {"score": scores[y], "log_sum_exp": lse, "mean": mean, "mean_square": square}
    values |= {"top_masses": tops(sorted((scores[v] for v in left), reverse=True)[:20], lse), "logprob": scores[y] - lse}
    values |= {"logprob_bits": (scores[y] - lse) / math.log(2), "entropy_nats": lse - mean, "varentropy": square - mean * mean}
    return {f"{prefix}_{name}": value for name, value in (values | {"zero_kind": "POSITIVE"}).items()}


def small_ledger() -> list[Line]:
    return Maker().lines()


# ---- breaking it


def at(lines: list[Line], position: int, slot: str) -> Line:
    return next(line for line in lines if (line["position"], line["slot"]) == (position, slot))


def edited(lines: list[Line], position: int, slot: str, name: str, edit: Callable[[Any], Any]) -> list[Line]:
    """A copy in which one value is another; `lines` stay as they are, the untouched ones shared with them"""
    line = at(lines, position, slot)
    tag = "measured" if name in line["measured"] else "derived"
    changed = {**line, tag: {**line[tag], name: edit(copy.deepcopy(line[tag][name]))}}
    return [changed if each is line else each for each in lines]


def with_vector(edit: Callable[[list[float]], None]) -> Callable[[str], str]:
    """Edits the numbers of a stored f32[]"""

    def change(text: str) -> str:
        values = list(canonical.values_f32(canonical.decode_f32(text)))
        edit(values)
        return base64_of(values)

    return change


def ulp_more(i: int) -> Callable[[str], str]:
    """Number i of a stored f32[] one binary32 step up"""

    def step(values: list[float]) -> None:
        values[i] = float(np.nextafter(np.float32(values[i]), np.float32(math.inf)))

    return with_vector(step)


def grouped(**changes: Any) -> Router:
    return replace(ROUTER, **changes)


MAKERS = {
    "plain": Maker(),
    "no bias, no shared expert": Maker(biased=False, shared=False),
    "softmax": Maker(grouped(softmax=True)),
    "delta layers, softmax, a gate for the shared expert": Maker(grouped(softmax=True), biased=False, gated=True, kinds=OF_DELTA_LAYERS),
    "all chosen": Maker(grouped(groups=4, kept_groups=1), biased=False),
    "groups by their best": Maker(grouped(normalise=False, groups=2, kept_groups=1, group_top2=False)),
    "groups by their two best": Maker(grouped(groups=4, kept_groups=3)),
}
