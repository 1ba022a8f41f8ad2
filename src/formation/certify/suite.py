"""All attacks on one bundle, and what came of each: refused by the expected check, got through, or why it was not made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from formation.certify import (
    on_container,
    on_documents,
    on_forks,
    on_ledger,
    on_norms,
    on_routing,
    on_scored,
    on_signature,
    on_text,
    on_values,
    on_verdicts,
    on_verifier,
)  # fmt: skip
from formation.certify.attack import Attack, NotApplicable
from formation.certify.forgery import Files, Forgery, Scene
from formation.certify.judge import Judge, Judgement, withheld
from formation.evidence.certification import NOT_APPLICABLE, REFUSED, THROUGH

GROUPS = (
    on_container.GROUP, on_text.GROUP, on_signature.GROUP, on_ledger.GROUP, on_values.GROUP, on_routing.GROUP, on_norms.GROUP,
    on_scored.GROUP, on_forks.GROUP, on_documents.GROUP, on_verdicts.GROUP, on_verdicts.RECEIPTS, on_verifier.GROUP,
)  # fmt: skip
ATTACKS: tuple[Attack, ...] = tuple(attack for group in GROUPS for attack in group.attacks)


@dataclass(frozen=True)
class Outcome:
    """`observed` are the names of the checks that refused, or why the attack was not made."""

    attack: Attack
    state: str
    observed: str

    def row(self) -> dict[str, str]:
        """As certification.json has it"""
        a = self.attack
        return {
            "group": a.group, "name": a.name, "adversary": a.adversary, "mutation": a.mutation, "expected": a.expected,
            "observed": self.observed, "state": self.state,
        }  # fmt: skip


def forged(attack: Attack, scene: Scene) -> Forgery:
    """Raises NotApplicable."""
    forgery = scene.forgery()
    attack.act(forgery)
    return forgery


def changed(forgery: Forgery) -> bool:
    """Whether the attack did anything: other bytes, another container, a receipt, another nonce"""
    others = (forgery.archive, forgery.on_disk, forgery.receipt)
    return dict(forgery.files) != dict(forgery.scene.files) or any(other is not None for other in others)


def make(attack: Attack, judge: Judge) -> Outcome:
    try:
        forgery = forged(attack, judge.scene)
    except NotApplicable as reason:
        return Outcome(attack, NOT_APPLICABLE, str(reason))
    if not changed(forgery):
        return Outcome(attack, THROUGH, "nothing was changed")
    found = judge.verdict(forgery)
    if not as_expected(attack, found):
        return Outcome(attack, THROUGH, str(found))
    return Outcome(attack, REFUSED, attack.expected if attack.withheld else str(found))


def as_expected(attack: Attack, found: Judgement) -> bool:
    if attack.withheld:
        return withheld(found, attack.expected)
    return not found.trouble and attack.expected in found.failed


def make_all(judge: Judge, progress: Callable[[int, int], None] | None = None) -> Iterator[Outcome]:
    for done, attack in enumerate(ATTACKS):
        if progress:
            progress(done, len(ATTACKS))
        yield make(attack, judge)


# ---- for other verifiers


def corpus(scene: Scene) -> Iterator[tuple[str, Files, str | None, str]]:
    """Every attack that is nothing but files: its name, the files, the nonce that is asked for, and the check that must refuse it (or withhold
    its claim). Another verifier must say of each what this one says; the signer it knows is `scene.key`."""
    for attack in ATTACKS:
        try:
            forgery = forged(attack, scene)
        except NotApplicable:
            continue
        if forgery.archive is None and forgery.on_disk is None and forgery.receipt is None and not forgery.shown:
            yield f"{attack.group}: {attack.name}", forgery.files, forgery.nonce, attack.expected


def archives(scene: Scene) -> Iterator[tuple[str, bytes]]:
    """Every attack that is a ZIP; all are refused by `container`"""
    for attack in on_container.GROUP.attacks:
        forgery = forged(attack, scene)
        if forgery.archive is not None:
            yield f"{attack.group}: {attack.name}", forgery.archive
