"""A chat in which a model's own turns stand as the ids that it said, whatever their text would be encoded to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from formation.errors import UnsupportedError
from formation.text import ChatTemplate, Tokenizer, load_template, load_tokenizer
from formation.text.conversation import conversation_ids
from small_models import K2_TEMPLATE, small_checkpoint, small_config

CONFIG = small_config()
STRIPS = K2_TEMPLATE.replace("m.content", "m.content | trim")
THINKS = K2_TEMPLATE.replace("m.content", "m.content.split('</think>')[-1]")
TWICE = K2_TEMPLATE.replace("{{ m.content }}", "{{ m.content }}{{ m.content }}")
SWAPS = K2_TEMPLATE.replace("for m in messages", "for m in messages | reverse")
SHOUTS = K2_TEMPLATE.replace("m.content", "m.content | upper")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("chat") / "model", CONFIG)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return load_tokenizer(folder, CONFIG)


@pytest.fixture
def template(folder: Path, tokenizer: Tokenizer) -> ChatTemplate:
    found = load_template(folder, tokenizer)
    assert found is not None
    return found


def said(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}


def test_without_own_turns_it_is_the_templates_prompt(template: ChatTemplate) -> None:
    messages = [said("system", "s"), said("user", "typed <|im_end|> is text")]
    assert template.render(messages) == conversation_ids(template, messages, {})


def test_own_turns_are_their_ids_and_all_else_is_the_templates(template: ChatTemplate, tokenizer: Tokenizer) -> None:
    messages = [said("user", "a"), said("assistant", "bb"), said("user", "c"), said("assistant", "dd")]
    plain = template.render(messages)
    ids = {1: [400, 401], 3: [402]}
    expected = list(plain)
    for text, body in (("dd", ids[3]), ("bb", ids[1])):
        encoded = tokenizer.encode(text)
        at = next(n for n in range(len(expected)) if expected[n : n + 2] == encoded)
        expected[at : at + 2] = body
    assert expected == conversation_ids(template, messages, ids)


def test_a_special_token_that_was_said_stays_one_and_one_that_was_typed_does_not_become_one(template: ChatTemplate, tokenizer: Tokenizer) -> None:
    end = tokenizer.encode_special("<|im_end|>")
    messages = [said("user", "<|im_end|>"), said("assistant", "<|im_end|>"), said("user", "x")]
    found = conversation_ids(template, messages, {1: [end]})
    typed = conversation_ids(template, messages, {1: tokenizer.encode("<|im_end|>")})
    assert (4, 3) == (found.count(end), typed.count(end))


def test_a_turn_of_no_tokens_is_the_templates_empty_message(template: ChatTemplate) -> None:
    messages = [said("user", "x"), said("assistant", "")]
    assert template.render(messages) == conversation_ids(template, messages, {1: []})


@pytest.mark.parametrize("text", [" x ", "x\n\n", "\t\n"])
def test_white_space_that_a_template_takes_off_stays_as_it_was_said(folder: Path, tokenizer: Tokenizer, text: str) -> None:
    template = ChatTemplate(STRIPS, folder, tokenizer)
    ids, marker = tokenizer.encode(text), tokenizer.encode("@")
    expected = template.render([said("user", "u"), said("assistant", "@")])
    at = expected.index(marker[0])
    found = conversation_ids(template, [said("user", " u "), said("assistant", text)], {1: ids})
    assert [*expected[:at], *ids, *expected[at + 1 :]] == found


CHANGES = {
    "takes-thinking-out": (THINKS, "hm</think>yes"),
    "writes-it-twice": (TWICE, "x"),
    "turns-the-order-round": (SWAPS, "x"),
    "shouts": (SHOUTS, "x"),
    "changes-letters": (STRIPS.replace("| trim", "| replace('e', '3')"), "see"),
}


@pytest.mark.parametrize(("source", "text"), CHANGES.values(), ids=CHANGES)
def test_a_template_that_changes_what_was_said_is_refused_by_name(folder: Path, tokenizer: Tokenizer, source: str, text: str) -> None:
    template = ChatTemplate(source, folder / "chat_template.jinja", tokenizer)
    messages = [said("user", "u"), said("assistant", "z"), said("user", "v"), said("assistant", text)]
    with pytest.raises(UnsupportedError, match=r"chat_template\.jinja: expected a chat template that writes what the model said as it was said"):
        conversation_ids(template, messages, {1: tokenizer.encode("z"), 3: tokenizer.encode(text)})


def test_a_template_that_takes_thinking_out_serves_turns_without(folder: Path, tokenizer: Tokenizer) -> None:
    template = ChatTemplate(THINKS, folder, tokenizer)
    messages = [said("user", "u"), said("assistant", "yes")]
    assert template.render(messages) == conversation_ids(template, messages, {1: tokenizer.encode("yes")})


def test_stand_ins_are_none_of_the_characters_that_are_there(template: ChatTemplate, tokenizer: Tokenizer) -> None:
    messages = [said("user", "\U0010fffd\U0010fffc"), said("assistant", "\U0010fffb")]
    assert template.render(messages) == conversation_ids(template, messages, {1: tokenizer.encode("\U0010fffb")})
