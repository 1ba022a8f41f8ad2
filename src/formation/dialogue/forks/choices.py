"""What may stand at a fork, as it is written.

'317' or 'id:317'    that token                    'end', '' or '∅'   the end of the turn: by default nothing said is a turn that ends
'text' or 'text:…'   the tokens of that text       'least'            the least likely token
'resample:7'         drawn, and all after it too,  'undecided'        nothing: what came before, and the distribution
                     under another seed            'free'             drawn as the run draws it
'resample'           under other branch numbers
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from formation.dialogue.named import ID, TEXT, check_id, read_named, read_number
from formation.errors import UsageError
from formation.kernels.tensor import F32
from formation.text import Tokenizer

END, LEAST, RESAMPLE, UNDECIDED, FREE = "end", "least", "resample", "undecided", "free"
BASE = "base"  # what the run itself has there
EMPTY = ("", "∅")
WORDS = (END, LEAST, RESAMPLE, UNDECIDED, FREE)
MOST = 64
SEEDS = 1 << 64


@dataclass(frozen=True)
class Asked:
    """One choice before the model is asked. `number` is an id or a seed, `text` what is said."""

    how: str
    number: int | None = None
    text: str = ""

    def __str__(self) -> str:
        return self.text if self.how == TEXT else self.how if self.number is None else f"{self.how}:{self.number}"


@dataclass(frozen=True)
class Chosen:
    """One choice in ids: those that are forced, none where the token is drawn."""

    name: str
    how: str
    ids: tuple[int, ...] = ()
    seed: int | None = None

    @property
    def grows(self) -> bool:
        return self.how != UNDECIDED


class Place(Protocol):
    """The fork, as far as choices ask"""

    @property
    def stop(self) -> Sequence[int]: ...

    @property
    def tokenizer(self) -> Tokenizer: ...


def read_choices(words: Sequence[str]) -> list[Asked]:
    """Raises UsageError."""
    if not 1 <= len(words) <= MOST:
        raise UsageError(f"choices: expected 1 to {MOST}, got {len(words)}", hint="for example --choose end least ' cat'")
    found = [read_choice(word) for word in words]
    if twice := next((each for place, each in enumerate(found) if each in found[:place]), None):
        raise UsageError(f"choices: expected each once, got {str(twice)!r} again")
    return found


def read_choice(word: str) -> Asked:
    """Raises UsageError."""
    if word in EMPTY:
        return Asked(END)
    if word in WORDS:
        return Asked(word)
    head, colon, seed = word.partition(":")
    if colon and head == RESAMPLE:
        return Asked(RESAMPLE, read_number(word, seed, SEEDS))
    named = read_named(word)
    return Asked(ID, named) if isinstance(named, int) else Asked(TEXT, text=named)


def resolve(asked: Asked, place: Place, logits: F32) -> Chosen:
    """`logits` [V] are those at the fork. Raises UsageError for what cannot stand there."""
    name, vocabulary = str(asked), len(logits)
    if asked.how == ID and asked.number is not None:
        check_id(asked.number, vocabulary)
        return Chosen(name, ID, (asked.number,))
    if asked.how == TEXT:
        return Chosen(name, TEXT, tuple(place.tokenizer.encode(asked.text)))
    if asked.how == END:
        if not place.stop:
            raise UsageError("choice 'end': expected an id that ends a turn, got none in this run")
        return Chosen(name, END, (max(place.stop, key=lambda token: (float(logits[token]), -token)),))
    if asked.how == LEAST:
        return Chosen(name, LEAST, (int(logits[: place.tokenizer.size].argmin()),))
    return Chosen(name, asked.how, seed=asked.number)
