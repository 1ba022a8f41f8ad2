"""Several sequences in one pass: each gets what it would alone, and the weights are read once for all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import formation
from formation.errors import BudgetError, NonFiniteError, PromptError
from formation.kernels import ops
from formation.kernels.tensor import Weight
from formation.model.sequences import Split, places, stretches
from formation.model.taps import SEQUENCE, Blind, Site, Tap, require_finite
from formation.run.generate import Step, Wanted
from formation.run.sample import Sample
from small_models import qwen_config, small_checkpoint, small_config

PROMPTS = ([5, 9, 100, 7], [300], [int(i) for i in np.random.default_rng(3).integers(0, 512, 21)])
SAMPLERS = (formation.Greedy(), Sample(temperature=0.9, seed=4), Sample(temperature=1.2, top_k=40, seed=5))
TOKENS = (3, 6, 4)


@pytest.fixture(scope="module", params=["latent attention", "delta net"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = small_config() if request.param == "latent attention" else qwen_config()
    return small_checkpoint(tmp_path_factory.mktemp("together") / "model", config)


class Heard:
    """A probe that keeps all it is shown, and says what it wants"""

    def __init__(self, *wanted: Tap) -> None:
        self.wanted = wanted
        self.shown: list[tuple[Site, bytes, bytes]] = []

    def wants(self, tap: Tap) -> bool:
        return tap in self.wanted

    def __call__(self, site: Site, positions: np.ndarray, values: np.ndarray) -> None:
        for position, value in zip(positions.tolist(), values, strict=True):
            self.shown.append((site, position, np.ascontiguousarray(value).tobytes()))


def alone(folder: Path, number: int, probe: Heard | None = None) -> list[Step]:
    with formation.Engine(formation.open(folder), memory="64MiB", probe=probe) as engine:
        return list(engine.generate(PROMPTS[number], TOKENS[number], SAMPLERS[number]))


def wanted(*probes: object) -> list[Wanted]:
    chosen = probes or [Blind()] * len(PROMPTS)
    return [Wanted(ids, n, sampler, (), probe) for ids, n, sampler, probe in zip(PROMPTS, TOKENS, SAMPLERS, chosen, strict=True)]


@pytest.mark.parametrize("options", [{}, {"keep_cache": False}, {"threads": 1, "guess": False}], ids=["cache", "no cache", "one thread"])
def test_each_sequence_gets_the_logits_and_tokens_that_it_gets_alone(folder: Path, options: dict[str, object]) -> None:
    found: list[list[Step]] = [[] for _ in PROMPTS]
    with formation.Engine(formation.open(folder), memory="64MiB", **options) as engine:
        for number, step in engine.generate_together(wanted()):
            found[number].append(step)
    for number, steps in enumerate(found):
        expected = alone(folder, number)
        assert [(step.id, step.position) for step in expected] == [(step.id, step.position) for step in steps]
        assert [step.logits.tobytes() for step in expected] == [step.logits.tobytes() for step in steps]
    assert [3, 3, 3, 2, 1, 1] == [step.shared_by for step in found[1]]


def test_each_probe_is_shown_its_own_rows_only_and_as_it_is_alone(folder: Path) -> None:
    taps = [(), (Tap.ATTENTION_WEIGHTS,), (Tap.DELTA_STATE,)]
    together = [Heard(*each) for each in taps]
    with formation.Engine(formation.open(folder), memory="64MiB") as engine:
        list(engine.generate_together(wanted(*together)))
    for number, probe in enumerate(together):
        expected = Heard(*taps[number])
        alone(folder, number, expected)
        assert sorted(map(str, expected.shown)) == sorted(map(str, probe.shown))
        assert expected.shown


def test_texts_scored_together_have_the_logits_of_each_alone(folder: Path) -> None:
    texts = [([*PROMPTS[0], 3], [1, 3], Blind()), ([*PROMPTS[2]], [0, 18, 19], Blind())]
    with formation.Engine(formation.open(folder), memory="64MiB") as engine:
        found = list(engine.score_together(texts))
        expected = [(number, step) for number, (ids, positions, _) in enumerate(texts) for step in engine.score(ids, positions)]
    assert [(n, s.id, s.position, s.logits.tobytes()) for n, s in expected] == [(n, s.id, s.position, s.logits.tobytes()) for n, s in found]


def test_a_sequence_ends_at_its_stop_and_the_others_go_on(folder: Path) -> None:
    first = alone(folder, 0)[0].id
    asked = [Wanted(PROMPTS[0], 3, stop={first}), Wanted(PROMPTS[1], 3)]
    with formation.Engine(formation.open(folder), memory="64MiB") as engine:
        numbers = [number for number, _ in engine.generate_together(asked)]
    assert [0, 1, 1, 1] == numbers


def test_the_same_prompt_many_times_reads_the_weights_as_often_as_once(folder: Path) -> None:
    read = []
    for count in (1, 5):
        with formation.Engine(formation.open(folder), memory="16MiB", guess=False) as engine:
            steps = [step for _, step in engine.generate_together([Wanted(PROMPTS[2], 1)] * count)]
        rows = next(part.disk_bytes for part in steps[0].reads.parts if part.part == "embedding")
        read.append(steps[0].reads.disk_bytes - rows)
    assert read[0] == read[1] > 0


def test_all_sequences_are_multiplied_by_each_matrix_of_a_layer_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention over keys, and states, are of each sequence; its projections are of all rows"""
    used: list[str] = []
    for name in ("linear", "heads_linear", "heads_linear_t"):
        monkeypatch.setattr(ops, name, counted(getattr(ops, name), used))
    products = []
    for count in (1, 3):
        with formation.Engine(formation.open(folder), memory="64MiB", guess=False) as engine:
            used.clear()
            list(engine.generate_together([Wanted(ids, 1) for ids in PROMPTS[-count:]]))
        products.append(sorted(name for name in used if "attn" in name))
    assert products[0] == products[1]
    assert len(products[0]) > 4 * 3  # of four layers


