"""What is changed and signed again by the right key fails the same checks in Python and in the page: documents, lines and rows."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.evidence import declared
from tests.evidence.whole_bundles import Kind, edit_document, make
from verdicts import FULL, GREEDY, LONG, SAMPLED, copy_of, expect_same, sealed_again

from formation.ledger import canonical


@pytest.fixture
def bundle(bundles: dict[str, Path], tmp_path: Path) -> Path:
    """To be changed"""
    return copy_of(bundles[GREEDY], tmp_path)


ODD: list[Any] = [None, True, 0, -1, 1.5, 2**53 - 1, "", "x", "ab" * 32, [], [0], {}, {"absent": "never"}, "not claimed", "passed", "tensors 1 of 3"]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value[:4]) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for key, item in inner for place in places(item, (*path, key))]


def replaced(value: Any, path: tuple[Any, ...], new: Callable[[Any], Any]) -> Any:
    copy = json.loads(json.dumps(value))
    table = copy
    for key in path[:-1]:
        table = table[key]
    table[path[-1]] = new(table[path[-1]])
    return copy


@pytest.mark.parametrize("name", ["anchor.json", "contract.json", "checkpoint.json", "host.json", "parity.json", "io.jsonl"])
def test_a_document_changed_and_signed_again_fails_the_same_check(run, bundle, name):
    source = random.Random(name)
    file = bundle / name
    honest = file.read_bytes()
    value = canonical.decode(honest.split(b"\n")[0], limits=canonical.DOCUMENT)
    for _ in range(12):
        odd = source.choice([*ODD, "é\u202e", {"a": 1}])
        changed = canonical.encode(replaced(value, source.choice(places(value)), lambda _, odd=odd: odd), limits=canonical.DOCUMENT)
        file.write_bytes(changed + honest[len(honest.split(b"\n")[0]) :])
        if sealed_again(bundle):
            expect_same(run, bundle)
    file.write_bytes(honest)


@pytest.mark.parametrize("name", declared.WRONG)
def test_a_wrong_declaration_signed_again_is_refused_in_the_same_words(run, bundle, name):
    file, change = declared.WRONG[name]
    (bundle / file).write_bytes(change((bundle / file).read_bytes()))
    assert sealed_again(bundle)
    assert {"declarations"} == expect_same(run, bundle)


@pytest.mark.parametrize("name", declared.RIGHT)
def test_machines_that_went_on_are_told_in_the_same_words(run, bundle, name):
    edit_document(bundle, "host.json", declared.went_on(*declared.RIGHT[name]))
    assert sealed_again(bundle)
    assert set() == expect_same(run, bundle)


def edited_line(source: random.Random, line: dict[str, Any]) -> dict[str, Any]:
    path = source.choice(places(line))
    return replaced(line, path, lambda old: other(source, old))


def other(source: random.Random, old: Any) -> Any:
    if type(old) in (int, float) and source.random() < 0.7:
        return canonical.number(float(old) * (1 + 2**-52) if old and abs(old) < 2**52 else 1.0)
    return source.choice(ODD)


@pytest.mark.parametrize("name", [GREEDY, SAMPLED, FULL])
def test_a_line_changed_and_signed_again_fails_the_same_check(run, bundles, tmp_path, name):
    source = random.Random(name)
    bundle = copy_of(bundles[name], tmp_path)
    file = bundle / "ledger.jsonl"
    honest = file.read_bytes().split(b"\n")[:-1]
    broken: set[str] = set()
    for _ in range(25):
        lines = list(honest)
        at = source.randrange(len(lines))
        kind = source.randrange(8)
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(at, lines[source.randrange(len(lines))])
        else:
            lines[at] = canonical.encode(edited_line(source, canonical.decode(lines[at], limits=canonical.LINE)))
        file.write_bytes(b"".join(line + b"\n" for line in lines))
        if sealed_again(bundle):
            broken |= expect_same(run, bundle)
    assert {"census", "formulas"} & broken


def test_rows_changed_and_signed_again_fail_the_same_check(run, bundle):
    source = random.Random(5)
    for file in [*(bundle / "rows").iterdir(), *(bundle / "router").iterdir()]:
        data = file.read_bytes()
        flipped = bytearray(data)
        flipped[source.randrange(len(data) - 200, len(data))] ^= 1
        for changed in (bytes(flipped), data[:-4], data + bytes(4), data[:100], data[:8] + b" " + data[9:]):
            file.write_bytes(changed)
            assert sealed_again(bundle) and "rows" in expect_same(run, bundle)
        file.write_bytes(data)
    shutil.rmtree(bundle / "router")
    assert sealed_again(bundle) and "rows" in expect_same(run, bundle)


def test_rows_of_more_than_one_file_changed_and_signed_again_fail_the_same_check(run, bundles, tmp_path):
    bundle = copy_of(bundles[LONG], tmp_path)
    first, second, late = (bundle / "rows" / f"{n:08}.safetensors" for n in (0, 64, 128))
    honest = second.read_bytes()
    late.write_bytes(b"x" * 5000)
    assert sealed_again(bundle) and expect_same(run, bundle)
    late.unlink()
    for changed in (first.read_bytes(), honest[:-4], honest[:-1] + bytes([honest[-1] ^ 1])):
        second.write_bytes(changed)
        assert sealed_again(bundle) and "rows" in expect_same(run, bundle)
    second.unlink()
    assert sealed_again(bundle) and "rows" in expect_same(run, bundle)


def test_files_behind_the_last_of_sixty_four_positions_are_noticed_alike(run, tmp_path):
    bundle = make(tmp_path / "run.ofb", Kind(prompt=(3,), tokens=64, rows="boundaries", steps="minimal", repeat=True))
    first, late = (bundle / "rows" / f"{n:08}.safetensors" for n in (0, 64))
    for data in (b"x" * 5000, first.read_bytes(), b""):
        late.write_bytes(data)
        assert sealed_again(bundle) and {"rows"} == expect_same(run, bundle)


SIZES = [("hidden", 2**53 - 1), ("hidden", 17), ("heads", 2**53 - 1), ("vocabulary", 2**53 - 1), ("vocabulary", 39), ("layers", 4)]


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_a_lie_about_a_size_of_the_model_fails_the_same_check(run, bundle, name, size):
    first, *rest = (bundle / "ledger.jsonl").read_bytes().split(b"\n")
    value = canonical.decode(first, limits=canonical.LINE)
    value["measured"]["shape"][name] = size
    (bundle / "ledger.jsonl").write_bytes(b"\n".join([canonical.encode(value), *rest]))
    assert sealed_again(bundle)
    expect_same(run, bundle)
