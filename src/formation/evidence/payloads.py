"""tensor-digests.json: the SHA-256 of tensors' payloads, made by a pass over the weights that is separate from recording.

    {"kind": "formation-tensor-digests/1", "tensor_table_root": …, "tensors": [{"name": …, "sha256": …}, …]}

Tensors stand in the order of their names' bytes, as in checkpoint.json; a payload is the tensor's bytes in its shard. The root binds the file
to the table, which says where those bytes lie. Without this file, what is known of the weights ends at the shards' headers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from formation.evidence.container import TENSOR_DIGESTS
from formation.evidence.strict import Refused, digest, document, fields, text
from formation.ledger import canonical
from formation.ledger.files import read_document, read_whole, write_whole

KIND = "formation-tensor-digests/1"
CHECK = "tensor-digests"
HEADERS = "headers"  # the WEIGHTS level of a bundle without this file


def write(folder: Path, digests: Mapping[str, str]) -> None:
    """Beside the checkpoint.json that it belongs to; sealing then signs it. `digests` is tensor name -> SHA-256 in hexadecimal."""
    table = identity(folder)
    rows = [{"name": name, "sha256": digests[name]} for name in sorted(digests, key=str.encode)]
    data = canonical.encode({"kind": KIND, "tensor_table_root": table["tensor_table_root"], "tensors": rows}, limits=canonical.DOCUMENT)
    level(read(data, table["tensor_table_root"]), _names(table))
    write_whole(folder / TENSOR_DIGESTS, data)


def level_of(folder: Path) -> str:
    """The WEIGHTS level of a bundle with this file. Raises Refused, check `tensor-digests`, and EnvironmentFault."""
    table = identity(folder)
    return level(read(read_whole(folder / TENSOR_DIGESTS), table["tensor_table_root"]), _names(table))


def read(data: bytes, tensor_table_root: str) -> dict[str, str]:
    """Tensor name -> SHA-256 of its payload. Raises Refused, check `tensor-digests`."""
    value = document(CHECK, TENSOR_DIGESTS, data, ("kind", "tensor_table_root", "tensors"))
    if value["kind"] != KIND or value["tensor_table_root"] != tensor_table_root or not isinstance(value["tensors"], list):
        raise Refused(CHECK, f"{TENSOR_DIGESTS}: expected {KIND} of tensor table {tensor_table_root}, got another")
    digests: dict[str, str] = {}
    last = b""
    for row in value["tensors"]:
        name = text(CHECK, "tensor, name", fields(CHECK, "tensor", row, ("name", "sha256"))["name"])
        if digests and name.encode() <= last:
            raise Refused(CHECK, f"{TENSOR_DIGESTS}: expected tensors in ascending order, got {canonical.quoted(name)}")
        digests[name] = digest(CHECK, f"tensor {canonical.quoted(name)}", row["sha256"])
        last = name.encode()
    return digests


def level(digests: Mapping[str, str], tensors: Collection[str]) -> str:
    """What is known of the payloads: `all`, or `tensors n of N`. Raises Refused for a tensor that the checkpoint does not have."""
    strangers = set(digests) - set(tensors)
    if strangers or not digests:
        got = canonical.quoted(min(strangers)) if strangers else "none"
        raise Refused(CHECK, f"{TENSOR_DIGESTS}: expected tensors of the checkpoint, got {got}")
    return "all" if len(digests) == len(tensors) else f"tensors {len(digests)} of {len(tensors)}"


def identity(folder: Path) -> dict[str, Any]:
    """What checkpoint.json says. Raises Refused, check `tensor-digests`, and EnvironmentFault."""
    return fields(CHECK, "checkpoint.json", read_document(folder / "checkpoint.json"), ("files", "tensor_table", "tensor_table_root"))


def _names(table: Mapping[str, Any]) -> list[str]:
    rows = table["tensor_table"]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Refused(CHECK, "checkpoint.json: expected a table of tensors, got something else")
    return [text(CHECK, "checkpoint.json, name", row.get("name")) for row in rows]
