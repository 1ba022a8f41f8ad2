"""`formation export` and `formation show`: what they write is what the ledger holds, whole or not at all."""

from __future__ import annotations

import base64
import csv
import gc
import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow.parquet
import pytest

from formation.cli.main import main
from formation.errors import EnvironmentFault
from formation.evidence import arrow, export
from formation.evidence.bundle import Bundle
from formation.ledger import export_schema
from formation.ledger.tables import TABLES, Absent, Record, records
from ledger.small_ledger import small_ledger
from small_bundles import ANCHOR, HOSTILE, long_ledger, small_bundle, with_bytes, write_bundle

LEDGER = small_ledger()
SCHEMA = json.loads(Path(export_schema.__file__).with_name(export_schema.NAME).read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
FORMATS = ("json", "csv", "parquet")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_bundle(tmp_path / "run.ofb")


def exported(folder: Path, out: Path, form: str) -> Path:
    assert 0 == main(["export", str(folder), "--format", form, "--out", str(out)])
    return out


def table(folder: Path, name: str) -> list[Record]:
    return [record for record in records(folder) if isinstance(record, TABLES[name])]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def plain(value: Any) -> Any:
    """A value as JSON, written anew"""
    if isinstance(value, Absent):
        return {"absent": value.reason}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return list(value) if isinstance(value, tuple) else value


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    assert code == main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert "" == out
    assert err.startswith("formation: ") or "\nformation: " in err
    return err


# ---- JSON


def test_the_shipped_schema_is_the_one_that_the_columns_make() -> None:
    assert export_schema.schema() == SCHEMA, "python tools/export_schema.py writes it"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_document_holds_every_value_and_obeys_its_schema(folder: Path, tmp_path: Path) -> None:
    document = json.loads(exported(folder, tmp_path / "run.json", "json").read_bytes())
    VALIDATOR.validate(document)
    for name in TABLES:
        rows = [{c.name: plain(v) for c, v in record.items() if c.name != "run_id"} for record in table(folder, name)]
        assert rows == document[name]
    assert (ANCHOR.run_id, True, ANCHOR.document()) == (document["run_id"], document["complete"], document["anchor"])
    assert {"id": document["tokens"][0]["id"], "position": 2} == document["anchor_token"]
    assert LEDGER[0]["measured"]["shape"] == document["run"]["shape"]
    assert 8 == len(document["run"]["router_biases"][0]["biases"])


def test_the_schema_refuses_what_no_ledger_holds(folder: Path, tmp_path: Path) -> None:
    text = exported(folder, tmp_path / "run.json", "json").read_text()
    for path, value in (
        (("tokens", 0, "surprisal_nats"), None), (("tokens", 0, "mood"), 1), (("cells", 0, "gates"), {"absent": "lost"}),
        (("cells", 0, "residual_norm"), {"absent": "zero norm"}), (("experts", 0, "expert"), -2), (("complete",), "yes"),
    ):  # fmt: skip
        document = json.loads(text)
        *way, last = path
        where = document
        for step in way:
            where = where[step]
        where[last] = value
        assert not VALIDATOR.is_valid(document), path
    document = json.loads(text)
    del document["cells"][0]["residual_sha256"]
    assert not VALIDATOR.is_valid(document)


def test_without_out_the_document_goes_to_stdout(folder: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert 0 == main(["export", str(folder), "--format", "json"])
    document = capfdbinary.readouterr().out
    assert exported(folder, tmp_path / "run.json", "json").read_bytes() == document


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["export", "--schema"])
    assert json.loads(capsys.readouterr().out) == SCHEMA


# ---- CSV


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline=""), strict=True))


def of_cell(column: Any, text: str) -> Any:
    """A cell as JSON has the value"""
    if text == "":
        return None
    return text if column.dtype == "sha256" or column.name.endswith(("kind", "method")) else json.loads(text)


def test_comma_separated_files_hold_every_value(folder: Path, tmp_path: Path) -> None:
    out = exported(folder, tmp_path / "csv", "csv")
    assert ["cells.csv", "experts.csv", "tokens.csv"] == sorted(path.name for path in out.iterdir())
    for name, kind in TABLES.items():
        for row, record in zip(rows_of(out / f"{name}.csv"), table(folder, name), strict=True):
            for column in kind.columns:
                value = getattr(record, column.name)
                assert (None if isinstance(value, Absent) else plain(value)) == of_cell(column, row[column.name]), column.name
            why = {column: reason for reason, columns in json.loads(row["absent"]).items() for column in columns}
            assert why == {c.name: v.reason for c, v in record.items() if isinstance(v, Absent)}


