"""The exported folder, run by transformers in fp32: nothing here sees the training state."""

import json
import pathlib
from dataclasses import dataclass

import jinja2
import torch
from torch import nn

from .kind import Kind
from .vocabulary import Vocabulary

LONGEST = 120  # generated tokens


@dataclass(frozen=True)
class Published:
    """A loaded folder: the model, its tokenizer and its chat template."""

    model: nn.Module
    vocabulary: Vocabulary
    template: jinja2.Template
    end_of_turn: int
    end_of_text: int

    @classmethod
    def load(cls, kind: Kind, folder: pathlib.Path) -> "Published":
        vocabulary = kind.load(folder)
        template = jinja2.Environment(autoescape=False).from_string(_template(folder))
        [end_of_turn], [end_of_text] = (vocabulary.encode_marked(name) for name in (kind.wire.end_of_turn, kind.wire.end_of_text))
        return cls(kind.reference(folder), vocabulary, template, end_of_turn, end_of_text)

    def ask(self, question: str, thinking: bool | None = None) -> list[int]:
        """The prompt's ids; `thinking` None leaves the template's variable undefined."""
        variables = {} if thinking is None else {"thinking": thinking}
        messages = [{"role": "user", "content": question}]
        return self.vocabulary.encode_marked(self.template.render(messages=messages, add_generation_prompt=True, **variables))

    @torch.no_grad()
    def greedy(self, prompts: list[list[int]], limit: int = LONGEST) -> list[list[int]]:
        """New ids for each prompt, the stop included; prompts of one length run together, so none is padded."""
        lengths: dict[int, list[int]] = {}
        for i, prompt in enumerate(prompts):
            lengths.setdefault(len(prompt), []).append(i)
        found: list[list[int]] = [[] for _ in prompts]
        for length, members in lengths.items():
            batch = torch.tensor([prompts[i] for i in members])
            stops = [self.end_of_turn, self.end_of_text]
            options = {"max_new_tokens": limit, "do_sample": False, "eos_token_id": stops, "pad_token_id": self.end_of_text}
            rows = self.model.generate(batch, attention_mask=torch.ones_like(batch), **options)
            for i, row in zip(members, rows[:, length:].tolist(), strict=True):
                found[i] = self._until_stop(row)
        return found

    def _until_stop(self, row: list[int]) -> list[int]:
        stops = [i for i, token in enumerate(row) if token in (self.end_of_turn, self.end_of_text)]
        return row[: stops[0] + 1] if stops else row

    @torch.no_grad()
    def smallest_lead(self, prompt: list[int], generated: list[int]) -> float:
        """The smallest lead of a generated token's logit over the next best; negative if one was not the best."""
        logits = self.model(torch.tensor([prompt + generated]), use_cache=False).logits[0, len(prompt) - 1 : -1]  # [n,V]
        chosen = torch.tensor(generated)[:, None]
        others = logits.scatter(1, chosen, float("-inf")).max(-1).values
        return float((logits.gather(1, chosen)[:, 0] - others).min())


def _template(folder: pathlib.Path) -> str:
    """A file of its own, or a key of the tokenizer's config"""
    path = folder / "chat_template.jinja"
    return path.read_text() if path.exists() else json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
