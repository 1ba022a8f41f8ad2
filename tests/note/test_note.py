"""The technical note: made from a verified bundle alone, the same bytes from the same bundle, hostile text inert, every reference a real one."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pypdf
import pytest
from tests.evidence import vectors, whole_bundles
from tests.evidence.whole_bundles import SAMPLE, Kind, edit_lines, later, make, reseal

import formation
from formation.cli.main import build_parser, main
from formation.errors import EvidenceError
from formation.evidence import certification, envelope
from formation.evidence.bundle import Bundle
from formation.ledger import fields, reader
from formation.note import document, make_note
from formation.note.material import gather
from formation.note.words import number

HOSTILE = '#panic("x") *b* _i_ $x$ @ref <tag> [c] `q` \\ // /* #import "@preview/a:0" </svg><script>\u202e\x1b[2J\u0301'
REFERENCE = re.compile(r"(-?\d+)/(embed|layer \d+|lm_head|sampler|token|run)/(\w+)(?:\[(\d+)\])?")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("note") / "run.ofb")


def pages(data: bytes) -> list[str]:
    """Their text; what a line's end separated stands together"""
    return [page.extract_text().replace("\u200b", "") for page in pypdf.PdfReader(io.BytesIO(data)).pages]


def words(data: bytes) -> str:
    return re.sub(r"\s+", " ", " ".join(pages(data)))


def dense(data: bytes) -> str:
    return re.sub(r"\s+", "", " ".join(pages(data)))


def root_of(folder: Path) -> str:
    return reader.survey(folder).readable.root.hex()


# ---- the same bundle, the same bytes


