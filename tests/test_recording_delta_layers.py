"""A model with delta layers, recorded: the same ledger however it was computed, resumed to the same bytes, and a perturbed state is found."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import formation
from formation import forming
from formation.cli.main import main
from formation.errors import ParityBroken, RuleBroken
from formation.ledger import reader, rules
from formation.ledger.progress import Watch
from formation.model.taps import Tap
from formation.probe.recorder import Recorder
from formation.recording import Recording
from formation.run.order import Order
from formation.run.replay import Keeping
from formation.run.sample import Sample
from recorded_runs import IDS, WATCHED, asked, check_resumed, contents, cut, ledger, run
from small_models import qwen_config, small_checkpoint

DELTA, LAYERS, POSITIONS = (0, 1, 2), 4, 8
SIZES = {"key_heads": 2, "heads": 4, "key": 24, "value": 40, "taps": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("qwen") / "model", qwen_config())


@pytest.fixture(scope="module")
def recorded(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return run(folder, tmp_path_factory.mktemp("recorded") / "run.ofb", watch=Watch("full", "standard", "all"))


def cells(recorded: Recording, layer: int) -> list[dict[str, Any]]:
    return [line for line in ledger(recorded.folder) if line["slot"] == f"layer {layer}"]


# ---- what is recorded


def test_all_rules_hold_and_parity_compared_every_cell(recorded: Recording) -> None:
    assert set(rules.RULES) == {r.rule for r in recorded.rules} and not any(r.violated for r in recorded.rules)
    told = json.loads((recorded.folder / "parity.json").read_text())
    assert {"parity": "passed", "method": "replay", "logits_compared": 4, "cache_entries_compared": LAYERS * POSITIONS} == told


def test_the_run_line_says_which_layers_are_which(recorded: Recording) -> None:
    said = ledger(recorded.folder)[0]["measured"]
    assert ["delta", "delta", "delta", "attention"] == said["layer_kinds"]
    assert SIZES == said["delta"]
    assert said["router"]["shared_gated"] and said["router"]["softmax"]


def test_a_state_is_digested_as_the_specification_lays_it_out(recorded: Recording, folder: Path) -> None:
    """Of each head its matrix, keys by values, then the convolution's last rows; from the caches of runs of one position more each time"""
    ids = [*IDS, *recorded.ids[:-1]]
    for layer in DELTA:
        said = [line["measured"]["delta_state_sha256"] for line in cells(recorded, layer)]
        assert len(set(said)) == POSITIONS == len(ids)
    with Keeping(formation.open(folder), memory="24MiB", threads=1) as engine:
        for position in (0, 2, 7):
            engine.logits(ids[: position + 1])
            for layer in DELTA:
                cache, measured = engine.caches[layer], cells(recorded, layer)[position]["measured"]
                matrices = np.stack([[[cache.state[h, v // 16, k, v % 16] for v in range(40)] for k in range(24)] for h in range(4)])
                data = matrices.astype("<f4").tobytes() + cache.tail.astype("<f4").tobytes()
                assert hashlib.sha256(data).hexdigest() == measured["delta_state_sha256"]
                assert np.linalg.norm(matrices.astype(np.float64)) == pytest.approx(measured["delta_state_norm"], rel=1e-6)
            assert {"absent": "attention layer"} == cells(recorded, 3)[position]["measured"]["delta_state_sha256"]


def test_a_shared_expert_writes_its_output_times_its_gate(recorded: Recording) -> None:
    for layer in range(LAYERS):
        for line in cells(recorded, layer):
            values = line["measured"]
            assert 0 < values["shared_gate"] < 1
            assert values["shared_write_norm"] == pytest.approx(values["shared_gate"] * values["shared_output_norm"], rel=1e-6)


# ---- however it is computed


@pytest.mark.parametrize("options", [{"threads": 1}, {"keep_cache": False}, {"memory": "3MiB"}], ids=["one thread", "no cache", "a small budget"])
def test_the_ledger_has_the_same_bytes_however_the_run_is_computed(recorded: Recording, folder: Path, tmp_path: Path, options: dict) -> None:
    other = run(folder, tmp_path / "other.ofb", watch=Watch("full", "standard", "all"), parity="none", **options)
    assert contents(recorded.folder, without=("io.jsonl", "host.json", "parity.json")) == contents(
        other.folder, without=("io.jsonl", "host.json", "parity.json")
    )


def test_a_position_says_the_same_of_its_states_prefilled_and_decoded(recorded: Recording, folder: Path, tmp_path: Path) -> None:
    longer = run(folder, tmp_path / "longer.ofb", Order((*IDS, *recorded.ids[:2]), 1), Watch("standard", "full", "none"), parity="none")
    stepped = {(line["position"], line["slot"]): line["measured"] for line in ledger(recorded.folder)}
    for line in ledger(longer.folder):
        if line["kind"] == "prompt" and line["position"] >= len(IDS) - 1:
            assert line["measured"] == stepped[line["position"], line["slot"]]


def test_a_sampled_run_proves_full_parity(folder: Path, tmp_path: Path) -> None:
    done = run(folder, tmp_path / "run.ofb", Order(IDS, 2, Sample(temperature=1.2, seed=3)), parity="full")
    assert ("passed", "full") == (done.parity, done.method)


# ---- cut off


def test_a_recording_that_is_cut_off_twice_goes_on_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    whole = run(folder, tmp_path / "whole.ofb", asked(folder), WATCHED, parity="none")
    cut(folder, tmp_path / "run.ofb", after=2)
    cut(folder, tmp_path / "run.ofb", after=1, going_on=True)
    check_resumed(folder, tmp_path / "run.ofb", whole)


KILLED = """
import os, signal, sys
from pathlib import Path
from formation.ledger.progress import Watch
from recorded_runs import IDS, run
from formation.run.order import Order
steps = []
def kill(step):
    steps.append(step)
    if len(steps) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
run(Path(sys.argv[1]), Path(sys.argv[2]), Order(IDS, 4), Watch("full", "standard", "all"), on_step=kill, parity="none")
"""


def test_a_killed_recorder_goes_on_to_the_same_bytes(recorded: Recording, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.ofb"
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(out)], env=environment(), check=False, capture_output=True, text=True)
    assert -signal.SIGKILL == done.returncode, done.stderr
    assert not (out / reader.NAME).exists()
    assert 0 == main(["record", str(folder), "--resume", "--parity", "none", "--memory", "24MiB", "--out", str(out)])
    without = ("io.jsonl", "host.json", "parity.json", "tree-head.txt", "attestation.json", "manifest-sha256.txt")
    assert contents(recorded.folder, without=without) == contents(out, without=without)


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


# ---- negative controls: what parity and the reader of taps must see


class Perturbing(Recorder):
    """Writes into the run's own gates, by one ulp, at one position of one layer."""

    tap = Tap.DELTA_DECAY

    def __call__(self, site: Any, positions: Any, values: Any) -> None:
        if site.tap is self.tap and site.layer == 1 and 2 in positions:
            row = int(np.flatnonzero(positions == 2)[0])
            values[row, 1] = np.nextafter(values[row, 1], np.float32(0))
        super().__call__(site, positions, values)


class PerturbingBeta(Perturbing):
    tap = Tap.DELTA_BETA


@pytest.mark.parametrize(("method", "control"), [("replay", Perturbing), ("replay", PerturbingBeta), ("full", Perturbing)])
def test_a_gate_changed_by_one_ulp_is_caught_in_the_state_that_it_makes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, control: type[Recorder]
) -> None:
    monkeypatch.setattr(forming, "Recorder", control)
    with pytest.raises(ParityBroken, match=r"delta_state_sha256 [0-9a-f]{64} in layer 1 at position 2, as without capture"):
        run(folder, tmp_path / "run.ofb", parity=method)
    assert not (tmp_path / "run.ofb" / reader.NAME).exists() and not (tmp_path / "run.ofb/parity.json").exists()


class Overwriting(Recorder):
    """Writes into the states it is shown, which are copies: nothing of the run changes."""

    def __call__(self, site: Any, positions: Any, values: Any) -> None:
        super().__call__(site, positions, values)
        if site.tap in (Tap.DELTA_STATE, Tap.DELTA_TAIL):
            values.fill(7)


def test_whoever_writes_into_a_state_writes_into_a_copy(recorded: Recording, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forming, "Recorder", Overwriting)
    other = run(folder, tmp_path / "run.ofb", watch=Watch("full", "standard", "all"), parity="none")
    assert (recorded.folder / reader.NAME).read_bytes() == (other.folder / reader.NAME).read_bytes()


@pytest.mark.parametrize(("dead", "named"), [(Tap.DELTA_STATE, "delta state"), (Tap.DELTA_TAIL, "delta tail"), (Tap.DELTA_BETA, "delta beta")])
def test_a_tap_that_is_dead_is_missed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: Tap, named: str) -> None:
    class Deaf(Recorder):
        def __call__(self, site: Any, positions: Any, values: Any) -> None:
            if not (site.tap is dead and site.layer == 2):
                super().__call__(site, positions, values)

    monkeypatch.setattr(forming, "Recorder", Deaf)
    with pytest.raises(RuleBroken, match=f"layer 2 at position 0: expected its {named}, got none"):
        run(folder, tmp_path / "run.ofb", parity="none")


def test_a_gate_of_the_shared_expert_that_is_not_shown_makes_another_sum(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(Recorder):
        def __call__(self, site: Any, positions: Any, values: Any) -> None:
            if site.tap is not Tap.SHARED_GATE:
                super().__call__(site, positions, values)

    monkeypatch.setattr(forming, "Recorder", Deaf)
    with pytest.raises(RuleBroken, match="layer 0 at position 0: expected the combination of its experts = m"):
        run(folder, tmp_path / "run.ofb", parity="none")


def test_states_of_a_pass_that_begins_again_are_those_of_the_last(folder: Path) -> None:
    """A run without a cache computes every prefix again: what is kept is what stood there last"""
    opened = formation.open(folder)
    with Keeping(opened, memory="24MiB", threads=2) as engine, Keeping(opened, memory="24MiB", keep_cache=False) as other:
        for each in (engine, other):
            list(each.generate(IDS, 3, past=each.followed_past(7)))
        assert engine.kept(7) == other.kept(7)


# ---- what the tables and the terminal say


def test_show_and_export_have_what_a_delta_layer_has(capsys: pytest.CaptureFixture[str], recorded: Recording) -> None:
    assert 0 == main(["show", str(recorded.folder)])
    assert "3 of them delta nets" in capsys.readouterr().out
    assert 0 == main(["show", str(recorded.folder), "--token", "1", "--layer", "1"])
    shown = capsys.readouterr().out
    assert "delta_decay_mean" in shown and "absent, delta layer: cache_entry_sha256, attention_entropy" in shown
    assert 0 == main(["export", str(recorded.folder), "--format", "json"])
    cell = next(c for c in json.loads(capsys.readouterr().out)["cells"] if (c["position"], c["layer"]) == (5, 0))
    assert 4 == len(cell["delta_betas"]) and {"absent": "delta layer"} == cell["attention_strongest"]
