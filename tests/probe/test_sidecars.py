"""Rows beside the ledger are the rows that its lines have digests of."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from probe_runs import IDS, Forced, Recorded, close_rows, finish, prepare, record_pass, record_steps

import formation
from formation.errors import UsageError
from formation.ledger import rules, sidecar
from formation.probe.pending import Token
from formation.probe.recorder import Recorder
from formation.probe.sidecars import Sidecars
from small_models import flat_config, small_checkpoint

PROMPT, LAYERS, POSITIONS = 12, 4, len(IDS) - 1


@pytest.fixture(scope="module")
def run(k25_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recorded, Path]:
    out = tmp_path_factory.mktemp("recorded")
    return record_steps(k25_folder, PROMPT, rows=(out, "all")), out


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_every_row_has_the_digest_that_the_ledger_gives(run: tuple[Recorded, Path]) -> None:
    recorded, out = run
    with sidecar.Reader(out / "rows") as rows, sidecar.Reader(out / "router") as router:
        assert POSITIONS == rows.positions == router.positions
        for p in range(POSITIONS):
            assert recorded.at(p, "embed")["residual_sha256"] == sha256(rows.row(p, "residual", 0))
            for layer in range(LAYERS):
                values = recorded.at(p, f"layer {layer}")
                assert values["residual_sha256"] == sha256(rows.row(p, "residual", layer + 1))
                assert values["attention_write_sha256"] == sha256(rows.row(p, "attention_write", layer))
                assert values["mlp_write_sha256"] == sha256(rows.row(p, "mlp_write", layer))
                if layer:
                    assert values["router_logits_sha256"] == sha256(router.row(p, "logits", layer - 1))
                    assert values["router_selection_sha256"] == sha256(router.row(p, "selection", layer - 1))


def test_rows_add_up_to_the_next(run: tuple[Recorded, Path]) -> None:
    with sidecar.Reader(run[1] / "rows") as rows:
        for p in range(POSITIONS):
            for layer in range(LAYERS):
                x, a, m, after = (rows.row(p, *place) for place in (("residual", layer), ("attention_write", layer), ("mlp_write", layer),
                                                                    ("residual", layer + 1)))  # fmt: skip
                u = sums(x, a)
                assert not rules.addition(x, a, u, "u").violated and not rules.addition(u, m, after, "x'").violated
                assert rules.addition(x, m, after, "x'").violated


def sums(x: bytes, write: bytes) -> bytes:
    return (np.frombuffer(x, "<f4") + np.frombuffer(write, "<f4")).tobytes()


def test_one_pass_and_steps_without_a_cache_write_the_same_files(run: tuple[Recorded, Path], k25_folder: Path, tmp_path: Path) -> None:
    record_pass(k25_folder, PROMPT, rows=(tmp_path / "pass", "all"))
    record_steps(k25_folder, PROMPT, keep_cache=False, rows=(tmp_path / "steps", "all"))
    assert files(run[1]) == files(tmp_path / "pass") == files(tmp_path / "steps")


def test_boundaries_leave_out_the_writes(run: tuple[Recorded, Path], k25_folder: Path, tmp_path: Path) -> None:
    record_steps(k25_folder, PROMPT, rows=(tmp_path, "boundaries"))
    with sidecar.Reader(tmp_path / "rows") as few, sidecar.Reader(run[1] / "rows") as all_rows:
        assert {"residual": (LAYERS + 1, 96)} == few.tensors
        for p in range(POSITIONS):
            for boundary in range(LAYERS + 1):
                assert all_rows.row(p, "residual", boundary) == few.row(p, "residual", boundary)
    assert (run[1] / "router/00000000.safetensors").read_bytes() == (tmp_path / "router/00000000.safetensors").read_bytes()


def test_without_rows_nothing_is_written_and_observations_are_the_same(run: tuple[Recorded, Path], k25_folder: Path, tmp_path: Path) -> None:
    assert run[0].observations == record_steps(k25_folder, PROMPT, rows=(tmp_path, "none")).observations
    assert [] == list(tmp_path.iterdir())


def test_a_model_without_experts_has_no_router_folder(tmp_path: Path) -> None:
    folder = small_checkpoint(tmp_path / "model", flat_config(first_k_dense_replace=4))
    record_steps(folder, PROMPT, rows=(tmp_path / "out", "boundaries"))
    assert ["rows/00000000.safetensors"] == list(files(tmp_path / "out"))


def test_another_mode_is_refused(run: tuple[Recorded, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="rows: expected none, boundaries, all, got some"):
        Sidecars(tmp_path, "some", run[0].model.shape)


def step_through(engine: formation.Engine, recorder: Recorder, prompt: int, until: int) -> None:
    """IDS from `prompt` on, up to position `until`, committing after each"""
    for step in engine.generate(IDS[:prompt], until - prompt + 1, Forced(IDS)):
        finish(engine, recorder, step.position - 1, step.logits, Token(step.id, b"x", "forced", "forced"))
        assert recorder.sidecars
        recorder.sidecars.commit(step.position)


@pytest.mark.parametrize("stop", [PROMPT, PROMPT + 3])
def test_a_resumed_run_writes_the_same_files(run: tuple[Recorded, Path], k25_folder: Path, tmp_path: Path, stop: int) -> None:
    steps = range(PROMPT - 1, POSITIONS)
    with formation.Engine(formation.open(k25_folder), memory="24MiB", threads=2) as engine:
        recorder = prepare(engine, steps, lambda probe: probe, {}, rows=(tmp_path, "all"))
        step_through(engine, recorder, PROMPT, stop)
        recorder.close()
        assert "rows/00000000.safetensors.part" in files(tmp_path)
        recorder = prepare(engine, steps, lambda probe: probe, {}, rows=(tmp_path, "all"), first=stop)
        step_through(engine, recorder, stop + 1, POSITIONS)
        close_rows(recorder)
    assert files(run[1]) == files(tmp_path)
