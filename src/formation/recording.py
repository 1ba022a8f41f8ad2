"""Recording, in one page: identify the checkpoint, freeze the anchor, run with capture, derive, append, check the sum rules, prove parity, close.

    out/anchor.json      the frozen starting state; its SHA-256 is the run's name
    out/contract.json    the numerics contract
    out/checkpoint.json  files, headers, tensor table
    out/host.json        the machine, declared
    out/ledger.jsonl     one line per observation (ledger.jsonl.part while it grows, and for ever if the run is cut off)
    out/rows, out/router the rows that the ledger holds digests of
    out/io.jsonl         what was read, per step and part of the model
    out/parity.json      did a run without capture, in another process, give the same logits and cache entries
    out/progress.json    until the ledger is closed: how to go on after an accident

Whatever stops a recording, what it committed stays readable, and `resume` goes on to the same bytes. `begin` and `resume` leave the bundle
unsigned; `record` and the command line seal it (evidence/seal.py).
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from formation.audit import parity
from formation.errors import EnvironmentFault, RuleBroken, UsageError
from formation.kernels.tensor import F32
from formation.ledger import accounts, canonical, files, progress, reader, rules, start, store
from formation.ledger.anchor import Anchor
from formation.ledger.appender import Appender, positions
from formation.ledger.gaps import RuleResult
from formation.ledger.progress import Watch
from formation.probe.aside import Job
from formation.probe.cost import NUMBER, capture_bytes
from formation.probe.encode import Observation
from formation.probe.head import ModelHead
from formation.probe.pending import Token
from formation.probe.recorder import Recorder, Write
from formation.probe.run_line import run_values
from formation.probe.sidecars import Sidecars
from formation.run.child import asked_of_parent
from formation.run.executor import Progress
from formation.run.generate import Engine, Step
from formation.run.identity import Identity, check_same, contract_document, host_document, identify
from formation.run.order import Order, order_of
from formation.run.sample import Greedy, Sampler, method_of
from formation.text import load_tokenizer
from formation.text.prompt import make_prompt
from formation.weights.checkpoint import Checkpoint, open_checkpoint

if TYPE_CHECKING:
    from formation.evidence.bundle import Bundle


@dataclass(frozen=True)
class Means:
    """How a run is computed: nothing here decides a byte of the ledger. `parity` is replay, full or none; `guess` as the engine has it."""

    memory: str | int | None = None
    threads: int | None = None
    keep_cache: bool = True
    parity: str = "replay"
    progress: Callable[[Progress], None] | None = None
    on_step: Callable[[Step], None] | None = None
    guess: bool = True

    def engine(self, checkpoint: Checkpoint) -> Engine:
        if self.parity not in parity.METHODS:
            raise UsageError(f"parity: expected {', '.join(parity.METHODS)}, got {self.parity}")
        return Engine(
            checkpoint, memory=self.memory, threads=self.threads, keep_cache=self.keep_cache, progress=self.progress, guess=self.guess
        )  # fmt: skip


@dataclass(frozen=True)
class Recording:
    """A closed ledger."""

    folder: Path
    run_id: str
    ids: tuple[int, ...]
    cells: int  # of generated tokens: tokens times layers
    commit: reader.Commit
    rules: tuple[RuleResult, ...]
    parity: str  # "passed" or "not claimed"
    method: str  # how it was proven: replay, full or none
    read: accounts.Totals


def record(
    checkpoint: Checkpoint | str | Path, *, prompt: str | None = None, chat: str | None = None, ids: Sequence[int] | None = None,
    tokens: int = 5, out: str | Path, sampler: Sampler | None = None, capture: str = "standard", capture_prompt: str = "minimal",
    rows: str = "boundaries", parity: str = "replay", nonce: str | None = None, memory: str | int | None = None, threads: int | None = None,
    keep_cache: bool = True, system: str | None = None, thinking: bool | None = None, key: str | Path | None = None,
) -> Bundle:  # fmt: skip
    """Record the formation of `tokens` tokens after a prompt into the folder `out`, which must not hold a ledger.

    Give one of `prompt` (text to continue), `chat` (a user's message, in the checkpoint's template) and `ids`. Levels are minimal, standard
    and full; `rows` is none, boundaries or all; `key` is a file, or the user's own key, made on first use. Raises UsageError, what `Engine`
    raises, EnvironmentFault when `out` is in use or the disk is full, RuleBroken and ParityBroken; what was recorded until then stays readable.
    """
    from formation.evidence import keys
    from formation.evidence.bundle import Bundle
    from formation.evidence.seal import seal

    opened = checkpoint if isinstance(checkpoint, Checkpoint) else open_checkpoint(checkpoint)
    made = make_prompt(opened.path, opened.config, prompt=prompt, chat=chat, ids=ids, system=system, thinking=thinking)
    order = Order(tuple(made.ids), tokens, sampler or Greedy(), made.stop, made.text, nonce)
    signer = keys.load_or_create(None if key is None else Path(key))
    begin(opened, order, Watch(capture, capture_prompt, rows), out, Means(memory, threads, keep_cache, parity))
    seal(Path(out), signer)
    return Bundle(Path(out))


def begin(checkpoint: Checkpoint, order: Order, watch: Watch, out: str | Path, means: Means) -> Recording:
    """Record into the folder `out`, which must not hold a ledger. Raises as `record` does."""
    out = Path(out)
    if order.tokens < 1:
        raise UsageError(f"tokens: expected 1 or more, got {order.tokens}")
    if order.step_kind == "scored" and means.parity == "full":
        raise UsageError("parity: expected replay or none where a text is scored, which is one pass and not steps, got full")
    identity = identify(checkpoint)
    anchor = order.anchor(identity)
    with means.engine(checkpoint) as engine, store.create(out) as writer:
        files.sweep(out)
        _write_documents(out, anchor, identity, engine)
        progress.write(out, watch, progress.NOTHING)
        return _Run(out, order, watch, means, engine, writer, anchor.run_id).finish([])


def resume(checkpoint: Checkpoint, out: str | Path, means: Means) -> Recording:
    """Go on where a recording in `out` was cut off, to the bytes it would have had.

    Raises EvidenceError when checkpoint or contract are not those of its anchor, EnvironmentFault when nothing is there to go on with.
    """
    out = Path(out)
    begun = start.interrupted(out)
    if begun is None:
        raise EnvironmentFault(f"{out}: expected a recording that was cut off, got none", hint="record without --resume")
    anchor, watch, commit = begun
    check_same(anchor, identify(checkpoint), start.Start(anchor, out).listed_files())
    with means.engine(checkpoint) as engine, store.resume(out, commit) as writer:
        files.sweep(out)
        return _Run(out, order_of(anchor), watch, means, engine, writer, anchor.run_id).finish(list(progress.token_ids(out, commit)))


class _Run:
    """A recording between its first line and its last."""

    def __init__(self, out: Path, order: Order, watch: Watch, means: Means, engine: Engine, writer: store.Writer, run_id: str) -> None:
        self.out, self.order, self.watch, self.means, self.engine, self.writer, self.run_id = out, order, watch, means, engine, writer, run_id
        self.scores = order.step_kind == "scored"
        self.spools = self.scores and watch.capture == "minimal"  # steps of a long pass, which their rows are not needed for

    def finish(self, ids: list[int]) -> Recording:
        """From the tokens that are on disk to a closed ledger."""
        shape = self.engine.model.shape
        sidecars = Sidecars(self.out, self.watch.rows, shape, positions=self._recorded(ids))
        try:
            if not self.order.is_over(ids):
                self._form(ids, sidecars)
            results = _checked(self.out, self.order, self._recorded(ids))
            outcome = self._prove_parity(ids)
            files.write_document(self.out / "parity.json", outcome)
            sidecars.close(self._recorded(ids))
        finally:
            sidecars.release()
        commit = self.writer.close()
        progress.remove(self.out)
        read = accounts.totals(self.out)
        return Recording(self.out, self.run_id, tuple(ids), len(ids) * shape.layers, commit, results, outcome["parity"], self.means.parity, read)

    def _recorded(self, ids: Sequence[int]) -> int:
        """Positions whose lines are in the ledger once `ids` are"""
        return self.order.steps.positions_with(len(ids))

    def _form(self, ids: list[int], sidecars: Sidecars) -> None:
        """The tokens that are missing, added to `ids`. What is derived of one is computed and written while the next is formed."""
        biases = self.engine.router_biases()
        ledger = Appender(self.writer, self.run_id, run_values(self.engine.model, self.watch.capture_prompt, self.watch.capture, biases))
        recorder = self._recorder(biases, sidecars, self._recorded(ids))
        spelling = load_tokenizer(self.engine.checkpoint.path, self.engine.checkpoint.config).token_bytes
        with closing(accounts.Accounts(self.out, len(ids))) as reads, closing(recorder), _Unfinished(self.engine) as unfinished:
            for step in self._steps(ids):
                unfinished.wait()
                write = partial(self._write, step, recorder.prompt_observations(step.position - 1), sidecars, ledger, reads)
                unfinished.begin(recorder, step.position - 1, self._token(step, spelling(step.id)), step.logits, write)
                ids.append(step.id)
                if self.means.on_step:
                    self.means.on_step(step)

    def _write(
        self, step: Step, prompt: Iterator[Observation], sidecars: Sidecars, ledger: Appender, reads: accounts.Accounts, lines: list[Observation]
    ) -> Iterator[None]:  # fmt: skip
        """First the rows are on disk, then the lines, then the note of both."""
        sidecars.commit(step.position)
        yield
        for observations in positions(chain(prompt, lines)):
            ledger.append(observations)
            yield
        commit = self.writer.commit()
        yield
        reads.append(_account(step))
        yield
        progress.write(self.out, self.watch, commit)

    def _recorder(self, biases: Mapping[int, F32], sidecars: Sidecars, first: int) -> Recorder:
        engine, steps = self.engine, self.order.steps
        level, prompt_level = self.watch.capture, self.watch.capture_prompt
        engine.probe_bytes = self._bytes_of_capture
        recorder = Recorder(
            engine.model.shape, engine.model.router, biases, steps, level=level, prompt_level=prompt_level, sidecars=sidecars, first=first,
            threads=engine.threads, later=True, kinds=[engine.model.kind(layer) for layer in range(engine.model.shape.layers)],
            spooled=self.spools,
        )  # fmt: skip
        engine.probe, engine.idle = recorder, recorder.idle
        return recorder

    def _bytes_of_capture(self, positions: int) -> int:
        shown, steps = None if self.scores else len(self.order.prompt_ids), len(self.order.steps) if self.scores else 1
        kept = partial(capture_bytes, self.engine.model, positions, level=self.watch.capture, prompt_level=self.watch.capture_prompt, prompt=shown)
        return kept() + steps * self.engine.model.shape.hidden * NUMBER if self.spools else kept(steps=steps)

    def _steps(self, ids: Sequence[int]) -> Iterator[Step]:
        """After a cut the first pass computes all positions so far again, and only the new one is observed."""
        if self.scores:
            return self.engine.score(self.order.prompt_ids, list(self.order.steps)[len(ids) :])
        left = self.order.tokens - len(ids)
        return self.engine.generate([*self.order.prompt_ids, *ids], left, self.order.sampler, stop=self.order.stop)

    def _token(self, step: Step, spelling: bytes) -> Token:
        return Token(step.id, spelling, self.order.step_kind, method_of(self.order.sampler), step.choice.draw)

    def _prove_parity(self, ids: Sequence[int]) -> dict[str, Any]:
        self.engine.close()  # its memory is the repetition's now
        place = parity.Place.of(self.engine)
        if self.means.parity == "full":
            with _place_beside(self.out) as folder:
                return parity.in_full(self.out, self.order, place, lambda: _record_again(self.out, folder, place))
        return parity.by_replay(self.out, self.order, ids, place) if self.means.parity == "replay" else {"parity": "not claimed"}


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


def _checked(out: Path, order: Order, positions: int) -> tuple[RuleResult, ...]:
    """The sum rules over the lines on disk. Raises RuleBroken for the first that does not hold."""
    steps = order.steps
    kinds = [order.step_kind if position in steps else "prompt" for position in range(positions)]
    results = rules.check((canonical.decode(line, limits=canonical.LINE) for line in reader.lines(out)), kinds)
    for broken in rules.violated(results):
        gap = f"expected a gap of at most {broken.tolerance:.3g}, got {broken.worst_gap:.3g}"
        raise RuleBroken(f"sum rule {broken.rule!r}: {gap} in {broken.where}", hint="the lines are kept; the ledger is not closed")
    return results


# ---- what is written beside the ledger


def _write_documents(out: Path, anchor: Anchor, identity: Identity, engine: Engine) -> None:
    files.write_whole(out / start.ANCHOR, anchor.encode())
    files.write_document(out / "contract.json", contract_document())
    files.write_document(out / start.CHECKPOINT, identity.document())
    files.write_document(out / "host.json", host_document(engine))


def _account(step: Step) -> dict[str, Any]:
    return {
        "position": step.position - 1, "seconds": step.seconds, "disk_bytes": step.reads.disk_bytes, "unused_bytes": step.reads.unused_bytes,
        "parts": [asdict(part) for part in step.reads.parts], "shards": list(step.reads.shards),
    }  # fmt: skip


# ---- recording the same run again, in a fresh process


@contextmanager
def _place_beside(out: Path) -> Iterator[Path]:
    """A folder beside `out`, on the same disk, that is not there before and afterwards."""
    folder = out.with_name(f".{out.name}.parity")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _record_again(out: Path, folder: Path, place: parity.Place) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    parity.in_fresh_process("formation.recording", asdict(place) | {"bundle": str(out), "out": str(folder)})
    return folder


def _answer(asked: Mapping[str, Any]) -> dict[str, str]:
    """Records the run of an unfinished bundle into another folder."""
    bundle = Path(asked["bundle"])
    begun = start.interrupted(bundle)
    if begun is None:
        raise EnvironmentFault(f"{bundle}: expected a recording that has begun, got none")
    means = Means(asked["memory"], asked["threads"], parity="none")
    recording = begin(open_checkpoint(asked["checkpoint"]), order_of(begun[0]), begun[1], asked["out"], means)
    return {"root": recording.commit.root.hex()}


if __name__ == "__main__":
    json.dump(_answer(asked_of_parent()), sys.stdout)
