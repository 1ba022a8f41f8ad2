"""Capture is shown not to perturb the run; what perturbs it, or shows something else than the run, is caught by the check that claims it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from formation import forming
from formation.audit import parity
from formation.cli.main import main
from formation.errors import EnvironmentFault, ParityBroken, RuleBroken
from formation.ledger import canonical, lines, reader
from formation.model.taps import Tap
from formation.probe.recorder import Recorder
from formation.recording import Recording
from formation.run.order import Order
from formation.run.sample import Sample
from recorded_runs import IDS, contents, ledger, run

FIRST = len(IDS) - 1


@pytest.fixture(scope="module")
def recorded(k25_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return run(k25_folder, tmp_path_factory.mktemp("parity") / "run.ofb", parity="none")


def digests(recorded: Recording) -> dict[str, Any]:
    """What a faithful repetition says"""
    found: dict[str, Any] = {"ids": list(recorded.ids), "logits": [], "cache": [[], [], [], []]}
    for line in ledger(recorded.folder):
        if line["slot"] == "lm_head":
            found["logits"].append(line["measured"]["logits_sha256"])
        elif (layer := lines.layer_of(line["slot"])) >= 0:
            found["cache"][layer].append(line["measured"]["cache_entry_sha256"])
    return found


def compare(recorded: Recording, repeated: dict[str, Any]) -> dict[str, int]:
    return parity.compare(reader.lines(recorded.folder), repeated, range(FIRST, FIRST + len(recorded.ids)))


# ---- the comparison


def test_a_faithful_repetition_is_compared_in_every_step_and_cell(recorded: Recording) -> None:
    assert {"logits_compared": 4, "cache_entries_compared": 4 * 8, "tokens_compared": 4} == compare(recorded, digests(recorded))


def test_another_logit_is_localised_to_its_step(recorded: Recording) -> None:
    repeated = digests(recorded)
    repeated["logits"][2] = "0" * 64
    with pytest.raises(ParityBroken, match=r"logits_sha256 0{64} in lm_head at position 6"):
        compare(recorded, repeated)


def test_another_cache_entry_is_localised_to_its_cell(recorded: Recording) -> None:
    repeated = digests(recorded)
    repeated["cache"][3][5] = "0" * 64
    with pytest.raises(ParityBroken, match=r"cache_entry_sha256 0{64} in layer 3 at position 5"):
        compare(recorded, repeated)


def test_another_last_token_is_found_though_nothing_was_computed_from_it(recorded: Recording) -> None:
    repeated = digests(recorded)
    repeated["ids"][3] += 1
    with pytest.raises(ParityBroken, match=r"id .* in token at position 7"):
        compare(recorded, repeated)


def test_a_repetition_that_stops_early_or_goes_on_is_found(recorded: Recording) -> None:
    short, long = digests(recorded), digests(recorded)
    short["logits"].pop()
    with pytest.raises(ParityBroken, match="logits_sha256 None in lm_head at position 7"):
        compare(recorded, short)
    long["logits"].append("0" * 64)
    with pytest.raises(ParityBroken, match="expected 5 steps"):
        compare(recorded, long)


def test_a_ledger_that_departs_is_localised_to_its_field(recorded: Recording, tmp_path: Path) -> None:
    found = ledger(recorded.folder)
    (line,) = [o for o in found if (o["slot"], o["position"]) == ("layer 1", 6)]
    line["measured"]["mlp_norm"] = 1
    (tmp_path / reader.NAME).write_bytes(b"".join(canonical.encode(o) + b"\n" for o in found))
    with pytest.raises(ParityBroken, match=r"departs in layer 1 at position 6, mlp_norm: expected .*, got 1"):
        parity.compare_ledgers(recorded.folder, tmp_path)


def test_a_process_that_fails_is_no_broken_parity() -> None:
    with pytest.raises(EnvironmentFault, match=r"expected formation\.run\.replay to end, got exit code 1: KeyError"):
        parity.in_fresh_process("formation.run.replay", {})


# ---- the whole proof


def test_replay_compares_every_step_and_every_cell(recorded: Recording, k25_folder: Path, tmp_path: Path) -> None:
    out = run(k25_folder, tmp_path / "run.ofb")
    told = json.loads((out.folder / "parity.json").read_text())
    assert {"parity": "passed", "method": "replay", "logits_compared": 4, "cache_entries_compared": 4 * 8} == told
    assert recorded.commit == out.commit


def test_full_parity_repeats_the_run_without_and_with_capture_twice(capsys: pytest.CaptureFixture[str], k25_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.ofb"
    sampled = ["--temperature", "1.1", "--seed", "4"]
    given = ["record", str(k25_folder), "--ids", "5,6,7,8,9", "--tokens", "3", *sampled, "--rows", "all", "--memory", "24MiB", "--out", str(out)]
    assert 0 == main([*given, "--parity", "full", "--json"])
    told = json.loads(capsys.readouterr().out)
    off = {"capture": "off", "logits_compared": 3, "cache_entries_compared": 4 * 7, "tokens_compared": 3}
    on = {"capture": "on", "lines_compared": told["observations"], "root": told["root"]}
    wanted = {"parity": "passed", "method": "full", "runs": [off, on, off, on]}
    assert wanted == canonical.decode((out / "parity.json").read_bytes(), limits=canonical.DOCUMENT)
    assert [out] == list(tmp_path.iterdir())  # the repetitions are gone


# ---- negative controls: a tap that perturbs, one that keeps a reference, a dead one


class Perturbing(Recorder):
    """Writes into the run's own memory, by one ulp."""

    def __call__(self, site: Any, positions: Any, values: Any) -> None:
        if site.tap is Tap.EMBEDDING:
            values[0, 0] = np.nextafter(values[0, 0], np.float32(np.inf))
        super().__call__(site, positions, values)


