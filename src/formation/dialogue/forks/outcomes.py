"""What came of the branches, counted for each choice: did the turn end, was the same said, does it hold a marker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from formation.dialogue.intervals import Share

ENDS, SAME = "ends the turn", "says what the base says"


@dataclass(frozen=True)
class Outcome:
    """That `text` of a branch, from the fork on, holds `marker`; or without one, that its turn ends or says the base's text."""

    name: str
    marker: str = ""

    def holds(self, branch: Mapping[str, Any], base_text: str) -> bool:
        if self.marker:
            return self.marker in branch["text"]
        return bool(branch["ended"] == "end of turn") if self.name == ENDS else bool(branch["text"] == base_text)


def outcomes_of(markers: Sequence[str]) -> list[Outcome]:
    return [Outcome(ENDS), Outcome(SAME), *(Outcome(f"holds {marker!r}", marker) for marker in markers)]


def table(
    outcomes: Sequence[Outcome], names: Sequence[str], drawn: Sequence[bool], branches: Sequence[Mapping[str, Any]], base_text: str
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """A row for each choice and outcome, of all its samples; what is not drawn needs no interval"""
    for place, name in enumerate(names):
        own = [branch for branch in branches if branch["choice"] == place]
        for outcome in outcomes if own else ():
            share = Share(sum(outcome.holds(branch, base_text) for branch in own), len(own))
            sure = {} if drawn[place] else {"low": share.times / share.of, "high": share.times / share.of}
            yield {"choice": name, "outcome": outcome.name, "drawn": drawn[place], **share.document(), **sure}
