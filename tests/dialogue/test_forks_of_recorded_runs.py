"""Forks of a recorded run: each branch is a sealed bundle that names its parent, is verified alone, and audited with the weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.dialogue.forked import MACHINE, files_of

from audit.sealed_runs import check
from formation import recording
from formation.cli.main import main
from formation.dialogue.forks import log, of_bundle
from formation.dialogue.forks.forking import SUMMARY
from formation.dialogue.forks.of_bundle import OfBundle
from formation.dialogue.forks.source import Formed
from formation.evidence import keys
from formation.evidence.container import open_container
from formation.evidence.seal import seal
from formation.evidence.verify import verify
from formation.ledger import anchor, canonical
from formation.ledger.anchor import AnchorRefusal
from formation.ledger.progress import Watch
from formation.run.order import Order, order_of
from formation.run.sample import Sample
from formation.weights.checkpoint import Checkpoint
from recorded_runs import IDS, Cut, ledger, run
from small_models import qwen_config, small_checkpoint

TOKENS = 4
CHOICES = ["--choose", "free", "id:65", "end", "undecided", "--tokens", "3"]


@pytest.fixture(scope="module", params=["attention", "delta layers"])
def folder(request: pytest.FixtureRequest, k25_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return k25_folder if request.param == "attention" else small_checkpoint(tmp_path_factory.mktemp("qwen") / "model", qwen_config())


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keys.create(path := tmp_path_factory.mktemp("key") / "key.pem")
    return path


@pytest.fixture(scope="module")
def parent(folder: Path, key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    order = Order(IDS, TOKENS, Sample(temperature=1.0, seed=3), stop=(257,))
    out = run(folder, tmp_path_factory.mktemp("parent") / "run.ofb", order, parity="none").folder
    seal(out, keys.load(key))
    return out


def fork(parent: Path, folder: Path, key: Path, out: Path, at: str, *words: str, parity: str = "none") -> int:
    how = ["--checkpoint", str(folder), "--key", str(key), "--parity", parity, *MACHINE]
    return main(["fork", str(parent), "--at", at, *words, "--out", str(out), *how])


@pytest.fixture(scope="module")
def forked(parent: Path, folder: Path, key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("forked") / "fork"
    before = files_of(parent)
    assert 0 == fork(parent, folder, key, out, "2", *CHOICES)
    assert before == files_of(parent)
    return out


def bundles(out: Path) -> dict[str, Path]:
    return {row["choice"]: out / row["bundle"] for row in json.loads((out / SUMMARY).read_bytes())["branches"]}


def said(out: Path) -> list[int]:
    return [line["measured"]["id"] for line in ledger(out) if line["slot"] == "token"]


def test_each_branch_names_its_parent_and_the_token_and_ids_that_it_is_given(parent: Path, forked: Path) -> None:
    found = bundles(forked)
    assert {"free", "id:65", "end"} == found.keys()
    ours = json.loads((parent / "anchor.json").read_bytes())
    for name, forced in (("free", []), ("id:65", [65]), ("end", [257])):
        theirs = json.loads((found[name] / "anchor.json").read_bytes())
        assert {"parent": anchor.decode((parent / "anchor.json").read_bytes()).run_id, "token": 2, "forced": forced} == theirs["fork"]
        assert [*IDS, said(parent)[0]] == theirs["prompt"]["ids"]
        assert {name: ours[name] for name in ("checkpoint", "contract", "sampler")} == {n: theirs[n] for n in ("checkpoint", "contract", "sampler")}


def test_formation_show_names_the_parent(forked: Path, parent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["show", str(bundles(forked)["id:65"])])
    run_id = anchor.decode((parent / "anchor.json").read_bytes()).run_id
    assert f"fork           of run {run_id} at its token 2; 1 given\n" in capsys.readouterr().out
    assert 0 == main(["show", str(parent)])
    assert "\nfork " not in capsys.readouterr().out


def test_each_branch_is_verified_without_its_parent_and_audited(folder: Path, key: Path, forked: Path) -> None:
    known = {keys.load(key).public.fingerprint: "ours"}
    for name, bundle in bundles(forked).items():
        with open_container(bundle) as container:
            report = verify(container, signers=known)
        assert report.exit_code == 0 and {"passed", "not claimed"} >= set(report.document()["levels"].values()), name
        assert check(bundle, folder).passed, name
    kinds = {line["position"]: line["kind"] for line in ledger(bundles(forked)["id:65"])[1:]}
    assert ["prompt"] * len(IDS) + ["forced", "generated", "generated"] == [kinds[position] for position in sorted(kinds)]


def test_with_the_runs_draws_a_branch_that_is_free_has_the_runs_lines(parent: Path, forked: Path) -> None:
    """From the fork on, all that is measured and derived, but for the run's name"""
    before = {(line["position"], line["slot"]): line for line in ledger(parent)}
    compared = 0
    for line in ledger(bundles(forked)["free"])[1:]:
        if line["kind"] == "generated":
            theirs = before[line["position"], line["slot"]]
            assert (theirs["measured"], theirs["derived"]) == (line["measured"], line["derived"])
            compared += 1
    assert compared > 10


