"""What a server can do, found out by asking it before a dialogue begins, and recorded with it.

A server of the OpenAI protocol may take a setting and do nothing about it, so that answers count, not what is accepted. What it cannot do is absent
with the reason; a server that cannot be reached, or does not let us in, can do nothing, and that is a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, TypeVar

from formation.dialogue.remote.chat import COMPLETIONS, LIMITS, MODELS, Way, answers, together
from formation.dialogue.remote.http import Server, ServerFault
from formation.dialogue.remote.reply import Heard, ReplyRefusal, Token, answer, checked, zero_of
from formation.dialogue.remote.spelling import check_spelling
from formation.errors import EvidenceError
from formation.ledger.zero import Kind

T = TypeVar("T")
PROMPT = "Name something that floats."
TOPS = (20, 5, 1, 0)  # how many of the most likely tokens are asked for, until the server agrees
FEW_TOKENS, SEED_TOKENS = 3, 8
SEED = 7
SMALLEST_GAP_NATS, NEAR = 0.05, 0.05
YES, NO, ABSENT = "yes", "no: ", "no: not in its answer"
STREAMED, WHOLE = "streamed", "in whole answers only"
BEFORE, AFTER, UNTOLD = "before the temperature", "after the temperature", "cannot be told"
LET_IN = (401, 402, 403, 429, 502, 503, 504, 529)  # statuses that say nothing about what a server can do


@dataclass(frozen=True)
class Capabilities:
    """Each found as a sentence, in this order in the record of a side"""

    models: str  # how many it lists, and whether ours is one
    answers_as: str  # the model that it says has answered
    limit: str  # its name for the limit of an answer
    streaming: str
    usage: str  # whether it counts the tokens of an answer
    logprobs: str
    top_logprobs: str  # of how many of the most likely tokens
    logprobs_are: str  # of the model, or of what the temperature makes of it
    seed: str
    completions: str
    echo: str  # log probabilities of a text that it is given

    @property
    def way(self) -> Way:
        """Log probabilities matter more than pieces: who gives them in whole answers only is asked for those."""
        known = self.logprobs.startswith((STREAMED, WHOLE))
        streams = self.streaming == YES and not self.logprobs.startswith(WHOLE)
        return Way(self.limit, streams, self.usage == YES, int(self.top_logprobs) if known else None)

    def document(self) -> list[dict[str, str]]:
        return [{"what": field.name.replace("_", " "), "found": getattr(self, field.name)} for field in fields(self)]


def recorded(document: Any) -> Capabilities:
    """From the record of a side. Raises EvidenceError."""
    found = {each["what"].replace(" ", "_"): each["found"] for each in document}
    if list(found) != [field.name for field in fields(Capabilities)] or not found["top_logprobs"].isdecimal() or found["limit"] not in LIMITS:
        raise EvidenceError("side: expected the capabilities that a probe of a server records, got others")
    return Capabilities(**found)


def model_names(server: Server) -> list[str] | str:
    """As the server lists them, or why there is no list"""

    def read(value: Any) -> list[str]:
        data = checked(checked(value, "an object", "models").get("data"), "an array", "data")
        return [checked(checked(each, "an object", "data[]").get("id"), "Unicode text", "data[].id") for each in data]

    return tried(lambda: server.ask(MODELS, None, read))


def tried(ask: Callable[[], T]) -> T | str:
    """What it gives, or "no: " and why"""
    try:
        return ask()
    except ServerFault as fault:
        if not fault.answered or fault.status in LET_IN:
            raise
        return f"{NO}{f'HTTP {fault.status}' if fault.status else fault.sentence}"


def probe(server: Server, model: str, names: list[str] | str, *, logprobs: bool = True) -> Capabilities:
    """Asks some ten small questions. Raises ServerFault if the server cannot chat at all."""
    asking = Asking(server, model, Way())
    plain, limit = asking.plainly()
    if not plain.finish:
        raise ServerFault(server.address.url, "expected a finish_reason, got an answer without one", again=False, answered=True)
    asking = replace(asking, way=Way(limit))
    streaming, usage = asking.streaming(plain)
    asking = replace(asking, way=Way(limit, streaming == YES, usage == YES))
    told, top = asking.logprobs() if logprobs else (f"{NO}not wanted", 0)
    completions, echo = asking.completions()
    listed = names if isinstance(names, str) else f"{len(names)}, {'this one among them' if model in names else 'not this one'}"
    found = Capabilities(listed, plain.model, limit, streaming, usage, told, str(top), UNTOLD, asking.seed(), completions, echo)
    return replace(found, logprobs_are=replace(asking, way=found.way).distribution())


@dataclass(frozen=True)
class Asking:
    server: Server
    model: str
    way: Way

    def ask(self, tokens: int = FEW_TOKENS, temperature: float = 0.0, **settings: Any) -> Heard:
        messages = [{"role": "user", "content": PROMPT}]
        request = self.way.request(self.model, messages, tokens, {"temperature": temperature, **settings})
        return together(answers(self.server, request))

    def plainly(self) -> tuple[Heard, str]:
        """A whole answer with nothing special about it, and what the server calls its limit. Raises ServerFault."""
        try:
            return self.ask(), LIMITS[0]
        except ServerFault as fault:
            if fault.status != 400:
                raise
            try:
                return replace(self, way=Way(LIMITS[1])).ask(), LIMITS[1]
            except ServerFault:
                raise fault from None

    def streaming(self, plain: Heard) -> tuple[str, str]:
        """Whether it streams, and whether it counts tokens then"""
        found: Heard | str = ""
        for counts in (True, False):
            asking = replace(self, way=replace(self.way, streams=True, counts=counts))
            found = tried(asking.ask)
            if isinstance(found, Heard) and found.finish:
                return YES, counted(found)
        return found if isinstance(found, str) else f"{NO}it ends without a finish_reason", counted(plain)

    def logprobs(self) -> tuple[str, int]:
        """How it gives log probabilities, and of how many of the most likely tokens"""
        reason = ABSENT
        for streams in (True, False) if self.way.streams else (False,):
            for top in TOPS:
                asking = replace(self, way=replace(self.way, streams=streams, top=top))
                found = tried(asking.ask)
                reason = found if isinstance(found, str) else unusable(found, top)
                if isinstance(found, Heard) and not reason:
                    return f"{STREAMED if streams else WHOLE}{placeholders(found.tokens or ())}", most_named(found.tokens or (), top)
                if isinstance(found, Heard):
                    break  # it agrees, and gives none that can be used
        return reason, 0

    def distribution(self) -> str:
        """Dividing logits by 2 halves the gap of two log probabilities, whatever they are normalised by."""
        if not self.way.top or self.way.top < 2:
            return UNTOLD
        once, twice = (tried(partial(self.ask, 1, temperature)) for temperature in (1.0, 2.0))
        if not (isinstance(once, Heard) and isinstance(twice, Heard) and once.tokens and twice.tokens):
            return UNTOLD
        first, second = values(once.tokens[0]), values(twice.tokens[0])
        best = sorted(first, key=lambda spelt: first[spelt], reverse=True)[:2]
        if len(best) < 2 or not set(best) <= set(second) or (gap := first[best[0]] - first[best[1]]) < SMALLEST_GAP_NATS:
            return UNTOLD
        ratio = (second[best[0]] - second[best[1]]) / gap
        return BEFORE if abs(ratio - 1) < NEAR else AFTER if abs(ratio - 0.5) < NEAR else UNTOLD

    def seed(self) -> str:
        both = [tried(partial(self.ask, SEED_TOKENS, 1.0, seed=SEED)) for _ in range(2)]
        refused = next((each for each in both if isinstance(each, str)), None)
        same = len({each.text for each in both if isinstance(each, Heard)}) == 1
        return refused or ("the same answer twice" if same else "different answers")

    def completions(self) -> tuple[str, str]:
        """Whether it continues a text, and whether it gives back that text with its log probabilities"""
        request = {"model": self.model, "prompt": PROMPT, "max_tokens": 1, "temperature": 0}
        plain = tried(lambda: self.server.ask(COMPLETIONS, request, partial(answer, part="")))
        if isinstance(plain, str):
            return plain, plain
        found = tried(lambda: self.server.ask(COMPLETIONS, request | {"echo": True, "logprobs": 1}, partial(answer, part="")))
        return YES, found if isinstance(found, str) else echoed(found)


def counted(found: Heard) -> str:
    return YES if found.completion_tokens is not None else ABSENT


def unusable(found: Heard, top: int) -> str:
    """Why the log probabilities of an answer are none; empty if they are"""
    if not found.tokens:
        return ABSENT
    try:
        check_count(found.tokens, top)
        check_spelling(found.tokens, found.text, found.finish)
    except ReplyRefusal as refusal:
        return f"{NO}{refusal}"
    return ""


def check_count(tokens: Sequence[Token], top: int) -> None:
    """Raises ReplyRefusal for more of the most likely tokens than were asked for; the token itself may come on top."""
    if most := max((len(token.top) for token in tokens if len(token.top) > top + 1), default=0):
        raise ReplyRefusal(f"top_logprobs: expected {top} of each token, got {most}")


def most_named(tokens: Sequence[Token], top: int) -> int:
    return min(top, max(len(token.top) for token in tokens))


def placeholders(tokens: Sequence[Token]) -> str:
    """What stands in place of every value"""
    kinds = {zero_of(token) for token in tokens}
    return f", {sorted(map(str, kinds))[0]} in place of values" if {zero.kind for zero in kinds} <= {Kind.SENTINEL, Kind.BELOW_REPORT} else ""


def values(token: Token) -> Mapping[bytes, float]:
    return {spelt: value for spelt, value in token.top if value is not None and value > -100.0}


def echoed(found: Heard) -> str:
    if not found.text.startswith(PROMPT):
        return f"{NO}its answer does not begin with the text that it was given"
    if not found.tokens:
        return f"{NO}the text only, without log probabilities"
    try:
        check_spelling(found.tokens, found.text, found.finish)
    except ReplyRefusal as refusal:
        return f"{NO}{refusal}"
    return YES
