"""Forks of a dialogue: the base is reproduced and never touched, branches share its chances, a kill changes no byte."""

from __future__ import annotations

import json
import math
import shutil
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.dialogue.forked import TOKENS, a_dialogue, files_of, fork, tokens_of
from tests.dialogue.small_sides import two_checkpoints

from formation.dialogue.cast import Means
from formation.dialogue.forks import log, stem
from formation.dialogue.forks.choices import Asked, read_choice, read_choices
from formation.dialogue.forks.forking import SUMMARY, TREE, Ask
from formation.dialogue.forks.forking import fork as fork_source
from formation.dialogue.forks.of_dialogue import OfDialogue, open_dialogue
from formation.dialogue.forks.source import Formed
from formation.dialogue.forks.tree import planted
from formation.errors import EvidenceError, UsageError
from formation.ledger import canonical
from formation.run.executor import Progress

SIDES = {1: "owl", 2: "lamp"}  # by message: attention, delta layers
Fork = dict[str, Any]


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_dialogue(tmp_path_factory.mktemp("dialogue"))


def opened(talk: Path, message: int, token: int, **settings: Any) -> Any:
    return open_dialogue(talk, message, token, Means("32MiB", 1), settings=settings)


def forked(talk: Path, out: Path, message: int, token: int, choices: list[str], settings: dict[str, Any] | None = None, **ask: Any) -> list[Fork]:
    """The lines of the log, the first one's head before them"""
    with opened(talk, message, token, **(settings or {})) as source:
        fork_source(source, Ask(tuple(read_choices(choices)), **({"tokens": TOKENS} | ask)), out)
    return [json.loads(line) for line in (out / log.NAME).read_bytes().splitlines()]


def without(measured: Fork, *names: str) -> Fork:
    return {name: value for name, value in measured.items() if name not in names}


# ---- the base


@pytest.mark.parametrize("message", SIDES, ids=SIDES.values())
@pytest.mark.parametrize("token", [1, 3])
def test_the_bases_own_token_forced_gives_the_bases_bits(talk: Path, tmp_path: Path, message: int, token: int) -> None:
    base = tokens_of(talk, message)[token - 1 :]
    _, branch = forked(talk, tmp_path / "fork", message, token, [f"id:{base[0]['id']}"], tokens=len(base))
    assert [each["id"] for each in base] == [each["id"] for each in branch["tokens"]]
    assert [each["measured"] for each in base[1:]] == [each["measured"] for each in branch["tokens"][1:]]
    first, drawn = branch["tokens"][0], ("method", "draw", "low", "high")
    assert ("forced", "forced") == (first["kind"], first["measured"]["method"])
    assert without(base[0]["measured"], *drawn) == without(first["measured"], *drawn)
    assert all(each["kl_nats"] == 0 and not each["is_above_floor"] for each in branch["apart"]) and branch["apart"]


@pytest.mark.parametrize("message", SIDES, ids=SIDES.values())
def test_with_the_bases_draws_what_is_left_free_is_the_base(talk: Path, tmp_path: Path, message: int) -> None:
    base = tokens_of(talk, message)
    _, same, other = forked(talk, tmp_path / "shared", message, 1, ["free"], samples=2)
    assert [(each["id"], each["measured"]) for each in base] == [(each["id"], each["measured"]) for each in same["tokens"]]
    assert base[0]["measured"]["draw"] != other["tokens"][0]["measured"]["draw"]
    _, own = forked(talk, tmp_path / "own", message, 1, ["free"], own_draws=True)
    assert base[0]["measured"]["draw"] != own["tokens"][0]["measured"]["draw"]


@pytest.mark.parametrize("message", SIDES, ids=SIDES.values())
def test_branches_share_their_draws_until_their_distributions_differ(talk: Path, tmp_path: Path, message: int) -> None:
    """The same draws at the same places in all; another token comes only where another was said before"""
    _, *branches = forked(talk, tmp_path / "fork", message, 2, ["free", "least", "id:65"])
    draws = [[each["measured"]["draw"] for each in branch["tokens"]] for branch in branches]
    assert draws[0][1:] == draws[1][1:] == draws[2][1:] and {"absent": "not sampled"} == draws[1][0]
    apart = [[each["offset"] for each in branch["apart"] if each["is_above_floor"]] for branch in branches]
    assert not apart[0] and apart[1] and 1 == apart[1][0]


