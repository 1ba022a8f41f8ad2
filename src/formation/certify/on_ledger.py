"""Attacks on the ledger's shape by whoever holds the right key: lines and tokens dropped, repeated, moved and spliced, fields added and renamed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from formation.certify.attack import KEY, OTHER_BUNDLE, RECORDER, Group, NotApplicable
from formation.certify.forgery import Forgery, Line
from formation.ledger import canonical
from formation.ledger.lines import RUNNERS_UP

GROUP = Group("ledger")
attack = GROUP.attack


def signed(f: Forgery, found: list[bytes]) -> None:
    f.lines = found
    f.seal()


@attack(KEY, "census")
def last_line_dropped(f: Forgery) -> None:
    """the last line is not there"""
    signed(f, f.lines[:-1])


@attack(KEY, "census")
def line_in_the_middle_dropped(f: Forgery) -> None:
    """one layer of one token is not there"""
    at = f.index(f.scene.steps[0], "layer 0")
    signed(f, f.lines[:at] + f.lines[at + 1 :])


@attack(KEY, "census")
def last_token_dropped(f: Forgery) -> None:
    """all lines of the last step are not there, and nothing else says that they were"""
    at, steps = f.index(f.scene.steps[-1], "embed"), len(f.scene.steps) - 1
    f.lines = f.lines[:at]
    f.files["io.jsonl"] = b"".join(line + b"\n" for line in f.files["io.jsonl"].split(b"\n")[:steps])
    f.seal()


@attack(KEY, "census")
def last_token_twice(f: Forgery) -> None:
    """all lines of the last step stand again, as the next position"""
    at, position = f.index(f.scene.steps[-1], "embed"), f.scene.steps[-1]
    again = [canonical.encode(moved(line, position + 1)) for line in f.lines[at:]]
    signed(f, f.lines + again)


def moved(line: bytes, position: int) -> Line:
    found: Line = canonical.decode(line, limits=canonical.LINE)
    return {**found, "position": position}


@attack(KEY, "census")
def line_twice(f: Forgery) -> None:
    """the last line stands again"""
    signed(f, [*f.lines, f.lines[-1]])


@attack(KEY, "census")
def lines_in_another_order(f: Forgery) -> None:
    """two layers of one token change places"""
    found, position = f.lines, f.scene.steps[0]
    if (position, "layer 1") not in f.scene.slots:
        raise NotApplicable("the model has one layer")
    a, b = f.index(position, "layer 0"), f.index(position, "layer 1")
    found[a], found[b] = found[b], found[a]
    signed(f, found)


@attack(KEY, "census")
def slots_renamed(f: Forgery) -> None:
    """the values of two layers of one token change places: of a dense layer and one with experts, or of attention and a delta net"""
    trade(f, alike=False)


@attack(KEY, "rows")
def slots_of_one_kind_renamed(f: Forgery) -> None:
    """the values of two layers of one token that have the same fields change places"""
    f.layout("rows")
    trade(f, alike=True)


def trade(f: Forgery, *, alike: bool) -> None:
    """The last layer, and the first of those that are like it, or not"""
    shape, position = f.scene.run.shape, f.scene.steps[0]
    kinds = [(kind, layer < shape.dense_layers) for layer, kind in enumerate(f.scene.run.kinds)]
    other = next((layer for layer, kind in enumerate(kinds[:-1]) if (kind == kinds[-1]) == alike), None)
    if other is None:
        raise NotApplicable("no layer is of the last one's kind" if alike else "all layers are of one kind, and have the same fields")
    a, b = (f.line(position, f"layer {n}") for n in (other, shape.layers - 1))
    f.put({**a, "measured": b["measured"], "derived": b["derived"]}, {**b, "measured": a["measured"], "derived": a["derived"]})
    f.seal()


@attack(KEY, "census")
def slot_in_look_alike_letters(f: Forgery) -> None:
    """the slot of a line is spelled with a Cyrillic letter"""
    rename(f, "slot", "lаyer 0")


@attack(KEY, "census")
def slot_written_backwards(f: Forgery) -> None:
    """the slot of a line has a mark that turns the text round"""
    rename(f, "slot", "layer \u202e0")


@attack(KEY, "census")
def another_kind(f: Forgery) -> None:
    """a generated token is called forced"""
    rename(f, "kind", "forced")


@attack(KEY, "census")
def layer_with_a_leading_zero(f: Forgery) -> None:
    """layer 00"""
    rename(f, "slot", "layer 00")


def rename(f: Forgery, field: str, value: str) -> None:
    at, found = f.index(f.scene.steps[0], "layer 0"), f.lines
    found[at] = canonical.encode({**canonical.decode(found[at], limits=canonical.LINE), field: value})
    signed(f, found)


# ---- of other runs


@attack(OTHER_BUNDLE, "run")
def line_of_another_run(f: Forgery) -> None:
    """a line with another run's run_id, everything hashed and signed anew"""
    found = f.lines
    found[-1] = found[-1].replace(f.run_id.encode(), b"ab" * 32)
    signed(f, found)


