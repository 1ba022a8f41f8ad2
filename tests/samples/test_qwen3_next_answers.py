"""The second sample answers, through the engine, what its answers.json says it answers: the same bits however it is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import formation
from formation.text import load_tokenizer
from formation.text.prompt import chat_prompt

LONGEST = 80  # generated tokens


@pytest.fixture(scope="module")
def listed(qwen_folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((qwen_folder / "answers.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def engine(qwen_folder: Path):
    with formation.Engine(formation.open(qwen_folder), memory="64MiB", threads=1) as e:
        yield e


def greedy_at_once(engine: formation.Engine, entry: dict[str, Any]) -> list[int]:
    """The best token behind the prompt and behind each listed id but the last, in one pass: what greedy decoding generates, if all are the
    listed ones. That a pass and a generation are the same bits is tested below."""
    logits = engine.logits(entry["prompt_ids"] + entry["ids"][:-1])
    best: list[int] = logits[-len(entry["ids"]) :].argmax(1).tolist()
    return best


def test_all_of_the_100_listed_questions_are_answered_exactly(engine: formation.Engine, listed: dict[str, Any]) -> None:
    expected = {entry["question"]: entry["ids"] for entry in listed["questions"]}
    assert len(expected) == 100
    assert expected == {entry["question"]: greedy_at_once(engine, entry) for entry in listed["questions"]}


def test_the_ten_listed_continuations_are_what_the_engine_continues(engine: formation.Engine, listed: dict[str, Any]) -> None:
    expected = {entry["prompt"]: entry["ids"] for entry in listed["continuations"]}
    assert len(expected) == 10
    assert expected == {entry["prompt"]: greedy_at_once(engine, entry) for entry in listed["continuations"]}


def test_every_tenth_question_put_as_a_chat_is_answered_and_ends_its_turn(engine: formation.Engine, listed: dict[str, Any]) -> None:
    tokenizer = load_tokenizer(engine.checkpoint.path, engine.checkpoint.config)
    for entry in listed["questions"][::10]:
        prompt = chat_prompt(engine.checkpoint.path, tokenizer, entry["question"])
        ids = [step.id for step in engine.generate(prompt.ids, LONGEST, stop=prompt.stop)]
        assert entry["answer"] == tokenizer.decode(ids[:-1])
        assert ids[-1] in prompt.stop


@pytest.mark.parametrize(
    "options", [{"threads": 2}, {"threads": 3}, {"keep_cache": False}, {"memory": "4MiB"}], ids=["2 threads", "3 threads", "no cache", "4 MiB"]
)
def test_an_answer_is_the_same_bits_however_it_is_run(
    qwen_folder: Path, engine: formation.Engine, listed: dict[str, Any], options: dict[str, Any]
) -> None:
    entry = listed["questions"][0]
    expected = [step.logits for step in engine.generate(entry["prompt_ids"], len(entry["ids"]))]
    with formation.Engine(formation.open(qwen_folder), **{"memory": "64MiB", **options}) as other:
        found = [step.logits for step in other.generate(entry["prompt_ids"], len(entry["ids"]))]
    assert np.stack(expected).tobytes() == np.stack(found).tobytes()


def test_a_prompt_at_once_is_the_same_bits_as_token_by_token(engine: formation.Engine, listed: dict[str, Any]) -> None:
    entry = listed["questions"][0]
    steps = [step.logits for step in engine.generate(entry["prompt_ids"], len(entry["ids"]))]
    whole = engine.logits(entry["prompt_ids"] + entry["ids"][:-1])
    assert np.stack(steps).tobytes() == whole[-len(steps) :].tobytes()
