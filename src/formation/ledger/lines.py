"""One line held against the field table: unknown, missing and ill-typed fields are refused by name, and so is every absence without cause.

The first line says what to expect of the others: the model's shape, the router and the capture levels (`read_run`). Absences that follow from
these are demanded, not just allowed: a dense layer has no gates, a prompt position no attribution. Relations between values are in rules.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from formation.ledger import canonical, fields
from formation.ledger.fields import Field
from formation.ledger.values import f32_array_problem, is_sha256, item_problem, length_of

Line = dict[str, Any]
KEYS = {"run_id", "position", "slot", "kind", "measured", "derived"}
STEP_SLOTS = ("lm_head", "sampler", "token")
RUNNERS_UP = 8
METHODS = {"generated": ("greedy", "sample"), "scored": ("forced", "greedy", "sample"), "forced": ("forced",)}  # of each kind of step
FREE = {fields.NO_SHARED, fields.NO_RUNNER_UP, fields.ZERO_NORM, fields.NEVER}  # reasons that no shape decides


class LineRefusal(ValueError):
    """Why a line is no line of this ledger; callers add the file's name."""


@dataclass(frozen=True)
class Shape:
    layers: int
    dense_layers: int
    hidden: int
    heads: int
    experts: int
    chosen: int
    vocabulary: int


@dataclass(frozen=True)
class Router:
    groups: int
    kept_groups: int
    softmax: bool
    group_top2: bool
    normalise: bool
    scale: float
    biased: bool
    shared_gated: bool


@dataclass(frozen=True)
class Delta:
    """Sizes of a delta layer."""

    key_heads: int
    heads: int
    key: int
    value: int
    taps: int


