"""One line held against the field table: unknown, missing and ill-typed fields are refused by name, and so is every absence without cause.

The first line says what to expect of the others: the model's shape, the router and the capture levels (`read_run`). Absences that follow from
these are demanded, not just allowed: a dense layer has no gates, a prompt position no attribution. Relations between values are in rules.py.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from formation.exact32 import f32
from formation.ledger import canonical, fields
from formation.ledger.fields import Field

Line = dict[str, Any]
KEYS = {"run_id", "position", "slot", "kind", "measured", "derived"}
STEP_SLOTS = ("lm_head", "sampler", "token")
RUNNERS_UP = 8
METHODS = {"generated": ("greedy", "sample"), "scored": ("forced",), "forced": ("forced",)}  # of each kind of step
FREE = {fields.NO_SHARED, fields.NO_RUNNER_UP, fields.ZERO_NORM, fields.NEVER}  # reasons that no shape decides
SHA256 = re.compile("[0-9a-f]{64}")


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


@dataclass(frozen=True)
class Run:
    """What the first line says. `biases` holds one vector for each layer with experts, none if the router has no bias."""

    run_id: str
    prompt_level: str
    step_level: str
    shape: Shape
    router: Router | None
    biases: Mapping[int, tuple[float, ...]]

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
    if values["fields_sha256"] != table_digest():
        raise LineRefusal(f"expected the field table {table_digest()}, got {canonical.quoted(values['fields_sha256'])}")
    return Run(draft.run_id, *levels, shape, router, {})


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
        raise LineRefusal(f"expected a shape that a model can have, got {shape} and {router}")


def with_biases(run: Run, stored: Any) -> Run:
    if run.router is None or not run.router.biased:
        return run
    found = {row["layer"]: vector(row["biases"]) for row in stored}
    expected = list(range(run.shape.dense_layers, run.shape.layers))
    if [row["layer"] for row in stored] != expected:
        raise LineRefusal(f"expected router biases of layers {expected[0]} to {expected[-1]} in order, got {canonical.quoted(list(found))}")
    return Run(run.run_id, run.prompt_level, run.step_level, run.shape, run.router, found)


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
        fields.NO_EXPERTS: router is None,
        fields.NO_BIAS: router is None or not router.biased,
        fields.ALL_CHOSEN: place.run.runners_up == 0,
        fields.GREEDY: place.method == "greedy",
        fields.FORCED: place.method == "forced",
    }
    return frozenset(reason for reason, here in holds.items() if here)


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


def item_problem(field: Field, kind: str, value: object, place: Place) -> str:
    """What `value` should have been, empty if it is"""
    if kind == "record":
        return record_problem(field, value, place)
    if not TYPES[kind](value):
        return PHRASES[kind]
    bound = bounds(place.run.shape).get(field.unit) if kind == "int" else None
    return f"below {bound}" if isinstance(value, int) and bound is not None and value >= bound else ""


@lru_cache(maxsize=8)
def bounds(shape: Shape) -> dict[str, int]:
    """By unit of an integer"""
    return {"expert": shape.experts, "token": shape.vocabulary, "layer": shape.layers, "dimension": shape.hidden}


def record_problem(field: Field, value: object, place: Place) -> str:
    names = [name for name, _ in field.keys]
    if not isinstance(value, dict) or set(value) != set(names):
        return f"an object of {', '.join(names)}"
    for name, dtype in field.keys:
        if dtype.endswith("]"):
            problem = f32_array_problem(value[name], length_of(dtype[4:-1], place))
        else:
            problem = "" if TYPES[dtype](value[name]) else PHRASES[dtype]
        if problem:
            return f"an object whose {name} is {problem}"
    outside = value.get("head", -1) >= place.run.shape.heads or (place.position >= 0 and value.get("position", -1) > place.position)
    return "of a head of the model and a position not after its own" if outside else ""


def f32_array_problem(value: object, length: int) -> str:
    expected = f"base64 of {length} finite binary32 values"
    if not isinstance(value, str):
        return expected
    try:
        return "" if len(canonical.decode_f32(value)) == 4 * length else expected
    except canonical.CanonicalRefusal:
        return expected


def length_of(length: str, place: Place) -> int:
    shape, run = place.run.shape, place.run
    if length.isdigit():
        return int(length)
    if length[0] == "S":
        return strongest(length, shape.heads, place.position + 1)
    if length[0] == "T":
        return min(int(length[1:]), shape.vocabulary)
    return {"K": shape.chosen, "R": run.runners_up, "H": shape.heads, "E": shape.experts, "M": shape.layers - shape.dense_layers}[length]


def strongest(length: str, heads: int, keys: int) -> int:
    return heads * min(3, keys) if length == "S3H" else min(int(length[1:]), heads * keys)


def is_number(value: object) -> bool:
    return type(value) in (int, float) and -canonical.LARGEST <= value <= canonical.LARGEST  # type: ignore[operator]


def is_sha256(value: object) -> bool:
    return isinstance(value, str) and SHA256.fullmatch(value) is not None


def is_base64(value: object) -> bool:
    try:
        return isinstance(value, str) and base64.b64encode(base64.b64decode(value, validate=True)).decode() == value
    except (binascii.Error, ValueError):
        return False


TYPES: dict[str, Callable[[Any], bool]] = {
    "f32": lambda v: is_number(v) and f32(v) == v,
    "f64": is_number,
    "int": lambda v: type(v) is int and 0 <= v <= canonical.LARGEST,
    "bool": lambda v: type(v) is bool,
    "text": lambda v: isinstance(v, str),
    "sha256": is_sha256,
    "bytes": is_base64,
}
PHRASES = {
    "f32": "a finite binary32 number", "f64": "a finite number", "int": "an integer from 0", "bool": "true or false", "text": "text",
    "sha256": "64 hexadecimal digits", "bytes": "base64",
}  # fmt: skip


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
