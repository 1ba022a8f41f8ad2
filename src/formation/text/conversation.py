"""A chat in which some messages stand as the ids they were said in: a model's own earlier turns, never encoded again from their text.

The template renders such a message with a stand-in, one private-use character, in the place of its text; the ids take the stand-in's place. That is
refused where a template does anything with a message's text but write it: what it would have done is then not known for ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from itertools import islice
from typing import Any

from formation.errors import UnsupportedError
from formation.text.chat import ChatTemplate

LAST, FIRST = 0x10FFFD, 0x100000  # private use plane 16, from its end: marks.py takes the lowest


def conversation_ids(
    template: ChatTemplate, messages: Sequence[Mapping[str, Any]], bodies: Mapping[int, Sequence[int]], *, thinking: bool | None = None,
    today: date | None = None,
) -> list[int]:  # fmt: skip
    """The ids of `conversation_parts`, one after the other. Raises as that does."""
    return [token for _, ids in conversation_parts(template, messages, bodies, thinking=thinking, today=today) for token in ids]


def conversation_parts(
    template: ChatTemplate, messages: Sequence[Mapping[str, Any]], bodies: Mapping[int, Sequence[int]], *, thinking: bool | None = None,
    today: date | None = None,
) -> list[tuple[int | None, list[int]]]:  # fmt: skip
    """The ids of the prompt that `template.render` gives, but for the messages at the places of `bodies`, whose text is these ids; each of these is
    a part of its own, with its place, and what stands before, between and after them is one with None.

    White space that the template takes off the ends of such a message stays where it was said. Raises PromptError as `render` does, and
    UnsupportedError for a template that changes such a message otherwise.
    """
    places = sorted(place for place, ids in bodies.items() if ids)
    stand_ins = dict(zip(places, islice(unused(template, messages), len(places)), strict=True))
    standing = [{**m, "content": stand_ins.get(n, m["content"])} for n, m in enumerate(messages)]
    (marks, text), (own, as_said) = (template.marked(each, thinking=thinking, today=today) for each in (standing, messages))
    parts = split(template, text, stand_ins)
    texts = [str(messages[place]["content"]) for place in places]
    check_written(template, [marks.restore(part) for part in parts], texts, own.restore(as_said))
    found: list[tuple[int | None, list[int]]] = [(None, template.encode(marks, parts[0]))]
    for place, part in zip(places, parts[1:], strict=True):
        found += [(place, list(bodies[place])), (None, template.encode(marks, part))]
    return found


def unused(template: ChatTemplate, messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Private-use characters that nothing in the rendering holds"""
    used = set(template.source).union(*(str(message["content"]) for message in messages))
    return (chr(code) for code in range(LAST, FIRST - 1, -1) if chr(code) not in used)


def split(template: ChatTemplate, text: str, stand_ins: Mapping[int, str]) -> list[str]:
    """What stands before, between and after the stand-ins"""
    if not stand_ins:
        return [text]
    found, own = re.split(f"([{''.join(stand_ins.values())}])", text), list(stand_ins.values())
    if found[1::2] != own:
        wrong = [number for number, stand_in in enumerate(own) if found[1::2][number : number + 1] != [stand_in]]
        raise refusal(template, wrong[0] if wrong else len(own) - 1)
    return found[0::2]


def check_written(template: ChatTemplate, parts: Sequence[str], texts: Sequence[str], rendered: str) -> None:
    """That these texts stand in what the template renders between these parts, but for white space at their ends"""
    at = len(parts[0]) if rendered.startswith(parts[0]) else -1
    for number, (text, part) in enumerate(zip(texts, parts[1:], strict=True)):
        forms = (text, text.lstrip(), text.rstrip(), text.strip(), text.strip("\n"))
        form = next((form for form in forms if at >= 0 and rendered.startswith(form + part, at)), None)
        if form is None:
            raise refusal(template, number)
        at += len(form) + len(part)
    if at != len(rendered):
        raise refusal(template, len(texts) - 1)


def refusal(template: ChatTemplate, number: int) -> UnsupportedError:
    return UnsupportedError(
        f"{template.path}: expected a chat template that writes what the model said as it was said, got one that changes its message {number + 1}",
        hint="earlier turns are fed back as the tokens they were said in; where it takes their thinking out, turn thinking off",
    )
