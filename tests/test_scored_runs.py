"""A run whose tokens are given: one pass, whose ledger says of each scored token what a run that generates it says, bit for bit."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import formation
from audit.sealed_runs import check
from formation.errors import BudgetError, RuleBroken, UsageError
from formation.evidence import keys, ledger_parts
from formation.evidence.container import open_container
from formation.evidence.seal import seal
from formation.evidence.verify import verify
from formation.ledger import anchor, canonical, rules, start
from formation.ledger.anchor import AnchorRefusal
from formation.ledger.progress import Watch
from formation.recording import Recording, resume
from formation.run.order import Order, order_of, scoring
from formation.run.sample import Greedy, Sample
from recorded_runs import IDS, Cut, contents, ledger, means, run
from small_models import qwen_config, small_checkpoint

MINIMAL, STANDARD, FULL = (Watch(level, "minimal", "boundaries") for level in ("minimal", "standard", "full"))
SPANS = ((2, 4), (6, 9))


@pytest.fixture(scope="module", params=["attention", "delta layers"])
def folder(request: pytest.FixtureRequest, k25_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return k25_folder if request.param == "attention" else small_checkpoint(tmp_path_factory.mktemp("qwen") / "model", qwen_config())


@pytest.fixture(scope="module")
def generated(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    order = Order(IDS, 4, Sample(temperature=1.0, seed=3))
    return run(folder, tmp_path_factory.mktemp("generated") / "run.ofb", order, FULL, parity="none")


@pytest.fixture(scope="module")
def whole(generated: Recording) -> tuple[int, ...]:
    return (*IDS, *generated.ids)


@pytest.fixture(scope="module")
def scored(folder: Path, whole: tuple[int, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stretches, sealed"""
    place = tmp_path_factory.mktemp("scored")
    out = run(folder, place / "run.ofb", scoring(whole, SPANS), STANDARD).folder
    seal(out, keys.create(place / "key.pem"))
    return out


def heads(out: Path) -> dict[int, tuple[Any, Any]]:
    return {line["position"]: (line["measured"], line["derived"]) for line in ledger(out) if line["slot"] == "lm_head"}


# ---- the same as when it was generated


@pytest.mark.parametrize("watch", [MINIMAL, STANDARD, FULL], ids=lambda watch: watch.capture)
def test_teacher_forced_values_are_those_of_generation_bit_for_bit(
    folder: Path, generated: Recording, whole: tuple[int, ...], tmp_path: Path, watch: Watch
) -> None:  # fmt: skip
    """Log-probabilities, ranks, digests of logits, every value of every cell of the level"""
    made = run(folder, tmp_path / "run.ofb", scoring(whole, ((len(IDS), len(whole)),)), watch, parity="none")
    assert generated.ids == made.ids
    before = {(line["position"], line["slot"]): line for line in ledger(generated.folder)}
    compared = 0
    for line in ledger(made.folder)[1:]:
        if line["slot"] == "sampler":
            assert {"forced"} == {line["measured"]["method"]}
            continue
        for tag in ("measured", "derived"):
            for name, value in line[tag].items():
                assert before[line["position"], line["slot"]][tag][name] == value, (line["position"], line["slot"], name)
                compared += 1
    assert compared > 300
    assert {"logits_sha256", "log_sum_exp"} <= heads(made.folder)[len(IDS)][0].keys() and "logprob" in heads(made.folder)[len(IDS)][1]


def test_what_is_scored_does_not_change_what_is_computed(folder: Path, whole: tuple[int, ...], scored: Path, tmp_path: Path) -> None:
    everything = run(folder, tmp_path / "run.ofb", scoring(whole, ((1, len(whole)),)), MINIMAL, parity="none").folder
    assert list(range(len(whole) - 1)) == list(heads(everything))
    for position, (measured, derived) in heads(scored).items():
        known = heads(everything)[position]
        assert known[0].items() <= measured.items() and known[1].items() <= derived.items()


@pytest.mark.parametrize("options", [{"threads": 1}, {"memory": "3MiB"}], ids=["one thread", "a small budget"])
def test_the_ledger_has_the_same_bytes_however_the_pass_is_computed(
    folder: Path, whole: tuple[int, ...], scored: Path, tmp_path: Path, options: dict[str, Any]
) -> None:  # fmt: skip
    other = run(folder, tmp_path / "run.ofb", scoring(whole, SPANS), STANDARD, parity="none", **options)
    assert (scored / "ledger.jsonl").read_bytes() == (other.folder / "ledger.jsonl").read_bytes()


# ---- what is recorded


