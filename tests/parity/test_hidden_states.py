"""The recorded rows of the shipped sample are the hidden states of a `transformers` run (binary32, eager), layer by layer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("compressed_tensors")

import numpy as np
import parity_twin as twin
import torch
from parity_measure import LOGIT_ERROR, ROUTER_ERROR, ROUTER_TIE, margins, selection_scores

import formation
from formation.ledger import sidecar
from formation.probe.recorder import Recorder
from formation.probe.sidecars import Sidecars
from formation.samples import folder
from formation.text import load_tokenizer

TEXT = "def area(r):\n    return 3.14159 * r ** 2\n\nThe len() function returns the number of items of an object."
SAMPLE = folder("kimi_k25")
TENSORS = ("residual", "attention_write", "mlp_write")


@dataclass(frozen=True)
class Both:
    """rows: tensor -> [index][T, D], recorded; states: the same, of the library; routers: layer -> [T, E] logits and selection, recorded"""

    rows: dict[str, np.ndarray]
    states: dict[str, np.ndarray]
    routers: dict[str, np.ndarray]
    twin: twin.Twin
    text: dict[str, Any]
    biases: dict[int, torch.Tensor]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    out = tmp_path_factory.mktemp("recorded")
    checkpoint = formation.open(SAMPLE)
    ids = list(load_tokenizer(SAMPLE, checkpoint.config).encode(TEXT))
    text = json.loads((SAMPLE / "config.json").read_text())["text_config"]
    record(checkpoint, ids, out)
    weights = {name: values for name, values in twin.read_weights(SAMPLE).items() if name.startswith(("model.", "lm_head."))}  # no vision tower
    states, theirs = library_states(twin.build(text, twin.stacked(weights, text)), ids)
    biases = {layer: weights[f"model.layers.{layer}.mlp.gate.e_score_correction_bias"] for layer in theirs.chosen}
    return Both(read(out / "rows"), states, read(out / "router"), theirs, text, biases)


def record(checkpoint: Any, ids: list[int], out: Path) -> None:
    with formation.Engine(checkpoint, memory="32MiB", threads=2) as engine:
        sidecars = Sidecars(out, "all", engine.model.shape)
        engine.probe = Recorder(engine.model.shape, engine.model.router, engine.router_biases(), range(0), sidecars=sidecars)
        engine.logits(ids)
        sidecars.close(len(ids))


def read(path: Path) -> dict[str, np.ndarray]:
    """tensor -> [index, T, width]"""
    with sidecar.Reader(path) as reader:
        return {
            name: np.array([[np.frombuffer(reader.row(p, name, i), "<f4") for p in range(reader.positions)] for i in range(rows)])
            for name, (rows, _) in reader.tensors.items()
        }


def library_states(model: Any, ids: list[int]) -> tuple[dict[str, np.ndarray], twin.Twin]:
    """What its layers give and add, taken at their ends: the library's own list of hidden states has the last one after the final norm."""
    seen: dict[str, list[np.ndarray]] = {name: [] for name in TENSORS}

    def keep(name: str) -> Any:
        return lambda _, __, output: seen[name].append((output[0] if isinstance(output, tuple) else output).reshape(len(ids), -1).numpy().copy())

    model.model.embed_tokens.register_forward_hook(keep("residual"))
    for layer in model.model.layers:
        layer.self_attn.register_forward_hook(keep("attention_write"))
        layer.mlp.register_forward_hook(keep("mlp_write"))
        layer.register_forward_hook(keep("residual"))
    theirs = twin.run(model, ids)
    return {name: np.array(states) for name, states in seen.items()}, theirs


@dataclass(frozen=True)
class Routing:
    """One layer: which positions [T] chose the same experts in both, the reference's margins [T], the largest gap of a selection score [T]"""

    same: np.ndarray
    margins: np.ndarray
    gap: np.ndarray


def routings(both: Both) -> list[Routing]:
    found, k = [], both.text["num_experts_per_tok"]
    for selection, layer in zip(both.routers["selection"], sorted(both.twin.chosen), strict=True):
        scores = selection_scores(both.text, both.twin.router_logits[layer], both.biases[layer])
        chosen = np.sort(np.argsort(-selection, axis=1, kind="stable")[:, :k], axis=1)
        gap = np.abs(selection - scores.numpy()).max(axis=1)
        found.append(Routing((chosen == both.twin.chosen[layer]).all(axis=1), margins(both.text, scores), gap))
    return found


def settled(both: Both) -> int:
    """How many leading positions both routed alike in all layers"""
    alike = np.logical_and.reduce([routing.same for routing in routings(both)])
    return len(alike) if alike.all() else int(alike.argmin())


@pytest.mark.parametrize("name", TENSORS)
def test_rows_are_hidden_states_within_the_bound(both: Both, name: str) -> None:
    ours, theirs, count = both.rows[name], both.states[name], settled(both)
    assert ours.shape == theirs.shape
    assert ours.shape[1] >= 30 and count >= 0.9 * ours.shape[1]
    for index, (own, other) in enumerate(zip(ours, theirs, strict=True)):
        error = float(np.abs(own - other)[:count].max()) / float(np.ptp(other))
        assert error < LOGIT_ERROR, f"{name} {index}: {error} of its range"


def test_another_layer_is_far_from_the_bound(both: Both) -> None:
    ours, theirs = both.rows["residual"][1:], both.states["residual"][:-1]
    assert (np.abs(ours - theirs).max(axis=(1, 2)) > 100 * LOGIT_ERROR * np.ptp(theirs, axis=(1, 2))).all()


def test_embeddings_are_equal_bit_for_bit(both: Both) -> None:
    assert both.rows["residual"][0].tobytes() == both.states["residual"][0].tobytes()


def test_experts_are_the_same_wherever_margins_exceed_the_bound(both: Both) -> None:
    assert sorted(both.twin.chosen) == list(range(both.text["first_k_dense_replace"], both.text["num_hidden_layers"]))
    count = settled(both)
    for routing in routings(both):
        assert routing.gap[:count].max() < ROUTER_ERROR
        clear = routing.margins[:count] > ROUTER_TIE
        assert clear.any() and routing.same[:count][clear].all()
    apart = [routing for routing in routings(both) if not routing.same[count : count + 1].all()]  # later layers follow the first
    assert not apart or apart[0].margins[count] < ROUTER_TIE
