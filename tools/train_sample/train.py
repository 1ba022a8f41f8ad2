"""Train the sample from scratch.

    $ python -m tools.train_sample.train --data DIR --out DIR --steps N [--sample NAME]      # again with the same arguments: resumes

The seed fixes the data order and the start; other machines still differ in the last bits, and so in the result.
"""

import argparse
import ctypes
import math
import pathlib
import time
from dataclasses import dataclass

import torch
from torch import nn

from .batches import LENGTH, Row, Stream, mean_loss, windows
from .corpus import Corpus
from .kind import Kind, chosen
from .muon import Muon
from .workers import Workers

WARM_UP, DECAY_SHARE = 20, 0.6  # steps, and the share of all steps
MATRIX_RATE, OTHER_RATE = 0.02, 4e-3
SMALLEST_RATE = 0.02  # of the peak
TRAINED_SLICE = 33  # one document in so many measures the loss on trained text


@dataclass(frozen=True)
class Schedule:
    """What a step is given, from its number alone, so that a resumed run goes on as it would have."""

    steps: int

    def rate(self, step: int) -> float:
        """Share of the peak learning rate: a short rise, a plateau, a straight fall."""
        left = (1 - step / self.steps) / DECAY_SHARE
        return min(1.0, (step + 1) / WARM_UP) * max(min(1.0, left), SMALLEST_RATE)


class Trainer:
    """The model, its two optimisers and the step number."""

    def __init__(self, kind: Kind, schedule: Schedule, seed: int, workers: int = 1) -> None:
        torch.manual_seed(seed)
        self.schedule, self.step, self.seconds = schedule, 0, 0.0
        self.rows, self.model = kind.rows, kind.model()
        self.workers = Workers(self.model, workers)
        matrices, others = split_parameters(self.model)
        self.others = others
        self.muon = Muon(matrices, lr=MATRIX_RATE)
        self.adam = torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True)

    def advance(self, ids: torch.Tensor, targets: torch.Tensor) -> float:
        """One step; returns the loss of the batch."""
        share, done = self.schedule.rate(self.step), self.step / self.schedule.steps
        self.muon.param_groups[0]["lr"], self.adam.param_groups[0]["lr"] = MATRIX_RATE * share, OTHER_RATE * share
        self.model.begin_step(done)
        loss = self.workers.gradients(ids, targets)
        nn.utils.clip_grad_norm_(self.others, 1.0)
        self.muon.step()
        self.adam.step()
        self.muon.zero_grad(set_to_none=True)
        self.adam.zero_grad(set_to_none=True)
        self.model.end_step(done)
        self.step += 1
        return loss

    def save(self, path: pathlib.Path) -> None:
        state = {"step": self.step, "seconds": self.seconds, "model": self.model.state_dict()}
        state |= {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def load(self, path: pathlib.Path) -> None:
        state = torch.load(path)
        self.step, self.seconds = state["step"], state["seconds"]
        self.model.load_state_dict(state["model"])
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(what Muon trains, what AdamW trains)"""
    named = list(model.named_parameters())
    return [p for name, p in named if model.is_matrix(name, p)], [p for name, p in named if not model.is_matrix(name, p)]


def keep_freed_memory() -> None:
    """Ask glibc not to return large buffers to the system: page faults otherwise take much of a step."""
    libc = ctypes.CDLL(None)
    m_mmap_max, m_trim_threshold = -4, -1
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, 2**31 - 1)


def evaluation_rows(corpus: Corpus, end: int) -> tuple[list[Row], list[Row]]:
    """Rows of held-out text and as many of trained text."""
    held_out = windows(corpus.held_out, end)
    return held_out, windows((corpus.topics + corpus.documents)[::TRAINED_SLICE], end)[: len(held_out)]


@torch.no_grad()
def losses(model: nn.Module, *kinds: list[Row]) -> list[float]:
    model.eval()
    means = [mean_loss(model, rows) for rows in kinds]
    model.train()
    return means


def run(kind: Kind, arguments: argparse.Namespace) -> None:
    corpus = Corpus.load(arguments.data / "corpus.json")
    vocabulary = kind.load(arguments.data)
    trainer, state = Trainer(kind, Schedule(arguments.steps), arguments.seed, arguments.workers), arguments.out / "state.pt"
    if state.exists():
        trainer.load(state)
    stream = Stream(corpus, kind, vocabulary, arguments.seed).batches()
    for _ in range(trainer.step):
        next(stream)
    rows = evaluation_rows(corpus, *vocabulary.encode_marked(kind.wire.end_of_text))
    recent: list[float] = []
    while trainer.step < arguments.steps:
        began = time.perf_counter()
        recent.append(trainer.advance(*next(stream)))
        trainer.seconds += time.perf_counter() - began
        if not math.isfinite(recent[-1]):
            raise ValueError(f"step {trainer.step}: expected a finite loss, got {recent[-1]}")
        if trainer.step % arguments.report == 0 or trainer.step == arguments.steps:
            report(trainer, recent, trainer.model.routing_line(), *losses(trainer.model, *rows))
            trainer.save(state)
            recent = []


def report(trainer: Trainer, recent: list[float], routing: str, held_out: float, trained: float) -> None:
    mean, tokens_seen = sum(recent) / len(recent), trainer.step * LENGTH * trainer.rows / 1e6
    print(
        f"step {trainer.step:5d}  {tokens_seen:5.2f} M tokens  {trainer.seconds / 60:5.1f} min  loss {mean:.3f}  "
        f"held out {held_out:.3f}  trained text {trained:.3f}  {routing}  rate {trainer.schedule.rate(trainer.step):.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="train the sample checkpoint")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="what tools.train_sample.corpus wrote")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="where state.pt goes; an existing one is resumed")
    parser.add_argument("--steps", type=int, default=2800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="parts of a batch that are computed side by side, by --threads each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report", type=int, default=200, help="steps between lines of the log")
    kind, arguments = chosen(parser)
    arguments.out.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    run(kind, arguments)


if __name__ == "__main__":
    main()
