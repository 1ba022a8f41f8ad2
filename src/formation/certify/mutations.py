"""Random mutations, made for the structure of what they change: the same seed and number give the same mutant of the same bundle.

Two in three are left as they are: the layer of signatures and digests must refuse them. The third is hashed and signed anew by the right key:
then only what the files say can tell. Of these some change what no reader can tell from the truth without the weights, or at all: a norm that no
formula uses, a machine that the operator declares. They are not passed over: what differs is found field by field, and must be listed here.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from formation.certify.forgery import ATTESTATION, LEDGER, TREE_HEAD, Files, Forgery, Scene, f32_text, f32s, ulp
from formation.certify.judge import Judge, Judgement
from formation.certify.untold import untold_names
from formation.ledger import canonical
from formation.ledger.blocks import header_length
from formation.ledger.lines import layer_of

SIGNED_EVERY = 3
Mutation = Callable[[Forgery, random.Random], str]


@dataclass
class Tally:
    """Of the mutations so far. `untold` counts by field what was accepted because nothing but the weights, or nobody, can tell."""

    count: int = 0
    signed: int = 0
    refused: int = 0
    checks: dict[str, int] = field(default_factory=dict)
    untold: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    lines: dict[int, bytes] = field(default_factory=dict)  # of the ledger, by number: those that were accepted, for an audit

    def add(self, other: Tally) -> None:
        self.count, self.signed, self.refused = self.count + other.count, self.signed + other.signed, self.refused + other.refused
        for own, theirs in ((self.checks, other.checks), (self.untold, other.untold)):
            for name, count in theirs.items():
                own[name] = own.get(name, 0) + count
        self.failures += other.failures
        self.lines |= other.lines

    def row(self) -> dict[str, Any]:
        """As certification.json has it"""
        return {
            "count": self.count, "signed": self.signed, "refused": self.refused, "checks": dict(self.checks), "untold": dict(self.untold),
            "failures": list(self.failures),
        }  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    number: int
    what: str
    signed: bool
    files: Files


def mutant(scene: Scene, seed: int, number: int) -> Mutant:
    source = random.Random(f"formation mutation {seed} {number}")
    signed = number % SIGNED_EVERY == 0
    while True:
        forgery = scene.forgery()
        with suppress(canonical.CanonicalRefusal):  # a value that has no canonical form is no edit
            what = source.choice(SIGNED if signed else BARE)(forgery, source)
        if signed and dict(forgery.files) != dict(scene.files):
            forgery.seal()
        if dict(forgery.files) != dict(scene.files):
            return Mutant(number, what, signed, forgery.files)


def run(judge: Judge, seed: int, numbers: Iterable[int]) -> Tally:
    tally = Tally()
    for number in numbers:
        one = mutant(judge.scene, seed, number)
        take(tally, one, judge.verdict(Forgery(judge.scene, dict(one.files))), judge.scene)
    return tally


def flip_every_bit(judge: Judge, name: str, bits: Iterable[int]) -> Tally:
    """One mutant for each of the bits of one file, unsigned"""
    tally, data = Tally(), judge.scene.files[name]
    for bit in bits:
        at = bit // 8
        flipped_once = data[:at] + bytes([data[at] ^ 1 << bit % 8]) + data[at + 1 :]
        one = Mutant(bit, f"bit of {name} flipped", False, {**judge.scene.files, name: flipped_once})
        take(tally, one, judge.verdict(Forgery(judge.scene, dict(one.files))), judge.scene)
    return tally


def take(tally: Tally, one: Mutant, found: Judgement, scene: Scene) -> None:
    tally.count += 1
    tally.signed += one.signed
    if found.failed and not found.trouble:
        tally.refused += 1
        tally.checks[found.failed[0]] = tally.checks.get(found.failed[0], 0) + 1
        return
    untold = differing(scene, one.files) if one.signed and not found.trouble else []
    if untold and set(untold) <= untold_names(one.files):
        for name in untold:
            tally.untold[name] = tally.untold.get(name, 0) + 1
        found_lines = enumerate(one.files[LEDGER].split(b"\n")[:-1])
        tally.lines |= {n: line for n, line in found_lines if line != scene.lines[n]}
        return
    where = f" in {', '.join(untold[:5])}" if untold else ""
    tally.failures.append(f"mutation {one.number}, {one.what}{where}: {found}")


# ---- what differs


def differing(scene: Scene, files: Files) -> list[str]:
    """Names of what is not as in the control: files, and of the ledger slot and field"""
    names = [name for name in sorted({*files, *scene.files} - {ATTESTATION, TREE_HEAD, LEDGER}) if files.get(name) != scene.files.get(name)]
    before, after = scene.lines, files[LEDGER].split(b"\n")[:-1]
    if len(before) != len(after):
        return [*names, LEDGER]
    for a, b in zip(before, after, strict=True):
        if a != b:
            names += in_line(*(canonical.decode(line, limits=canonical.LINE) for line in (a, b)))
    return names


def in_line(a: Any, b: Any) -> list[str]:
    """Of lines that were accepted"""
    slot = "layer" if layer_of(a["slot"]) >= 0 else a["slot"]
    names = [name for name in a if name not in ("measured", "derived") and a[name] != b[name]]
    names += [name for tag in ("measured", "derived") for name in a[tag] if a[tag][name] != b[tag].get(name)]
    return [f"{slot}.{name}" for name in names]


# ---- bytes


def pick(f: Forgery, r: random.Random, *, signed: bool = False) -> str:
    return r.choice([name for name, data in f.files.items() if data and not (signed and name in (ATTESTATION, TREE_HEAD))])


def bytewise(title: str, change: Callable[[bytes, random.Random], bytes]) -> Mutation:
    def mutate(f: Forgery, r: random.Random) -> str:
        name = pick(f, r)
        f.files[name] = change(f.files[name], r)
        return f"{title} in {name}"

    return mutate


def flipped(data: bytes, r: random.Random) -> bytes:
    at = r.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << r.randrange(8)]) + data[at + 1 :]


def span(data: bytes, r: random.Random) -> tuple[int, int]:
    begin = r.randrange(len(data))
    return begin, min(len(data), begin + r.randint(1, 64))


def other_byte(data: bytes, r: random.Random) -> bytes:
    at = r.randrange(len(data))
    return data[:at] + bytes([r.randrange(256)]) + data[at + 1 :]


def inserted(data: bytes, r: random.Random) -> bytes:
    at = r.randrange(len(data) + 1)
    return data[:at] + r.randbytes(r.randint(1, 16)) + data[at:]


def duplicated(data: bytes, r: random.Random) -> bytes:
    begin, end = span(data, r)
    return data[:end] + data[begin:end] + data[end:]


def cut(data: bytes, r: random.Random) -> bytes:
    begin, end = span(data, r)
    return data[:begin] + data[end:]


def truncated(data: bytes, r: random.Random) -> bytes:
    return data[: r.randrange(len(data))]


# ---- files


def swap_files(f: Forgery, r: random.Random) -> str:
    a, b = pick(f, r), pick(f, r)
    f.files[a], f.files[b] = f.files[b], f.files[a]
    return f"{a} and {b} swapped"


def drop_file(f: Forgery, r: random.Random) -> str:
    name = pick(f, r)
    del f.files[name]
    return f"{name} dropped"


def rename_file(f: Forgery, r: random.Random) -> str:
    name = pick(f, r)
    other = r.choice([name.upper(), name + ".bak", f"rows/{name}", "rows/00000064.safetensors", "audit.json", f"{name}.part", f"./{name}"])
    f.files[other] = f.files.pop(name)
    return f"{name} renamed {other}"


# ---- lines


def linewise(title: str, change: Callable[[list[bytes], random.Random], None]) -> Mutation:
    def mutate(f: Forgery, r: random.Random) -> str:
        name = r.choice([LEDGER, "io.jsonl"])
        found = f.files[name].split(b"\n")[:-1]
        change(found, r)
        f.files[name] = b"".join(line + b"\n" for line in found)
        return f"{title} in {name}"

    return mutate


def swap_lines(found: list[bytes], r: random.Random) -> None:
    a, b = r.randrange(len(found)), r.randrange(len(found))
    found[a], found[b] = found[b], found[a]


def repeat_line(found: list[bytes], r: random.Random) -> None:
    found.insert(r.randrange(len(found) + 1), r.choice(found))


def drop_line(found: list[bytes], r: random.Random) -> None:
    del found[r.randrange(len(found))]


# ---- values


def edit_value(f: Forgery, r: random.Random) -> str:
    """One value of one document becomes another of its type, or of none; the document stays canonical"""
    name = LEDGER if r.random() < 0.5 else r.choice([n for n in f.files if n.endswith((".json", ".jsonl")) and n != ATTESTATION])
    lines = f.files[name].removesuffix(b"\n").split(b"\n")
    at = r.randrange(len(lines))
    value = canonical.decode(lines[at], limits=canonical.DOCUMENT)
    tags = [value[tag] for tag in ("measured", "derived") if name == LEDGER and value[tag]]
    where = change_somewhere(r.choice(tags) if tags and r.random() < 0.8 else value, r)
    lines[at] = canonical.encode(value, limits=canonical.DOCUMENT)
    f.files[name] = b"\n".join(lines) + (b"\n" if f.files[name].endswith(b"\n") else b"")
    return f"value of {where} in {name}"


def change_somewhere(value: Any, r: random.Random, where: str = "") -> str:
    """In place; returns where"""
    key = r.choice(sorted(value)) if isinstance(value, dict) else r.randrange(len(value))
    inner, path = value[key], f"{where}.{key}" if where else str(key)
    if isinstance(inner, dict | list) and inner and r.random() < 0.9:
        return change_somewhere(inner, r, path)
    if isinstance(value, dict) and r.random() < 0.1:
        del value[key]
    else:
        value[key] = other_value(inner, r)
    return path


def other_value(value: Any, r: random.Random) -> Any:
    if r.random() < 0.1:
        return r.choice([None, True, {}, [], "", 0, -1, {"absent": "zero norm"}, canonical.LARGEST])
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + r.choice([-1, 1, 10])
    if isinstance(value, float):
        return canonical.number(r.choice([math.nextafter(value, math.inf), -value, value * 2]))
    return other_text(value, r) if isinstance(value, str) else [value]


def other_text(text: str, r: random.Random) -> str:
    """A vector keeps its length and a digest its form"""
    if len(text) % 4 == 0 and len(text) >= 8 and not set(text) <= set("0123456789abcdef"):
        try:
            row = f32s(text)
            n = r.randrange(len(row))
            return f32_text([*row[:n], f32s(f32_text([row[n] * 2]))[0], *row[n + 1 :]])
        except (canonical.CanonicalRefusal, OverflowError):
            pass
    if not text:
        return "0"
    at = r.randrange(len(text))
    return text[:at] + r.choice("0123456789abcdef") + text[at + 1 :]


# ---- rows


def in_sidecar(change: Callable[[Forgery, random.Random, str], str]) -> Mutation:
    """In a file of rows, if there is one"""

    def mutate(f: Forgery, r: random.Random) -> str:
        found = [name for name in f.files if name.startswith(("rows/", "router/"))]
        return change(f, r, r.choice(found)) if found else edit_value(f, r)

    return mutate


def parts_of(f: Forgery, name: str) -> tuple[bytes, bytes]:
    """Header and rows"""
    start = header_length(f.files[name][:8], name)
    return f.files[name][:start], f.files[name][start:]


def step_in_row(f: Forgery, r: random.Random, name: str) -> str:
    """One number by one binary32 step"""
    header, rows = parts_of(f, name)
    number = r.randrange(len(rows) // 4)
    f.files[name] = header + ulp(rows, number)
    return f"number {number} of {name} by one step"


def swap_rows(f: Forgery, r: random.Random, name: str) -> str:
    folder = name.partition("/")[0]
    tensor, rows, _ = r.choice(f.layout(folder).tensors)
    positions = [position for position, slot in f.scene.slots if slot == "embed"]
    a, b = ((r.choice(positions), r.randrange(rows)) for _ in range(2))
    first, second = (f.row(folder, position, tensor, index) for position, index in (a, b))
    f.set_row(folder, a[0], tensor, a[1], second)
    f.set_row(folder, b[0], tensor, b[1], first)
    return f"rows {a} and {b} of {tensor} swapped"


def edit_header(f: Forgery, r: random.Random, name: str) -> str:
    header, rows = parts_of(f, name)
    f.files[name] = r.choice((flipped, other_byte, cut, inserted))(header, r) + rows
    return f"header of {name}"


BYTES = tuple(
    bytewise(title, change)
    for title, change in (
        ("a bit flipped", flipped), ("another byte", other_byte), ("bytes inserted", inserted), ("bytes repeated", duplicated), ("bytes cut", cut),
        ("the end cut off", truncated),
    )
)  # fmt: skip
LINES = (linewise("lines swapped", swap_lines), linewise("a line repeated", repeat_line), linewise("a line dropped", drop_line))
ROWS = tuple(map(in_sidecar, (step_in_row, swap_rows, edit_header)))
BARE: tuple[Mutation, ...] = (*BYTES, *LINES, edit_value, edit_value, *ROWS, swap_files, drop_file, rename_file)
SIGNED: tuple[Mutation, ...] = (*BYTES[:2], *LINES, *[edit_value] * 8, *ROWS, drop_file)
