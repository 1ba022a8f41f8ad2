"""Attention over a long prompt: its memory grows with the positions, not with their square."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from small_models import qwen_config, small_config

POSITIONS, CHUNK, THREADS = 4000, 64, 2
SLACK = 24 << 20  # of the allocator, and of the kernels' own scratch: for each thread 64 numbers a key, 2 MB in all
SCORES = 4 * CHUNK * 64 * POSITIONS  # bytes of a chunk's, of all heads; those of all positions are 60 times as many
MODELS = {
    "latent": (small_config(num_hidden_layers=1, first_k_dense_replace=1, num_attention_heads=64, max_position_embeddings=8192), 0),
    "grouped": (qwen_config(num_attention_heads=64, max_position_embeddings=8192), 3),
}
PROGRAM = """
import json, math, re, sys
from pathlib import Path
import numpy as np
from formation.kernels import ops
from formation.kernels.tensor import Tensor
from formation.model.catalog import read_model
from formation.model.linear import Modules
from formation.model.sequences import apart
from formation.model.taps import Blind, Tap

def resident(line):
    return 1024 * int(re.search(line + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

class Sees(Blind):
    def wants(self, tap):
        return watched and tap is Tap.ATTENTION_WEIGHTS

def attended(positions):
    x = np.ones((positions, model.shape.hidden), np.float32)
    cache, idle = model.new_cache(layer, positions), resident("VmRSS")
    for first in range(0, positions, chunk):
        part = np.arange(first, min(first + chunk, positions))
        compute = mixer if first + 2 * chunk > positions else mixer.remember  # the last ones have the most keys
        compute(x[part], layer, apart(part, cache, Sees()), use)
    return resident("VmHWM") - idle

config, layer, watched, positions, chunk, threads = json.loads(sys.argv[1])
model = read_model(config)
mixer, random = model.mixers[layer], np.random.default_rng(1)
tensors = {s.name: Tensor(s.name, s.dtypes[0], s.shape, random.integers(0, 60, s.nbytes, np.uint8)) for s in model.part(("layer", layer), {}).stored}
use = Modules(tensors, f"{model.prefix}model.layers.{layer}.{mixer.name}.", threads)
ops.isa()
attended(chunk)
print(json.dumps({"grown": attended(positions), "planned": model.cache_bytes(layer, positions) + chunk * model.row_bytes()}))
"""


def told(model: str, *, watched: bool) -> dict[str, Any]:
    """By a process of its own, which attends to all positions from the last ones, a chunk at a time as a pass does"""
    if not Path("/proc/self/status").exists():
        pytest.skip("resident memory is read from /proc, which this system lacks")
    asked = json.dumps([*MODELS[model], watched, POSITIONS, CHUNK, THREADS])
    done = subprocess.run([sys.executable, "-c", PROGRAM, asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("model", MODELS)
def test_attention_takes_what_is_planned_for_keys_and_a_chunk_of_rows_and_no_scores_of_all(model: str) -> None:
    found = told(model, watched=False)
    assert found["grown"] <= found["planned"] + SLACK < SCORES


def test_the_measurement_would_see_the_scores_of_a_chunk() -> None:
    assert told("latent", watched=True)["grown"] > 0.9 * SCORES
