"""How rules are written: a short sentence for each, to be read aloud.

    rule       condition {and condition}
    condition  WHO ends [with "MARKER"] [bare | last | anywhere] [N times]     last, 1 time, [END] if nothing else is said
               WHO says the same [N times]                                     2 times
               WHO says nothing [N times]                                      1 time
               cycle [of at most N messages] [N times]                         24 messages, 3 times
               N messages | N tokens | N errors | N seconds | N minutes | N hours | SIZE read
    WHO        any | each | both | A | B

"end" and "say" go too, as do "once" and "twice", a comma before any word, and sizes such as 2TB or 500 MiB. What a rule means: stops.py.
"""

from __future__ import annotations

import math
import re
from typing import Any, get_args

from formation.dialogue.stops.conditions import (
    MARKER,
    MOST_OF_CYCLE,
    MOST_TIMES,
    AtLeast,
    Condition,
    Cycle,
    Ends,
    Nothing,
    Place,
    Same,
    Who,
)  # fmt: skip
from formation.dialogue.stops.rules import Rule
from formation.errors import UsageError
from formation.ledger import canonical
from formation.run.machine import parse_bytes

DEFAULT = ("each ends bare 2 times", "1 error")
EXAMPLE = "for example --stop 'both end bare twice', --stop '100 messages', --stop 'any says the same 3 times and 2 hours'"
WORD = re.compile(r'\s*(?:"([^"\n]+)"|([^\s",]+)),?')
SECONDS = {"second": 1, "seconds": 1, "minute": 60, "minutes": 60, "hour": 3600, "hours": 3600}
COUNTED = {"message": "messages", "messages": "messages", "token": "tokens", "tokens": "tokens", "error": "errors", "errors": "errors"}
LARGEST = 1e15


def read_rule(text: str) -> Rule:
    """Raises UsageError."""
    return Words(text).rule()


class Words:
    """The words of one rule, taken from the left"""

    def __init__(self, text: str) -> None:
        self._text = text
        self._words: list[tuple[str, bool]] = []  # the word, and whether it was quoted
        at = 0
        while at < len(text.rstrip()):
            match = WORD.match(text, at)
            if match is None:
                raise self._refusal(text[at:].strip()[:20])
            self._words.append((match[1], True) if match[1] else (match[2], False))
            at = match.end()

    def rule(self) -> Rule:
        conditions = [self._condition()]
        while self._took("and"):
            conditions.append(self._condition())
        if self._words:
            raise self._refusal(self._words[0][0])
        return Rule(tuple(conditions))

    def _condition(self) -> Condition:
        word = self._take()
        if word in get_args(Who):
            return self._of_side(word)
        if word == "cycle":
            return self._cycle()
        return self._amount(word)

    def _of_side(self, who: Any) -> Condition:
        verb = self._take()
        if verb in ("end", "ends"):
            return self._ends(who)
        what = self._take() if verb in ("say", "says") else verb
        if verb in ("say", "says") and what == "nothing":
            return Nothing(who, self._times(1))
        if verb in ("say", "says") and what == "the" and self._took("same"):
            return Same(who, self._times(2, least=2))
        raise self._refusal(what)

    def _ends(self, who: Any) -> Ends:
        marker: str = MARKER
        if self._took("with"):
            if not self._words or not self._words[0][1]:
                raise self._refusal(self._words[0][0] if self._words else "")
            marker = self._take(quoted=True)
        place: Any = next((each for each in get_args(Place) if self._took(each)), "last")
        return Ends(who, place, self._times(1), marker)

    def _cycle(self) -> Cycle:
        most = MOST_OF_CYCLE
        if self._took("of"):
            self._expect("at", "most")
            most = self._count(self._take(), MOST_TIMES)
            self._expect("messages")
        return Cycle(self._times(3, least=2), most)

    def _amount(self, word: str) -> AtLeast:
        number = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([a-zA-Z]*)", word)
        if number is None:
            raise self._refusal(word)
        unit = number[2] or self._take()
        if unit in COUNTED and not number[2]:
            what: Any = COUNTED[unit]
            return AtLeast(what, self._count(number[1], LARGEST))
        if unit in SECONDS and not number[2]:
            return AtLeast("seconds", self._positive(round(float(number[1]) * SECONDS[unit], 6)))
        size = self._positive(float(parse_bytes(number[1] + ("" if unit in ("byte", "bytes") else unit))))
        self._expect("read")
        return AtLeast("bytes", size)

    def _times(self, default: int, *, least: int = 1) -> int:
        for word, times in (("once", 1), ("twice", 2)):
            if times >= least and self._took(word):
                return times
        if not self._words or not self._words[0][0].isdigit():
            return default
        times = self._count(self._take(), MOST_TIMES, least)
        if not self._took("times"):
            self._expect("time")
        return times

    def _count(self, word: str, most: float, least: int = 1) -> int:
        if not (word.isascii() and word.isdigit() and len(word) <= 16 and least <= int(word) <= most):
            raise UsageError(
                f"stop {canonical.quoted(self._text)}: expected a number from {least} to {most:.0f}, got {canonical.quoted(word)}", hint=EXAMPLE
            )
        return int(word)

    def _positive(self, value: float) -> float:
        if not (math.isfinite(value) and 0 < value <= LARGEST):
            raise UsageError(f"stop {canonical.quoted(self._text)}: expected a number above 0, got {value:g}", hint=EXAMPLE)
        return value

    def _take(self, *, quoted: bool = False) -> str:
        if not self._words or self._words[0][1] != quoted:
            raise self._refusal(self._words[0][0] if self._words else "")
        return self._words.pop(0)[0]

    def _took(self, word: str) -> bool:
        if self._words[:1] != [(word, False)]:
            return False
        self._words.pop(0)
        return True

    def _expect(self, *words: str) -> None:
        for word in words:
            if not self._took(word):
                raise self._refusal(self._words[0][0] if self._words else "")

    def _refusal(self, word: str) -> UsageError:
        got = canonical.quoted(word) if word else "its end"
        return UsageError(f"stop {canonical.quoted(self._text)}: expected a rule as in docs/dialogue.md, got {got}", hint=EXAMPLE)
