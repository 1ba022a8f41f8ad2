"""Runs of small models under a recorder, and probes that stand between the two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import formation
from formation.kernels.tensor import F32, I64
from formation.ledger import lines
from formation.model.taps import Probe, Site, Tap
from formation.probe.encode import Observation
from formation.probe.head import ModelHead
from formation.probe.pending import Token
from formation.probe.recorder import Recorder
from formation.probe.run_line import run_values
from formation.probe.sidecars import Sidecars
from formation.run.sample import Choice

IDS = [int(i) for i in np.random.default_rng(11).integers(0, 512, 19)]
Wrap = Callable[[Probe], Probe]


@dataclass(frozen=True)
class Recorded:
    observations: list[Observation]
    logits: list[F32]  # of each step
    recorder: Recorder
    model: Any

    def at(self, position: int, slot: str) -> dict[str, Any]:
        """Measured and derived values together"""
        (found,) = [o for o in self.observations if (o["position"], o["slot"]) == (position, slot)]
        return found["measured"] | found["derived"]


@dataclass(frozen=True)
class Forced:
    ids: Sequence[int]

    def choose(self, logits: F32, position: int) -> Choice:
        return Choice(self.ids[position])


def plain(probe: Probe) -> Probe:
    return probe


def prepare(
    engine: formation.Engine, steps: range, wrap: Wrap, levels: dict[str, str], *, rows: tuple[Path, str] | None = None, first: int = 0,
    later: bool = False,
) -> Recorder:  # fmt: skip
    """`rows`: where they go and their mode; `first`: a resumed run's first position"""
    engine.prepare(len(IDS), len(IDS))
    shape, router = engine.model.shape, engine.model.moe.router
    sidecars = Sidecars(*rows, shape, positions=first or None) if rows else None
    kinds = [engine.model.kind(layer) for layer in range(shape.layers)]
    recorder = Recorder(
        shape, router, engine.router_biases(), steps, sidecars=sidecars, first=first, threads=2, later=later, kinds=kinds, **levels
    )  # fmt: skip
    engine.probe, engine.idle = wrap(recorder), recorder.idle
    return recorder


def finish(engine: formation.Engine, recorder: Recorder, position: int, logits: F32, token: Token) -> list[Observation]:
    found = list(recorder.prompt_observations())
    with engine.head() as tensors:
        return found + recorder.finish_step(position, token, logits, ModelHead(engine.model, tensors, threads=2))


def close_rows(recorder: Recorder) -> None:
    if recorder.sidecars:
        recorder.sidecars.close(len(IDS) - 1)


def record_steps(
    folder: Path, prompt: int, *, wrap: Wrap = plain, keep_cache: bool = True, threads: int = 2, rows: tuple[Path, str] | None = None,
    later: bool = False, **levels: str,
) -> Recorded:  # fmt: skip
    """IDS, of which all but the first `prompt` are forced one by one"""
    observations: list[Observation] = []
    with formation.Engine(formation.open(folder), memory="24MiB", threads=threads, keep_cache=keep_cache) as engine:
        recorder = prepare(engine, range(prompt - 1, len(IDS) - 1), wrap, levels, rows=rows, later=later)
        logits = []
        for step in engine.generate(IDS[:prompt], len(IDS) - prompt, Forced(IDS)):
            token = Token(step.id, bytes([step.id % 256]), "forced", "forced")
            observations += finish(engine, recorder, step.position - 1, step.logits, token)
            logits.append(step.logits)
        close_rows(recorder)
        return Recorded(observations, logits, recorder, engine.model)


def record_pass(folder: Path, prompt: int, *, wrap: Wrap = plain, rows: tuple[Path, str] | None = None, **levels: str) -> Recorded:
    """The same positions in one pass; only the last stays without a token"""
    observations: list[Observation] = []
    with formation.Engine(formation.open(folder), memory="24MiB", threads=2) as engine:
        recorder = prepare(engine, range(prompt - 1, len(IDS) - 1), wrap, levels, rows=rows)
        logits = engine.logits(IDS[:-1])
        for position in range(prompt - 1, len(IDS) - 1):
            token = Token(IDS[position + 1], bytes([IDS[position + 1] % 256]), "forced", "forced")
            observations += finish(engine, recorder, position, logits[position], token)
        close_rows(recorder)
        return Recorded(observations, list(logits[prompt - 1 :]), recorder, engine.model)


def expectations(recorded: Recorded) -> lines.Run:
    """What the ledger's first line would say of this run"""
    shape, router, recorder = recorded.model.shape, recorded.model.moe.router, recorded.recorder
    heads = recorded.model.heads
    sizes = lines.Shape(shape.layers, shape.dense_layers, shape.hidden, heads, shape.experts, shape.chosen, shape.vocabulary)
    rules = lines.Router(router.groups, router.kept_groups, router.softmax, router.group_top2, router.normalise, router.scale,
                         recorded.model.moe.biased, recorded.model.moe.shared_gated)  # fmt: skip
    said = run_values(recorded.model, recorder.prompt_level, recorder.level, {})
    delta = None if "absent" in said["delta"] else lines.Delta(**said["delta"])
    return lines.Run("0" * 64, recorder.prompt_level, recorder.level, sizes, rules, {}, tuple(said["layer_kinds"]), delta)


class Keeper:
    """Passes everything on, and keeps copies of its own: (tap, layer, expert, position) -> row"""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.rows: dict[tuple[Tap, int, int, int], Any] = {}

    def wants(self, tap: Tap) -> bool:
        return True

    def __call__(self, site: Site, positions: I64, values: F32 | I64) -> None:
        for position, row in zip(positions.tolist(), values, strict=True):
            self.rows[site.tap, site.layer, site.expert, position] = row.copy()
        self.probe(site, positions, values)


class Overwriting:
    """Shows the probe buffers that are filled with something else as soon as it returns: what an engine may do."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe

    def wants(self, tap: Tap) -> bool:
        return self.probe.wants(tap)

    def __call__(self, site: Site, positions: I64, values: F32 | I64) -> None:
        where, buffer = positions.copy(), values.copy()
        self.probe(site, where, buffer)
        where.fill(-1)
        buffer.fill(7)


@dataclass
class Altering:
    """Shows something else at one tap of one layer: `alter` makes it, or nothing when it gives None."""

    probe: Probe
    tap: Tap
    layer: int
    alter: Callable[[Any], Any]

    def wants(self, tap: Tap) -> bool:
        return self.probe.wants(tap)

    def __call__(self, site: Site, positions: I64, values: F32 | I64) -> None:
        shown = self.alter(values) if (site.tap, site.layer) == (self.tap, self.layer) else values
        if shown is not None:
            self.probe(site, positions, shown)
