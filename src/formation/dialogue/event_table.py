"""The events of a dialogue: each kind and each field once. events.py holds every line against this table, docs/dialogue.md prints it.

types   text int f64 bool sha256; bytes, base64 in its one form
        "a | b"      one of these words
        list T       an array of T
        NAME         an object with exactly the fields of RECORDS[NAME]; sampler has those of its method
        view         a record, or the name of the distribution before it whose view it is
        zero         a kind of ledger/zero.py with its detail
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from formation.ledger import canonical
from formation.ledger.values import PHRASES, TYPES
from formation.ledger.zero import Kind

FORMAT = "formation-dialogue/1"
SERVER, CHECKPOINT, NO_PROBABILITY, NOT_SAMPLED, UNREPORTED = "server", "checkpoint", "no probability", "not sampled", "not reported"
NO_PROMPT = "no prompt"  # it could not be made
NOT_TOLD = "not told"
VIEWS = ("model", "edited", "tempered", "sampler")
ZERO = re.compile(rf"(?:{'|'.join(Kind)})(?:\(.{{1,300}}\))?", re.DOTALL)


@dataclass(frozen=True)
class Field:
    """`absent`: the reasons for which {"absent": reason} may stand in its place"""

    name: str
    type: str
    definition: str
    absent: tuple[str, ...] = ()


EVENTS: Mapping[str, tuple[Field, ...]] = {
    "dialogue": (
        Field("format", FORMAT, "the form of this log"),
        Field("formation", "text", "version that writes it"),
        Field("contract", "text", "the numerics contract of local sides"),
        Field("sides", "list side", "A and B"),
        Field("first", "int", "the side that speaks first, 0 or 1"),
        Field("kickoff", "kickoff", "what the first side is given to begin with"),
        Field("stops", "list text", "the rules that end it, as they are written"),
    ),
    "turn": (
        Field("turn", "int", "from 1; the number of the message that comes of it"),
        Field("side", "int", "who speaks"),
        Field("prompt_tokens", "int", "length of what it is given", (SERVER, NO_PROMPT)),
        Field("prompt_sha256", "sha256", "of the prompt's ids as little-endian 64-bit integers", (SERVER, NO_PROMPT)),
        Field("left_out", "int", "messages that the context policy left out"),
    ),
    "token": (
        Field("turn", "int", ""),
        Field("index", "int", "from 0 in its turn; again from 0 after a fault"),
        Field("position", "int", "in the side's own context", (SERVER,)),
        Field("id", "int", "the token", (UNREPORTED,)),
        Field("bytes", "bytes", "what it spells"),
        Field("measured", "measured", "under the five distributions", (SERVER,)),
        Field("reported", "reported", "what a server says of it", (CHECKPOINT,)),
    ),
    "fault": (
        Field("turn", "int", "which begins anew: its tokens so far are void"),
        Field("attempt", "int", "from 1"),
        Field("then", "again | given up | cut off", "what comes of it; cut off: the dialogue was, in a turn of a side that cannot go on: no error"),
        Field("sentence", "text", "what failed"),
    ),
    "turn_end": (
        Field("turn", "int", ""),
        Field("reason", "end of turn | tokens | context | stopped | failed", "why the side speaks no further; stopped: by what ends the dialogue"),
        Field("tokens", "int", "of this turn"),
        Field("text", "text", "the message"),
    ),
    "dialogue_end": (
        Field("messages", "int", "turns that were ended"),
        Field("evidence", "evidence", "why it is over"),
    ),
}

RECORDS: Mapping[str, tuple[Field, ...]] = {
    "side": (
        Field("name", "text", "as in the transcript"),
        Field("source", "checkpoint | server", "what speaks"),
        Field("model", "text", "its name, as its config or the server has it"),
        Field("checkpoint_sha256", "sha256", "identity of the checkpoint", (SERVER,)),
        Field("url", "text", "of the server, without anything secret", (CHECKPOINT,)),
        Field("capabilities", "list capability", "what a probe of the server found", (CHECKPOINT,)),
        Field("template_sha256", "sha256", "of the chat template's text", (SERVER,)),
        Field("system", "text", "system prompt; empty for none"),
        Field("thinking", "default | on | off", "the template's switch", (SERVER,)),
        Field("today", "text", "the day that its template is told", (NOT_TOLD,)),
        Field("context", "context", "what of the dialogue it is given"),
        Field("sampler", "sampler", "how its tokens are drawn, as in an anchor"),
        Field("edits", "edits", "of its logits, before"),
        Field("most_tokens", "int", "of one turn"),
        Field("stop_ids", "list int", "ids that end a turn"),
    ),
    "capability": (Field("what", "text", "what was asked"), Field("found", "text", "what it does")),
    "context": (
        Field("policy", "full | last_n | token_budget", ""),
        Field("limit", "int", "messages or tokens; 0 for full"),
    ),
    "sampler greedy": (Field("method", "greedy", ""),),
    "sampler sample": (
        Field("method", "sample", ""),
        Field("temperature", "f64", ""),
        Field("top_k", "int", "0: off"),
        Field("top_p", "f64", "1: off"),
        Field("min_p", "f64", "0: off"),
        Field("seed", "text", "decimal"),
        Field("branch", "text", "decimal"),
    ),
    "edits": (
        Field("repetition", "f64", "1: off"),
        Field("presence", "f64", "0: off"),
        Field("frequency", "f64", "0: off"),
        Field("bias", "list bias", ""),
        Field("masks", "list mask", ""),
    ),
    "bias": (Field("id", "int", ""), Field("bias", "f64", "added to its logit")),
    "mask": (Field("rule", "text", ""), Field("allow", "bool", "all others are out"), Field("ids", "list int", "")),
    "kickoff": (Field("how", "empty | text | template", ""), Field("text", "text", "empty unless how is text")),
    "measured": (
        Field("method", "sample | greedy | forced | replayed", "the selection: how the token came"),
        Field("model", "view", "softmax of the raw logits"),
        Field("edited", "view", "after penalties, bias and masks"),
        Field("tempered", "view", "at the sampler's temperature"),
        Field("sampler", "view", "after its filters, renormalised: its log probability is log q"),
        Field("kept_mass", "f64", "tempered probability of what the filters leave"),
        Field("truncated_mass", "f64", "of what they cut off"),
        Field("draw", "f64", "u, the uniform draw in [0, 1)", (NOT_SAMPLED,)),
        Field("low", "f64", "start of the draws that give this token", (NOT_SAMPLED,)),
        Field("high", "f64", "their end", (NOT_SAMPLED,)),
    ),
    "view": (
        Field("score", "f64", "logit; of tempered and sampler over the temperature, less the largest", (NO_PROBABILITY,)),
        Field("logprob_nats", "f64", "ln p", (NO_PROBABILITY,)),
        Field("logprob_bits", "f64", "log2 p", (NO_PROBABILITY,)),
        Field("rank_low", "int", "1 + tokens that are more likely", (NO_PROBABILITY,)),
        Field("rank_high", "int", "tokens that are not less likely", (NO_PROBABILITY,)),
        Field("zero", "zero", "whether p is zero, and in which sense"),
        Field("entropy_nats", "f64", "of the distribution"),
        Field("varentropy", "f64", "variance of ln p"),
        Field("top_masses", "list f64", "probability of the 1, 5 and 20 most likely tokens"),
        Field("support", "int", "tokens that have a probability"),
    ),
    "reported": (
        Field("logprob_nats", "f64", "as the server gives it", (UNREPORTED,)),
        Field("zero", "zero", "what that number means"),
        Field("top", "list top", "the most likely tokens it names"),
    ),
    "top": (Field("bytes", "bytes", ""), Field("logprob_nats", "f64", "", (UNREPORTED,))),
    "evidence": (
        Field("rule", "text", "as it is written; Ctrl-C and error need no rule"),
        Field("after", "int", "the last message that was ended before"),
        Field("within", "bool", "whether it ended within the next"),
        Field("spans", "list span", "the characters it saw"),
        Field("amounts", "list amount", "the amounts it compared"),
    ),
    "span": (Field("message", "int", ""), Field("start", "int", "character of its text"), Field("end", "int", "the character behind")),
    "amount": (Field("what", "text", ""), Field("amount", "f64", "")),
}  # fmt: skip


class EventRefusal(ValueError):
    """Why a value is none of an event's body; callers name the event."""


