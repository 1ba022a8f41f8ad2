"""Whether bundles are of the dialogue that a log holds, told from the two alone: neither a checkpoint nor its tokenizer is asked.

A bundle's anchor has all ids that a side was given and said. It is of this dialogue if it names the log's last line, if the ids before each stretch
have the digest that the log's turn has of its prompt, and if the stretch is what was said in that turn. Then every number that both measured must be
the same, bit for bit: the log's while the tokens were made, one by one; the bundle's in one pass over all of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from sys import byteorder
from typing import Any

from formation.dialogue import events
from formation.dialogue.event_table import CHECKPOINT
from formation.dialogue.events import Event
from formation.errors import EvidenceError
from formation.evidence.bundle import Bundle
from formation.ledger.anchor import FORCED
from formation.ledger.tables import Absent, TokenRecord

NAMED = "dialogue:"  # before the digest of the log's last line: the nonce of its bundles
SPREAD = ("entropy_nats", "varentropy", "top_masses")  # of a distribution
MODEL = {name: name for name in ("rank_low", "rank_high", *SPREAD)} | {"score": "chosen_logit", "logprob_nats": "logprob", "zero": "zero_kind"}
OTHER = ("score", "logprob_bits", *SPREAD)
RANKS = {"tempered": {"rank_low": "tempered_rank_low", "rank_high": "tempered_rank_high"}, "sampler": {"rank_low": "tempered_rank_low"}}
VIEWS: Mapping[str, Mapping[str, str]] = {  # distribution -> name in the log -> field of the ledger
    "model": MODEL,
    **{view: {name: f"{view}_{name}" for name in OTHER} | RANKS[view] | {"logprob_nats": f"{view}_logprob", "zero": f"{view}_zero_kind"}
       for view in ("tempered", "sampler")},
}  # fmt: skip
OWN = ("method", "draw", "low", "high", "kept_mass", "truncated_mass")  # of the selection, in both under one name


@dataclass(frozen=True)
class Agreed:
    """`bundle` is the folder's name, `values` how many numbers of how many tokens were compared, all equal."""

    bundle: str
    side: int
    turns: tuple[int, ...]
    tokens: int
    values: int


@dataclass
class Turn:
    """What the log says of one turn"""

    side: int
    prompt_tokens: Any
    prompt_sha256: Any
    tokens: list[dict[str, Any]] = field(default_factory=list)


def nonce_of(log: Path) -> str:
    """The name of a dialogue that is over, as its bundles have it. Raises EvidenceError for one that is not."""
    found = events.survey(log)
    if not found.complete:
        raise EvidenceError(f"{log}: expected a dialogue that is over, got one that was cut off", hint="go on with it: formation dialogue --resume")
    return NAMED + found.last_sha256


def turns_of(found: Iterable[Event]) -> dict[int, Turn]:
    """By number; what a fault made void is not among them"""
    turns: dict[int, Turn] = {}
    for event in found:
        body = event.body
        if event.kind == "turn":
            turns[body["turn"]] = Turn(body["side"], body["prompt_tokens"], body["prompt_sha256"])
        elif event.kind == "token":
            turns[body["turn"]].tokens.append(body)
        elif event.kind == "fault":
            turns[body["turn"]].tokens.clear()
    return turns


def agree(log: Path, bundles: Sequence[Path]) -> list[Agreed]:
    """That `bundles` are of this dialogue, and together of every token that a side said here. Raises EvidenceError, which names what differs, and
    EnvironmentFault."""
    named, every = nonce_of(log), list(events.read(log))
    here = {side for side, each in enumerate(every[0].body["sides"]) if each["source"] == CHECKPOINT}
    left = {number: turn for number, turn in turns_of(every).items() if turn.side in here and turn.tokens}
    agreed: list[Agreed] = []
    for folder in bundles:
        agreed.append(of_one(Bundle(folder), named, left))
        left = {number: turn for number, turn in left.items() if number not in agreed[-1].turns}
    if left:
        raise EvidenceError(f"{log.parent}: expected every turn that was said here in one bundle, got none of turn {min(left)}")
    return agreed


def of_one(bundle: Bundle, named: str, turns: Mapping[int, Turn]) -> Agreed:
    """`turns` are those that no other bundle is of. Raises EvidenceError."""
    folder, anchor = bundle.folder, bundle.anchor
    if not anchor.scores or anchor.nonce != named:
        raise EvidenceError(f"{folder}: expected a bundle that names {named}, got {anchor.nonce if anchor.scores else 'a run of its own'}")
    numbers = [number_of(folder, turns, anchor.prompt_ids, begin, end) for begin, end in anchor.sampler["scored"]]
    said, records = [token for number in numbers for token in turns[number].tokens], list(bundle.tokens)
    if len(said) != len(records):
        raise EvidenceError(f"{folder}: expected the {len(said)} tokens of its anchor, got {len(records)}")
    values = sum(compared(folder, token, record) for token, record in zip(said, records, strict=True))
    return Agreed(folder.name, turns[numbers[0]].side, tuple(numbers), len(said), values)


def number_of(folder: Path, turns: Mapping[int, Turn], ids: Sequence[int], begin: int, end: int) -> int:
    """Of the turn whose prompt and tokens these ids are"""
    digest = digest_of(ids[:begin])
    for number, turn in turns.items():
        if (turn.prompt_tokens, turn.prompt_sha256) == (begin, digest) and [token["id"] for token in turn.tokens] == list(ids[begin:end]):
            return number
    raise EvidenceError(f"{folder}: expected ids {begin} to {end} of its anchor to be what was said in a turn of the log, got others")


def digest_of(ids: Sequence[int]) -> str:
    """SHA-256 of ids as little-endian 64-bit integers"""
    values = array("q", ids)
    if byteorder == "big":
        values.byteswap()
    return sha256(values.tobytes()).hexdigest()


def compared(folder: Path, token: Mapping[str, Any], record: TokenRecord) -> int:
    """How many numbers are the same in both. Raises EvidenceError for the first that is not."""
    count = 0
    for name, logged, recorded in pairs(token, record):
        if isinstance(recorded, Absent) or isinstance(logged, dict) or recorded == FORCED:
            continue  # a side whose logits were edited: its ledger knows the model's distribution alone
        if (tuple(logged) if isinstance(logged, list) else logged) != recorded:
            where = f"turn {token['turn']}, token {token['index'] + 1}"
            raise EvidenceError(f"{folder}: expected {name} {logged!r} in {where}, as the log has it, got {recorded!r}")
        count += 1
    return count


def pairs(token: Mapping[str, Any], record: TokenRecord) -> Iterator[tuple[str, Any, Any]]:
    """Each number by its name in the log, there and in the ledger"""
    yield "id", token["id"], record.id
    measured = token["measured"]
    for view, names in VIEWS.items():
        own = measured[view]
        while isinstance(own, str):  # the name of a view before it
            own = measured[own]
        yield from ((f"{view}.{name}", own[name], getattr(record, column)) for name, column in names.items())
    yield from ((name, measured[name], getattr(record, name)) for name in OWN)
