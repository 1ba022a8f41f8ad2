"""Observers of one's own: names for the taps of a run, and the probe that hands copies of them to callables.

    engine.logits(ids, observe={"layer.3.router": lambda positions, values: print(values.argmax(axis=1))})

A name is `embedding`, `final_norm`, `logits`, or `layer.N.` and what of layer N (from 0, `*` for all): see NAMES. `expert.17` is one expert's
output before its gate, at the positions that chose it; `expert.shared` the shared one's.

A callable gets (positions, values), once per layer and pass, in the order of the layers: positions [n] int64, values [n, …] as in
formation.model.taps. Both are copies that cannot be written; what a callable does with them changes nothing of the run. What it raises ends it.
Attention's names are of layers with attention, `delta_…` of those with a delta net: `*` stands for all that have what is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from formation.errors import UsageError
from formation.kernels.tensor import F32, I64
from formation.model.architecture import Model
from formation.model.taps import Blind, Probe, Site, Tap

Observer = Callable[[I64, Any], object]
Observe = Mapping[str, Observer]

OUTSIDE = {tap.value: tap for tap in (Tap.EMBEDDING, Tap.FINAL_NORM, Tap.LOGITS)}
ONLY = {
    "experts": {Tap.ROUTER_LOGITS, Tap.ROUTER_SCORES, Tap.ROUTER_SELECTION, Tap.CHOSEN, Tap.GATES, Tap.EXPERT_OUTPUT},
    "gate": {Tap.SHARED_GATE},
    "attention": {Tap.CACHE_ENTRY, Tap.ATTENTION_WEIGHTS},
    "delta": {Tap.DELTA_BETA, Tap.DELTA_DECAY, Tap.DELTA_STATE, Tap.DELTA_TAIL},
}
WITH = {"experts": "experts", "gate": "a gate of the shared expert", "attention": "attention", "delta": "a delta net"}
OF_A_LAYER = {tap.value: tap for tap in Tap if tap not in {*OUTSIDE.values(), Tap.EXPERT_OUTPUT}} | {"router": Tap.ROUTER_LOGITS}
SHARED, MOST_NAMED = "shared", 6
NAMES = (*OUTSIDE, *(f"layer.N.{name}" for name in OF_A_LAYER), "layer.N.expert.E", f"layer.N.expert.{SHARED}")


def sites(name: str, model: Model) -> list[Site]:
    """The sites that `name` stands for. Raises UsageError for a name that is none in this model."""
    if name in OUTSIDE:
        return [Site(OUTSIDE[name])]
    first, _, rest = name.partition(".")
    number, _, what = rest.partition(".")
    kind, _, expert = what.partition(".")
    tap = Tap.EXPERT_OUTPUT if kind == "expert" else OF_A_LAYER.get(what)
    if first != "layer" or tap is None:
        raise refusal(name, "a name of a tap", "one of " + ", ".join(NAMES))
    index = expert_index(name, expert, model) if tap is Tap.EXPERT_OUTPUT else -1
    having = layers_with(tap, model)
    if number == "*" and having:
        return [Site(tap, layer, index) for layer in having]
    if not number.isdecimal() or int(number) not in having:
        expected = f"a layer {those(having)}" if having else f"a layer with {WITH[kind_of(tap)]}"
        raise refusal(name, expected, f"or * for all that have {kind}" if having else "no layer of this model has that")
    return [Site(tap, int(number), index)]


def layers_with(tap: Tap, model: Model) -> list[int]:
    """Layers in which something is shown at `tap`"""
    kind = kind_of(tap)
    if kind in ("experts", "gate"):
        return list(model.shape.expert_layers()) if kind == "experts" or model.moe.shared_gated else []
    return [layer for layer in range(model.shape.layers) if kind in ("", model.kind(layer))]


def kind_of(tap: Tap) -> str:
    """What a layer must have to show something at `tap`, of WITH; empty if every layer does"""
    return next((kind for kind, taps in ONLY.items() if tap in taps), "")


def those(layers: Sequence[int]) -> str:
    """As a sentence goes on: a range, or one by one"""
    if len(layers) == layers[-1] - layers[0] + 1:
        return f"from {layers[0]} to {layers[-1]}"
    shown = ", ".join(map(str, layers[:MOST_NAMED]))
    return f"of {shown}{f' … {layers[-1]}' if len(layers) > MOST_NAMED else ''}"


def expert_index(name: str, expert: str, model: Model) -> int:
    if expert == SHARED:
        return -1
    if not expert.isdecimal() or int(expert) >= model.shape.experts:
        raise refusal(name, f"an expert from 0 to {model.shape.experts - 1}", f"or {SHARED}")
    return int(expert)


def refusal(name: str, expected: str, hint: str) -> UsageError:
    return UsageError(f"observe: expected {expected}, got {name!r}", hint=hint)


class Observers:
    """The probe of a run with observers. What a pass shows in pieces is put together first."""

    def __init__(self, observe: Observe, model: Model) -> None:
        self._by_site: dict[Site, list[Observer]] = {}
        for name, observer in observe.items():
            for site in sites(name, model):
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
    if len({piece.shape[1:] for piece in pieces}) == 1:
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


def together(probe: Probe | None, observe: Observe | None, model: Model) -> Probe:
    """The engine's probe, and observers if there are any. Raises UsageError for a name that is none."""
    if not observe:
        return Blind() if probe is None else probe
    observers = Observers(observe, model)
    return observers if probe is None else Both(probe, observers)
