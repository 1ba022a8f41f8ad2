"""Whatever is changed in a bundle, by whoever: a verdict is given, and a change that was not signed is never passed."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evidence import vectors, whole_bundles
from tests.evidence.whole_bundles import SAMPLE, Kind, make, reseal
from tests.ledger.small_ledger import MAKERS

from formation.evidence.container import open_container
from formation.evidence.report import Report
from formation.evidence.verify import verify
from formation.kernels import reference_choose
from formation.ledger import canonical, lines
from formation.ledger.line_reader import LineReader
from formation.philox import uniform

KNOWN = {vectors.key().public.fingerprint: "the test's own"}
HOSTILE: list[Any] = [
    None, True, False, 0, -1, 0.5, 1 << 40, canonical.LARGEST, -canonical.LARGEST, 5e-324, "", "x", "AAAA", "AACAfw==", "é\u202e\x1b[2J",
    [], {}, [[]], {"absent": "dense layer"}, {"absent": "runner-up not known"}, {"absent": 1}, "ab" * 32,
]  # fmt: skip


def report_of(folder: Path) -> Report:
    with open_container(folder) as container:
        return verify(container, signers=KNOWN)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("bundles") / "run.ofb", Kind(prompt=(3, 5), tokens=2, sampler=SAMPLE))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_changed_byte_is_never_passed(bundle: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(path for path in bundle.rglob("*") if path.is_file())))
    whole = path.read_bytes()
    at, change = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(1, 255))
    try:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ change]) + whole[at + 1 :])
        assert not report_of(bundle).verified
    finally:
        path.write_bytes(whole)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of everything within a value"""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in below for place in places(item, (*path, key)))]


def mutated(value: Any, data: st.DataObject) -> Any:
    path = data.draw(st.sampled_from(places(value)))
    new = data.draw(st.sampled_from(HOSTILE))
    if not path:
        return new
    inside = value
    for key in path[:-1]:
        inside = inside[key]
    if isinstance(inside, dict) and data.draw(st.booleans()):
        inside[data.draw(st.sampled_from(["", "more", "__proto__", str(path[-1]) + " "]))] = inside.pop(path[-1])
    else:
        inside[path[-1]] = new
    return value


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_document_changed_by_its_owner_gets_a_verdict(bundle: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["anchor.json", "contract.json", "checkpoint.json", "host.json", "parity.json"]))
    kept = {path.name: path.read_bytes() for path in bundle.iterdir() if path.is_file()}
    try:
        whole_bundles.write(bundle, name, mutated(json.loads(kept[name]), data))
        resealed(bundle)
        report_of(bundle)
    finally:
        restore(bundle, kept)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_line_changed_by_its_owner_gets_a_verdict(bundle: Path, data: st.DataObject) -> None:
    kept = {path.name: path.read_bytes() for path in bundle.iterdir() if path.is_file()}
    decoded = kept["ledger.jsonl"].split(b"\n")[:-1]
    at = data.draw(st.integers(0, len(decoded) - 1))
    try:
        decoded[at] = canonical.encode(mutated(json.loads(decoded[at]), data))
        (bundle / "ledger.jsonl").write_bytes(b"".join(line + b"\n" for line in decoded))
        resealed(bundle)
        report_of(bundle)
    finally:
        restore(bundle, kept)


def resealed(bundle: Path) -> None:
    """Documents of another shape cannot be signed as a run's; then the old signatures stay"""
    try:
        reseal(bundle)
    except (TypeError, KeyError, AttributeError, canonical.CanonicalRefusal):
        for name, data in kept_seals().items():
            (bundle / name).write_bytes(data)


