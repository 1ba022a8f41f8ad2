"""A side that runs here: a checkpoint, streamed.

Its own earlier turns are fed back as the ids that it said them in; the other side's text is text, whatever it spells. A draw depends on the seed and
on the position of the token in this side's own context, so that a turn that was cut off goes on to the same tokens.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from formation.dialogue.event_table import CHECKPOINT
from formation.dialogue.measure import document, measure
from formation.dialogue.side import CONTEXT, END_OF_TURN, MOST_TOKENS, Manner, Piece, Turn
from formation.errors import UsageError
from formation.kernels.tensor import F32
from formation.ledger.fields import absent
from formation.run.generate import Engine, Step
from formation.run.identity import identify
from formation.run.past import Past
from formation.run.sample import Choice, Greedy
from formation.text import ChatTemplate, Tokenizer, load_template, load_tokenizer
from formation.text.conversation import conversation_ids
from formation.text.prompt import stop_of

ROOM = 2048  # positions that are thought of from the beginning, where the budget has them
PROBE = ("x", "y")  # what a new side pretends that both have said, so that a template that cannot be used is refused before anything begins


@dataclass(frozen=True)
class LocalSide:
    """Made by `open_local`. `model`, `checkpoint_sha256` and `stop` are facts of the engine's checkpoint, the rest is how it speaks."""

    name: str
    engine: Engine
    manner: Manner
    tokenizer: Tokenizer
    template: ChatTemplate
    stop: tuple[int, ...]
    checkpoint_sha256: str
    past: Past  # so that only what is new of a prompt is computed
    continues: bool = True

    def describe(self) -> dict[str, Any]:
        config = self.engine.checkpoint.config
        return self.manner.document() | {
            "name": self.name, "source": "checkpoint", "model": str((config.get("architectures") or [config["model_type"]])[0]),
            "checkpoint_sha256": self.checkpoint_sha256, "url": absent(CHECKPOINT), "capabilities": absent(CHECKPOINT),
            "template_sha256": hashlib.sha256(self.template.source.encode()).hexdigest(), "stop_ids": list(self.stop),
        }  # fmt: skip

    def speak(self, context: Sequence[Turn], begun: Sequence[dict[str, Any]] = ()) -> LocalSpeech:
        given = self.manner.context.given(context, lambda turns: len(self.prompt(turns)))
        earlier = [token for turn in given if turn.own for token in turn.ids or ()]
        return LocalSpeech(self, self.prompt(given), len(context) - len(given), earlier, [event["id"] for event in begun])

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """The ids that a turn after `turns` begins with. Raises PromptError and UnsupportedError of the template."""
        first = len(self.manner.opening)
        messages = self.manner.opening + [{"role": "assistant" if turn.own else "user", "content": turn.text} for turn in turns]
        bodies = {first + n: self.body(turn.ids) for n, turn in enumerate(turns) if turn.own and turn.ids}
        return conversation_ids(self.template, messages, bodies, thinking=self.manner.thinking, today=self.manner.today)

    def body(self, ids: Sequence[int]) -> Sequence[int]:
        """Without what ended the turn: the template ends it"""
        return ids[:-1] if ids and ids[-1] in self.stop else ids

    def close(self) -> None:
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class LocalSpeech:
    """`earlier` are the ids of this side's turns in its context: with those of this turn, what penalties count."""

    side: LocalSide
    prompt_ids: list[int]
    left_out: int
    earlier: list[int]
    ids: list[int]  # said so far
    ended: str = ""
    history: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.history = [*self.earlier, *self.ids]

    @property
    def prompt(self) -> dict[str, Any]:
        digest = hashlib.sha256(np.array(self.prompt_ids, "<i8").tobytes()).hexdigest()
        return {"prompt_tokens": len(self.prompt_ids), "prompt_sha256": digest, "left_out": self.left_out}

    @property
    def room(self) -> int:
        """Tokens that the model's context leaves for this turn; the last is never stepped"""
        return max(0, self.side.engine.model.shape.context - len(self.prompt_ids) + 1)

    def __iter__(self) -> Iterator[Piece]:
        most, stop = min(self.side.manner.most_tokens, self.room), self.side.stop
        if len(self.ids) < most and not self._is_over():
            for step in self.side.engine.generate([*self.prompt_ids, *self.ids], most - len(self.ids), self, stop=stop, past=self.side.past):
                measured = self._measured(step)
                self.ids.append(step.id)
                self.history.append(step.id)
                yield Piece(self._event(step, measured), step.reads.disk_bytes)
        self.ended = END_OF_TURN if self._is_over() else MOST_TOKENS if most == self.side.manner.most_tokens else CONTEXT

    def _is_over(self) -> bool:
        return bool(self.ids) and self.ids[-1] in self.side.stop

    def choose(self, logits: F32, position: int) -> Choice:
        """As the engine asks a sampler"""
        return self.side.manner.chain.choose(logits, position, self.history)

    def _measured(self, step: Step) -> dict[str, Any]:
        chain = self.side.manner.chain
        method = "greedy" if isinstance(chain.sampler, Greedy) else "sample"
        return document(measure(chain, step.logits, step.choice, method, self.history, threads=self.side.engine.threads))

    def _event(self, step: Step, measured: dict[str, Any]) -> dict[str, Any]:
        spelt = b64encode(self.side.tokenizer.token_bytes(step.id)).decode()
        return {"position": step.position, "id": step.id, "bytes": spelt, "measured": measured, "reported": absent(CHECKPOINT)}


def open_local(name: str, engine: Engine, manner: Manner) -> LocalSide:
    """Raises UsageError for a checkpoint without a chat template, PromptError and UnsupportedError for a template that cannot be used, BudgetError
    where the engine's memory does not hold one turn."""
    checkpoint = engine.checkpoint
    tokenizer = load_tokenizer(checkpoint.path, checkpoint.config)
    template = load_template(checkpoint.path, tokenizer)
    if template is None:
        raise UsageError(f"side {name}: expected a checkpoint with a chat template, got none in {checkpoint.path}")
    stop = stop_of(checkpoint.path, tokenizer, template)
    side = LocalSide(name, engine, manner, tokenizer, template, stop, identify(checkpoint).sha256, engine.past(min(ROOM, engine.model.shape.context)))
    least = side.prompt([Turn(1, False, PROBE[0]), Turn(2, True, PROBE[1], tuple(tokenizer.encode(PROBE[1]))), Turn(3, False, PROBE[0])])
    engine.plan(min(len(least) + manner.most_tokens, engine.model.shape.context), 1, side.past)
    return side
