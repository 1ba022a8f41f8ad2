"""Two recorded bundles of the sample: tokens that one run decoded are part of the other's prompt. Both say the same of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from formation.cli import main
from formation.ledger import sidecar
from formation.samples import folder

Lines = dict[tuple[int, str], dict[str, Any]]
PROMPT, TOKENS = "What does len do?", 4


def record(out: Path, prompt: list[str], tokens: int) -> Lines:
    asked = ["record", str(folder("kimi_k25")), *prompt, "--tokens", str(tokens), "--out", str(out)]
    assert 0 == main.main([*asked, "--rows", "all", "--capture", "full", "--capture-prompt", "full", "--parity", "none"])
    lines = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    return {(line["position"], line["slot"]): line for line in lines}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Lines, Path, Lines]:
    base = tmp_path_factory.mktemp("bundles")
    decoded = record(base / "decoded.ofb", ["--prompt", PROMPT], TOKENS)
    ids = json.loads((base / "decoded.ofb/anchor.json").read_text())["prompt"]["ids"]
    new = [line["measured"]["id"] for (_, slot), line in decoded.items() if slot == "token"]
    assert TOKENS == len(new)
    prefilled = record(base / "prefilled.ofb", ["--ids", ",".join(map(str, ids + new))], 1)
    return base / "decoded.ofb", decoded, base / "prefilled.ofb", prefilled


def test_every_cell_of_the_common_prefix_has_the_same_values(bundles: tuple[Path, Lines, Path, Lines]) -> None:
    _, decoded, _, prefilled = bundles
    common = [place for place in decoded if place[0] >= 0 and place in prefilled]
    positions = {position for position, _ in common}
    assert set(range(len(positions))) == positions and 6 * len(positions) == len(common) and len(positions) > TOKENS
    needs_a_step = 0
    for place in common:
        step, prompt = decoded[place], prefilled[place]
        assert "prompt" == prompt["kind"] and step["measured"] == prompt["measured"]
        assert step["derived"].keys() == prompt["derived"].keys()
        for name, value in prompt["derived"].items():
            if value == {"absent": "not a step"}:
                needs_a_step += value != step["derived"][name]
            else:
                assert step["derived"][name] == value, (place, name)
    assert needs_a_step > 100


@pytest.mark.parametrize("name", ["rows", "router"])
def test_every_row_of_the_common_prefix_is_the_same(bundles: tuple[Path, Lines, Path, Lines], name: str) -> None:
    with sidecar.Reader(bundles[0] / name) as decoded, sidecar.Reader(bundles[2] / name) as prefilled:
        assert (decoded.positions + 1, decoded.tensors) == (prefilled.positions, prefilled.tensors)
        for position in range(decoded.positions):
            for tensor, (rows, _) in decoded.tensors.items():
                assert all(decoded.row(position, tensor, i) == prefilled.row(position, tensor, i) for i in range(rows))
