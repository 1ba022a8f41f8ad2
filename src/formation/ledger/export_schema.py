"""The JSON Schema (2020-12) of an exported document, made from the columns of tables.py.

It stands as export.schema.json beside this module; tools/export_schema.py writes it and a test refuses drift.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from formation.ledger import canonical, fields
from formation.ledger.anchor import KIND as ANCHOR_KIND
from formation.ledger.tables import RUN_ID, SHARED, TABLES, Column, column

KIND = "formation-export/1"
NAME = "export.schema.json"
NUMBER = {"type": "number", "minimum": -canonical.LARGEST, "maximum": canonical.LARGEST}
TYPES: dict[str, dict[str, Any]] = {
    "f32": NUMBER,
    "f64": NUMBER,
    "int": {"type": "integer", "minimum": SHARED, "maximum": canonical.LARGEST},
    "bool": {"type": "boolean"},
    "text": {"type": "string"},
    "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
}


def schema() -> dict[str, Any]:
    """Of the whole document"""
    run = [column(field) for field in fields.fields_of("run", "full")]
    tables = {name: {"type": "array", "items": row(record.columns)} for name, record in TABLES.items()}
    top = {
        "kind": {"const": KIND},
        "run_id": described(RUN_ID),
        "complete": {"type": "boolean", "description": "false: the run was cut off or did not hold; its ledger was never closed"},
        "anchor": {"type": "object", "properties": {"kind": {"const": ANCHOR_KIND}}, "required": ["kind"]},
        "anchor_token": anchor_token(),
        "run": row(run),
        **tables,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{KIND.replace('/', ':')}",
        "title": "What a formation ledger holds, as three tables",
        "description": "A value that could not be had is an object with the reason; one that was not captured is not there. Vectors are arrays.",
        **closed(top, list(top)),
    }


def anchor_token() -> dict[str, Any]:
    token = closed({"id": TYPES["int"], "position": TYPES["int"]}, ["id", "position"])
    return {"description": "the token that the anchor leads to first", "anyOf": [token, absence(["no token yet"])]}


def row(columns: Iterable[Column]) -> dict[str, Any]:
    """One record. Fields above the minimal capture level may be missing; nothing else may."""
    shown = [each for each in columns if each is not RUN_ID]
    return closed({each.name: described(each) for each in shown}, [each.name for each in shown if each.level == "minimal"])


def described(each: Column) -> dict[str, Any]:
    parts = [each.definition, f"= {each.formula}" if each.formula else "", f"[{each.unit}]" if each.unit else "", f"({each.tag})"]
    said = {"description": " ".join(part for part in parts if part)}
    value = value_schema(each)
    return said | (value if not each.absent else {"anyOf": [value, absence(each.absent)]})


def value_schema(each: Column) -> dict[str, Any]:
    kind = each.dtype.removesuffix("[]")
    one = TYPES[kind] if kind != "record" else closed({name: key_schema(dtype) for name, dtype in each.keys}, [name for name, _ in each.keys])
    return {"type": "array", "items": one} if each.dtype.endswith("[]") else one


def key_schema(dtype: str) -> dict[str, Any]:
    return {"type": "array", "items": TYPES["f32"]} if dtype.endswith("]") else TYPES[dtype]


def absence(reasons: Iterable[str]) -> dict[str, Any]:
    return closed({"absent": {"enum": list(reasons)}}, ["absent"])


def closed(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
