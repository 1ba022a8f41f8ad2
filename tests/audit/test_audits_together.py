"""Several bundles audited in one pass over the weights: each has the report that it has alone, and what is wrong with one is of that one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import formation
from audit.forger import Forger, one_ulp
from audit.sealed_runs import MEMORY, check, places, sealed
from formation.audit import AuditReport, audit, audit_together, reexecute
from formation.audit.examination import Auditor, Examination
from formation.audit.weights import Weights, WeightStream
from formation.cli.main import main
from formation.errors import BudgetError, EnvironmentFault, EvidenceError, FormationError, UsageError
from formation.evidence.keys import PrivateKey
from formation.ledger.anchor import Fork
from formation.ledger.lines import layer_of
from formation.ledger.progress import Watch
from formation.model.architecture import parts_of
from formation.model.catalog import read_model
from formation.run.executor import Progress
from formation.run.order import Order, scoring
from formation.run.sample import Sample
from recorded_runs import IDS, ledger
from small_models import qwen_config, small_checkpoint, small_config

ORDERS = (
    Order(IDS, 2),
    Order((200, 3, 7), 2, Sample(temperature=1.0, seed=2), fork=Fork("ab" * 32, 3, (65,))),
    scoring((5, 6, 7, 8, 9, 10), ((2, 4), (5, 6))),
    Order((7,) * 9, 2),
)
WATCHES = (
    Watch("standard", "minimal", "boundaries"),
    Watch("full", "standard", "all"),
    Watch("standard", "minimal", "boundaries"),
    Watch("standard", "minimal", "none"),
)
ONE_KIND = pytest.mark.parametrize("folder", ["attention"], indirect=True)  # where nothing depends on what a layer is
SEED = "a number that was drawn later"
WITH_ROWS = 3  # of them


@pytest.fixture(scope="module", params=["attention", "delta layers"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers; beside two delta nets the last has attention"""
    config = small_config(num_hidden_layers=3) if request.param == "attention" else qwen_config(num_hidden_layers=3, full_attention_interval=3)
    return small_checkpoint(tmp_path_factory.mktemp("small") / "model", config)


