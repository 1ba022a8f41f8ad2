"""What a run, a probe and an audit ask of a model: its shape, the parts it reads, and the three computations embed, layer, head."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from formation.kernels import ops
from formation.kernels.tensor import F32, I64, Tensor
from formation.model.moe import Experts, MixtureOfExperts
from formation.model.quantisation import Quantisation, Stored
from formation.model.taps import Probe

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Shape:
    layers: int
    hidden: int
    vocabulary: int
    context: int  # positions the model can address
    experts: int  # routed experts of a layer that has them
    chosen: int  # experts per token
    dense_layers: int  # leading layers without experts

    def expert_layers(self) -> range:
        return range(self.dense_layers, self.layers)


@dataclass(frozen=True)
class Part:
    """What is read and kept together: ("embedding",), ("layer", l), ("expert", l, e) or ("head",), and its tensors."""

    key: Key
    stored: tuple[Stored, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(s.name for s in self.stored)

    @property
    def nbytes(self) -> int:
        """Size by the first dtype of each tensor: what is expected where only names are known."""
        return sum(s.nbytes for s in self.stored)


class Model(Protocol):
    """One model with its constants. `decoder.Decoder` is one, and says what every argument means; what is no such decoder is a class of its own."""

    @property
    def shape(self) -> Shape: ...
    @property
    def quantisation(self) -> Quantisation: ...

    @property
    def moe(self) -> MixtureOfExperts: ...
    @property
    def router(self) -> ops.Router: ...
    @property
    def heads(self) -> int: ...
    @property
    def eps(self) -> float: ...
    @property
    def tied(self) -> bool: ...
    @property
    def prefix(self) -> str: ...
    @property
    def centred(self) -> bool: ...  # norm weights are stored minus one

    def kind(self, layer: int) -> str: ...  # what mixes positions: "attention", or "delta"
    def bias_name(self, layer: int) -> str | None: ...
    def part(self, key: Key, names: Collection[str]) -> Part: ...
    def skips(self, name: str) -> bool: ...
    def new_cache(self, layer: int, capacity: int) -> Any: ...
    def cache_bytes(self, layer: int, capacity: int) -> int: ...
    def row_bytes(self) -> int: ...
    def embed(self, rows: Tensor, positions: I64, probe: Probe) -> F32: ...
    def layer(
        self, layer: int, x: F32, positions: I64, cache: Any, tensors: Mapping[str, Tensor], experts: Experts,
        probe: Probe, *, threads: int, chunk: int,
    ) -> F32: ...  # fmt: skip
    def likely_experts(self, layer: int, u: F32, tensors: Mapping[str, Tensor], *, threads: int) -> list[int]: ...
    def remember(
        self, layer: int, x: F32, positions: I64, cache: Any, tensors: Mapping[str, Tensor], *, threads: int, chunk: int
    ) -> None: ...  # fmt: skip
    def head(self, x: F32, positions: I64, tensors: Mapping[str, Tensor], probe: Probe, *, threads: int) -> F32: ...


def part_keys(shape: Shape) -> list[Key]:
    """Every part of a model, in the order of the forward pass."""
    layers: list[Key] = []
    for layer in range(shape.layers):
        layers.append(("layer", layer))
        if layer >= shape.dense_layers:
            layers += [("expert", layer, e) for e in range(shape.experts)]
    return [("embedding",), *layers, ("head",)]


def parts_of(model: Model, names: Collection[str]) -> dict[Key, Part]:
    """Every part of the model, in the order of the forward pass, as it is stored in a checkpoint of these tensor names."""
    return {key: model.part(key, names) for key in part_keys(model.shape)}
