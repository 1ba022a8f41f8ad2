"""Attacks with verdicts and receipts: audits and certifications that are about something else, forged or failed, and proofs of single lines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from formation import __version__
from formation.certify.attack import BUNDLE, KEY, OTHER_BUNDLE, OTHER_KEY, Group
from formation.certify.forgery import ATTESTATION, TREE_HEAD, Forgery
from formation.evidence import audited, certification, envelope, note, receipt, seal
from formation.evidence.container import AUDIT, CERTIFICATION
from formation.evidence.keys import PrivateKey
from formation.evidence.strict import from_base64, to_base64
from formation.ledger import canonical, merkle

GROUP = Group("verdicts")
RECEIPTS = Group("receipts")
KINDS = {"audit": (AUDIT, envelope.AUDIT), "certification": (CERTIFICATION, envelope.CERTIFICATION)}


def verdict(f: Forgery, check: str, key: PrivateKey | None = None, *, kind: str | None = None, subject: str | None = None, **changes: Any) -> None:
    """A verdict on this bundle by the right key, but for `changes`"""
    name, usual = KINDS[check]
    head = f.head()
    result = certification.EXAMPLE if check == "certification" else audit_result(f)
    predicate = {
        "formation": __version__, "outcome": "passed", "result": result,
        "tree_head": seal.run_predicate(f.frozen(), head, "", "")["tree_head"],
    }  # fmt: skip
    digest = subject or hashlib.sha256(f.files[ATTESTATION]).hexdigest()
    statement = envelope.Statement(kind or usual, {ATTESTATION: digest}, {**predicate, **changes})
    f.files[name] = envelope.make(statement, key or f.scene.key)


def audit_result(f: Forgery, **executed: int) -> dict[str, Any]:
    """Of one cell of the run; `executed` are counts in place of the true ones"""
    positions = 1 + max(position for position, _ in f.scene.slots)
    result = audited.example(positions, f.scene.run.shape.layers, len(f.scene.steps))
    return result | {"executed": result["executed"] | executed}


def of_another_tree(f: Forgery, check: str) -> None:
    head = seal.run_predicate(f.frozen(), f.head(root=b"\7" * 32), "", "")["tree_head"]
    verdict(f, check, tree_head=head)


def with_garbage(f: Forgery, check: str) -> None:
    verdict(f, check)
    name = KINDS[check][0]
    value = f.document(name)
    value["dsseEnvelope"]["payload"] = value["dsseEnvelope"]["payload"].replace("cGFzc2Vk", "ZmFpbGVk")
    payload = canonical.decode(from_base64("envelope", "payload", value["dsseEnvelope"]["payload"]), limits=canonical.DOCUMENT)
    payload["predicate"]["result"] = {"edited": True}
    value["dsseEnvelope"]["payload"] = to_base64(canonical.encode(payload))
    f.write(name, value)


def by_another(f: Forgery, check: str) -> None:
    verdict(f, check, f.scene.other)


class Later(Protocol):
    def __call__(self, f: Forgery, check: str) -> None: ...


LATER: Mapping[str, tuple[str, str, Later]] = {
    "of another tree head": (OTHER_BUNDLE, "signed by the right key, about another tree", of_another_tree),
    "of another bundle": (OTHER_BUNDLE, "signed by the right key, about another attestation", lambda f, check: verdict(f, check, subject="ab" * 32)),
    "that failed": (KEY, "its outcome is failed, and it is attached all the same", lambda f, check: verdict(f, check, outcome="failed")),
    "without outcome": (KEY, "its outcome is neither passed nor failed", lambda f, check: verdict(f, check, outcome="probably")),
    "of another kind": (KEY, "a statement of another predicate type", lambda f, check: verdict(f, check, kind=envelope.RUN)),
    "edited": (BUNDLE, "a valid one, whose result was edited afterwards", with_garbage),
    "with a field more": (KEY, "a field that no verdict has", lambda f, check: verdict(f, check, approved_by="everyone")),
}
for check in KINDS:
    for title, (holder, what, later) in LATER.items():
        GROUP.add(f"{check} {title}", holder, what, check, partial(later, check=check))
    who = "complete, about this bundle, signed by a key nobody knows"
    GROUP.add(f"{check} by a stranger", OTHER_KEY, who, check, partial(by_another, check=check), withheld=True)


# ---- what their results say


def with_differences(f: Forgery) -> None:
    difference = {"position": 0, "slot": "layer 0", "field": "residual_norm", "expected": "1", "got": "2"}
    verdict(f, "audit", result=audit_result(f) | {"differences": [difference], "difference_count": 1})


def of_a_smaller_run(f: Forgery) -> None:
    """All of a run of one position"""
    verdict(f, "audit", result=audited.example(1, f.scene.run.shape.layers, 1))


def of_nothing_tried(f: Forgery) -> None:
    mutations = {**certification.EXAMPLE["mutations"], "count": 0, "refused": 0, "checks": {}}
    verdict(f, "certification", result={**certification.EXAMPLE, "attacks": [], "mutations": mutations})


def through(f: Forgery) -> None:
    attacks = [{**attack, "observed": "verified", "state": certification.THROUGH} for attack in certification.EXAMPLE["attacks"]]
    verdict(f, "certification", result={**certification.EXAMPLE, "attacks": [*certification.EXAMPLE["attacks"], *attacks]})


def overcounted(f: Forgery) -> None:
    mutations = {**certification.EXAMPLE["mutations"], "count": 100_000}
    verdict(f, "certification", result={**certification.EXAMPLE, "mutations": mutations})


ON_RESULTS: tuple[tuple[str, str, str, Callable[[Forgery], None]], ...] = (
    ("audit without content", "its result says nothing", "audit", lambda f: verdict(f, "audit", result={})),
    ("audit that lists differences", "passed, with a difference in its list", "audit", with_differences),
    ("audit of more cells than there are", "its counts: more cells executed than in all", "audit",
     lambda f: verdict(f, "audit", result=audit_result(f, cells=1 << 40))),
    ("audit of cells that were not challenged", "its counts: two cells executed, one challenged", "audit",
     lambda f: verdict(f, "audit", result=audit_result(f, cells=2))),
    ("audit that executed nothing", "its counts: no cell executed", "audit", lambda f: verdict(f, "audit", result=audit_result(f, cells=0))),
    ("audit that compared nothing", "its counts: no value compared", "audit", lambda f: verdict(f, "audit", result=audit_result(f, values=0))),
    ("audit of some tokens", "its counts: one token of all", "audit", lambda f: verdict(f, "audit", result=audit_result(f, tokens=1))),
    ("audit of a smaller run", "its counts fit each other, and not the ledger", "audit", of_a_smaller_run),
    ("certification without content", "its result says nothing", "certification", lambda f: verdict(f, "certification", result={})),
    ("certification that tried nothing", "no attack and no mutation", "certification", of_nothing_tried),
    ("certification with an attack that got through", "passed, with it in its list", "certification", through),
    ("certification that counts mutations nobody made", "its counts: more than were refused", "certification", overcounted),
)  # fmt: skip
for title, what, check, content in ON_RESULTS:
    GROUP.add(title, KEY, what, check, content)


# ---- receipts


def made(f: Forgery, at: int, **changes: Any) -> bytes:
    """The receipt of line `at`, but for `changes` to what it is made of"""
    leaves = list(map(merkle.leaf_hash, f.lines))
    parts: dict[str, Any] = {
        "line": canonical.decode(f.lines[at], limits=canonical.LINE), "index": at, "path": merkle.inclusion_path(leaves, at, len(leaves)),
        "note": f.files[TREE_HEAD], "key": f.scene.key.public,
    }  # fmt: skip
    return receipt.encode(**{**parts, **changes})


def of_line(f: Forgery, **changes: Any) -> None:
    f.receipt = made(f, f.index(f.scene.steps[0], "token"), **changes)


def edited_line(f: Forgery) -> None:
    line = f.line(f.scene.steps[0], "token")
    line["measured"]["id"] ^= 1
    of_line(f, line=line)


def of_another_run(f: Forgery) -> None:
    """The line has another run_id, and the signer's own tree holds it"""
    at = f.index(f.scene.steps[0], "token")
    f.lines = [line.replace(f.run_id.encode(), b"ab" * 32) if n == at else line for n, line in enumerate(f.lines)]
    f.files[TREE_HEAD] = note.sign_tree_head(f.head(), f.scene.key)
    f.receipt = made(f, at)


