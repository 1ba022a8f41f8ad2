"""Two bundles side by side: what their anchors share, where their ledgers first differ, how far apart their rows are layer by layer, their tokens.

    from formation.evidence.comparison import compare

    found = compare("a.ofb", "b.ofb")
    found.same, found.first, found.first_token

Lines are compared at equal positions and slots, in the fields that both hold: two runs may have been captured at different levels, and one may
end before the other. Tokens are compared by their number, as prompts may differ in length. Nothing is verified here: a difference says that the
ledgers differ, not which is right. Memory does not grow with the layers; of every token what is printed is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from formation.evidence.bundle import Bundle
from formation.ledger import fields, reader, tables
from formation.ledger.departure import canonical_text
from formation.ledger.fields import Field
from formation.ledger.lines import Line, Place, value_of
from formation.ledger.tables import TokenRecord

BY_NAME = {(f.slot, f.name): f for f in fields.FIELDS}
HEAD = "lm_head"
UNLIKE = (fields.NOT_A_STEP,)  # absences that say where a line stands, not what was observed


@dataclass(frozen=True)
class Side:
    """One of the two. `root` is of the lines that can be read."""

    folder: str
    run_id: str
    complete: bool
    lines: int
    root: str
    capture: Mapping[str, str]


@dataclass(frozen=True)
class Unequal:
    """A field with both its values; of an array the first element that differs, its number in brackets behind the name."""

    field: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Difference:
    """The first line in which two ledgers differ, with all its fields that do; `compared` is how many both hold there."""

    position: int
    slot: str
    unequal: tuple[Unequal, ...]
    compared: int


@dataclass(frozen=True)
class Layer:
    """One layer at one position of both: whether the rows at its end have one digest, their norms, and the experts that both chose."""

    position: int
    layer: int
    equal: bool
    norm_a: float
    norm_b: float
    experts: int | None = None  # that both chose, None in a dense layer
    chosen: int = 0

    @property
    def apart(self) -> float:
        """Difference of the norms as a share of the larger one"""
        return abs(self.norm_a - self.norm_b) / (max(self.norm_a, self.norm_b) or 1.0)


@dataclass
class Spread:
    """One layer over all positions that both have. `apart` is the sum of the norms' differences, each a share of the larger norm."""

    layer: int
    positions: int = 0
    equal: int = 0
    apart: float = 0.0
    experts: int = 0
    chosen: int = 0

    def take(self, found: Layer) -> None:
        self.positions, self.equal, self.apart = self.positions + 1, self.equal + found.equal, self.apart + found.apart
        self.experts, self.chosen = self.experts + (found.experts or 0), self.chosen + found.chosen


@dataclass(frozen=True)
class Pair:
    """The tokens with one number, None where a run has ended"""

    number: int
    a: TokenRecord | None
    b: TokenRecord | None

    @property
    def same(self) -> bool:
        return self.a is not None and self.b is not None and self.a.id == self.b.id


@dataclass
class Comparison:
    """`shared` and `unequal` are fields of the anchors; `layers` are those of the first position at which rows differ; `only_a` and `only_b` are
    fields that one ledger holds, as slot.field, and the other does not."""

    a: Side
    b: Side
    shared: tuple[str, ...]
    unequal: tuple[Unequal, ...]
    first: Difference | None = None
    positions: int = 0
    layers: list[Layer] = field(default_factory=list)
    spread: list[Spread] = field(default_factory=list)
    tokens: list[Pair] = field(default_factory=list)
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """The same lines, to the last byte"""
        return (self.a.root, self.a.lines) == (self.b.root, self.b.lines)

    @property
    def first_token(self) -> Pair | None:
        return next((pair for pair in self.tokens if not pair.same), None)


def compare(a: str | Path, b: str | Path) -> Comparison:
    """Raises EnvironmentFault for what is no bundle, or a damaged one."""
    one, other = Bundle(a), Bundle(b)
    found = Comparison(side(one), side(other), *anchors(one, other))
    found.only_a, found.only_b = held_by_one(one, other), held_by_one(other, one)
    tokens: tuple[list[TokenRecord], list[TokenRecord]] = ([], [])
    for ours, theirs in zip_longest(positions(one), positions(other)):
        for position, formed in zip((ours, theirs), tokens, strict=True):
            if position and "token" in position.slots:
                formed.append(tables.token_of(position.last, len(formed) + 1, position.slots))
        if ours and theirs:
            take(found, ours, theirs)
    found.tokens = [Pair(n, *pair) for n, pair in enumerate(zip_longest(*tokens), 1)]
    return found


# ---- anchors


def side(bundle: Bundle) -> Side:
    run, readable = bundle.run, reader.survey(bundle.folder).readable
    capture = {"prompt": run.prompt_level, "steps": run.step_level}
    return Side(str(bundle.folder), bundle.run_id, bundle.complete, readable.lines, readable.root.hex(), capture)


