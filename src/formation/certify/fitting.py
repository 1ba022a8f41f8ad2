"""Rows of a forger's choosing, and everything that the lines say of them made to fit, so that only re-execution can tell."""

from __future__ import annotations

from typing import Any

import numpy as np

from formation.certify.forgery import Forgery, Line, f32_text, f32s, value_in
from formation.kernels import readout
from formation.kernels.tensor import F32
from formation.ledger import canonical
from formation.probe import readout as measure
from formation.probe.encode import digest, number


def set_row(f: Forgery, position: int, boundary: int, row: bytes) -> None:
    """A committed row, and all that its line says of it"""
    f.set_row("rows", position, "residual", boundary, row)
    values = np.frombuffer(row, "<f4").copy()
    slot = f"layer {boundary - 1}" if boundary else "embed"
    changed: dict[str, Any] = {"residual_sha256": digest(values), "residual_norm": number(readout.norms(values[None], threads=1)[0])}
    if boundary:
        largest = int(np.abs(values).argmax())
        changed |= {"residual_largest": number(abs(values[largest])), "residual_largest_dimension": largest}
    f.change(position, slot, **changed)


def fit(f: Forgery, position: int, boundary: int) -> None:
    """The cells that end and begin with a committed row get norms that rows of theirs could have, and experts that could have written them:
    else `verify` sees by the lengths alone that a row is not what its cell made of the one before"""
    for layer in (boundary - 1, boundary):
        if 0 <= layer < f.scene.run.shape.layers:
            fit_cell(f, position, layer)
    if boundary == f.scene.run.shape.layers and position in f.scene.steps:
        row, eps = row_of(f, position, boundary), value_in(canonical.decode(f.lines[0], limits=canonical.LINE), "norm_eps")
        f.change(position, "lm_head", final_scale=measure.final_scale(row, eps))


def row_of(f: Forgery, position: int, boundary: int) -> F32:
    return np.frombuffer(f.row("rows", position, "residual", boundary), "<f4").copy()


def fit_cell(f: Forgery, position: int, layer: int) -> None:
    """Half of the way from x to x' is said to be attention's"""
    x, after, slot = row_of(f, position, layer), row_of(f, position, layer + 1), f"layer {layer}"
    a = (after - x) / np.float32(2)
    u = x + a
    m = after - u
    values = measure.row_values(a, u, m, after) | measure.share_values(a, m, after)
    line = f.line(position, slot)
    f.change(position, slot, **{name: value for name, value in values.items() if name in said(line) and not name.endswith("_sha256")})
    if not isinstance(said(line).get("expert_write_norms", {}), dict):
        fit_experts(f, position, slot)


def said(line: Line) -> dict[str, Any]:
    return {**line["measured"], **line["derived"]}


def fit_experts(f: Forgery, position: int, slot: str) -> None:
    """All chosen experts write the same, and the shared one across"""
    line = f.line(position, slot)
    gates, m = f32s(value_in(line, "gates")), value_in(line, "mlp_write_norm")
    values: dict[str, Any] = {
        "expert_output_norms": f32_text(m / len(gates) / abs(gate) for gate in gates), "expert_write_norms": f32_text([m / len(gates)] * len(gates)),
        "expert_write_cosines": [1.0] * len(gates),
    }  # fmt: skip
    if not isinstance(said(line)["shared_write_cosine"], dict):
        values["shared_write_cosine"] = 0.0
    f.change(position, slot, **values)


def positions(f: Forgery) -> list[int]:
    return sorted({position for position, slot in f.scene.slots if slot == "embed"})


def derive_all(f: Forgery) -> None:
    """All that follows, of every position, and the seal"""
    for position in positions(f):
        f.derive(f.step(position))
    f.seal()