def test_comma_separated_files_are_those_of_the_rfc(folder: Path, tmp_path: Path) -> None:
    data = (exported(folder, tmp_path / "csv", "csv") / "tokens.csv").read_bytes()
    assert data.endswith(b"\r\n")
    assert 4 == data.count(b"\n") == data.count(b"\r\n")


@pytest.mark.parametrize("text", [HOSTILE, "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", ";=1", '"', "'", " ", "", "\u2028", "0"])
def test_text_of_a_model_is_no_formula_and_comes_back_as_it_was(text: str, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "run.ofb", with_bytes(LEDGER, text.encode()))
    path = exported(folder, tmp_path / "csv", "csv") / "tokens.csv"
    row = rows_of(path)[0]
    assert text == json.loads(row["text"])
    assert text.encode() == base64.b64decode(json.loads(row["bytes"]))
    for value in row.values():
        assert not value.startswith(("=", "+", "@", "\t", "\r", "\n", "＝", "＋", "＠"))
        assert not value.startswith("-") or isinstance(json.loads(value), float)
    assert not set("\u202e\x1b") & set(path.read_text())


# ---- Parquet


def test_parquet_read_back_is_what_arrow_has(folder: Path, tmp_path: Path) -> None:
    out = exported(folder, tmp_path / "parquet", "parquet")
    made = Bundle(folder).to_arrow()
    assert {f"{name}.parquet" for name in made} == {path.name for path in out.iterdir()}
    for name, expected in made.items():
        found = pyarrow.parquet.read_table(out / f"{name}.parquet")
        assert found.equals(expected)
        assert expected.schema.metadata == found.schema.metadata
        for column in expected.schema:
            assert column.metadata.items() <= found.schema.field(column.name).metadata.items(), column.name


def test_parquet_is_written_by_row_groups(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "ROWS", 5)
    out = exported(folder, tmp_path / "parquet", "parquet")
    groups = pyarrow.parquet.ParquetFile(out / "experts.parquet").metadata
    assert [5, 5, 5, 5, 2] == [groups.row_group(n).num_rows for n in range(groups.num_row_groups)]
    assert pyarrow.parquet.read_table(out / "experts.parquet").equals(Bundle(folder).to_arrow()["experts"].combine_chunks())


# ---- what is written, and when


