"""Many prompts recorded in one pass over the weights: each bundle has the bytes that it has when it is recorded alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

import formation
from formation import recording
from formation.errors import BudgetError, ParityBroken
from formation.ledger import accounts, reader
from formation.ledger.progress import Watch
from formation.recording import Recording, begin_together, resume
from formation.run.order import Order, scoring
from formation.run.replay import Keeping, replay
from formation.run.sample import Sample
from recorded_runs import IDS, Cut, contents, means, run
from small_models import qwen_config, small_checkpoint

ORDERS = (Order(IDS, 3), Order((200, 3), 5, Sample(temperature=1.0, seed=2)), Order((7,) * 9, 2))
TEXTS = (scoring((5, 6, 7, 8, 9, 10), ((2, 4), (5, 6))), scoring((300, 301, 302), ((1, 3),)))
WATCH = Watch("full", "standard", "all")


@pytest.fixture(scope="module", params=["attention", "delta layers"])
def folder(request: pytest.FixtureRequest, k25_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return k25_folder if request.param == "attention" else small_checkpoint(tmp_path_factory.mktemp("qwen") / "model", qwen_config())


def together(folder: Path, out: Path, orders: Sequence[Order], watch: Watch = WATCH, **options: object) -> list[Recording]:
    places = [out / f"{number}.ofb" for number in range(len(orders))]
    return begin_together(formation.open(folder), orders, watch, places, means(**options))


@pytest.mark.parametrize("watch", [WATCH, Watch("standard", "minimal", "boundaries")], ids=["all", "standard"])
def test_each_bundle_is_that_of_the_run_alone(folder: Path, tmp_path: Path, watch: Watch) -> None:
    for number, found in enumerate(together(folder, tmp_path, ORDERS, watch)):
        alone = run(folder, tmp_path / f"alone {number}.ofb", ORDERS[number], watch)
        assert contents(alone.folder) == contents(found.folder)
        assert ("passed", alone.ids, alone.commit) == (found.parity, found.ids, found.commit)


@pytest.mark.parametrize("level", ["minimal", "standard"])
def test_texts_scored_in_one_pass_have_the_ledgers_of_each_alone(folder: Path, tmp_path: Path, level: str) -> None:
    watch = Watch(level, "minimal", "boundaries")
    for number, found in enumerate(together(folder, tmp_path, TEXTS, watch)):
        alone = run(folder, tmp_path / f"alone {number}.ofb", TEXTS[number], watch)
        assert contents(alone.folder) == contents(found.folder)


def test_the_weights_are_read_once_for_all(folder: Path, tmp_path: Path) -> None:
    """The same prompt three times: as many bytes from disk as once, in each round"""
    alone = run(folder, tmp_path / "alone.ofb", ORDERS[0], guess=False)
    three = together(folder, tmp_path, [ORDERS[0]] * 3, Watch("standard", "minimal", "boundaries"), guess=False)
    expected, found = (
        [sum(p["disk_bytes"] for p in line["parts"] if p["part"] != "embedding") for line in accounts.read(each.folder)] for each in (alone, three[0])
    )
    assert expected == found
    assert any(found)


def test_what_was_cut_off_goes_on_alone_to_the_bytes_of_the_run_alone(folder: Path, tmp_path: Path) -> None:
    seen = []

    def count(step: object) -> None:
        seen.append(step)
        if len(seen) == 5:
            raise Cut

    with pytest.raises(Cut):
        together(folder, tmp_path, ORDERS, on_step=count, parity="none")
    for number, order in enumerate(ORDERS):
        alone = run(folder, tmp_path / f"alone {number}.ofb", order, WATCH, parity="none")
        assert not (tmp_path / f"{number}.ofb" / reader.NAME).exists()
        found = resume(formation.open(folder), tmp_path / f"{number}.ofb", means(parity="none"))
        assert contents(alone.folder) == contents(found.folder)


def test_parity_sees_one_changed_bit_in_one_of_them(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second's first logit is one bit off where the repetition reads it: the second is named"""
    ask = recording.parity.in_fresh_process

    def changed(module: str, asked: dict) -> object:
        found = ask(module, asked)
        found[1]["logits"][0] = "0" * 64
        return found

    monkeypatch.setattr(recording.parity, "in_fresh_process", changed)
    with pytest.raises(ParityBroken, match=r"logits_sha256 0000.* in lm_head at position 1"):
        together(folder, tmp_path, ORDERS[:2])
    assert not any((tmp_path / f"{number}.ofb" / reader.NAME).exists() for number in range(2))


def test_a_repetition_keeps_what_each_sequence_kept(folder: Path) -> None:
    texts = [{"ids": [5, 6, 7, 8], "steps": [2]}, {"ids": [9, 10, 11], "steps": [0, 1]}]
    found = []
    for some in (texts, texts[:1], texts[1:]):
        with Keeping(formation.open(folder), memory="24MiB") as engine:
            found.append(replay(engine, some))
    assert found[1] + found[2] == found[0]


def test_runs_that_do_not_fit_together_are_refused_and_leave_nothing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="memory budget: expected at least"):
        together(folder, tmp_path, [Order(IDS, 200)] * 100)
    assert not any(tmp_path.iterdir())


def test_as_many_runs_go_together_as_the_budget_holds(folder: Path) -> None:
    many = [Order(IDS, 200)] * 100
    with means().engine(formation.open(folder)) as engine:
        count = recording.fitting(engine, many, WATCH)
        assert 1 < count < 100
        assert count == recording.fitting(engine, many[:count], WATCH)
        assert len(ORDERS) == recording.fitting(engine, ORDERS, WATCH)
    with means(memory=1 << 16).engine(formation.open(folder)) as engine, pytest.raises(BudgetError):
        recording.fitting(engine, many, WATCH)
