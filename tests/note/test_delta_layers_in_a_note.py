"""A note of a run with delta layers names them, where other runs have attention."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pypdf
import pytest

from formation.evidence import keys
from formation.evidence.seal import seal
from formation.ledger.progress import Watch
from formation.note import figures, make_note
from formation.note.material import gather
from formation.run.order import Order
from recorded_runs import IDS, run
from small_models import qwen_config, small_checkpoint


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("delta")
    order = Order(IDS, 2)
    out = run(
        small_checkpoint(folder / "model", qwen_config()), folder / "run.ofb", order, Watch("standard", "minimal", "none"), parity="none"
    ).folder
    seal(out, keys.create(folder / "key.pem"))
    return out


def test_its_layers_are_called_what_they_are(bundle: Path) -> None:
    text = " ".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(make_note(bundle))).pages)
    words = re.sub(r"\s+", " ", text.replace("\u200b", ""))
    assert "4 layers, 3 of them delta nets" in words
    assert "attention or delta net write" in words
    assert "Layers with attention: 3; a delta net writes in the others" in words


def test_a_contribution_is_a_delta_nets_where_there_is_no_attention(bundle: Path) -> None:
    formation = gather(bundle).formation
    assert [figures.DELTA_NET] * 3 + [figures.ATTENTION] == [figures.mixer(cell) for cell in formation.cells]
    names = {name for name, _, _ in figures.strongest(formation, 100)}
    assert {"delta net of layer 0", "delta net of layer 2", "attention of layer 3"} <= names
    assert not {"attention of layer 0", "delta net of layer 3"} & names
