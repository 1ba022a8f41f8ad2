"""The tokens of runs that are being recorded: formed together, each observed by its recorder, its lines written behind those of the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Self

from formation.errors import BudgetError, RuleBroken
from formation.kernels.tensor import F32
from formation.ledger import accounts, progress, store
from formation.ledger.appender import Appender, positions
from formation.ledger.progress import Watch
from formation.model.architecture import Model
from formation.probe.aside import Job
from formation.probe.cost import NUMBER, capture_bytes
from formation.probe.encode import Observation
from formation.probe.head import ModelHead
from formation.probe.pending import Token
from formation.probe.recorder import Recorder, Write
from formation.probe.run_line import run_values
from formation.probe.sidecars import Sidecars
from formation.run.executor import HEAD_ROWS
from formation.run.generate import Engine, Step, Wanted
from formation.run.order import Order
from formation.run.sample import method_of
from formation.run.sampled import sampled
from formation.text import load_tokenizer

NOT_CHOSEN = "the ids that are scored were not chosen by this sampler; the lines are kept, the ledger is not closed"


class Run:
    """A recording between its first line and its last. `ids`: the tokens that are on disk."""

    def __init__(self, out: Path, order: Order, watch: Watch, engine: Engine, writer: store.Writer, run_id: str, ids: list[int]) -> None:
        self.out, self.order, self.watch, self.engine, self.writer, self.run_id, self.ids = out, order, watch, engine, writer, run_id, ids
        self.sidecars = Sidecars(out, watch.rows, engine.model.shape, positions=self.positions)

    @property
    def positions(self) -> int:
        """Whose lines are in the ledger"""
        return self.order.steps.positions_with(len(self.ids))

    @property
    def steps_left(self) -> list[int]:
        return list(self.order.steps)[len(self.ids) :]

    def wanted(self, recorder: Recorder) -> Wanted:
        order = self.order
        return Wanted([*order.prompt_ids, *self.ids], order.tokens - len(self.ids), order.chooser, order.stop, recorder)


def plan(engine: Engine, orders: Sequence[Order], watch: Watch) -> None:
    """From here on the engine's budget holds what is captured of these runs. Raises PromptError for one that this model cannot run, and BudgetError
    if they do not fit together."""
    for order in orders:
        engine.check_prompt(*((order.prompt_ids[:-1], 0) if order.scores else (order.prompt_ids, order.tokens)))
    lengths = [order.steps.positions_with(order.tokens) for order in orders]

    def bytes_of_capture(positions: int) -> int:
        return sum(_capture(engine.model, order, watch, positions if len(orders) == 1 else n) for order, n in zip(orders, lengths, strict=True))

    engine.probe_bytes = bytes_of_capture
    rows = min(sum(order.tokens for order in orders), HEAD_ROWS) if orders[0].scores else len(orders)
    engine.plan(sum(lengths), rows, lengths=lengths)


def fits(engine: Engine, orders: Sequence[Order], watch: Watch) -> bool:
    with suppress(BudgetError):
        plan(engine, orders, watch)
        return True
    return False


def _capture(model: Model, order: Order, watch: Watch, positions: int) -> int:
    """Bytes that capturing so many positions takes"""
    shown, steps = None if order.scores else len(order.prompt_ids), len(order.steps) if order.scores else 1
    kept = partial(capture_bytes, model, positions, level=watch.capture, prompt_level=watch.capture_prompt, prompt=shown)
    return kept() + steps * model.shape.hidden * NUMBER if spools(order, watch) else kept(steps=steps)


def spools(order: Order, watch: Watch) -> bool:
    """Whether its steps lie on disk at once: those of a long pass, which their rows are not needed for"""
    return order.scores and watch.capture == "minimal"


def form(engine: Engine, runs: Sequence[Run], on_step: Callable[[Run, Step], None] | None = None) -> None:
    """The tokens that are missing. What is derived of one is computed and written while the next are formed. `on_step` hears whose step it is."""
    if not runs:
        return
    biases = engine.router_biases()
    with ExitStack() as opened:
        forming = [opened.enter_context(Forming(run, biases)) for run in runs]
        engine.idle = lambda: any(each.recorder.idle() for each in forming)
        for number, step in _steps(engine, forming):
            forming[number].take(step)
            if on_step:
                on_step(forming[number].run, step)


def _steps(engine: Engine, forming: Sequence[Forming]) -> Iterator[tuple[int, Step]]:
    """After a cut the first pass computes all positions so far again, and only the new one is observed."""
    if forming[0].run.order.scores:
        return engine.score_together([(each.run.order.prompt_ids, each.run.steps_left, each.recorder) for each in forming])
    return engine.generate_together([each.run.wanted(each.recorder) for each in forming])


class Forming:
    """A run whose tokens are coming: observes each, and writes its lines behind those of the one before."""

    def __init__(self, run: Run, biases: Mapping[int, F32]) -> None:
        engine, model, watch = run.engine, run.engine.model, run.watch
        self.run, self._opened = run, ExitStack()
        self._ledger = Appender(run.writer, run.run_id, run_values(model, watch.capture_prompt, watch.capture, biases))
        self.recorder = Recorder(
            model.shape, model.router, biases, run.order.steps, level=watch.capture, prompt_level=watch.capture_prompt, sidecars=run.sidecars,
            first=run.positions, threads=engine.threads, later=True, kinds=[model.kind(layer) for layer in range(model.shape.layers)],
            spooled=spools(run.order, watch),
        )  # fmt: skip
        self._spelling = load_tokenizer(engine.checkpoint.path, engine.checkpoint.config).token_bytes

    def __enter__(self) -> Self:
        self._reads = self._opened.enter_context(closing(accounts.Accounts(self.run.out, len(self.run.ids))))
        self._opened.enter_context(closing(self.recorder))
        self._unfinished = self._opened.enter_context(_Unfinished(self.run.engine))
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    def take(self, step: Step) -> None:
        self._unfinished.wait()
        write = partial(self._write, step, self.recorder.prompt_observations(step.position - 1))
        self._unfinished.begin(self.recorder, step.position - 1, self._token(step), step.logits, write)
        self.run.ids.append(step.id)

    def _token(self, step: Step) -> Token:
        order, position = self.run.order, step.position - 1
        choice = order.sampler.choose(step.logits, step.position) if order.scores else step.choice
        if choice.id != step.id:
            raise RuleBroken(f"token at position {step.position}: expected id {choice.id}, as the sampler chooses it, got {step.id}", hint=NOT_CHOSEN)
        told = sampled(order.chooser, choice, step.logits, threads=self.run.engine.threads)
        return Token(step.id, self._spelling(step.id), order.kind(position), method_of(order.chooser, step.position), told)

    def _write(self, step: Step, prompt: Iterator[Observation], lines: list[Observation]) -> Iterator[None]:
        """First the rows are on disk, then the lines, then the note of both."""
        self.run.sidecars.commit(step.position)
        yield
        for observations in positions(chain(prompt, lines)):
            self._ledger.append(observations)
            yield
        commit = self.run.writer.commit()
        yield
        self._reads.append(_account(step))
        yield
        progress.write(self.run.out, self.run.watch, commit)


class _Unfinished:
    """The step whose lines are not written yet. What was formed is written even if the next step fails: leaving waits for it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._job: Job | None = None
        self._in_use = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def begin(self, recorder: Recorder, position: int, token: Token, logits: F32, write: Write) -> None:
        """Waits at once where the head would take room from the next step: it is in memory now, and is not read again."""
        head = ModelHead(self._engine.model, self._in_use.enter_context(self._engine.head()), threads=self._engine.threads)
        self._job = recorder.begin_step(position, token, logits, head, write)
        if not self._engine.head_stays:
            self.wait()

    def wait(self) -> None:
        """Raises what writing, or deriving, has raised."""
        job, self._job = self._job, None
        with self._in_use:
            if job is not None:
                job.wait()


def _account(step: Step) -> dict[str, Any]:
    return {
        "position": step.position - 1, "seconds": step.seconds, "shared_by": step.shared_by, "disk_bytes": step.reads.disk_bytes,
        "mirror_bytes": step.reads.mirror_bytes, "unused_bytes": step.reads.unused_bytes, "guessed_bytes": step.reads.guessed_bytes,
        "guessed_unused_bytes": step.reads.guessed_unused_bytes, "parts": [asdict(part) for part in step.reads.parts],
        "shards": list(step.reads.shards),
    }  # fmt: skip
