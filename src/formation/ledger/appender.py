"""From what was observed at a position to its lines: named by the run, with the values that follow from the ledger, appended in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any

from formation.errors import EvidenceError
from formation.ledger import canonical, derive, lines, reader, store
from formation.ledger.departure import first_departure


class Appender:
    """Of the run `run_id`, whose first line measures `run_line`. A ledger that has lines already must begin with that line, or it is another
    run's: raises EvidenceError."""

    def __init__(self, writer: store.Writer, run_id: str, run_line: Mapping[str, Any]) -> None:
        self._writer = writer
        self._run_id = run_id
        first = {"run_id": run_id, "position": -1, "slot": "run", "kind": "run", "measured": dict(run_line), "derived": {}}
        self._run = lines.read_run(first)
        if not writer.lines:
            writer.append(first)
        elif found := first_departure([canonical.encode(first)], islice(reader.lines(writer.folder), 1)):
            raise EvidenceError(f"{writer.folder}: cannot go on as it was begun: {found}", hint="use the version of formation that began it")

    def append(self, observations: Iterable[Mapping[str, Any]]) -> None:
        """Whole positions, in order. Not durable: the writer's `commit` is the caller's."""
        for position in positions(observations):
            group = [{"run_id": self._run_id, **o} for o in position]
            derive.position(group, self._run)
            for line in group:
                self._writer.append(line)


def positions(observations: Iterable[Mapping[str, Any]]) -> Iterator[Sequence[Mapping[str, Any]]]:
    """Observations in groups of one position"""
    return (list(group) for _, group in groupby(observations, lambda o: o["position"]))