def check_body(kind: str, body: Any) -> None:
    """Raises EventRefusal."""
    check_fields(body, EVENTS[kind], kind)


def check_fields(value: Any, fields: tuple[Field, ...], where: str) -> None:
    if not isinstance(value, dict) or set(value) != {field.name for field in fields}:
        got = canonical.quoted(sorted(value)) if isinstance(value, dict) else type(value).__name__
        raise EventRefusal(f"{where}: expected the fields {', '.join(sorted(field.name for field in fields))}, got {got}")
    for field in fields:
        given = value[field.name]
        if isinstance(given, dict) and "absent" in given:
            if set(given) != {"absent"} or given["absent"] not in field.absent:
                raise EventRefusal(
                    f"{where}.{field.name}: expected it absent for {' or '.join(field.absent) or 'no reason'}, got {canonical.quoted(given)}"
                )
        else:
            check(given, field.type, f"{where}.{field.name}")


def check(value: Any, kind: str, where: str) -> None:
    """That `value` is of the type `kind`. Raises EventRefusal."""
    if kind.startswith("list "):
        if not isinstance(value, list):
            raise EventRefusal(f"{where}: expected an array, got {canonical.quoted(value)}")
        for place, item in enumerate(value):
            check(item, kind.removeprefix("list "), f"{where}[{place}]")
    elif kind == "sampler":
        method = value.get("method") if isinstance(value, dict) else None
        check_fields(value, RECORDS["sampler greedy" if method == "greedy" else "sampler sample"], where)
    elif kind == "view" and isinstance(value, str):
        check_same_view(value, where)
    elif kind in RECORDS:
        check_fields(value, RECORDS[kind], where)
    elif problem := word_problem(value, kind):
        raise EventRefusal(f"{where}: expected {problem}, got {canonical.quoted(value)}")


def check_same_view(value: str, where: str) -> None:
    earlier = VIEWS[: VIEWS.index(where.rsplit(".", 1)[-1])]
    if value not in earlier:
        raise EventRefusal(f"{where}: expected a view or the name of one before it, got {canonical.quoted(value)}")


def word_problem(value: Any, kind: str) -> str:
    """What `value` should have been, empty if it is"""
    if kind in TYPES:
        return "" if TYPES[kind](value) else PHRASES[kind]
    if not isinstance(value, str):
        return "text"
    if kind == "zero":
        return "" if ZERO.fullmatch(value) else f"one of {', '.join(Kind)}"
    return "" if value in kind.split(" | ") else kind.replace(" | ", ", ")
