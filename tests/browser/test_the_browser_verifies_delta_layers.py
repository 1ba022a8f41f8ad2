"""A recorded run of a model with delta layers: the page's verdict is Python's, of what is honest and of what its owner changed and signed."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.evidence import vectors
from verdicts import Lines, expect_same, expect_verified, with_lines

from formation.evidence.seal import seal
from formation.ledger import canonical
from formation.ledger.progress import Watch
from recorded_runs import run
from small_models import qwen_config, small_checkpoint

SLOT, OTHER = ("layer 1", 6), ("layer 3", 6)  # of a delta net, of attention


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("delta")
    out = run(small_checkpoint(folder / "model", qwen_config()), folder / "run.ofb", watch=Watch("full", "standard", "all"), parity="replay").folder
    seal(out, vectors.key())
    return out


def test_an_honest_run_is_verified_by_both(run: Any, recorded: Path) -> None:
    expect_verified(run, recorded)


Edit = Callable[[Lines], object]
EDITS: dict[str, tuple[str, Edit]] = {
    "a gate beyond 1": ("gates", lambda lines: lines[SLOT]["measured"].update(delta_beta_max=1.5)),
    "a mean of other gates": ("gates", lambda lines: lines[SLOT]["measured"].update(delta_decay_mean=lines[SLOT]["measured"]["delta_decay_min"])),
    "a gate below 0": ("gates", lambda lines: lines[SLOT]["measured"].update(shared_gate=-0.5)),
    "no shared expert": ("census", lambda lines: lines[SLOT]["measured"].update(shared_output_norm={"absent": "no shared expert"})),
    "no gate": ("census", lambda lines: lines[SLOT]["measured"].update(shared_gate={"absent": "no gate"})),
    "a state in attention": ("census", lambda lines: lines[OTHER]["measured"].update(delta_state_sha256="ab" * 32)),
    "attention in a delta layer": ("census", lambda lines: lines[SLOT]["measured"].update(attention_entropy=0.5)),
    "a short vector": ("census", lambda lines: lines[SLOT]["measured"].update(delta_betas="AACAPw==")),
    "another kind of layer": ("census", lambda lines: lines["run", -1]["measured"]["layer_kinds"].__setitem__(3, "delta")),
    "an unknown kind": ("run", lambda lines: lines["run", -1]["measured"]["layer_kinds"].__setitem__(0, "mamba")),
    "one kind less": ("run", lambda lines: lines["run", -1]["measured"]["layer_kinds"].pop()),
    "heads that the key heads do not share": ("run", lambda lines: lines["run", -1]["measured"]["delta"].update(heads=5)),
    "no sizes": ("run", lambda lines: lines["run", -1]["measured"].update(delta={"absent": "no delta layer"})),
    "more heads": ("census", lambda lines: lines["run", -1]["measured"]["delta"].update(heads=2**52)),
    "scores of another softmax": ("scores", lambda lines: halve(lines[SLOT]["measured"])),
}


def halve(measured: dict[str, Any]) -> None:
    """All listed scores, with what follows from them in the line"""
    for name in ("chosen_scores", "runner_up_scores", "chosen_selection", "runner_up_selection"):
        values = [value / 2 for value in canonical.values_f32(canonical.decode_f32(measured[name]))]
        measured[name] = canonical.encode_f32(struct.pack(f"<{len(values)}f", *values))


@pytest.mark.parametrize("name", EDITS)
def test_what_its_owner_changes_and_signs_fails_by_the_same_check_in_both(run: Any, recorded: Path, tmp_path: Path, name: str) -> None:
    check, edit = EDITS[name]
    assert check in expect_same(run, with_lines(recorded, tmp_path, edit))