class Referring(Recorder):
    """Keeps what it is shown until the layer ends, instead of a copy; by then the run has used the memory for something else."""

    def __call__(self, site: Any, positions: Any, values: Any) -> None:
        if site.tap is Tap.EMBEDDING:
            return super().__call__(site, positions, values)
        self.kept = [*getattr(self, "kept", []), (site, positions, values.copy())]
        if site.tap is Tap.RESIDUAL:
            for _, _, memory in self.kept[:-1]:
                memory.fill(7)
            for shown in self.kept:
                super().__call__(*shown)
            self.kept = []


class Deaf(Recorder):
    """Never hears of one layer's attention write."""

    def __call__(self, site: Any, positions: Any, values: Any) -> None:
        if not (site.tap is Tap.ATTENTION_WRITE and site.layer == 2):
            super().__call__(site, positions, values)


@pytest.mark.parametrize("method", ["replay", "full"])
def test_a_tap_that_changes_the_run_by_one_ulp_is_caught_by_parity(
    k25_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """The repetition without capture gives other digests; the sum rules hold, as the run is another one, not a contradictory one."""
    monkeypatch.setattr(forming, "Recorder", Perturbing)
    with pytest.raises(ParityBroken, match=r"cache_entry_sha256 .* in layer 0 at position 0, as without capture"):
        run(k25_folder, tmp_path / "run.ofb", Order(IDS, 4, Sample(seed=1)), parity=method)
    assert not (tmp_path / "run.ofb" / reader.NAME).exists() and not (tmp_path / "run.ofb/parity.json").exists()
    assert 1 + 4 * 5 + 4 * 8 == len(ledger(tmp_path / "run.ofb"))  # what was recorded is kept, unclosed


@pytest.mark.parametrize(
    ("control", "named"), [(Referring, r"layer 0 at position 0: expected x \+ a = u"), (Deaf, "layer 2 at position 0: expected its attention write")]
)
def test_a_tap_that_shows_something_else_is_caught_as_it_is_read(
    k25_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, control: type[Recorder], named: str
) -> None:
    monkeypatch.setattr(forming, "Recorder", control)
    with pytest.raises(RuleBroken, match=named):
        run(k25_folder, tmp_path / "run.ofb", parity="none")
    assert not (tmp_path / "run.ofb" / reader.NAME).exists()


def test_the_controls_differ_from_a_recorder_only_in_their_fault(recorded: Recording, k25_folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    class Passing(Referring):
        """Keeps copies: the same detour, without the fault"""

        def __call__(self, site: Any, positions: Any, values: Any) -> None:
            Recorder.__call__(self, site, positions.copy(), values.copy())

    monkeypatch.setattr(forming, "Recorder", Passing)
    run(k25_folder, tmp_path / "run.ofb", parity="none")
    assert contents(recorded.folder) == contents(tmp_path / "run.ofb")