@pytest.mark.parametrize("form", FORMATS)
def test_an_incomplete_ledger_is_exported_with_its_mark(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_bundle(tmp_path / "run.ofb", LEDGER[:20], complete=False, tail=b"torn")
    out = exported(folder, tmp_path / "out", form)
    assert "INCOMPLETE" in capsys.readouterr().err
    if form == "json":
        document = json.loads(out.read_bytes())
        VALIDATOR.validate(document)
        assert document["complete"] is False
    else:
        assert {f"{name}.INCOMPLETE.{form}" for name in TABLES} == {path.name for path in out.iterdir()}


@pytest.mark.parametrize("form", FORMATS)
def test_a_damaged_ledger_leaves_nothing_behind(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_bundle(tmp_path / "run.ofb", LEDGER[:-1])
    assert "expected whole positions" in refused(capsys, 3, "export", folder, "--format", form, "--out", tmp_path / "out")
    assert ["run.ofb"] == names(tmp_path)


def test_a_damaged_ledger_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "whole positions" in refused(capfd, 3, "export", write_bundle(tmp_path / "run.ofb", LEDGER[:-1]), "--format", "json")


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_is_overwritten(form: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "empty", "link"):
        said = refused(capsys, 2, "export", folder, "--format", form, "--out", tmp_path / name)
        assert "expected a name that is free" in said
    assert "mine" == (tmp_path / "file").read_text()
    assert ["empty", "file", "link", "run.ofb"] == names(tmp_path)


def test_nothing_is_written_into_the_bundle(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = names(folder)
    assert "outside the bundle" in refused(capsys, 2, "export", folder, "--format", "csv", "--out", folder / "csv")
    assert before == names(folder)


def test_a_folder_that_is_not_there_is_an_error(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No such file" in refused(capsys, 3, "export", folder, "--format", "json", "--out", tmp_path / "none" / "x")


def test_a_full_disk_leaves_nothing_behind(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(bundle: Bundle, paths: Any) -> Any:
        paths["tokens"].write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(export.TABLE_WRITERS, "csv", full)
    with pytest.raises(EnvironmentFault, match="No space left"):
        export.export(Bundle(folder), "csv", tmp_path / "out")
    assert ["run.ofb"] == names(tmp_path)


def test_what_was_written_is_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert 0 == main(["export", str(folder), "--format", "csv", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert {"tokens": 3, "cells": 12, "experts": 22} == told["rows"]
    assert ("run-csv", True, ANCHOR.run_id) == (told["out"], told["complete"], told["run_id"])
    assert 0 == main(["export", str(folder), "--format", "parquet"])
    assert "22 experts  run-parquet/experts.parquet" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["--format", "csv"], ["BUNDLE"], ["BUNDLE", "--format", "json", "--json"]], ids=str)
def test_too_little_is_a_usage_error(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, 2, "export", *[str(folder) if a == "BUNDLE" else a for a in arguments])


@pytest.mark.parametrize("form", FORMATS)
def test_no_more_records_live_while_a_long_ledger_is_written(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A count of what lives, at every five hundredth record"""
    from formation.evidence import bundle

    living: list[int] = []

    def counted(folder: Path) -> Any:
        for number, record in enumerate(records(folder)):
            if number % 500 == 0:
                living.append(sum(isinstance(each, Record) for each in gc.get_objects()))
            yield record

    folder = write_bundle(tmp_path / "run.ofb", list(long_ledger(300)))
    monkeypatch.setattr(bundle.tables, "records", counted)
    export.export(Bundle(folder), form, tmp_path / "out")
    assert len(living) > 5
    assert max(living) - min(living) < 10


# ---- show


def shown(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert 0 == main(["show", *[str(a) for a in arguments]])
    return capsys.readouterr().out


def test_a_run_is_shown_with_its_anchor_token_files_and_tokens(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, folder)
    first = table(folder, "tokens")[0]
    for said in (ANCHOR.run_id, "complete", f"leads first to id {first.id} at position 2", "anchor.json", "ledger.jsonl", "no rows"):
        assert said in out
    assert 3 == out.count('"✓"')
    assert f"{first.surprisal_nats:.4f}" in out
    (folder / "rows").mkdir()
    (folder / "rows/00000000.safetensors").write_bytes(bytes(1000))
    out = shown(capsys, folder)
    assert "rows/ 1 kB" in out
    assert "no rows" not in out


def test_a_cell_is_shown_in_full_with_its_tags(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, folder, "--token", 1, "--layer", 1)
    cell = next(c for c in table(folder, "cells") if (c.position, c.layer) == (1, 1))
    for column, value in cell.items():
        if column.tag != "place" and column.length != "K" and column.name != "runners_up":
            assert column.name in out.replace(",", " ").split(), column.name
            assert not isinstance(value, str) or value in out
    for said in ("derived, from weights", "derived, from ledger", "measured", "shared", "runner-up", f"{cell.gates[0]:.6g}"):
        assert said in out


def test_a_token_is_shown_with_its_layers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, folder, "--token", 2)
    assert "absent, greedy: draw, low, high, kept, kept_mass" in out
    assert ["0", "1", "2"] == [line.split()[0] for line in out.splitlines()[-3:]]


def test_hostile_text_is_shown_without_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_bundle(tmp_path / "run.ofb", with_bytes(LEDGER, HOSTILE.encode()))
    for arguments in ([], ["--token", 1], ["--token", 1, "--layer", 1]):
        out = shown(capsys, folder, *arguments)
        assert not set("\u202e\x1b\r") & set(out)
        assert "=cmd|' /C calc'!A0" in out


def test_what_is_shown_is_shown_as_json_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = json.loads(shown(capsys, folder, "--json"))
    assert (3, {"anchor.json", "ledger.jsonl"}) == (len(run["tokens"]), set(run["files"]))
    cell = json.loads(shown(capsys, folder, "--token", 1, "--layer", 2, "--json"))
    assert (1, [2], 3) == (cell["token"]["token"], [c["layer"] for c in cell["cells"]], len(cell["experts"]))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(["--token", "4"], "token 1 to 3, got 4"), (["--token", "0"], "got 0"), (["--token", "1", "--layer", "3"], "layer 0 to 2, got 3")],
)
def test_a_token_or_layer_that_is_not_there_is_refused(arguments: list[str], sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sentence in refused(capsys, 2, "show", folder, *arguments)


def test_an_incomplete_ledger_is_shown_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["show", str(write_bundle(tmp_path / "run.ofb", LEDGER[:6], complete=False))])
    out, err = capsys.readouterr()
    assert "INCOMPLETE" in out
    assert "INCOMPLETE" in err
    assert "no token yet" in out
