"""Show a ledger in the terminal: the tokens of a run, one token and its layers, or one cell in full with its tags; or the table of all fields."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formation.cli.options import add_json
from formation.cli.speech import harmless, say

if TYPE_CHECKING:
    from formation.evidence.bundle import Bundle
    from formation.ledger.tables import CellRecord, Column, ExpertRecord, Record, TokenRecord

HELP = "the tokens of a recorded run, or one cell in full"
NAME, VALUE, WIDE = 37, 44, 22  # widths of a name, a value, a token's text
LONGEST = 300  # characters of what an operator declares of a machine
LAYER_COLUMNS = (
    "residual_norm", "attention_relative", "mlp_relative", "dla_attention", "dla_mlp", "lens_logprob", "lens_rank", "lens_kl",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="NAME.ofb", nargs="?", help="a recorded bundle")
    parser.add_argument("--token", type=int, metavar="T", help="the T-th generated token, from 1")
    parser.add_argument("--layer", type=int, metavar="L", help="one layer of that token")
    parser.add_argument("--fields", action="store_true", help="the field table: every value that a ledger can hold")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from formation.errors import UsageError
    from formation.evidence.bundle import Bundle

    if args.fields:
        print_fields(as_json=args.json)
        return 0
    if args.bundle is None or (args.layer is not None and args.token is None):
        raise UsageError("show: expected a bundle, and --token with --layer, got less", hint="formation show NAME.ofb --token 1 --layer 0")
    bundle = Bundle(args.bundle)
    if not bundle.complete:
        say("INCOMPLETE: a run that was cut off or did not hold; its ledger was never closed")
    if args.token is None:
        print_bundle(bundle, as_json=args.json)
    else:
        print_formation(find(bundle, args.token, args.layer), args.layer, as_json=args.json)
    return 0


# ---- a run


def print_bundle(bundle: Bundle, *, as_json: bool) -> None:
    from formation.evidence.export import head
    from formation.evidence.plain import plain_record

    if as_json:
        tokens = [plain_record(token) for token in bundle.tokens]
        told = {"kind": "formation-show/1", "files": dict(files(bundle.folder)), "host": host_of(bundle.folder), "tokens": tokens}
        print(json.dumps({**head(bundle), **told}))
    else:
        print("\n".join([*bundle_lines(bundle), "", *token_lines(bundle.tokens)]))


def bundle_lines(bundle: Bundle) -> list[str]:
    from formation.ledger.tables import Absent

    run, anchor, first = bundle.run, bundle.anchor, bundle.anchor_token
    shape = run.shape
    leads = first.reason if isinstance(first, Absent) else f"leads first to id {first.id} at position {first.position}"
    deltas = run.kinds.count("delta")
    kinds = f", {deltas} of them delta nets" if deltas else ""
    experts = f", {shape.chosen} of {shape.experts} experts a token from layer {shape.dense_layers} on" if shape.experts else ""
    given = f"ids, of which {anchor.tokens} are scored" if anchor.scores else f"prompt tokens, {anchor.sampler['method']}"
    return [
        f"run            {bundle.run_id}, {'complete' if bundle.complete else 'INCOMPLETE'}",
        f"anchor         {len(anchor.prompt_ids)} {given}; {leads}",
        *([f"fork           of run {anchor.fork.parent} at its token {anchor.fork.token}; {len(anchor.fork.forced)} given"] if anchor.fork else []),
        f"captured       {run.step_level} at steps, {run.prompt_level} at other positions; {shape.layers} layers{kinds}{experts}",
        *machine_lines(host_of(bundle.folder)),
        *file_lines(dict(files(bundle.folder))),
    ]


def files(folder: Path) -> Iterator[tuple[str, int]]:
    """Name and size in bytes of what the folder holds; of a folder in it, with "/" behind its name, the sum of its files"""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield f"{path.name}/", sum(each.lstat().st_size for each in path.iterdir())
        else:
            yield path.name, path.lstat().st_size


def host_of(folder: Path) -> dict[str, Any]:
    """host.json: the machine that began and those that went on, as their operators declare them; or why it cannot be said"""
    from formation.errors import FormationError
    from formation.evidence.documents import read_host
    from formation.ledger import reader
    from formation.ledger.files import read_whole

    try:
        return read_host(read_whole(folder / "host.json"), reader.survey(folder).readable.lines)
    except FormationError as error:
        return {"absent": str(error)}


def machine_lines(host: dict[str, Any]) -> Iterator[str]:
    if "absent" in host:
        yield f"declared       no machine: {harmless(host['absent'])}"
        return
    yield f"declared       {machine(host)}"
    for each in host["resumed"]:
        yield f"{'':15}resumed at line {each['from_line']}: {machine(each)}"


def machine(told: dict[str, Any]) -> str:
    from formation.evidence.plain import counted, size

    disk, mirrors = told["file_system"], told["mirrors"]
    threads = f"{counted(told['threads'], 'thread')} on {counted(told['cores'], 'core')}, {told['kernels']}"
    memory = f"budget {size(told['memory_budget_bytes'])} of {size(told['memory_bytes'])}"
    where = f"{disk['kind']} ({disk['source']})" + (f" and {counted(len(mirrors), 'mirror')}" if mirrors else "")
    said = f"{threads}; {memory}; {where}; {told['system']}; formation {told['formation']}"
    return harmless(said if len(said) <= LONGEST else said[: LONGEST - 1] + "…")


def file_lines(sizes: dict[str, int]) -> list[str]:
    from formation.run.machine import show_bytes

    shown = [f"{harmless(name)} {show_bytes(size)}" for name, size in sizes.items()]
    lines = [", ".join(shown[n : n + 4]) for n in range(0, len(shown), 4)]
    rows = "rows and router logits are beside the ledger" if "rows/" in sizes else "no rows: only their digests, in the ledger"
    return [f"{'holds' if not n else '':15}{line}" for n, line in enumerate([*lines, rows])]


def tokens(folder: Path) -> Iterator[TokenRecord]:
    from formation.evidence.bundle import Bundle

    return Bundle(folder).tokens


def token_lines(records: Iterable[TokenRecord]) -> list[str]:
    lines = [f"{'#':>4} {'position':>8} {'id':>7}  {'token':{WIDE}} {'surprisal':>9} {'entropy':>8} {'rank':>5} {'margin':>8}  arrives"]
    for t in records:
        numbers = f"{t.surprisal_nats:>9.4f} {t.entropy_nats:>8.4f} {t.rank_low:>5} {t.top_margin:>8.3f}"
        arrives = f"layer {t.arrival_layer}" if isinstance(t.arrival_layer, int) else t.arrival_layer.reason
        lines.append(f"{t.token:>4} {t.position:>8} {t.id:>7}  {spelled(t)} {numbers}  {arrives}")
    return [*lines, "surprisal and entropy in nats; arrives: the first layer after which the token stays the lens's first choice"]


def spelled(token: TokenRecord) -> str:
    """What the token spells, on WIDE columns of a terminal"""
    from rich.cells import cell_len, set_cell_size

    from formation.evidence.plain import inert

    text = inert(token.text) if isinstance(token.text, str) else f"bytes {token.bytes.hex(' ')}"
    return set_cell_size(text, WIDE) if cell_len(text) <= WIDE else set_cell_size(text, WIDE - 1) + "…"


# ---- a token, a cell


@dataclass(frozen=True)
class Formation:
    """One token with the cells and experts that formed it."""

    token: TokenRecord
    cells: list[CellRecord]
    experts: list[ExpertRecord]


def find(bundle: Bundle, number: int, layer: int | None) -> Formation:
    """The token `number`, with all its layers or one. Raises UsageError."""
    from formation.errors import UsageError
    from formation.ledger.tables import CellRecord, TokenRecord

    layers, formed = bundle.run.shape.layers, 0
    if layer is not None and not 0 <= layer < layers:
        raise UsageError(f"{bundle.folder}: expected layer 0 to {layers - 1}, got {layer}")
    held: list[Record] = []
    for record in bundle.records:
        if isinstance(record, TokenRecord):
            formed = record.token
            if formed == number:
                own = [each for each in held if each.position == record.step and layer in (None, each.layer)]
                cells = [each for each in own if isinstance(each, CellRecord)]
                return Formation(record, cells, [each for each in own if not isinstance(each, CellRecord)])  # type: ignore[misc]
            held = []
        elif not held or held[-1].position == record.position:
            held.append(record)
        else:
            held = [record]
    raise UsageError(f"{bundle.folder}: expected token 1 to {formed}, got {number}")


def print_formation(found: Formation, layer: int | None, *, as_json: bool) -> None:
    from formation.evidence.plain import plain_record

    if as_json:
        cells, experts = (list(map(plain_record, rows)) for rows in (found.cells, found.experts))
        print(json.dumps({"token": plain_record(found.token), "cells": cells, "experts": experts}))
        return
    t = found.token
    where = f"token {t.token}: id {t.id}, {spelled(t).strip()}, at position {t.position} ({t.kind}), formed at position {t.step}"
    lines = layers_lines(found) if layer is None else cell_lines(found.cells[0], found.experts)
    print("\n".join([where, "", *lines]))


def layers_lines(found: Formation) -> list[str]:
    head = f"{'layer':>5} " + " ".join(f"{name:>{max(len(name), 9)}}" for name in LAYER_COLUMNS) + "  experts"
    rows = [
        f"{cell.layer:>4}{mark(cell)} " + " ".join(f"{brief(getattr(cell, name)):>{max(len(name), 9)}}" for name in LAYER_COLUMNS)
        + f"  {brief(cell.chosen)}" for cell in found.cells
    ]  # fmt: skip
    deltas = ["δ: a delta net, in the place of attention"] if any(mark(cell) != " " for cell in found.cells) else []
    return [*value_lines(found.token), "", head, *rows, *deltas]


def mark(cell: CellRecord) -> str:
    """One character for what mixes positions in the layer: a space for attention"""
    return " " if isinstance(cell.cache_entry_sha256, str) else "δ"


def cell_lines(cell: CellRecord, experts: Sequence[ExpertRecord]) -> list[str]:
    """Every value of a cell: those of single experts as tables, the others one below the other"""
    refused = [column for column, value in cell.items() if column.length == "R" and value]
    lines = [f"layer {cell.layer} at position {cell.position} ({cell.kind})", *value_lines(cell)]
    if experts:
        columns = [column for column, _ in experts[0].items() if column.tag != "place"]
        names = ["shared" if each.shared else str(each.expert) for each in experts]
        lines += ["", *table("expert", columns, names, [[getattr(each, c.name) for c in columns] for each in experts])]
    if refused:
        named, *columns = refused
        rows = list(zip(*(getattr(cell, column.name) for column in columns), strict=True))
        lines += ["", *table("runner-up", columns, [str(e) for e in getattr(cell, named.name)], rows)]
    return lines


def value_lines(record: Record) -> Iterator[str]:
    """One value a line with its unit and tag, then what is absent by reason"""
    from textwrap import wrap

    from formation.evidence.plain import absences
    from formation.ledger.tables import Absent

    for column, value in record.items():
        if column.tag == "place" or column.length in ("K", "R") or isinstance(value, Absent):
            continue
        first, *more = value_texts(column, value)
        yield f"  {column.name:{NAME}}{first:{VALUE}} {column.unit:10}{source(column)}"
        yield from (f"  {'':{NAME}}{each}" for each in more)
    for reason, names in absences(record).items():
        yield from wrap(f"absent, {reason}: {', '.join(names)}", 118, initial_indent="  ", subsequent_indent="    ")


def source(column: Column) -> str:
    return f"{column.tag}, from {column.recompute}" if column.recompute else column.tag


def value_texts(column: Column, value: Any) -> list[str]:
    """In full, on one line or several"""
    from formation.evidence.plain import inert, plain

    if column.dtype == "record[]":
        return [", ".join(f"{name} {brief(each[name])}" for name, _ in column.keys) for each in value] or ["none"]
    if isinstance(value, tuple):
        return [", ".join(brief(each) for each in value[n : n + 5]) for n in range(0, len(value), 5)] or ["none"]
    if isinstance(value, float):
        return [f"{value:.9g}" if column.dtype == "f32" else repr(value)]
    return [str(value) if column.dtype in ("int", "sha256") else inert(str(plain(value)))]


def table(title: str, columns: Sequence[Column], names: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    widths = [max(len(column.name), 10) for column in columns]
    cells = [("", [c.recompute or c.tag for c in columns]), *zip(names, ([brief(value) for value in row] for row in rows), strict=True)]
    return [
        f"  {name:>9} " + " ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        for name, row in [(title, [column.name for column in columns]), *cells]
    ]


def brief(value: Any) -> str:
    """A value in a table: six digits; --json has them all"""
    from formation.ledger.tables import Absent

    if isinstance(value, Absent):
        return "–"
    return " ".join(map(brief, value)) if isinstance(value, tuple) else f"{value:.6g}" if isinstance(value, float) else str(value)


# ---- the field table


def print_fields(*, as_json: bool) -> None:
    from formation.ledger import fields

    print(json.dumps(fields.table()) if as_json else "\n".join(field_lines()))


def field_lines() -> list[str]:
    from formation.ledger.fields import FIELDS

    return [
        f"{f.slot:8} {f.name:34} {f.tag:9} {f.level:9} {f.dtype:9} {f.unit:10} {f.definition}"
        + (f"  = {f.formula} [{f.recompute}]" if f.formula else "")
        for f in FIELDS
    ]
