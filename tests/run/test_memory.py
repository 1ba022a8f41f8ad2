"""The memory promise, measured on a whole process: a checkpoint several times larger than its budget runs within the budget.

Resident memory is the kernel's own count: VmRSS of the idle process (library loaded, engine created), VmHWM after each forward pass.
Bytes read are those the file system gave. No timing is looked at.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tools.synthetic_checkpoint import k25_config, write_checkpoint

BUDGET = 96 << 20
PROMPT, TOKENS = 64, 5
SHAPES = {
    "hidden_size": 1536, "intermediate_size": 4096, "moe_intermediate_size": 768, "num_attention_heads": 16, "num_key_value_heads": 16,
    "q_lora_rank": 512, "kv_lora_rank": 256, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64, "vocab_size": 8192,
    "num_experts_per_tok": 6,
}  # fmt: skip
RUN = """
import json, re, sys
from pathlib import Path
import formation
from formation.kernels import ops

def resident_bytes(line):
    return 1024 * int(re.search(line + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

folder, budget, prompt, tokens = sys.argv[1], *map(int, sys.argv[2:])
engine = formation.Engine(formation.open(folder), memory=budget, threads=2, guess=False)
ops.isa()
idle = resident_bytes("VmRSS")
plan = engine.plan(prompt + tokens - 1)
stream = engine.prepare(prompt + tokens - 1, 1).stream
uses, passes, log = [], [], stream.events
stream.events = lambda event: log(event) or uses.append([list(event.key), event.tier, event.bytes])
for step in engine.generate([37 * i % 8192 for i in range(prompt)], tokens):
    passes.append({"grown": resident_bytes("VmHWM") - idle, "disk": step.reads.disk_bytes, "rows": step.reads.parts[0].disk_bytes,
                   "unused": step.reads.unused_bytes, "uses": list(uses)})
    uses.clear()
slots = {str(key): stream.bytes_of(key) for key in (("layer", 0), ("layer", 1), ("head",), ("expert", 1, 0))}
print(json.dumps({"passes": passes, "slots": slots, "slots_peak": stream.peak_bytes, "stream": plan.stream_bytes,
                  "bytes_per_token": plan.bytes_per_token, "total": engine.checkpoint.total_bytes}))
"""
RECORD = """
import re, sys
from pathlib import Path
import formation
from formation import forming, recording
from formation.kernels import ops
from formation.ledger.progress import Watch
from formation.run.order import Order

def resident_bytes(line):
    return 1024 * int(re.search(line + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

folder, budget, prompt, tokens = sys.argv[1], *map(int, sys.argv[2:])
checkpoint = formation.open(folder)
recording.Engine(checkpoint, memory=budget, threads=2)
ops.isa()
idle, grown = resident_bytes("VmRSS"), []
means = recording.Means(budget, 2, parity="none", on_step=lambda step: grown.append(resident_bytes("VmHWM") - idle))
order = Order(tuple(37 * i % 8192 for i in range(prompt)), tokens)
with recording.store.create(Path(folder) / "run.ofb") as writer, means.engine(checkpoint) as engine:
    watch = Watch("full", "minimal", "all")
    forming.plan(engine, [order], watch)
    run = forming.Run(Path(folder) / "run.ofb", order, watch, engine, writer, "0" * 64, [])
    forming.form(engine, [run], lambda run, step: means.heard(0, step))
grown.append(resident_bytes("VmHWM") - idle)
print(max(grown))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if not Path("/proc/self/status").exists():
        pytest.skip("resident memory is read from /proc, which this system lacks")
    folder = tmp_path_factory.mktemp("memory") / "model"
    config = k25_config(5, 36)
    config["text_config"] |= SHAPES
    write_checkpoint(folder, config, pool=1 << 20)
    (folder / "tiktoken.model").write_bytes(b"".join(base64.b64encode(bytes([b])) + b" " + str(b).encode() + b"\n" for b in range(256)))
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {"256": {"content": "[EOS]", "special": True}}}))
    yield folder
    shutil.rmtree(folder)


def told(folder: Path, program: str) -> Any:
    arguments = [sys.executable, "-c", program, str(folder), str(BUDGET), str(PROMPT), str(TOKENS)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def run(folder: Path) -> dict[str, Any]:
    """What one process saw: a prefill, then four decode steps."""
    return told(folder, RUN)  # type: ignore[no-any-return]


def test_recording_stays_within_the_idle_process_and_the_budget(folder: Path) -> None:
    assert told(folder, RECORD) <= 1.05 * BUDGET


def test_the_checkpoint_is_several_times_larger_than_the_budget(run: dict[str, Any]) -> None:
    assert run["total"] > 3.5 * BUDGET


def test_a_prefill_stays_within_the_idle_process_and_the_budget(run: dict[str, Any]) -> None:
    assert run["passes"][0]["grown"] <= 1.05 * BUDGET


def test_decoding_stays_within_the_idle_process_and_the_budget(run: dict[str, Any]) -> None:
    assert run["passes"][-1]["grown"] <= 1.05 * BUDGET


def test_the_measurement_sees_the_weights(run: dict[str, Any]) -> None:
    """Memory that the bound could not see would pass any bound."""
    assert run["passes"][0]["grown"] > 0.9 * run["slots_peak"] > 0.5 * BUDGET


def test_all_slots_together_stay_within_what_the_plan_gives_to_weights(run: dict[str, Any]) -> None:
    assert run["slots_peak"] <= run["stream"]


def test_a_prefill_reads_the_always_needed_weights_of_every_layer_once(run: dict[str, Any]) -> None:
    always = [use for use in run["passes"][0]["uses"] if use[0][0] != "expert"]
    assert [["layer", layer] for layer in range(5)] + [["head"]] == [key for key, _, _ in always]
    for key, tier, read in always:
        slot = run["slots"]["('layer', 0)" if key == ["layer", 0] else "('head',)" if key == ["head"] else "('layer', 1)"]
        assert tier == "disk"
        assert 0.99 * slot < read <= slot


def test_a_prefill_reads_no_expert_twice_and_each_whole(run: dict[str, Any]) -> None:
    experts = [use for use in run["passes"][0]["uses"] if use[0][0] == "expert"]
    assert len({tuple(key) for key, _, _ in experts}) == len(experts) > 100
    slot = run["slots"]["('expert', 1, 0)"]
    assert all(tier == "disk" and 0.99 * slot < read <= slot for _, tier, read in experts)


def test_nothing_is_read_in_a_prefill_but_what_it_uses_and_what_the_next_step_begins_with(run: dict[str, Any]) -> None:
    first = run["passes"][0]
    ahead = first["disk"] - first["rows"] - sum(read for _, _, read in first["uses"])
    assert 0 <= ahead <= run["slots"]["('layer', 0)"]
    assert first["unused"] == 0


def test_a_decode_step_reads_no_more_than_the_plan_says_and_the_row_of_its_token(run: dict[str, Any]) -> None:
    for step in run["passes"][1:]:
        assert 0 < step["rows"] <= 2 * 4096
        assert sum(read for _, _, read in step["uses"]) <= run["bytes_per_token"]
        assert step["unused"] == 0


def test_all_steps_together_read_nothing_else_but_what_the_next_one_begins_with(run: dict[str, Any]) -> None:
    """One sum over the run: which step's account a read-ahead falls into is a matter of timing."""
    read, used = (sum(of(step) for step in run["passes"]) for of in (lambda s: s["disk"] - s["rows"], lambda s: sum(u[2] for u in s["uses"])))
    assert 0 <= read - used <= run["slots"]["('layer', 0)"]


def test_a_decode_step_uses_every_layer_the_head_and_its_chosen_experts(run: dict[str, Any]) -> None:
    for step in run["passes"][1:]:
        kinds = [key[0] for key, _, _ in step["uses"]]
        assert (kinds.count("layer"), kinds.count("expert"), kinds.count("head")) == (5, 4 * 6, 1)
