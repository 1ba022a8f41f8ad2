"""The same pass over a long ledger, its positions shared out among processes; what it finds is what `read_ledger` finds, to the last word.

Positions are independent but for what RunFacts follows. So this process digests all lines, and joins, in the order of the positions, what each
worker found in its groups of them. Only if everything holds is that the answer: at the first thing that does not (a rule, a line, a row, a
file that changes) the parts are dropped and the one pass is made, whose findings and sentences are the ones there are. A worker that
dies is an EnvironmentFault. Memory: for each process one position, and its last group's findings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
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
WIDTH = 4  # positions of a group


class Unfit(Exception):
    """Something does not hold, or may not: one process must look at all of it."""


def read(container: Container, sizes: Mapping[str, int], anchor: Anchor, *, workers: int | None = None) -> Found:
    """`workers` are by default as many as there are cores, and one, which is this process, for a ledger that is not long.
    Raises EnvironmentFault."""
    count = processes(sizes[LEDGER]) if workers is None else workers
    if count > 1:
        with suppress(Unfit), container.open(LEDGER) as file:
            return read_in_parts(file, container, sizes, anchor, count)
    with container.open(LEDGER) as file:
        return read_ledger(file, sizes[LEDGER], anchor, Sidecars(container, sizes))


@dataclass(frozen=True)
class Plan:
    """Which lines are due, if the ledger holds: which positions are steps, as many as there are lines for."""

    run: Run
    steps: Steps
    kind: Callable[[int], str]  # of each step
    width: int

    @classmethod
    def of(cls, anchor: Anchor, run: Run, lines: int) -> Plan:
        """Raises Unfit."""
        steps = anchor.steps_in(lines, run.shape.layers)
        if not steps or len(steps) > anchor.tokens:
            raise Unfit
        return cls(run, steps, anchor.step_kind, WIDTH)

    @property
    def positions(self) -> int:
        return self.steps.positions

    def groups(self) -> Iterator[range]:
        for begin in range(0, self.positions, self.width):
            yield range(begin, min(begin + self.width, self.positions))

    def kinds(self, group: range) -> list[str]:
        return [self.kind(position) if position in self.steps else "prompt" for position in group]

    def lines(self, group: range) -> int:
        steps = sum(position in self.steps for position in group)
        return len(group) * (self.run.shape.layers + 1) + steps * len(STEP_SLOTS)


# ---- this process


def read_in_parts(file: BinaryIO, container: Container, sizes: Mapping[str, int], anchor: Anchor, count: int) -> Found:
    """Raises Unfit, EnvironmentFault."""
    lines, tally, found = Lines(file, anchor.run_id), Tally(RULES), Found()
    total = count_lines(file)
    raw = lines.raw()
    run = first_run(raw, anchor, tally)
    plan = Plan.of(anchor, run, total)
    found.layers, facts = run.shape.layers, RunFacts(anchor, run)
    tally.take(facts.of_anchor())
    if (count := min(count, len(list(plan.groups())))) < 2:
        raise Unfit
    with ExitStack() as stack:
        parts = [Part(number, count, plan.width) for number in range(count)]
        workers = [stack.enter_context(Worker(job(container, sizes, plan, part))) for part in parts]
        join(raw, plan, workers, facts, tally, found)
    if next(raw, None) is not None or any(result.violated for result in tally.results()):
        raise Unfit
    finished(found, lines, sizes[LEDGER], anchor, tally)
    if found.broken:
        raise Unfit
    return found


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
    for number, group in enumerate(plan.groups()):
        digest = sha256()
        for data in islice(raw, plan.lines(group)):
            digest.update(data + b"\n")
        part = received(workers[number % len(workers)])
        if part["sha256"] != digest.hexdigest() or len(part["outside"]) != len(group):
            raise Unfit
        tally.join(RuleResult(**result) for result in part["results"])
        for position, values in zip(group, part["outside"], strict=True):
            if (kind := next(kinds, None)) is None:
                raise Unfit
            places = {slot: Place(plan.run, position, kind, slot) for slot in values}
            tally.take(facts.of_position([rules.Observed(place, values[slot]) for slot, place in places.items()]))
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
    """Its answers, one for each group of its part and one at the end; null for what does not hold, and then no more"""

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
    for group in plan.groups():
        lines = islice(raw, plan.lines(group))
        if part.has(group.start):
            yield of_group(lines, sidecars, plan, group)
        for _ in lines:  # of other parts
            pass
    tally = Tally(RULES)
    tally.take(sidecars.at_end(plan.positions))
    yield {"results": holding(tally)}


def of_group(lines: Iterator[bytes], sidecars: Sidecars, plan: Plan, group: range) -> dict[str, Any]:
    """Digest of its lines, a result for each rule, and the values outside of the layers, for what joins positions"""
    digest, tally, outside = sha256(), Tally(RULES), []

    def digested() -> Iterator[bytes]:
        for data in lines:
            digest.update(data + b"\n")
            yield data

    for position in rules.positions(decoded(digested()), plan.run, plan.kinds(group), tally, group.start):
        tally.take(rules.of_lines(position))
        tally.take(sidecars.of_position(position, plan.run))
        outside.append({observed.place.slot: observed.values for observed in position if observed.place.layer < 0})
    return {"sha256": digest.hexdigest(), "results": holding(tally), "outside": outside}


def holding(tally: Tally) -> list[dict[str, Any]]:
    """Raises Unfit if a rule is violated."""
    results = tally.results()
    if any(result.violated for result in results):
        raise Unfit
    return [asdict(result) for result in results]