@cache
def kept_seals() -> dict[str, bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        made = make(Path(scratch) / "run.ofb", Kind(rows="none"))
        return {name: (made / name).read_bytes() for name in ("tree-head.txt", "attestation.json")}


def restore(bundle: Path, kept: dict[str, bytes]) -> None:
    for name, data in kept.items():
        (bundle / name).write_bytes(data)


def test_the_bundle_that_was_changed_and_changed_back_is_verified(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "copy.ofb")
    assert report_of(tmp_path / "copy.ofb").verified


# ---- what verifying computes in a faster way


@pytest.mark.parametrize("maker", list(MAKERS))
def test_lines_are_read_as_the_slow_reader_reads_them(maker: str) -> None:
    made = [canonical.decode(canonical.encode(line), limits=canonical.LINE) for line in MAKERS[maker].lines()]
    run = lines.read_run(made[0])
    reader = LineReader(run)
    for line in made[1:]:
        place = lines.check_line(line, run)
        found, values = reader.read(line)
        expected = lines.values_of(line, place)
        assert (place, expected) == (found, values)
        assert [type(value) for value in expected.values()] == [type(values[name]) for name in expected]


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_a_changed_line_is_refused_as_the_slow_reader_refuses_it(data: st.DataObject) -> None:
    made = small_lines()
    run = lines.read_run(json.loads(made[0]))
    line = mutated(json.loads(made[data.draw(st.integers(1, len(made) - 1))]), data)
    assert outcome(lambda: read_slowly(line, run)) == outcome(lambda: LineReader(run).read(line))


@cache
def small_lines() -> list[str]:
    return [canonical.encode(line).decode() for line in MAKERS["plain"].lines()]


def read_slowly(line: Any, run: lines.Run) -> Any:
    place = lines.check_line(line, run)
    return place, lines.values_of(line, place)


def outcome(read: Any) -> Any:
    try:
        return read()
    except lines.LineRefusal as refusal:
        return str(refusal)


word = st.integers(0, (1 << 64) - 1)


@given(word, word, word)
def test_draws_are_those_of_the_reference(seed: int, branch: int, position: int) -> None:
    assert reference_choose.uniform(seed, branch, position) == uniform(seed, branch, position)


def test_a_known_draw() -> None:
    """Philox4x32-10 of counter 0 and key 0: 6627e8d5 e169c58d bc57ac4c 9b00dbd8 (Random123's known answers)"""
    assert ((0x6627E8D5 << 32 | 0xE169C58D) >> 11) * 2.0**-53 == uniform(0, 0, 0)


texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=6)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts
names = st.text("abc {}[]\"\\", max_size=3)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=12)


def decoded(data: bytes, slowly: bool) -> Any:
    limits = canonical.Limits(1 << 12, 5)
    try:
        return canonical.decode_slowly(data, canonical.read_text(data, limits), limits) if slowly else canonical.decode(data, limits=limits)
    except canonical.CanonicalRefusal as refusal:
        return f"refused: {refusal}"


@settings(max_examples=150)
@given(values, st.sampled_from([(",", ":"), (", ", ": "), (",", ": ")]), st.booleans(), st.booleans())
def test_a_text_is_decoded_as_the_slow_decoder_decodes_it(value: Any, separators: tuple[str, str], ascii_only: bool, sort: bool) -> None:
    for text in (json.dumps(value, separators=separators, ensure_ascii=ascii_only, sort_keys=sort), canonical_text(value)):
        data = text.encode("utf-8", "surrogatepass")
        fast, slow = decoded(data, False), decoded(data, True)
        assert (repr(fast), type(fast)) == (repr(slow), type(slow))


def canonical_text(value: Any) -> str:
    try:
        return canonical.encode(value).decode()
    except canonical.CanonicalRefusal:
        return "[]"


@settings(max_examples=150)
@given(st.text('[]{}",:\\0123456789.eE+-truefalsn \n\t\u0000é', max_size=24))
def test_any_text_is_decoded_as_the_slow_decoder_decodes_it(text: str) -> None:
    fast, slow = decoded(text.encode(), False), decoded(text.encode(), True)
    assert repr(fast) == repr(slow)


def test_the_contract_that_is_known_is_the_one_that_is_shipped() -> None:
    from formation.evidence import documents
    from formation.kernels import golden

    assert (golden.CONTRACT, golden.CONTRACT_DIGEST) == documents.known_contract()
