"""The three tables as Arrow has them: typed columns, vectors as lists, absent values null. pyarrow is asked for when it is needed.

The last column, `absent`, says why: JSON, reason -> columns. A null that it does not name was not captured. The schema's metadata tells the
run and whether it is complete; the metadata of each column its unit, tag and definition.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formation.errors import EnvironmentFault
from formation.evidence.plain import absences, json_text
from formation.ledger.tables import TABLES, Absent, Column, Record

if TYPE_CHECKING:
    from formation.evidence.bundle import Bundle

Arrow = Any  # a type of pyarrow, which brings no types of its own
ROWS = 2048  # of one table, held until they are a row group
ABSENT = "absent"


def extra(module: str) -> Any:
    """A package that not every installation has. Raises EnvironmentFault, which says how to get it."""
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        hint = "pip install 'formation-ledger[parquet]'" if package == "pyarrow" else f"pip install {package}"
        raise EnvironmentFault(f"expected the package {package}, got none", hint=hint) from None


# ---- schema


def schema_of(bundle: Bundle, columns: Sequence[Column]) -> Arrow:
    pa = extra("pyarrow")
    table = [pa.field(c.name, type_of(c), nullable=c.tag != "place", metadata=described(c)) for c in columns]
    why = {"definition": "why values are absent: JSON, reason -> columns; other nulls were not captured"}
    return pa.schema([*table, pa.field(ABSENT, pa.string(), nullable=False, metadata=why)], metadata=facts(bundle))


def facts(bundle: Bundle) -> dict[str, str]:
    return {"formation.run_id": bundle.run_id, "formation.complete": "true" if bundle.complete else "false"}


def described(column: Column) -> dict[str, str]:
    told = {"tag": column.tag, "unit": column.unit, "definition": column.definition, "formula": column.formula}
    return {name: text for name, text in told.items() if text}


def type_of(column: Column) -> Arrow:
    pa = extra("pyarrow")
    kind = column.dtype.removesuffix("[]")
    one = pa.struct([(name, scalar(dtype)) for name, dtype in column.keys]) if kind == "record" else scalar(kind)
    return pa.list_(one) if column.dtype.endswith("[]") else one


def scalar(dtype: str) -> Arrow:
    pa = extra("pyarrow")
    types = {"f32": pa.float32, "f64": pa.float64, "int": pa.int64, "bool": pa.bool_, "bytes": pa.binary}
    return types.get(dtype, pa.string)()


# ---- rows


class Rows:
    """Collects records of one table and hands them on as record batches."""

    def __init__(self, schema: Arrow) -> None:
        self.schema = schema
        self._columns: list[list[Any]] = [[] for _ in schema]

    def add(self, record: Record) -> None:
        values = [getattr(record, column.name) for column in record.columns]
        values = [None if isinstance(value, Absent) else value for value in values]
        for held, value in zip(self._columns, (*values, json_text(absences(record))), strict=True):
            held.append(value)

    def __len__(self) -> int:
        return len(self._columns[0])

    def take(self) -> Arrow:
        pa = extra("pyarrow")
        arrays = [pa.array(held, type=field.type) for held, field in zip(self._columns, self.schema, strict=True)]
        self._columns = [[] for _ in self.schema]
        return pa.record_batch(arrays, schema=self.schema)


def batches(records: Iterable[Record], schemas: Mapping[str, Arrow]) -> Iterator[tuple[str, Arrow]]:
    """Batches of at most ROWS rows with the name of their table, as the records come; memory does not depend on how many"""
    rows = {TABLES[name]: (name, Rows(schema)) for name, schema in schemas.items()}
    for record in records:
        name, held = rows[type(record)]
        held.add(record)
        if len(held) == ROWS:
            yield name, held.take()
    for name, held in rows.values():
        if len(held):
            yield name, held.take()


# ---- what is made of them


def schemas_of(bundle: Bundle) -> dict[str, Arrow]:
    return {name: schema_of(bundle, record.columns) for name, record in TABLES.items()}


def tables(bundle: Bundle) -> dict[str, Arrow]:
    pa = extra("pyarrow")
    schemas = schemas_of(bundle)
    held: dict[str, list[Arrow]] = {name: [] for name in schemas}
    for name, batch in batches(bundle.records, schemas):
        held[name].append(batch)
    return {name: pa.Table.from_batches(held[name], schema=schema) for name, schema in schemas.items()}


def frames(bundle: Bundle) -> dict[str, Any]:
    pa, pd = extra("pyarrow"), extra("pandas")
    made = {name: table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get) for name, table in tables(bundle).items()}
    for frame in made.values():
        frame.attrs = {"run_id": bundle.run_id, "complete": bundle.complete}
    return made


def write_parquet(bundle: Bundle, paths: Mapping[str, Path]) -> dict[str, int]:
    """One file for each table, a row group for each batch; returns how many rows each has."""
    parquet = extra("pyarrow.parquet")
    schemas, counts = schemas_of(bundle), dict.fromkeys(paths, 0)
    with ExitStack() as stack:
        writers = {name: stack.enter_context(parquet.ParquetWriter(paths[name], schema, compression="zstd")) for name, schema in schemas.items()}
        for name, batch in batches(bundle.records, schemas):
            writers[name].write_batch(batch)
            counts[name] += batch.num_rows
    return counts
