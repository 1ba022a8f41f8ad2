"""The frozen starting state of a run, and the run's name: the SHA-256 of its canonical bytes.

Everything that the contract makes the run's bits depend on is in it, and nothing else: no machine, no threads, no memory, no time.

    prompt       ids, and the text they came from, if they came from text; of a run that scores, all ids
    checkpoint   digest of its identity (names, sizes and digests of small files and shard headers), and the root of its tensor table
    contract     name and digest of the numerics contract
    sampler      method and settings; of a run that scores, which of the ids it scores: [begin, end] of each stretch of them, end excluded. Such ids
                 are given (forced), or were chosen before by the greedy or sampling method that is named, and are those that it chooses
    stop         how many tokens at most, and the ids that end the run
    nonce        chosen by a verifier beforehand, or null
    fork         only of a run that departs from another: which one, at which of its tokens, and the ids that are given there
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from formation.ledger import canonical
from formation.ledger.lines import STEP_SLOTS
from formation.ledger.steps import Steps, generated, scored, spans_problem

KIND = "formation-anchor/1"


@dataclass(frozen=True)
class Fork:
    """From the run `parent`, at its token number `token` (from 1): what comes before is the end of the prompt, `forced` are the first tokens."""

    parent: str
    token: int
    forced: tuple[int, ...] = ()

    def document(self) -> dict[str, Any]:
        return {"parent": self.parent, "token": self.token, "forced": list(self.forced)}


@dataclass(frozen=True)
class Anchor:
    prompt_ids: tuple[int, ...]
    prompt_text: str | None
    checkpoint_sha256: str
    tensor_table_root: str
    contract: str
    contract_digest: str
    sampler: Mapping[str, Any]
    tokens: int
    stop_ids: tuple[int, ...]
    nonce: str | None = None
    fork: Fork | None = None

    def document(self) -> dict[str, Any]:
        return {
            "kind": KIND,
            "prompt": {"ids": list(self.prompt_ids), "text": self.prompt_text},
            "checkpoint": {"sha256": self.checkpoint_sha256, "tensor_table_root": self.tensor_table_root},
            "contract": {"name": self.contract, "digest": self.contract_digest},
            "sampler": dict(self.sampler),
            "stop": {"tokens": self.tokens, "ids": list(self.stop_ids)},
            "nonce": self.nonce,
            **({"fork": self.fork.document()} if self.fork else {}),
        }

    def encode(self) -> bytes:
        """The canonical bytes of anchor.json."""
        return canonical.encode(self.document(), limits=canonical.DOCUMENT)

    @property
    def scores(self) -> bool:
        """Whether its tokens are given"""
        return SCORED in self.sampler

    def given(self, position: int) -> int | None:
        """The id of the token at this step, if it is given"""
        if self.scores:
            return self.prompt_ids[position + 1]
        place = position + 1 - len(self.prompt_ids)
        return self.fork.forced[place] if self.fork and 0 <= place < len(self.fork.forced) else None

    def step_kind(self, position: int) -> str:
        """Of this step"""
        return "scored" if self.scores else "generated" if self.given(position) is None else "forced"

    def steps(self, tokens: int | None = None) -> Steps:
        """Of the run, if it generates so many tokens (None: as many as it may)"""
        return scored(self.sampler[SCORED]) if self.scores else generated(len(self.prompt_ids), self.tokens if tokens is None else tokens)

    def steps_in(self, lines: int, layers: int) -> Steps | None:
        """Of a complete ledger of so many lines; None if they do not make whole positions"""
        each = 1 + layers
        tokens = (lines - 1 - (len(self.prompt_ids) - 1) * each) // (each + len(STEP_SLOTS))
        found = self.steps(max(tokens, 0))
        return found if found.lines(layers) == lines else None

    @property
    def run_id(self) -> str:
        return hashlib.sha256(self.encode()).hexdigest()


class AnchorRefusal(ValueError):
    """Why bytes are no anchor; names the field."""


def decode(data: bytes) -> Anchor:
    """The anchor in these bytes. Raises AnchorRefusal, or CanonicalRefusal for bytes that are not canonical."""
    value = canonical.decode(data, limits=canonical.DOCUMENT)
    forks = isinstance(value, dict) and "fork" in value
    top = _fields(value, "anchor", ("kind", "prompt", "checkpoint", "contract", "sampler", "stop", "nonce", *(("fork",) if forks else ())))
    if top["kind"] != KIND:
        raise AnchorRefusal(f"anchor.kind: expected {KIND!r}, got {canonical.quoted(top['kind'])}")
    prompt = _fields(top["prompt"], "anchor.prompt", ("ids", "text"))
    checkpoint = _fields(top["checkpoint"], "anchor.checkpoint", ("sha256", "tensor_table_root"))
    contract = _fields(top["contract"], "anchor.contract", ("name", "digest"))
    stop = _fields(top["stop"], "anchor.stop", ("tokens", "ids"))
    found = Anchor(
        prompt_ids=_ids(prompt["ids"], "anchor.prompt.ids", least=1),
        prompt_text=_text(prompt["text"], "anchor.prompt.text") if prompt["text"] is not None else None,
        checkpoint_sha256=_digest(checkpoint["sha256"], "anchor.checkpoint.sha256"),
        tensor_table_root=_digest(checkpoint["tensor_table_root"], "anchor.checkpoint.tensor_table_root"),
        contract=_text(contract["name"], "anchor.contract.name"),
        contract_digest=_digest(contract["digest"], "anchor.contract.digest"),
        sampler=_sampler(top["sampler"]),
        tokens=_count(stop["tokens"], "anchor.stop.tokens"),
        stop_ids=_ids(stop["ids"], "anchor.stop.ids", least=0),
        nonce=_text(top["nonce"], "anchor.nonce") if top["nonce"] is not None else None,
        fork=_fork(top["fork"]) if forks else None,
    )
    if found.scores:
        _check_scored(found)
    if found.fork:
        _check_fork(found, found.fork)
    return found


def _fork(value: Any) -> Fork:
    fork = _fields(value, "anchor.fork", ("parent", "token", "forced"))
    forced = _ids(fork["forced"], "anchor.fork.forced", least=0)
    return Fork(_digest(fork["parent"], "anchor.fork.parent"), _count(fork["token"], "anchor.fork.token"), forced)


def _check_fork(found: Anchor, fork: Fork) -> None:
    """The tokens before it are in the prompt, behind at least one id; those that are given are within the run, and only the last may end it"""
    if found.scores:
        raise AnchorRefusal("anchor.fork: expected none in a run that scores, got one")
    if not 1 <= fork.token <= len(found.prompt_ids):
        raise AnchorRefusal(f"anchor.fork.token: expected a number from 1 to {len(found.prompt_ids)}, got {fork.token}")
    if len(fork.forced) > found.tokens or set(fork.forced[:-1]) & set(found.stop_ids):
        raise AnchorRefusal(f"anchor.fork.forced: expected at most {found.tokens} ids, of which only the last may end the run, got others")


FORCED = "forced"  # of the ids of the anchor itself: nothing is chosen
SCORED = "scored"  # forced needs it, the others may have it
SAMPLERS: dict[str, dict[str, tuple[type, ...]]] = {
    "greedy": {},
    FORCED: {SCORED: (list,)},
    "sample": {"temperature": (int, float), "top_k": (int,), "top_p": (int, float), "min_p": (int, float), "seed": (str,), "branch": (str,)},
}  # seed and branch have 64 bits, more than a JSON number holds, so they are decimal text


def _sampler(value: Any) -> dict[str, Any]:
    method = value.get("method") if isinstance(value, dict) else None
    if not isinstance(method, str) or method not in SAMPLERS:
        raise AnchorRefusal(f"anchor.sampler.method: expected {', '.join(SAMPLERS)}, got {canonical.quoted(method)}")
    types_of = SAMPLERS[method] | (SAMPLERS[FORCED] if SCORED in value else {})
    settings = _fields(value, "anchor.sampler", ("method", *types_of))
    for name, types in types_of.items():
        if type(settings[name]) not in types:
            raise AnchorRefusal(f"anchor.sampler.{name}: expected {types[-1].__name__}, got {canonical.quoted(settings[name])}")
    return settings


def _check_scored(found: Anchor) -> None:
    """Spans of its ids, as many tokens as they hold, and nothing that ends the run sooner"""
    spans = found.sampler[SCORED]
    if not all(isinstance(span, list) and len(span) == 2 and all(type(i) is int for i in span) for span in spans):
        raise AnchorRefusal(f"anchor.sampler.scored: expected pairs of integers, got {canonical.quoted(spans)}")
    if problem := spans_problem(spans, len(found.prompt_ids)):
        raise AnchorRefusal(f"anchor.sampler.scored: {problem}")
    due = len(found.steps())
    if (found.tokens, found.stop_ids) != (due, ()):
        got = f"{found.tokens} and {len(found.stop_ids)} ids"
        raise AnchorRefusal(f"anchor.stop: expected the {due} scored tokens and no ids, got {got}")


def _fields(value: Any, where: str, names: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(names):
        got = canonical.quoted(sorted(value)) if isinstance(value, dict) else type(value).__name__
        raise AnchorRefusal(f"{where}: expected the fields {', '.join(sorted(names))}, got {got}")
    return value


def _ids(value: Any, where: str, *, least: int) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) < least or any(type(i) is not int or i < 0 for i in value):
        raise AnchorRefusal(f"{where}: expected at least {least} token ids, got {canonical.quoted(value)}")
    return tuple(value)


def _count(value: Any, where: str) -> int:
    if type(value) is not int or value < 0:
        raise AnchorRefusal(f"{where}: expected a count, got {canonical.quoted(value)}")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise AnchorRefusal(f"{where}: expected text, got {canonical.quoted(value)}")
    return value


def _digest(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise AnchorRefusal(f"{where}: expected a SHA-256 in lowercase hexadecimal, got {canonical.quoted(value)}")
    return value
