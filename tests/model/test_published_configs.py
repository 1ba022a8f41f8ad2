"""Configs as their publishers wrote them are read, and give the published sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tools.synthetic_checkpoint import Names, qwen3_moe_config, qwen3_next_config

from formation.model.architecture import parts_of
from formation.model.catalog import read_model
from formation.run.plan import count_parameters, measure_sizes

HERE = Path(__file__).parent / "published"
# name: billions of parameters, bytes of an expert, bytes of one token's experts
PUBLISHED = {
    "Qwen3-30B-A3B": (30.53, 9_437_184, 48 * 8 * 9_437_184),
    "Qwen3-30B-A3B-Thinking-2507-saved-again": (30.53, 9_437_184, 48 * 8 * 9_437_184),
    "Qwen3-235B-A22B-Instruct-2507": (235.09, 37_748_736, 94 * 8 * 37_748_736),
    "Qwen3-Next-80B-A3B-Instruct": (79.67, 6_291_456, 48 * 10 * 6_291_456),
}


def published(name: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())
    return config


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_the_published_ones(name: str) -> None:
    model = read_model(published(name))
    parts = parts_of(model, Names(model.quantisation))
    sizes, (billions, expert, token) = measure_sizes(parts, model.shape), PUBLISHED[name]
    assert billions == round(count_parameters(parts, model.shape).total / 1e9, 2)
    assert ({expert}, token) == (set(sizes.experts.values()), sizes.experts_per_token)


def test_a_config_that_a_newer_library_saved_means_the_same() -> None:
    longer = {"max_position_embeddings": 262144, "rope_theta": 1e7}
    assert read_model(published("Qwen3-30B-A3B") | longer) == read_model(published("Qwen3-30B-A3B-Thinking-2507-saved-again"))


@pytest.mark.parametrize(
    ("made", "name"), [(qwen3_moe_config(), "Qwen3-30B-A3B"), (qwen3_next_config(), "Qwen3-Next-80B-A3B-Instruct")], ids=["qwen3_moe", "qwen3_next"]
)
def test_synthetic_checkpoints_are_made_of_the_published_config(made: dict[str, Any], name: str) -> None:
    assert {key: value for key, value in published(name).items() if key != "transformers_version"} == made


def test_every_fixture_is_used() -> None:
    assert sorted(f"{name}.json" for name in PUBLISHED) == sorted(file.name for file in HERE.iterdir())
