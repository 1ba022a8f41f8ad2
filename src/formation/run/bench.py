"""What streaming a checkpoint costs on this machine: tokens decoded under a budget, beside the raw disk of the same minute.

Order: page cache dropped; a prefill; then rounds of raw reads, one token that is not counted (it finds what was read ahead meanwhile), and
counted tokens, drawn at random (see Scattered); then a prefill of another prompt, in memory that has been touched before. Figures are
medians of rounds.

- raw: blocks of the shards at random (same block size, same number of threads, same Reader, nothing computed), before and after a round.
- floor: bytes of the tensors that the counted tokens used and that were not in memory, plus one row of the embedding. Read over it: padding to
  pages, gaps, and what was read and not used.
- whole token: the floor of the counted tokens over their whole time: reading, computing, waiting, choosing. The disk may have given more.
- waiting: the computation stood still for a read. computing: the rest.
- resident: VmHWM less VmRSS of the idle process (engine created, kernels loaded, raw reads done once), over the budget.
- prediction: bytes of one token of the whole model at a budget, no expert cached, at the raw speed, plus the time of these tokens in which
  the disk gave nothing (seconds - bytes / raw), times its layers / these. Where parts do not stay, more of it is hidden behind their reading.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from formation.errors import BudgetError
from formation.kernels import ops
from formation.model.architecture import Model, parts_of
from formation.run import machine
from formation.run.executor import Progress
from formation.run.generate import Engine
from formation.run.plan import Sizes, make_plan, stored_sizes
from formation.run.sample import Choice
from formation.weights.checkpoint import Checkpoint
from formation.weights.layout import BLOCK_BYTES
from formation.weights.policy import DEFAULT
from formation.weights.speed import drop_page_cache, measure_read_speed, read_ahead_kb
from formation.weights.stream import ReadEvent

RAW_SECONDS = 1.5
BUDGETS = (16 << 30, 32 << 30, 64 << 30)  # beside the one that was measured, as far as the checkpoint does not fit


@dataclass(frozen=True)
class Trial:
    """What is asked for: `rounds` of so many counted `tokens`, after a prompt of so many positions."""

    tokens: int = 8
    rounds: int = 3
    prompt: int = 32
    reader_threads: int = 4

    @property
    def steps(self) -> int:
        return 1 + self.rounds * (self.tokens + 1)


class Scattered:
    """A sampler that ignores the logits: a random model that hears itself says one token for ever, and then every expert is in memory."""

    def __init__(self, vocabulary: int) -> None:
        self._random = random.Random(2)
        self._vocabulary = vocabulary

    def choose(self, logits: np.ndarray, position: int) -> Choice:
        return Choice(self._random.randrange(self._vocabulary))


@dataclass(frozen=True)
class Token:
    """One decode step."""

    seconds: float
    disk_bytes: int
    floor_bytes: int
    guessed_bytes: int
    guessed_unused_bytes: int
    expert_uses: int
    expert_hits: int
    seconds_waited: float
    waited_for_experts: float


@dataclass(frozen=True)
class Round:
    """Raw speed before and after, and the tokens in between."""

    raw: float  # bytes per second, mean of both
    tokens: tuple[Token, ...]

    def total(self, field: str) -> float:
        return float(sum(getattr(token, field) for token in self.tokens))

    def speed(self, field: str = "floor_bytes") -> float:
        """Whole tokens, bytes per second"""
        return self.total(field) / self.total("seconds")


class Decoder:
    """An engine that has been given a prompt, and counts what each step does."""

    def __init__(self, engine: Engine, trial: Trial) -> None:
        self.engine, self.trial = engine, trial
        self.plan = engine.plan(trial.prompt + trial.steps - 1)
        self.stream = engine.prepare(trial.prompt + trial.steps - 1, 1).stream
        self._log = self.stream.events
        self.stream.events = self._add
        self._uses: list[ReadEvent] = []
        tensors, model = engine.checkpoint.tensors, engine.model
        self._sizes = stored_sizes(parts_of(model, tensors), model.shape, tensors)
        self.start(1)

    def start(self, seed: int) -> None:
        """A new prompt, with room for as many steps, so that the engine keeps its memory; its prefill is the first step."""
        vocabulary = self.engine.model.shape.vocabulary
        ids = np.random.default_rng(seed).integers(0, vocabulary, self.trial.prompt).tolist()
        self._steps = self.engine.generate(ids, self.trial.steps, Scattered(vocabulary))

    def step(self) -> Token:
        self._uses.clear()
        step = next(self._steps)
        experts = [use for use in self._uses if use.key[0] == "expert"]
        hits, reads = sum(use.tier == "cache" for use in experts), step.reads
        return Token(
            step.seconds, reads.disk_bytes, self._floor(), reads.guessed_bytes, reads.guessed_unused_bytes, len(experts), hits,
            sum(use.seconds for use in self._uses), sum(use.seconds for use in experts),
        )  # fmt: skip

    def quiet(self) -> None:
        """Wait until what is read ahead has been read."""
        before = -1
        while before != self.stream.bytes_read:
            before = self.stream.bytes_read
            time.sleep(0.05)

    def _add(self, event: ReadEvent) -> None:
        self._uses.append(event)
        if self._log is not None:
            self._log(event)

    def _floor(self) -> int:
        sizes = self._sizes
        row = sizes.embedding // self.engine.model.shape.vocabulary
        return row + sum(sizes.of(use.key) for use in self._uses if use.tier == "disk")


def rounds_of(decoder: Decoder) -> Iterator[Round]:
    checkpoint, trial = decoder.engine.checkpoint, decoder.trial
    for _ in range(trial.rounds):
        decoder.quiet()
        before = measure_read_speed(checkpoint, RAW_SECONDS, trial.reader_threads)
        decoder.step()
        counted = tuple(decoder.step() for _ in range(trial.tokens))
        decoder.quiet()
        yield Round((before + measure_read_speed(checkpoint, RAW_SECONDS, trial.reader_threads)) / 2, counted)


def rounds_until_interrupted(rounds: Iterator[Round]) -> tuple[list[Round], bool]:
    done: list[Round] = []
    try:
        for one in rounds:
            done.append(one)
    except KeyboardInterrupt:
        return done, True
    return done, False


def status_bytes(line: str) -> int:
    """Of /proc/self/status; 0 where there is none"""
    path = Path("/proc/self/status")
    found = re.search(rf"^{line}:\s+(\d+) kB", path.read_text(), re.M) if path.exists() else None
    return 1024 * int(found[1]) if found else 0


# ---- the report


def measure(
    checkpoint: Checkpoint, trial: Trial, *, memory: str | int | None = None, threads: int | None = None, guess: bool = True,
    policy: str = DEFAULT, of: tuple[Model, Sizes] | None = None, progress: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """All figures. `of`: the model that is predicted, and its sizes, if it is not the checkpoint's. Raises what `Engine` raises."""
    cache = drop_page_cache(checkpoint)
    with Engine(
        checkpoint, memory=memory, threads=threads, reader_threads=trial.reader_threads, guess=guess, policy=policy, progress=progress
    ) as engine:
        first_raw = measure_read_speed(checkpoint, RAW_SECONDS, trial.reader_threads)
        ops.isa()
        idle = status_bytes("VmRSS")
        decoder = Decoder(engine, trial)
        prefills = [prefill_figures(decoder.step(), trial.prompt, first_raw)]
        rounds, interrupted = rounds_until_interrupted(rounds_of(decoder))
        if not interrupted:
            decoder.start(3)
            prefills.append(prefill_figures(decoder.step(), trial.prompt, rounds[-1].raw))
        grown = status_bytes("VmHWM") - idle
        model, shape = engine.model, engine.model.shape
        predicted = of or (model, stored_sizes(parts_of(model, checkpoint.tensors), shape, checkpoint.tensors))
        return {
            "machine": {
                "threads": engine.threads, "isa": ops.isa(), "reader_threads": trial.reader_threads, "block_bytes": BLOCK_BYTES,
                "advice": engine.advice, "read_ahead_kb": read_ahead_kb(checkpoint.path), "page_cache": cache,
                "memory": machine.memory().total_bytes, "guess": guess, "policy": policy,
            },
            "checkpoint": {"path": str(checkpoint.path), "layers": shape.layers, "experts": shape.experts, "bytes": checkpoint.total_bytes},
            "budget": {
                "bytes": engine.budget, "resident_parts": len(decoder.plan.resident), "parts": shape.layers + 1,
                "expert_cache_bytes": decoder.plan.expert_cache_bytes, "grown_bytes": grown, "grown_over_budget": grown / engine.budget,
            },
            "prefills": prefills,
            "interrupted": interrupted,
            "rounds": [asdict(r) for r in rounds],
        } | (decode_figures(rounds, list(predictions(engine, rounds, trial.prompt, *predicted))) if rounds else {})  # fmt: skip


