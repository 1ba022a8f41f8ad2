"""Where two runs first differ, the explorer says what formation compare says: in a value, in nothing, in what only one of them captured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from two_runs import departure, two
from verdicts import FULL, GREEDY, copy_of

from formation.evidence.comparison import compare
from formation.ledger import canonical


def changed(bundle: Path, folder: Path, slot: str, tag: str, name: str, value: Any) -> Path:
    """A copy whose ledger says something else at position 3"""
    found = copy_of(bundle, folder)
    lines = []
    for data in (found / "ledger.jsonl").read_bytes().splitlines():
        line = canonical.decode(data, limits=canonical.LINE)
        if (line["position"], line["slot"]) == (3, slot):
            line[tag][name] = value
        lines.append(canonical.encode(line) + b"\n")
    (found / "ledger.jsonl").write_bytes(b"".join(lines))
    return found


@pytest.mark.parametrize(("slot", "tag", "name", "value"), [
    ("layer 2", "measured", "residual_largest", 1.25), ("layer 1", "derived", "dla_mlp", 0.5),
    ("lm_head", "derived", "varentropy", 0.5), ("token", "measured", "bytes", "QQ=="),
])  # fmt: skip
def test_one_changed_value_is_the_first_departure_in_page_and_command(
    browser: Any, bundles: dict[str, Path], tmp_path: Path, slot: str, tag: str, name: str, value: Any
) -> None:
    other = changed(bundles[GREEDY], tmp_path, slot, tag, name, value)
    first = compare(bundles[GREEDY], other).first
    assert first is not None and (3, slot, name) == (first.position, first.slot, first.unequal[0].field)
    for page in two(browser, tmp_path, bundles[GREEDY], other):
        assert departure(page).startswith(f"They first differ in {slot} at position 3, in 1 of {first.compared} fields")
        assert "passed" == page.page.locator("#evidence").get_attribute("class")
        assert "failed" == page.page.locator("#evidence-b").get_attribute("class")
        assert "✗ Failed" == page.text("#evidence-b .word") and "Verified" not in page.text("#evidence-b")


def test_one_bundle_twice_differs_nowhere_and_neither_does_another_capture_level(browser: Any, bundles: dict[str, Path], tmp_path: Path) -> None:
    for page in two(browser, tmp_path, bundles[GREEDY], bundles[GREEDY]):
        assert departure(page).startswith("They differ nowhere, in the fields that both hold of 5 positions")
        assert "Their anchors are the same." in page.text("#compare")
        assert 0 == page.page.locator("#compare .pair.differs").count()
        assert 0 == page.page.locator("#compare .frame.departed").count()
    first = compare(bundles[GREEDY], bundles[FULL]).first
    for page in two(browser, tmp_path, bundles[GREEDY], bundles[FULL]):
        assert departure(page).startswith(f"They first differ in {first.slot} at position {first.position}" if first else "They differ nowhere")
