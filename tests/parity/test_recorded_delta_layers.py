"""What is recorded of a small Qwen3-Next is what `transformers` computes (binary32, eager, its chunked delta rule): rows, gates, states."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("compressed_tensors")

import numpy as np
import parity_twin as twin
import torch
from parity_measure import LOGIT_ERROR, ids_of, written
from qwen3_next_cases import QwenCase
from test_hidden_states import TENSORS, read
from test_qwen3_next import SMALL
from transformers.models.qwen3_next import modeling_qwen3_next as library

import formation
from formation.ledger import canonical
from formation.probe.recorder import Recorder
from formation.probe.sidecars import Sidecars

CASE = QwenCase(SMALL, "BF16", 40, 7)
BOUND = 20 * LOGIT_ERROR  # the norm of what a row reads from a state enlarges rounding: see QwenCase
DELTA, LAYERS, LAST = (0, 1, 2), 4, CASE.positions - 1


@dataclass
class Library:
    """states: tensor -> [index][T, D]; of each delta layer beta, decay [T, H] and its last state [H, K, V]; of each layer the shared gate [T]"""

    states: dict[str, list[np.ndarray]] = field(default_factory=lambda: {name: [] for name in TENSORS})
    beta: list[np.ndarray] = field(default_factory=list)
    decay: list[np.ndarray] = field(default_factory=list)
    last: list[np.ndarray] = field(default_factory=list)
    shared: list[np.ndarray] = field(default_factory=list)


@dataclass(frozen=True)
class Both:
    rows: dict[str, np.ndarray]
    cells: dict[tuple[int, int], dict[str, Any]]  # (position, layer) -> measured
    reference: Library


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    out = tmp_path_factory.mktemp("recorded")
    with written(CASE) as folder:
        cells = record(folder, out)
        model = twin.build_qwen(CASE.text, twin.read_weights(folder))
    return Both(read(out / "rows"), cells, watched(model))


def record(folder: Path, out: Path) -> dict[tuple[int, int], dict[str, Any]]:
    with formation.Engine(formation.open(folder), memory="32MiB", threads=2) as engine:
        model = engine.model
        sidecars = Sidecars(out, "all", model.shape)
        kinds = [model.kind(layer) for layer in range(LAYERS)]
        recorder = Recorder(model.shape, model.router, {}, range(0), prompt_level="full", sidecars=sidecars, kinds=kinds)
        engine.probe = recorder
        engine.logits(ids_of(CASE))
        sidecars.close(CASE.positions)
        lines = [o for o in recorder.prompt_observations() if o["slot"] != "embed"]
    return {(o["position"], int(o["slot"].removeprefix("layer "))): o["measured"] for o in lines}


def watched(model: Any) -> Library:
    seen, right = Library(), library.torch_chunk_gated_delta_rule

    def keep(name: str) -> Any:
        return lambda _, __, output: seen.states[name].append(
            (output[0] if isinstance(output, tuple) else output).reshape(CASE.positions, -1).numpy()
        )

    def rule(*args: Any, g: torch.Tensor, beta: torch.Tensor, output_final_state: bool, **rest: Any) -> Any:
        mixed, state = right(*args, g=g, beta=beta, output_final_state=True, **rest)
        for kept, values in ((seen.beta, beta), (seen.decay, g.exp()), (seen.last, state)):
            kept.append(values[0].float().numpy())
        return mixed, state

    model.model.embed_tokens.register_forward_hook(keep("residual"))
    for layer in model.model.layers:
        (layer.linear_attn if hasattr(layer, "linear_attn") else layer.self_attn).register_forward_hook(keep("attention_write"))
        layer.mlp.register_forward_hook(keep("mlp_write"))
        layer.register_forward_hook(keep("residual"))
        layer.mlp.shared_expert_gate.register_forward_hook(lambda _, __, output: seen.shared.append(output.sigmoid().reshape(-1).numpy()))
    library.torch_chunk_gated_delta_rule = rule
    try:
        twin.run(model, ids_of(CASE))
    finally:
        library.torch_chunk_gated_delta_rule = right
    return seen


def vector(text: str) -> np.ndarray:
    return np.array(canonical.values_f32(canonical.decode_f32(text)))


@pytest.mark.parametrize("name", TENSORS)
def test_rows_are_hidden_states_within_the_bound(both: Both, name: str) -> None:
    ours, theirs = both.rows[name], np.array(both.reference.states[name])
    assert ours.shape == theirs.shape
    for own, other in zip(ours, theirs, strict=True):
        assert float(np.abs(own - other).max()) < BOUND * float(np.ptp(other))


@pytest.mark.parametrize("name", ["beta", "decay"])
def test_gates_are_the_librarys(both: Both, name: str) -> None:
    for layer, theirs in zip(DELTA, getattr(both.reference, name), strict=True):
        for position in range(CASE.positions):
            measured, expected = both.cells[position, layer], theirs[position]
            assert expected == pytest.approx(vector(measured[f"delta_{name}s"]), abs=BOUND)
            summaries = [measured[f"delta_{name}_{what}"] for what in ("min", "mean", "max")]
            assert [expected.min(), expected.mean(), expected.max()] == pytest.approx(summaries, abs=BOUND)


def test_the_last_states_lengths_are_the_librarys(both: Both) -> None:
    for layer, theirs in zip(DELTA, both.reference.last, strict=True):
        measured = both.cells[LAST, layer]
        assert np.linalg.norm(theirs.reshape(len(theirs), -1), axis=1) == pytest.approx(vector(measured["delta_state_norms"]), rel=BOUND)
        assert np.linalg.norm(theirs) == pytest.approx(measured["delta_state_norm"], rel=BOUND)
        early = vector(both.cells[0, layer]["delta_state_norms"])
        assert early != pytest.approx(vector(measured["delta_state_norms"]), rel=100 * BOUND)


def test_the_shared_experts_gate_is_the_librarys(both: Both) -> None:
    for layer, theirs in enumerate(both.reference.shared):
        assert theirs == pytest.approx([both.cells[position, layer]["shared_gate"] for position in range(CASE.positions)], abs=BOUND)
