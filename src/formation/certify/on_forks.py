"""Attacks on runs that depart from another: what is said to be given, what to be drawn, and that there was a parent at all."""

from __future__ import annotations

from typing import Any

from formation.certify.attack import KEY, RECORDER, Group, NotApplicable
from formation.certify.forgery import Forgery
from formation.certify.on_scored import run_of
from formation.ledger.anchor import Fork

GROUP = Group("forks")
attack = GROUP.attack


def fork_of(f: Forgery) -> Fork:
    """Raises NotApplicable."""
    if f.scene.frozen.fork is None:
        raise NotApplicable("the run departs from no other")
    return f.scene.frozen.fork


def forced_of(f: Forgery) -> tuple[int, ...]:
    """Raises NotApplicable."""
    forced = fork_of(f).forced
    if not forced:
        raise NotApplicable("no token of the fork is given")
    return forced


def with_forced(f: Forgery, forced: list[int]) -> None:
    f.set_anchor(lambda a: a["fork"].update(forced=forced))
    f.seal()


@attack(RECORDER, "sampler")
def another_id_is_said_to_be_given(f: Forgery) -> None:
    """the anchor gives another id than the one that stands at the fork"""
    first, *others = forced_of(f)
    with_forced(f, [(first + 1) % f.scene.run.shape.vocabulary, *others])


@attack(RECORDER, "census")
def given_token_said_to_be_the_samplers(f: Forgery) -> None:
    """the anchor gives one id fewer: a token that was forced is said to be what came"""
    with_forced(f, list(forced_of(f)[:-1]))


@attack(RECORDER, "census")
def samplers_token_said_to_be_given(f: Forgery) -> None:
    """the anchor gives one id more: a token that came by itself is said to be forced"""
    forced = forced_of(f)
    steps = f.scene.steps
    if len(forced) >= len(steps):
        raise NotApplicable("every token is given")
    with_forced(f, [*forced, f.step(steps[len(forced)])["token"]["measured"]["id"]])


@attack(RECORDER, "census")
def parent_forgotten(f: Forgery) -> None:
    """the anchor says nothing of a fork: tokens that were forced are those of a run that began by itself"""
    forced_of(f)
    f.set_anchor(lambda a: a.pop("fork"))
    f.seal()


@attack(RECORDER, "anchor")
def fork_beyond_the_prompt(f: Forgery) -> None:
    """the run departs at a token that its parent's part of the prompt does not reach"""
    fork_of(f)
    run_of(f, lambda a: a["fork"].update(token=len(a["prompt"]["ids"]) + 1))


@attack(RECORDER, "anchor")
def parent_without_a_name(f: Forgery) -> None:
    """what the run departs from is no digest of a run"""
    fork_of(f)
    run_of(f, lambda a: a["fork"].update(parent="AB" * 32))


@attack(KEY, "census")
def given_step_that_claims_to_be_generated(f: Forgery) -> None:
    """all lines of the first given step say that the run generated it"""
    forced_of(f)
    lines: dict[str, Any] = f.step(f.scene.steps[0])
    f.put(*({**line, "kind": "generated"} for line in lines.values()))
    f.seal()
