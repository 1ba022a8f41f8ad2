"""What a procedure is: its name, the inputs it takes, and the function that finds something out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from formation.dialogue.claims.claim import Claim, Finding
from formation.dialogue.claims.judge import RELATIONS
from formation.dialogue.transcripts.transcript import Transcript

if TYPE_CHECKING:
    from formation.dialogue.claims.models import Models

NOTHING, MODEL = "nothing", "a model"
TYPES: Mapping[str, Callable[[Any], bool]] = {
    "text": lambda v: isinstance(v, str) and 0 < len(v) <= 500,
    "name": lambda v: isinstance(v, str) and 0 < len(v) <= 200,
    "number": lambda v: type(v) is int and 1 <= v <= 10**9,
    "whole": lambda v: type(v) is int and abs(v) <= 10**9,
    "real": lambda v: isinstance(v, int | float) and not isinstance(v, bool) and abs(v) <= 1e15,
    "words": lambda v: isinstance(v, list) and 0 < len(v) <= 50 and all(isinstance(word, str) and 0 < len(word) <= 100 for word in v),
    "value": lambda v: isinstance(v, bool | int | float | str) and abs(v if isinstance(v, int | float) else 0) <= 1e15,
}
PHRASES = {
    "text": "a text of at most 500 characters", "name": "the name of a side", "number": "a number from 1", "whole": "a whole number",
    "real": "a number", "words": "a list of words", "value": "a number, a text, true or false",
}  # fmt: skip


@dataclass(frozen=True)
class Input:
    """`type` is one of TYPES, or the words that it may be, separated by |"""

    name: str
    type: str
    definition: str
    needed: bool = False

    def problem(self, value: Any) -> str:
        """What it should have been, empty if it is that"""
        if self.type in TYPES:
            return "" if TYPES[self.type](value) else PHRASES[self.type]
        words = self.type.split("|")
        return "" if value in words else " or ".join(words)


@dataclass(frozen=True)
class Procedure:
    """`needs` NOTHING or MODEL: what the claim's side must be given by --as for it."""

    name: str
    about: str
    scope: str
    needs: str
    inputs: tuple[Input, ...]
    find: Callable[[Case], Finding]


SAYS = Input("says", "value", "what the claim says the value is")
RELATION = Input("relation", "|".join(RELATIONS), "how the value is said to stand to it (default: is)")


@dataclass(frozen=True)
class Case:
    """A claim with all that may help to settle it"""

    transcript: Transcript
    claim: Claim
    models: Models

    def get(self, name: str, default: Any = None) -> Any:
        return self.claim.inputs.get(name, default)

    @property
    def message(self) -> int:
        """That the procedure looks at: the claim's own, unless it names another"""
        return int(self.get("message", self.claim.message))

    @property
    def text(self) -> str:
        """Of that message"""
        return self.transcript.said[self.message - 1][1].text

    @property
    def side(self) -> int:
        """The side in question: the one named, or who said the message looked at"""
        name = self.get("of")
        return self.transcript.names.index(name) if name is not None else self.transcript.said[self.message - 1][1].side