def test_the_steps_stand_before_each_scored_id_and_say_it(whole: tuple[int, ...], scored: Path) -> None:
    said = [(line["position"], line["kind"], line["measured"]["id"]) for line in ledger(scored) if line["slot"] == "token"]
    assert [(position, "scored", whole[position + 1]) for position in (1, 2, 5, 6, 7)] == said
    kinds = [line["kind"] for line in ledger(scored) if line["slot"] == "embed"]
    assert ["prompt", "scored", "scored", "prompt", "prompt", "scored", "scored", "scored"] == kinds


def test_every_rule_holds_and_parity_compared_every_step_and_cell(scored: Path) -> None:
    lines = ledger(scored)
    kinds = [line["kind"] for line in lines if line["slot"] == "embed"]
    assert not rules.violated(rules.check(lines, kinds))
    told = json.loads((scored / "parity.json").read_text())
    assert {"parity": "passed", "method": "replay", "logits_compared": 5, "cache_entries_compared": 8 * 4} == told


def test_each_part_of_the_weights_is_read_at_most_once(folder: Path, whole: tuple[int, ...], tmp_path: Path) -> None:
    out = run(folder, tmp_path / "run.ofb", scoring(whole, SPANS), MINIMAL, parity="none").folder
    first, *others = [json.loads(line) for line in (out / "io.jsonl").read_bytes().splitlines()]
    assert all(part["disk_uses"] <= 1 + 24 + 1 for part in first["parts"])  # a layer, its experts, its router
    assert [0] * 4 == [account["disk_bytes"] for account in others]


def test_a_cut_recording_goes_on_to_the_same_bytes(folder: Path, whole: tuple[int, ...], scored: Path, tmp_path: Path) -> None:
    for watch, after in ((STANDARD, 2), (MINIMAL, 3)):
        seen = 0

        def count(step: object, after: int = after) -> None:
            nonlocal seen
            seen += 1
            if seen == after:
                raise Cut

        out = tmp_path / watch.capture
        with pytest.raises(Cut):
            run(folder, out, scoring(whole, SPANS), watch, on_step=count, parity="none")
        resume(formation.open(folder), out, means(parity="none"))
        straight = run(folder, tmp_path / f"{watch.capture} again", scoring(whole, SPANS), watch, parity="none").folder
        assert contents(straight) == contents(out)


# ---- verified and audited as any other


def verdict(bundle: Path) -> tuple[set[str], dict[str, str]]:
    """Checks that failed, and levels"""
    with open_container(bundle) as container:
        found = verify(container, signers={}, allow_unknown_signer=True).document()
    return {each["name"] for each in found["checks"] if each["state"] == "failed"}, found["levels"]


def test_a_scored_run_is_verified(scored: Path) -> None:
    failed, levels = verdict(scored)
    assert set() == failed
    assert ["passed"] * 3 == [levels[name] for name in ("INTEGRITY", "LEDGER", "PARITY")]


