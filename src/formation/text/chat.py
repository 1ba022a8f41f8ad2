"""Chat messages to the ids of a prompt, by the checkpoint's own template.

The rule: text of a message never becomes a special token; the template's own special tokens do (`marks.py` says how they
are told apart). What `render` guarantees:

1. No character of a message, nor of any other value passed in, takes part in a special token, whatever the template does.
2. For messages in which no special token's name occurs, the ids are those of the publisher's way (render to text, then
   encode it with special tokens recognised), template text and message text joined before they are split into tokens.
   One exception: text long enough to be cut (`ranks.cut_positions`) is measured from the last special token on.
3. What cannot be told apart is refused, never guessed: a template that builds a special token's name out of pieces, or whose
   result would change because of the marks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables

from formation.errors import CheckpointError, PromptError, UnsupportedError
from formation.text.files import read_object, read_text
from formation.text.marks import MarkLiterals, Marks, choose_marks
from formation.text.sandbox import TURN, Clock, CountTurns, TemplateEnvironment, Turns, joined
from formation.text.special_tokens import config_ids
from formation.text.vocabulary import Tokenizer, well_formed

END_OF_TURN = "<|im_end|>"
_SWITCHES = ("thinking", "enable_thinking")  # what Kimi and DeepSeek, and what Qwen, call the same variable
_TODAY = "strftime_now"
_OURS = frozenset({"messages", "add_generation_prompt", _TODAY, *_SWITCHES})  # what a caller cannot pass under its name
_OTHER_FILES = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
_FAULTS = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
_environment = TemplateEnvironment()


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template and the tokenizer its special tokens belong to. `path` is the file it was read from."""

    source: str
    path: Path
    tokenizer: Tokenizer

    @cached_property
    def variables(self) -> frozenset[str]:
        """Names of the variables the template reads from outside."""
        return frozenset(find_undeclared_variables(_environment.parse(self.source)))

    @property
    def has_thinking(self) -> bool:
        """Whether the template has a switch for thinking."""
        return not self.variables.isdisjoint(_SWITCHES)

    @property
    def asks_date(self) -> bool:
        """Whether the template asks which day it is."""
        return _TODAY in self.variables

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        thinking: bool | None = None,
        add_generation_prompt: bool = True,
        today: date | None = None,
        **variables: Any,
    ) -> list[int]:
        """The prompt's ids; `tokenizer.decode` of them is the prompt as text.

        messages: {"role": text, "content": text, list of parts or None, ...}. thinking=None leaves the template its own default.
        today is the day that `strftime_now` tells of. variables: others that the template reads, such as tools.
        Raises PromptError (messages, a date that is missing, or a variable the template does not have) and UnsupportedError (a template that
        cannot be rendered by the rule).
        """
        inputs = self._inputs(messages, thinking, variables) | {"add_generation_prompt": add_generation_prompt}
        return self.encode(*self._marked(inputs, today))

    def marked(self, messages: Sequence[Mapping[str, Any]], *, thinking: bool | None = None, today: date | None = None) -> tuple[Marks, str]:
        """The rendered prompt before it is encoded, with marks for the template's special tokens. Raises as `render` does."""
        return self._marked(self._inputs(messages, thinking, {}) | {"add_generation_prompt": True}, today)

    def encode(self, marks: Marks, text: str) -> list[int]:
        """The ids of marked text"""
        ids: list[int] = []
        for part, special in marks.split(text):
            ids.extend([self.tokenizer.encode_special(part)] if special else self.tokenizer.encode(part))
        return ids

    def _inputs(self, messages: Sequence[Mapping[str, Any]], thinking: bool | None, variables: Mapping[str, Any]) -> dict[str, Any]:
        known = sorted(self.variables - _OURS - self.tokenizer.names.keys())
        if unknown := sorted(variables.keys() - set(known)):
            reads = ", ".join(known) or "none"
            raise PromptError(f"expected a variable the chat template reads, got {unknown[0]!r}", hint=f"it reads: {reads}")
        if thinking is not None and not self.has_thinking:
            raise PromptError(
                "expected a chat template with a thinking switch, got one without",
                hint="leave thinking out, or give it to one side of a dialogue: --a-thinking",
            )
        switches = {} if thinking is None else dict.fromkeys(_SWITCHES, thinking)
        return {"messages": [_message(message) for message in messages], **_plain(variables), **switches}

    def _marked(self, inputs: Mapping[str, Any], today: date | None) -> tuple[Marks, str]:
        """The rendered text with marks for the template's special tokens, after the checks of guarantee 3."""
        if today is not None and not self.asks_date:
            raise PromptError(
                "expected a chat template that asks which day it is, got one that does not",
                hint="leave today out, or give it to one side of a dialogue: --a-today",
            )
        marks = choose_marks(self.tokenizer.specials, [self.source, *_strings(inputs)])
        text = self._rendered(inputs, today, marks)
        if marks.restore(text) != self._rendered(inputs, today, None):
            raise UnsupportedError(
                f"{self.path}: the template computes with the text of its special tokens in a way that is not supported",
                hint="compare with literal text directly, as published templates do",
            )
        self._check_origin(text, inputs, marks)
        if any(map(marks.found, _strings(inputs))):
            harmless = _mapped(inputs, marks)
            self._check_origin(self._rendered(harmless, today, marks), harmless, marks)
        return marks, text

    def _check_origin(self, text: str, inputs: Mapping[str, Any], marks: Marks) -> None:
        """Each name spelt out in the text must be in one input whole: else the template put it together, perhaps from inputs."""
        whole = set().union(*map(marks.found, _strings(inputs)))
        if strange := sorted(marks.found(text) - whole):
            raise UnsupportedError(
                f"{self.path}: {strange[0]!r} appears in the rendered chat, neither whole in the template's text nor whole in one message",
                hint="its origin cannot be told, so it is refused; see the rule in formation.text.chat",
            )

    def _rendered(self, inputs: Mapping[str, Any], today: date | None, marks: Marks | None) -> str:
        roles = {role: marks.mark(name) if marks else name for role, name in self.tokenizer.names.items()}
        context = {**roles, **inputs, _TODAY: Clock(today), TURN: Turns()}
        try:
            return joined(_compiled(self.source, marks).generate(context))
        except _FAULTS as error:
            raise PromptError(f"{self.path}: the template cannot render these messages: {error}", hint="see the template") from error


