"""A past that goes back to a mark, or goes on as a copy of itself, knows what it knew: the same bits as one that begins anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import formation
from formation.run.generate import Engine, Wanted
from formation.run.sample import Sample
from small_models import qwen_config, small_checkpoint

PREFIX, ONE, OTHER = [5, 6, 7, 8, 9], [70, 71, 72], [80, 81]


@pytest.fixture(scope="module", params=["attention", "delta layers"])
def engine(request: pytest.FixtureRequest, k25_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = k25_folder if request.param == "attention" else small_checkpoint(tmp_path_factory.mktemp("qwen") / "model", qwen_config())
    with Engine(formation.open(folder), memory="32MiB", threads=1) as made:
        yield made


def last(engine: Engine, ids: list[int], past: object = None) -> bytes:
    (step,) = engine.generate(ids, 1, past=past)  # type: ignore[arg-type]
    return step.logits.tobytes()


def test_back_at_a_mark_another_way_has_the_bits_that_it_has_alone(engine: Engine) -> None:
    past = engine.past(16)
    last(engine, PREFIX, past)
    mark = past.mark()
    for way in (ONE, OTHER, ONE):
        for end in range(1, len(way) + 1):
            assert last(engine, [*PREFIX, *way[:end]]) == last(engine, [*PREFIX, *way[:end]], past)
        past.go_back(mark)
        assert PREFIX == past.ids and len(PREFIX) == past.known([*PREFIX, 1])


def test_a_mark_that_a_past_no_longer_holds_is_refused(engine: Engine) -> None:
    past = engine.past(16)
    last(engine, [*PREFIX, *ONE], past)
    mark = past.mark()
    last(engine, [*PREFIX, *OTHER], past)
    assert not past.holds(mark)
    with pytest.raises(ValueError, match="went on from its mark"):
        past.go_back(mark)


def test_copies_go_on_by_themselves_in_the_same_passes(engine: Engine) -> None:
    past = engine.past(16)
    last(engine, PREFIX, past)
    wanted = [Wanted([*PREFIX, *way], 4, Sample(seed=n), past=past.copy(16)) for n, way in enumerate((ONE, OTHER))]
    together: list[list[int]] = [[], []]
    for number, step in engine.generate_together(wanted):
        together[number].append(step.id)
    for n, (way, ids) in enumerate(zip((ONE, OTHER), together, strict=True)):
        assert [step.id for step in engine.generate([*PREFIX, *way], 4, Sample(seed=n))] == ids
    assert PREFIX == past.ids
    alone, kept = last(engine, [*PREFIX, 90]), last(engine, [*PREFIX, 90], past)
    assert np.array_equal(np.frombuffer(alone, np.float32), np.frombuffer(kept, np.float32))
