"""Comparing two bundles: the first line that differs is found and named, whatever differs, and nothing is found where nothing does."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.evidence.whole_bundles import SAMPLE, Kind, make

from formation.cli.main import build_parser, main
from formation.evidence.comparison import compare
from formation.ledger import fields
from formation.ledger.progress import Watch
from formation.run.order import Order
from formation.run.sample import Sample
from ledger.small_ledger import Line, edited, small_ledger, ulp_more
from recorded_runs import IDS, run
from small_bundles import HOSTILE, small_bundle, with_bytes, write_bundle


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, k25_folder: Path) -> dict[str, Path]:
    """Recordings of one small model"""
    folder = tmp_path_factory.mktemp("compared")
    standard = Watch("standard", "minimal", "none")
    orders: dict[str, tuple[Order, Watch]] = {
        "first": (Order(IDS, 3), standard),
        "again": (Order(IDS, 3), standard),
        "minimal": (Order(IDS, 3), Watch("minimal", "minimal", "none")),
        "prompt": (Order((*IDS[:3], 99, IDS[4]), 3), standard),
        "longer": (Order((*IDS, 10, 11), 3), standard),
        "seed 1": (Order(IDS, 3, Sample(temperature=2.0, seed=1)), standard),
        "seed 2": (Order(IDS, 3, Sample(temperature=2.0, seed=2)), standard),
    }
    for name, (order, watch) in orders.items():
        run(k25_folder, folder / name, order, watch, parity="none")
    return {name: folder / name for name in orders}


# ---- real runs


def test_a_run_recorded_twice_is_the_same_ledger(runs: dict[str, Path]) -> None:
    found = compare(runs["first"], runs["again"])
    assert found.same
    assert (None, None, []) == (found.first, found.first_token, found.layers)
    assert ((), (), ()) == (found.unequal, found.only_a, found.only_b)
    assert 7 == found.positions
    assert all(spread.equal == spread.positions == 7 and spread.apart == 0.0 for spread in found.spread)


def test_two_capture_levels_are_compared_in_the_fields_that_both_hold(runs: dict[str, Path]) -> None:
    found = compare(runs["first"], runs["minimal"])
    assert not found.same
    assert (None, None, ()) == (found.first, found.first_token, found.unequal)
    due = {f"{f.slot}.{f.name}" for f in fields.FIELDS if f.level == "standard"}
    assert due == set(found.only_a)
    assert () == found.only_b
    assert due == set(compare(runs["minimal"], runs["first"]).only_b)


def test_two_prompts_differ_where_their_ids_do(runs: dict[str, Path]) -> None:
    found = compare(runs["first"], runs["prompt"])
    assert [("prompt.ids[3]", 8, 99)] == [(each.field, each.a, each.b) for each in found.unequal]
    assert found.first is not None
    assert (3, "embed") == (found.first.position, found.first.slot)
    assert "residual_sha256" in {each.field for each in found.first.unequal}
    assert [3] * 4 == [layer.position for layer in found.layers]
    assert not any(layer.equal for layer in found.layers)
    assert all(3 == spread.equal for spread in found.spread)


def test_a_longer_prompt_is_compared_as_far_as_both_go(runs: dict[str, Path]) -> None:
    found = compare(runs["first"], runs["longer"])
    assert [("prompt.ids, length", 5, 7)] == [(each.field, each.a, each.b) for each in found.unequal]
    assert 7 == found.positions
    assert found.first is not None
    assert 5 == found.first.position
    assert [(5, 7), (6, 8), (7, 9)] == [(pair.a.position, pair.b.position) for pair in found.tokens if pair.a and pair.b]


def test_two_seeds_differ_first_in_the_draw(runs: dict[str, Path]) -> None:
    found = compare(runs["seed 1"], runs["seed 2"])
    assert ["sampler.seed"] == [each.field for each in found.unequal]
    assert found.first is not None
    assert (4, "sampler") == (found.first.position, found.first.slot)
    assert "draw" in {each.field for each in found.first.unequal}
    first = found.first_token
    assert first is not None and first.a and first.b
    assert first.a.id != first.b.id
    assert first.number + 4 == found.layers[0].position


def test_a_sampled_and_a_greedy_run_share_the_prompt(runs: dict[str, Path]) -> None:
    found = compare(runs["first"], runs["seed 1"])
    assert "sampler.method" in {each.field for each in found.unequal}
    assert {"prompt.ids", "checkpoint.sha256", "contract.digest"} <= set(found.shared)
    assert found.first is not None
    assert "sampler" == found.first.slot


# ---- one edit


def edit(lines: list[Line], where: tuple[int, str, str], change: Callable[[Any], Any]) -> list[Line]:
    return edited(lines, *where, change)


@pytest.mark.parametrize(
    ("where", "change", "field"),
    [
        ((0, "embed", "residual_norm"), lambda x: x + 1, "residual_norm"),
        ((2, "layer 1", "residual_sha256"), lambda _: "0" * 64, "residual_sha256"),
        ((2, "layer 2", "gates"), ulp_more(1), "gates[1]"),
        ((1, "layer 1", "chosen"), lambda ids: [ids[0], (ids[0] + ids[1] + 1) % 8], "chosen[1]"),
        ((3, "layer 0", "attention_strongest"), lambda rows: [rows[0], rows[1] | {"weight": 0.25}, *rows[2:]], "attention_strongest[1]"),
        ((2, "layer 1", "lens_kl"), lambda x: x + 0.5, "lens_kl"),
        ((3, "lm_head", "top_margin"), lambda x: x + 0.5, "top_margin"),
        ((1, "sampler", "draw"), lambda x: x / 2, "draw"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_one_edited_value_is_found_with_its_place(tmp_path: Path, where: tuple[int, str, str], change: Callable[[Any], Any], field: str) -> None:
    lines = small_ledger()
    a, b = write_bundle(tmp_path / "a.ofb", lines), write_bundle(tmp_path / "b.ofb", edit(lines, where, change))
    found = compare(a, b)
    assert not found.same
    assert found.first is not None
    assert (*where[:2], (field,)) == (found.first.position, found.first.slot, tuple(each.field for each in found.first.unequal))
    assert found.first.compared > 1
    (unequal,) = found.first.unequal
    (back,) = compare(b, a).first.unequal  # type: ignore[union-attr]
    assert (unequal.a, unequal.b) == (back.b, back.a)
    assert unequal.a != unequal.b


def test_what_is_measured_comes_before_what_follows_from_the_token(tmp_path: Path) -> None:
    lines = small_ledger()
    changed = edit(edit(lines, (1, "layer 0", "lens_kl"), lambda x: x + 1), (1, "layer 2", "residual_norm"), lambda x: x + 1)
    found = compare(write_bundle(tmp_path / "a.ofb", lines), write_bundle(tmp_path / "b.ofb", changed))
    assert found.first is not None
    assert "layer 2" == found.first.slot


def test_an_incomplete_ledger_is_compared_as_far_as_it_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = small_ledger()
    a, b = write_bundle(tmp_path / "a.ofb", lines), write_bundle(tmp_path / "b.ofb", lines[:9], complete=False, tail=b'{"torn')
    found = compare(a, b)
    assert not found.same
    assert (None, 2) == (found.first, found.positions)
    assert [False] * len(found.tokens) == [pair.same for pair in found.tokens]
    assert 0 == main(["compare", str(a), str(b)])
    captured = capsys.readouterr()
    assert "INCOMPLETE" in captured.err
    assert "nowhere, in the fields that both hold of 2 positions" in captured.out


def test_bundles_of_other_shapes_are_compared(tmp_path: Path) -> None:
    found = compare(small_bundle(tmp_path / "a.ofb"), make(tmp_path / "b.ofb", Kind(rows="none", sampler=SAMPLE)))
    assert found.first is not None
    assert (0, "embed") == (found.first.position, found.first.slot)


# ---- the command


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert 0 == main(["compare", *map(str, arguments)])
    return capsys.readouterr().out


def test_the_command_says_where_and_how_far(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    same = told(capsys, runs["first"], runs["again"])
    assert "the same ledger" in same
    assert "anchors        the same" in same
    assert "equal at every layer of 7 positions" in same
    out = told(capsys, runs["first"], runs["prompt"])
    assert "the same ledger" not in out
    assert "first differ   embed at position 3" in out
    assert "prompt.ids[3]: 8 and 99" in out
    assert "position 3, the first at which rows differ" in out
    assert "3 of 7" in out


def test_the_document_is_json_with_all_digits(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(told(capsys, runs["seed 1"], runs["seed 2"], "--json"))
    assert "formation-comparison/1" == found["kind"]
    assert not found["same"]
    assert {"position": 4, "slot": "sampler"} == {name: found["first"][name] for name in ("position", "slot")}
    assert compare(runs["seed 1"], runs["seed 2"]).first_token.number == found["first_token"]  # type: ignore[union-attr]
    assert 3 == len(found["tokens"])
    assert {"id", "text", "bytes", "position", "probability", "surprisal_bits"} == set(found["tokens"][0]["a"])


def test_hostile_text_is_inert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_bundle(tmp_path / "a.ofb", with_bytes(small_ledger(), HOSTILE.encode()))
    out = told(capsys, a, small_bundle(tmp_path / "b.ofb"))
    assert not {"\u202e", "\x1b", "\r"} & set(out)


def test_the_commands_of_the_page_are_commands() -> None:
    page = (Path(__file__).parents[2] / "docs" / "compare.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    formation (.*?)\s*(?:#.*)?$", page, re.M)
    assert [False, True, False] == [build_parser().parse_args(command.split()).json for command in commands]


def test_wrong_inputs_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = small_bundle(tmp_path / "a.ofb")
    damaged = shutil.copytree(good, tmp_path / "b.ofb")
    (damaged / "ledger.jsonl").write_bytes((good / "ledger.jsonl").read_bytes().replace(b'"embed"', b'"Embed"', 1))
    for other, said in ((tmp_path / "nothing", "got nothing"), (damaged, "line 2"), (good / "anchor.json", "got a file")):
        assert 3 == main(["compare", str(good), str(other)])
        captured = capsys.readouterr()
        assert "" == captured.out
        assert said in captured.err
    with pytest.raises(SystemExit) as exit_:
        main(["compare", str(good)])
    assert 2 == exit_.value.code