def test_the_same_bundle_gives_the_same_bytes_wherever_it_lies(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_note(bundle)
    other = tmp_path / "another name.ofb"
    shutil.copytree(bundle, other)
    (other / "views").mkdir(exist_ok=True)
    (other / "views" / "note.pdf").write_bytes(b"never read")
    for name, value in (("TZ", "Asia/Tokyo"), ("SOURCE_DATE_EPOCH", "1"), ("LANG", "de_DE.UTF-8"), ("XDG_CONFIG_HOME", str(tmp_path))):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    assert data == make_note(other)
    command = [sys.executable, "-c", f"import sys; from formation.note import make_note; sys.stdout.buffer.write(make_note({str(bundle)!r}))"]
    source = {**os.environ, "PYTHONPATH": str(Path(formation.__file__).parents[1])}  # it runs elsewhere
    done = subprocess.run(command, capture_output=True, check=True, env=source)
    assert data == done.stdout


def test_a_note_has_no_date_and_only_fonts_that_it_carries(bundle: Path) -> None:
    found = pypdf.PdfReader(io.BytesIO(make_note(bundle)))
    assert not {"/CreationDate", "/ModDate"} & set(found.metadata or {})
    fonts = {str(font.get_object()["/BaseFont"]) for page in found.pages for font in page["/Resources"]["/Font"].values()}
    assert fonts
    assert all(re.fullmatch(r"/[A-Z]{6}\+(LibertinusSerif|DejaVuSansMono)[\w-]*", font) for font in fonts), fonts
    catalog = str(found.trailer["/Root"])
    assert not any(name in catalog for name in ("/JavaScript", "/OpenAction", "/EmbeddedFiles", "/AA"))


def test_another_ledger_gives_another_note(bundle: Path, tmp_path: Path) -> None:
    assert make_note(bundle) != make_note(make(tmp_path / "other.ofb", Kind(prompt=(3, 5, 4))))


# ---- what stands in it


@pytest.mark.parametrize(
    "kind",
    [Kind(sampler=SAMPLE), Kind(steps="minimal", rows="none"), Kind(steps="full", rows="none", parity="full"), Kind(tokens=40, rows="none")],
    ids=["sampled", "minimal", "full", "long"],
)
def test_every_page_cites_root_and_run(tmp_path: Path, kind: Kind) -> None:
    folder = make(tmp_path / "run.ofb", kind)
    found = pages(make_note(folder))
    assert 2 <= len(found) <= 6
    for n, page in enumerate(found, 1):
        assert root_of(folder) in page
        assert Bundle(folder).run_id in page
        assert f"page {n} of {len(found)}" in page


def test_a_model_of_many_layers_fits_on_six_pages(tmp_path: Path) -> None:
    shape = {"layers": 61, "dense_layers": 1, "hidden": 16, "heads": 2, "experts": 32, "chosen": 4, "vocabulary": 40}
    router = replace(whole_bundles.ROUTER, experts=32, chosen=4)
    folder = make(tmp_path / "run.ofb", Kind(rows="none", tokens=3), shape=shape, router=router)
    assert 2 <= len(pages(make_note(folder))) <= 6


def test_it_says_what_the_ledger_says(bundle: Path) -> None:
    told, opened = words(make_note(bundle)), Bundle(bundle)
    first = next(opened.tokens)
    anchor = opened.anchor
    for said in (
        f"id {first.id} at position {first.position}, the first that the anchor leads to", f"{first.step}/token/id", anchor.contract,
        anchor.contract_digest, anchor.checkpoint_sha256, anchor.tensor_table_root, vectors.key().public.fingerprint, vectors.key().public.text,
        number(first.chosen_logit, 9), number(first.dla_logit, 9), number(first.lm_head_rounding, 3), number(first.surprisal_bits, 4),
        "only an audit proves the computation", "audit not claimed: none is attached", "certification not claimed: none is attached",
        "INTEGRITY, LEDGER, PARITY passed; SIGNER, WEIGHTS, REPLAY, CERTIFIED, TIME not claimed",
        "formation audit run.ofb --checkpoint FOLDER --full",
    ):  # fmt: skip
        assert said in told, said


def test_every_reference_names_a_value_of_the_ledger_and_gives_it(bundle: Path) -> None:
    found = document.document(gather(bundle, 2))
    lines = {(line["position"], line["slot"]): line["measured"] | line["derived"] for line in map(json.loads, reader.lines(bundle))}
    known = {(field.slot, field.name) for field in fields.FIELDS}
    spelled = [match.groups() for match in REFERENCE.finditer(json.dumps(found))]
    assert 12 < len(spelled)
    for position, slot, field, _ in spelled:
        assert (slot.partition(" ")[0], field) in known
        assert field in lines[int(position), slot]
    tables = [block for section in found["sections"] for block in section["blocks"] if block["kind"] == "table"]
    rows = [row for table in tables if table["columns"][0]["name"] == "largest direct contributions" for row in table["rows"]]
    assert 8 == len(rows)
    for _, reference, shown in rows:
        position, slot, field, place = REFERENCE.fullmatch(reference["mono"]).groups()  # type: ignore[union-attr]
        value = lines[int(position), slot][field]
        assert number(value if place is None else value[int(place)]) == shown


def test_column_heads_name_fields(bundle: Path) -> None:
    found = document.document(gather(bundle, 1))
    heads = [c["reference"].replace("\n", "") for s in found["sections"] for b in s["blocks"] if b["kind"] == "table" for c in b["columns"]]
    named = [head.removeprefix("exp ") for head in heads if "/" in head]
    assert 7 == len(named)
    assert {tuple(head.split("/")) for head in named} <= {(field.slot, field.name) for field in fields.FIELDS}


def test_what_was_not_captured_is_said_and_not_drawn(tmp_path: Path) -> None:
    told = words(make_note(make(tmp_path / "run.ofb", Kind(steps="minimal", rows="none"))))
    assert "captured at level minimal" in told
    assert "Experts." in told
    assert "logit lens" not in told


def test_without_parity_it_is_not_claimed(tmp_path: Path) -> None:
    told = words(make_note(make(tmp_path / "run.ofb", Kind(parity="none", rows="none"))))
    assert "parity not claimed: no run without capture was made" in told
    assert "INTEGRITY, LEDGER passed" in told


def test_audit_and_certification_are_shown_with_their_signers(tmp_path: Path) -> None:
    folder = make(tmp_path / "run.ofb", Kind(rows="none"))
    later(folder, "audit.json", envelope.AUDIT)
    later(folder, "certification.json", envelope.CERTIFICATION, secret=b"\7" * 32, result=dict(certification.EXAMPLE))
    told = words(make_note(folder))
    assert "audit passed, signed by the key that sealed the bundle" in told
    assert "1 of 15 cells, head and sampler of 3 tokens, 40 values; 14 cells not executed" in told
    assert "certification passed, signed by another key" in told
    assert "1/1 attacks refused by the check expected" in told


def test_a_result_whose_counts_do_not_fit_gives_no_note(tmp_path: Path) -> None:
    folder = make(tmp_path / "run.ofb", Kind(rows="none"))
    later(folder, "certification.json", envelope.CERTIFICATION, result={"attacks": HOSTILE})
    with pytest.raises(EvidenceError, match="got V36 certification"):
        make_note(folder)


# ---- hostile text


def spelled(line: whole_bundles.Line, text: str) -> whole_bundles.Line:
    """What changes in a line, so that every token spells the same"""
    return {"measured": line["measured"] | {"bytes": text}} if line["slot"] == "token" else {}


def test_what_a_model_wrote_is_never_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    anchor_of = whole_bundles.anchor_of
    monkeypatch.setattr(whole_bundles, "anchor_of", lambda kind: replace(anchor_of(kind), prompt_text=HOSTILE))
    folder = make(tmp_path / "run.ofb", Kind(rows="none"))

    edit_lines(folder, lambda lines: [line | spelled(line, base64.b64encode(HOSTILE[-24:].encode()).decode()) for line in lines])
    reseal(folder)
    told = dense(make_note(folder))
    escaped = HOSTILE.replace("\\", "\\\\").replace('"', '\\"').replace("\u202e", "\\u202e").replace("\x1b", "\\u001b").replace("\u0301", "\\u0301")
    assert re.sub(r"\s+", "", escaped) in told
    assert 3 <= told.count("<script>\\u202e")
    assert not {"\u202e", "\x1b", "\u0301"} & set(told)


def test_bytes_that_are_no_text_are_shown_in_hexadecimal(tmp_path: Path) -> None:
    folder = make(tmp_path / "run.ofb", Kind(rows="none"))
    edit_lines(folder, lambda lines: [line | spelled(line, "//4=") for line in lines])
    reseal(folder)
    assert "0xfffe" in words(make_note(folder))


# ---- no note


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    assert code == main(["note", *map(str, arguments)])
    captured = capsys.readouterr()
    assert "" == captured.out
    return captured.err


def test_a_bundle_that_fails_a_check_gives_no_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "run.ofb", Kind(rows="none"))
    ledger = folder / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b'"rank_low":1', b'"rank_low":2', 1))
    assert "got V10 root" in refused(capsys, 1, folder, "--out", tmp_path / "note.pdf")
    assert not (tmp_path / "note.pdf").exists()


