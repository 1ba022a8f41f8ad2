"""What was computed against what the ledger says, bit for bit: every value by name, every difference by its place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from formation.errors import BudgetError, FormationError, ReadError
from formation.evidence.audited import LISTED
from formation.ledger import canonical, lines
from formation.ledger.formulas import ONE_LINE, recompute
from formation.ledger.lines import Line, Place, layer_of, slot_fields, value_of
from formation.probe.encode import Values, absent, reason_for

SHOWN = 80  # characters of a value


@dataclass(frozen=True)
class Difference:
    """Position -1 is the run itself, its documents and its checkpoint. `expected` is what re-execution gives, `got` what was recorded."""

    position: int
    slot: str
    field: str
    expected: str
    got: str

    @property
    def layer(self) -> int | None:
        """None outside the layers"""
        return None if layer_of(self.slot) < 0 else layer_of(self.slot)

    def __str__(self) -> str:
        where = self.slot if self.position < 0 else f"{self.slot} at position {self.position}"
        return f"{where}, {self.field}: expected {self.expected}, got {self.got}"


class Unopened(Exception):
    """A line or a row that was recorded cannot be had: whatever needs it fails, it is never skipped."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(str(difference))
        self.difference = difference


class Findings:
    """All that was compared so far of one bundle, and what differed. `fault` is what ended its audit, where something did."""

    def __init__(self) -> None:
        self.values = 0
        self.count = 0
        self.fault: FormationError | None = None
        self._kept: dict[Difference, None] = {}

    def add(self, difference: Difference) -> None:
        if difference not in self._kept:
            self.count += 1
            if len(self._kept) < LISTED:
                self._kept[difference] = None

    def differences(self) -> tuple[Difference, ...]:
        """The run's first, then by position and layer; of those that were kept"""
        return tuple(sorted(self._kept, key=lambda d: (d.position, ORDER.get(d.slot, layer_of(d.slot)))))

    def compare(self, place: Place, stored: Line, computed: Values) -> None:
        """`computed` against the same fields of the line."""
        tags = {f.name: f.tag for f in slot_fields(*slot_and_level(place))}
        for name, expected in computed.items():
            self.equal(place.position, place.slot, name, expected, stored[tags[name]][name])

    def equal(self, position: int, slot: str, field: str, expected: Any, got: Any) -> None:
        self.values += 1
        if expected != got:
            self.add(Difference(position, slot, *apart(field, expected, got)))

    def opened(self, action: Callable[[], object]) -> bool:
        """Whether what `action` needs could be had; if not, that is a finding."""
        try:
            action()
        except Unopened as unopened:
            self.add(unopened.difference)
            return False
        return True

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Around work for this bundle among others: an error there ends its audit, and no other's; one of the weights ends them all."""
        try:
            yield
        except (ReadError, BudgetError):
            raise
        except FormationError as error:
            self.fault = error


ORDER = {"embed": -1, "lm_head": 1 << 30, "sampler": (1 << 30) + 1, "token": (1 << 30) + 2}


def apart(field: str, expected: Any, got: Any) -> tuple[str, str, str]:
    """The field, narrowed to the first item that differs, and both values there"""
    first, second = items(expected), items(got)
    if first is not None and second is not None and len(first) == len(second):
        at = next((i for i, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1]), None)
        if at is not None:
            return f"{field}[{at}]", short(first[at]), short(second[at])
    return field, short(expected), short(got)


def items(value: Any) -> list[Any] | None:
    """Of an array, or of a stored vector"""
    if isinstance(value, str) and len(value) != 64:
        try:
            return list(lines.vector(value))
        except canonical.CanonicalRefusal:
            return None
    return value if isinstance(value, list) else None


def short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return ascii(text)[1:-1][:SHOWN]


# ---- what a line should hold


def slot_and_level(place: Place) -> tuple[str, str]:
    return "layer" if place.layer >= 0 else place.slot, place.run.level(place.kind)


def complete(known: Mapping[str, Any], place: Place, reasons: Collection[str], elsewhere: Collection[str] = ()) -> Values:
    """Every value that the line of `place` should have: those `known`, those that follow from them, and absences for the first of `reasons` that
    the field gives. Fields `elsewhere` are left out, and so is what only several lines together give."""
    found: Values = {}
    for field in slot_fields(*slot_and_level(place)):
        if field.recompute != "ledger" and field.name not in elsewhere:
            found[field.name] = known[field.name] if field.name in known else absent(reason_for(field, reasons))
    typed = {f.name: value_of(f, found[f.name]) for f in slot_fields(*slot_and_level(place)) if f.name in found}
    for field in slot_fields(*slot_and_level(place)):
        if field.name in ONE_LINE and field.name in FOLLOWING and set(field.inputs) <= typed.keys():
            typed[field.name] = found[field.name] = recompute(field.name, typed)
    return found


FOLLOWING = frozenset(name for name in ONE_LINE if name != "lm_head_rounding")  # whose other input comes from all layers
