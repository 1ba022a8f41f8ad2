"""One picture for a page without scripts: at which layer each token became the one that the model would say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from formation.evidence.plain import cut
from formation.explorer.gallery.markup import Markup, element
from formation.ledger.tables import Absent, CellRecord, TokenRecord

MOST = 32  # tokens, one a column
RANKS = (1, 3, 10, 100, 1000)  # the darkest up to the first, and so on
LEFT, LABELS, RIGHT = 34, 78, 60  # pixels: of what stands beside and above, of the last label's end
WIDE, NARROW, TALL, FLAT, FEW = 44, 26, 24, 7, 16  # pixels of a cell: of up to FEW columns or layers, and of more
LETTERS, LONGEST = 12, 120  # of a token: in the figure, and anywhere


@dataclass(frozen=True)
class Column:
    """A token and, by layer, its rank among all tokens if the row after that layer were the last one (logit lens)"""

    token: TokenRecord
    ranks: tuple[int | Absent, ...]


@dataclass(frozen=True)
class Cell:
    """Of the figure, in pixels"""

    width: int
    height: int


def column(token: TokenRecord, cells: Sequence[CellRecord]) -> Column:
    return Column(token, tuple(cell.lens_rank for cell in cells))


def is_captured(columns: Sequence[Column]) -> bool:
    return bool(columns) and not any(isinstance(rank, Absent) for each in columns for rank in each.ranks)


def figure(columns: Sequence[Column]) -> Markup:
    """Layers go up; a ring marks the first layer from which on the token has rank 1. `columns` were captured."""
    layers = len(columns[0].ranks)
    cell = Cell(WIDE if len(columns) <= FEW else NARROW, TALL if layers <= FEW else FLAT)
    width, bottom = LEFT + cell.width * len(columns) + RIGHT, LABELS + cell.height * layers
    said = f"Rank of each of {len(columns)} tokens after each of {layers} layers; the explorer has the numbers"
    marks = [*axis(layers, cell), *(mark for n, each in enumerate(columns) for mark in marks_of(each, LEFT + cell.width * n, cell))]
    return element("svg.lens", *marks, viewBox=f"0 0 {width} {bottom + 4}", width=width, height=bottom + 4, role="img", aria_label=said)


def axis(layers: int, cell: Cell) -> Iterator[Markup]:
    step = next(each for each in (1, 2, 5, 10, 20, 50, 100, layers) if layers <= 12 * each)
    for layer in range(0, layers, step):
        yield element("text", f"L{layer}", x=LEFT - 6, y=top(layer, layers, cell) + cell.height / 2 + 4, text_anchor="end")


def marks_of(each: Column, x: int, cell: Cell) -> Iterator[Markup]:
    layers, arrival = len(each.ranks), each.token.arrival_layer
    yield element("text.token", label(each.token), transform=f"translate({x + cell.width / 2 + 3} {LABELS - 7}) rotate(-50)")
    for layer, rank in enumerate(each.ranks):
        told = element("title", f"layer {layer}: rank {rank}")
        yield element(f"rect.r{shade(rank)}", told, x=x, y=top(layer, layers, cell), width=cell.width, height=cell.height)
    if not isinstance(arrival, Absent):
        kind, y = "rect.ring" if cell.height == TALL else "rect.ring.thin", top(arrival, layers, cell) + 2
        yield element(kind, x=x + 2, y=y, width=cell.width - 4, height=max(cell.height - 4, 3))


def top(layer: int, layers: int, cell: Cell) -> int:
    return LABELS + cell.height * (layers - 1 - layer)


def shade(rank: int | Absent) -> int:
    return next((n for n, most in enumerate(RANKS) if not isinstance(rank, Absent) and rank <= most), len(RANKS))


def scale() -> Markup:
    """What the shades mean"""
    names = ["rank 1", *(f"{low + 1:,} to {high:,}" for low, high in pairwise(RANKS)), f"over {RANKS[-1]:,}"]
    items = [element("li", element(f"span.swatch.r{n}", aria_hidden="true"), name) for n, name in enumerate(names)]
    ring = element("li", element("span.swatch.ringed", aria_hidden="true"), "arrival: rank 1 from here on")
    return element("ul.scale", *items, ring)


# ---- a token's text


def spelled(token: TokenRecord) -> str:
    """What it spells, with line feeds as a sign and spaces alone made visible; bytes that are no UTF-8 in hexadecimal"""
    if isinstance(token.text, Absent):
        return cut(f"0x{token.bytes.hex()}", LONGEST)
    found = cut(str(token.text), LONGEST).replace("\n", "↵").replace("\t", "⇥")
    return found if found.strip(" ") else "␣" * len(found)


def label(token: TokenRecord) -> str:
    return cut(spelled(token).strip(" "), LETTERS)
