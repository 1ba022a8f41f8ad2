"""Both arithmetics on one case, and what their difference is.

A router chooses among scores, so two arithmetics that differ by rounding may choose differently where scores nearly tie; what follows
that choice, at this position and at all later ones, then differs legitimately. Such positions are left out and counted, after it
was checked that the tie was one. The bounds are about ten times the largest differences measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import parity_twin as twin
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from parity_cases import Case
from tools.synthetic_checkpoint import write_checkpoint

import formation
from formation.kernels import ops
from formation.model.architecture import Part, parts_of
from formation.model.catalog import read_model
from formation.model.linear import Modules
from formation.model.taps import Site, Tap
from formation.weights.checkpoint import Checkpoint
from formation.weights.stream import Unit, WeightStream

LOGIT_ERROR = 1e-5  # largest difference of a logit that passes, as a share of the range of the reference's logits
LOGIT_TIE = 4e-6  # two best logits nearer than this share of the range: argmax may differ
ROUTER_ERROR = 4e-6  # largest difference of a selection score that passes
ROUTER_TIE = 4 * ROUTER_ERROR  # the choice may differ below this margin: it compares two scores, or two sums of two
EXCLUDED = 0.01  # share of positions that ties may exclude
MEMORY = "64MiB"

MakeTwin = Callable[[Mapping[str, Any], twin.State], Any]
Record = Callable[[str, object], None]


class Watch:
    """A probe that keeps what routers did, by layer."""

    def __init__(self) -> None:
        self.selection: dict[int, np.ndarray] = {}
        self.chosen: dict[int, np.ndarray] = {}

    def wants(self, tap: Tap) -> bool:
        return False

    def __call__(self, site: Site, positions: np.ndarray, values: np.ndarray) -> None:
        if site.tap == Tap.ROUTER_SELECTION:
            self.selection[site.layer] = values.copy()
        if site.tap == Tap.CHOSEN:
            self.chosen[site.layer] = values.copy()


@dataclass
class Tally:
    """What many examples had in sum; the errors are the largest of them all."""

    examples: int = 0
    positions: int = 0
    routed_apart: int = 0  # positions from a tie on that the routers broke differently
    logit_ties: int = 0  # other positions whose two best logits tie
    logit_error: float = 0.0  # share of the range
    router_error: float = 0.0  # of a selection score
    tensors: int = 0  # dequantised, and equal bit for bit
    features: dict[str, Counter[str]] = field(default_factory=dict)

    def count(self, case: Case) -> None:
        self.examples += 1
        for name, value in case.features().items():
            self.features.setdefault(name, Counter())[value] += 1

    def finish(self, record: Record) -> None:
        """Hands the numbers to the summary, and asserts that ties excluded almost nothing."""
        record("parity", {name: value for name, value in vars(self).items() if name != "features"})
        record("covered", {name: dict(sorted(counts.items())) for name, counts in self.features.items()})
        excluded = self.routed_apart + self.logit_ties
        assert excluded <= EXCLUDED * self.positions, f"{excluded} of {self.positions} positions are excluded"


@contextmanager
def written(case: Case) -> Iterator[Path]:
    """The case as a checkpoint folder, for a while."""
    with TemporaryDirectory() as scratch:
        yield write_checkpoint(Path(scratch) / "model", dict(case.config), seed=case.seed, dtype=case.plain, pool=1 << 17)


def ids_of(case: Case) -> list[int]:
    return [int(i) for i in np.random.default_rng(case.seed).integers(0, case.text["vocab_size"], case.positions)]


def logits_of(folder: Path, ids: list[int], watch: Watch | None = None) -> np.ndarray:
    with formation.Engine(formation.open(folder), memory=MEMORY, threads=1, probe=watch) as engine:
        return engine.logits(ids)


def plain_twin(text: Mapping[str, Any], weights: twin.State) -> Any:
    """The library's model as it is."""
    return twin.build(text, twin.stacked(weights, text))


def measure(case: Case, tally: Tally, make_twin: MakeTwin = plain_twin, rewrite: Callable[[Path], None] | None = None) -> None:
    """Writes the case's checkpoint, runs it in both, asserts what must hold, and counts.

    `make_twin` may swap the twin's routers, `rewrite` may change the files before anybody reads them.
    """
    ids, watch = ids_of(case), Watch()
    with written(case) as folder:
        if rewrite:
            rewrite(folder)
        weights = twin.read_weights(folder)
        tally.tensors += check_weights(formation.open(folder), case.text, weights)
        ours = logits_of(folder, ids, watch)
    theirs = twin.run(make_twin(case.text, weights), ids)
    biases = {layer: weights.get(f"model.layers.{layer}.mlp.gate.e_score_correction_bias") for layer in watch.chosen}
    tally.count(case)
    compare(case, ours, theirs.logits, settled(case, watch, theirs, biases, tally), tally)