@lru_cache(maxsize=8)
def _compiled(source: str, marks: Marks | None) -> Template:
    tree = _environment.parse(source)
    if marks is not None:
        tree = MarkLiterals(marks).visit(tree)
    return _environment.from_string(CountTurns().visit(tree))


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    plain = _plain(message)
    if not isinstance(plain, dict) or not isinstance(plain.get("role"), str):
        raise PromptError("expected each message to have a role", hint='write {"role": "user", "content": "..."}')
    return plain


def _plain(value: Any) -> Any:
    """A copy made of dict, list, exact str, int, float, bool and None only. Raises PromptError."""
    if isinstance(value, str):
        return well_formed(str(value))
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    raise PromptError(f"expected text, numbers, lists and objects in messages, got {type(value).__name__}", hint="pass plain JSON values")


def _mapped(value: Any, marks: Marks) -> Any:
    if isinstance(value, str):
        return marks.neutral(value)
    if isinstance(value, Mapping):
        return {_mapped(key, marks): _mapped(item, marks) for key, item in value.items()}
    return [_mapped(item, marks) for item in value] if isinstance(value, list) else value


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def load_template(folder: Path, tokenizer: Tokenizer, *, name: str = "default") -> ChatTemplate | None:
    """The folder's chat template: chat_template.jinja, else `chat_template` of tokenizer_config.json, else None.

    `name` chooses where that key holds several. Raises CheckpointError, UnsupportedError, ReadError.
    """
    path, config_path = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if path.exists():
        return _checked(read_text(path), path, tokenizer)
    stated = read_object(config_path).get("chat_template") if config_path.exists() else None
    if stated is None:
        return None
    return _checked(stated if isinstance(stated, str) else _named(stated, name, config_path), config_path, tokenizer)


def _named(stated: Any, name: str, path: Path) -> str:
    entries = [entry for entry in stated if isinstance(entry, dict)] if isinstance(stated, list) else []
    sources = [entry.get("template") for entry in entries if entry.get("name") == name]
    if len(sources) != 1 or not isinstance(sources[0], str):
        names = ", ".join(str(entry.get("name")) for entry in entries) or "none"
        raise CheckpointError(f"{path}: expected one chat template named {name!r}, got {names}", hint="choose one of its names")
    return sources[0]


def _checked(source: str, path: Path, tokenizer: Tokenizer) -> ChatTemplate:
    try:
        tree = _environment.parse(source)
        _compiled(source, None)
    except TemplateSyntaxError as error:
        fault = f"{path}: line {error.lineno} of the chat template: {error.message}"
        raise CheckpointError(fault, hint="download the file again") from error
    if next(tree.find_all(_OTHER_FILES), None) is not None:
        raise UnsupportedError(f"{path}: the chat template asks for another file", hint="write it as one template")
    return ChatTemplate(source, path, tokenizer)


def stop_ids(tokenizer: Tokenizer, generation_config: Mapping[str, Any], template: ChatTemplate | None) -> tuple[int, ...]:
    """Ids that end a generation, ascending: eos of the tokenizer and of generation_config.json; in a chat also `<|im_end|>`.

    `template` is None for text that is continued rather than answered. Raises CheckpointError for an eos outside the vocabulary.
    """
    ids = {*tokenizer.eos_ids, *config_ids(generation_config, "eos_token_id")}
    if template is not None and END_OF_TURN in tokenizer.specials:
        ids.add(tokenizer.specials[END_OF_TURN])
    if outside := sorted(number for number in ids if number >= tokenizer.rows):
        hint = "check config.json and generation_config.json"
        raise CheckpointError(f"expected eos ids below {tokenizer.rows}, got {outside[0]}", hint=hint)
    return tuple(sorted(ids))
