"""What the first line of a ledger says of a model: what every other line is read by."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from formation.kernels.tensor import F32
from formation.ledger import fields
from formation.model.architecture import Model
from formation.probe.encode import Values, absent, vector


def run_values(model: Model, prompt_level: str, step_level: str, biases: Mapping[int, F32]) -> Values:
    """`biases`: layer -> what its router adds to the scores [E]; empty for a router without."""
    shape, router = model.shape, model.router
    kinds = [model.kind(layer) for layer in range(shape.layers)]
    return {
        "fields_sha256": fields.digest(),
        "capture": {"prompt": prompt_level, "steps": step_level},
        "shape": {
            "layers": shape.layers, "dense_layers": shape.dense_layers, "hidden": shape.hidden, "heads": model.heads,
            "experts": shape.experts, "chosen": shape.chosen, "vocabulary": shape.vocabulary,
        },
        "layer_kinds": kinds,
        "delta": delta_sizes(model, kinds.index("delta")) if "delta" in kinds else absent(fields.NO_DELTA),
        "router": {
            "groups": router.groups, "kept_groups": router.kept_groups, "softmax": router.softmax, "group_top2": router.group_top2,
            "normalise": router.normalise, "scale": float(np.float32(router.scale)), "biased": bool(biases),
            "shared_gated": model.moe.shared_gated,
        },
        "norm_eps": float(np.float32(model.eps)),
        "router_biases": [{"layer": layer, "biases": vector(b)} for layer, b in biases.items()] if biases else absent(fields.NO_BIAS),
    }  # fmt: skip


def delta_sizes(model: Model, layer: int) -> Values:
    """Of a delta layer, as its state has them"""
    state = model.new_cache(layer, 1)
    key_heads = (state.tail.shape[1] - state.heads * state.value) // (2 * state.key)
    return {"key_heads": key_heads, "heads": state.heads, "key": state.key, "value": state.value, "taps": state.taps}