def examine(cases: st.SearchStrategy[Case], examples: int, record: Record, *, start: int, make_twin: MakeTwin = plain_twin) -> None:
    """Measures that many cases, the same ones in every run. `start` sets the drawing apart from that of other tests."""
    tally = Tally()

    @seed(start)
    @settings(
        derandomize=True, database=None, deadline=None, max_examples=examples, phases=(Phase.generate,),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip
    @given(cases)
    def each(case: Case) -> None:
        measure(case, tally, make_twin)

    each()
    tally.finish(record)


# ---- routers


def selection_scores(text: Mapping[str, Any], logits: np.ndarray, bias: torch.Tensor | None) -> torch.Tensor:
    """What decides who is chosen, from router logits [T, E]."""
    raw = torch.from_numpy(logits)
    scores = raw.softmax(-1) if text["scoring_func"] == "softmax" else raw.sigmoid()
    return scores if bias is None else scores + bias


def margins(text: Mapping[str, Any], selection: torch.Tensor) -> np.ndarray:
    """How far each position is from another choice: of groups, or of experts in the kept groups                       [T]"""
    groups, kept = (1, 1) if text["topk_method"] == "greedy" else (text["n_group"], text["topk_group"])
    by_group = selection.unflatten(-1, (groups, -1))  # [T, G, E/G]
    best = by_group.topk(2).values.sum(-1) if text["topk_method"] == "noaux_tc" and groups > 1 else by_group.amax(-1)  # [T, G]
    limit = best.sort(descending=True).values[:, kept - 1 : kept]
    allowed = by_group.masked_fill((best < limit)[..., None], -torch.inf).flatten(1)
    return torch.minimum(_gap(best, kept), _gap(allowed, text["num_experts_per_tok"])).numpy()


def _gap(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Between the last that is taken and the first that is not; infinite when all are taken."""
    if count == scores.shape[-1]:
        return torch.full(scores.shape[:1], torch.inf)
    ranked = scores.sort(descending=True).values
    return ranked[:, count - 1] - ranked[:, count]


def settled(case: Case, watch: Watch, theirs: twin.Twin, biases: Mapping[int, torch.Tensor | None], tally: Tally) -> int:
    """How many leading positions both sides routed alike, in all layers. What set them apart must have been a tie."""
    count = case.positions
    assert watch.chosen.keys() == theirs.chosen.keys()
    for layer in sorted(watch.chosen):
        scores = selection_scores(case.text, theirs.router_logits[layer], biases[layer])
        error = float(np.abs(watch.selection[layer] - scores.numpy())[:count].max(initial=0.0))
        assert error < case.slack * ROUTER_ERROR, f"layer {layer}: {error}"
        tally.router_error = max(tally.router_error, error)
        apart = np.flatnonzero((watch.chosen[layer] != theirs.chosen[layer]).any(axis=1)[:count])
        if len(apart):
            assert margins(case.text, scores)[apart[0]] < case.slack * ROUTER_TIE, f"layer {layer}: other experts at position {apart[0]}"
            count = int(apart[0])
    return count


def compare(case: Case, ours: np.ndarray, reference: np.ndarray, count: int, tally: Tally) -> None:
    """Logits of the first `count` positions, and their argmax where it is not a tie."""
    assert ours.shape == reference.shape and ours.dtype == np.float32
    span = float(np.ptp(reference))
    error = float(np.abs(ours - reference)[:count].max(initial=0.0)) / span
    assert error < case.slack * LOGIT_ERROR, f"logits differ by {error} of their range"
    two = np.sort(reference[:count], axis=1)[:, -2:]
    clear = two[:, 1] - two[:, 0] > case.slack * LOGIT_TIE * span
    assert (ours[:count].argmax(axis=1) == reference[:count].argmax(axis=1))[clear].all()
    tally.positions += len(ours)
    tally.routed_apart += len(ours) - count
    tally.logit_ties += int((~clear).sum())
    tally.logit_error = max(tally.logit_error, error)


# ---- weights


def check_weights(checkpoint: Checkpoint, text: Mapping[str, Any], expected: twin.State) -> int:
    """Dequantised bit for bit alike, and none left out; returns how many tensors."""
    seen = set()
    for name, found in weights_of(checkpoint):
        seen.add(name)
        assert found.tobytes() == expected[name].numpy().tobytes(), name
    assert seen == expected.keys() - ({"lm_head.weight"} if text["tie_word_embeddings"] else set())
    return len(seen)


def weights_of(checkpoint: Checkpoint) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor of the text model as Formation widens it, by its name in plain storage and without the wrapper's prefix."""
    model = read_model(checkpoint.config)
    parts = list(parts_of(model, checkpoint.tensors).values())
    with WeightStream(checkpoint, [Unit(p.key, p.names) for p in parts], 64 << 20, 1) as stream:
        for part in parts:
            with stream.use(part.key) as tensors:
                for name, values in _widened(part, Modules(tensors, "", 1)):
                    yield name.removeprefix("language_model."), values


def _widened(part: Part, use: Modules) -> Iterator[tuple[str, np.ndarray]]:
    for stored in part.stored:
        module, _, kind = stored.name.rpartition(".")
        if len(stored.shape) == 2 and kind in ("weight", "weight_packed"):
            matrix = use.matrix(module)
            yield f"{module}.weight", ops.gather(matrix, np.arange(matrix.rows), threads=1)
        elif len(stored.shape) == 3:
            yield stored.name, np.ascontiguousarray(use.taps(stored.name).T)[:, None]
        elif kind in ("weight", "e_score_correction_bias", "A_log", "dt_bias"):
            yield stored.name, use.vector(stored.name)