@pytest.mark.skipif(sys.platform != "linux", reason="one process elsewhere")
def test_several_processes_verify_it_alike(scored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, joined, finished = verdict(scored), [], ledger_parts.finished
    monkeypatch.setattr(ledger_parts, "processes", lambda size: 2)
    monkeypatch.setattr(ledger_parts, "finished", lambda *args: joined.append(args) or finished(*args))
    assert alone == verdict(scored)
    assert 1 == len(joined)


@pytest.mark.parametrize("what", [{"cells": 8}, {"column": 1}, {"full": True}], ids=["cells", "a column", "everything"])
def test_a_scored_run_is_audited(folder: Path, scored: Path, what: dict[str, Any]) -> None:
    report = check(scored, folder, **what)
    assert [] == list(report.differences) and report.passed
    assert (8, 5, 5) == (report.positions, report.steps, report.executed_steps)


def test_an_audit_finds_a_token_that_the_anchor_does_not_have(folder: Path, whole: tuple[int, ...], tmp_path: Path) -> None:
    """The ledger of another text under the anchor of this one"""
    told = run(folder, tmp_path / "run.ofb", scoring(whole, SPANS), STANDARD, parity="none").folder
    other = run(folder, tmp_path / "other.ofb", scoring((*whole[:-1], whole[-1] ^ 1), SPANS), STANDARD, parity="none").folder
    names = [anchor.decode((each / "anchor.json").read_bytes()).run_id for each in (other, told)]
    (told / "ledger.jsonl").write_bytes((other / "ledger.jsonl").read_bytes().replace(names[0].encode(), names[1].encode()))
    found = check(told, folder, cells=1)
    assert not found.passed
    assert (7, "token", "id") in {(each.position, each.slot, each.field) for each in found.differences}


# ---- orders and anchors


def test_an_order_that_scores_comes_back_from_its_anchor(scored: Path, whole: tuple[int, ...]) -> None:
    frozen = start.read_anchor(scored)
    assert scoring(whole, SPANS) == order_of(frozen)
    assert {"method": "forced", "scored": [[2, 4], [6, 9]]} == dict(frozen.sampler)
    assert scoring(whole, SPANS[:1]) == scoring(whole[:4], SPANS[:1])  # what comes after has no part in it


@pytest.mark.parametrize(
    "spans", [(), ((0, 2),), ((3, 3),), ((2, 4), (4, 9)), ((6, 9), (2, 4)), ((2, 4), (3, 9)), ((2, 10),)], ids=str,
)  # fmt: skip
def test_spans_that_are_none_are_refused(spans: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(UsageError, match="scored ids: expected"):
        scoring(range(9), spans)


Edit = Callable[[dict[str, Any]], None]
EDITS: dict[str, tuple[str, Edit]] = {
    "a span from the first id": ("scored", lambda a: a["sampler"].update(scored=[[0, 4], [6, 9]])),
    "a span that ends sooner": ("scored", lambda a: a["sampler"].update(scored=[[2, 4], [6, 8]])),
    "no span": ("scored", lambda a: a["sampler"].update(scored=[])),
    "spans of three": ("scored", lambda a: a["sampler"].update(scored=[[2, 4, 9]])),
    "spans of text": ("scored", lambda a: a["sampler"].update(scored=["29"])),
    "spans of truth values": ("scored", lambda a: a["sampler"].update(scored=[[True, 9]])),
    "fewer tokens": ("stop", lambda a: a["stop"].update(tokens=4)),
    "an id that ends it": ("stop", lambda a: a["stop"].update(ids=[7])),
    "no spans at all": ("scored", lambda a: a["sampler"].pop("scored")),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_anchor_with_other_spans_than_it_can_have_is_refused(scored: Path, name: str) -> None:
    said, edit = EDITS[name]
    document = start.read_anchor(scored).document()
    edit(document)
    with pytest.raises(AnchorRefusal, match=said):
        anchor.decode(canonical.encode(document))


def test_full_parity_is_refused_as_there_are_no_steps_to_repeat(folder: Path, whole: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected replay or none where a text is scored"):
        run(folder, tmp_path / "run.ofb", scoring(whole, SPANS), parity="full")
    assert not (tmp_path / "run.ofb").exists()


def test_rows_of_all_steps_are_counted_before_the_pass_and_not_kept_at_the_minimal_level(k25_folder: Path, tmp_path: Path) -> None:
    ids = [5 + n % 90 for n in range(200)]
    order = scoring(ids, ((1, 200),))
    with pytest.raises(BudgetError, match="capture"):
        run(k25_folder, tmp_path / "standard", order, Watch("standard", "minimal", "none"), memory="5MiB", parity="none")
    done = run(k25_folder, tmp_path / "minimal", order, Watch("minimal", "minimal", "none"), memory="24MiB", parity="none")
    assert 199 == len(done.ids)


# ---- ids that a sampler chose


@pytest.mark.parametrize("by", [Sample(temperature=1.0, seed=3), Sample(0.7, top_k=40, top_p=0.9, min_p=0.01, seed=8, branch=2), Greedy()], ids=str)
def test_what_a_sampler_chose_is_chosen_again_and_said_as_when_it_was_generated(folder: Path, tmp_path: Path, by: Greedy | Sample) -> None:
    """The whole line of the sampler, bit for bit, and a run that is verified and audited"""
    known = run(folder, tmp_path / "generated.ofb", Order(IDS, 4, by), MINIMAL, parity="none")
    order = scoring((*IDS, *known.ids), ((len(IDS), len(IDS) + 4),), by=by)
    out = run(folder, tmp_path / "run.ofb", order, MINIMAL).folder
    before, again = ([line for line in ledger(each) if line["slot"] == "sampler"] for each in (known.folder, out))
    assert 4 == len(again)
    assert [(line["measured"], line["derived"]) for line in before] == [(line["measured"], line["derived"]) for line in again]
    assert {"scored"} == {line["kind"] for line in again}
    frozen = start.read_anchor(out)
    assert order == order_of(frozen)
    assert frozen.scores and "forced" != frozen.sampler["method"]
    seal(out, keys.create(tmp_path / "key.pem"))
    failed, levels = verdict(out)
    assert set() == failed and "passed" == levels["LEDGER"]
    assert check(out, folder, full=True).passed


@pytest.mark.parametrize("by", [Sample(temperature=1.0, seed=4), Greedy()], ids=["another seed", "greedy"])
def test_ids_that_the_sampler_would_not_choose_make_no_bundle(
    folder: Path, whole: tuple[int, ...], tmp_path: Path, by: Greedy | Sample
) -> None:  # fmt: skip
    with pytest.raises(RuleBroken, match=r"token at position \d+: expected id \d+, as the sampler chooses it, got \d+"):
        run(folder, tmp_path / "run.ofb", scoring(whole, ((len(IDS), len(whole)),), by=by), MINIMAL, parity="none")
    assert not (tmp_path / "run.ofb" / "ledger.jsonl").exists()
