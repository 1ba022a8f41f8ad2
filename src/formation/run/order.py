"""What is asked for: everything that decides the tokens of a run, but for the checkpoint; from and to an anchor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from formation.errors import UsageError
from formation.kernels import golden
from formation.ledger.anchor import FORCED, Anchor, Fork
from formation.ledger.steps import Steps, generated, scored
from formation.run.identity import Identity
from formation.run.sample import Forced, Given, Greedy, Sample, Sampler, method_of


@dataclass(frozen=True)
class Order:
    prompt_ids: tuple[int, ...]
    tokens: int
    sampler: Sampler = field(default_factory=Greedy)
    stop: tuple[int, ...] = ()
    prompt_text: str | None = None
    nonce: str | None = None
    fork: Fork | None = None

    def anchor(self, identity: Identity) -> Anchor:
        """Raises UsageError for a sampler that no anchor can hold."""
        return Anchor(
            prompt_ids=self.prompt_ids,
            prompt_text=self.prompt_text,
            checkpoint_sha256=identity.sha256,
            tensor_table_root=identity.tensor_table_root,
            contract=golden.CONTRACT,
            contract_digest=golden.CONTRACT_DIGEST,
            sampler=settings_of(self.sampler),
            tokens=self.tokens,
            stop_ids=tuple(sorted(set(self.stop))),
            nonce=self.nonce,
            fork=self.fork,
        )

    @property
    def scores(self) -> bool:
        return isinstance(self.sampler, Given)

    @property
    def chooser(self) -> Sampler:
        """The sampler, behind the tokens that are given"""
        return Forced(self.fork.forced, len(self.prompt_ids), self.sampler) if self.fork else self.sampler

    def kind(self, position: int) -> str:
        """Of this position, whichever run it becomes"""
        if position not in self.steps:
            return "prompt"
        return "scored" if self.scores else "forced" if method_of(self.chooser, position + 1) == "forced" else "generated"

    @property
    def steps(self) -> Steps:
        """If it forms as many tokens as it may"""
        return scored(self.sampler.scored) if isinstance(self.sampler, Given) else generated(len(self.prompt_ids), self.tokens)

    def is_over(self, ids: list[int]) -> bool:
        """Whether these tokens are all that the run forms"""
        return len(ids) >= self.tokens or (bool(ids) and ids[-1] in self.stop)


def scoring(
    ids: Sequence[int], spans: Sequence[tuple[int, int]], *, by: Greedy | Sample | None = None, nonce: str | None = None
) -> Order:  # fmt: skip
    """Of a run that scores these stretches of `ids`, [begin, end) each, in one pass; what comes after the last is left out. `by` is the sampler that
    chose them, where one did. Raises UsageError."""
    ids = tuple(ids[: spans[-1][1]]) if spans else tuple(ids)
    sampler = Given(ids, tuple((begin, end) for begin, end in spans), by)
    return Order(ids, sum(end - begin for begin, end in spans), sampler, nonce=nonce)


def order_of(anchor: Anchor) -> Order:
    """Raises UsageError for an anchor of another kind of run."""
    if anchor.tokens < 1:
        raise UsageError(f"anchor: expected at least one token to form, got {anchor.tokens}")
    if anchor.scores:
        by = None if anchor.sampler["method"] == FORCED else sampler_of(anchor.sampler)
        return replace(scoring(anchor.prompt_ids, anchor.sampler["scored"], by=by, nonce=anchor.nonce), prompt_text=anchor.prompt_text)
    return Order(anchor.prompt_ids, anchor.tokens, sampler_of(anchor.sampler), anchor.stop_ids, anchor.prompt_text, anchor.nonce, anchor.fork)


def settings_of(sampler: Sampler) -> dict[str, Any]:
    if isinstance(sampler, Given):
        return (settings_of(sampler.by) if sampler.by else {"method": FORCED}) | {"scored": [list(span) for span in sampler.scored]}
    if isinstance(sampler, Greedy):
        return {"method": "greedy"}
    if not isinstance(sampler, Sample):
        raise UsageError(f"sampler: expected Greedy or Sample, whose settings an anchor can hold, got {type(sampler).__name__}")
    return {"method": "sample", **asdict(sampler), "seed": str(sampler.seed), "branch": str(sampler.branch)}


def sampler_of(settings: Mapping[str, Any]) -> Greedy | Sample:
    """Raises UsageError."""
    if settings["method"] == "greedy":
        return Greedy()
    if settings["method"] != "sample":
        raise UsageError(f"anchor: expected a sampler that is greedy or samples, got {settings['method']!r}")
    numbers = {name: settings[name] for name in ("temperature", "top_k", "top_p", "min_p")}
    return Sample(**numbers, seed=counter(settings["seed"]), branch=counter(settings["branch"]))


def counter(text: str) -> int:
    """A decimal number below 2^64, in its one form: another would be another anchor of the same run"""
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and text == str(int(text))):
        raise UsageError(f"anchor: expected a decimal number, got {text[:30]!r}")
    return int(text)