@attack(OTHER_BUNDLE, "run")
def ledger_of_another_run(f: Forgery) -> None:
    """the whole ledger of another run of the same shape, everything hashed and signed anew"""
    signed(f, [line.replace(f.run_id.encode(), b"ab" * 32) for line in f.lines])


# ---- the first line


def first(f: Forgery, change: Callable[[Any], object]) -> None:
    line = canonical.decode(f.lines[0], limits=canonical.LINE)
    change(line["measured"])
    signed(f, [canonical.encode(line), *f.lines[1:]])


@attack(RECORDER, "run")
def older_field_table(f: Forgery) -> None:
    """the digest of another field table, by which the values would mean something else"""
    first(f, lambda m: m.update(fields_sha256="0" * 64))


@attack(RECORDER, "run")
def impossible_shape(f: Forgery) -> None:
    """more dense layers than layers"""
    first(f, lambda m: m["shape"].update(dense_layers=m["shape"]["layers"] + 1))


@attack(RECORDER, "run")
def a_billion_layers(f: Forgery) -> None:
    """a shape that costs everything of a reader who prepares for it"""
    first(f, lambda m: m["shape"].update(layers=10**9))


@attack(RECORDER, "run")
def a_billion_experts(f: Forgery) -> None:
    """the same of experts, of whose biases there are fewer"""
    if not (f.scene.run.router and f.scene.run.router.biased):
        raise NotApplicable("the router has no biases: nothing in the first line says how many experts there are")
    first(f, lambda m: m["shape"].update(experts=10**9))


@attack(RECORDER, "rows")
def a_billion_experts_without_biases(f: Forgery) -> None:
    """the same where no bias tells: a router's row of each is far shorter"""
    if f.scene.run.router is None or f.scene.run.router.biased:
        raise NotApplicable("the model has no router without biases")
    if f.scene.run.runners_up < RUNNERS_UP:
        raise NotApplicable("every line would have to list more runners-up: the census tells")
    f.layout("router")
    first(f, lambda m: m["shape"].update(experts=10**9))


@attack(RECORDER, "census")
def lower_capture_level(f: Forgery) -> None:
    """the first line claims another capture level than its lines have"""
    levels = ["minimal", "standard", "full"]
    other = levels[(levels.index(f.scene.run.step_level) + 1) % 3]
    first(f, lambda m: m["capture"].update(steps=other))


@attack(RECORDER, "run")
def no_first_line(f: Forgery) -> None:
    """the run line is not there"""
    signed(f, f.lines[1:])


@attack(RECORDER, "lines")
def no_lines(f: Forgery) -> None:
    """an empty ledger, signed"""
    signed(f, [])


@attack(RECORDER, "lines")
def line_of_two_million_bytes(f: Forgery) -> None:
    """a line beyond the limit"""
    signed(f, [*f.lines, b'"' + b"a" * 2_000_000 + b'"'])


# ---- fields of a line


def on_layer(f: Forgery, change: Callable[[Line], object]) -> None:
    line = f.line(f.scene.steps[0], "layer 0")
    change(line)
    f.put(line)
    f.seal()


def measured(**values: Any) -> Callable[[Line], object]:
    return lambda line: line["measured"].update(values)


def moved_tag(line: Line) -> None:
    line["derived"]["residual_norm"] = line["measured"].pop("residual_norm")


FIELDS: dict[str, tuple[str, Callable[[Line], object]]] = {
    "measured value called derived": ("a field moves to the other tag", moved_tag),
    "unknown field in a line": ("a field that no table has", measured(secret=1)),
    "missing field in a line": ("a field is left out, without a reason", lambda line: line["measured"].pop("residual_norm")),
    "value called absent": ("a value is replaced by a reason that does not hold", measured(residual_norm={"absent": "zero norm"})),
    "absence without a known reason": ("a reason that no field has", measured(residual_norm={"absent": "not needed"})),
    "null in place of a value": ("null", measured(residual_norm=None)),
    "number as text": ("a number in quotation marks", measured(residual_norm="1")),
    "number beyond binary32": ("0.1, which is no binary32 value", measured(residual_norm=0.1)),
    "truth as a number": ("true in place of a number", measured(residual_norm=True)),
    "digest in capitals": ("a digest in capital letters", measured(residual_sha256="AB" * 32)),
    "dimension outside the model": ("an index behind the last", measured(residual_largest_dimension=10**12)),
}
for title, (what, change) in FIELDS.items():
    GROUP.add(title, RECORDER, what, "census", partial(on_layer, change=change))