@pytest.fixture(scope="module")
def bundles(folder: Path, key: PrivateKey, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run, a forked one with all rows, a text that was scored, and a run without rows"""
    out = tmp_path_factory.mktemp("bundles")
    return [sealed(folder, out / f"{n}.ofb", key, watch, order) for n, (order, watch) in enumerate(zip(ORDERS, WATCHES, strict=True))]


@pytest.fixture(scope="module")
def alone(bundles: list[Path], folder: Path) -> list[AuditReport]:
    """Of each the report of its full audit"""
    return [timeless(check(bundle, folder, full=True)) for bundle in bundles]


def together(bundles: Sequence[Path], folder: Path, **what: object) -> list[AuditReport | FormationError]:
    return list(audit_together(bundles, folder, **({"memory": MEMORY, "threads": 2} | what)))


def timeless(report: AuditReport | FormationError) -> AuditReport:
    """Without what is of the pass"""
    assert isinstance(report, AuditReport), report
    return replace(report, bytes_read=0, seconds=0.0, shared_by=1)


def watched(monkeypatch: pytest.MonkeyPatch) -> tuple[list[tuple], list[WeightStream]]:
    """What is used of the weights, in order, and the streams"""
    used: list[tuple] = []
    streams: list[WeightStream] = []

    class Watched(WeightStream):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            self.events = lambda event: used.append(event.key)
            streams.append(self)

    monkeypatch.setattr("formation.audit.weights.WeightStream", Watched)
    return used, streams


# ---- each as alone


def test_each_has_the_report_that_it_has_alone(bundles: list[Path], folder: Path, alone: list[AuditReport]) -> None:
    found = together(bundles, folder, full=True)
    assert alone == [timeless(each) for each in found]
    assert [(True, 4)] * 4 == [(each.passed, each.shared_by) for each in found]


@pytest.mark.parametrize("what", [{"seed_from": SEED}, {"column": 2}], ids=["profile", "column"])
def test_so_it_is_with_what_is_drawn(bundles: list[Path], folder: Path, what: dict) -> None:
    found = together(bundles, folder, **what)
    assert [timeless(check(bundle, folder, **what)) for bundle in bundles] == [timeless(each) for each in found]
    assert [True] * WITH_ROWS + [False] == [each.passed for each in found]  # without rows only a full audit is possible


# ---- what is read


def test_each_part_is_used_once_for_all(bundles: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used, _ = watched(monkeypatch)
    found = [timeless(each) for each in together(bundles[:WITH_ROWS], folder, full=True)]
    assert {("head",)} == {key for key in used if used.count(key) > 1}  # the full level asks for it at both ends
    assert {name for each in found for name in each.tensors} == names_of(used, folder)
    assert len({frozenset(each.tensors) for each in found}) == WITH_ROWS  # each names what it used itself


def names_of(used: Sequence[tuple], folder: Path) -> set[str]:
    checkpoint = formation.open(folder)
    parts = parts_of(read_model(checkpoint.config), checkpoint.tensors)
    return {name for key in used for name in parts[key].names}


def test_as_many_bytes_are_read_for_three_as_for_one(folder: Path, tmp_path: Path, key: PrivateKey, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same text three times, where the cache cannot keep a layer's experts; but for rows of the embedding, which are read one by one"""
    _, streams = watched(monkeypatch)
    rows: list[int] = []
    read = Weights.embedding_rows

    def counted(weights: Weights, ids: Sequence[int]) -> object:
        before = weights.stream.bytes_read
        found = read(weights, ids)
        rows.append(weights.stream.bytes_read - before)
        return found

    monkeypatch.setattr(Weights, "embedding_rows", counted)
    one = sealed(folder, tmp_path / "0.ofb", key, order=ORDERS[0])
    three = [one, *(Path(shutil.copytree(one, tmp_path / f"{n}.ofb")) for n in (1, 2))]
    expected = check(one, folder, full=True).bytes_read - sum(rows)
    del rows[:]
    found = together(three, folder, full=True, memory="4000KiB")
    assert [(True, 3)] * 3 == [(each.passed, each.shared_by) for each in found]
    assert [expected] * 3 == [each.bytes_read - sum(rows) for each in found]
    assert streams[-1].budget_bytes < expected


@ONE_KIND
def test_as_many_go_together_as_the_budget_holds(bundles: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = reexecute.plan

    def tight(due: Sequence[Examination], auditor: Auditor) -> object:
        if len(due) > 2:
            raise BudgetError("memory budget: too many for it")
        return plan(due, auditor)

    monkeypatch.setattr(reexecute, "plan", tight)
    found = together(bundles, folder, full=True)
    assert [2] * 4 == [shared_by(each) for each in found]
    assert [True] * 4 == [each.passed for each in found]


def shared_by(report: AuditReport | FormationError) -> int:
    assert isinstance(report, AuditReport), report
    return report.shared_by


@ONE_KIND
def test_a_bundle_that_fits_in_no_budget_stops_no_other(bundles: list[Path], folder: Path, tmp_path: Path, key: PrivateKey) -> None:
    long = sealed(folder, tmp_path / "long.ofb", key, order=Order(tuple(range(60)), 1))
    found = together([bundles[0], long, bundles[2]], folder, column=1, memory="2500KiB")
    assert isinstance(found[1], BudgetError)
    assert [1, 1] == [shared_by(each) for each in (found[0], found[2])]
    with pytest.raises(BudgetError):
        audit(long, folder, column=1, memory="2500KiB")


@ONE_KIND
def test_a_mirror_is_read_too_and_the_result_is_the_same(
    bundles: list[Path], folder: Path, tmp_path: Path, key: PrivateKey, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, streams = watched(monkeypatch)
    (tmp_path / "mirror").mkdir()
    for shard in folder.glob("*.safetensors"):
        shutil.copy(shard, tmp_path / "mirror")
    asked = [str(bundles[0]), "--checkpoint", str(folder), "--full", "--out", str(tmp_path / "audit.json"), "--memory", MEMORY, "--json"]
    found = []
    for more in ([], ["--mirror", str(tmp_path / "mirror")]):
        assert 0 == main(["audit", *asked, *more])
        found.append({name: value for name, value in json.loads(capsys.readouterr().out).items() if name not in ("seconds", "bytes_read")})
    assert found[0] == found[1]
    places = {place.folder.name: place.bytes_read for place in streams[-1].reader.places}
    assert streams[-1].bytes_read == sum(places.values()) and 0 < places["mirror"]
    assert [folder.name] == [place.folder.name for place in streams[0].reader.places]
    (tmp_path / "none").mkdir()
    assert 3 == main(["audit", *asked, "--mirror", str(tmp_path / "none")])
    told = capsys.readouterr()
    assert "none: expected a mirror with shards such as" in told.err and "passed" not in told.out


# ---- what is wrong with one is of that one


def test_a_forged_row_in_one_is_found_in_that_one(
    bundles: list[Path], folder: Path, alone: list[AuditReport], tmp_path: Path, key: PrivateKey
) -> None:
    forger = Forger(bundles[0], tmp_path / "forged.ofb", key)
    forger.row(3, 2, one_ulp(0))
    forged = forger.finish()
    found = [timeless(each) for each in together([bundles[1], forged, bundles[2]], folder, full=True)]
    assert [alone[1], timeless(check(forged, folder, full=True)), alone[2]] == found
    assert (3, "layer 1", "residual_sha256") in places(found[1]) and not found[1].passed


def test_rows_of_huge_numbers_spoil_no_other_verdict(
    bundles: list[Path], folder: Path, alone: list[AuditReport], tmp_path: Path, key: PrivateKey
) -> None:
    def huge(values: np.ndarray) -> None:
        values[:] = np.finfo(np.float32).max / 16

    forger = Forger(bundles[0], tmp_path / "forged.ofb", key)
    forger.row(2, 2, huge)
    forger.line(2, "layer 1")["measured"] |= {"residual_norm": 1.5, "residual_largest": 1.5}
    forged = forger.finish()
    found = [timeless(each) for each in together([bundles[1], forged, bundles[2]], folder, full=True)]
    assert [alone[1], timeless(check(forged, folder, full=True)), alone[2]] == found
    assert not found[1].passed


def test_an_expert_that_gives_no_finite_value_spoils_only_the_verdict_of_who_chose_it(
    bundles: list[Path], folder: Path, alone: list[AuditReport], tmp_path: Path
) -> None:
    """Its payload was changed after the runs were recorded; with committed rows every other layer of that run is as it was"""
    some, damaged = bundles[:WITH_ROWS], Path(shutil.copytree(folder, tmp_path / "damaged"))
    taken = [chosen(bundle) for bundle in some]
    layer, expert = min(taken[0] - taken[1] - taken[2])
    fill_with_infinity(damaged, ("expert", layer, expert))
    found = [timeless(each) for each in together(some, damaged, full=True)]
    assert [timeless(check(some[0], damaged, full=True)), *alone[1:WITH_ROWS]] == found
    assert {(f"layer {layer}", "finite ones")} == {(each.slot, each.expected) for each in found[0].differences}


def chosen(bundle: Path) -> set[tuple[int, int]]:
    """Layers and experts"""
    cells = [line for line in ledger(bundle) if "chosen" in line["measured"]]
    return {(layer_of(line["slot"]), expert) for line in cells for expert in line["measured"]["chosen"] if isinstance(expert, int)}


def fill_with_infinity(folder: Path, key: tuple) -> None:
    checkpoint = formation.open(folder)
    part = parts_of(read_model(checkpoint.config), checkpoint.tensors)[key]
    entry = next(checkpoint.tensors[name] for name in part.names if checkpoint.tensors[name].dtype == "BF16")
    with (folder / entry.file).open("r+b") as file:
        file.seek(entry.begin)
        file.write(b"\x80\x7f" * (entry.nbytes // 2))


@ONE_KIND
def test_a_bundle_that_cannot_be_audited_stops_no_other(bundles: list[Path], folder: Path, tmp_path: Path, key: PrivateKey) -> None:
    cut = Path(shutil.copytree(bundles[0], tmp_path / "cut.ofb"))
    (cut / "ledger.jsonl").rename(cut / "ledger.jsonl.part")
    other = sealed(small_checkpoint(tmp_path / "other", small_config(num_hidden_layers=5)), tmp_path / "other.ofb", key)
    found = together([tmp_path / "none.ofb", bundles[0], cut, other, bundles[2]], folder, full=True)
    assert [EnvironmentFault, AuditReport, EvidenceError, AuditReport, AuditReport] == [type(each) for each in found]
    assert "none.ofb: expected the folder of a bundle" in str(found[0]) and "INCOMPLETE" in str(found[2])
    assert [True, False, True] == [each.passed for each in found if isinstance(each, AuditReport)]
    assert {"identity"} == {each.field for each in timeless(found[3]).differences}
    assert [2, 1, 2] == [shared_by(each) for each in found if isinstance(each, AuditReport)]


@ONE_KIND
def test_a_ledger_that_changes_meanwhile_ends_its_own_audit(bundles: list[Path], folder: Path, alone: list[AuditReport], tmp_path: Path) -> None:
    mine = Path(shutil.copytree(bundles[0], tmp_path / "mine.ofb"))
    data = (mine / "ledger.jsonl").read_bytes()

    def change(progress: Progress) -> None:
        if progress.stage == "layer":
            (mine / "ledger.jsonl").write_bytes(data.replace(b'"residual_norm":', b'"residual_nurm":'))

    found = together([bundles[1], mine, bundles[2]], folder, full=True, progress=change)
    assert isinstance(found[1], EvidenceError) and "as it was hashed" in str(found[1])
    assert alone[1:3] == [timeless(found[0]), timeless(found[2])]


@ONE_KIND
def test_what_can_be_asked_of_none_is_refused_at_once(bundles: list[Path], folder: Path) -> None:
    for what in ({"cells": 1, "full": True}, {"full": True, "seed_from": "x"}):
        with pytest.raises(UsageError):
            audit_together(bundles, folder, **what)
