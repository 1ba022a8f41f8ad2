"""The tensors of a part, used by the names of their modules: linear maps and vectors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from formation.errors import CheckpointError
from formation.kernels import ops
from formation.kernels.tensor import F32, Kind, Tensor, Weight

PLAIN = {"F32": Kind.F32, "F16": Kind.F16, "BF16": Kind.BF16}


class Modules:
    """Tensors of one part under a common prefix (with its final dot, or empty), and how many threads their products may use."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, threads: int) -> None:
        self.tensors = tensors
        self.prefix = prefix
        self.threads = threads

    def under(self, name: str) -> Modules:
        return Modules(self.tensors, f"{self.prefix}{name}.", self.threads)

    def matrix(self, name: str) -> Weight:
        """The matrix [out, in] as stored."""
        module = self.prefix + name
        packed = self.tensors.get(f"{module}.weight_packed")
        if packed is not None:
            rows, cols = packed.shape[0], packed.shape[1] * 8
            _check_packed_shape(self.tensors[f"{module}.weight_shape"], rows, cols)
            return Weight(packed.name, Kind.INT4, rows, cols, packed.data, self.tensors[f"{module}.weight_scale"].data)
        weight = self.tensors[f"{module}.weight"]
        rows, cols = weight.shape
        if weight.dtype == "F8_E4M3":
            return Weight(weight.name, Kind.FP8, rows, cols, weight.data, self.tensors[f"{module}.weight_scale_inv"].data)
        return Weight(weight.name, PLAIN[weight.dtype], rows, cols, weight.data)

    def linear(self, name: str, x: F32) -> F32:
        """x [T, in] -> [T, out]"""
        return ops.linear(self.matrix(name), x, threads=self.threads)

    def vector(self, name: str) -> F32:
        """A stored vector, widened to binary32                                                             [n]"""
        tensor = self.tensors[self.prefix + name]
        row = Weight(tensor.name, PLAIN[tensor.dtype], 1, tensor.shape[0], tensor.data)
        return ops.gather(row, np.zeros(1, np.int64), threads=1).reshape(-1)

    def norm(self, name: str, x: F32, eps: float, *, centred: bool = False) -> F32:
        """RMSNorm of x [T, n] with the stored weight; `centred`: what is stored is the weight minus one."""
        w = self.vector(f"{name}.weight")
        w = ops.add(w, np.ones_like(w), threads=1) if centred else w
        return ops.rmsnorm(x, w, eps, threads=self.threads)

    def taps(self, name: str) -> F32:
        """A stored depthwise convolution [channels, 1, taps], widened                                      [taps, channels]"""
        tensor = self.tensors[self.prefix + name]
        rows, _, cols = tensor.shape
        taps = ops.gather(Weight(tensor.name, PLAIN[tensor.dtype], rows, cols, tensor.data), np.arange(rows), threads=1)
        return np.ascontiguousarray(taps.T)


def _check_packed_shape(shape: Tensor, rows: int, cols: int) -> None:
    found = np.frombuffer(shape.data.tobytes(), "<i4" if shape.dtype == "I32" else "<i8").tolist()
    if found != [rows, cols]:
        raise CheckpointError(f"tensor {shape.name}: expected [{rows}, {cols}], got {found}")
