"""The figures of a note: how one token formed along the layers, what wrote its logit, which experts the router chose.

A value that the ledger does not hold is not drawn; sections.py says why, in the caption.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from formation.exact64 import log64
from formation.ledger.tables import SHARED, Absent, CellRecord
from formation.note.marks import (
    BLUE,
    CENTRE,
    FAINT,
    INK,
    PAPER,
    RED,
    RIGHT,
    YELLOW,
    Figure,
    Line,
    Mark,
    Rect,
    Scale,
    Words,
    axis,
    on,
    ramp,
    signed,
    spaced,
)
from formation.note.material import Formation, Told
from formation.note.words import number, token_text

WIDTH = 482.0  # points between the margins
LABELS = 20  # layers that are labelled at most
ATTENTION, DELTA_NET = "attention", "delta net"


# ---- the lens


def lens(told: Told, formation: Formation) -> Figure:
    """Left: log probability of the token and of its rival in the lens of each layer. Right: rank of every shown token."""
    rows = len(told.tokens)
    cell = 13.0 if rows <= 12 else 9.0
    height = max(126.0, 24 + rows * cell + 16)
    marks: list[Mark] = [*lens_lines(formation, 30.0, 190.0, height), *lens_ranks(told, 292.0, WIDTH, cell)]
    return Figure(WIDTH, height, marks)


def lens_lines(formation: Formation, left: float, right: float, height: float) -> Iterator[Mark]:
    cells, top, bottom = formation.cells, 20.0, min(height, 140.0) - 24.0
    lines = [("lens_logprob", BLUE, "the token"), ("lens_runner_up_logprob", YELLOW, "the runner-up")]
    known = [getattr(cell, name) for cell in cells for name, _, _ in lines]
    scale = Scale(0.0, min([-1.0, *(float(v) for v in known if not isinstance(v, Absent))]), top, bottom)
    across = Scale(0, max(len(cells) - 1, 1), left + 6, right - 6)
    yield Words(left - 26, 6, "a   log probability in the lens of each layer (nats)", fill=FAINT)
    yield from axis(scale, left, right)
    for name, colour, _ in reversed(lines):
        yield from polyline(cells, name, colour, across, scale)
    for n, (_, colour, label) in enumerate(lines):
        yield Rect(left + 80 * n, bottom + 17, 8, 1.6, colour)
        yield Words(left + 11 + 80 * n, bottom + 18, label, fill=FAINT)
    yield Words(left - 3, bottom + 8, "layer", RIGHT, FAINT)
    for n in spaced(len(cells), 12):
        yield Words(across(n), bottom + 8, str(n), CENTRE, FAINT)


def polyline(cells: Sequence[CellRecord], name: str, colour: str, across: Scale, scale: Scale) -> Iterator[Mark]:
    values = [getattr(cell, name) for cell in cells]
    for n, (a, b) in enumerate(pairwise(values)):
        if not isinstance(a, Absent) and not isinstance(b, Absent):
            yield Line(across(n), scale(a), across(n + 1), scale(b), colour, 1.0)
    if len(values) <= LABELS:
        for n, value in enumerate(values):
            if not isinstance(value, Absent):
                yield Rect(across(n) - 1.3, scale(value) - 1.3, 2.6, 2.6, colour)


def lens_ranks(told: Told, left: float, right: float, cell: float) -> Iterator[Mark]:
    layers, top = max(map(len, told.ranks)), 20.0
    width = (right - left) / layers
    most = max((float(rank) for row in told.ranks for rank in row if not isinstance(rank, Absent)), default=1.0)
    yield Words(left, 6, "b   rank of each token in the lens of each layer", fill=FAINT)
    for n, (token, row) in enumerate(zip(told.tokens, told.ranks, strict=True)):
        y = top + n * cell
        yield Words(left - 4, y + cell / 2, token_text(token, 14), RIGHT, mono=True, size=6.0)
        for layer, rank in enumerate(row):
            share = 0.0 if isinstance(rank, Absent) else 1 - log64(max(rank, 1)) / log64(max(most, 2))
            yield Rect(left + layer * width, y, width, cell, ramp(share), PAPER)
            if width >= 14 and not isinstance(rank, Absent):
                yield Words(left + (layer + 0.5) * width, y + cell / 2, str(rank), CENTRE, on(share), size=6.0)
    yield Words(left - 4, top + len(told.ranks) * cell + 7, "layer", RIGHT, FAINT)
    for layer in spaced(layers, 15):
        yield Words(left + (layer + 0.5) * width, top + len(told.ranks) * cell + 7, str(layer), CENTRE, FAINT)


# ---- the waterfall


@dataclass(frozen=True)
class Bar:
    """One contribution to a logit, in the order in which the residual stream gets it."""

    label: str
    value: float
    colour: str


def bars(formation: Formation) -> list[Bar]:
    """Embedding, every attention and MLP write, all roundings together, lm_head's own. Their sum is the engine's logit."""
    token, cells = formation.token, formation.cells
    found = [Bar("embedding", token.embed_dla, INK)]
    for cell in cells:
        found += [Bar(str(cell.layer), cell.dla_attention, BLUE), Bar("", cell.dla_mlp, YELLOW)]
    return [*found, Bar("roundings", roundings(cells), FAINT), Bar("lm_head", token.lm_head_rounding, FAINT)]


def roundings(cells: Sequence[CellRecord]) -> float:
    return math.fsum(value for cell in cells for value in (cell.dla_attention_rounding, cell.dla_mlp_rounding))


def waterfall(formation: Formation) -> Figure:
    found = bars(formation)
    height, left, top = 172.0, 30.0, 22.0
    ends = list(accumulate((bar.value for bar in found), initial=0.0))
    total = float(formation.token.chosen_logit)
    scale = Scale(max([*ends, total]), min([*ends, total]), top + 4, height - 28)
    right = WIDTH - 30
    slot = (right - left) / (len(found) + 1)
    marks: list[Mark] = [*axis(scale, left, right), Line(left, scale(0.0), right, scale(0.0), FAINT, 0.6)]
    marks += legend(left, formation)
    for n, (bar, (begin, end)) in enumerate(zip(found, pairwise(ends), strict=True)):
        marks += one_bar(bar, begin, end, left + n * slot, slot, scale)
    marks += bar_labels(formation, left, slot, height - 18, len(found))
    x = left + len(found) * slot
    marks.append(Rect(x + slot * 0.14, min(scale(0.0), scale(total)), slot * 0.72, abs(scale(total) - scale(0.0)), RED))
    marks.append(Words(right + 2, scale(total), number(total, 4), fill=RED))
    return Figure(WIDTH, height, marks)


def mixer(cell: CellRecord) -> str:
    """What writes in the place of attention"""
    return DELTA_NET if isinstance(cell.cache_entry_sha256, Absent) else ATTENTION


def legend(left: float, formation: Formation) -> Iterator[Mark]:
    writers = " or ".join(dict.fromkeys(mixer(cell) for cell in sorted(formation.cells, key=mixer)))
    named = (("embedding", INK), (f"{writers} write", BLUE), ("MLP or MoE write", YELLOW), ("the engine's logit", RED))
    for n, (label, colour) in enumerate(named):
        yield Rect(left + 96 * n, 4, 6, 6, colour)
        yield Words(left + 9 + 96 * n, 7, label, fill=FAINT)


def one_bar(bar: Bar, begin: float, end: float, x: float, slot: float, scale: Scale) -> Iterator[Mark]:
    low, high = scale(max(begin, end)), scale(min(begin, end))
    yield Rect(x + slot * 0.14, low, slot * 0.72, max(high - low, 0.4), bar.colour)
    yield Line(x + slot * 0.86, scale(end), x + slot * 1.14, scale(end), FAINT, 0.3)
    if slot >= 24:
        small = abs(bar.value) < 5e-4
        yield Words(x + slot / 2, low - 5, signed(f"{bar.value:+.0e}" if small and bar.value else f"{bar.value:+.2f}"), CENTRE, FAINT, size=5.5)


def bar_labels(formation: Formation, left: float, slot: float, y: float, count: int) -> Iterator[Mark]:
    layers = len(formation.cells)
    if slot >= 20:
        yield Words(left + slot / 2, y, "embed", CENTRE, FAINT)
    for n in spaced(layers, LABELS):
        yield Words(left + slot * (2 * n + 2), y, str(n), CENTRE, FAINT)
    yield Words(left + slot * (layers + 1), y + 11, "layer", CENTRE, FAINT)
    if slot >= 20:
        for n, label in ((count - 2, "rounding"), (count - 1, "lm_head"), (count, "logit")):
            yield Words(left + slot * (n + 0.5), y, label, CENTRE, FAINT, size=5.5)
    else:
        yield Words(left + slot * (count + 1), y, "logit", CENTRE, FAINT)


# ---- the strongest contributions


def strongest(formation: Formation, most: int) -> list[tuple[str, str, float]]:
    """Name, ledger reference and value of the largest single contributions: embedding, attention and delta nets, dense MLPs, experts"""
    step = formation.token.step
    found = [("embedding", f"{step}/embed/dla", float(formation.token.embed_dla))]
    for cell in formation.cells:
        where = f"{step}/layer {cell.layer}"
        found.append((f"{mixer(cell)} of layer {cell.layer}", f"{where}/dla_attention", cell.dla_attention))
        if not cell.chosen:
            found.append((f"MLP of layer {cell.layer}", f"{where}/dla_mlp", cell.dla_mlp))
    found += [of_expert(expert, formation) for expert in formation.experts if not isinstance(expert.dla, Absent)]
    return sorted(found, key=lambda each: (-abs(each[2]), each[1]))[:most]


def of_expert(expert: Any, formation: Formation) -> tuple[str, str, float]:
    where = f"{formation.token.step}/layer {expert.layer}"
    if expert.expert == SHARED:
        return f"shared expert of layer {expert.layer}", f"{where}/dla_shared", float(expert.dla)
    place = formation.cells[expert.layer].chosen.index(expert.expert)
    return f"expert {expert.expert} of layer {expert.layer}", f"{where}/dla_experts[{place}]", float(expert.dla)


# ---- routing


def routing(told: Told, formation: Formation, experts: int) -> Figure:
    """A row for each layer with experts, a column for each expert: dark by its mean gate over all tokens, framed if chosen for the token."""
    layers = with_experts(formation)
    left, top, margins = 30.0, 18.0, with_margins(formation)
    right = WIDTH - 46 if margins else WIDTH
    width, cell = (right - left) / experts, min(13.0, 260.0 / len(layers))
    bottom = top + cell * len(layers)
    most = max(max(row.values()) for row in told.gates.values()) / told.count or 1.0
    marks: list[Mark] = [Words(left - 26, 6, "layer", fill=FAINT), *routing_legend(left, formation.token.token, most)]
    marks.append(Rect(left, top, right - left, bottom - top, ramp(0.0)))
    for n, each in enumerate(layers):
        y = top + n * cell
        marks += routing_row(told, each, Scale(0, experts, left, right), y, cell, most)
        if each.layer % spaced(len(layers), LABELS).step == 0:
            marks.append(Words(left - 4, y + cell / 2, str(each.layer), RIGHT, FAINT))
        if margins:
            marks.append(Words(WIDTH, y + cell / 2, margin_text(each), RIGHT, FAINT))
    if margins:
        marks.append(Words(WIDTH, 6, "margin", RIGHT, FAINT))
    marks.append(Words(left - 4, bottom + 7, "expert", RIGHT, FAINT))
    marks += [Words(left + (n + 0.5) * width, bottom + 7, str(n), CENTRE, FAINT) for n in spaced(experts, 25)]
    return Figure(WIDTH, bottom + 14, [*marks, *grid(layers, left, right, top, cell)])


def with_experts(formation: Formation) -> list[CellRecord]:
    return [cell for cell in formation.cells if cell.chosen]


def with_margins(formation: Formation) -> bool:
    """Whether there is room to print them"""
    return len(with_experts(formation)) <= LABELS


def routing_legend(left: float, number_of: int, most: float) -> Iterator[Mark]:
    yield Words(left, 6, "mean gate   0", fill=FAINT)
    for n in range(5):
        yield Rect(left + 41 + 9 * n, 3, 9, 6, ramp(n / 4))
    yield Words(left + 90, 6, number(most, 3), fill=FAINT)
    yield Rect(left + 124, 3.3, 8, 5.4, "", RED)
    yield Words(left + 137, 6, f"chosen for token {number_of}", fill=FAINT)


def margin_text(cell: CellRecord) -> str:
    return "–" if isinstance(cell.router_margin, Absent) else number(cell.router_margin, 3)


def routing_row(told: Told, cell: CellRecord, across: Scale, y: float, height: float, most: float) -> Iterator[Mark]:
    width = across(1) - across(0)
    for expert, total in sorted(told.gates[cell.layer].items()):
        yield Rect(across(expert), y, width, height, ramp(0.12 + 0.88 * total / told.count / most))
    inset = min(0.4, width / 6)
    for expert in cell.chosen:
        yield Rect(across(expert) + inset, y + inset, width - 2 * inset, height - 2 * inset, "", RED)


def grid(layers: Sequence[CellRecord], left: float, right: float, top: float, cell: float) -> Iterator[Mark]:
    """White lines between the rows, where they do not eat them"""
    if cell >= 6:
        for n in range(1, len(layers)):
            yield Line(left, top + n * cell, right, top + n * cell, PAPER, 0.8)
