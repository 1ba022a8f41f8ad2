"""What the plan is told of recording's memory is an upper bound, and not a wild one."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from probe_runs import Forced, prepare
from tools.synthetic_checkpoint import k25_config, qwen3_next_config

import formation
from formation.kernels.tensor import F32
from formation.model.catalog import read_model
from formation.probe.aside import Job
from formation.probe.cost import FIXED_BYTES, capture_bytes
from formation.probe.head import ModelHead
from formation.probe.pending import Token
from formation.probe.recorder import KEPT_BYTES, Recorder
from formation.probe.spool import IN_MEMORY_BYTES
from small_models import qwen_config, small_checkpoint, small_config

WIDE = {"hidden_size": 1024, "vocab_size": 4096}  # so that rows, not Python's objects, are what counts
PROMPT = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("wide") / "model", small_config(**WIDE))


LARGE_STATES = {"linear_num_key_heads": 8, "linear_num_value_heads": 16, "linear_key_head_dim": 64, "linear_value_head_dim": 96}  # 0.4 MB a layer


@pytest.fixture(scope="module")
def delta_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("delta") / "model", qwen_config(**WIDE, **LARGE_STATES))


def peak_bytes(folder: Path, levels: dict[str, str] | None) -> int:
    """Largest traced memory of a prompt and two steps, numpy's arrays included; each step is worked on when the next has been computed"""
    ids = np.random.default_rng(1).integers(0, 4096, PROMPT + 2).tolist()
    with formation.Engine(formation.open(folder), memory="96MiB", threads=2) as engine:
        list(engine.generate(ids[:PROMPT], 2, Forced(ids)))  # every weight that is kept, is there
        recorder = prepare(engine, range(PROMPT - 1, PROMPT + 1), lambda probe: probe, levels, later=True) if levels else None
        engine.probe = recorder
        unfinished: Job | None = None
        tracemalloc.start()
        for step in engine.generate(ids[:PROMPT], 2, Forced(ids)):
            if recorder:
                wait(unfinished)
                unfinished = begin(engine, recorder, step.position - 1, step.logits, Token(step.id, b"", "forced", "forced"))
        wait(unfinished)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak


def begin(engine: formation.Engine, recorder: Recorder, position: int, logits: F32, token: Token) -> Job:
    lines = list(recorder.prompt_observations())
    with engine.head() as tensors:  # it stays in memory
        head = ModelHead(engine.model, tensors, threads=2)
        return recorder.begin_step(position, token, logits, head, lambda more: iter(lines + more and []))


def wait(job: Job | None) -> None:
    if job:
        job.wait()


@pytest.mark.parametrize("levels", [("minimal", "minimal"), ("standard", "minimal"), ("full", "full")], ids="/".join)
def test_recording_keeps_no_more_than_was_planned(folder: Path, levels: tuple[str, str]) -> None:
    chosen = {"level": levels[0], "prompt_level": levels[1]}
    planned = capture_bytes(read_model(formation.open(folder).config), PROMPT, **chosen)
    used = peak_bytes(folder, chosen) - peak_bytes(folder, None)
    assert used <= planned <= 2 * used + IN_MEMORY_BYTES + FIXED_BYTES


@pytest.mark.parametrize("levels", [("minimal", "minimal"), ("standard", "minimal"), ("full", "full")], ids="/".join)
def test_recording_delta_layers_keeps_no_more_than_was_planned(delta_folder: Path, levels: tuple[str, str]) -> None:
    """No state of a position is kept when it has been digested, but those that wait for it"""
    chosen = {"level": levels[0], "prompt_level": levels[1]}
    planned = capture_bytes(read_model(formation.open(delta_folder).config), PROMPT, **chosen)
    used = peak_bytes(delta_folder, chosen) - peak_bytes(delta_folder, None)
    assert used <= planned <= 2 * used + IN_MEMORY_BYTES + FIXED_BYTES


def test_a_step_of_qwen3_next_costs_its_rows_one_product_with_lm_head_and_the_states_that_wait() -> None:
    """48 layers of (4 + 10 + 1) rows of 2,048 numbers, twice; 48 x 151,936 logits; 64 MiB of states, of which a token has 79 MB"""
    model = read_model(qwen3_next_config())
    step = capture_bytes(model, 1, level="standard", prompt_level="minimal")
    assert 36 * model.cache_bytes(0, 1) > KEPT_BYTES
    assert 2 * 48 * 15 * 2048 * 4 + 48 * 151936 * 4 + KEPT_BYTES < step < 200_000_000


def test_a_step_of_k25_costs_its_rows_and_one_product_with_lm_head() -> None:
    """61 layers of (4 + 8 + 1) rows of 7,168 numbers, twice, and 61 x 163,840 logits"""
    step = capture_bytes(read_model(k25_config(61, 384)), 1, level="standard", prompt_level="minimal")
    assert 2 * 61 * 13 * 7168 * 4 + 61 * 163840 * 4 < step < 120_000_000
