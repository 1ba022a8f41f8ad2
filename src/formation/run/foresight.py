"""Which experts the next layers will choose, guessed while this one's are being read: the residual as it is now, through their routers.

A guess decides what is read early, never what is computed. It is made for a few rows only (decoding): a prompt needs most experts anyway. At most
half as many experts as a token uses are guessed for the next layer, a quarter for the one after, and of these only those places in the order of
likelihood that have been right at least as often as not: a wrong guess costs the disk about what a right one saves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from formation.kernels.tensor import F32, I64
from formation.model.architecture import Key, Model
from formation.model.taps import Probe, Site, Tap
from formation.weights.stream import WeightStream

MOST_ROWS = 4
SHARES = (2, 4)  # of a token's experts, one in so many, for the next layer and the one after


class Luck:
    """How often guesses that had to be read were right, by layer, by how far ahead they were made, and by place in the order of likelihood."""

    def __init__(self) -> None:
        self._made: Counter[tuple[int, int, int]] = Counter()
        self._right: Counter[tuple[int, int, int]] = Counter()

    def learn(self, layer: int, ahead: int, guesses: Mapping[int, int], chosen: Collection[int]) -> None:
        """`guesses` are {place: expert}"""
        for place, expert in guesses.items():
            self._made[layer, ahead, place] += 1
            self._right[layer, ahead, place] += expert in chosen

    def allows(self, layer: int, ahead: int, place: int) -> bool:
        """Until something is known, yes"""
        return 2 * self._right[layer, ahead, place] >= self._made[layer, ahead, place]


class Foresight:
    """A probe before another: it keeps what guessing needs, and hands everything on."""

    def __init__(self, model: Model, stream: WeightStream, probe: Probe, luck: Luck, *, threads: int) -> None:
        self._model, self._stream, self._probe, self._luck, self._threads = model, stream, probe, luck, threads
        self._after_attention: F32 | None = None  # [T, D]
        self._guessed: dict[tuple[int, int], dict[int, int]] = {}  # (layer, how far ahead) -> {place: expert} that was not in memory

    def wants(self, tap: Tap) -> bool:
        return self._probe.wants(tap)

    def __call__(self, site: Site, positions: I64, values: F32 | I64) -> None:
        if site.tap is Tap.AFTER_ATTENTION:
            self._after_attention = values.copy()  # type: ignore[assignment]
            if site.layer not in self._model.shape.expert_layers():
                self._guess(site.layer)
        self._probe(site, positions, values)

    def look(self, layer: int, chosen: Collection[int]) -> None:
        """The experts of `layer` are known, and asked for: what will the next ones want? Earlier guesses that are not made again are dropped."""
        for ahead in range(1, 1 + len(SHARES)):
            self._luck.learn(layer, ahead, self._guessed.pop((layer, ahead), {}), chosen)
        self._guess(layer)

    def _guess(self, layer: int) -> None:
        worth: list[Key] = []
        for ahead, share in enumerate(SHARES, 1):
            keys = {place: ("expert", layer + ahead, expert) for place, expert in enumerate(self._likely(layer + ahead, share))}
            missing = self._stream.missing(keys.values())
            self._guessed[layer + ahead, ahead] = {place: int(key[2]) for place, key in keys.items() if key in missing}
            worth += (key for place, key in keys.items() if key not in missing or self._luck.allows(layer + ahead, ahead, place))
        self._stream.guess(worth)

    def _likely(self, layer: int, share: int) -> list[int]:
        """The most likely first, more for more rows; none where the layer has no router in memory."""
        if self._after_attention is None or layer not in self._model.shape.expert_layers():
            return []
        with self._stream.glance(("layer", layer), ("router", layer)) as tensors:
            if tensors is None:
                return []
            likely = self._model.likely_experts(layer, self._after_attention, tensors, threads=self._threads)
            return likely[: len(self._after_attention) * -(-self._model.shape.chosen // share)]
