"""Recording, in one page: identify the checkpoint, freeze the anchor, run with capture, derive, append, check the sum rules, prove parity, close.

    out/anchor.json      the frozen starting state; its SHA-256 is the run's name
    out/contract.json    the numerics contract
    out/checkpoint.json  files, headers, tensor table
    out/host.json        the machine, and those that resumed on, declared
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
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formation import forming
from formation.audit import parity
from formation.errors import EnvironmentFault, EvidenceError, RuleBroken, UsageError
from formation.evidence.documents import read_host
from formation.ledger import accounts, canonical, files, progress, reader, rules, start, store
from formation.ledger.anchor import Anchor
from formation.ledger.gaps import RuleResult
from formation.ledger.progress import Watch
from formation.run.child import asked_of_parent
from formation.run.executor import Progress
from formation.run.generate import Engine, Step
from formation.run.identity import Identity, check_same, contract_document, host_document, host_of_resumed, identify
from formation.run.order import Order, order_of
from formation.run.sample import Greedy, Sampler
from formation.text.prompt import make_prompt
from formation.weights.checkpoint import Checkpoint, open_checkpoint
from formation.weights.mirror import open_mirrored
from formation.weights.policy import DEFAULT

if TYPE_CHECKING:
    from formation.evidence.bundle import Bundle

HOST = "host.json"


@dataclass(frozen=True)
class Means:
    """How a run is computed: nothing here decides a byte of the ledger. `parity` is replay, full or none; `guess` and `policy` as the engine has
    them. `on_group` hears of how many runs go together, of how many that are left, where the budget does not hold all of them; `on_each` of each
    step, and which it is of the runs that go together."""

    memory: str | int | None = None
    threads: int | None = None
    keep_cache: bool = True
    parity: str = "replay"
    progress: Callable[[Progress], None] | None = None
    on_step: Callable[[Step], None] | None = None
    guess: bool = True
    on_group: Callable[[int, int], None] | None = None
    policy: str = DEFAULT
    on_each: Callable[[int, Step], None] | None = None

    def heard(self, number: int, step: Step) -> None:
        if self.on_step:
            self.on_step(step)
        if self.on_each:
            self.on_each(number, step)

    def engine(self, checkpoint: Checkpoint) -> Engine:
        if self.parity not in parity.METHODS:
            raise UsageError(f"parity: expected {', '.join(parity.METHODS)}, got {self.parity}")
        return Engine(
            checkpoint, memory=self.memory, threads=self.threads, keep_cache=self.keep_cache, progress=self.progress, guess=self.guess,
            policy=self.policy,
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
    keep_cache: bool = True, system: str | None = None, thinking: bool | None = None, today: date | None = None, key: str | Path | None = None,
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
    made = make_prompt(opened.path, opened.config, prompt=prompt, chat=chat, ids=ids, system=system, thinking=thinking, today=today)
    order = Order(tuple(made.ids), tokens, sampler or Greedy(), made.stop, made.text, nonce)
    signer = keys.load_or_create(None if key is None else Path(key))
    begin(opened, order, Watch(capture, capture_prompt, rows), out, Means(memory, threads, keep_cache, parity))
    seal(Path(out), signer)
    return Bundle(Path(out))


def begin(checkpoint: Checkpoint, order: Order, watch: Watch, out: str | Path, means: Means) -> Recording:
    """Record into the folder `out`, which must not hold a ledger. Raises as `record` does."""
    return begin_together(checkpoint, [order], watch, [out], means)[0]


def begin_together(
    checkpoint: Checkpoint, orders: Sequence[Order], watch: Watch, outs: Sequence[str | Path], means: Means
) -> list[Recording]:  # fmt: skip
    """Record several runs, each into its folder, in the same passes over the weights: each ledger has the bytes that it would have alone.

    All of them score, or none does. Raises as `record` does, and BudgetError where they do not fit together.
    """
    with means.engine(checkpoint) as engine:
        return _begin(engine, identify(checkpoint), orders, watch, list(map(Path, outs)), means)


def ensure(
    checkpoint: Checkpoint, orders: Sequence[Order], watch: Watch, outs: Sequence[Path], means: Means,
    closed: Callable[[Path], None] = lambda out: None,
) -> None:  # fmt: skip
    """A closed ledger of each order in its folder: those that were cut off are gone on with, one by one, the others begun, as many together as the
    budget holds. `closed` hears of each folder, also of one that was closed before. Raises as `begin_together` and `resume` do, and EvidenceError for
    a folder with a recording of something else, before anything is computed."""
    due, identity = list(zip(orders, outs, strict=True)), identify(checkpoint)
    there, new = [each for each in due if not is_new(each[1])], [each for each in due if is_new(each[1])]
    for order, out in there:
        _check_recorded(out, order.anchor(identity))
    for _, out in there:
        if not _is_complete(out):
            resume(checkpoint, out, means)
        closed(out)
    while new:
        some = _begin_some(checkpoint, identity, new, watch, means)
        for recording in some:
            closed(recording.folder)
        new = new[len(some) :]


def is_new(out: Path) -> bool:
    """Whether no recording has begun there"""
    return not _is_complete(out) and progress.read(out) is None


def _is_complete(out: Path) -> bool:
    return (out / reader.NAME).exists()


def _check_recorded(out: Path, due: Anchor) -> None:
    if (found := start.read_anchor(out).run_id) != due.run_id:
        raise EvidenceError(f"{out}: expected a recording of run {due.run_id}, got one of {found}", hint="move it away, or choose another folder")


def _begin_some(
    checkpoint: Checkpoint, identity: Identity, due: Sequence[tuple[Order, Path]], watch: Watch, means: Means
) -> list[Recording]:  # fmt: skip
    """The first of them, as many as fit"""
    orders, outs = [order for order, _ in due], [out for _, out in due]
    with means.engine(checkpoint) as engine:
        count = fitting(engine, orders, watch)
        if means.on_group and count < len(due):
            means.on_group(count, len(due))
        return _begin(engine, identity, orders[:count], watch, outs[:count], means)


def fitting(engine: Engine, orders: Sequence[Order], watch: Watch) -> int:
    """How many of them, from the first, the budget holds in one pass; at least one. Raises BudgetError if not even that."""
    forming.plan(engine, orders[:1], watch)
    return bisect_left(range(2, len(orders) + 1), True, key=lambda count: not forming.fits(engine, orders[:count], watch)) + 1


def _begin(
    engine: Engine, identity: Identity, orders: Sequence[Order], watch: Watch, outs: Sequence[Path], means: Means
) -> list[Recording]:  # fmt: skip
    for order in orders:
        _check(order, means)
    with ExitStack() as opened:
        forming.plan(engine, orders, watch)  # before anything is written
        runs = []
        for order, out in zip(orders, outs, strict=True):
            anchor = order.anchor(identity)
            writer = opened.enter_context(store.create(out))
            files.sweep(out)
            _write_documents(out, anchor, identity, engine)
            progress.write(out, watch, progress.NOTHING)
            runs.append(forming.Run(out, order, watch, engine, writer, anchor.run_id, []))
        return _finish(engine, runs, means)


def _check(order: Order, means: Means) -> None:
    if order.tokens < 1:
        raise UsageError(f"tokens: expected 1 or more, got {order.tokens}")
    if order.scores and means.parity == "full":
        raise UsageError("parity: expected replay or none where a text is scored, which is one pass and not steps, got full")


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
        host = read_host(files.read_whole(out / HOST), commit.lines)
        files.write_document(out / HOST, host_of_resumed(host, engine, commit.lines))
        order = order_of(anchor)
        forming.plan(engine, [order], watch)
        run = forming.Run(out, order, watch, engine, writer, anchor.run_id, list(progress.token_ids(out, commit)))
        return _finish(engine, [run], means)[0]


def _finish(engine: Engine, runs: Sequence[forming.Run], means: Means) -> list[Recording]:
    """From the tokens that are on disk to closed ledgers."""
    with ExitStack() as held:
        for run in runs:
            held.callback(run.sidecars.release)
        forming.form(engine, [run for run in runs if not run.order.is_over(run.ids)], lambda run, step: means.heard(runs.index(run), step))
        results = [_checked(run.out, run.order, run.positions) for run in runs]
        engine.close()  # its memory is the repetition's now
        outcomes = _prove_parity(runs, means, parity.Place.of(engine))
        return [_close(run, found, outcome, means.parity) for run, found, outcome in zip(runs, results, outcomes, strict=True)]


def _close(run: forming.Run, results: tuple[RuleResult, ...], outcome: dict[str, Any], method: str) -> Recording:
    files.write_document(run.out / "parity.json", outcome)
    run.sidecars.close(run.positions)
    commit = run.writer.close()
    progress.remove(run.out)
    cells, read = len(run.ids) * run.engine.model.shape.layers, accounts.totals(run.out)
    return Recording(run.out, run.run_id, tuple(run.ids), cells, commit, results, outcome["parity"], method, read)


def _prove_parity(runs: Sequence[forming.Run], means: Means, place: parity.Place) -> list[dict[str, Any]]:
    if means.parity == "replay":
        return parity.by_replay([(run.out, run.order, run.ids) for run in runs], place)
    if means.parity == "none":
        return [{"parity": "not claimed"} for _ in runs]
    return [_prove_in_full(run, place) for run in runs]


def _prove_in_full(run: forming.Run, place: parity.Place) -> dict[str, Any]:
    with _place_beside(run.out) as folder:
        return parity.in_full(run.out, run.order, place, lambda: _record_again(run.out, folder, place))


def _checked(out: Path, order: Order, positions: int) -> tuple[RuleResult, ...]:
    """The sum rules over the lines on disk. Raises RuleBroken for the first that does not hold."""
    kinds = [order.kind(position) for position in range(positions)]
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
    files.write_document(out / HOST, host_document(engine))


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
    recording = begin(open_mirrored(asked["checkpoint"], asked["mirrors"]), order_of(begun[0]), begun[1], asked["out"], means)
    return {"root": recording.commit.root.hex()}


if __name__ == "__main__":
    json.dump(_answer(asked_of_parent()), sys.stdout)
