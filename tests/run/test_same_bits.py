"""The promise of the contract, on whole models: full logits are the same bits however they are computed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import formation
from formation.kernels import ops
from formation.weights.policy import POLICIES
from small_models import flat_config, fp8_config, qwen3_config, qwen_config, small_checkpoint, small_config

IDS = [int(i) for i in np.random.default_rng(7).integers(0, 512, 41)]
MODELS = {
    "int4 as Kimi K2.5": small_config(),
    "fp8 as Kimi K2": fp8_config(),
    "gated delta and attention as Qwen3-Next": qwen_config(),
    "grouped attention after a dense layer as Qwen3": qwen3_config(mlp_only_layers=[0], intermediate_size=160),
    "plain, groups, softmax, straight queries": flat_config(
        n_group=4, topk_group=2, scoring_func="softmax", topk_method="group_limited_greedy", q_lora_rank=None, norm_topk_prob=False
    ),
}


@pytest.fixture(scope="module", params=MODELS, ids=lambda name: name)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("bits") / "model", MODELS[request.param])


@pytest.fixture(scope="module")
def expected(folder: Path) -> np.ndarray:
    with formation.Engine(formation.open(folder), memory="16MiB", threads=1) as engine:
        return engine.logits(IDS)


def steps_of(folder: Path, ids: list[int], forced: list[int], **options: object) -> list[np.ndarray]:
    """Logits of each step when `forced` follows the prompt, whatever the model would say."""

    class Forced:
        def choose(self, logits: np.ndarray, position: int) -> object:
            return formation.run.sample.Choice(forced[position - len(ids)])

    with formation.Engine(formation.open(folder), memory="16MiB", **options) as engine:
        return [step.logits for step in engine.generate(ids, len(forced), Forced())]


@pytest.mark.parametrize("threads", [2, 3])
def test_any_number_of_threads(folder: Path, expected: np.ndarray, threads: int) -> None:
    with formation.Engine(formation.open(folder), memory="16MiB", threads=threads) as engine:
        assert same(engine.logits(IDS), expected)


@pytest.mark.parametrize("policy", POLICIES)
def test_any_policy_for_who_of_the_experts_stays(k25_folder: Path, policy: str) -> None:
    found = []
    for options in ({"memory": "16MiB"}, {"memory": "2MiB", "policy": policy, "guess": False}):
        with formation.Engine(formation.open(k25_folder), threads=1, **options) as engine:
            found.append(list(engine.generate(IDS[:5], 6)))
    assert [step.logits.tobytes() for step in found[0]] == [step.logits.tobytes() for step in found[1]]
    assert 0 < min(step.reads.disk_bytes - step.reads.parts[0].disk_bytes for step in found[1])  # none has all that it needs


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 40])
def test_any_number_of_positions_in_one_pass(folder: Path, expected: np.ndarray, length: int) -> None:
    with formation.Engine(formation.open(folder), memory="16MiB") as engine:
        assert same(engine.logits(IDS[:length]), expected[:length])


def test_token_by_token_with_a_cache_is_the_prefill(folder: Path, expected: np.ndarray) -> None:
    steps = steps_of(folder, IDS[:3], IDS[3:], threads=2)
    assert same(np.stack(steps), expected[2:-1])


def test_token_by_token_without_a_cache_is_the_prefill(folder: Path, expected: np.ndarray) -> None:
    steps = steps_of(folder, IDS[:33], IDS[33:], threads=2, keep_cache=False)
    assert same(np.stack(steps), expected[32:-1])


def test_rows_computed_in_small_chunks(folder: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("formation.run.plan.LARGEST_CHUNK", 5)
    with formation.Engine(formation.open(folder), memory="16MiB") as engine:
        assert engine.plan(len(IDS), len(IDS)).chunk == 5
        assert same(engine.logits(IDS), expected)


def test_a_budget_that_keeps_nothing(folder: Path, expected: np.ndarray) -> None:
    with formation.Engine(formation.open(folder), memory="64MiB") as engine:
        plan = engine.plan(len(IDS), len(IDS))
    tight = plan.cache_bytes + plan.activation_bytes + plan.sizes.always
    with formation.Engine(formation.open(folder), memory=tight) as engine:
        assert len(engine.plan(len(IDS), len(IDS)).resident) < 5
        assert same(engine.logits(IDS), expected)


@pytest.mark.parametrize("isa", ["avx512", "avx2", "plain"])
def test_every_instruction_set(folder: Path, expected: np.ndarray, isa: str) -> None:
    if not ops.isa_available(isa):
        pytest.skip(f"this CPU or build lacks {isa}")
    code = (
        "import sys, json, hashlib, formation; ids = json.loads(sys.argv[2])\n"
        "with formation.Engine(formation.open(sys.argv[1]), memory='16MiB', threads=2) as e:\n"
        "    print(hashlib.sha256(e.logits(ids).tobytes()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), json.dumps(IDS)],
        env=os.environ | {"FORMATION_ISA": isa}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert hashlib.sha256(expected.tobytes()).hexdigest() == done.stdout.strip()


def test_another_library_that_flushes_denormals(folder: Path, expected: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    assert torch.set_flush_denormal(True)
    try:
        with formation.Engine(formation.open(folder), memory="16MiB", threads=2) as engine:
            assert same(engine.logits(IDS), expected)
    finally:
        torch.set_flush_denormal(False)


def test_the_comparison_of_these_tests_sees_one_ulp(expected: np.ndarray) -> None:
    changed = expected.copy()
    changed[-1, -1] = np.nextafter(changed[-1, -1], np.float32(np.inf))
    assert not same(changed, expected)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
