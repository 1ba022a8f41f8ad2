"""`record --anchor`: a run from someone else's frozen anchor, which reproduces their ledger or says where it departs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from formation.cli.main import main
from formation.ledger import canonical, reader
from formation.ledger.progress import Watch
from formation.recording import Recording
from formation.run.order import Order
from formation.run.sample import Sample
from recorded_runs import IDS, contents, cut, ledger, run
from small_models import small_checkpoint

ORDER = Order(IDS, 3, Sample(temperature=1.1, top_p=0.9, seed=5), stop=(257,), prompt_text="given", nonce="chosen")
HERE = ["--parity", "none", "--memory", "24MiB", "--threads", "1"]


@pytest.fixture(scope="module")
def theirs(k25_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return run(k25_folder, tmp_path_factory.mktemp("theirs") / "theirs.ofb", ORDER, Watch("standard", "standard", "all"), parity="none")


@pytest.fixture
def bundle(theirs: Recording, tmp_path: Path) -> Path:
    """A copy to change"""
    return Path(shutil.copytree(theirs.folder, tmp_path / "copy.ofb"))


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    assert code == main(["record", *(str(a) for a in arguments)])
    out, err = capsys.readouterr()
    assert "same ledger root" not in out and "Traceback" not in err
    return err


def test_a_bundle_is_reproduced_byte_for_byte(capsys: pytest.CaptureFixture[str], k25_folder: Path, theirs: Recording, tmp_path: Path) -> None:
    out = tmp_path / "ours.ofb"
    assert 0 == main(["record", str(k25_folder), "--anchor", str(theirs.folder), "--out", str(out), *HERE])
    assert f"reproduced     same ledger root as {theirs.folder}" in capsys.readouterr().out
    assert contents(theirs.folder) == contents(out)


def test_an_anchor_alone_gives_the_same_run(capsys: pytest.CaptureFixture[str], k25_folder: Path, theirs: Recording, tmp_path: Path) -> None:
    out = tmp_path / "ours.ofb"
    anchor = theirs.folder / "anchor.json"
    assert 0 == main(["record", str(k25_folder), "--anchor", str(anchor), "--capture", "minimal", "--rows", "none", "--out", str(out), *HERE])
    told = capsys.readouterr().out
    assert theirs.run_id[:16] in told and "reproduced" not in told
    assert [o["measured"]["id"] for o in ledger(out) if o["slot"] == "token"] == list(theirs.ids)
    assert not (out / "rows").exists() and not (out / "router").exists()


def test_it_is_said_in_json_too(capsys: pytest.CaptureFixture[str], k25_folder: Path, theirs: Recording, tmp_path: Path) -> None:
    assert 0 == main(["record", str(k25_folder), "--anchor", str(theirs.folder), "--out", str(tmp_path / "o.ofb"), "--json", *HERE])
    told = json.loads(capsys.readouterr().out)
    assert {"bundle": str(theirs.folder), "complete": True, "lines": theirs.commit.lines, "same": True, "departs": None} == told["reproduced"]
    assert theirs.commit.root.hex() == told["root"]


def change(bundle: Path, slot: str, position: int, alter: Callable[[dict], None]) -> None:
    lines = []
    for line in ledger(bundle):
        if (line["slot"], line["position"]) == (slot, position):
            alter(line)
        lines.append(canonical.encode(line) + b"\n")
    (bundle / reader.NAME).write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    ("slot", "position", "tag", "field", "value"),
    [("layer 2", 5, "derived", "dla_mlp", 0.5), ("layer 2", 5, "measured", "residual_norm", 1), ("token", 4, "measured", "id", 3)],
)
def test_a_ledger_that_departs_is_told_by_step_slot_and_field(
    capsys: pytest.CaptureFixture[str], k25_folder: Path, bundle: Path, tmp_path: Path, slot: str, position: int, tag: str, field: str, value: float
) -> None:
    change(bundle, slot, position, lambda line: line[tag].update({field: value}))
    err = refused(capsys, 1, k25_folder, "--anchor", bundle, "--out", tmp_path / "o.ofb", *HERE)
    assert f"departs in {slot} at position {position}, {field}: expected {value}, got " in err


def test_a_line_too_many_is_told(capsys: pytest.CaptureFixture[str], k25_folder: Path, bundle: Path, tmp_path: Path) -> None:
    with (bundle / reader.NAME).open("ab") as file:
        file.write(b'{"slot":"token"}\n')
    err = refused(capsys, 1, k25_folder, "--anchor", bundle, "--out", tmp_path / "o.ofb", *HERE)
    assert 'expected "token" at position null, got the end of the ledger' in err


def test_an_incomplete_bundle_is_reproduced_as_far_as_it_goes(
    capsys: pytest.CaptureFixture[str], k25_folder: Path, bundle: Path, tmp_path: Path
) -> None:
    data = (bundle / reader.NAME).read_bytes()
    (bundle / reader.NAME).unlink()
    (bundle / reader.PART_NAME).write_bytes(data[: len(data) // 2])
    assert 0 == main(["record", str(k25_folder), "--anchor", str(bundle), "--out", str(tmp_path / "o.ofb"), *HERE])
    told = capsys.readouterr().out
    lines = data[: len(data) // 2].count(b"\n")
    assert f"the same {lines} lines, all that its INCOMPLETE ledger has" in told and "same ledger root" not in told


# ---- refused before anything runs


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--prompt", "abc"], "prompt: expected none with --anchor"),
        (["--ids", "5,6,7,8,9"], "prompt: expected none with --anchor"),
        (["--system", "abc"], "prompt: expected none with --anchor"),
        (["--tokens", "4"], "--tokens: expected 3"),
        (["--temperature", "2"], "the choice of tokens: expected"),
        (["--nonce", "mine"], "--nonce: expected chosen"),
        (["--capture", "full"], "--capture: expected standard"),
        (["--rows", "none"], "--rows: expected all"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_options_that_contradict_the_anchor(
    capsys: pytest.CaptureFixture[str], k25_folder: Path, theirs: Recording, tmp_path: Path, options: list[str], named: str
) -> None:
    assert named in refused(capsys, 2, k25_folder, "--anchor", theirs.folder, "--out", tmp_path / "o.ofb", *options)
    assert not (tmp_path / "o.ofb").exists()


def test_another_checkpoint_is_refused_and_its_files_are_named(
    capsys: pytest.CaptureFixture[str], k25_folder: Path, theirs: Recording, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(k25_folder, tmp_path / "other"))
    (other / "chat_template.jinja").write_text("{{ messages }}")
    (other / "generation_config.json").write_text("{}")
    err = refused(capsys, 1, other, "--anchor", theirs.folder, "--out", tmp_path / "o.ofb")
    assert "chat_template.jinja: expected size" in err and "generation_config.json: expected no file, got one" in err
    err = refused(capsys, 1, other, "--anchor", theirs.folder / "anchor.json", "--out", tmp_path / "o.ofb")
    assert "checkpoint: not that of the anchor: expected files with digest" in err
    assert not (tmp_path / "o.ofb").exists()


def test_the_same_names_over_other_headers_are_another_checkpoint(capsys: pytest.CaptureFixture[str], theirs: Recording, tmp_path: Path) -> None:
    other = small_checkpoint(tmp_path / "other", dtype="F32")
    assert ".safetensors: expected size" in refused(capsys, 1, other, "--anchor", theirs.folder, "--out", tmp_path / "o.ofb")


def test_another_contract_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, k25_folder: Path, theirs: Recording, tmp_path: Path
) -> None:
    from formation.kernels import golden

    monkeypatch.setattr(golden, "CONTRACT_DIGEST", "0" * 64)
    err = refused(capsys, 1, k25_folder, "--anchor", theirs.folder, "--out", tmp_path / "o.ofb")
    assert "numerics contract: expected f32x16/1 with digest" in err and not (tmp_path / "o.ofb").exists()


def test_a_ledger_of_another_run_is_refused(capsys: pytest.CaptureFixture[str], k25_folder: Path, bundle: Path, tmp_path: Path) -> None:
    anchor = json.loads((bundle / "anchor.json").read_bytes()) | {"nonce": "other"}
    (bundle / "anchor.json").write_bytes(canonical.encode(anchor))
    assert "which the anchor names" in refused(capsys, 1, k25_folder, "--anchor", bundle, "--out", tmp_path / "o.ofb")


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[" * 99, b'{"kind":"formation-anchor/1"}'])
def test_a_file_that_is_no_anchor_is_refused(
    capsys: pytest.CaptureFixture[str], k25_folder: Path, tmp_path: Path, data: bytes
) -> None:
    (tmp_path / "anchor.json").write_bytes(data)
    assert "anchor.json: " in refused(capsys, 1, k25_folder, "--anchor", tmp_path / "anchor.json", "--out", tmp_path / "o.ofb")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"stop": {"tokens": 0, "ids": []}}, "expected at least one token"),
        ({"prompt": {"ids": [1 << 40], "text": None}}, "expected ids from 0 to 511"),
    ],
    ids=["no token", "unknown id"],
)
def test_an_anchor_of_a_run_that_cannot_be_recorded_is_refused(
    capsys: pytest.CaptureFixture[str], k25_folder: Path, theirs: Recording, tmp_path: Path, change: dict, named: str
) -> None:
    anchor = json.loads((theirs.folder / "anchor.json").read_bytes()) | change
    (tmp_path / "anchor.json").write_bytes(canonical.encode(anchor))
    assert named in refused(capsys, 2, k25_folder, "--anchor", tmp_path / "anchor.json", "--out", tmp_path / "o.ofb", *HERE)


def test_an_anchor_of_given_tokens_without_their_places_is_no_anchor(capsys, k25_folder: Path, theirs: Recording, tmp_path: Path) -> None:
    anchor = json.loads((theirs.folder / "anchor.json").read_bytes()) | {"sampler": {"method": "forced"}}
    (tmp_path / "anchor.json").write_bytes(canonical.encode(anchor))
    said = refused(capsys, 1, k25_folder, "--anchor", tmp_path / "anchor.json", "--out", tmp_path / "o.ofb", *HERE)
    assert "anchor.sampler: expected the fields method, scored, got ['method']" in said


def test_no_such_anchor(capsys: pytest.CaptureFixture[str], k25_folder: Path, tmp_path: Path) -> None:
    assert "expected a readable file" in refused(capsys, 3, k25_folder, "--anchor", tmp_path / "none", "--out", tmp_path / "o.ofb")


def test_a_reproduction_that_was_cut_off_goes_on_and_is_compared(
    capsys: pytest.CaptureFixture[str], k25_folder: Path, theirs: Recording, tmp_path: Path
) -> None:
    out = tmp_path / "ours.ofb"
    cut(k25_folder, out, after=2, order=ORDER, watch=Watch("standard", "standard", "all"))
    assert 0 == main(["record", str(k25_folder), "--resume", "--anchor", str(theirs.folder), "--out", str(out), *HERE])
    assert "reproduced     same ledger root" in capsys.readouterr().out
    cut(k25_folder, tmp_path / "other.ofb", after=1)
    assert "as the recording in" in refused(capsys, 2, k25_folder, "--resume", "--anchor", theirs.folder, "--out", tmp_path / "other.ofb")