@dataclass(frozen=True)
class Run:
    """What the first line says. `biases` holds one vector for each layer with experts, none if the router has no bias. `kinds` says of each layer
    what mixes positions in it."""

    run_id: str
    prompt_level: str
    step_level: str
    shape: Shape
    router: Router | None
    biases: Mapping[int, tuple[float, ...]]
    kinds: tuple[str, ...] = ()
    delta: Delta | None = None

    @property
    def runners_up(self) -> int:
        """How many experts a line lists behind the chosen ones: of those in kept groups that are not chosen, at most eight"""
        if self.router is None:
            return 0
        return min(RUNNERS_UP, self.shape.experts // self.router.groups * self.router.kept_groups - self.shape.chosen)

    def level(self, kind: str) -> str:
        return self.prompt_level if kind == "prompt" else self.step_level


@dataclass(frozen=True)
class Place:
    """Where a value stands. `layer` is -1 outside the layers, `method` is empty outside the sampler."""

    run: Run
    position: int
    kind: str
    slot: str
    layer: int = -1
    method: str = ""

    def __str__(self) -> str:
        return f"{self.slot} at position {self.position}"


def layer_of(slot: str) -> int:
    """The number in "layer 12", -1 of any other slot"""
    name, _, digits = slot.partition(" ")
    return int(digits) if name == "layer" and digits.isascii() and digits.isdigit() and digits == str(int(digits[:9])) else -1


# ---- the first line


def read_run(line: object) -> Run:
    """What the run line says. Raises LineRefusal."""
    checked = envelope(line)
    if (checked["slot"], checked["position"], checked["kind"]) != ("run", -1, "run"):
        raise LineRefusal(f"expected the run line first, got slot {canonical.quoted(checked['slot'])}")
    if not is_sha256(checked["run_id"]):
        raise LineRefusal(f"expected a run_id of 64 hexadecimal digits, got {canonical.quoted(checked['run_id'])}")
    values = checked["measured"]
    check_table(values.get("fields_sha256"))
    nothing = Shape(0, 0, 0, 0, 0, 0, 0)
    draft = Run(checked["run_id"], "minimal", "minimal", nothing, None, {})
    check_names(checked, "run", "full", Place(draft, -1, "run", "run"))
    run = assemble(values, draft)
    place = Place(run, -1, "run", "run")
    for field in slot_fields("run", "full"):
        check_value(field, values[field.name], place, reasons_at(place))
    return with_biases(run, values["router_biases"])


def assemble(values: Mapping[str, Any], draft: Run) -> Run:
    """The fields that the others are checked by, first"""
    place = Place(draft, -1, "run", "run")
    by_name = {field.name: field for field in fields.fields_of("run", "full")}
    for name in ("capture", "shape"):
        check_typed(by_name[name], values[name], place)
    levels = values["capture"]["prompt"], values["capture"]["steps"]
    if not set(levels) <= set(fields.LEVELS):
        raise LineRefusal(f"expected capture levels of {', '.join(fields.LEVELS)}, got {canonical.quoted(levels)}")
    shape = Shape(**values["shape"])
    router = None
    if shape.experts:
        check_typed(by_name["router"], values["router"], place)
        router = Router(**values["router"])
    check_shape(shape, router)
    kinds, delta = read_kinds(values, by_name, Place(Run(draft.run_id, *levels, shape, router, {}), -1, "run", "run"))
    return Run(draft.run_id, *levels, shape, router, {}, kinds, delta)


def check_table(claimed: object) -> None:
    """First of all: every other field is read by the table"""
    if claimed != table_digest():
        raise LineRefusal(f"expected the field table {table_digest()}, got {canonical.quoted(claimed)}")


def read_kinds(values: Mapping[str, Any], by_name: Mapping[str, Field], place: Place) -> tuple[tuple[str, ...], Delta | None]:
    """Of each layer its kind, and the sizes of delta layers if there are any"""
    check_typed(by_name["layer_kinds"], values["layer_kinds"], place)
    kinds = tuple(values["layer_kinds"])
    strange = next((kind for kind in kinds if kind not in fields.LAYER_KINDS), None)
    if strange is not None:
        raise LineRefusal(f"expected layer_kinds of {', '.join(fields.LAYER_KINDS)}, got {canonical.quoted(strange)}")
    if "delta" not in kinds:
        return kinds, None
    check_typed(by_name["delta"], values["delta"], place)
    delta = Delta(**values["delta"])
    if min(delta.key_heads, delta.heads, delta.key, delta.value, delta.taps) < 1 or delta.heads % delta.key_heads:
        raise LineRefusal(f"expected sizes that a delta layer can have, got {canonical.quoted(values['delta'])}")
    return kinds, delta


@lru_cache(maxsize=1)
def table_digest() -> str:
    return fields.digest()


def check_shape(shape: Shape, router: Router | None) -> None:
    good = shape.layers >= 1 and shape.dense_layers <= shape.layers and shape.hidden >= 1 and shape.heads >= 1 and shape.vocabulary >= 2
    good = good and (shape.experts > 0) == (shape.dense_layers < shape.layers)
    if router is None:
        good = good and shape.chosen == 0
    else:
        good = good and router.groups >= 1 and shape.experts % router.groups == 0 and 1 <= router.kept_groups <= router.groups
        good = good and 1 <= shape.chosen <= shape.experts // max(router.groups, 1) * router.kept_groups
    if not good:
        got = [canonical.quoted(None if each is None else dict(sorted(vars(each).items()))) for each in (shape, router)]
        raise LineRefusal(f"expected a shape that a model can have, got {' and '.join(got)}")


def with_biases(run: Run, stored: Any) -> Run:
    if run.router is None or not run.router.biased:
        return run
    found = {row["layer"]: vector(row["biases"]) for row in stored}
    expected = list(range(run.shape.dense_layers, run.shape.layers))
    if [row["layer"] for row in stored] != expected:
        raise LineRefusal(f"expected router biases of layers {expected[0]} to {expected[-1]} in order, got {canonical.quoted(list(found))}")
    return replace(run, biases=found)


# ---- the other lines


def check_line(line: object, run: Run) -> Place:
    """That `line` has exactly the fields of its slot, kind and capture level, each of its type, or absent for a reason that holds there.
    Returns where it stands. Raises LineRefusal."""
    checked = envelope(line)
    place = place_of(checked, run)
    level = run.level(place.kind)
    slot = "layer" if place.layer >= 0 else place.slot
    check_names(checked, slot, level, place)
    if slot == "sampler":
        place = sampler_place(checked, place)
    reasons = reasons_at(place)
    for field in slot_fields(slot, level):
        check_value(field, checked[field.tag][field.name], place, reasons)
    return place


@lru_cache(maxsize=64)
def slot_fields(slot: str, level: str) -> tuple[Field, ...]:
    return fields.fields_of(slot, level)


@lru_cache(maxsize=64)
def slot_names(slot: str, level: str, tag: str) -> frozenset[str]:
    return frozenset(field.name for field in slot_fields(slot, level) if field.tag == tag)


def envelope(line: object) -> Line:
    if not isinstance(line, dict) or set(line) != KEYS:
        found = sorted(line) if isinstance(line, dict) else type(line).__name__
        raise LineRefusal(f"expected a line of {', '.join(sorted(KEYS))}, got {canonical.quoted(found)}")
    for tag in fields.TAGS:
        if not isinstance(line[tag], dict):
            raise LineRefusal(f"expected an object {tag}, got {type(line[tag]).__name__}")
    return line


def place_of(line: Line, run: Run) -> Place:
    position, slot, kind = line["position"], line["slot"], line["kind"]
    if line["run_id"] != run.run_id:
        raise LineRefusal(f"expected run_id {run.run_id}, got {canonical.quoted(line['run_id'])}")
    if type(position) is not int or position < 0:
        raise LineRefusal(f"expected a position from 0, got {canonical.quoted(position)}")
    if kind not in fields.KINDS:
        raise LineRefusal(f"expected a kind of {', '.join(fields.KINDS)} at position {position}, got {canonical.quoted(kind)}")
    layer = layer_of(slot) if isinstance(slot, str) else -1
    allowed = slot == "embed" or 0 <= layer < run.shape.layers or (slot in STEP_SLOTS and kind != "prompt")
    if not allowed:
        raise LineRefusal(f"expected a slot of a {kind} position, got {canonical.quoted(slot)} at position {position}")
    return Place(run, position, kind, slot, layer)


def check_names(line: Line, slot: str, level: str, place: Place) -> None:
    for tag in fields.TAGS:
        expected = slot_names(slot, level, tag)
        for name in sorted(expected - line[tag].keys()):
            raise LineRefusal(f"expected {tag} field {name} in {place}, got none")
        for name in sorted(line[tag].keys() - expected):
            raise LineRefusal(f"expected the {tag} fields of level {level} in {place}, got {canonical.quoted(name)} too")


def sampler_place(line: Line, place: Place) -> Place:
    method = line["measured"]["method"]
    if method not in METHODS[place.kind]:
        raise LineRefusal(f"expected method {' or '.join(METHODS[place.kind])} in {place}, got {canonical.quoted(method)}")
    return Place(place.run, place.position, place.kind, place.slot, place.layer, method)


# ---- values


def check_value(field: Field, value: object, place: Place, reasons: frozenset[str] | None = None) -> None:
    """A value of the field's type, or an absence for the first reason of the field that holds at `place`; `reasons` are those of
    reasons_at(place), for callers that check many. Raises LineRefusal."""
    reasons = reasons_at(place) if reasons is None else reasons
    due = next((reason for reason in field.absent if reason in reasons), "")
    if isinstance(value, dict) and "absent" in value:
        allowed = [due] if due else [reason for reason in field.absent if reason in FREE]
        if set(value) != {"absent"} or value["absent"] not in allowed:
            wanted = f"{field.name} absent ({' or '.join(allowed)})" if allowed else f"a value of {field.name}"
            raise LineRefusal(f"expected {wanted} in {place}, got {canonical.quoted(value)}")
        return
    if due:
        raise LineRefusal(f"expected {field.name} absent ({due}) in {place}, got a value")
    check_typed(field, value, place)


def reasons_at(place: Place) -> frozenset[str]:
    """The reasons that hold here and make the fields that know them absent, decided by shape, router, kind and method"""
    shape, router = place.run.shape, place.run.router
    holds = {
        fields.DENSE: 0 <= place.layer < shape.dense_layers,
        fields.NOT_A_STEP: place.kind == "prompt",
        fields.DELTA_LAYER: kind_of_layer(place) == "delta",
        fields.ATTENTION_LAYER: kind_of_layer(place) == "attention",
        fields.NO_DELTA: place.run.delta is None,
        fields.UNGATED: router is None or not router.shared_gated,
        fields.NO_EXPERTS: router is None,
        fields.NO_BIAS: router is None or not router.biased,
        fields.ALL_CHOSEN: place.run.runners_up == 0,
        fields.GREEDY: place.method == "greedy",
        fields.FORCED: place.method == "forced",
    }
    return frozenset(reason for reason, here in holds.items() if here)


def kind_of_layer(place: Place) -> str:
    """Empty outside the layers"""
    return place.run.kinds[place.layer] if place.layer >= 0 else ""


def check_typed(field: Field, value: object, place: Place) -> None:
    kind, is_array = field.dtype.removesuffix("[]"), field.dtype.endswith("[]")
    problem = ""
    if field.dtype == "f32[]":
        problem = f32_array_problem(value, length_of(field.length, place))
    elif is_array:
        length = length_of(field.length, place)
        if not isinstance(value, list) or len(value) != length:
            problem = f"an array of {length}"
        else:
            problem = next((p for item in value if (p := item_problem(field, kind, item, place))), "")
    else:
        problem = item_problem(field, kind, value, place)
    if problem:
        raise LineRefusal(f"expected {field.name} in {place} to be {problem}, got {canonical.quoted(value)}")


# ---- reading


def vector(text: str) -> tuple[float, ...]:
    """The values of a stored f32[]"""
    return canonical.values_f32(canonical.decode_f32(text))


def value_of(field: Field, stored: Any) -> Any:
    """A stored value as formulas take it: numbers as floats (an integral one is read as int, whose arithmetic does not round), vectors as
    tuples of floats; absences and everything else as they are"""
    if isinstance(stored, dict):
        return stored
    if field.dtype == "f32[]":
        return vector(stored)
    if field.dtype == "f64[]":
        return tuple(map(float, stored))
    return float(stored) if field.dtype in ("f32", "f64") else stored


def values_of(line: Line, place: Place) -> dict[str, Any]:
    """All values of a checked line, by name"""
    present = slot_fields("layer" if place.layer >= 0 else place.slot, place.run.level(place.kind))
    return {field.name: value_of(field, line[field.tag][field.name]) for field in present}
