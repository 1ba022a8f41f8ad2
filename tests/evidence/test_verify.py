"""Every numbered check has a test here that breaks exactly it, in a bundle that its owner then signs again wherever a signature would tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.evidence import vectors, whole_bundles
from tests.evidence.whole_bundles import GREEDY, SAMPLE, Kind, edit_document, edit_lines, later, make, reseal, ulp_more
from tests.ledger.small_ledger import Line, at, with_vector
from tests.ledger.small_ledger import ulp_more as vector_ulp_more
from tools import check_list

from formation.cli.main import main
from formation.evidence import envelope, note
from formation.evidence.checks import CHECKS, LEVELS
from formation.evidence.container import open_container
from formation.evidence.report import HONESTY, REFUSED, Report
from formation.evidence.verify import verify
from formation.ledger import canonical

KNOWN = {vectors.key().public.fingerprint: "the test's own"}
BARE = Kind(rows="none")
STEP = 2  # the first step's position
OWN = Ed25519PrivateKey.from_private_bytes(vectors.SECRET).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture(autouse=True)
def no_keys_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make(tmp_path / "run.ofb", BARE)


@pytest.fixture
def with_rows(tmp_path: Path) -> Path:
    return make(tmp_path / "run.ofb")


@pytest.fixture
def sampled(tmp_path: Path) -> Path:
    return make(tmp_path / "run.ofb", Kind(rows="none", sampler=SAMPLE))


def report_of(folder: Path, **asked: Any) -> Report:
    with open_container(folder) as container:
        return verify(container, signers=asked.pop("signers", KNOWN), **asked)


def states(report: Report) -> dict[str, str]:
    return {outcome.check.id: outcome.state for outcome in report.outcomes}


def refused(capsys: pytest.CaptureFixture[str], folder: Path, check: str, *options: str, also: tuple[str, ...] = ()) -> str:
    """What the command says of a bundle that must fail this check, and no other but `also`"""
    name = next(c.name for c in CHECKS if c.id == check)
    options = options or ("--signer", vectors.key().public.text)
    assert 1 == main(["verify", str(folder), *options])
    said = "".join(capsys.readouterr())
    assert f"{check} {name}: " in said
    assert "verified" not in said
    assert REFUSED in said
    assert 1 == main(["verify", str(folder), *options, "--json"])
    out = capsys.readouterr().out
    verdict = json.loads(out)
    failed = [c["id"] for c in verdict["checks"] if c["state"] == "failed"]
    assert sorted({check, *also}) == sorted(failed)
    assert "failed" == verdict["verdict"]
    assert "failed" == verdict["levels"][next(c.level for c in CHECKS if c.id == check)]
    assert "verified" not in out
    return said


def edit(folder: Path, position: int, slot: str, name: str, change: Callable[[Any], Any]) -> None:
    """One value of the ledger, which is signed again"""

    def apply(lines: list[Line]) -> None:
        line = at(lines, position, slot)
        tag = "measured" if name in line["measured"] else "derived"
        line[tag][name] = change(line[tag][name])

    edit_lines(folder, apply)
    reseal(folder)


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


def test_checks_are_numbered_in_order_and_need_only_earlier_ones() -> None:
    assert list(range(1, len(CHECKS) + 1)) == [check.number for check in CHECKS]
    assert all(need < check.number for check in CHECKS for need in check.needs)
    assert len(CHECKS) == len({check.name for check in CHECKS})
    assert set(LEVELS) == {check.level for check in CHECKS}


def test_every_check_has_a_test_that_breaks_it() -> None:
    tests = [name for name in globals() if name.startswith("test_v")]
    assert {check.number for check in CHECKS} == {int(name.removeprefix("test_v").partition("_")[0]) for name in tests}


# ---- INTEGRITY


def test_v01_a_file_that_no_bundle_has_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "notes.txt").write_text("hello")
    assert "notes.txt" in refused(capsys, bundle, "V1")


def test_v01_a_bundle_that_was_never_sealed_says_so(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "attestation.json").unlink()
    assert "formation seal" in refused(capsys, bundle, "V1")


def test_v01_what_is_neither_folder_nor_archive_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "picture").write_bytes(b"\x89PNG" * 20)
    refused(capsys, tmp_path / "picture", "V1")


def test_v02_an_incomplete_ledger_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "ledger.jsonl").rename(bundle / "ledger.jsonl.part")
    for name in ("tree-head.txt", "attestation.json", "parity.json"):
        (bundle / name).unlink()
    said = refused(capsys, bundle, "V2")
    assert "INCOMPLETE" in said
    assert "--resume" in said


def test_v03_an_anchor_in_another_form_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "anchor.json").write_bytes((bundle / "anchor.json").read_bytes() + b"\n")
    refused(capsys, bundle, "V3")


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", "0x7"), ("seed", str(1 << 64)), ("branch", "01"), ("temperature", 0), ("top_k", -1), ("top_p", 1.5), ("min_p", -0.5)],
)
def test_v03_a_setting_that_no_sampler_has_is_refused(name: str, value: Any, sampled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_document(sampled, "anchor.json", lambda anchor: anchor["sampler"].update({name: value}))
    refused(capsys, sampled, "V3")


def test_v04_a_contract_with_another_vector_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_document(bundle, "contract.json", lambda value: value["cases"]["add"].update(outputs="00" * 32))
    reseal(bundle)
    refused(capsys, bundle, "V4")


def test_v04_a_contract_that_this_version_does_not_know_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_bundles, "NAME", "f32x16/2")
    monkeypatch.setattr(whole_bundles, "DIGEST", whole_bundles.documents.cases_digest("f32x16/2", whole_bundles.VECTORS["cases"]))
    report = report_of(make(tmp_path / "run.ofb", BARE))
    assert ["V4"] == [outcome.check.id for outcome in report.failed]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda value: value["tensor_table"][0].update(begin=1), id="a tensor's range"),
        pytest.param(lambda value: value["tensor_table"].reverse(), id="order of the tensors"),
        pytest.param(lambda value: value["files"][0].update(path="../config.json"), id="a path that climbs"),
        pytest.param(lambda value: value["files"][0].update(sha256="00" * 32), id="a file's digest"),
        pytest.param(lambda value: value.update(tensor_table_root="00" * 32), id="the root"),
        pytest.param(lambda value: value.update(extra=1), id="another field"),
    ],
)
def test_v05_a_checkpoint_that_is_not_the_anchors_is_refused(change: Any, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_document(bundle, "checkpoint.json", change)
    reseal(bundle)
    refused(capsys, bundle, "V5")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda file: file["dsseEnvelope"]["signatures"].append(file["dsseEnvelope"]["signatures"][0]), id="two signatures"),
        pytest.param(lambda file: file["dsseEnvelope"]["signatures"].clear(), id="no signature"),
        pytest.param(lambda file: file["dsseEnvelope"].update(payloadType="text/plain"), id="another type of payload"),
        pytest.param(lambda file: file.update(mediaType="application/json"), id="another type of file"),
    ],
)
def test_v06_an_attestation_in_another_form_is_refused(change: Any, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_document(bundle, "attestation.json", change)
    refused(capsys, bundle, "V6")


def test_v06_a_statement_about_something_else_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later(bundle, "attestation.json", envelope.AUDIT)
    refused(capsys, bundle, "V6")


def test_v07_a_signature_by_another_key_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def other(file: dict[str, Any]) -> None:
        inner = file["dsseEnvelope"]
        payload = envelope.from_base64("test", "payload", inner["payload"])
        signature = vectors.key(vectors.OTHER_SECRET).sign(envelope.pae(envelope.PAYLOAD_TYPE, payload))
        inner["signatures"][0]["sig"] = envelope.to_base64(signature)

    edit_document(bundle, "attestation.json", other)
    refused(capsys, bundle, "V7")


def test_v08_a_tree_head_signed_by_another_key_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = note.read_tree_head((bundle / "tree-head.txt").read_bytes(), vectors.key().public)
    reseal(bundle, head=note.sign_tree_head(head, vectors.key(vectors.OTHER_SECRET)))
    refused(capsys, bundle, "V8")


def test_v08_a_tree_head_of_another_run_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = note.read_tree_head((bundle / "tree-head.txt").read_bytes(), vectors.key().public)
    reseal(bundle, head=note.sign_tree_head(note.head_of("ab" * 32, head.size, head.root), vectors.key()))
    refused(capsys, bundle, "V8")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: data.replace(b"{", b"{ ", 1), id="a space"),
        pytest.param(lambda data: data + b"{}", id="no LF at the end"),
        pytest.param(lambda data: data.replace(b"\n", b"\r\n", 1), id="CR LF"),
        pytest.param(lambda data: data + b"\n", id="an empty line"),
        pytest.param(lambda data: data + b'"' + b"x" * canonical.LINE.size_bytes + b'"\n', id="a line over the limit"),
        pytest.param(lambda data: b"", id="an empty ledger"),
    ],
)
def test_v09_a_line_in_another_form_is_refused(change: Any, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "ledger.jsonl").write_bytes(change((bundle / "ledger.jsonl").read_bytes()))
    reseal(bundle)
    refused(capsys, bundle, "V9")


def test_v10_a_ledger_with_another_root_than_was_signed_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (bundle / "tree-head.txt").read_bytes()
    head = note.read_tree_head(before, vectors.key().public)
    stated = {"origin": head.origin, "size": head.size, "root": head.root.hex()}
    edit(bundle, STEP, "layer 0", "lens_kl", lambda kl: kl + 1)
    reseal(bundle, head=before, tree_head=stated)
    refused(capsys, bundle, "V10")


def test_v11_a_file_changed_after_it_was_signed_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_document(bundle, "host.json", lambda host: host.update(cores=64))
    assert "host.json" in refused(capsys, bundle, "V11")


def test_v11_a_file_that_was_not_signed_is_refused(with_rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "other.ofb", BARE)
    (with_rows / "rows").rename(folder / "rows")
    (with_rows / "router").rename(folder / "router")
    assert "router/00000000.safetensors" in refused(capsys, folder, "V11")


def test_v11_a_file_that_was_signed_and_is_gone_is_refused(with_rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (with_rows / "router" / "00000000.safetensors").unlink()
    refused(capsys, with_rows, "V11", also=("V28",))


# ---- SIGNER


def test_v12_a_signer_that_nobody_knows_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert vectors.key().public.text in refused(capsys, bundle, "V12", "--checks")


def test_v12_a_signer_other_than_the_one_asked_for_is_refused_even_if_known(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, bundle, "V12", "--signer", vectors.key(vectors.OTHER_SECRET).public.text)


def test_v12_a_bundle_signed_anew_by_another_key_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reseal(bundle, vectors.OTHER_SECRET)
    refused(capsys, bundle, "V12")


def test_an_unknown_signer_can_be_allowed_and_is_then_not_claimed(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["verify", str(bundle), "--allow-unknown-signer", "--json"])
    verdict = json.loads(capsys.readouterr().out)
    assert ("verified", "not claimed") == (verdict["verdict"], verdict["levels"]["SIGNER"])


@pytest.mark.parametrize("known", ["known_signers", "own"])
def test_a_signer_is_known_from_the_users_files_and_the_report_says_which(
    known: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config" / "formation"
    config.mkdir(parents=True)
    if known == "own":
        (config / "key.pem").write_bytes(OWN)
        (config / "key.pem").chmod(0o600)
    else:
        (config / "known_signers").write_text(f"alice {vectors.key().public.text}\n")
    assert 0 == main(["verify", str(bundle)])
    assert ("your own key" if known == "own" else "known to you as alice") in capsys.readouterr().out


# ---- LEDGER


def test_v13_a_line_of_another_run_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_lines(bundle, lambda lines: lines[5].update(run_id="ab" * 32))
    reseal(bundle)
    refused(capsys, bundle, "V13")


def test_v13_another_field_table_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, -1, "run", "fields_sha256", lambda _: "00" * 32)
    refused(capsys, bundle, "V13")


def test_v13_a_shape_beyond_any_file_is_refused_without_delay(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, -1, "run", "shape", lambda shape: shape | {"layers": 1 << 50, "dense_layers": 1 << 50, "experts": 0, "chosen": 0})
    refused(capsys, bundle, "V13")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda lines: lines[:-1], id="the last line is missing"),
        pytest.param(lambda lines: lines[:-7], id="the last token is missing"),
        pytest.param(lambda lines: [*lines, lines[-1]], id="a line twice"),
        pytest.param(lambda lines: [*lines[:5], lines[6], lines[5], *lines[7:]], id="two lines in another order"),
        pytest.param(lambda lines: lines[:1] + [line for line in lines[1:] if line["slot"] != "layer 1"], id="a layer is skipped"),
        pytest.param(lambda lines: lines[5]["measured"].pop("residual_norm") and None, id="a field is missing"),
        pytest.param(lambda lines: lines[5]["derived"].update(lines[5]["measured"]), id="measured values as derived"),
    ],
)
def test_v14_a_ledger_of_other_lines_than_its_anchor_demands_is_refused(change: Any, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_lines(bundle, change)
    reseal(bundle)
    refused(capsys, bundle, "V14")


def test_v14_a_run_that_goes_on_behind_a_stop_id_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "token", "id", lambda _: 38)
    refused(capsys, bundle, "V14")


def test_v15_a_derived_value_changed_by_its_owner_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "lm_head", "logprob", lambda x: x + 2.0**-40)
    refused(capsys, bundle, "V15")


def test_v16_contributions_that_do_not_add_up_are_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "lm_head", "exact_logit", lambda x: x + 2.0**-40)
    refused(capsys, bundle, "V16")


def test_v17_experts_that_do_not_add_up_to_their_layer_are_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "layer 1", "dla_experts", lambda x: [x[0] + 2.0**-40, *x[1:]])
    refused(capsys, bundle, "V17")


def test_v18_another_rounding_of_the_head_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "lm_head", "lm_head_rounding", lambda x: x + 2.0**-40)
    refused(capsys, bundle, "V18", also=("V15",))


def test_v19_a_last_lens_that_is_not_the_head_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "layer 2", "lens_top_logits", with_vector(lambda z: z.__setitem__(4, z[4] - 0.125)))
    refused(capsys, bundle, "V19")


def test_v20_a_runner_up_out_of_its_order_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def swap(values: list[Any]) -> None:
        values[1], values[2] = values[2], values[1]

    names = ("logits", "scores", "selection", "biases")
    for name in names:
        edit(bundle, STEP, "layer 1", f"runner_up_{name}", with_vector(swap))
    edit(bundle, STEP, "layer 1", "runners_up", lambda x: [x[0], x[2], x[1], *x[3:]])
    refused(capsys, bundle, "V20")


def test_v21_a_score_that_is_not_its_logits_sigmoid_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "layer 1", "chosen_logits", with_vector(lambda q: q.__setitem__(0, q[0] + 0.5)))
    refused(capsys, bundle, "V21")


def test_v22_a_gate_one_step_away_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "layer 1", "gates", vector_ulp_more(0))
    gates: list[float] = []
    edit(bundle, STEP, "layer 1", "gates", with_vector(gates.extend))
    edit(bundle, STEP, "layer 1", "gate_sum", lambda _: 0.0 + gates[0] + gates[1])
    refused(capsys, bundle, "V22")


def test_v23_a_largest_logit_behind_a_smaller_one_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "layer 0", "lens_top", lambda x: [x[1], x[0], *x[2:]])
    edit(bundle, STEP, "layer 0", "lens_top_logits", with_vector(lambda z: z.__setitem__(slice(0, 2), [z[1], z[0]])))
    refused(capsys, bundle, "V23")


def test_v24_an_entropy_beyond_the_vocabulary_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "layer 0", "lens_entropy", lambda _: 4.0)
    refused(capsys, bundle, "V24")


def test_v25_a_draw_outside_of_the_tokens_interval_is_refused(sampled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def moved(lines: list[Line]) -> None:
        values = at(lines, STEP, "sampler")["measured"]
        width = values["high"] - values["low"]
        values["low"] = 0 if values["draw"] > width else 1 - width
        values["high"] = values["low"] + width

    edit_lines(sampled, moved)
    reseal(sampled)
    refused(capsys, sampled, "V25")


def test_v25_a_greedy_token_without_the_largest_logit_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "token", "id", lambda i: (i + 1) % 30)
    failed = [outcome.check.id for outcome in report_of(bundle).failed]
    assert "V25" in failed


def test_v26_an_id_with_two_embeddings_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, 0, "embed", "residual_sha256", lambda _: "00" * 32)
    refused(capsys, bundle, "V26")


def test_v26_a_prompt_id_beyond_the_vocabulary_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, make(tmp_path / "run.ofb", Kind(prompt=(3, 40, 3), rows="none")), "V26")


def test_v26_a_token_spelled_in_two_ways_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "run.ofb", Kind(prompt=(3, 5, 3, 5), rows="none", repeat=True))
    edit(folder, 4, "token", "bytes", lambda _: "eA==")
    refused(capsys, folder, "V26")


def test_v27_a_draw_that_is_not_the_seeds_is_refused(sampled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def drawn_again(lines: list[Line]) -> None:
        values = at(lines, STEP, "sampler")["measured"]
        values["draw"] = values["low"] + (values["high"] - values["low"]) / 4

    edit_lines(sampled, drawn_again)
    reseal(sampled)
    refused(capsys, sampled, "V27")


def test_v27_another_probability_than_the_intervals_is_refused(sampled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def wider(lines: list[Line]) -> None:
        values = at(lines, STEP, "sampler")["measured"]
        values["low"], values["high"] = values["low"] / 2, (1 + values["high"]) / 2

    edit_lines(sampled, wider)
    reseal(sampled)
    refused(capsys, sampled, "V27")


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(dict(GREEDY), id="greedy"),
        pytest.param({**SAMPLE, "seed": "8"}, id="another seed"),
        pytest.param({**SAMPLE, "branch": "0"}, id="another branch"),
        pytest.param({**SAMPLE, "top_k": 2}, id="top-k"),
    ],
)
def test_v27_an_anchor_that_lies_about_the_sampler_is_refused(settings: Any, sampled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_document(sampled, "anchor.json", lambda anchor: anchor.update(sampler=settings))
    run_id = sha256((sampled / "anchor.json").read_bytes()).hexdigest()
    edit_lines(sampled, lambda lines: [line | {"run_id": run_id} for line in lines])
    reseal(sampled)
    refused(capsys, sampled, "V27")


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_v28_a_row_that_is_not_the_one_its_line_names_is_refused(with_rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(with_rows / "router" / "00000000.safetensors", -1)
    reseal(with_rows)
    refused(capsys, with_rows, "V28")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda rows: flip(rows / "00000000.safetensors", 9), id="header"),
        pytest.param(lambda rows: (rows / "00000000.safetensors").rename(rows / "00000064.safetensors"), id="name"),
        pytest.param(lambda rows: (rows / "00000000.safetensors").open("ab").write(b"\0" * 4), id="bytes behind"),
        pytest.param(lambda rows: (rows / "00000064.safetensors").write_bytes((rows / "00000000.safetensors").read_bytes()), id="a file too many"),
        pytest.param(lambda rows: (rows / "00000000.safetensors").unlink(), id="no file"),
    ],
)
def test_v28_a_file_of_rows_in_another_form_is_refused(change: Any, with_rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(with_rows / "router")
    reseal(with_rows)
    refused(capsys, with_rows, "V28")


def test_v28_rows_of_fewer_positions_than_the_ledger_has_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, shorter = make(tmp_path / "run.ofb"), make(tmp_path / "shorter.ofb", Kind(tokens=2))
    (shorter / "router" / "00000000.safetensors").rename(folder / "router" / "00000000.safetensors")
    reseal(folder)
    refused(capsys, folder, "V28")


def replace_row(folder: Path, name: str, change: Callable[[bytes], bytes], position: int, slot: str, field: str) -> None:
    """A row and its digest, both changed by their owner"""
    wanted: list[str] = []
    edit(folder, position, slot, field, lambda digest: wanted.append(digest) or digest)
    path = folder / name
    data = path.read_bytes()
    width = 16 * 4 if name.startswith("rows") else 8 * 4
    begin = next(i for i in range(len(data) - width, 0, -width) if sha256(data[i : i + width]).hexdigest() == wanted[0])
    changed = change(data[begin : begin + width])
    path.write_bytes(data[:begin] + changed + data[begin + width :])
    edit(folder, position, slot, field, lambda _: sha256(changed).hexdigest())


def test_v29_one_step_in_a_row_that_its_owner_hashed_and_signed_again_is_refused(with_rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replace_row(with_rows, "rows/00000000.safetensors", ulp_more, STEP, "layer 1", "residual_sha256")
    refused(capsys, with_rows, "V29")


def test_v30_a_selection_row_that_does_not_follow_from_the_logits_is_refused(with_rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replace_row(with_rows, "router/00000000.safetensors", ulp_more, STEP, "layer 1", "router_selection_sha256")
    refused(capsys, with_rows, "V30")


def test_v30_a_row_of_logits_that_are_no_numbers_is_refused(with_rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    not_a_number = partial(bytes.__add__, b"\0\0\xc0\x7f")
    replace_row(with_rows, "router/00000000.safetensors", lambda row: not_a_number(row[4:]), STEP, "layer 1", "router_logits_sha256")
    refused(capsys, with_rows, "V30")


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


@pytest.mark.parametrize(
    ("name", "change"),
    [
        pytest.param("host.json", lambda data: data.replace(b'"cores":2', b'"cores":-2'), id="a number of cores below 0"),
        pytest.param("host.json", lambda data: data.replace(b'"cores"', b'"corer"'), id="another field"),
        pytest.param("io.jsonl", lambda data: data.split(b"\n", 1)[1], id="a step without account"),
        pytest.param("io.jsonl", lambda data: data + data.split(b"\n", 1)[0] + b"\n", id="an account too many"),
        pytest.param("io.jsonl", lambda data: data[:-1], id="no LF at the end"),
        pytest.param("io.jsonl", lambda data: data.replace(b'"seconds":0.5', b'"seconds":"0.5"', 1), id="text for a number"),
    ],
)
def test_v33_declarations_in_another_form_are_refused(name: str, change: Any, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / name).write_bytes(change((bundle / name).read_bytes()))
    reseal(bundle)
    refused(capsys, bundle, "V33")


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
