"""Which experts the next layers will choose, guessed while this one's are being read: the residual as it is now, through their routers.

A guess decides what is read early, never what is computed. It is made for a few rows only (decoding): a prompt needs most experts anyway. Half
as many experts as a token uses are guessed for the next layer, a quarter for the one after: on the sample's routes 79 and 70 % of these
are right, and of all that a router would choose now only 62 and 51 %. What is guessed wrong costs reading, and is accounted for apart.
"""

from __future__ import annotations

from collections.abc import Iterator

from formation.kernels.tensor import F32, I64
from formation.model.architecture import Key, Model
from formation.model.taps import Probe, Site, Tap
from formation.weights.stream import WeightStream

MOST_ROWS = 4
SHARES = (2, 4)  # of a token's experts, one in so many, for the next layer and the one after


class Foresight:
    """A probe before another: it keeps what guessing needs, and hands everything on."""

    def __init__(self, model: Model, stream: WeightStream, probe: Probe, *, threads: int) -> None:
        self._model, self._stream, self._probe, self._threads = model, stream, probe, threads
        self._after_attention: F32 | None = None  # [T, D]

    def wants(self, tap: Tap) -> bool:
        return self._probe.wants(tap)

    def __call__(self, site: Site, positions: I64, values: F32 | I64) -> None:
        if site.tap is Tap.AFTER_ATTENTION:
            self._after_attention = values.copy()  # type: ignore[assignment]
        self._probe(site, positions, values)

    def look(self, layer: int) -> None:
        """The experts of `layer` are known, and asked for: what will the next ones want? Earlier guesses that are not made again are dropped."""
        self._stream.guess(self._guesses(layer))

    def _guesses(self, layer: int) -> Iterator[Key]:
        if self._after_attention is None:
            return
        for ahead, share in enumerate(SHARES, layer + 1):
            with self._stream.glance(("layer", ahead), ("router", ahead)) as tensors:
                if tensors is not None:
                    likely = self._model.likely_experts(ahead, self._after_attention, tensors, threads=self._threads)
                    most = len(self._after_attention) * -(-self._model.shape.chosen // share)
                    yield from (("expert", ahead, expert) for expert in likely[:most])
