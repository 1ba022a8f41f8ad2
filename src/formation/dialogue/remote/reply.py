"""What a server of the OpenAI protocol answers, read strictly: what is used has its type or is refused with its place; what is not is left alone,
for the protocol grows.

    chat completions   whole {"choices": [{"message": {"content": …}, "logprobs": …, "finish_reason": …}], "usage": …}, or in pieces with "delta"
    completions        {"choices": [{"text": …, "logprobs": …, "finish_reason": …}]}
    log probabilities  {"content": [{"token": …, "bytes": …, "logprob": …, "top_logprobs": […]}, …]}, or the older four arrays side by side
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from formation.dialogue.event_table import UNREPORTED
from formation.dialogue.measure import number
from formation.ledger.canonical import LARGEST, quoted
from formation.ledger.zero import Kind, Zero, of_report

LONGEST_MESSAGE = 300  # of what a server says about an error


class ReplyRefusal(ValueError):
    """Why a value is no answer; callers name the server."""


@dataclass(frozen=True)
class Token:
    """What a server says of one token. A log probability is None for null; `top` holds spelling and log probability of the most likely."""

    spelt: bytes
    logprob_nats: float | None
    top: tuple[tuple[bytes, float | None], ...] = ()
    id: int | None = None


@dataclass(frozen=True)
class Heard:
    """A whole answer, or a piece of one. `tokens` is None where nothing is said about tokens, `completion_tokens` where nothing is counted."""

    text: str = ""
    tokens: tuple[Token, ...] | None = None
    finish: str | None = None
    model: str = ""
    completion_tokens: int | None = None

    def __bool__(self) -> bool:
        """Whether it says anything: first pieces often name a role and no more"""
        return bool(self.text or self.tokens or self.finish)


# ---- values of a type, or a sentence


def is_text(value: object) -> bool:
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= LARGEST


TYPES: Mapping[str, Callable[[object], bool]] = {
    "Unicode text": is_text,
    "a number": is_number,
    "a count": is_count,
    "an object": lambda value: isinstance(value, dict),
    "an array": lambda value: isinstance(value, list),
}


def checked(value: Any, kind: str, where: str) -> Any:
    if not TYPES[kind](value):
        raise ReplyRefusal(f"{where}: expected {kind}, got {shown(value)}")
    return value


def shown(value: object) -> str:
    """Arrays and objects by their kind: they may be nested deeper than they can be printed"""
    return next((kind for kind in ("an array", "an object") if TYPES[kind](value)), "") or quoted(value)


def member(table: Mapping[str, Any], name: str, kind: str, where: str) -> Any:
    """None if it is missing or null"""
    value = table.get(name)
    return None if value is None else checked(value, kind, f"{where}.{name}" if where else name)


# ---- answers


def answer(value: Any, part: str) -> Heard:
    """`part` is where a choice has its text: "message" of a whole chat, "delta" of a piece, "" of completions. Raises ReplyRefusal."""
    checked(value, "an object", "answer")
    if value.get("error"):
        raise ReplyRefusal(f"expected an answer, got the error {message_of(value)[:LONGEST_MESSAGE]}")
    choices = checked(value.get("choices"), "an array", "choices")
    if len(choices) > 1 or not (choices or part == "delta"):
        raise ReplyRefusal(f"choices: expected one, got {len(choices)}")
    usage = member(value, "usage", "an object", "") or {}
    counted = member(usage, "completion_tokens", "a count", "usage")
    model = member(value, "model", "Unicode text", "") or ""
    if not choices:
        return Heard(model=model, completion_tokens=counted)
    return choice(checked(choices[0], "an object", "choices[0]"), part, model, counted)


def choice(table: Mapping[str, Any], part: str, model: str, counted: int | None) -> Heard:
    where = "choices[0]"
    if part and part not in table:
        raise ReplyRefusal(f"{where}: expected {part}, got {quoted(sorted(table))}")
    said = checked(table[part], "an object", f"{where}.{part}") if part else table
    text = member(said, "content" if part else "text", "Unicode text", f"{where}.{part}" if part else where) or ""
    logprobs = member(table, "logprobs", "an object", where)
    finish = member(table, "finish_reason", "Unicode text", where)
    return Heard(text, None if logprobs is None else tokens_of(logprobs, f"{where}.logprobs"), finish, model, counted)


def message_of(value: Any) -> str:
    """What an error's body says, wherever it says it; without control characters"""
    while isinstance(value, dict):
        value = next((value[name] for name in ("error", "message", "detail", "code") if value.get(name)), None)
    return ascii(value) if isinstance(value, str | int | float) else "no message"


