"""From a text, a chat message or token ids to what a run starts from: ids, and the ids that stop it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from formation.errors import UsageError
from formation.text.chat import ChatTemplate, load_template, stop_ids
from formation.text.files import read_object
from formation.text.tokenizer import load_tokenizer
from formation.text.vocabulary import Tokenizer


@dataclass(frozen=True)
class Prompt:
    ids: list[int]
    stop: tuple[int, ...]
    tokenizer: Tokenizer
    text: str | None = None  # what the ids came from, where they came from text


def make_prompt(
    folder: Path, config: Mapping[str, Any], *, prompt: str | None = None, chat: str | None = None, ids: Sequence[int] | None = None,
    system: str | None = None, thinking: bool | None = None, today: date | None = None,
) -> Prompt:  # fmt: skip
    """Of the checkpoint in `folder`, from exactly one of `prompt` (text to continue), `chat` (a user's message) and `ids`.
    `system`, `thinking` and `today` go with `chat`. Raises UsageError, and what `load_tokenizer` and `load_template` raise."""
    if [prompt, chat, ids].count(None) != 2:
        raise UsageError(f"prompt: expected one of a text, a chat message and ids, got {3 - [prompt, chat, ids].count(None)}")
    tokenizer = load_tokenizer(folder, config)
    if chat is not None:
        return chat_prompt(folder, tokenizer, chat, system=system, thinking=thinking, today=today)
    if (system, thinking, today) != (None, None, None):
        raise UsageError("prompt: expected --chat with --system, --thinking or --today, got none", hint="put the message after --chat")
    stop = stop_of(folder, tokenizer, None)
    if prompt is None:
        return Prompt(list(ids or ()), stop, tokenizer)
    return Prompt([*_beginning(folder, tokenizer), *tokenizer.encode(prompt)], stop, tokenizer, prompt)


def chat_prompt(
    folder: Path, tokenizer: Tokenizer, message: str, *, system: str | None = None, thinking: bool | None = None, today: date | None = None
) -> Prompt:  # fmt: skip
    """One user's message in the checkpoint's own template."""
    template = load_template(folder, tokenizer)
    if template is None:
        raise UsageError(f"checkpoint {folder}: expected a chat template, got none", hint="use --prompt")
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": message})
    return Prompt(template.render(messages, thinking=thinking, today=today), stop_of(folder, tokenizer, template), tokenizer, message)


def read_day(text: str | None) -> date | None:
    """As --today has it, in one form only. Raises UsageError."""
    if text is None:
        return None
    with suppress(ValueError):
        if (found := date.fromisoformat(text)).isoformat() == text:
            return found
    raise UsageError(f"today: expected a day as YYYY-MM-DD, got {text[:40]!r}")


def stop_of(folder: Path, tokenizer: Tokenizer, template: ChatTemplate | None) -> tuple[int, ...]:
    """Ids that end a generation; in a chat, whose template is given, also the end of a turn."""
    path = folder / "generation_config.json"
    return stop_ids(tokenizer, read_object(path) if path.exists() else {}, template)


def _beginning(folder: Path, tokenizer: Tokenizer) -> list[int]:
    """The beginning-of-text token, where the tokenizer's config puts one before plain text."""
    path = folder / "tokenizer_config.json"
    wanted = path.exists() and read_object(path).get("add_bos_token") is True
    return [tokenizer.bos_id] if wanted and tokenizer.bos_id is not None else []
