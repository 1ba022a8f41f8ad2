"""A delta layer's past is one state: rows go in once and in order, and what it keeps of rows 0 to p is all that later rows need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tools.synthetic_checkpoint import qwen3_next_config

import formation
from formation.kernels import delta
from formation.model.architecture import parts_of
from formation.model.attention import KeyCache
from formation.model.catalog import read_model
from formation.model.deltanet import DeltaState
from formation.model.taps import Blind, Site, Tap
from formation.weights.stream import Unit, WeightStream
from small_models import qwen_config, small_checkpoint

DELTA, ATTENTION = 1, 3  # layers
ROWS = 21


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("delta") / "model", qwen_config())


@contextmanager
def layer_of(folder: Path, layer: int) -> Iterator[Any]:
    """(model, tensors of the layer, what gives its experts)"""
    checkpoint = formation.open(folder)
    model = read_model(checkpoint.config)
    units = [Unit(key, part.names) for key, part in parts_of(model, checkpoint.tensors).items() if key[1:2] == (layer,)]
    with WeightStream(checkpoint, units, 16 << 20, 1) as stream, stream.use(("layer", layer)) as tensors:

        def experts(of: int, chosen: Any) -> Iterator[Any]:
            for expert in chosen:
                with stream.use(("expert", of, expert)) as found:
                    yield expert, found

        yield model, tensors, experts


def rows() -> np.ndarray:
    return np.random.default_rng(4).standard_normal((ROWS, 96), np.float32)


@pytest.mark.parametrize("layer", [DELTA, ATTENTION])
@pytest.mark.parametrize("cuts", [(0, 20), (0, 1, 2, 20), (0, 7, 19, 20)])
def test_a_cell_from_remembered_rows_is_that_of_the_whole_column(folder: Path, layer: int, cuts: tuple[int, ...]) -> None:
    x = rows()
    with layer_of(folder, layer) as (model, tensors, experts):
        whole = model.layer(layer, x, np.arange(ROWS), model.new_cache(layer, ROWS), tensors, experts, Blind(), threads=2, chunk=5)
        cache = model.new_cache(layer, ROWS)
        for first, until in pairwise(cuts):
            model.remember(layer, x[first:until], np.arange(first, until), cache, tensors, threads=1, chunk=3)
        alone = model.layer(layer, x[20:], np.arange(20, ROWS), cache, tensors, experts, Blind(), threads=1, chunk=8)
    assert whole[20:].tobytes() == alone.tobytes()


def test_remembering_leaves_the_state_that_computing_leaves(folder: Path) -> None:
    x = rows()
    with layer_of(folder, DELTA) as (model, tensors, experts):
        computed, remembered = model.new_cache(DELTA, ROWS), model.new_cache(DELTA, ROWS)
        model.layer(DELTA, x, np.arange(ROWS), computed, tensors, experts, Blind(), threads=2, chunk=6)
        model.remember(DELTA, x, np.arange(ROWS), remembered, tensors, threads=1, chunk=ROWS)
    assert isinstance(computed, DeltaState)
    assert computed.state.any() and computed.tail.any() and computed.filled == ROWS
    assert (computed.state.tobytes(), computed.tail.tobytes()) == (remembered.state.tobytes(), remembered.tail.tobytes())
    assert delta.state_matrices(computed.state, 24, 40).shape == (4, 24, 40)


@pytest.mark.parametrize("first", [1, 4, 6])
def test_rows_out_of_order_are_refused(folder: Path, first: int) -> None:
    x = rows()
    with layer_of(folder, DELTA) as (model, tensors, _):
        cache = model.new_cache(DELTA, ROWS)
        model.remember(DELTA, x[:5], np.arange(5), cache, tensors, threads=1, chunk=9)
        with pytest.raises(RuntimeError, match=f"expected position 5 next, got {first}"):
            model.remember(DELTA, x[first:9], np.arange(first, 9), cache, tensors, threads=1, chunk=9)


def test_position_zero_begins_again(folder: Path) -> None:
    x = rows()
    with layer_of(folder, DELTA) as (model, tensors, _):
        used, fresh = model.new_cache(DELTA, ROWS), model.new_cache(DELTA, ROWS)
        model.remember(DELTA, x[::-1].copy(), np.arange(ROWS), used, tensors, threads=1, chunk=9)
        for cache in (used, fresh):
            model.remember(DELTA, x[:9], np.arange(9), cache, tensors, threads=1, chunk=9)
    assert (used.state.tobytes(), used.tail.tobytes(), used.filled) == (fresh.state.tobytes(), fresh.tail.tobytes(), 9)


@pytest.mark.parametrize("capacity", [1, 17, 4000])
def test_the_memory_that_is_planned_is_that_of_the_caches(capacity: int) -> None:
    model = read_model(qwen3_next_config())
    kept, attention = model.new_cache(0, capacity), model.new_cache(3, capacity)
    assert isinstance(kept, DeltaState) and isinstance(attention, KeyCache)
    assert model.cache_bytes(0, capacity) == kept.state.nbytes + kept.tail.nbytes == 4 * (32 * 128 * 128 + 3 * 8192)
    assert model.cache_bytes(3, capacity) == attention.values.nbytes


def test_kinds_of_layers_are_the_published_ones() -> None:
    model = read_model(qwen3_next_config())
    assert [layer for layer in range(48) if model.kind(layer) == "attention"] == list(range(3, 48, 4))


class States:
    """Keeps the states that it is shown, by position; wants none with `wanted` False"""

    def __init__(self, wanted: bool = True) -> None:
        self.wanted = wanted
        self.shown: dict[tuple[Tap, int], np.ndarray] = {}

    def wants(self, tap: Tap) -> bool:
        return self.wanted and tap is Tap.DELTA_STATE

    def __call__(self, site: Site, positions: np.ndarray, values: np.ndarray) -> None:
        if site.tap in (Tap.DELTA_STATE, Tap.DELTA_TAIL):
            self.shown[site.tap, int(positions[0])] = values[0].copy()


def test_a_state_that_is_looked_at_after_each_position_is_the_one_that_rows_in_one_go_leave(folder: Path) -> None:
    x, looked, blind = rows(), States(), States(wanted=False)
    with layer_of(folder, DELTA) as (model, tensors, experts):
        whole, followed = model.new_cache(DELTA, ROWS), {}
        after = [
            model.layer(DELTA, x, np.arange(ROWS), model.new_cache(DELTA, ROWS), tensors, experts, probe, threads=2, chunk=5).tobytes()
            for probe in (looked, blind)
        ]  # fmt: skip
        for position in range(ROWS):
            cache = model.new_cache(DELTA, ROWS)
            model.remember(DELTA, x[: position + 1], np.arange(position + 1), cache, tensors, threads=1, chunk=ROWS)
            assert cache.matrices().tobytes() == looked.shown[Tap.DELTA_STATE, position].tobytes()
            assert cache.tail.tobytes() == looked.shown[Tap.DELTA_TAIL, position].tobytes()
        whole.follow = lambda position, matrices, tail: followed.update({position: (matrices.tobytes(), tail.tobytes())})
        model.remember(DELTA, x, np.arange(ROWS), whole, tensors, threads=2, chunk=4)
    assert after[0] == after[1] and {} == blind.shown
    assert {p: tuple(looked.shown[tap, p].tobytes() for tap in (Tap.DELTA_STATE, Tap.DELTA_TAIL)) for p in range(ROWS)} == followed


def test_softmax_weights_are_shown_where_there_is_attention(folder: Path) -> None:
    found: dict[str, Any] = {}
    observe = {f"layer.{ATTENTION}.attention_weights": lambda positions, values: found.update(weights=values)}
    with formation.Engine(formation.open(folder), memory="16MiB") as engine:
        blind = engine.logits([5, 6, 7, 8])
        seen = engine.logits([5, 6, 7, 8], observe=observe)
    assert blind.tobytes() == seen.tobytes()
    assert found["weights"].shape == (4, 4, 4)
    assert np.allclose(found["weights"].sum(axis=2), 1, atol=1e-6)
    assert not found["weights"][0, :, 1:].any()
