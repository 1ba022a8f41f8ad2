"""A run made here to see what a run does: does it change weights, compute without a line, keep something undecided, or refuse to go back?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from formation.evidence.bundle import Bundle
from formation.kernels import ops
from formation.ledger.progress import Watch
from formation.model.attention import KeyCache
from formation.recording import Means, begin
from formation.run.executor import Progress
from formation.run.generate import Engine
from formation.run.machine import show_bytes
from formation.run.order import Order
from formation.run.past import Past
from formation.weights.checkpoint import Checkpoint, open_checkpoint
from formation.weights.payload import hash_tensors

TOKENS = 4
MOST_PROMPT = 64


class Trial:
    """`ids` are what the side is given first, cut to MOST_PROMPT; each question is a short run of its own, greedy, made when it is first asked."""

    def __init__(
        self, checkpoint: Checkpoint, ids: Sequence[int], memory: str | int | None, threads: int | None,
        progress: Callable[[Progress], None] | None = None, say: Callable[[str], None] = lambda line: None,
    ) -> None:  # fmt: skip
        self.checkpoint, self.ids, self.memory, self.threads, self.progress, self.say = checkpoint, ids, memory, threads, progress, say

    def engine(self) -> Engine:
        return Engine(self.checkpoint, memory=self.memory, threads=self.threads, progress=self.progress)

    @cached_property
    def changed_weights(self) -> tuple[int, list[str]]:
        """How many tensors there are, and those whose bytes after a run are others than before, or that appeared or went"""
        self.say(f"SHA-256 of {show_bytes(self.checkpoint.total_bytes)} of weights, before and after a run of {TOKENS} tokens")
        before = digests(self.checkpoint)
        with self.engine() as engine:
            list(engine.generate(self.ids, TOKENS))
        after = digests(open_checkpoint(self.checkpoint.path))
        return len(before), sorted(name for name in {*before, *after} if before.get(name) != after.get(name))

    @cached_property
    def passes_and_lines(self) -> tuple[int, int]:
        """Passes through the model that a recorded run made, and tokens in its ledger: each is formed by one"""
        passes = 0

        def count(now: Progress) -> None:
            nonlocal passes
            passes += now.stage == "done"
            if self.progress:
                self.progress(now)

        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "trial.ofb"
            means = Means(self.memory, self.threads, parity="none", progress=count)
            begin(self.checkpoint, Order(tuple(self.ids), TOKENS), Watch("minimal", "minimal", "none"), out, means)
            return passes, sum(1 for _ in Bundle(out).tokens)

    @cached_property
    def cached_and_committed(self) -> tuple[list[int], int]:
        """How many positions each layer's cache holds after a run, and how many ids were computed"""
        with self.engine() as engine:
            past = engine.past()
            steps = list(engine.generate(self.ids, TOKENS, past=past))
            return [held(cache) for cache in past.caches(past.capacity)], len(self.ids) + len(steps) - 1

    @cached_property
    def goes_back(self) -> tuple[int, bool]:
        """Logits compared, and whether they are the same bits when a run is taken back to its prompt, after it has gone another way"""
        with self.engine() as engine:
            past = engine.past()
            once = self._logits(engine, past, self.ids)
            other = (self.ids[-1] + 1) % engine.model.shape.vocabulary
            self._logits(engine, past, [*self.ids[:-1], other])
            again, anew = self._logits(engine, past, self.ids), self._logits(engine, None, self.ids)
        return len(once), once == again == anew

    def _logits(self, engine: Engine, past: Past | None, ids: Sequence[int]) -> list[bytes]:
        return [step.logits.tobytes() for step in engine.generate(ids, TOKENS, past=past)]


def digests(checkpoint: Checkpoint) -> dict[str, str]:
    """Of every tensor, read now: what was known before is not believed"""
    with tempfile.TemporaryDirectory() as fresh:
        return hash_tensors(checkpoint, threads=2, cache=Path(fresh))


def held(cache: Any) -> int:
    """Positions in a cache that was empty: of keys those that are not all zero, of a state those that it has seen"""
    if not isinstance(cache, KeyCache):
        return int(cache.filled)
    return int(ops.cache_load(cache.values, 0, cache.capacity).any(axis=1).sum())