def test_no_fork_changes_a_byte_of_its_base(talk: Path, tmp_path: Path) -> None:
    before = files_of(talk)
    forked(talk, tmp_path / "fork", 3, 2, ["end", "least", "resample", "resample:9", "undecided", "xy", "free"], samples=2)
    assert before == files_of(talk)


@pytest.mark.parametrize("message", SIDES, ids=SIDES.values())
def test_the_prefix_is_computed_once_and_branches_share_their_passes(talk: Path, tmp_path: Path, message: int) -> None:
    """After the first pass none computes more than a token of each branch, and there are as many as the longest has tokens"""
    passes: list[int] = []

    def note(progress: Progress) -> None:
        if progress.stage == "done":
            passes.append(progress.positions)

    choices = ["least", "free", "id:66"]
    with open_dialogue(talk, message, 3, Means("32MiB", 1, note)) as source:
        fork_source(source, Ask(tuple(read_choices(choices)), samples=2, tokens=4, offsets=2), tmp_path / "fork")
    first, *rest = passes
    forced, followed, together = rest[2:4], rest[:2], rest[4:]
    assert len(source.stem.ids) == first and [1] * 4 == forced + followed
    assert 6 >= max(together) > 1 and len(together) <= 3


@pytest.mark.parametrize("message", SIDES, ids=SIDES.values())
def test_branches_that_share_their_passes_have_the_bytes_that_they_have_alone(
    talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: int
) -> None:  # fmt: skip
    choices = ["least", "free", "xy", "end", "resample"]
    forked(talk, tmp_path / "together", message, 2, choices, samples=3)
    monkeypatch.setattr(stem, "MOST_TOGETHER", 1)
    forked(talk, tmp_path / "alone", message, 2, choices, samples=3)
    assert files_of(tmp_path / "together") == files_of(tmp_path / "alone")


def test_a_log_of_another_checkpoint_is_refused(talk: Path, tmp_path: Path) -> None:
    other = two_checkpoints(tmp_path)[1]
    with pytest.raises(EvidenceError, match="side owl: expected"), open_dialogue(talk, 1, 1, Means("32MiB", 1), place=str(other)):
        pass


def test_a_base_that_does_not_come_out_as_recorded_is_refused(talk: Path, tmp_path: Path) -> None:
    with opened(talk, 1, 2) as source:
        wrong = [dict(event, id=7) if place == 1 else event for place, event in enumerate(source.events)]
        lying = OfDialogue(source.said, source.base, source.stem, source.recorded, wrong)
        with pytest.raises(EvidenceError, match="message 1 token 3: expected id 7, as the log has it"):
            fork_source(lying, Ask((Asked("free"),), tokens=3), tmp_path / "fork")
    assert not (tmp_path / "fork" / SUMMARY).exists()


# ---- what is measured


def test_odds_and_divergences_are_those_of_the_models_logits(talk: Path, tmp_path: Path) -> None:
    """Computed from whole passes without a past, in plain numpy"""
    forked(talk, tmp_path / "fork", 1, 2, ["id:65", "BC"])
    told, base = json.loads((tmp_path / "fork" / SUMMARY).read_bytes()), [each["id"] for each in tokens_of(talk, 1)]
    with opened(talk, 1, 2) as source:
        prefix = list(source.stem.ids)

        def logprobs(said: list[int]) -> np.ndarray:
            z = source.stem.engine.logits([*prefix, *said])[-1].astype(np.float64)
            return z - (z.max() + math.log(np.exp(z - z.max()).sum()))

        root = logprobs([])
        assert pytest.approx(root[65], abs=1e-9) == told["choices"][0]["logprob_nats"]
        assert pytest.approx(root[65] - root[base[1]], abs=1e-9) == told["choices"][0]["odds_nats"]
        assert pytest.approx(root[66] + logprobs([66])[67], abs=1e-9) == told["choices"][1]["logprob_nats"]
        p, r = logprobs([65]), logprobs([base[1]])
    first = told["divergences"][0]
    assert pytest.approx(float((np.exp(p) * (p - r)).sum()), rel=1e-9) == first["kl_nats"]
    m = np.log((np.exp(p) + np.exp(r)) / 2)
    assert pytest.approx(float((np.exp(p) * (p - m) + np.exp(r) * (r - m)).sum()) / 2, rel=1e-9) == first["js_nats"]
    assert "id:65 (sample 0) after 1 token, base after 1 token" == f"{first['of']}, {first['reference']}"


