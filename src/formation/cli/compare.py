"""Compare two recorded runs: what their anchors share, where their ledgers first differ, how that grows over the layers, their tokens side by side.

For two prompts, two settings of the sampler, two seeds, two quantisations, or one run captured at two levels. A difference is a result: exit
code 0. Nothing is verified: formation verify does that.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formation.cli.options import add_json
from formation.cli.speech import harmless, say

if TYPE_CHECKING:
    from formation.evidence.comparison import Comparison, Layer, Spread, Unequal
    from formation.ledger.tables import TokenRecord

HELP = "where two recorded runs first differ"
NAME, TEXT, MOST = 15, 22, 64  # widths of a name, a token's text; tokens that are shown
FIELDS = 4  # of the first differing line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", type=Path, metavar="A.ofb", help="a recorded bundle")
    parser.add_argument("b", type=Path, metavar="B.ofb", help="another")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from formation.evidence.comparison import compare

    found = compare(args.a, args.b)
    for side in (found.a, found.b):
        if not side.complete:
            say(f"INCOMPLETE: {harmless(side.folder)}: a run that was cut off or did not hold; compared as far as it goes")
    print(json.dumps(document(found)) if args.json else harmless("\n".join(lines(found))))
    return 0


# ---- JSON


def document(found: Comparison) -> dict[str, Any]:
    first = found.first_token
    return {
        "kind": "formation-comparison/1", "same": found.same, "a": asdict(found.a), "b": asdict(found.b),
        "anchors": {"shared": found.shared, "unequal": list(map(asdict, found.unequal))},
        "fields": {"only_a": found.only_a, "only_b": found.only_b}, "positions": found.positions,
        "first": asdict(found.first) if found.first else None, "first_token": first.number if first else None,
        "layers": [asdict(layer) for layer in found.layers], "spread": [asdict(spread) for spread in found.spread],
        "tokens": [{"token": pair.number, "same": pair.same, "a": token(pair.a), "b": token(pair.b)} for pair in found.tokens],
    }  # fmt: skip


def token(record: TokenRecord | None) -> dict[str, Any] | None:
    from formation.evidence.plain import plain

    if record is None:
        return None
    return {name: plain(getattr(record, name)) for name in ("id", "text", "bytes", "position", "probability", "surprisal_bits")}


# ---- the terminal


def lines(found: Comparison) -> Iterator[str]:
    yield from side_lines(found)
    yield from anchor_lines(found)
    yield from first_lines(found)
    yield from layer_lines(found)
    yield ""
    yield from token_lines(found)


def side_lines(found: Comparison) -> Iterator[str]:
    for name, side in (("a", found.a), ("b", found.b)):
        captured = f"{side.capture['steps']} at steps, {side.capture['prompt']} at other positions"
        yield f"{name:{NAME}}{side.folder}: run {side.run_id[:16]}…, {side.lines} lines, captured {captured}{'' if side.complete else ', INCOMPLETE'}"
    if found.same:
        yield f"{'ledgers':{NAME}}the same ledger: {found.a.lines} lines, root {found.a.root}"
    else:
        yield f"{'ledgers':{NAME}}roots {found.a.root[:16]}… and {found.b.root[:16]}…"


def anchor_lines(found: Comparison) -> Iterator[str]:
    apart = {each.field.partition(".")[0] for each in found.unequal}
    whole = dict.fromkeys(name.partition(".")[0] for name in found.shared[1:])  # without the document's kind
    shared = f"share {', '.join(name for name in whole if name not in apart)}; differ in" if found.unequal else "the same"
    yield f"{'anchors':{NAME}}{shared}"
    yield from unequal_lines(found.unequal)


def unequal_lines(unequal: Sequence[Unequal]) -> Iterator[str]:
    for each in unequal:
        yield f"{'':{NAME}}{each.field}: {value(each.a)} and {value(each.b)}"


def value(found: Any) -> str:
    from formation.evidence.plain import inert
    from formation.ledger.departure import shown

    if isinstance(found, str):
        text = inert(found)
        return text if len(text) <= 40 else f"{text[:39]}…"
    return shown(found)


def first_lines(found: Comparison) -> Iterator[str]:
    if not found.same:
        for name, only in (("a", found.only_a), ("b", found.only_b)):
            if only:
                yield f"{f'only in {name}':{NAME}}{len(only)} fields of the field table, which are not compared"
    if found.first is None:
        yield f"{'first differ':{NAME}}nowhere, in the fields that both hold of {found.positions} positions"
        return
    first = found.first
    yield f"{'first differ':{NAME}}{first.slot} at position {first.position}, in {len(first.unequal)} of {first.compared} fields"
    yield from unequal_lines(first.unequal[:FIELDS])
    if len(first.unequal) > FIELDS:
        yield f"{'':{NAME}}and {len(first.unequal) - FIELDS} more: {', '.join(each.field for each in first.unequal[FIELDS:])}"[:150]


def layer_lines(found: Comparison) -> Iterator[str]:
    if not found.layers:
        yield f"{'rows':{NAME}}equal at every layer of {found.positions} positions"
        return
    yield ""
    yield f"{'':22}position {found.layers[0].position}, the first at which rows differ{'':9}all {found.positions} positions"
    here = f"{'row':>9} {'norm in a':>12} {'norm in b':>12} {'apart':>9} {'experts':>9}"
    yield f"{'layer':>5}  {here}    {'rows equal':>12} {'apart':>9} {'experts':>9}"
    for layer, spread in zip(found.layers, found.spread, strict=False):
        yield f"{layer.layer:>5}  {layer_line(layer)}    {spread_line(spread)}"


def layer_line(layer: Layer) -> str:
    experts = "dense" if layer.experts is None else f"{layer.experts} of {layer.chosen}"
    return f"{'equal' if layer.equal else 'differs':>9} {layer.norm_a:>12.6g} {layer.norm_b:>12.6g} {layer.apart:>9.2%} {experts:>9}"


def spread_line(spread: Spread) -> str:
    experts = f"{spread.experts / spread.chosen:.0%}" if spread.chosen else "dense"
    return f"{f'{spread.equal} of {spread.positions}':>12} {spread.apart / spread.positions:>9.2%} {experts:>9}"


def token_lines(found: Comparison) -> Iterator[str]:
    first = found.first_token
    said = f"differ from token {first.number} on" if first else "the same"
    yield f"{'tokens':{NAME}}{said}; surprisal in bits"
    yield f"{'token':>5}   {'a':{TEXT}} {'id':>7} {'surprisal':>10}    {'b':{TEXT}} {'id':>7} {'surprisal':>10}"
    start = max(0, first.number - MOST // 2) if first else 0
    for pair in found.tokens[start : start + MOST]:
        yield f"{pair.number:>5} {' ' if pair.same else '*'} {half(pair.a)}    {half(pair.b)}".rstrip()
    if len(found.tokens) > MOST:
        yield f"tokens {start + 1} to {min(start + MOST, len(found.tokens))} of {len(found.tokens)}; --json has all"


def half(record: TokenRecord | None) -> str:
    from formation.cli.show import spelled

    if record is None:
        return f"{'–':{TEXT}} {'':7} {'':10}"
    return f"{spelled(record)} {record.id:>7} {record.surprisal_bits:>10.4f}"
