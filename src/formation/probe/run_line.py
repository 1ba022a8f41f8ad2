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
    return {
        "fields_sha256": fields.digest(),
        "capture": {"prompt": prompt_level, "steps": step_level},
        "shape": {
            "layers": shape.layers, "dense_layers": shape.dense_layers, "hidden": shape.hidden, "heads": model.heads,
            "experts": shape.experts, "chosen": shape.chosen, "vocabulary": shape.vocabulary,
        },
        "router": {
            "groups": router.groups, "kept_groups": router.kept_groups, "softmax": router.softmax, "group_top2": router.group_top2,
            "normalise": router.normalise, "scale": float(np.float32(router.scale)), "biased": bool(biases),
        },
        "norm_eps": float(np.float32(model.eps)),
        "router_biases": [{"layer": layer, "biases": vector(b)} for layer, b in biases.items()] if biases else absent(fields.NO_BIAS),
    }  # fmt: skip