def test_a_forced_token_that_the_sampler_cuts_off_keeps_its_p_and_has_no_q(talk: Path, tmp_path: Path) -> None:
    forked(talk, tmp_path / "fork", 1, 1, ["least"], {"top_k": 2})
    root = json.loads((tmp_path / "fork" / TREE).read_bytes())["root"]
    (node,) = [child for child in root["children"] if child["kind"] == "forced"]
    assert ("POSITIVE", "TRUNCATED(top-k)") == (node["p"]["zero"], node["q"]["zero"])
    assert 0 < node["p"]["probability"] and 0 == node["q"]["probability"] and {"absent": "no probability"} == node["q"]["logprob_nats"]


def test_what_is_not_drawn_has_one_sample_and_needs_no_interval(talk: Path, tmp_path: Path) -> None:
    _, *branches = forked(talk, tmp_path / "fork", 1, 1, ["end", "free"], samples=3)
    assert [0, 1, 1, 1] == [branch["choice"] for branch in branches] and "end of turn" == branches[0]["ended"]
    rows = {(each["choice"], each["outcome"]): each for each in json.loads((tmp_path / "fork" / SUMMARY).read_bytes())["outcomes"]}
    ended = rows["end", "ends the turn"]
    assert (1, 1, False, 1, 1) == tuple(ended[name] for name in ("times", "of", "drawn", "low", "high"))
    free = rows["free", "says what the base says"]
    assert free["drawn"] and 3 == free["of"] and 0 <= free["low"] < free["times"] / 3 < free["high"] <= 1


# ---- the tree


def walk(node: Fork) -> Iterator[Fork]:
    yield node
    for child in node["children"]:
        assert node["id"] == child["parent"] and node["token"] + (child["kind"] != "undecided") == child["token"]
        yield from walk(child)


def test_the_tree_holds_every_branch_and_each_leaf_spells_its_own(talk: Path, tmp_path: Path) -> None:
    _, *branches = forked(talk, tmp_path / "fork", 2, 2, ["free", "end", "least", "undecided", "resample"], samples=3)
    root, told = (json.loads((tmp_path / "fork" / name).read_bytes()) for name in (TREE, SUMMARY))
    nodes = {node["id"]: node for node in walk(root["root"])}
    assert [*range(len(nodes))] == sorted(nodes) and (2, 1) == (root["root"]["message"], root["root"]["token"])
    assert [1] == [1 for node in nodes.values() if node["kind"] == "undecided" and node["id"]]
    assert [1] == [1 for node in nodes.values() if node["kind"] == "end"]
    for row, branch in zip(told["branches"], branches, strict=True):
        spelt, at = [], nodes[row["leaf"]]
        while at["id"]:
            spelt.append(at["token_id"])
            at = nodes[at["parent"]]
        assert [each["id"] for each in branch["tokens"]] == spelt[::-1]
    for node in nodes.values():
        different = {child["token_id"]: child["p"]["probability"] for child in node["children"] if child["kind"] != "undecided"}
        assert sum(different.values()) <= 1 + 1e-12


TOKEN = st.builds(lambda number, kind: Formed(number, "QQ==", kind, {}), st.integers(0, 3), st.sampled_from(["sampled", "forced"]))


@given(st.lists(st.lists(TOKEN, max_size=5), max_size=6), st.lists(TOKEN, max_size=5))
def test_a_tree_that_grows_changes_no_node(branches: list[list[Formed]], more: list[Formed]) -> None:
    tree, leaves = planted(3).with_branches(branches)
    kept = tree.nodes
    grown, (leaf,) = tree.with_branches([more])
    assert kept == tree.nodes == grown.nodes[: len(kept)]
    for branch, end in zip([*branches, more], [*leaves, leaf], strict=True):
        assert branch == [node.formed for node in grown.path(end)]
    assert len(grown.nodes) == 1 + len({tuple((t.id, t.kind) for t in branch[:n]) for branch in [*branches, more] for n in range(1, len(branch) + 1)})


