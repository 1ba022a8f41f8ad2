"""Experts read on a guess: the same bits, fewer waits, and every byte of a guess accounted for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

import formation
from formation.run.foresight import Luck
from formation.run.generate import Engine
from formation.weights.layout import Key
from formation.weights.stream import WeightStream
from small_models import qwen_config, small_checkpoint, small_config

IDS, NEW = (5, 17, 2, 40, 9), 12


@pytest.fixture(scope="module", params=[small_config, qwen_config], ids=["k25", "qwen3_next"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("weights") / "small", request.param())


def run(folder: Path, memory: str, *, guess: bool) -> tuple[list[bytes], dict[str, int]]:
    with Engine(formation.open(folder), memory=memory, threads=2, guess=guess) as engine:
        steps = list(engine.generate(IDS, NEW))
    names = ("disk_bytes", "unused_bytes", "guessed_bytes", "guessed_unused_bytes")
    return [step.logits.tobytes() for step in steps], {name: sum(getattr(step.reads, name) for step in steps) for name in names}


@pytest.mark.parametrize("memory", ["700kB", "1.2MB", "24MiB"])
def test_guesses_change_no_bit_and_are_accounted_for(folder: Path, memory: str):
    without, plain = run(folder, memory, guess=False)
    with_guesses, read = run(folder, memory, guess=True)
    assert without == with_guesses
    assert 0 == plain["guessed_bytes"] == plain["guessed_unused_bytes"]
    assert read["guessed_unused_bytes"] <= read["unused_bytes"]
    assert read["guessed_bytes"] <= read["disk_bytes"]


def test_under_a_small_budget_some_experts_are_there_before_they_are_chosen(folder: Path):
    _, read = run(folder, "1.2MB", guess=True)
    assert read["guessed_bytes"] > 0


def test_with_everything_in_memory_a_second_run_guesses_nothing(folder: Path):
    with Engine(formation.open(folder), memory="24MiB", threads=2) as engine:
        list(engine.generate(IDS, NEW))
        again = list(engine.generate(IDS, NEW))
    assert 0 == sum(step.reads.guessed_bytes + step.reads.guessed_unused_bytes for step in again)


def test_the_layer_before_foretells_what_the_router_would_choose_from_the_same_row(folder: Path):
    """Where nothing lies between two routers, the guess is the choice."""
    checkpoint = formation.open(folder)
    seen: dict[str, np.ndarray] = {}
    with Engine(checkpoint, memory="24MiB", threads=1) as engine:
        layer = engine.model.shape.layers - 1
        engine.logits(
            IDS, observe={f"layer.{layer}.after_attention": lambda _, x: seen.update(u=x), f"layer.{layer}.chosen": lambda _, x: seen.update(c=x)}
        )
        assert engine._executor is not None
        with engine._executor.stream.use(("layer", layer)) as tensors:
            for row, chosen in zip(seen["u"], seen["c"], strict=True):
                assert set(chosen.tolist()) == set(engine.model.likely_experts(layer, row[None], tensors, threads=1))


def test_a_place_that_was_wrong_more_often_than_right_is_not_guessed_until_it_would_have_been_right_again():
    luck = Luck()
    assert luck.allows(3, 1, 0)
    luck.learn(3, 1, {0: 17, 2: 5}, [17, 20])
    assert luck.allows(3, 1, 0)
    assert not luck.allows(3, 1, 2)
    luck.learn(3, 1, {2: 20}, [17, 20])
    assert luck.allows(3, 1, 2)
    assert luck.allows(4, 1, 2)
    assert luck.allows(3, 2, 2)


def test_experts_that_come_in_any_order_are_added_in_ascending_order(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def last_first(stream: WeightStream, keys: Iterable[Key]) -> Key:
        return list(keys)[-1]

    without, _ = run(folder, "24MiB", guess=False)
    monkeypatch.setattr(WeightStream, "first_there", last_first)
    backwards, _ = run(folder, "24MiB", guess=False)
    assert without == backwards
