"""Verdicts as a whole, checks V31 to V37, receipts and digests."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.evidence import declared, test_verify_integrity, test_verify_ledger, vectors, whole_bundles
from tests.evidence.broken_bundles import refused, report_of, states
from tests.evidence.whole_bundles import SAMPLE, Kind, edit_document, later, make, reseal
from tools import check_list

from formation.cli.main import main
from formation.evidence import envelope, note, receipt
from formation.evidence.checks import CHECKS, LEVELS, RETIRED
from formation.evidence.report import HONESTY, NEITHER

pytestmark = pytest.mark.usefixtures("no_keys_of_the_user")


# ---- what holds


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(Kind(), id="greedy, all rows"),
        pytest.param(Kind(sampler=SAMPLE, parity="full", rows="boundaries"), id="sampled, boundaries, full parity"),
        pytest.param(Kind(rows="none", parity="none", steps="minimal"), id="no rows, no parity, minimal"),
        pytest.param(Kind(prompt=(4,) * 70, tokens=4, steps="full"), id="more than one file of rows, full"),
        pytest.param(Kind(prompt=(4,), tokens=1, rows="none"), id="one position"),
    ],
)
def test_a_bundle_that_holds_is_verified_and_says_what_that_means(kind: Kind, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "run.ofb", kind)
    assert 0 == main(["verify", str(folder), "--signer", vectors.key().public.fingerprint, "--checks"])
    out = capsys.readouterr().out
    assert out.startswith("verified")
    assert HONESTY in out
    report = report_of(folder)
    expected = dict.fromkeys(LEVELS, "not claimed") | dict.fromkeys(("INTEGRITY", "SIGNER", "LEDGER"), "passed")
    assert expected | ({"PARITY": "passed"} if kind.parity != "none" else {}) == report.levels()
    assert {"passed", "not claimed"} == set(states(report).values())


def test_the_command_says_every_level_and_each_check_on_demand(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["verify", str(bundle), "--signer", vectors.key().public.text, "--checks"])
    lines = capsys.readouterr().out.splitlines()
    assert list(LEVELS) == [line.split()[0] for line in lines if line.split()[0] in LEVELS]
    assert [check.id for check in CHECKS] == [word for line in lines for word in line.split()[:3] if word in {check.id for check in CHECKS}]


def test_a_check_that_needs_a_failed_one_is_not_reached_and_says_so(bundle: Path) -> None:
    (bundle / "anchor.json").write_bytes(b"{}")
    report = report_of(bundle)
    found = {outcome.check.id: outcome.finding for outcome in report.outcomes}
    assert "failed" == found["V3"].state
    assert ("not reached", "needs V3 anchor") == (found["V9"].state, found["V9"].checked)
    assert "passed" == found["V7"].state
    assert "not claimed" == report.levels()["LEDGER"]
    assert not report.verified


def test_checks_are_numbered_in_order_need_only_earlier_ones_and_take_no_retired_number() -> None:
    numbers = [check.number for check in CHECKS]
    assert sorted(numbers) == numbers and {18} == RETIRED.keys()
    assert list(range(1, numbers[-1] + 1)) == sorted([*numbers, *RETIRED])
    assert all(need < check.number for check in CHECKS for need in check.needs)
    assert len(CHECKS) == len({check.name for check in CHECKS})
    assert set(LEVELS) == {check.level for check in CHECKS}


def test_every_check_has_a_test_that_breaks_it() -> None:
    names = [*globals(), *dir(test_verify_integrity), *dir(test_verify_ledger)]
    numbers = [found[1] for name in names if (found := re.match("test_v([0-9]{2})_", name))]
    assert {check.number for check in CHECKS} == set(map(int, numbers))


# ---- PARITY, WEIGHTS


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda value: value.update(logits_compared=2), id="fewer logits"),
        pytest.param(lambda value: value.update(cache_entries_compared=0), id="no cache entry"),
        pytest.param(lambda value: value.update(method="trust me"), id="another method"),
        pytest.param(lambda value: value.update(logits_compared=3.5), id="no count"),
        pytest.param(lambda value: value.pop("method"), id="no method"),
        pytest.param(lambda value: value.update(parity="failed"), id="failed"),
    ],
)
def test_v31_a_parity_that_did_not_compare_everything_is_refused(change: Any, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_document(bundle, "parity.json", change)
    reseal(bundle)
    refused(capsys, bundle, "V31")


def digests(*names: str, root: str = whole_bundles.ROOT) -> dict[str, Any]:
    return {"kind": "formation-tensor-digests/1", "tensor_table_root": root, "tensors": [{"name": n, "sha256": "ab" * 32} for n in names]}


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(digests("a.weight", "z.weight"), id="a tensor that is not in the table"),
        pytest.param(digests("b.weight", "a.weight"), id="another order"),
        pytest.param(digests("a.weight", root="00" * 32), id="of another table"),
    ],
)
def test_v32_digests_of_other_tensors_are_refused(value: Any, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole_bundles.write(bundle, "tensor-digests.json", value)
    reseal(bundle)
    refused(capsys, bundle, "V32")


@pytest.mark.parametrize(("names", "said"), [(("a.weight",), "tensors 1 of 3"), (whole_bundles.NAMES, "all")])
def test_weights_says_how_many_tensors_are_named(names: tuple[str, ...], said: str, bundle: Path) -> None:
    whole_bundles.write(bundle, "tensor-digests.json", digests(*names))
    reseal(bundle, weights=said)
    report = report_of(bundle)
    assert ("passed", said) == (report.levels()["WEIGHTS"], report.notes["WEIGHTS"])


# ---- declarations, predicate


@pytest.mark.parametrize("name", declared.WRONG)
def test_v33_declarations_in_another_form_are_refused(name: str, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, change = declared.WRONG[name]
    (bundle / file).write_bytes(change((bundle / file).read_bytes()))
    reseal(bundle)
    refused(capsys, bundle, "V33")


@pytest.mark.parametrize("name", declared.RIGHT)
def test_machines_that_went_on_are_told(name: str, bundle: Path) -> None:
    from_lines = declared.RIGHT[name]
    edit_document(bundle, "host.json", declared.went_on(*from_lines))
    reseal(bundle)
    report = report_of(bundle)
    assert () == report.failed
    told = next(outcome.finding.checked for outcome in report.outcomes if outcome.check.name == "declarations")
    assert f"machines of host.json: {1 + len(from_lines)}; lines of io.jsonl, one for each step: 3" == told


@pytest.mark.parametrize(
    "lie",
    [
        {"parity": "not claimed"},
        {"weights": "all"},
        {"run_id": "ab" * 32},
        {"contract": {"name": "f32x16/1", "digest": "00" * 32}},
        {"checkpoint": {"sha256": "00" * 32, "tensor_table_root": whole_bundles.ROOT}},
        {"tree_head": {}},
        {"formation": None},
        {"and": "more"},
    ],
    ids=lambda lie: next(iter(lie)),
)
def test_v34_a_statement_that_says_other_than_the_files_is_refused(lie: Any, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reseal(bundle, **lie)
    refused(capsys, bundle, "V34")


# ---- REPLAY, CERTIFIED, TIME

LATER = [("V35", "audit.json", envelope.AUDIT, "REPLAY"), ("V36", "certification.json", envelope.CERTIFICATION, "CERTIFIED")]


LIES = [
    pytest.param({"outcome": "failed"}, id="failed"),
    pytest.param({"outcome": "splendid"}, id="no outcome"),
    pytest.param({"tree_head": {"origin": "x", "size": 1, "root": "00" * 32}}, id="another tree head"),
    pytest.param({"more": 1}, id="another field"),
    pytest.param({"result": None}, id="no result"),
]


@pytest.mark.parametrize("lie", LIES)
def test_v35_an_audit_of_something_else_is_refused(lie: Any, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later(bundle, "audit.json", envelope.AUDIT, **lie)
    refused(capsys, bundle, "V35")


@pytest.mark.parametrize("lie", LIES)
def test_v36_a_certification_of_something_else_is_refused(lie: Any, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later(bundle, "certification.json", envelope.CERTIFICATION, **lie)
    refused(capsys, bundle, "V36")


def test_v35_an_audit_of_the_bundle_as_it_was_before_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later(bundle, "audit.json", envelope.AUDIT)
    data = (bundle / "audit.json").read_bytes()
    edit_document(bundle, "host.json", lambda host: host.update(cores=4))
    reseal(bundle)
    (bundle / "audit.json").write_bytes(data)
    refused(capsys, bundle, "V35")


def test_v36_a_certification_in_place_of_an_audit_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later(bundle, "certification.json", envelope.AUDIT)
    refused(capsys, bundle, "V36")


@pytest.mark.parametrize(("check", "name", "kind", "level"), LATER)
def test_a_later_verdict_counts_only_if_its_signer_is_known(check: str, name: str, kind: str, level: str, bundle: Path) -> None:
    later(bundle, name, kind)
    assert "passed" == report_of(bundle).levels()[level]
    later(bundle, name, kind, secret=vectors.OTHER_SECRET)
    report = report_of(bundle)
    assert ("not claimed", 0) == (report.levels()[level], report.exit_code)


@pytest.mark.parametrize("held", [None, "another", "Tuesday\u200b"])
def test_v37_a_run_without_the_nonce_asked_for_is_refused(held: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "run.ofb", Kind(rows="none", nonce=held))
    refused(capsys, folder, "V37", "--signer", vectors.key().public.text, "--nonce", "Tuesday")


def test_a_run_with_the_nonce_asked_for_is_no_older_than_it(tmp_path: Path) -> None:
    folder = make(tmp_path / "run.ofb", Kind(rows="none", nonce="Tuesday"))
    assert "passed" == report_of(folder, nonce="Tuesday").levels()["TIME"]


# ---- the list in the spec


def test_the_list_in_the_spec_is_that_of_the_code() -> None:
    page = check_list.PAGE.read_text(encoding="utf-8")
    assert page == check_list.page_with_list(page)


def test_a_check_that_is_not_in_the_spec_is_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    page = check_list.PAGE.read_text(encoding="utf-8")
    monkeypatch.setattr(check_list, "CHECKS", CHECKS[:-1])
    assert page != check_list.page_with_list(page)


# ---- receipts and digests


@pytest.fixture
def receipt_file(bundle: Path, tmp_path: Path) -> Path:
    path = tmp_path / "line.tlog-proof"
    path.write_bytes(receipt.make(bundle, 5, vectors.key().public))
    return path


def test_a_receipt_is_known_by_its_content_and_verified(receipt_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["verify", str(receipt_file), "--signer", vectors.key().public.text, "--json"])
    verdict = json.loads(capsys.readouterr().out)
    assert ("verified", 5, "passed") == (verdict["verdict"], verdict["index"], verdict["levels"]["SIGNER"])
    assert NEITHER in verdict["proves"]


def test_a_receipt_by_an_unknown_signer_is_refused_unless_that_is_allowed(receipt_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == main(["verify", str(receipt_file)])
    said = "".join(capsys.readouterr())
    assert vectors.key().public.fingerprint in said
    assert "verified" not in said
    assert 0 == main(["verify", str(receipt_file), "--allow-unknown-signer"])
    assert "SIGNER      not claimed" in capsys.readouterr().out


def test_a_receipt_with_another_line_is_refused(receipt_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    receipt_file.write_bytes(receipt_file.read_bytes().replace(b"index 5", b"index 6"))
    assert 1 == main(["verify", str(receipt_file), "--signer", vectors.key().public.text])
    assert "verified" not in "".join(capsys.readouterr())


def digest_of(data: bytes) -> str:
    return f"sha256:{sha256(data).hexdigest()}"


def test_a_digest_names_the_object_that_has_it(with_rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = (with_rows / "ledger.jsonl").read_bytes().split(b"\n")[5]
    line = json.loads(first)
    head = note.read_tree_head((with_rows / "tree-head.txt").read_bytes(), vectors.key().public)
    statement = envelope.read((with_rows / "attestation.json").read_bytes(), envelope.RUN)
    wanted = {
        digest_of((with_rows / "host.json").read_bytes()): "file host.json",
        digest_of((with_rows / "rows" / "00000000.safetensors").read_bytes()): "file rows/00000000.safetensors",
        f"sha256:{line['run_id']}": "run: run_id",
        f"sha256:{whole_bundles.ROOT}": "root of its tensor table",
        f"sha256:{whole_bundles.FILES[0]['sha256']}": "checkpoint: config.json, file",
        f"sha256:{head.root.hex()}": "tree: root of ledger.jsonl",
        statement.digest: "bundle: digest of the statement",
        digest_of(first): "line 5: embed at position 1",
        digest_of(b"\0" + first): "leaf of line 5",
        f"sha256:{line['measured']['residual_sha256']}": "residual of line 5: embed at position 1",
    }
    for digest, name in wanted.items():
        assert 0 == main(["verify", digest, str(with_rows), "--json"])
        assert name in " ".join(json.loads(capsys.readouterr().out)["found"])


def test_a_digest_that_nothing_has_is_refused(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for path in (bundle, tmp_path, tmp_path / "file"):
        assert 1 == main(["verify", "sha256:" + "00" * 32, str(path)])
        assert "verified" not in "".join(capsys.readouterr())
    assert 0 == main(["verify", digest_of(b"x"), str(tmp_path / "file")])
    assert 0 == main(["verify", digest_of(b"x"), str(tmp_path)])


@pytest.mark.parametrize("call", [["sha256:00"], ["sha256:" + "00" * 32], ["sha256:" + "AB" * 32, "."], [".", "."]], ids=" ".join)
def test_a_call_that_cannot_be_meant_is_a_usage_error(call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == main(["verify", *call])
    assert "verified" not in "".join(capsys.readouterr())


def test_a_signer_that_is_no_key_is_a_usage_error(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == main(["verify", str(bundle), "--signer", "alice"])
    assert "verified" not in "".join(capsys.readouterr())


def test_it_loads_no_library_but_cryptography_no_model_and_no_network(bundle: Path) -> None:
    code = (
        "import sys\nfrom formation.cli.main import main\n"
        f"code = main(['verify', {str(bundle)!r}, '--allow-unknown-signer'])\nprint(code, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    code_and_loaded = done.stdout.splitlines()[-1].split()
    assert "0" == code_and_loaded[0]
    heavy = {"numpy", "torch", "tokenizers", "tiktoken", "jinja2", "rich", "socket", "ssl", "http", "urllib.request"}
    assert set() == heavy & set(code_and_loaded)
    ours = {name.split(".")[1] for name in code_and_loaded if name.startswith("formation.")}
    assert {"cli", "evidence", "ledger"} <= ours
    assert set() == {"kernels", "model", "weights", "text", "run", "probe", "audit", "recording"} & ours
