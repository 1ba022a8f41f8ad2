"""A bundle in Python: its tables, as Arrow and pandas have them, and in a notebook; whatever its files hold."""

from __future__ import annotations

import html.parser
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import formation
from formation.errors import EnvironmentFault
from formation.evidence import arrow
from formation.evidence.bundle import AnchorToken, Bundle
from formation.evidence.html import MOST
from formation.ledger.tables import TABLES, Absent, Record
from ledger.small_ledger import small_ledger
from small_bundles import ANCHOR, HOSTILE, long_ledger, small_bundle, with_bytes, write_bundle

LEDGER = small_ledger()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle(small_bundle(tmp_path_factory.mktemp("bundle") / "run.ofb"))


def listed(value: Any) -> Any:
    """As Arrow gives it back"""
    return None if isinstance(value, Absent) else list(value) if isinstance(value, tuple) else value


# ---- what it says of itself


def test_a_bundle_knows_its_run(bundle: Bundle) -> None:
    assert (ANCHOR.run_id, ANCHOR, True) == (bundle.run_id, bundle.anchor, bundle.complete)
    first = next(bundle.tokens)
    assert AnchorToken(first.id, 2) == bundle.anchor_token
    assert (3, 12) == (len(list(bundle.tokens)), len(list(bundle.cells)))
    assert 3 == len(list(bundle.tokens)), "an iterator each time"
    assert 2 * 2 * 4 + 2 * 3 == len(list(bundle.experts))
    assert f"Bundle({str(bundle.folder)!r}, run {ANCHOR.run_id[:16]}…, complete)" == repr(bundle)


def test_an_incomplete_bundle_says_so(tmp_path: Path) -> None:
    found = Bundle(write_bundle(tmp_path / "run.ofb", LEDGER[:7], complete=False))
    assert not found.complete
    assert Absent("no token yet") == found.anchor_token
    assert repr(found).endswith("INCOMPLETE)")
    assert "INCOMPLETE" in found._repr_html_()
    assert b"false" == found.to_arrow()["cells"].schema.metadata[b"formation.complete"]
    assert not found.to_pandas()["tokens"].attrs["complete"]


# ---- tables


def test_arrow_tables_hold_every_value(bundle: Bundle) -> None:
    made = bundle.to_arrow()
    assert set(TABLES) == set(made)
    records: dict[type[Record], list[Record]] = {kind: [] for kind in TABLES.values()}
    for record in bundle.records:
        records[type(record)].append(record)
    for name, kind in TABLES.items():
        assert [c.name for c in kind.columns] == made[name].column_names[:-1]
        for row, record in zip(made[name].to_pylist(), records[kind], strict=True):
            assert {c.name: listed(getattr(record, c.name)) for c in kind.columns} == {k: v for k, v in row.items() if k != "absent"}
            why = {column: reason for reason, columns in json.loads(row["absent"]).items() for column in columns}
            assert why == {c.name: value.reason for c, value in record.items() if isinstance(value, Absent)}


def test_arrow_columns_have_their_types_and_say_what_they_are(bundle: Bundle) -> None:
    cells = bundle.to_arrow()["cells"].schema
    assert pa.float32() == cells.field("residual_norm").type
    assert pa.list_(pa.float32()) == cells.field("gates").type
    assert pa.list_(pa.int64()) == cells.field("chosen").type
    assert ["head", "position", "weight"] == [f.name for f in cells.field("attention_strongest").type.value_type]
    assert b"logit" == cells.field("dla_mlp").metadata[b"unit"]
    assert b"derived" == cells.field("dla_mlp").metadata[b"tag"]
    assert pa.binary() == bundle.to_arrow()["tokens"].schema.field("bytes").type
    assert {b"formation.run_id": ANCHOR.run_id.encode(), b"formation.complete": b"true"} == cells.metadata


