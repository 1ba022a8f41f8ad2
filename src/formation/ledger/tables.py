"""A ledger as three tables of typed records, read line by line: what an analyst wants, where the file holds what a verifier wants.

    tokens    one record for each token that was formed: what it is, how probable, how chosen, its embedding
    cells     one for each layer of each position, prompt included: every value of that line
    experts   one for each expert that wrote in a cell: the chosen ones ascending, then the shared one, whose `expert` is -1

Columns are the fields of the field table, under their names there; of `embed` with `embed_` before them, of experts as EXPERT says. A token's
`step` is the `position` of the cells that formed it, its own `position` is one more. Not in a table: the embeddings of prompt positions.
Every line is held against the field table and stands in its order, else EnvironmentFault; nothing is verified here. Memory does not depend
on the size of the ledger.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import fields as parts_of
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from formation.errors import EnvironmentFault
from formation.exact64 import exp64
from formation.ledger import canonical, fields, reader
from formation.ledger.fields import COMPONENTS, Field
from formation.ledger.lines import STEP_SLOTS, Line, LineRefusal, Place, Run, check_line, read_run, value_of

NOT_CAPTURED = "not captured"  # the field lies above the capture level of its line
NOT_UTF8 = "not UTF-8"
SHARED_EXPERT = "shared expert"  # which no router chooses
SHARED = -1
LOGPROB_ROOM = 2.0**-20  # a logarithm of a probability near 1 may come out this far above 0


@dataclass(frozen=True)
class Absent:
    """Why a value is not there. False in a condition; not a number, so that arithmetic with it fails instead of going wrong."""

    reason: str

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return f"absent: {self.reason}"


@dataclass(frozen=True, repr=False)
class Column(Field):
    """A field as an attribute of records. `tag` is also "place" (where the record stands) or "computed" (here, not in the ledger)."""

    def __get__(self, record: Record | None, owner: type) -> Any:
        return self if record is None else self.value(record.stored.get(self.name, {"absent": NOT_CAPTURED}))

    def __repr__(self) -> str:
        """For help() on a record: type, unit, what it is"""
        return f"{self.dtype}{f' {self.unit}' if self.unit else ''}, {self.tag}: {self.definition}"

    def value(self, stored: Any) -> Any:
        """What a line holds as Python has it: vectors as tuples of floats, bytes as bytes, absences as Absent"""
        if isinstance(stored, dict) and "absent" in stored:
            return Absent(stored["absent"])
        if self.dtype == "bytes":
            return base64.b64decode(stored)
        found = value_of(self, stored)
        return tuple(found) if isinstance(found, list) else found


@dataclass(frozen=True, repr=False)
class Record:
    """One row of a table. Its attributes are `columns`; each is decoded when it is asked for."""

    columns: ClassVar[tuple[Column, ...]] = ()
    stored: Mapping[str, Any]  # by column, as the ledger holds it

    def __init_subclass__(cls) -> None:
        for column in cls.columns:
            setattr(cls, column.name, column)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def items(self) -> Iterator[tuple[Column, Any]]:
        """Columns that the capture level holds, with their values or Absent"""
        return ((column, column.value(self.stored[column.name])) for column in self.columns if column.name in self.stored)

    def __repr__(self) -> str:
        shown = [f"{c.name}={getattr(self, c.name)!r}" for c in self.columns[1:] if c.tag in ("place", "computed")]
        return f"{type(self).__name__}({', '.join(shown)})"


# ---- columns


def place(name: str, dtype: str, definition: str) -> Column:
    return Column(name, "", "place", dtype, "", "minimal", definition)


def column(field: Field, **changes: Any) -> Column:
    return Column(**{part.name: getattr(field, part.name) for part in parts_of(field)} | changes)


def columns_of(slot: str, prefix: str = "") -> Iterator[Column]:
    return (column(field, name=prefix + field.name) for field in fields.fields_of(slot, "full"))


RUN_ID = place("run_id", "sha256", "name of the run: SHA-256 of its anchor")
KIND = place("kind", "text", f"of the position: {', '.join(fields.KINDS)}")
TEXT = Column("text", "", "computed", "text", "", "minimal", "what it spells, where that is UTF-8", "UTF-8 of bytes", absent=(NOT_UTF8,))
PROBABILITY = Column("probability", "", "computed", "f64", "", "minimal", "probability of the token", "exp(logprob)")


class TokenRecord(Record):
    """One token that was formed."""

    columns = (
        RUN_ID,
        place("token", "int", "number of the token, from 1"),
        place("step", "int", "position of the row that formed it, the position of its cells"),
        place("position", "int", "position it stands at: step + 1"),
        KIND,
        *columns_of("token"), TEXT, PROBABILITY, *columns_of("lm_head"), *columns_of("sampler"), *columns_of("embed", "embed_"),
    )  # fmt: skip


class CellRecord(Record):
    """One layer at one position."""

    columns = (RUN_ID, place("position", "int", "of the row"), place("layer", "int", "from 0"), KIND, *columns_of("layer"))


# Column, field of the chosen experts, field of the shared one, which no router knows.
EXPERT: tuple[tuple[str, str, str], ...] = (
    ("gate", "gates", "shared_gate"),
    ("logit", "chosen_logits", ""),
    ("score", "chosen_scores", ""),
    ("selection", "chosen_selection", ""),
    ("bias", "chosen_biases", ""),
    ("output_norm", "expert_output_norms", "shared_output_norm"),
    ("write_norm", "expert_write_norms", "shared_write_norm"),
    ("cosine", "expert_write_cosines", "shared_write_cosine"),
    *((f"dla{component}", f"dla{component}_experts", f"dla{component}_shared") for component in COMPONENTS),
)
LAYER: dict[str, Column] = {each.name: each for each in CellRecord.columns}


def expert_columns() -> Iterator[Column]:
    for name, of_chosen, of_shared in EXPERT:
        field = LAYER[of_chosen]
        known = [*field.absent, *(LAYER[of_shared].absent if of_shared else (SHARED_EXPERT,))]
        reasons = tuple(dict.fromkeys(reason for reason in known if reason != fields.DENSE))
        definition = f"one of {of_chosen}: {field.definition}" + (f"; of the shared expert {of_shared}" if of_shared else "")
        yield column(field, name=name, dtype=field.dtype.removesuffix("[]"), length="", definition=definition, absent=reasons)


class ExpertRecord(Record):
    """One expert that wrote in a cell."""

    columns = (
        *CellRecord.columns[:4],
        place("expert", "int", f"its number in the layer, {SHARED} for the shared expert"),
        *expert_columns(),
    )  # fmt: skip

    @property
    def shared(self) -> bool:
        return bool(self.expert == SHARED)


TABLES: dict[str, type[Record]] = {"tokens": TokenRecord, "cells": CellRecord, "experts": ExpertRecord}


# ---- reading


def read_first(folder: Path) -> Run:
    """What the first line of the ledger in `folder` says. Raises EnvironmentFault."""
    for _, line in decoded(folder):
        try:
            return read_run(line)
        except LineRefusal as refusal:
            raise refused(folder, 1, refusal) from None
    raise refused(folder, 1, "expected the run line, got no whole line")


def records(folder: Path) -> Iterator[Record]:
    """Records of all three tables in the order of the ledger: of a position its cells, each before its experts, then its token.
    Raises EnvironmentFault, which names the line."""
    parts: dict[str, Line] = {}
    formed = 0
    for where, line in checked(folder):
        values = line["measured"] | line["derived"]
        if where.layer >= 0:
            cell = {"run_id": where.run.run_id, "position": where.position, "layer": where.layer, "kind": where.kind, **values}
            yield CellRecord(cell)
            yield from experts_of(cell)
        else:
            parts[where.slot] = values
        if where.slot == "token":
            formed += 1
            yield token_of(where, formed, parts)


def token_of(where: Place, number: int, parts: Mapping[str, Line]) -> TokenRecord:
    embed = {f"embed_{name}": value for name, value in parts["embed"].items()}
    spelled = base64.b64decode(parts["token"]["bytes"])
    try:
        text: Any = spelled.decode()
    except UnicodeDecodeError:
        text = {"absent": NOT_UTF8}
    return TokenRecord({
        "run_id": where.run.run_id, "token": number, "step": where.position, "position": where.position + 1, "kind": where.kind,
        "text": text, "probability": exp64(float(parts["lm_head"]["logprob"])),
        **parts["token"], **parts["lm_head"], **parts["sampler"], **embed,
    })  # fmt: skip


def experts_of(cell: Mapping[str, Any]) -> Iterator[ExpertRecord]:
    """The experts of a cell as the ledger holds it: none in a dense layer, the shared one if its norms were captured"""
    chosen = cell["chosen"]
    if isinstance(chosen, dict):
        return
    stands = {name: cell[name] for name in ("run_id", "position", "layer", "kind")}
    known = [(name, LAYER[source].value(cell[source])) for name, source, _ in EXPERT if source in cell]
    for n, expert in enumerate(chosen):
        each = {name: {"absent": value.reason} if isinstance(value, Absent) else value[n] for name, value in known}
        yield ExpertRecord({**stands, "expert": expert, **each})
    if not isinstance(cell.get("shared_output_norm", {}), dict):
        each = {name: cell[source] if source else {"absent": SHARED_EXPERT} for name, _, source in EXPERT if not source or source in cell}
        yield ExpertRecord({**stands, "expert": SHARED, **each})


def checked(folder: Path) -> Iterator[tuple[Place, Line]]:
    """Every line after the first with where it stands, each the one that is due. A complete ledger ends with a whole position; an INCOMPLETE
    one may end anywhere, and is read up to its first line that is torn or not canonical."""
    run: Run | None = None
    last: Place | None = None
    number = 0
    for number, line in decoded(folder):
        try:
            if run is None:
                run = read_run(line)
                continue
            found = check_line(line, run)
            check_follows(last, found)
            if found.slot == "lm_head" and line["derived"]["logprob"] > LOGPROB_ROOM:
                raise LineRefusal(f"expected a log probability of at most 0 in {found}, got {line['derived']['logprob']}")
        except LineRefusal as refusal:
            raise refused(folder, number, refusal) from None
        last = found
        yield found, line
    whole = last is not None and not slot_after(last)
    if run is None or (not whole and reader.find(folder).name == reader.NAME):
        raise refused(folder, number + 1, f"expected {'whole positions' if run else 'the run line'}, got the end of the file")


def check_follows(before: Place | None, found: Place) -> None:
    slot = slot_after(before) if before else ""
    begins = (before.position + 1 if before else 0, "embed", found.kind)
    due = (before.position, slot, before.kind) if before and slot else begins
    if (found.position, found.slot, found.kind) != due:
        raise LineRefusal(f"expected {due[1]} of {due[2]} position {due[0]}, got {found.slot} of {found.kind} position {found.position}")


def slot_after(where: Place) -> str:
    """In the same position, empty after its last"""
    steps = STEP_SLOTS if where.kind != "prompt" else ()
    if where.slot in steps:
        return "".join(steps[steps.index(where.slot) + 1 :][:1])
    return f"layer {where.layer + 1}" if where.layer + 1 < where.run.shape.layers else "".join(steps[:1])


def decoded(folder: Path) -> Iterator[tuple[int, Any]]:
    """Lines as values, with their numbers from 1"""
    path = reader.find(folder)
    size_bytes, number = 0, 0
    for number, data in enumerate(reader.lines(folder), 1):
        try:
            value = canonical.decode(data, limits=canonical.LINE)
        except canonical.CanonicalRefusal as refusal:
            if path.name == reader.PART_NAME:
                return
            raise refused(folder, number, refusal) from None
        size_bytes += len(data) + 1
        yield number, value
    if path.name == reader.NAME and size_bytes != path.stat().st_size:
        raise refused(folder, number + 1, "expected a whole line, got a torn one")


def refused(folder: Path, number: int, why: object) -> EnvironmentFault:
    return EnvironmentFault(f"{reader.find(folder)}, line {number}: {why}", hint="it is damaged, or another version of formation recorded it")
