"""The checkpoint as audits read it: only the parts that are used, each tensor hashed before anything is computed with it, once for all bundles.

A part is what the engine reads as one: a layer's attention, norms, router and shared expert, one routed expert, or the final norm with lm_head.
Of the embedding single rows are read, which are held against the ledger and not hashed as a tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from typing import Self

from formation.audit.compare import Difference, Findings
from formation.kernels.tensor import Tensor
from formation.model.architecture import Key, Part
from formation.weights.checkpoint import Checkpoint
from formation.weights.stream import Unit, WeightStream


class Weights:
    """`digests` are those of all tensors that were used so far, by any bundle."""

    def __init__(self, checkpoint: Checkpoint, parts: Mapping[Key, Part], budget_bytes: int, *, threads: int) -> None:
        self.stream = WeightStream(checkpoint, [Unit(key, part.names) for key, part in parts.items()], budget_bytes)
        self.digests: dict[str, str] = {}
        self._parts = parts
        self._hashers = ThreadPoolExecutor(threads, "formation-hash")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._hashers.shutdown()
        self.stream.close()

    @contextmanager
    def use(self, key: Key, ahead: Sequence[Key] = ()) -> Iterator[Mapping[str, Tensor]]:
        """The part's tensors, valid inside the block; parts `ahead` are read meanwhile. Raises ReadError and BudgetError."""
        with self.stream.use(key) as tensors:
            self.stream.prefetch(ahead)
            self._hash([tensor for name, tensor in tensors.items() if name not in self.digests])
            yield tensors

    def experts(self, layer: int, chosen: Sequence[int]) -> Iterator[tuple[int, Mapping[str, Tensor]]]:
        """As a model asks for them."""
        keys = [("expert", layer, expert) for expert in chosen]
        self.stream.prefetch(keys, first=True)
        for expert, key in zip(chosen, keys, strict=True):
            with self.use(key) as tensors:
                yield expert, tensors

    def embedding_rows(self, ids: Sequence[int]) -> Tensor:
        return self.stream.rows(self._parts[("embedding",)].names[0], ids)

    def names(self, key: Key) -> tuple[str, ...]:
        return self._parts[key].names

    def _hash(self, tensors: Sequence[Tensor]) -> None:
        for tensor, found in zip(tensors, self._hashers.map(payload_digest, tensors), strict=True):
            self.digests[tensor.name] = found


class Used:
    """What the audit of one bundle used of them. `known` are the digests of payloads that the bundle committed to, of some tensors or none."""

    def __init__(self, weights: Weights, known: Mapping[str, str], findings: Findings) -> None:
        self.weights = weights
        self.digests: dict[str, str] = {}
        self._known, self._findings = known, findings

    def note(self, *keys: Key) -> None:
        """These parts, which have been read; a payload that is not the one the bundle committed to is a finding."""
        for name in (name for key in keys for name in self.weights.names(key) if name not in self.digests):
            found = self.digests[name] = self.weights.digests[name]
            if self._known.get(name, found) != found:
                self._findings.add(Difference(-1, "checkpoint", f"payload of {name}", found, self._known[name]))

    def experts(self, layer: int, chosen: Sequence[int]) -> Iterator[tuple[int, Mapping[str, Tensor]]]:
        """As a model asks for them, where it computes for this bundle alone."""
        for expert, tensors in self.weights.experts(layer, chosen):
            self.note(("expert", layer, expert))
            yield expert, tensors


def payload_digest(tensor: Tensor) -> str:
    return sha256(tensor.data.data).hexdigest()