def prefill_figures(token: Token, positions: int, raw: float) -> dict[str, float]:
    return {
        "positions": positions, "seconds": token.seconds, "tokens_per_second": positions / token.seconds, "bytes": token.disk_bytes,
        "bytes_per_second": token.disk_bytes / token.seconds, "raw_bytes_per_second": raw, "waiting_share": token.seconds_waited / token.seconds,
    }  # fmt: skip


def decode_figures(rounds: list[Round], prediction: list[dict[str, float]]) -> dict[str, Any]:
    """Medians of rounds."""

    def of(figure: Callable[[Round], float]) -> float:
        return median(figure(r) for r in rounds)

    found = {
        "raw_bytes_per_second": of(lambda r: r.raw),
        "whole_token_bytes_per_second": of(Round.speed),
        "share_of_raw": of(lambda r: r.speed() / r.raw),
        "disk_share_of_raw": of(lambda r: r.speed("disk_bytes") / r.raw),
        "seconds_per_token": of(lambda r: median(t.seconds for t in r.tokens)),
        "bytes_per_token": of(lambda r: r.total("disk_bytes") / len(r.tokens)),
        "read_over_floor": of(lambda r: share(r.total("disk_bytes"), r.total("floor_bytes"))),
        "guessed_share": of(lambda r: share(r.total("guessed_bytes"), r.total("disk_bytes"))),
        "wasted_share": of(lambda r: share(r.total("guessed_unused_bytes"), r.total("disk_bytes"))),
        "expert_hit_share": of(lambda r: share(r.total("expert_hits"), r.total("expert_uses"))),
        "waiting_share": of(lambda r: r.total("seconds_waited") / r.total("seconds")),
        "waiting_for_experts_share": of(lambda r: r.total("waited_for_experts") / r.total("seconds")),
        "seconds_computing": of(lambda r: (r.total("seconds") - r.total("seconds_waited")) / len(r.tokens)),
    }
    return {"decode": found, "prediction": prediction}


def share(part: float, whole: float) -> float:
    """0 of nothing"""
    return part / whole if whole else 0.0


def predictions(engine: Engine, rounds: list[Round], positions: int, model: Model, sizes: Sizes) -> Iterator[dict[str, float]]:
    raw = median(r.raw for r in rounds)
    idle = median((r.total("seconds") - r.total("disk_bytes") / r.raw) / len(r.tokens) for r in rounds)
    idle *= model.shape.layers / engine.model.shape.layers
    for budget in sorted({engine.budget, *(b for b in BUDGETS if b < sizes.total)}):
        try:
            plan = make_plan(model, sizes, budget, positions)
        except BudgetError:
            continue
        seconds = plan.bytes_per_token / raw + max(idle, 0.0)
        yield {"budget": budget, "layers": model.shape.layers, "bytes_per_token": plan.bytes_per_token, "seconds_per_token": seconds}