def counted(product: Any, used: list[str]) -> Any:
    def multiply(weight: Weight, *given: Any, **named: Any) -> Any:
        used.append(weight.name)
        return product(weight, *given, **named)

    return multiply


def test_what_does_not_fit_together_is_refused_before_anything_is_read(folder: Path) -> None:
    many = [Wanted([1, 2, 3], 200)] * 4000
    with formation.Engine(formation.open(folder), memory="64MiB") as engine:
        with pytest.raises(BudgetError, match="memory budget: expected at least"):
            next(engine.generate_together(many))
        assert engine.advice is None


def test_a_prompt_that_is_none_is_refused_among_others(folder: Path) -> None:
    with formation.Engine(formation.open(folder), memory="64MiB") as engine, pytest.raises(PromptError, match="at least one token"):
        engine.generate_together([Wanted([1], 1), Wanted([], 1)])


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50)), min_size=1, max_size=6))
@settings(deadline=None)
def test_stretches_give_back_what_places_were_made_of(parts: list[tuple[int, int]]) -> None:
    made = [places(number, first, count) for number, (count, first) in enumerate(parts)]
    found = [(number, rows.stop - rows.start) for number, rows in stretches(np.concatenate(made))]
    assert [(number, count) for number, (count, _) in enumerate(parts) if count] == found


def test_a_split_probe_wants_what_any_of_its_probes_wants() -> None:
    assert Split([Blind(), Heard(Tap.DELTA_STATE)]).wants(Tap.DELTA_STATE)
    assert not Split([Blind(), Heard(Tap.DELTA_STATE)]).wants(Tap.ATTENTION_WEIGHTS)


def test_a_value_that_is_not_finite_is_blamed_on_its_sequence_and_position() -> None:
    values = np.zeros((2, 3), np.float32)
    values[1, 2] = np.nan
    with pytest.raises(NonFiniteError, match=r"residual of layer 4 at position 7 of sequence 2$"):
        require_finite(Site(Tap.RESIDUAL, 4), np.array([3, 7 + 2 * SEQUENCE]), values)