# ---- log probabilities


def tokens_of(logprobs: Mapping[str, Any], where: str) -> tuple[Token, ...] | None:
    if "tokens" in logprobs or "token_logprobs" in logprobs:
        return tuple(side_by_side(logprobs, where))
    content = member(logprobs, "content", "an array", where)
    if content is None:
        return None
    return tuple(one_token(checked(each, "an object", f"{where}.content[{n}]"), f"{where}.content[{n}]") for n, each in enumerate(content))


def one_token(table: Mapping[str, Any], where: str) -> Token:
    top = member(table, "top_logprobs", "an array", where) or []
    tops = [checked(each, "an object", f"{where}.top_logprobs[{n}]") for n, each in enumerate(top)]
    named = tuple((spelling(each, f"{where}.top_logprobs[{n}]"), logprob(each, where)) for n, each in enumerate(tops))
    return Token(spelling(table, where), logprob(table, where), named, member(table, "id", "a count", where))


def logprob(table: Mapping[str, Any], where: str) -> float | None:
    value = member(table, "logprob", "a number", where)
    return None if value is None else float(value)


def spelling(table: Mapping[str, Any], where: str) -> bytes:
    """The bytes where a server gives them, else the text, in which it may have replaced half a character"""
    given = member(table, "bytes", "an array", where)
    text: str = checked(table.get("token"), "Unicode text", f"{where}.token")
    if given is None:
        return text.encode()
    if not all(type(byte) is int and 0 <= byte <= 255 for byte in given):
        raise ReplyRefusal(f"{where}.bytes: expected numbers from 0 to 255, got others")
    return bytes(given)


def side_by_side(logprobs: Mapping[str, Any], where: str) -> list[Token]:
    names = checked(logprobs.get("tokens"), "an array", f"{where}.tokens")
    values = checked(logprobs.get("token_logprobs"), "an array", f"{where}.token_logprobs")
    tops = member(logprobs, "top_logprobs", "an array", where) or [None] * len(names)
    if not len(names) == len(values) == len(tops):
        raise ReplyRefusal(f"{where}: expected as many log probabilities as tokens, got {len(values)} and {len(tops)} of {len(names)} tokens")
    tables = [{"token": name, "logprob": value} for name, value in zip(names, values, strict=True)]
    best = [checked(top or {}, "an object", f"{where}.top_logprobs[{n}]") for n, top in enumerate(tops)]
    return [
        one_token(table | {"top_logprobs": [{"token": name, "logprob": value} for name, value in top.items()]}, f"{where}[{n}]")
        for n, (table, top) in enumerate(zip(tables, best, strict=True))
    ]


# ---- as events.jsonl has it


def zero_of(token: Token) -> Zero:
    """A placeholder instead of a value, of a token that is not among the most likely that are named: it is at most as likely as their last."""
    zero = of_report(token.logprob_nats)
    if zero.kind is not Kind.SENTINEL or not token.top or token.spelt in dict(token.top):
        return zero
    known = [value for _, value in token.top if value is not None and of_report(value).kind is not Kind.SENTINEL]
    return of_report(None, listed=False, floor_nats=min(known, default=None))


def reported(token: Token) -> dict[str, Any]:
    """The record `reported`. What stands in place of a value is no value: `zero` keeps it."""
    return {
        "logprob_nats": value_of(token.logprob_nats), "zero": str(zero_of(token)),
        "top": [{"bytes": b64encode(spelt).decode(), "logprob_nats": value_of(value)} for spelt, value in token.top],
    }  # fmt: skip


def value_of(logprob_nats: float | None) -> Any:
    return number(None if of_report(logprob_nats).kind is Kind.SENTINEL else logprob_nats, UNREPORTED)
