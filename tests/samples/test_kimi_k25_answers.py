"""The sample checkpoint answers, through the engine, what its answers.json says it answers."""

from __future__ import annotations

import json

import pytest

import formation
from formation.samples import folder
from formation.text import load_tokenizer
from formation.text.prompt import chat_prompt

FOLDER = folder("kimi_k25")
LISTED = json.loads((FOLDER / "answers.json").read_text())


@pytest.fixture(scope="module")
def engine():
    with formation.Engine(formation.open(FOLDER), memory="64MiB", threads=1) as e:
        yield e


def test_at_least_95_of_the_100_listed_questions_are_answered_exactly(engine: formation.Engine) -> None:
    tokenizer, exact = load_tokenizer(FOLDER, engine.checkpoint.config), 0
    assert len(LISTED["questions"]) == 100
    for listed in LISTED["questions"]:
        prompt = chat_prompt(engine.checkpoint.path, tokenizer, listed["question"], thinking=False)
        ids = [step.id for step in engine.generate(prompt.ids, 80, stop=prompt.stop)]
        exact += ids[-1] in prompt.stop and tokenizer.decode(ids[:-1]) == listed["answer"]
    assert exact >= 95


def test_the_ten_listed_continuations_are_what_the_engine_continues(engine: formation.Engine) -> None:
    assert len(LISTED["continuations"]) == 10
    for listed in LISTED["continuations"]:
        ids = [step.id for step in engine.generate(listed["prompt_ids"], len(listed["ids"]))]
        assert listed["ids"] == ids
