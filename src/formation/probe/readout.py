"""What is measured of one position: tensors in, values of the field table out. Every function copies; none keeps its arguments."""

from __future__ import annotations

import math

import numpy as np

from formation.kernels import ops, readout
from formation.kernels.ops import F64
from formation.kernels.reference_choose import open_experts
from formation.kernels.tensor import F32, I64
from formation.ledger.fields import UNGATED, ZERO_NORM
from formation.probe.encode import Values, absent, digest, doubles, integers, number, vector
from formation.probe.layer import Routed

RUNNERS_UP, STRONGEST, STRONGEST_OF_HEAD, TOP = 8, 8, 3, 20


# ---- rows


def embed_values(x: F32) -> Values:
    """x_0 [D]"""
    return {"residual_sha256": digest(x), "residual_norm": number(readout.norms(x[None], threads=1)[0])}


def row_values(a: F32, u: F32, m: F32, after: F32) -> Values:
    """The rows of one layer at one position: a, u, m, x' [D]"""
    norms = readout.norms(np.stack([a, u, m, after]), threads=1)
    names = ("attention_write_norm", "after_attention_norm", "mlp_write_norm", "residual_norm")
    largest = int(np.abs(after).argmax())  # the first on ties
    return {
        "residual_sha256": digest(after),
        "attention_write_sha256": digest(a),
        "mlp_write_sha256": digest(m),
        **{name: number(norm) for name, norm in zip(names, norms, strict=True)},
        "residual_largest": number(abs(after[largest])),
        "residual_largest_dimension": largest,
    }


def cosines(rows: F32, direction: F32) -> list[float] | dict[str, str]:
    """Cosine of each row [N, D] with the direction [D], or absent when one of them has no length"""
    lengths = [math.sqrt(square) for square in readout.dots64(rows, rows, threads=1)]
    own = math.sqrt(readout.dots64(direction[None], direction, threads=1)[0])
    if not own or not all(lengths):
        return absent(ZERO_NORM)
    products = readout.dots64(rows, direction, threads=1)
    return doubles(product / (length * own) for product, length in zip(products, lengths, strict=True))


def share_values(a: F32, m: F32, after: F32) -> Values:
    """Cosine and signed projection of both writes with x'"""
    square = float(readout.dots64(after[None], after, threads=1)[0])
    found: Values = {}
    for name, write in (("attention", a), ("mlp", m)):
        cosine = cosines(write[None], after)
        product = readout.dots64(write[None], after, threads=1)[0]
        found[f"{name}_cosine"] = cosine[0] if isinstance(cosine, list) else cosine
        found[f"{name}_projection"] = number(product / square) if square else absent(ZERO_NORM)
    return found


# ---- routing and experts


def routing_values(router: ops.Router, routed: Routed, bias: F32 | None) -> Values:
    """Of the chosen experts and of the first refused: logit, score, bias [E] and selection apart"""
    refused = runners_up(router, routed.selection, routed.chosen)
    found: Values = {"chosen": integers(routed.chosen), "gates": vector(routed.gates), "runners_up": integers(refused)}
    columns = {"logits": routed.logits, "scores": routed.scores, "selection": routed.selection}
    for name, values in (columns if bias is None else columns | {"biases": bias}).items():
        found[f"chosen_{name}"] = vector(values[routed.chosen])
        found[f"runner_up_{name}"] = vector(values[refused])
    return found | {"router_logits_sha256": digest(routed.logits), "router_selection_sha256": digest(routed.selection)}


def runners_up(router: ops.Router, selection: F32, chosen: I64) -> I64:
    """The refused experts of kept groups by descending selection, ties low first, at most eight"""
    candidates = np.array(open_experts(router, selection), np.int64)
    refused = np.setdiff1d(candidates, chosen)  # ascending
    order = np.argsort(-selection[refused], kind="stable")
    return refused[order[:RUNNERS_UP]]


def gated(outputs: F32, gates: F32) -> F32:
    """Each output [K, D] times its gate [K], by the kernel that combines experts"""
    writes, started = np.empty_like(outputs), np.zeros(len(outputs), np.uint8)
    ops.accumulate(writes, started, np.arange(len(outputs)), outputs, gates, threads=1)
    return writes