# ---- again, and after a kill

CHOICES = ["--choose", "least", "free", "∅", "--samples", "2", "--tokens", "4", "--marker", "a"]


@pytest.fixture(scope="module")
def whole(talk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "fork"
    assert 0 == fork(talk, out, "2:2", *CHOICES)
    return out


def test_the_same_command_gives_the_same_bytes(talk: Path, whole: Path, tmp_path: Path) -> None:
    assert 0 == fork(talk, tmp_path / "again", "2:2", *CHOICES)
    assert {SUMMARY, TREE, log.NAME} == files_of(whole).keys()
    assert files_of(whole) == files_of(tmp_path / "again")


@pytest.mark.parametrize("lines", [0, 1, 3, 5])
def test_killed_after_any_branch_it_goes_on_to_the_same_bytes(talk: Path, whole: Path, tmp_path: Path, lines: int) -> None:
    """And while the next line was being written"""
    out = tmp_path / "cut"
    out.mkdir()
    made = (whole / log.NAME).read_bytes().splitlines(keepends=True)
    (out / log.NAME).write_bytes(b"".join(made[:lines]) + made[lines][:40])
    assert 0 == fork(talk, out, "2:2", *CHOICES)
    assert files_of(whole) == files_of(out)


def test_another_fork_in_its_folder_is_refused(talk: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "other"
    shutil.copytree(whole, out)
    assert 3 == fork(talk, out, "2:2", *CHOICES)
    (out / SUMMARY).unlink()
    before = files_of(out)
    assert 1 == fork(talk, out, "2:3", *CHOICES)
    said = capsys.readouterr()
    assert "expected at.token 2, as the fork there was begun with, got 3" in said.err and not said.out
    assert before == files_of(out)


def test_lines_that_are_none_of_this_fork_are_refused(talk: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = (whole / log.NAME).read_bytes().splitlines(keepends=True)
    wrong = {"another branch": [made[0], made[2]], "too many": [*made, made[-1]], "no object": [made[0], b"[]\n"], "no JSON": [b"{\n"]}
    for place, lines in enumerate(wrong.values()):
        out = tmp_path / str(place)
        out.mkdir()
        (out / log.NAME).write_bytes(b"".join(lines))
        assert 1 == fork(talk, out, "2:2", *CHOICES)
        assert not (out / SUMMARY).exists() and not capsys.readouterr().out


def test_a_line_that_somebody_changed_is_refused_or_is_a_line(
    talk: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """Never a traceback: fields that are gone, of another type, or of another meaning"""
    made = (whole / log.NAME).read_bytes().splitlines(keepends=True)
    branch = json.loads(made[1])
    changes: list[Fork] = [{name: None} for name in branch] + [
        {"tokens": [{}]}, {"tokens": [branch["tokens"][0] | {"bytes": "?"}]}, {"tokens": [branch["tokens"][0] | {"measured": {}}]},
        {"bundle": "../x"},
    ]  # fmt: skip
    for place, change in enumerate(changes):
        out = tmp_path / str(place)
        out.mkdir()
        line = canonical.encode(branch | change, limits=log.LIMITS) + b"\n"
        (out / log.NAME).write_bytes(b"".join([made[0], line, *made[2:]]))
        assert 1 == fork(talk, out, "2:2", *CHOICES)
        said = capsys.readouterr()
        assert said.err.splitlines()[-1].startswith("formation: ") and "line 2" in said.err + "line 2" * ("bundle" in change)
        assert not said.out and not (out / SUMMARY).exists()


# ---- what is asked


def test_an_empty_choice_is_the_end_of_the_turn_and_that_is_said(talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Asked("end") == read_choice("") == read_choice("∅") == read_choice("end") != read_choice("text:end")
    assert 0 == fork(talk, tmp_path / "fork", "1:2", "--choose", "", "--tokens", "2")
    said = capsys.readouterr()
    assert "an empty choice is the end of the turn\n" == said.err and "⟦end of turn⟧" in said.out


@given(st.text(min_size=1, max_size=20))
def test_text_that_is_said_to_be_text_is_text(text: str) -> None:
    assert Asked("text", text=text) == read_choice(f"text:{text}")


@given(st.text(max_size=12))
def test_any_words_are_a_choice_or_refused(text: str) -> None:
    try:
        assert read_choice(text).how in ("id", "text", "end", "least", "resample", "undecided", "free")
    except UsageError as error:
        assert "expected" in str(error)


WRONG = {
    "no message": ("1", ["free"], "expected MSG:TOKEN, as"),
    "words": ("one:two", ["free"], "expected MSG:TOKEN of a dialogue or TOKEN of a run"),
    "from nought": ("0:1", ["free"], "numbers from 1"),
    "a sign": ("1:-1", ["free"], "numbers from 1"),
    "three numbers": ("1:2:3", ["free"], "numbers from 1"),
    "a number without end": ("1:" + "9" * 5000, ["free"], "numbers from 1"),
    "a message that is not there": ("9:1", ["free"], "expected a message from 1 to 4"),
    "a token that is not there": (f"1:{TOKENS + 2}", ["free"], f"expected a token from 1 to {TOKENS + 1}"),
    "an id beyond the vocabulary": ("1:1", ["id:512"], "expected an id from 0 to 511"),
    "an id beyond all": ("1:1", ["9" * 30], "expected a number below"),
    "no number": ("1:1", ["resample:x"], "expected a number below"),
    "no text": ("1:1", ["text:"], "expected an id or a text, got nothing"),
    "a lone surrogate": ("1:1", ["text:\ud800"], "expected"),
    "twice": ("1:1", ["end", "∅"], "expected each once"),
    "two names of one token": ("1:1", ["id:65", "text:A"], "expected different tokens"),
    "more than a branch holds": ("1:1", ["x" * 40], "expected at most 32 tokens"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_place_or_choice_is_refused_in_one_sentence(
    talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:  # fmt: skip
    at, choices, sentence = WRONG[name]
    assert 2 == fork(talk, tmp_path / "fork", at, "--choose", *choices)
    said = capsys.readouterr()
    first, *hint = said.err.splitlines()
    assert first.startswith("formation: ") and sentence in first and len(hint) <= 1 and not said.out
    assert not (tmp_path / "fork" / SUMMARY).exists()


def test_samples_of_a_greedy_side_are_refused_unless_it_is_given_a_temperature(talk: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected --temperature, as the run is greedy"):
        forked(talk, tmp_path / "greedy", 1, 1, ["free"], {"temperature": 0.0}, samples=2)
    _, branch = forked(talk, tmp_path / "one", 1, 1, ["free"], {"temperature": 0.0})
    assert {"greedy"} == {each["kind"] for each in branch["tokens"]}


def test_what_is_forked_is_not_written_into(talk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(talk)
    for out in (talk, talk / "fork", talk / ".." / "talk.dlg" / "x"):
        assert 2 == fork(talk, out, "1:1", "--choose", "free")
        assert "expected a folder outside of" in capsys.readouterr().err
    assert before == files_of(talk)


def test_what_is_neither_a_dialogue_nor_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 3 == fork(tmp_path / "nothing", tmp_path / "fork", "1:1", "--choose", "free")
    assert "expected the folder of a dialogue or a bundle, got neither" in capsys.readouterr().err


def test_behind_the_last_token_of_a_message_that_did_not_end_it_goes_on(talk: Path, tmp_path: Path) -> None:
    _, branch = forked(talk, tmp_path / "fork", 1, TOKENS + 1, ["free"])
    told = json.loads((tmp_path / "fork" / SUMMARY).read_bytes())
    assert ("", 0, []) == (told["base_text"], told["base_tokens"], told["divergences"]) and branch["tokens"]
    assert branch["text"] == b"".join(b64decode(each["bytes"]) for each in branch["tokens"]).decode("utf-8", "replace")


def test_the_page_about_forks_names_every_field_of_a_node(talk: Path, tmp_path: Path) -> None:
    forked(talk, tmp_path / "fork", 1, 1, ["free", "undecided"])
    page = (Path(__file__).parents[2] / "docs" / "forks.md").read_text()
    for node in walk(json.loads((tmp_path / "fork" / TREE).read_bytes())["root"]):
        names = [*node, *node.get("p", ())]
        assert [] == [name for name in names if f"`{name}`" not in page]