def test_data_frames_keep_whole_numbers_and_missing_values_apart(bundle: Bundle) -> None:
    frames = bundle.to_pandas()
    assert {"tokens": 3, "cells": 12, "experts": 22} == {name: len(frame) for name, frame in frames.items()}
    assert "Int64" == str(frames["tokens"]["kept"].dtype)
    assert [5] == frames["tokens"]["kept"].dropna().tolist()
    assert ANCHOR.run_id == frames["tokens"].attrs["run_id"]
    joined = frames["tokens"].merge(frames["cells"], left_on="step", right_on="position")
    assert 3 * 3 == len(joined)


@pytest.mark.parametrize(("method", "package"), [("to_arrow", "pyarrow"), ("to_pandas", "pandas")])
def test_a_missing_package_is_named(bundle: Bundle, method: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str) -> Any:
        if name == package:
            raise ModuleNotFoundError(name)
        return import_module(name)

    monkeypatch.setattr(arrow, "import_module", without)
    with pytest.raises(EnvironmentFault, match=f"expected the package {package}") as caught:
        getattr(bundle, method)()
    assert "pip install" in (caught.value.hint or "")


def test_reading_a_bundle_loads_neither_arrow_nor_numpy(bundle: Bundle) -> None:
    code = "import sys; from formation.evidence.bundle import Bundle; list(Bundle(sys.argv[1]).experts); print(*sys.modules)"
    source = {"PYTHONPATH": str(Path(formation.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-S", "-c", code, bundle.folder], capture_output=True, text=True, check=True, env=source)
    assert set() == {"numpy", "pyarrow", "pandas", "ctypes", "socket"} & set(done.stdout.split())


# ---- a notebook


class Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on") or name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    return tags


def test_a_notebook_shows_the_tokens(bundle: Bundle) -> None:
    seen = parsed(bundle._repr_html_())
    assert 3 == seen.tags.count("tr") - 2
    assert {"table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "small"} == set(seen.tags)
    assert f"{next(bundle.tokens).surprisal_nats:.4f}" in seen.text
    assert "INCOMPLETE" not in seen.text


def test_hostile_text_is_inert_in_a_notebook(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "<img src=x onerror=alert(1)>.ofb", with_bytes(LEDGER, HOSTILE.encode()))
    seen = parsed(Bundle(folder)._repr_html_())
    assert "script" not in seen.tags
    assert "img" not in seen.tags
    assert "</td><script>alert(1)" in seen.text
    assert not set("\u202e\x1b\r") & set(seen.text)


def test_a_notebook_shows_the_first_tokens_of_a_long_run(tmp_path: Path) -> None:
    seen = parsed(Bundle(write_bundle(tmp_path / "run.ofb", list(long_ledger(MOST + 5))))._repr_html_())
    assert MOST + 2 == seen.tags.count("tr")
    assert f"the first {MOST} are shown" in seen.text


# ---- files that are not as they must be


def refusal(folder: Path) -> str:
    with pytest.raises(EnvironmentFault) as caught:
        Bundle(folder)
    return str(caught.value)


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    assert "got nothing" in refusal(tmp_path / "none.ofb")
    (tmp_path / "file").write_text("x")
    assert "got a file" in refusal(tmp_path / "file")
    assert "expected a ledger" in refusal(tmp_path)


def test_an_anchor_that_is_not_the_runs_is_refused(tmp_path: Path) -> None:
    folder = small_bundle(tmp_path / "run.ofb")
    data = (folder / "anchor.json").read_bytes()
    (folder / "anchor.json").write_bytes(data.replace(b"Say", b"Tell"))
    assert f"expected the anchor of run {ANCHOR.run_id}" in refusal(folder)
    (folder / "anchor.json").unlink()
    assert "expected the anchor of the run, got no file" in refusal(folder)
    (folder / "anchor.json").mkdir()
    assert "got no file" in refusal(folder)


def test_a_ledger_damaged_further_on_is_refused_when_it_is_met(tmp_path: Path) -> None:
    bundle = Bundle(write_bundle(tmp_path / "run.ofb", [*LEDGER[:6], *LEDGER[7:]]))
    for read in (lambda: list(bundle.tokens), bundle.to_arrow, bundle._repr_html_):
        with pytest.raises(EnvironmentFault, match="line 7: expected layer 0"):
            read()
