"""Where two runs first differ, the explorer says what formation compare says: in a value, in nothing, in what only one of them captured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.evidence import vectors
from two_runs import departure, two
from verdicts import FULL, GREEDY, copy_of

from formation.cli.main import main
from formation.evidence.comparison import compare
from formation.evidence.seal import seal
from formation.ledger import canonical
from formation.ledger.progress import Watch
from formation.run.order import Order
from recorded_runs import IDS, run


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


def unquantised(folder: Path, out: Path, dtype: str) -> Path:
    """The checkpoint without its int4: of compressed-tensors, eight in an int32, the first lowest, offset by 8, with a scale for each 32"""
    torch, safetensors = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    shutil.copytree(folder, out)
    config = json.loads((out / "config.json").read_text())
    del config["text_config"]["quantization_config"]
    (out / "config.json").write_text(json.dumps(config))
    places = {}
    for shard in sorted(out.glob("*.safetensors")):
        stored = safetensors.load_file(shard)
        plain = {name: tensor for name, tensor in stored.items() if not name.endswith(("weight_packed", "weight_scale", "weight_shape"))}
        for name in [name for name in stored if name.endswith("weight_packed")]:
            module, packed = name.removesuffix("_packed"), stored[name]
            nibbles = torch.stack([(packed >> 4 * n) & 15 for n in range(8)], dim=-1).flatten(1) - 8
            scale = stored[f"{module}_scale"].float().repeat_interleave(32, dim=1)
            plain[module] = (nibbles.float() * scale).to(getattr(torch, dtype))
        safetensors.save_file(plain, shard, metadata={"format": "pt"})
        places |= dict.fromkeys(plain, shard.name)
    (out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return out


def test_two_quantisations_of_one_model_differ_first_in_the_first_layer_with_experts(
    browser: Any, k25_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The contract reads int4 as compressed-tensors does, rounded to bfloat16: so stored, the run has the same bits; in binary32 it has others"""
    folders = {"int4": k25_folder} | {dtype: unquantised(k25_folder, tmp_path / dtype, dtype) for dtype in ("bfloat16", "float32")}
    for name, folder in folders.items():
        run(folder, tmp_path / f"{name}.ofb", Order(IDS, 2), Watch("standard", "minimal", "none"), parity="none")
        seal(tmp_path / f"{name}.ofb", vectors.key())
    int4, bfloat16, float32 = (tmp_path / f"{name}.ofb" for name in folders)
    rounded = compare(int4, bfloat16)
    assert rounded.first is None and {"checkpoint"} == {each.field.partition(".")[0] for each in rounded.unequal}
    assert 0 == main(["compare", str(int4), str(float32), "--json"])
    said = json.loads(capsys.readouterr().out)
    assert (0, "layer 1") == (said["first"]["position"], said["first"]["slot"])
    assert "mlp_write_norm" in [each["field"] for each in said["first"]["unequal"]]
    assert {"checkpoint"} == {each["field"].partition(".")[0] for each in said["anchors"]["unequal"]}
    for page in two(browser, tmp_path, int4, float32):
        assert departure(page).startswith("They first differ in layer 1 at position 0")
        assert "Their anchors differ in " in page.text("#compare") and 1 == page.page.locator("#compare .frame.departed").count()