def expert_values(outputs: F32, writes: F32, m: F32) -> Values:
    """Chosen experts' outputs and writes [K, D], and the layer's [D]"""
    return {
        "expert_output_norms": vector(readout.norms(outputs, threads=1)),
        "expert_write_norms": vector(readout.norms(writes, threads=1)),
        "expert_write_cosines": cosines(writes, m),
    }


def shared_values(output: F32, gate: F32 | None, write: F32, m: F32) -> Values:
    """The shared expert's output, gate [1] if it has one, and write [D]"""
    lengths, cosine = readout.norms(np.stack([output, write]), threads=1), cosines(write[None], m)
    return {
        "shared_output_norm": number(lengths[0]),
        "shared_write_norm": number(lengths[1]),
        "shared_gate": absent(UNGATED) if gate is None else number(gate[0]),
        "shared_write_cosine": cosine[0] if isinstance(cosine, list) else cosine,
    }


# ---- attention and delta nets


def state_values(matrices: F32) -> Values:
    """Of the state of a delta layer after one position [H, K, V]"""
    whole = readout.norms(np.ascontiguousarray(matrices).reshape(1, -1), threads=1)[0]
    return {"delta_state_norm": number(whole), "delta_state_norms": vector(readout.norms(matrices.reshape(len(matrices), -1), threads=1))}


def delta_values(beta: F32, decay: F32) -> Values:
    """Gates of one position [H]"""
    found: Values = {}
    for name, gate in (("delta_beta", beta), ("delta_decay", decay)):
        found |= {f"{name}_min": number(gate.min()), f"{name}_mean": number(mean(gate.astype(np.float64))), f"{name}_max": number(gate.max())}
        found[f"{name}s"] = vector(gate)
    return found


def attention_values(weights: F32, *, by_head: bool) -> Values:
    """Softmax weights of one position [H, keys], keys 0 to its own"""
    heads, keys = weights.shape
    entropies = readout.entropies(weights, threads=1)
    found: Values = {"attention_entropy": number(mean(entropies)), "attention_strongest": strongest(weights)}
    if by_head:
        top = readout.largest(weights, min(STRONGEST_OF_HEAD, keys), threads=1)  # [H, 3]
        found["attention_entropies"] = doubles(entropies)
        found["attention_strongest_by_head"] = [record(weights, head, int(key)) for head in range(heads) for key in top[head]]
    return found


def mean(values: F64) -> float:
    """In the order of the values, binary64"""
    total = 0.0
    for value in values.tolist():
        total = total + value
    return total / len(values)


def strongest(weights: F32) -> list[Values]:
    flat = weights.reshape(1, -1)
    places = readout.largest(flat, min(STRONGEST, flat.size), threads=1)[0]
    return [record(weights, *divmod(int(place), weights.shape[1])) for place in places]


def record(weights: F32, head: int, key: int) -> Values:
    return {"head": head, "position": key, "weight": number(weights[head, key])}


# ---- logits


def final_scale(x: F32, eps: float) -> float:
    """r = sqrt(mean(x_L^2) + eps) in binary64; x_L [D]"""
    return math.sqrt(float(readout.dots64(x[None], x, threads=1)[0]) / len(x) + eps)


def head_values(logits: F32, token: int, scale: float) -> Values:
    """A step's logits [V], the token it chose, its final scale"""
    rows = np.ascontiguousarray(logits)[None]
    facts, rank = readout.logit_statistics(rows, threads=1), readout.ranks(rows, token, threads=1)
    top = readout.largest(rows, min(TOP, logits.size), threads=1)[0]
    return {
        "logits_sha256": digest(logits),
        "top": integers(top),
        "top_logits": vector(logits[top]),
        "chosen_logit": number(logits[token]),
        "log_sum_exp": number(facts.log_sum_exp[0]),
        "mean_logit": number(facts.mean[0]),
        "mean_square_logit": number(facts.mean_square[0]),
        "rank_low": int(rank.low[0]),
        "rank_high": int(rank.high[0]),
        "final_scale": scale,
    }


def runner_up(logits: F32, token: int) -> int | None:
    """The token of the largest logit other than `token`, ties low first; None in a vocabulary of one"""
    best = readout.largest(np.ascontiguousarray(logits)[None], min(2, logits.size), threads=1)[0]
    return next((int(i) for i in best if i != token), None)
