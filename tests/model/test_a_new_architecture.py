"""The page that says how an architecture is added is followed to the letter: its file, and one line in the catalogue, are a model that runs."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

import formation
from formation.errors import UnsupportedError
from formation.model import qwen3_moe
from formation.model.catalog import ARCHITECTURES
from small_models import qwen3_config, small_checkpoint

PAGE = Path(__file__).parents[2] / "docs" / "how-it-works.md"
IDS = [3, 1, 4, 1, 5, 9, 2, 6]


@pytest.fixture(scope="module")
def file() -> dict[str, Any]:
    """What the file of the page defines"""
    section = PAGE.read_text().partition("## How an architecture is added")[2]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.S)
    defined: dict[str, Any] = {}
    exec(compile(textwrap.dedent(block), str(PAGE), "exec"), defined)
    return defined


def logits(folder: Path) -> bytes:
    with formation.Engine(formation.open(folder), memory="16MiB") as engine:
        return engine.logits(IDS).tobytes()


def test_the_file_of_the_page_and_one_line_run_a_model(file: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {name: value for name, value in qwen3_config().items() if name != "sliding_window"}
    folder = small_checkpoint(tmp_path / "model", config)
    expected = logits(folder)
    monkeypatch.delitem(ARCHITECTURES, "qwen3_moe")
    with pytest.raises(UnsupportedError, match="model_type"):
        logits(folder)
    monkeypatch.setitem(ARCHITECTURES, "qwen3_moe", file["read"])
    assert expected == logits(folder)


def test_the_file_of_the_page_reads_what_the_shipped_one_reads(file: dict[str, Any]) -> None:
    config = qwen3_config()
    assert qwen3_moe.read(config) == file["read"](config)


NOT_UNDERSTOOD = [{"mlp_only_layers": [0]}, {"decoder_sparse_step": 2}, {"use_sliding_window": True}, {"attention_bias": True}, {"router_bias": 1}]


@pytest.mark.parametrize("change", NOT_UNDERSTOOD, ids=str)
def test_it_refuses_by_name_what_it_does_not_understand(file: dict[str, Any], change: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match=next(iter(change))):
        file["read"](qwen3_config(**change))


@pytest.mark.parametrize("key", ["head_dim", "num_experts", "rms_norm_eps", "hidden_size"])
def test_it_refuses_by_name_what_is_missing(file: dict[str, Any], key: str) -> None:
    config = qwen3_config()
    del config[key]
    with pytest.raises(UnsupportedError, match=key):
        file["read"](config)


def test_the_page_names_every_architecture_file() -> None:
    page = PAGE.read_text()
    for read in ARCHITECTURES.values():
        assert f"`{read.__module__.rpartition('.')[2]}.py`" in page