def test_an_unsealed_or_incomplete_bundle_gives_no_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "run.ofb", Kind(rows="none"))
    (folder / "attestation.json").unlink()
    assert "it was never sealed" in refused(capsys, 1, folder, "--out", tmp_path / "note.pdf")
    (folder / "ledger.jsonl").rename(folder / "ledger.jsonl.part")
    assert "V2 complete" in refused(capsys, 1, folder, "--out", tmp_path / "note.pdf")
    assert not (tmp_path / "note.pdf").exists()


def test_a_failed_audit_gives_no_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "run.ofb", Kind(rows="none"))
    later(folder, "audit.json", envelope.AUDIT, outcome="failed")
    assert "got V35 audit" in refused(capsys, 1, folder, "--out", tmp_path / "note.pdf")


def test_wrong_inputs_are_named(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected token 1 to 3, got 4" in refused(capsys, 2, bundle, "--token", 4, "--out", tmp_path / "note.pdf")
    assert "expected token 1 to 3, got 0" in refused(capsys, 2, bundle, "--token", 0, "--out", tmp_path / "note.pdf")
    assert "got nothing" in refused(capsys, 3, tmp_path / "nothing.ofb")
    assert "no/note.pdf, got No such file or directory" in refused(capsys, 3, bundle, "--out", tmp_path / "no" / "note.pdf")
    assert [] == list(tmp_path.iterdir())


def test_without_typst_the_extra_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)
    told = refused(capsys, 3, bundle)
    assert "expected the package typst, got none" in told
    assert "pip install 'formation-ledger[note]'" in told


# ---- the command


def test_the_command_writes_the_note_and_its_digest(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "note.pdf"
    assert 0 == main(["note", str(bundle), "--out", str(out), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert make_note(bundle) == out.read_bytes()
    assert {"note": str(out), "size_bytes": out.stat().st_size} == {name: told[name] for name in ("note", "size_bytes")}
    assert 0 == main(["note", str(bundle), "--out", str(out), "--token", "2"])
    assert make_note(bundle, token=2) == out.read_bytes() != make_note(bundle)
    assert [out] == list(tmp_path.iterdir())


def test_a_note_needs_no_numpy_and_no_weights() -> None:
    code = (
        "import sys, formation.note.document, formation.note.sections; "
        "assert not {'numpy', 'formation.kernels', 'formation.model', 'formation.weights'} & set(sys.modules)"
    )
    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode


def test_the_commands_of_the_page_are_commands() -> None:
    page = (Path(__file__).parents[2] / "docs" / "note.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    formation (.*?)\s*(?:#.*)?$", page, re.M)
    assert 2 == len(commands)
    assert ["note", "note"] == [build_parser().parse_args(command.split()).command for command in commands]


def test_a_runner_up_that_is_not_known_is_said(tmp_path: Path) -> None:
    folder = make(tmp_path / "run.ofb", Kind(rows="none"))
    absent = {"absent": fields.NO_RUNNER_UP}

    def forget(lines: list[whole_bundles.Line]) -> None:
        for line in lines:
            if line["kind"] != "prompt":
                known = [name for name, value in line["derived"].items() if "runner_up" in name and not isinstance(value, dict)]
                line["derived"] |= dict.fromkeys(known, absent)

    edit_lines(folder, forget)
    reseal(folder)
    assert f"The runner-up is absent: {fields.NO_RUNNER_UP}." in words(make_note(folder))
