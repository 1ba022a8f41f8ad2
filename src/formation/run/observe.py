"""Observers of one's own: names for the taps of a run, and the probe that hands copies of them to callables.

    engine.logits(ids, observe={"layer.3.router": lambda positions, values: print(values.argmax(axis=1))})

A name is `embedding`, `final_norm`, `logits`, or `layer.N.` and what of layer N (from 0, `*` for all): see NAMES. `expert.17` is one expert's
output before its gate, at the positions that chose it; `expert.shared` the shared one's.

A callable gets (positions, values), once per layer and pass, in the order of the layers: positions [n] int64, values [n, …] as in
formation.model.taps. Both are copies that cannot be written; what a callable does with them changes nothing of the run. What it raises ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from formation.errors import UsageError
from formation.kernels.tensor import F32, I64
from formation.model.architecture import Shape
from formation.model.taps import Probe, Site, Tap

Observer = Callable[[I64, Any], object]
Observe = Mapping[str, Observer]

OUTSIDE = {tap.value: tap for tap in (Tap.EMBEDDING, Tap.FINAL_NORM, Tap.LOGITS)}
EXPERTS_ONLY = {Tap.ROUTER_LOGITS, Tap.ROUTER_SCORES, Tap.ROUTER_SELECTION, Tap.CHOSEN, Tap.GATES, Tap.EXPERT_OUTPUT}
OF_A_LAYER = {tap.value: tap for tap in Tap if tap not in {*OUTSIDE.values(), Tap.EXPERT_OUTPUT}} | {"router": Tap.ROUTER_LOGITS}
SHARED = "shared"
NAMES = (*OUTSIDE, *(f"layer.N.{name}" for name in OF_A_LAYER), "layer.N.expert.E", f"layer.N.expert.{SHARED}")


def sites(name: str, shape: Shape) -> list[Site]:
    """The sites that `name` stands for. Raises UsageError for a name that is none in a model of this shape."""
    if name in OUTSIDE:
        return [Site(OUTSIDE[name])]
    first, _, rest = name.partition(".")
    number, _, what = rest.partition(".")
    kind, _, expert = what.partition(".")
    tap = Tap.EXPERT_OUTPUT if kind == "expert" else OF_A_LAYER.get(what)
    if first != "layer" or tap is None:
        raise refusal(name, "a name of a tap", "one of " + ", ".join(NAMES))
    index = expert_index(name, expert, shape) if tap is Tap.EXPERT_OUTPUT else -1
    having = shape.expert_layers() if tap in EXPERTS_ONLY else range(shape.layers)
    if number == "*" and having:
        return [Site(tap, layer, index) for layer in having]
    if not number.isdecimal() or int(number) not in having:
        expected = f"a layer from {having.start} to {having.stop - 1}" if having else "a layer with experts"
        raise refusal(name, expected, f"or * for all that have {kind}")
    return [Site(tap, int(number), index)]


def expert_index(name: str, expert: str, shape: Shape) -> int:
    if expert == SHARED:
        return -1
    if not expert.isdecimal() or int(expert) >= shape.experts:
        raise refusal(name, f"an expert from 0 to {shape.experts - 1}", f"or {SHARED}")
    return int(expert)


def refusal(name: str, expected: str, hint: str) -> UsageError:
    return UsageError(f"observe: expected {expected}, got {name!r}", hint=hint)


class Observers:
    """The probe of a run with observers. What a pass shows in pieces is put together first."""

    def __init__(self, observe: Observe, shape: Shape) -> None:
        self._by_site: dict[Site, list[Observer]] = {}
        for name, observer in observe.items():
            for site in sites(name, shape):
                self._by_site.setdefault(site, []).append(observer)
        self._taps = {site.tap for site in self._by_site}
        self._count = 0  # positions of this pass
        self._pieces: dict[Site, list[tuple[I64, F32 | I64]]] = {}

    def wants(self, tap: Tap) -> bool:
        return tap in self._taps

    def __call__(self, site: Site, positions: I64, values: F32 | I64) -> None:
        if site.tap is Tap.EMBEDDING:
            self._count = len(positions)
            self._pieces.clear()  # of a pass that failed
        for other in [s for s in self._pieces if s.tap is Tap.EXPERT_OUTPUT and s != site]:
            self._show(other)  # an expert ends where the next thing begins
        if site not in self._by_site:
            return
        self._pieces.setdefault(site, []).append((positions.copy(), values.copy()))
        shown = sum(len(piece) for piece, _ in self._pieces[site])
        if site.tap in (Tap.FINAL_NORM, Tap.LOGITS) or (site.tap is not Tap.EXPERT_OUTPUT and shown == self._count):
            self._show(site)

    def _show(self, site: Site) -> None:
        pieces = self._pieces.pop(site)
        positions, values = np.concatenate([piece for piece, _ in pieces]), joined([piece for _, piece in pieces])
        for observer in self._by_site[site]:
            observer(*(sealed(array) for array in (positions, values)))


def joined(pieces: Sequence[F32 | I64]) -> Any:
    """One after the other; attention weights, whose pieces look at more and more keys, filled up with zeros"""
    if pieces[0].ndim < 3:
        return np.concatenate(pieces)
    whole = np.zeros((sum(map(len, pieces)), pieces[0].shape[1], max(piece.shape[2] for piece in pieces)), pieces[0].dtype)
    for first, piece in zip(starts(pieces), pieces, strict=True):
        whole[first : first + len(piece), :, : piece.shape[2]] = piece
    return whole


def starts(pieces: Sequence[F32 | I64]) -> Iterator[int]:
    first = 0
    for piece in pieces:
        yield first
        first += len(piece)


def sealed(array: Any) -> Any:
    """A copy of its own for each observer"""
    own = array.copy()
    own.flags.writeable = False
    return own


class Both:
    """Shows everything to two probes, one after the other."""

    def __init__(self, first: Probe, second: Probe) -> None:
        self.probes = first, second

    def wants(self, tap: Tap) -> bool:
        return any(probe.wants(tap) for probe in self.probes)

    def __call__(self, site: Site, positions: I64, values: F32 | I64) -> None:
        for probe in self.probes:
            probe(site, positions, values)


def together(probe: Probe | None, observe: Observe | None, shape: Shape) -> Probe | None:
    """The engine's probe, and observers if there are any. Raises UsageError for a name that is none."""
    if not observe:
        return probe
    observers = Observers(observe, shape)
    return observers if probe is None else Both(probe, observers)
