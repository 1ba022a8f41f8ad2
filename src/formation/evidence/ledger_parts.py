"""The same pass over a long ledger, its positions shared out among processes; what it finds is what `read_ledger` finds, to the last word.

Positions are independent but for what RunFacts follows. So each of n workers takes every n-th, and this process digests all lines and joins, in
the order of the positions, what they found. Only if everything holds is that the answer: at the first thing that does not (a rule, a line, a
row, a file that changes) the parts are dropped and the one pass is made, whose findings and sentences are the ones there are. A worker that
dies is an EnvironmentFault. Memory: for each process one position, and the findings of its last one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import islice
from typing import Any, BinaryIO

from formation.evidence.container import Container, ContainerRefusal
from formation.evidence.ledger_pass import RULES, Found, Lines, finished, read_ledger
from formation.evidence.run_facts import RunFacts
from formation.evidence.sidecar_pass import Part, Sidecars
from formation.evidence.worker import Worker, processes
from formation.ledger import canonical, rules
from formation.ledger.anchor import Anchor
from formation.ledger.gaps import RuleResult, Tally
from formation.ledger.lines import STEP_SLOTS, LineRefusal, Place, Run
from formation.ledger.reader import whole_lines
from formation.ledger.steps import Steps

LEDGER = "ledger.jsonl"


class Unfit(Exception):
    """Something does not hold, or may not: one process must look at all of it."""


@contextmanager
def reading(container: Container, sizes: Mapping[str, int], anchor: Anchor, *, workers: int | None = None) -> Iterator[Callable[[], Found]]:
    """Workers begin at once, beside whatever this process does until it calls what it gets here; it raises ContainerRefusal, EnvironmentFault.
    `workers` are by default as many as there are cores, and one, which is this process, for a ledger that is not long."""
    count, joined = processes(sizes[LEDGER]) if workers is None else workers, None

    def found() -> Found:
        with suppress(Unfit):
            if joined:
                return joined()
        stack.close()
        with container.open(LEDGER) as file:
            return read_ledger(file, sizes[LEDGER], anchor, Sidecars(container, sizes))

    with ExitStack() as stack:
        with suppress(Unfit, ContainerRefusal):
            joined = in_parts(stack, container, sizes, anchor, count)
        yield found


@dataclass(frozen=True)
class Plan:
    """Which lines are due, if the ledger holds: which positions are steps, as many as there are lines for."""

    run: Run
    steps: Steps
    step_kind: Callable[[int], str]

    @classmethod
    def of(cls, anchor: Anchor, run: Run, lines: int) -> Plan:
        """Raises Unfit."""
        steps = anchor.steps_in(lines, run.shape.layers)
        if not steps or len(steps) > anchor.tokens:
            raise Unfit
        return cls(run, steps, anchor.step_kind)

    @property
    def positions(self) -> int:
        return self.steps.positions

    def kind(self, position: int) -> str:
        return self.step_kind(position) if position in self.steps else "prompt"

    def lines(self, position: int) -> int:
        return 1 + self.run.shape.layers + (len(STEP_SLOTS) if position in self.steps else 0)


# ---- this process


def in_parts(stack: ExitStack, container: Container, sizes: Mapping[str, int], anchor: Anchor, count: int) -> Callable[[], Found]:
    """Begins; what it gives joins. Both raise Unfit, ContainerRefusal, EnvironmentFault."""
    if count < 2:
        raise Unfit
    file = stack.enter_context(container.open(LEDGER))
    lines, tally, found = Lines(file, anchor.run_id), Tally(RULES), Found()
    total = count_lines(file)
    raw = lines.raw()
    run = first_run(raw, anchor, tally)
    plan = Plan.of(anchor, run, total)
    found.layers, facts = run.shape.layers, RunFacts(anchor, run)
    tally.take(facts.of_anchor())
    count = min(count, plan.positions)
    workers = [stack.enter_context(Worker(job(container, sizes, plan, Part(number, count)))) for number in range(count)]

    def joined() -> Found:
        join(raw, plan, workers, facts, tally, found)
        if next(raw, None) is not None or any(result.violated for result in tally.results()):
            raise Unfit
        finished(found, lines, sizes[LEDGER], anchor, tally)
        if found.broken:
            raise Unfit
        return found

    return joined


def count_lines(file: BinaryIO) -> int:
    count = 0
    while block := file.read(1 << 20):
        count += block.count(b"\n")
    file.seek(0)
    return count


def first_run(raw: Iterator[bytes], anchor: Anchor, tally: Tally) -> Run:
    try:
        run = rules.first_line(decoded(islice(raw, 1)), tally)
    except (LineRefusal, canonical.CanonicalRefusal) as refusal:
        raise Unfit from refusal
    if run.run_id != anchor.run_id:
        raise Unfit
    return run


def join(raw: Iterator[bytes], plan: Plan, workers: list[Worker], facts: RunFacts, tally: Tally, found: Found) -> None:
    """What the workers found, in the order of the positions. What was digested here must be what was read there. Raises Unfit."""
    kinds = facts.kinds()
    for position in range(plan.positions):
        digest = sha256()
        for data in islice(raw, plan.lines(position)):
            digest.update(data + b"\n")
        part = received(workers[position % len(workers)])
        if part["sha256"] != digest.hexdigest() or (kind := next(kinds, None)) is None:
            raise Unfit
        tally.join(RuleResult(**result) for result in part["results"])
        places = {slot: Place(plan.run, position, kind, slot) for slot in part["outside"]}
        tally.take(facts.of_position([rules.Observed(place, part["outside"][slot]) for slot, place in places.items()]))
    found.positions, found.steps = plan.positions, facts.steps
    ends = [received(worker)["results"] for worker in workers]
    if next(kinds, None) is not None:
        raise Unfit
    tally.join(RuleResult(**result) for result in ends[0])  # each says the same of its own rows


def received(worker: Worker) -> dict[str, Any]:
    """Raises Unfit."""
    answer: dict[str, Any] | None = json.loads(worker.receive())
    if answer is None:
        raise Unfit
    return answer


def decoded(lines: Iterable[bytes]) -> Iterator[object]:
    """Raises CanonicalRefusal."""
    for data in lines:
        yield canonical.decode(data, limits=canonical.LINE)


# ---- a worker


def job(container: Container, sizes: Mapping[str, int], plan: Plan, part: Part) -> Callable[[], Iterator[bytes]]:
    """Its answers, one for each position of its part and one at the end; null for what does not hold, and then no more"""

    def answers() -> Iterator[bytes]:
        try:
            with container.open(LEDGER) as file:
                yield from (json.dumps(answer).encode() for answer in examine(file, Sidecars(container, sizes, part), plan, part))
        except (Unfit, LineRefusal, canonical.CanonicalRefusal, ContainerRefusal):
            yield b"null"

    return answers


def examine(file: BinaryIO, sidecars: Sidecars, plan: Plan, part: Part) -> Iterator[dict[str, Any]]:
    raw = whole_lines(file)
    next(raw, None)
    for position in range(plan.positions):
        lines = islice(raw, plan.lines(position))
        if part.has(position):
            yield of_position(lines, sidecars, plan, position)
        for _ in lines:  # of other parts
            pass
    tally = Tally(RULES)
    tally.take(sidecars.at_end(plan.positions))
    yield {"results": holding(tally)}


def of_position(lines: Iterator[bytes], sidecars: Sidecars, plan: Plan, position: int) -> dict[str, Any]:
    """Digest of its lines, a result for each rule, and the values outside of the layers, for what joins positions"""
    digest, tally = sha256(), Tally(RULES)

    def digested() -> Iterator[bytes]:
        for data in lines:
            digest.update(data + b"\n")
            yield data

    (group,) = rules.positions(decoded(digested()), plan.run, [plan.kind(position)], tally, position)
    tally.take(rules.of_lines(group))
    tally.take(sidecars.of_position(group, plan.run))
    outside = {observed.place.slot: observed.values for observed in group if observed.place.layer < 0}
    return {"sha256": digest.hexdigest(), "results": holding(tally), "outside": outside}


def holding(tally: Tally) -> list[dict[str, Any]]:
    """Raises Unfit if a rule is violated."""
    results = tally.results()
    if any(result.violated for result in results):
        raise Unfit
    return [asdict(result) for result in results]