def path_of(f: Forgery, change: Callable[[list[bytes]], list[bytes]]) -> None:
    at, leaves = f.index(f.scene.steps[0], "token"), list(map(merkle.leaf_hash, f.lines))
    of_line(f, path=change(list(merkle.inclusion_path(leaves, at, len(leaves)))))


def by_a_stranger(f: Forgery) -> None:
    key = f.scene.other
    of_line(f, note=note.sign_tree_head(f.head(), key), key=key.public)


def larger_tree(f: Forgery) -> None:
    of_line(f, note=note.sign_tree_head(f.head(size=2 * len(f.lines)), f.scene.key))


def filled_up(f: Forgery) -> None:
    f.receipt = made(f, f.index(f.scene.steps[0], "token")) + b"\n" * 3_000_000


ON_RECEIPTS: tuple[tuple[str, str, str, str, Callable[[Forgery], None]], ...] = (
    ("of an edited line", BUNDLE, "the line is changed, the path stays", "inclusion", edited_line),
    ("under another index", BUNDLE, "the index is the next line's", "inclusion", lambda f: of_line(f, index=1 + f.index(f.scene.steps[0], "token"))),
    ("with an index behind the last line", BUNDLE, "the index is the tree's size", "inclusion", lambda f: of_line(f, index=len(f.lines))),
    ("with a path too short", BUNDLE, "the last hash of the path is missing", "inclusion", partial(path_of, change=lambda p: p[:-1])),
    ("with a path too long", BUNDLE, "a hash more than the tree is deep", "inclusion", partial(path_of, change=lambda p: [*p, p[-1]])),
    ("with a path in another order", BUNDLE, "the path upside down", "inclusion", partial(path_of, change=lambda p: p[::-1])),
    ("of a tree twice the size", KEY, "the signer signs another size", "inclusion", larger_tree),
    ("of a line of another run", OTHER_BUNDLE, "a line of another run in the signer's tree", "run-id", of_another_run),
    ("by a stranger", OTHER_KEY, "the head is signed by a key nobody knows", "signer", by_a_stranger),
    ("in a stranger's name", OTHER_KEY, "the head is the signer's, the key another's", "signature", lambda f: of_line(f, key=f.scene.other.public)),
    ("with a garbled head", BUNDLE, "one character of the root", "tree-head", lambda f: of_line(f, note=b"x" + f.files[TREE_HEAD])),
    ("of three million bytes", BUNDLE, "filled up behind its end", "receipt", filled_up),
)  # fmt: skip
for title, holder, what, refusal, act in ON_RECEIPTS:
    RECEIPTS.add(f"receipt {title}", holder, what, f"receipt: {refusal}", act)
