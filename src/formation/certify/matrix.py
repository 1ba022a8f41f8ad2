"""The certifier certified: with any one check taken out of the verifier, some attack must get through. Else that check is dead, or untested.

`Without` is the verifier less one check: what the check refuses is passed over, and what it would have read is read as a lax program would. It is
a class that only this module makes, for no command and no variable reaches it. An attack needs a check if the verifier refuses it, and the
verifier without that check calls the same bundle verified (or, for a claim that is withheld, grants it).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from formation.certify import suite
from formation.certify.attack import Attack, NotApplicable
from formation.certify.forgery import Forgery, Scene
from formation.certify.judge import Judge, Judgement, Known, Quick, judgement
from formation.evidence import envelope, note
from formation.evidence.checkpoint_json import Checkpoint
from formation.evidence.checks import CHECKS, Check
from formation.evidence.container import Contents
from formation.evidence.keys import PublicKey
from formation.evidence.report import FAILED, PASSED, Finding
from formation.ledger.anchor import Anchor, Fork

Matrix = Mapping[str, list[str]]  # check -> attacks that get through without it


class Without(Quick):
    """The verifier less one check."""

    def __init__(self, files: Mapping[str, bytes], scene: Scene, known: Known, nonce: str | None, without: Check) -> None:
        super().__init__(files, scene, known, nonce)
        self._without, self.scene_key = without, scene.key.public

    def finding(self, check: Check) -> Finding:
        if check != self._without:
            return super().finding(check)
        found = super().finding(check)
        if found.state == FAILED:
            with suppress(ValueError, KeyError, TypeError, AttributeError, IndexError):  # not even a lax reader can take it: the rest will say so
                READ_LAXLY.get(check.name, nothing)(self)
        return Finding(PASSED, "not looked at")


def nothing(e: Without) -> None:
    """Of checks that others take nothing from"""


def container(e: Without) -> None:
    e.contents = Contents(dict(sorted((name, len(data)) for name, data in e.files.items())), ())


def anchor(e: Without) -> None:
    value = json.loads(e.files["anchor.json"])
    e.anchor = Anchor(
        tuple(value["prompt"]["ids"]), value["prompt"]["text"], value["checkpoint"]["sha256"], value["checkpoint"]["tensor_table_root"],
        value["contract"]["name"], value["contract"]["digest"], value["sampler"], value["stop"]["tokens"], tuple(value["stop"]["ids"]),
        value["nonce"], Fork(**value["fork"] | {"forced": tuple(value["fork"]["forced"])}) if "fork" in value else None,
    )  # fmt: skip


def checkpoint(e: Without) -> None:
    value = json.loads(e.files["checkpoint.json"])
    e.checkpoint = Checkpoint(len(value["files"]), tuple(row["name"] for row in value["tensor_table"]))


def attestation(e: Without) -> None:
    """The first signature of whatever kind, over whatever payload there is"""
    value = json.loads(e.files["attestation.json"])
    payload = base64.b64decode(value["dsseEnvelope"]["payload"])
    stated: dict[str, Any] = json.loads(payload)
    predicate = dict(stated["predicate"])
    signer = unchecked_key(base64.b64decode(predicate.pop("signer", e.scene_key.text)))
    subjects = {row["name"]: row["digest"]["sha256"] for row in stated["subject"]}
    e.attestation = envelope.Attestation(envelope.Statement(envelope.RUN, subjects, predicate), signer, payload)
    e.refused_at_signing = None


def unchecked_key(data: bytes) -> PublicKey:
    key = object.__new__(PublicKey)
    object.__setattr__(key, "data", data)
    return key


def tree_head(e: Without) -> None:
    """Its first three lines, whoever signed them"""
    origin, size, root, *_ = e.files["tree-head.txt"].decode().split("\n")
    e.head = note.TreeHead(origin, int(size), base64.b64decode(root))


def parity(e: Without) -> None:
    e.parity = json.loads(e.files["parity.json"])["parity"]


READ_LAXLY = {
    "container": container, "anchor": anchor, "checkpoint": checkpoint, "envelope": attestation, "signature": attestation, "tree head": tree_head,
    "parity": parity,
}  # fmt: skip


# ---- the matrix


def matrix(scenes: Iterable[Scene]) -> Matrix:
    """Of every check, the attacks on any of the scenes that get through without it"""
    found: dict[str, list[str]] = {check.name: [] for check in CHECKS}
    for scene in scenes:
        judge = Judge(scene)
        judge.verdict(scene.forgery())
        for attack in suite.ATTACKS:
            for check in killed_by(attack, judge):
                if attack.name not in found[check.name]:
                    found[check.name].append(attack.name)
    return found


def killed_by(attack: Attack, judge: Judge) -> Iterator[Check]:
    """The one check that the attack needs, if it needs one alone. Attacks on disk and in other processes are left to those in memory."""
    try:
        forgery = suite.forged(attack, judge.scene)
    except NotApplicable:
        return
    if forgery.archive is not None or forgery.on_disk is not None or forgery.receipt is not None or forgery.process or forgery.shown:
        return
    seen = judge.verdict(forgery)
    candidates = [attack.expected] if attack.withheld else list(seen.failed)
    if len(candidates) != 1:  # with two that refuse, it gets past neither alone
        return
    check = next(check for check in CHECKS if check.name == candidates[0])
    if passes(without(check, forgery, judge), attack):
        yield check


def without(check: Check, forgery: Forgery, judge: Judge) -> Judgement:
    """A verifier that breaks without the check lets nothing through"""
    try:
        return judgement(Without(forgery.files, judge.scene, judge.known, forgery.nonce, check).report())
    except Exception as error:
        return Judgement((), {}, f"crash: {type(error).__name__}")


def passes(found: Judgement, attack: Attack) -> bool:
    reached = all(state in (PASSED, "not claimed") for state in found.states.values())
    return found.verified and reached and (not attack.withheld or found.states[attack.expected] == PASSED)


def unneeded(found: Matrix) -> list[str]:
    """Checks that no attack needs"""
    return [name for name, attacks in found.items() if not attacks]
