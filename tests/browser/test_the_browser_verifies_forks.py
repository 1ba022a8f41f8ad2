"""A run that departs from another: the page's verdict is Python's, of what is honest and of what its owner changed and signed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.evidence import vectors
from verdicts import Lines, expect_same, expect_verified, python_verdict, with_anchor, with_lines

from formation.evidence.seal import seal
from formation.ledger.anchor import Fork
from formation.run.order import Order
from formation.run.sample import Sample
from recorded_runs import run as recorded_run

IDS, FORCED = (5, 6, 7, 8, 9), (65, 66)


@pytest.fixture(scope="module")
def recorded(k25_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    order = Order(IDS, 4, Sample(seed=3), stop=(257,), fork=Fork("ab" * 32, 3, FORCED))
    out = recorded_run(k25_folder, tmp_path_factory.mktemp("forked") / "run.ofb", order).folder
    seal(out, vectors.key())
    return out


def test_an_honest_fork_is_verified_by_both(run: Any, recorded: Path) -> None:
    expect_verified(run, recorded)


FIRST = len(IDS) - 1


def drawn(lines: Lines) -> None:
    """A given token that claims to be the sampler's"""
    for (_, position), line in lines.items():
        if position == FIRST:
            line["kind"] = "generated"
    lines["sampler", FIRST]["measured"] = dict(lines["sampler", FIRST + 2]["measured"])


EDITS: dict[str, tuple[str, Callable[[Lines], object]]] = {
    "another token than the one that is given": ("sampler", lambda lines: lines["token", FIRST]["measured"].update(id=67)),
    "a given token that was drawn": ("census", drawn),
    "a drawn token that was given": ("census", lambda lines: [line.update(kind="forced") for (_, at), line in lines.items() if at == FIRST + 2]),
    "a prompt position that was given": ("census", lambda lines: [line.update(kind="forced") for (_, at), line in lines.items() if at == 1]),
}
ANCHORS: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "another given id": ("sampler", lambda fork: fork.update(forced=[65, 67])),
    "fewer given ids": ("census", lambda fork: fork.update(forced=[65])),
    "more given ids": ("census", lambda fork: fork.update(forced=[65, 66, 67])),
    "more than the run has": ("anchor", lambda fork: fork.update(forced=[65] * 5)),
    "an end before the last": ("anchor", lambda fork: fork.update(forced=[257, 66])),
    "no digest of a parent": ("anchor", lambda fork: fork.update(parent="AB" * 32)),
    "a token before the first": ("anchor", lambda fork: fork.update(token=0)),
    "a token beyond the prompt": ("anchor", lambda fork: fork.update(token=6)),
    "another field": ("anchor", lambda fork: fork.update(why="")),
    "ids that are none": ("anchor", lambda fork: fork.update(forced=[1.5])),
}


@pytest.mark.parametrize("name", EDITS)
def test_lines_that_its_owner_changes_and_signs_fail_by_the_same_check_in_both(run: Any, recorded: Path, tmp_path: Path, name: str) -> None:
    check, edit = EDITS[name]
    assert check in expect_same(run, with_lines(recorded, tmp_path, edit))


@pytest.mark.parametrize("name", ANCHORS)
def test_a_fork_that_its_owner_changes_fails_by_the_same_check_in_both(run: Any, recorded: Path, tmp_path: Path, name: str) -> None:
    check, edit = ANCHORS[name]
    assert check in expect_same(run, with_anchor(recorded, tmp_path, lambda anchor: edit(anchor["fork"])))


def test_a_fork_that_says_nothing_of_its_parent_fails_in_both(run: Any, recorded: Path, tmp_path: Path) -> None:
    """Its first tokens are forced, and no anchor gives them"""
    assert "census" in expect_same(run, with_anchor(recorded, tmp_path, lambda anchor: anchor.pop("fork")))


def test_another_parent_is_another_run_and_no_check_knows_the_parent(run: Any, recorded: Path, tmp_path: Path) -> None:
    """What a bundle says of its parent is what it was begun with; that the parent has these tokens is seen beside the parent only"""
    bundle = with_anchor(recorded, tmp_path, lambda anchor: anchor["fork"].update(parent="cd" * 32))
    assert set() == expect_same(run, bundle)
    assert python_verdict(bundle)["facts"]["run_id"] != python_verdict(recorded)["facts"]["run_id"]