def test_the_log_has_of_each_branch_what_its_ledger_has(forked: Path) -> None:
    for line in (json.loads(each) for each in (forked / log.NAME).read_bytes().splitlines()[1:]):
        heads = [each for each in ledger(forked / line["bundle"]) if each["slot"] == "lm_head"]
        assert [token["id"] for token in line["tokens"]] == said(forked / line["bundle"])
        assert [token["measured"]["model"]["logprob_nats"] for token in line["tokens"]] == [each["derived"]["logprob"] for each in heads]
        assert [token["kind"] in ("forced", "end") for token in line["tokens"]] == [each["kind"] == "forced" for each in heads]


def test_branches_in_one_pass_have_the_bytes_of_branches_one_by_one(
    parent: Path, folder: Path, key: Path, forked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(OfBundle, "together", lambda self, most: 1)
    assert 0 == fork(parent, folder, key, tmp_path / "alone", "2", *CHOICES)
    declared = ("io.jsonl", "host.json", "attestation.json", "manifest-sha256.txt", "tlog-checkpoint.txt")  # of the machine and the day
    together, alone = ({name: data for name, data in files_of(out).items() if not name.endswith(declared)} for out in (forked, tmp_path / "alone"))
    assert alone == together and len(together) > 3 * len(bundles(forked))
    assert [{3}, {1}] == [
        {json.loads(line)["shared_by"] for row in bundles(out).values() for line in (row / "io.jsonl").read_bytes().splitlines()[:1]}
        for out in (forked, tmp_path / "alone")
    ]  # fmt: skip


TWICE = ["--choose", "free", "resample:3", "--tokens", "2"]  # 3: the run's own seed


@pytest.mark.parametrize("size", [1, 2])
def test_the_same_run_asked_for_twice_is_recorded_once(
    parent: Path, folder: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:  # fmt: skip
    monkeypatch.setattr(OfBundle, "together", lambda self, most: size)
    recorded = seen_together(monkeypatch)
    assert 0 == fork(parent, folder, key, tmp_path / "fork", "2", *TWICE)
    rows = json.loads((tmp_path / "fork" / SUMMARY).read_bytes())["branches"]
    assert 2 == len(rows) and 1 == len({row["bundle"] for row in rows}) and 1 == len({row["text"] for row in rows})
    assert [1] == recorded
    first, second = (json.loads(line) for line in (tmp_path / "fork" / log.NAME).read_bytes().splitlines()[1:])
    same = ("bundle", "run_id", "root", "text", "ended", "tokens")
    assert [first[name] for name in same] == [second[name] for name in same]
    assert [each | {"of": ""} for each in first["apart"]] == [each | {"of": ""} for each in second["apart"]]
    assert passes(tmp_path / "fork" / first["bundle"], key)


def seen_together(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs each recording has, from now on"""
    begin, seen = recording.begin_together, []

    def begun(checkpoint: Checkpoint, orders: Sequence[Order], watch: Watch, outs: Sequence[Path], means: recording.Means) -> list[Any]:
        seen.append(len(orders))
        return begin(checkpoint, orders, watch, outs, means)

    monkeypatch.setattr(recording, "begin_together", begun)
    return seen


def passes(bundle: Path, key: Path) -> bool:
    with open_container(bundle) as container:
        return verify(container, signers={keys.load(key).public.fingerprint: "ours"}).exit_code == 0


@pytest.mark.parametrize("choices", [TWICE, ["--choose", "free", "id:65", "--tokens", "2"]], ids=["the same run", "another run"])
def test_cut_off_in_its_second_group_it_keeps_the_bundle_that_the_log_names(
    parent: Path, folder: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choices: list[str]
) -> None:  # fmt: skip
    monkeypatch.setattr(OfBundle, "together", lambda self, most: 1)
    out = tmp_path / "fork"
    with monkeypatch.context() as patched:
        cut_at_token(patched, 4)  # of two in each group
        with pytest.raises(Cut):
            fork(parent, folder, key, out, "2", *choices)
    _, named = map(json.loads, (out / log.NAME).read_bytes().splitlines())
    assert [named["bundle"]] == [each.name for each in out.glob("*.ofb")] and passes(out / named["bundle"], key)
    before = files_of(out / named["bundle"])
    assert 0 == fork(parent, folder, key, out, "2", *choices)
    assert before == files_of(out / named["bundle"])
    assert not list(out.glob(".*")) and all(passes(each, key) for each in out.glob("*.ofb"))


def cut_at_token(patched: pytest.MonkeyPatch, last: int) -> None:
    form, seen = of_bundle.formed_of, []

    def cut(*given: Any) -> Formed:
        if given[-1] is not None and len(given) == 6:  # of a branch, not of the base
            seen.append(given)
            if len(seen) == last:
                raise Cut
        return form(*given)

    patched.setattr(of_bundle, "formed_of", cut)


def test_a_bundle_that_was_sealed_before_the_log_had_its_line_is_used(
    parent: Path, folder: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    out, words = tmp_path / "fork", ["--choose", "free", "end", "--tokens", "2"]
    assert 0 == fork(parent, folder, key, out, "2", *words)
    whole = files_of(out)
    (out / log.NAME).write_bytes(whole[log.NAME].splitlines(keepends=True)[0])
    (out / SUMMARY).unlink()
    recorded = seen_together(monkeypatch)
    assert 0 == fork(parent, folder, key, out, "2", *words)
    assert whole == files_of(out) and not recorded


@pytest.mark.parametrize("change", ["a ledger that was changed", "another run in its place"])
def test_a_sealed_bundle_that_is_not_the_branch_is_refused_and_left(
    parent: Path, folder: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:  # fmt: skip
    out, words = tmp_path / "fork", ["--choose", "free", "--tokens", "2"]
    assert 0 == fork(parent, folder, key, out, "2", *words)
    (bundle,) = out.glob("*.ofb")
    for name in (log.NAME, SUMMARY):
        (out / name).unlink()
    if change == "another run in its place":
        shutil.rmtree(bundle)
        shutil.copytree(parent, bundle)
    else:
        ledger = bundle / "ledger.jsonl"
        ledger.write_bytes(ledger.read_bytes().replace(b'"rank_low":', b'"rank_loW":', 1))
    before = files_of(bundle)
    capsys.readouterr()
    assert 1 == fork(parent, folder, key, out, "2", *words)
    assert before == files_of(bundle) and not (out / SUMMARY).exists() and not capsys.readouterr().out


def test_without_a_budget_given_what_is_free_is_asked_once(
    parent: Path, folder: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    free = iter([32 << 20])
    monkeypatch.setattr("formation.run.machine.default_budget_bytes", lambda: next(free, 1))
    how = ["--checkpoint", str(folder), "--key", str(key), "--parity", "none", "--threads", "1", "--out", str(tmp_path / "fork")]
    assert 0 == main(["fork", str(parent), "--at", "2", "--choose", "free", "id:65", "--tokens", "2", *how])
    assert [] == list(free)


def test_killed_while_a_branch_is_recorded_it_records_that_one_again(
    parent: Path, folder: Path, key: Path, forked: Path, tmp_path: Path
) -> None:  # fmt: skip
    out, made = tmp_path / "cut", (forked / log.NAME).read_bytes().splitlines(keepends=True)
    name = json.loads(made[2])["bundle"]
    (out / name).mkdir(parents=True)
    (out / name / "ledger.jsonl.part").write_bytes(b'{"half a line')
    (out / log.NAME).write_bytes(b"".join(made[:2]))
    assert 1 == fork(parent, folder, key, out, "2", *CHOICES)  # the bundle of the branch before is gone
    shutil.copytree(forked / json.loads(made[1])["bundle"], out / json.loads(made[1])["bundle"])
    assert 0 == fork(parent, folder, key, out, "2", *CHOICES)
    assert all(
        (forked / each).read_bytes() == (out / each).read_bytes() for each in (log.NAME, SUMMARY, f"{name}/ledger.jsonl", f"{name}/anchor.json")
    )


def test_a_fork_can_be_forked(folder: Path, key: Path, forked: Path, tmp_path: Path) -> None:
    child = bundles(forked)["id:65"]
    assert 0 == fork(child, folder, key, tmp_path / "again", "1", "--choose", "least", "id:65", "--tokens", "2", parity="replay")
    told = json.loads((tmp_path / "again" / SUMMARY).read_bytes())
    assert anchor.decode((child / "anchor.json").read_bytes()).run_id == told["base"]["run_id"]
    assert (1, 0) == (told["choices"][1]["ids"] == [65], told["choices"][1]["odds_nats"])


def test_an_anchor_and_its_order_are_two_forms_of_one_thing(forked: Path) -> None:
    found = anchor.decode((bundles(forked)["id:65"] / "anchor.json").read_bytes())
    order = order_of(found)
    assert (found.fork, [65]) == (order.fork, list(found.fork.forced) if found.fork else None)
    assert ["prompt", "forced", "generated"] == [order.kind(len(IDS) + place) for place in (-1, 0, 1)]
    assert ["forced", "generated"] == [found.step_kind(len(IDS) + place) for place in (0, 1)]


FORK: dict[str, Any] = {"parent": "0" * 64, "token": 2, "forced": []}
REFUSED: dict[str, Any] = {
    "no parent": {"token": 2, "forced": []}, "more fields": FORK | {"why": "x"}, "no digest": FORK | {"parent": "0" * 63},
    "no list": FORK | {"forced": 65}, "no ids": FORK | {"forced": [-1]}, "from nought": FORK | {"token": 0},
    "before the prompt": FORK | {"token": len(IDS) + 2},
    "too many": FORK | {"forced": [1, 2, 3, 4]}, "goes on behind an end": FORK | {"forced": [257, 65]}, "null": None,
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_an_anchor_with_another_fork_is_refused(forked: Path, name: str) -> None:
    document = json.loads((bundles(forked)["id:65"] / "anchor.json").read_bytes())
    document["fork"] = REFUSED[name]
    with pytest.raises(AnchorRefusal, match=r"anchor\.fork"):
        anchor.decode(canonical.encode(document, limits=canonical.DOCUMENT))


def test_a_run_that_scores_has_no_fork(forked: Path) -> None:
    document = json.loads((bundles(forked)["free"] / "anchor.json").read_bytes())
    document |= {"sampler": {"method": "forced", "scored": [[1, len(IDS) + 1]]}, "stop": {"tokens": len(IDS), "ids": []}}
    with pytest.raises(AnchorRefusal, match=r"anchor\.fork: expected none"):
        anchor.decode(canonical.encode(document, limits=canonical.DOCUMENT))


@pytest.mark.parametrize(
    ("at", "choice", "sentence"),
    [("1:2", "free", "expected --at TOKEN"), ("9", "free", "expected a token from 1 to 5"), ("2", "id:9999", "expected an id from 0"),
     ("2", "text:" + "x" * 300, "expected at most 3 tokens")],
)  # fmt: skip
def test_a_wrong_place_or_choice_is_refused(
    parent: Path, folder: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], at: str, choice: str, sentence: str
) -> None:  # fmt: skip
    assert 2 == fork(parent, folder, key, tmp_path / "fork", at, "--choose", choice, "--tokens", "3")
    told = capsys.readouterr()
    assert sentence in told.err and not told.out and not list(tmp_path.glob("fork/*.ofb"))


def test_another_checkpoint_is_refused(parent: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = small_checkpoint(tmp_path / "other", seed=9)
    assert 0 != fork(parent, other, key, tmp_path / "fork", "2", *CHOICES)
    assert not capsys.readouterr().out and not (tmp_path / "fork").exists()
