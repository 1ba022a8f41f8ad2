"""What is forked, and what is asked of it: where it stands, what it has there itself, and how a branch grows from it."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from formation.dialogue.chain import Chain
from formation.dialogue.forks.choices import END, Chosen
from formation.errors import UsageError
from formation.kernels.tensor import F32
from formation.run.sample import Greedy, Sample
from formation.text import Tokenizer

SAMPLED, FORCED, GREEDY = "sampled", "forced", "greedy"  # how a token came; a forced one that ends the turn is an `end`
KIND_OF = {"sample": SAMPLED, "greedy": GREEDY, "forced": FORCED}
DIGITS = 9


@dataclass(frozen=True)
class Formed:
    """A token of a branch. `spelling` is base64 of its bytes, `measured` that record of the event table (docs/dialogue.md)."""

    id: int
    spelling: str
    kind: str
    measured: dict[str, Any]

    def document(self) -> dict[str, Any]:
        return {"id": self.id, "bytes": self.spelling, "kind": self.kind, "measured": self.measured}

    @property
    def spelt(self) -> bytes:
        return b64decode(self.spelling)


Hear = Callable[[Formed, F32], None]  # a token, and the logits [V] that it was chosen from
HearEach = Callable[[int, Formed, F32], None]  # of which branch


@dataclass(frozen=True)
class Base:
    """`document` names what is forked, by digests; `before` are the bytes of its message up to the fork, `tokens` those of the message from there
    on. `token` counts from 1."""

    document: dict[str, Any]
    names: tuple[str, ...]
    side: int
    message: int
    token: int
    before: bytes
    tokens: tuple[Formed, ...]
    ended: str

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(each.id for each in self.tokens)

    @property
    def at(self) -> dict[str, Any]:
        return {"side": self.side, "message": self.message, "token": self.token}


class Source(Protocol):
    @property
    def base(self) -> Base: ...

    @property
    def chain(self) -> Chain:
        """With the draws of the base"""

    @property
    def stop(self) -> Sequence[int]: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def room(self) -> int:
        """Tokens that the model's context leaves for a branch"""

    def root(self) -> F32:
        """The logits at the fork                                                                                      [V]"""

    def follow(self, count: int, hear: Hear) -> None:
        """So many of the base's own tokens again. Raises EvidenceError for the first that does not come out as it is recorded."""

    def together(self, most: int) -> int:
        """How many branches of so many tokens can grow in the same passes over the weights"""

    def grow(self, wanted: Sequence[tuple[Chosen, Chain]], most: int, hear: HearEach) -> list[dict[str, Any]]:
        """Branches of at most so many tokens, the forced ones first; what is to be said of each beside its tokens"""


def kind_of(method: str, chosen: Chosen | None = None) -> str:
    return END if chosen is not None and chosen.how == END and method == "forced" else KIND_OF[method]


def method_of(chain: Chain) -> str:
    return "greedy" if isinstance(chain.sampler, Greedy) else "sample"


def read_place(text: str) -> tuple[int | None, int]:
    """From MSG:TOKEN or TOKEN, both from 1. Raises UsageError."""
    parts = text.split(":")
    if not (1 <= len(parts) <= 2 and all(part.isascii() and part.isdigit() and len(part) <= DIGITS and int(part) for part in parts)):
        raise UsageError(f"--at: expected MSG:TOKEN of a dialogue or TOKEN of a run, numbers from 1, got {text[:40]!r}")
    return (int(parts[0]) if len(parts) == 2 else None), int(parts[-1])


# ---- draws


def redrawn(sampler: Greedy | Sample, settings: Mapping[str, Any]) -> Greedy | Sample:
    """With these settings in place of its own; temperature 0 is greedy. Raises UsageError."""
    if settings.get("temperature") == 0.0 and len(settings) == 1:
        return Greedy()
    if isinstance(sampler, Greedy) and settings and "temperature" not in settings:
        raise UsageError("fork: expected --temperature, as the run is greedy, got other settings of a sampler", hint="add --temperature 1")
    return replace(sampler if isinstance(sampler, Sample) else Sample(), **settings) if settings else sampler


@dataclass(frozen=True)
class Draws:
    """Of one branch: sample number `sample` from 0 of the choice at `place`."""

    place: int
    sample: int
    seed: int
    branch: int

    def of(self, chain: Chain) -> Chain:
        if isinstance(chain.sampler, Sample):
            return replace(chain, sampler=replace(chain.sampler, seed=self.seed, branch=self.branch))
        return chain


def plan_draws(chain: Chain, choices: Sequence[Chosen], samples: int, *, own: bool, fixed: Callable[[Chosen], bool]) -> list[Draws]:
    """Sample s of every choice has the base's seed and branch number + s, so that sample 0 has its chances; `resample` and, with `own`, all
    have branch numbers that no other has. What is `fixed` has one sample, since nothing of it is drawn. Raises UsageError where all samples would
    be the same."""
    sampler = chain.sampler
    if not isinstance(sampler, Sample):
        drawn = next((each.name for each in choices if each.how == "resample"), None)
        if samples > 1 or drawn is not None:
            asked = f"{samples} samples" if samples > 1 else repr(drawn)
            raise UsageError(f"fork: expected --temperature, as the run is greedy and draws nothing, got {asked} without")
        return [Draws(place, 0, 0, 0) for place, each in enumerate(choices) if each.grows]
    found = []
    for place, each in enumerate(choices):
        apart = own or (each.how == "resample" and each.seed is None)
        first = sampler.branch + ((place + 1) * samples if apart else 0)
        seed = sampler.seed if each.seed is None else each.seed
        found += [Draws(place, s, seed, (first + s) % (1 << 64)) for s in range(1 if fixed(each) else samples) if each.grows]
    return found
