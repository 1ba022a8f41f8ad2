"""A run that scores a given text: the page's verdict is Python's, of what is honest and of what its owner changed and signed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.evidence import vectors
from tests.evidence.whole_bundles import reseal
from verdicts import Lines, copy_of, expect_same, expect_verified, with_anchor, with_lines

from formation.evidence.seal import seal
from formation.ledger.progress import Watch
from formation.run.order import scoring
from recorded_runs import run as recorded_run

IDS, SPANS = (5, 6, 7, 8, 9, 274, 298, 359, 452), ((2, 4), (6, 9))


@pytest.fixture(scope="module")
def recorded(k25_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    watch = Watch("standard", "minimal", "boundaries")
    out = recorded_run(k25_folder, tmp_path_factory.mktemp("scored") / "run.ofb", scoring(IDS, SPANS), watch).folder
    seal(out, vectors.key())
    return out


def test_an_honest_run_is_verified_by_both(run: Any, recorded: Path) -> None:
    expect_verified(run, recorded)


def set_ids(document: dict[str, Any], place: int, token: int) -> None:
    document["prompt"]["ids"][place] = token


def generated(lines: Lines) -> None:
    """A step that claims to be a sampler's"""
    for (_, position), line in lines.items():
        if position == 5:
            line["kind"] = "generated"
    for field in ("draw", "low", "high", "kept", "kept_mass"):
        lines["sampler", 5]["measured"][field] = {"absent": "greedy"}
    lines["sampler", 5]["measured"]["method"] = "greedy"


EDITS: dict[str, tuple[str, Callable[[Lines], object]]] = {
    "a token that was not said": ("sampler", lambda lines: lines["token", 5]["measured"].update(id=299)),
    "a step of a sampler": ("census", generated),
    "one line of a prompt position as a step's": ("census", lambda lines: lines["embed", 3].update(kind="scored")),
    "a step as a prompt position": ("census", lambda lines: [line.update(kind="prompt") for (_, at), line in lines.items() if at == 1]),
    "another method": ("census", lambda lines: lines["sampler", 6]["measured"].update(method="sample")),
    "an embedding of another id": ("inputs", lambda lines: lines["token", 1]["measured"].update(bytes="YQ==", id=8)),
}
ANCHORS: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "another scored id": ("sampler", lambda a: set_ids(a, 2, 11)),
    "another stretch": ("census", lambda a: a["sampler"].update(scored=[[1, 3], [6, 9]])),
    "fewer scored": ("census", lambda a: (a["sampler"].update(scored=[[6, 9]]), a["stop"].update(tokens=3))),
    "stretches that touch": ("anchor", lambda a: a["sampler"].update(scored=[[2, 6], [6, 9]])),
    "a stretch from the first id": ("anchor", lambda a: a["sampler"].update(scored=[[0, 2], [6, 9]])),
    "ids after the last": ("anchor", lambda a: a["prompt"]["ids"].append(5)),
    "another number of tokens": ("anchor", lambda a: a["stop"].update(tokens=6)),
    "an id that ends it": ("anchor", lambda a: a["stop"].update(ids=[7])),
    "no stretches": ("anchor", lambda a: a["sampler"].update(scored=[])),
    "no list": ("anchor", lambda a: a["sampler"].update(scored={"from": 2})),
    "stretches of three": ("anchor", lambda a: a["sampler"].update(scored=[[2, 4, 6], [6, 9]])),
    "a sampler beside": ("anchor", lambda a: a["sampler"].update(temperature=1)),
    "an id beyond the vocabulary": ("inputs", lambda a: set_ids(a, 4, 1 << 40)),
}


@pytest.mark.parametrize("name", EDITS)
def test_lines_that_its_owner_changes_and_signs_fail_by_the_same_check_in_both(run: Any, recorded: Path, tmp_path: Path, name: str) -> None:
    check, edit = EDITS[name]
    assert check in expect_same(run, with_lines(recorded, tmp_path, edit))


@pytest.mark.parametrize("name", ANCHORS)
def test_an_anchor_that_its_owner_changes_fails_by_the_same_check_in_both(run: Any, recorded: Path, tmp_path: Path, name: str) -> None:
    check, edit = ANCHORS[name]
    assert check in expect_same(run, with_anchor(recorded, tmp_path, edit))


CHANGES = {"less": lambda lines: lines[:-1], "more": lambda lines: [lines[0], *lines], "back": lambda lines: lines[::-1]}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_accounts_are_of_the_steps_in_their_order(run: Any, recorded: Path, tmp_path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    bundle = copy_of(recorded, tmp_path)
    lines = (bundle / "io.jsonl").read_bytes().splitlines(keepends=True)
    (bundle / "io.jsonl").write_bytes(b"".join(change(lines)))
    reseal(bundle)
    assert {"declarations"} == expect_same(run, bundle)