def anchors(one: Bundle, other: Bundle) -> tuple[tuple[str, ...], tuple[Unequal, ...]]:
    ours, theirs = (dict(leaves(bundle.anchor.document())) for bundle in (one, other))
    names = list(dict.fromkeys([*ours, *theirs]))
    shared = tuple(name for name in names if canonical_text(ours, name) == canonical_text(theirs, name))
    return shared, tuple(unequal(name, ours.get(name), theirs.get(name)) for name in names if name not in shared)


def leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from leaves(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, inner


def held_by_one(one: Bundle, other: Bundle) -> tuple[str, ...]:
    """Fields of steps that only the first's capture level has"""
    held = [
        {f"{f.slot}.{f.name}" for slot in fields.SLOTS if slot != "run" for f in fields.fields_of(slot, bundle.run.step_level)}
        for bundle in (one, other)
    ]
    return tuple(sorted(held[0] - held[1]))


# ---- lines


@dataclass(frozen=True)
class Position:
    """What a ledger holds of one position, by slot: measured and derived together. `last` is where its last line stands."""

    last: Place
    slots: Mapping[str, Line]


def positions(bundle: Bundle) -> Iterator[Position]:
    for _, lines in groupby(tables.checked(bundle.folder), lambda found: found[0].position):
        held = list(lines)
        yield Position(held[-1][0], {place.slot: line["measured"] | line["derived"] for place, line in held})


def take(found: Comparison, ours: Position, theirs: Position) -> None:
    found.positions += 1
    if found.first is None:
        found.first = next(differences(ours, theirs), None)
    layers = list(layers_of(ours, theirs))
    if not found.layers and not all(layer.equal for layer in layers):
        found.layers = layers
    for layer in layers:
        if layer.layer == len(found.spread):
            found.spread.append(Spread(layer.layer))
        found.spread[layer.layer].take(layer)


def differences(ours: Position, theirs: Position) -> Iterator[Difference]:
    """Lines that differ, those first in which something measured does: attribution and lens are of the chosen token, and differ with it"""
    found = list(filter(None, (difference(ours, theirs, slot) for slot in causal(ours, theirs))))
    for measured in (True, False):
        yield from (each for each in found if any(is_measured(each.slot, part) for part in each.unequal) == measured)


def causal(ours: Position, theirs: Position) -> list[str]:
    """Slots of both in the order in which one leads to the next: where all logits are equal, the rest of lm_head follows from the choice"""
    slots = [slot for slot in ours.slots if slot in theirs.slots]
    if HEAD in slots and ours.slots[HEAD]["logits_sha256"] == theirs.slots[HEAD]["logits_sha256"]:
        slots.append(slots.pop(slots.index(HEAD)))
    return slots


def is_measured(slot: str, part: Unequal) -> bool:
    return field_of(slot, re.split(r"\[|,", part.field)[0]).tag == "measured"


def difference(ours: Position, theirs: Position, slot: str) -> Difference | None:
    a, b = ours.slots[slot], theirs.slots[slot]
    both = [name for name in a if comparable(a, b, name)]
    found = [unequal_field(slot, name, a[name], b[name]) for name in both if canonical_text(a, name) != canonical_text(b, name)]
    return Difference(ours.last.position, slot, tuple(found), len(both)) if found else None


def comparable(ours: Line, theirs: Line, name: str) -> bool:
    """Both hold it, and both or neither as a step does"""
    return name in theirs and not any(isinstance(v, dict) and v.get("absent") in UNLIKE for v in (ours[name], theirs[name]))


def unequal_field(slot: str, name: str, a: Any, b: Any) -> Unequal:
    known = field_of(slot, name)
    return unequal(name, *(value if isinstance(value, dict) else value_of(known, value) for value in (a, b)))


def field_of(slot: str, name: str) -> Field:
    return BY_NAME[slot.partition(" ")[0], name]


def unequal(name: str, a: Any, b: Any) -> Unequal:
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        place = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if repr(x) != repr(y)), None)
        if place is not None:
            return Unequal(f"{name}[{place}]", a[place], b[place])
        return Unequal(f"{name}, length", len(a), len(b))
    return Unequal(name, a, b)


def layers_of(ours: Position, theirs: Position) -> Iterator[Layer]:
    for slot, a in ours.slots.items():
        b = theirs.slots.get(slot)
        if b is None or not slot.startswith("layer "):
            continue
        equal, norms = a["residual_sha256"] == b["residual_sha256"], (a["residual_norm"], b["residual_norm"])
        both = isinstance(a["chosen"], list) and isinstance(b["chosen"], list)
        experts = (len(set(a["chosen"]) & set(b["chosen"])), len(a["chosen"])) if both else ()
        yield Layer(ours.last.position, int(slot.removeprefix("layer ")), equal, *norms, *experts)
