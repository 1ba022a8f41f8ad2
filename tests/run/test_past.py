"""A past is kept between runs: what it knows is not computed again, and no bit changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import formation
from formation.errors import BudgetError
from formation.run.generate import Engine
from formation.run.past import Past
from small_models import qwen_config, small_checkpoint, small_config

SMALL: dict[str, Any] = {"num_hidden_layers": 2, "num_experts_per_tok": 2, "max_position_embeddings": 256}
MODELS = {
    "attention": small_config(**SMALL, n_routed_experts=4),
    "delta and attention": qwen_config(**SMALL, num_experts=4, full_attention_interval=2),
}
FIRST = [int(i) for i in np.random.default_rng(3).integers(3, 512, 20)]
MORE = [int(i) for i in np.random.default_rng(4).integers(3, 512, 30)]


@pytest.fixture(scope="module", params=MODELS, ids=lambda name: name.replace(" ", "-"))
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = small_checkpoint(tmp_path_factory.mktemp("past") / "model", MODELS[request.param])
    with Engine(formation.open(folder), memory="24MiB", threads=1) as opened:
        yield opened


def steps(engine: Engine, ids: list[int], past: Past | None, new: int = 3) -> list[bytes]:
    return [step.logits.tobytes() for step in engine.generate(ids, new, past=past)]


def passes(engine: Engine) -> list[int]:
    """How many positions each pass computes, from now on"""
    seen: list[int] = []
    engine.progress = lambda p: seen.append(p.positions) if p.stage == "head" else None
    engine.close()  # so that the next executor reports
    return seen


def test_a_prompt_that_goes_on_is_computed_from_where_it_was(engine: Engine) -> None:
    past = engine.past()
    ids = FIRST + [step.id for step in engine.generate(FIRST, 3, past=past)] + MORE
    expected = steps(engine, ids, None)
    seen = passes(engine)
    assert expected == steps(engine, ids, past)
    assert [len(ids) - len(FIRST) - 2, 1, 1] == seen  # the last token was never stepped


@pytest.mark.parametrize("other", [FIRST[:10] + MORE, FIRST, FIRST[:7], MORE], ids=["another-end", "the-same", "a-part", "another"])
def test_other_ids_give_what_they_give_without_it(engine: Engine, other: list[int]) -> None:
    past = engine.past()
    steps(engine, FIRST, past, 5)
    assert steps(engine, other, None) == steps(engine, other, past)


def test_attention_goes_back_to_any_position_and_a_state_to_none(engine: Engine) -> None:
    past = engine.past()
    steps(engine, FIRST, past)
    has_states = any(engine.model.kind(layer) == "delta" for layer in range(engine.model.shape.layers))
    assert (0 if has_states else 10) == past.known(FIRST[:10] + MORE)
    assert (0 if has_states else 6) == past.known(FIRST[:7])
    assert 22 == past.known([*past.ids, 5])


def test_a_pass_that_fails_leaves_nothing_to_rely_on(engine: Engine) -> None:
    past, expected = engine.past(), steps(engine, FIRST + MORE, None)
    steps(engine, FIRST, past)

    def fail(p: Any) -> None:
        if p.layer == 1:
            raise KeyboardInterrupt

    engine.close()
    engine.progress = fail
    with pytest.raises(KeyboardInterrupt):
        steps(engine, FIRST + MORE, past)
    engine.progress = None
    engine.close()
    assert [] == past.ids
    assert expected == steps(engine, FIRST + MORE, past)


def test_room_grows_with_the_sequence_and_the_budget_holds_every_past(engine: Engine) -> None:
    first, second = engine.past(room=64), engine.past()
    assert (64, 0) == (first.capacity, second.nbytes)
    expected = steps(engine, FIRST + MORE + MORE, None)
    assert expected == steps(engine, FIRST + MORE + MORE, first)
    assert 128 == first.capacity
    free = engine.plan(100, 1, first).stream_bytes
    steps(engine, FIRST, second)
    assert free - second.nbytes == engine.plan(100, 1, first).stream_bytes


def test_a_past_is_made_with_room_for_what_an_eighth_of_the_budget_holds(engine: Engine) -> None:
    most = engine.past(room=1 << 40)
    assert 0 < most.nbytes <= engine.budget // 8
    with pytest.raises(BudgetError, match="memory budget: expected at least"):
        engine.plan(1 << 30, 1, most)
