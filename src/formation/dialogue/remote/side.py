"""A side that runs elsewhere: behind a server of the OpenAI protocol.

    side = connect("Lamp", "https://host/v1#model", Manner(most_tokens=200), key_variable="LAMP_KEY")

What the server says of a token is reported, not measured: its numbers are taken as they are, a placeholder is no value, the end of a list of the most
likely tokens is a bound. It is given text and gives text, so what it makes of them (template, tokens, draws) is not known. It cannot go on in the
middle of a turn: after an accident the tokens that came stay in the log, the turn is void, and is asked for again.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Self

from formation.dialogue.context import BUDGET
from formation.dialogue.event_table import SERVER, UNREPORTED
from formation.dialogue.remote.address import read_address, read_key
from formation.dialogue.remote.chat import answers
from formation.dialogue.remote.http import Patience, Server, ServerFault
from formation.dialogue.remote.probe import Capabilities, check_count, model_names, probe, recorded
from formation.dialogue.remote.reply import Heard, ReplyRefusal, Token, reported
from formation.dialogue.remote.spelling import Placed, Spelling
from formation.dialogue.side import CONTEXT, END_OF_TURN, MOST_TOKENS, Manner, Piece, Turn
from formation.errors import UsageError
from formation.ledger.fields import absent
from formation.run.sample import Sample

MOST_TEXT = 1 << 20  # characters of a turn
SEEDS = 1 << 31  # every server knows these
FINISHED = {"stop": END_OF_TURN, "length": MOST_TOKENS}
WITHOUT = "if it happens again, let this side speak without log probabilities"


@dataclass(frozen=True)
class RemoteSide:
    """Made by `connect`."""

    name: str
    server: Server
    model: str
    manner: Manner
    capabilities: Capabilities
    continues: bool = False

    def describe(self) -> dict[str, Any]:
        switch = {} if self.manner.thinking is not None else {"thinking": absent(SERVER)}
        return self.manner.document() | switch | {
            "name": self.name, "source": "server", "model": self.model, "checkpoint_sha256": absent(SERVER), "url": self.server.address.url,
            "capabilities": self.capabilities.document(), "template_sha256": absent(SERVER), "stop_ids": [],
        }  # fmt: skip

    def speak(self, context: Sequence[Turn], begun: Sequence[dict[str, Any]] = ()) -> RemoteSpeech:
        if begun:
            raise ValueError("a server cannot go on in the middle of a turn")
        given = self.manner.context.given(context, len)
        number = context[-1].number + 1 if context else 1
        messages = self.manner.opening + [{"role": "assistant" if turn.own else "user", "content": turn.text} for turn in given]
        request = self.capabilities.way.request(self.model, messages, self.manner.most_tokens, self.settings(number))
        return RemoteSpeech(self, request, len(context) - len(given))

    def settings(self, number: int) -> dict[str, Any]:
        """Of the sampler and its edits, in turn `number`, as the protocol and its usual extensions (top_k, min_p, repetition_penalty) name them. What
        is off is left out. Each turn has its own seed, the operator's plus its number: two turns with one seed would draw alike."""
        sampler, edits = self.manner.chain.sampler, self.manner.chain.edits
        told: dict[str, Any] = {"temperature": 0}
        if isinstance(sampler, Sample):
            told = {"temperature": sampler.temperature, "seed": (sampler.seed + number) % SEEDS}
            told |= {name: value for name, value, off in (
                ("top_p", sampler.top_p, 1.0), ("top_k", sampler.top_k, 0), ("min_p", sampler.min_p, 0.0)) if value != off}  # fmt: skip
            if self.capabilities.seed.startswith("no: "):
                del told["seed"]
        told |= {name: value for name, value, off in (
            ("presence_penalty", edits.presence, 0.0), ("frequency_penalty", edits.frequency, 0.0),
            ("repetition_penalty", edits.repetition, 1.0)) if value != off}  # fmt: skip
        if edits.bias:
            told["logit_bias"] = {str(token): value for token, value in edits.bias}
        if self.manner.thinking is not None:
            told["chat_template_kwargs"] = dict.fromkeys(("thinking", "enable_thinking"), self.manner.thinking)
        return told

    def close(self) -> None:
        """Nothing: each turn has its own connection"""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(
    name: str, url: str, manner: Manner, *, key_variable: str | None = None, logprobs: bool = True, patience: Patience | None = None,
    record: Mapping[str, Any] | None = None,
) -> RemoteSide:  # fmt: skip
    """Asks the server what it can do, unless the `record` of this side, as a log has it, says what was found when its dialogue began. The key comes
    from the environment variable `key_variable`. `logprobs=False` does without them. Raises UsageError and SideFault."""
    address = read_address(url)
    server = Server(address, read_key(key_variable, address) if key_variable else None, patience or Patience())
    if problem := cannot(manner):
        raise UsageError(f"server {address.url}: expected {problem}")
    if record is not None:
        return RemoteSide(name, server, address.model or record["model"], manner, recorded(record["capabilities"]))
    names = model_names(server)
    model = address.model or only(server, names)
    return RemoteSide(name, server, model, manner, probe(server, model, names, logprobs=logprobs))


