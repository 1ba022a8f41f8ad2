"""The demo does the main job: answers under a budget smaller than the checkpoint, then evidence: recorded, sealed, audited, certified, verified."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from formation.cli.demo import MEMORY, QUESTIONS
from formation.cli.main import main
from formation.dialogue.events import survey
from formation.evidence import keys
from formation.evidence.container import open_container
from formation.evidence.verify import verify
from formation.run.machine import parse_bytes
from formation.samples import folder
from formation.weights.checkpoint import open_checkpoint


def test_the_demo_answers_records_audits_attacks_and_verifies(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["demo", "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert [line[2:] for line in out.splitlines() if line.startswith("> ")] == list(QUESTIONS)
    assert "Return the number of items in a container." in out
    for part in ("embedding", "layer 0", "layer 4", "lm_head", "from disk"):
        assert part in out
    assert "waited" in err
    for said in ("surprisal", "sum rules", "parity         passed", "5; the anchor leads first to id", "sealed         sha256:"):
        assert said in out
    assert re.search(r"all 21 cells of layer \d; 44 cells drawn from 105", out)
    tried, refused = map(int, re.search(r"certified +(\d+)/(\d+) attacks refused", out).groups())
    assert tried == refused > 300
    verdict = verify(open_container(tmp_path / "demo.ofb"), signers={keys.load_or_create().public.fingerprint: "own"})
    passed = {level for level, state in verdict.levels().items() if state == "passed"}
    assert {"INTEGRITY", "SIGNER", "LEDGER", "PARITY", "REPLAY", "CERTIFIED"} == passed


def test_the_budget_of_the_demo_is_smaller_than_the_sample() -> None:
    assert parse_bytes(MEMORY) < open_checkpoint(folder("kimi_k25")).total_bytes


def test_two_samples_talk_and_their_transcript_holds(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("formation.cli.demo.TURNS", 3)
    assert main(["demo", "--dialogue", "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "Return the number of items in a container." in out
    assert "ended by '3 messages' after message 3" in err
    assert "what the header states holds, and the sides take turns" in out
    assert survey(tmp_path / "demo.dlg").complete
