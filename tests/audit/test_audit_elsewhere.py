"""An honest run passes however it was computed, whatever the model, and whatever was observed of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from audit.sealed_runs import MEMORY, check, sealed
from formation.evidence.keys import PrivateKey
from formation.kernels import ops
from formation.ledger.progress import Watch
from formation.run.order import Order
from formation.run.sample import Sample
from recorded_runs import IDS
from small_models import flat_config, fp8_config, qwen3_config, small_checkpoint


@pytest.mark.parametrize("options", [{"threads": 1}, {"keep_cache": False}, {"memory": "3MiB"}], ids=["one thread", "no cache", "a small budget"])
def test_a_run_computed_otherwise_passes(k25_folder: Path, tmp_path: Path, key: PrivateKey, options: dict) -> None:
    out = sealed(k25_folder, tmp_path / "run.ofb", key, Watch("standard", "standard", "boundaries"), **options)
    assert check(out, k25_folder, full=True).passed


@pytest.mark.parametrize("isa", [name for name in ("avx2", "plain") if ops.isa_available(name)])
def test_an_audit_on_another_instruction_set_passes(standard: Path, k25_folder: Path, tmp_path: Path, isa: str) -> None:
    command = [sys.executable, "-m", "formation.cli.main", "audit", str(standard), "--checkpoint", str(k25_folder), "--full", "--json"]
    done = subprocess.run(
        [*command, "--memory", MEMORY, "--out", str(tmp_path / "audit.json")], capture_output=True, text=True, check=False,
        env=os.environ | {"FORMATION_ISA": isa, "XDG_CONFIG_HOME": str(tmp_path)},
    )  # fmt: skip
    assert (0, "passed") == (done.returncode, json.loads(done.stdout)["outcome"])


@pytest.mark.parametrize(
    "config",
    [
        fp8_config(),
        flat_config(n_group=4, topk_group=2, scoring_func="softmax", topk_method="group_limited_greedy", q_lora_rank=None),
        qwen3_config(mlp_only_layers=[0]),
    ],
    ids=["fp8", "plain, groups, softmax, no bias", "grouped attention, no shared expert"],
)  # fmt: skip
def test_other_models_and_sampled_tokens_pass(tmp_path: Path, key: PrivateKey, config: dict) -> None:
    folder = small_checkpoint(tmp_path / "model", config)
    order = Order(IDS, 3, Sample(temperature=1.3, top_k=40, seed=2**64 - 1))
    out = sealed(folder, tmp_path / "run.ofb", key, Watch("standard", "standard", "boundaries"), order)
    assert check(out, folder, full=True).passed


@pytest.mark.parametrize("watch", [Watch("minimal", "minimal", "boundaries"), Watch("minimal", "full", "all"), Watch("full", "minimal", "none")])
def test_other_levels_pass(k25_folder: Path, tmp_path: Path, key: PrivateKey, watch: Watch) -> None:
    out = sealed(k25_folder, tmp_path / "run.ofb", key, watch)
    assert check(out, k25_folder, full=True).passed
    if watch.rows != "none":
        assert check(out, k25_folder).passed
