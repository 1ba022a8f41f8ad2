"""The shipped sample checkpoints: their tokenizer and template are read, and prompts have the published wire format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import formation
from formation.text import load_template, load_tokenizer, stop_ids

SAMPLES = Path(formation.__file__).parent / "samples"
OPENINGS = {"kimi_k25": "<|im_user|>user<|im_middle|>", "qwen3_next": "<|im_start|>user\n"}


@pytest.mark.parametrize("name", OPENINGS)
def test_a_sample_checkpoint_turns_a_question_into_a_prompt(name: str) -> None:
    folder = SAMPLES / name
    tokenizer = load_tokenizer(folder, json.loads((folder / "config.json").read_text()))
    chat = load_template(folder, tokenizer)
    assert chat is not None
    ids = chat.render([{"role": "user", "content": "What does len do?"}])
    assert f"{OPENINGS[name]}What does len do?<|im_end|>" in tokenizer.decode(ids)
    assert max(ids) < tokenizer.size <= tokenizer.rows
    assert tokenizer.encode_special("<|im_end|>") in stop_ids(tokenizer, {}, chat)
    assert tokenizer.decode(tokenizer.encode("What does len do? <|im_end|> 漢字 🙂")) == "What does len do? <|im_end|> 漢字 🙂"