def cannot(manner: Manner) -> str:
    """What the protocol has no word for; empty if nothing"""
    sampler = manner.chain.sampler
    problems = (
        (manner.context.policy == BUDGET, "a context that is full or so many messages, got a budget of tokens, which it does not count"),
        (manner.today is not None, "no day to be told of, which the protocol has no word for, got one"),
        (bool(manner.chain.edits.masks), "no masks, which the protocol has not, got some"),
        (isinstance(sampler, Sample) and sampler.branch != 0, "branch 0, for the draws are its own, got another"),
    )
    return next((problem for wrong, problem in problems if wrong), "")


def only(server: Server, names: list[str] | str) -> str:
    if isinstance(names, str) or len(names) != 1:
        got = f"a server that does not say which it has ({names})" if isinstance(names, str) else f"{len(names)} of them"
        hint = "" if isinstance(names, str) else f"; it lists {', '.join(map(ascii, names[:8]))}"
        raise UsageError(f"server {server.address.url}: expected the model's name, got {got}", hint=f"write {server.address.url}#MODEL{hint}")
    return names[0]


@dataclass
class RemoteSpeech:
    """The bytes of its events spell the message. Where the server says nothing of tokens, each piece of its text stands for one."""

    side: RemoteSide
    request: dict[str, Any]
    left_out: int
    ended: str = ""

    @property
    def prompt(self) -> dict[str, Any]:
        return {"prompt_tokens": absent(SERVER), "prompt_sha256": absent(SERVER), "left_out": self.left_out}

    def __iter__(self) -> Iterator[Piece]:
        state = Hearing(self.side)
        try:
            with closing(answers(self.side.server, self.request)) as heard:
                for part in heard:
                    yield from state.pieces(part)
            yield from state.rest()
        except ReplyRefusal as refusal:
            raise ServerFault(self.side.server.address.url, str(refusal), hint=WITHOUT, answered=True) from None
        self.ended = state.reason()


@dataclass
class Hearing:
    """A turn as far as it was heard. Raises ReplyRefusal, or ServerFault for what would go wrong again."""

    side: RemoteSide
    spelling: Spelling = field(default_factory=Spelling)
    tokens: int = 0
    characters: int = 0
    finish: str | None = None
    counted: int | None = None

    def pieces(self, part: Heard) -> Iterator[Piece]:
        self._check(part)
        self.finish = part.finish or self.finish
        self.counted = self.counted if part.completion_tokens is None else part.completion_tokens
        if self.side.capabilities.way.top is not None:
            yield from map(piece, self.spelling.feed(part.tokens or (), part.text))
        elif part.text:
            yield piece((Token(part.text.encode(), None), part.text.encode()))

    def rest(self) -> Iterator[Piece]:
        if self.finish is None:
            raise self.fault("expected a finish_reason, got an answer that stops without one", again=True)
        if self.finish not in FINISHED:
            raise self.fault(f"expected the finish_reason {' or '.join(FINISHED)}, got {ascii(self.finish)[:60]}")
        if self.side.capabilities.way.top is not None:
            yield from map(piece, self.spelling.end(self.finish))

    def reason(self) -> str:
        """A limit that is reached before the turn's own is the context's."""
        short = self.counted is not None and self.counted < self.side.manner.most_tokens
        return CONTEXT if self.finish == "length" and short else FINISHED[self.finish or ""]

    def _check(self, part: Heard) -> None:
        most, expected, tokens = self.side.manner.most_tokens, self.side.capabilities.answers_as, part.tokens or ()
        self.tokens += len(tokens)
        self.characters += len(part.text)
        if part.model and part.model != expected:
            raise self.fault(f"expected answers of {expected!a}, as when the dialogue began, got one of {ascii(part.model)[:200]}")
        if self.tokens > most or self.characters > MOST_TEXT:
            raise self.fault(f"expected at most {most} tokens, the limit that it was given, and {MOST_TEXT} characters, got more")
        if (top := self.side.capabilities.way.top) is not None:
            check_count(tokens, top)

    def fault(self, sentence: str, *, again: bool = False) -> ServerFault:
        return ServerFault(self.side.server.address.url, sentence, again=again, answered=True)


def piece(placed: Placed) -> Piece:
    token, spelt = placed
    return Piece({
        "position": absent(SERVER), "id": absent(UNREPORTED) if token.id is None else token.id, "bytes": b64encode(spelt).decode(),
        "measured": absent(SERVER), "reported": reported(token),
    })  # fmt: skip
