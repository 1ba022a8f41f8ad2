"""The rows and router logits of a run, put beside its ledger as they are observed."""

from __future__ import annotations

from pathlib import Path

from formation.errors import UsageError
from formation.kernels.tensor import F32
from formation.ledger import sidecar
from formation.ledger.blocks import router_tensors, row_tensors
from formation.model.architecture import Shape
from formation.probe.encode import little_endian
from formation.probe.layer import Cell

MODES = ("none", "boundaries", "all")


class Sidecars:
    """`out/rows` and `out/router` of the run in `out`; neither with mode `none`, no router for a model without experts.

    `positions`: None begins (nothing may be there), a number goes on where so many positions are committed. Raises UsageError for another
    mode, and what `sidecar.create` and `sidecar.resume` raise.
    """

    def __init__(self, out: Path, mode: str, shape: Shape, *, positions: int | None = None) -> None:
        if mode not in MODES:
            raise UsageError(f"rows: expected {', '.join(MODES)}, got {mode}")
        self._first_router = shape.dense_layers
        self._writes = mode == "all"
        self._writers: dict[str, sidecar.Writer] = {}
        for name, tensors in tables(mode, shape).items():
            folder = out / name
            self._writers[name] = sidecar.create(folder, tensors) if positions is None else sidecar.resume(folder, tensors, positions)

    def embed(self, position: int, x: F32) -> None:
        """x_0 [D]"""
        self._put("rows", position, "residual", 0, x)

    def cell(self, cell: Cell) -> None:
        self._put("rows", cell.position, "residual", cell.layer + 1, cell.after)
        if self._writes:
            self._put("rows", cell.position, "attention_write", cell.layer, cell.a)
            self._put("rows", cell.position, "mlp_write", cell.layer, cell.m)
        if cell.routed is not None:
            self._put("router", cell.position, "logits", cell.layer - self._first_router, cell.routed.logits)
            self._put("router", cell.position, "selection", cell.layer - self._first_router, cell.routed.selection)

    def _put(self, name: str, position: int, tensor: str, index: int, values: F32) -> None:
        if name in self._writers:
            self._writers[name].put(position, tensor, index, little_endian(values))

    def commit(self, positions: int) -> None:
        """Everything of positions before `positions` is on disk when this returns."""
        for writer in self._writers.values():
            writer.commit(positions)

    def close(self, positions: int) -> None:
        """Commits and finishes all files."""
        for writer in self._writers.values():
            writer.close(positions)

    def release(self) -> None:
        """Lets go of the files, finished or not; what was committed can be resumed."""
        for writer in self._writers.values():
            writer.release()


def tables(mode: str, shape: Shape) -> dict[str, dict[str, tuple[int, int]]]:
    """{folder: {tensor: (rows, width) of a position}}"""
    if mode == "none":
        return {}
    rows = {"rows": row_tensors(mode, shape.layers, shape.hidden)}
    layers = len(shape.expert_layers())
    return rows | {"router": router_tensors(layers, shape.experts)} if layers else rows
