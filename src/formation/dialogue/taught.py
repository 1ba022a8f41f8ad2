"""A transcript as the model on one side would have been given it: all ids under its own template, and which of them it would have had to say.

What the side said is encoded from its text, with special tokens as text, as nobody knows the ids that it was said in. An id that ends a turn is the
side's own too, where the template writes one after its text. What comes after its last message has no part in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from formation.dialogue.side import Manner
from formation.dialogue.transcripts.transcript import PROMPT, Transcript
from formation.errors import UsageError
from formation.text import ChatTemplate, Tokenizer, load_template, load_tokenizer
from formation.text.conversation import conversation_parts
from formation.text.prompt import stop_of
from formation.weights.checkpoint import Checkpoint


@dataclass(frozen=True)
class Stretch:
    """The ids [begin, end) of a message, by its number in the transcript; the last of them ends the turn, if `ended`."""

    message: int
    begin: int
    end: int
    ended: bool


@dataclass(frozen=True)
class Speaker:
    """What of a checkpoint encodes a dialogue. Made by `speaker_of`."""

    tokenizer: Tokenizer
    template: ChatTemplate
    stop: tuple[int, ...]

    def told(self, manner: Manner) -> Manner:
        """Without what the template has no use for: a switch for thinking, the day."""
        thinking, today = manner.thinking if self.template.has_thinking else None, manner.today if self.template.asks_date else None
        return replace(manner, thinking=thinking, today=today)


@dataclass(frozen=True)
class Taught:
    """`silent` are messages of the side without a token: nothing of them is scored. `bytes` are those of the texts that are."""

    ids: tuple[int, ...]
    stretches: tuple[Stretch, ...]
    silent: tuple[int, ...]
    bytes: int

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        return tuple((each.begin, each.end) for each in self.stretches)


def speaker_of(checkpoint: Checkpoint) -> Speaker:
    """Raises UsageError for a checkpoint without a chat template."""
    tokenizer = load_tokenizer(checkpoint.path, checkpoint.config)
    template = load_template(checkpoint.path, tokenizer)
    if template is None:
        raise UsageError(f"checkpoint {checkpoint.path}: expected a chat template, got none", hint="a dialogue is scored under the model's own")
    return Speaker(tokenizer, template, stop_of(checkpoint.path, tokenizer, template))


def taught(transcript: Transcript, side: int, speaker: Speaker, manner: Manner, kickoff: str | None = "") -> Taught:
    """`kickoff` is what the side is told if it speaks first and the transcript has no prompt for it; None: nothing. Raises UsageError where the side
    says nothing, PromptError and UnsupportedError of the template."""
    said = [(number, message) for number, message in transcript.said if message.side == side or number < last_of(transcript, side)]
    own = {number for number, message in said if message.side == side}
    given = list(before(transcript, side, manner, kickoff))
    messages = given + [{"role": "assistant" if number in own else "user", "content": message.text} for number, message in said]
    bodies = {len(given) + n: speaker.tokenizer.encode(message.text) for n, (number, message) in enumerate(said) if number in own}
    numbers = {len(given) + n: number for n, (number, _) in enumerate(said)}
    silent = tuple(numbers[place] for place, ids in bodies.items() if not ids)
    if len(silent) == len(bodies):
        raise UsageError(f"{transcript.names[side]}: expected a message with a token in it, got {len(bodies)} without")
    parts = conversation_parts(speaker.template, messages, bodies, thinking=manner.thinking, today=manner.today)
    ids, stretches = joined(parts, numbers, speaker.stop)
    size = sum(len(message.text.encode()) for number, message in said if number in own and number not in silent)
    return Taught(tuple(ids[: stretches[-1].end]), tuple(stretches), silent, size)


def first_messages(transcript: Transcript, count: int) -> Transcript:
    """With no more than so many of what the sides said, and all prompts"""
    left = [message for number, message in transcript.said if number <= count]
    return replace(transcript, messages=(*(message for message in transcript.messages if message.source == PROMPT), *left))


def check_fits(name: str, taught: Taught, context: int) -> None:
    """Raises UsageError for more positions than the model has."""
    if (positions := len(taught.ids) - 1) > context:
        fit = max((each.message for each in taught.stretches if each.end - 1 <= context), default=0)
        hint = f"--messages {fit} scores the first {fit} messages" if fit else None
        raise UsageError(f"{name}: expected at most {context} positions (max_position_embeddings), got {positions}", hint=hint)


def last_of(transcript: Transcript, side: int) -> int:
    """Number of the side's last message, 0 without any"""
    return max((number for number, message in transcript.said if message.side == side), default=0)


def before(transcript: Transcript, side: int, manner: Manner, kickoff: str | None) -> Iterator[dict[str, Any]]:
    """What the side is given before the dialogue. Of the transcript's prompts for it the last is its kick-off if it speaks first, and one before that
    its system prompt, unless `manner` has another."""
    prompts = [message.text for message in transcript.messages if message.source == PROMPT and message.side == side]
    first = bool(transcript.said) and transcript.said[0][1].side == side
    system = prompts.pop(0) if len(prompts) > first else ""
    if manner.system or system:
        yield {"role": "system", "content": manner.system or system}
    if first and (prompts or kickoff is not None):
        yield {"role": "user", "content": "\n\n".join(prompts) if prompts else kickoff}


def joined(parts: Sequence[tuple[int | None, Sequence[int]]], numbers: dict[int, int], stop: Sequence[int]) -> tuple[list[int], list[Stretch]]:
    """All ids, and the stretches of those with a place, each with the id behind it if that ends a turn"""
    ids: list[int] = []
    stretches: list[Stretch] = []
    for n, (place, own) in enumerate(parts):
        begin = len(ids)
        ids += own
        if place is not None:
            after = parts[n + 1][1][:1]
            ended = bool(after) and after[0] in stop
            stretches.append(Stretch(numbers[place], begin, len(ids) + ended, ended))
    return ids, stretches
