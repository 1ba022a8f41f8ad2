"""A recorded run: the same ledger however it was computed, every rule held, and capture shown not to perturb it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import formation
from formation.cli.main import main
from formation.errors import BudgetError, EnvironmentFault, RuleBroken, UsageError
from formation.ledger import accounts, anchor, lines, rules
from formation.ledger.progress import Watch
from formation.probe.cost import capture_bytes
from formation.recording import Recording, begin
from formation.run.order import Order
from formation.samples import folder
from formation.weights.stream import WeightStream
from recorded_runs import IDS, WATCH, ledger, means, run
from small_models import fp8_config, small_checkpoint, small_config


@pytest.fixture(scope="module")
def recorded(k25_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return run(k25_folder, tmp_path_factory.mktemp("record") / "run.ofb")


def test_a_recording_is_complete_and_all_its_rules_hold(recorded: Recording) -> None:
    assert (recorded.folder / "ledger.jsonl").exists()
    assert not (recorded.folder / "ledger.jsonl.part").exists()
    assert {r.rule for r in recorded.rules} == set(rules.RULES)
    assert not any(r.violated for r in recorded.rules)
    assert recorded.cells == 4 * 4
    found = ledger(recorded.folder)
    assert recorded.commit.lines == len(found) == 1 + 4 * 5 + 4 * 8


def test_the_run_is_named_by_its_anchor_and_every_line_carries_the_name(recorded: Recording) -> None:
    data = (recorded.folder / "anchor.json").read_bytes()
    assert recorded.run_id == hashlib.sha256(data).hexdigest() == anchor.decode(data).run_id
    assert {line["run_id"] for line in ledger(recorded.folder)} == {recorded.run_id}


def test_parity_compared_every_step_and_every_cell(recorded: Recording) -> None:
    told = json.loads((recorded.folder / "parity.json").read_text())
    assert told == {"parity": "passed", "method": "replay", "logits_compared": 4, "cache_entries_compared": 4 * 8}


@pytest.mark.parametrize("options", [{"threads": 1}, {"keep_cache": False}, {"memory": "3MiB"}], ids=["one thread", "no cache", "a small budget"])
def test_the_ledger_has_the_same_bytes_however_the_run_is_computed(recorded: Recording, k25_folder: Path, tmp_path: Path, options: dict) -> None:
    other = run(k25_folder, tmp_path / "other.ofb", parity="none", **options)
    assert (recorded.folder / "ledger.jsonl").read_bytes() == (other.folder / "ledger.jsonl").read_bytes()
    assert other.parity == "not claimed"


MOMENTS = {
    "never": lambda stream: None,
    "whenever a part is used": lambda stream: [None for _ in iter(stream.idle or bool, False)],
    "a piece at a time": lambda stream: (stream.idle or bool)(),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_ledger_has_the_same_bytes_whenever_a_step_is_worked_on(
    recorded: Recording, k25_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:  # fmt: skip
    right = WeightStream._arrive

    def arrive(stream: WeightStream, resident: Any, started: float) -> Any:
        MOMENTS[moment](stream)
        idle, stream.idle = stream.idle, None
        try:
            return right(stream, resident, started)
        finally:
            stream.idle = idle

    monkeypatch.setattr(WeightStream, "_arrive", arrive)
    other = run(k25_folder, tmp_path / "other.ofb", parity="none")
    assert (recorded.folder / "ledger.jsonl").read_bytes() == (other.folder / "ledger.jsonl").read_bytes()


def read_bytes(folder: Path, room: int) -> tuple[int, int]:
    """What a run of four steps reads, altogether and of lm_head"""
    with formation.Engine(formation.open(folder), memory=room, threads=2, guess=False) as engine:
        steps = [step.reads for step in engine.generate(IDS, 4)]
    return sum(reads.disk_bytes for reads in steps), sum(p.disk_bytes for reads in steps for p in reads.parts if p.part == "lm_head")


def bytes_of_recording(folder: Path, out: Path, room: int, level: str) -> tuple[int, int]:
    """The same, recorded with that much room beside capture"""
    with formation.Engine(formation.open(folder), memory=room) as engine:
        memory = room + capture_bytes(engine.model, len(IDS) + 3, level=level, prompt_level="minimal", prompt=len(IDS))
    run(folder, out, Order(IDS, 4), Watch(level, "minimal", "none"), memory=memory, parity="none", guess=False)
    steps = list(accounts.read(out))
    return sum(s["disk_bytes"] for s in steps), sum(p["disk_bytes"] for s in steps for p in s["parts"] if p["part"] == "lm_head")


@pytest.mark.parametrize("level", ["minimal", "standard", "full"])
def test_recording_reads_no_weight_that_the_run_does_not(k25_folder: Path, tmp_path: Path, level: str) -> None:
    """With everything in memory; and where lm_head passes through, once for each step, though the step is looked at after its pass"""
    assert read_bytes(k25_folder, 24 << 20) == bytes_of_recording(k25_folder, tmp_path / "all.ofb", 24 << 20, level)
    wide = small_checkpoint(tmp_path / "wide", small_config(vocab_size=16384))
    with formation.Engine(formation.open(wide), memory=3_700_000) as engine:
        assert ("head",) not in engine.plan(len(IDS) + 3).resident
    head = read_bytes(wide, 3_700_000)[1]
    assert head >= 4 * 2 * 16384 * 96
    assert head == bytes_of_recording(wide, tmp_path / "passing.ofb", 3_700_000, level)[1]


def test_the_sample_is_recorded_in_full_within_less_memory_than_it_has_bytes(tmp_path: Path) -> None:
    checkpoint = formation.open(folder("kimi_k25"))
    out = begin(checkpoint, Order(IDS, 3), Watch("full", "minimal", "all"), tmp_path / "run.ofb", means(memory="4MiB", parity="none"))
    assert checkpoint.total_bytes > 4 << 20
    assert not any(r.violated for r in out.rules)


def test_memory_that_capture_needs_is_named_when_it_is_not_there(k25_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"got 1\.05 MB: weights in use .*, capture "):
        run(k25_folder, tmp_path / "run.ofb", memory="1MiB")


def test_a_prefilled_position_and_a_decoded_one_are_observed_alike(recorded: Recording, k25_folder: Path, tmp_path: Path) -> None:
    longer = run(k25_folder, tmp_path / "longer.ofb", Order((*IDS, *recorded.ids[:2]), 1), replace(WATCH, capture_prompt="standard"), parity="none")
    stepped = {(o["position"], o["slot"]): o["measured"] for o in ledger(recorded.folder)}
    for line in ledger(longer.folder):
        if line["kind"] == "prompt" and line["position"] >= len(IDS) - 1:
            assert line["measured"] == stepped[line["position"], line["slot"]]


def test_a_sampled_run_is_recorded_with_its_draws(k25_folder: Path, tmp_path: Path) -> None:
    sampler = formation.Sample(temperature=1.2, top_k=50, seed=2**64 - 1)
    out = run(k25_folder, tmp_path / "run.ofb", Order(IDS, 3, sampler), parity="none")
    draws = [line["measured"] for line in ledger(out.folder) if line["slot"] == "sampler"]
    assert all(d["low"] <= d["draw"] < d["high"] for d in draws)
    (rule,) = [r for r in out.rules if r.rule == "draw"]
    assert rule.checked >= 3


def test_other_weights_and_full_capture_keep_the_rules(tmp_path: Path) -> None:
    folder = small_checkpoint(tmp_path / "fp8", fp8_config())
    out = run(folder, tmp_path / "run.ofb", Order(IDS, 2), Watch("full", "full", "all"))
    assert out.parity == "passed"
    assert not any(r.violated for r in out.rules)


def test_a_folder_that_holds_a_ledger_is_refused_and_left_alone(recorded: Recording, k25_folder: Path) -> None:
    before = (recorded.folder / "ledger.jsonl").read_bytes()
    with pytest.raises(EnvironmentFault):
        run(k25_folder, recorded.folder)
    assert (recorded.folder / "ledger.jsonl").read_bytes() == before


def test_a_broken_rule_refuses_to_close_and_says_which_and_where(k25_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from formation.probe import step

    right = step.layer_attribution

    def shifted(*args):
        values = right(*args)
        return values | {"dla_attention": values["dla_attention"] + 1e-6}

    monkeypatch.setattr(step, "layer_attribution", shifted)
    with pytest.raises(RuleBroken, match="attribution"):
        run(k25_folder, tmp_path / "run.ofb", parity="none")
    assert not (tmp_path / "run.ofb/ledger.jsonl").exists()


def test_the_command_records_and_shows(capsys: pytest.CaptureFixture[str], k25_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.ofb"
    assert main(["record", str(k25_folder), "--chat", "Hi", "--tokens", "3", "--out", str(out), "--memory", "24MiB"]) == 0
    told = capsys.readouterr().out
    for said in ("anchor leads first to id", "sum rules", "attribution", "parity         passed"):
        assert said in told
    assert main(["show", str(out)]) == 0
    assert "surprisal" in capsys.readouterr().out
    assert main(["show", str(out), "--token", "2", "--layer", "3"]) == 0
    cell = capsys.readouterr().out
    assert "lens_rank" in cell
    assert "derived, from weights" in cell
    assert main(["show", str(out), "--token", "9"]) == 2
    assert main(["show", "--fields"]) == 0
    assert "lens_kl" in capsys.readouterr().out


def test_the_public_function_gives_the_bundle(k25_folder: Path, tmp_path: Path) -> None:
    bundle = formation.record(k25_folder, chat="Hi", tokens=2, out=tmp_path / "run.ofb", memory="24MiB", parity="none", nonce="n", rows="none")
    assert isinstance(bundle, formation.Bundle) and bundle.complete
    assert "n" == bundle.anchor.nonce
    assert 2 == len(list(bundle.tokens))


@pytest.mark.parametrize(
    "options", [{"rows": "some"}, {"capture": "all"}, {"capture_prompt": ""}, {"parity": "twice"}, {"tokens": 0}, {"chat": "and"}, {"ids": [1 << 40]}]
)
def test_what_cannot_be_recorded_is_refused_before_a_folder_is_made(k25_folder: Path, tmp_path: Path, options: dict) -> None:
    with pytest.raises(UsageError):
        formation.record(k25_folder, out=tmp_path / "run.ofb", memory="24MiB", **({"ids": [1, 2]} | options))
    assert not (tmp_path / "run.ofb" / "ledger.jsonl").exists()


def test_the_shards_told_are_those_that_were_read(tmp_path: Path) -> None:
    checkpoint = formation.open(folder("kimi_k25"))
    out = begin(checkpoint, Order(IDS, 3), WATCH, tmp_path / "run.ofb", means(memory="8MiB", parity="none"))
    chosen = {
        (lines.layer_of(o["slot"]), expert)
        for o in ledger(out.folder)
        for expert in o["measured"].get("chosen", ())
        if lines.layer_of(o["slot"]) >= 0 and isinstance(o["measured"]["chosen"], list)
    }
    wanted = set()
    for name, tensor in checkpoint.tensors.items():
        expert = re.search(r"layers\.(\d+)\.mlp\.experts\.(\d+)\.", name)
        if name.startswith("language_model.") and (not expert or (int(expert[1]), int(expert[2])) in chosen):
            wanted.add(tensor.file)
    assert sorted(wanted) == list(out.read.shards)
    assert len(wanted) < len(checkpoint.shards)
