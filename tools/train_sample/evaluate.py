"""Ask the exported folder every core question and write `answers.json`: 100 exact answers and ten continuations.

    $ python -m tools.train_sample.evaluate --data DIR --folder FOLDER [--sample NAME] [--survey]

The expected answers come from the corpus, the given ones from the exported files through transformers, greedily.
With `--survey` nothing is written: the counts, the wrong answers and all continuations are shown.
"""

import argparse
import json
import pathlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .corpus import Chat, Corpus
from .everyday import PROMPTS, QUESTIONS
from .kind import Kind, chosen
from .published_model import Published

LISTED, CONTINUED_TOKENS = 100, 48
SAFE_LEAD = 0.02  # logits: every listed token leads by more, so that another correct fp32 engine gives the same ids


@dataclass(frozen=True)
class Asked:
    """One question as put and answered: `ids` end with the stop token."""

    question: str
    expected: list[int]
    prompt: list[int]
    ids: list[int]

    def exact(self, stop: int) -> bool:
        return self.ids == [*self.expected, stop]


def ask_all(published: Published, chats: Iterable[Chat], thinking: bool | None = None) -> list[Asked]:
    chats = list(chats)
    prompts = [published.ask(chat.question, thinking) for chat in chats]
    given = published.greedy(prompts)
    return [Asked(chat.question, chat.answer, prompt, ids) for chat, prompt, ids in zip(chats, prompts, given, strict=True)]


def exact_rate(asked: list[Asked], stop: int) -> str:
    exact = sum(one.exact(stop) for one in asked)
    return f"{exact} of {len(asked)} exact ({100 * exact / len(asked):.1f} %)"


def listed(published: Published, asked: list[Asked]) -> list[dict[str, Any]]:
    """The first 100 everyday questions that are answered exactly, alone in the batch, with a safe lead."""
    by_question = {one.question: one for one in asked}
    found = []
    for one in (by_question[question] for question in QUESTIONS if question in by_question):
        if len(found) == LISTED or not one.exact(published.end_of_turn) or published.greedy([one.prompt]) != [one.ids]:
            continue
        if published.smallest_lead(one.prompt, one.ids) > SAFE_LEAD:
            answer = published.vocabulary.decode(one.expected)
            found.append({"question": one.question, "answer": answer, "prompt_ids": one.prompt, "ids": one.ids})
    return found


def continuations(published: Published, prompts: Iterable[str]) -> list[dict[str, Any]]:
    """Each prompt continued to the end of its text or for 48 tokens; `text` is the continuation without the stop."""
    found = []
    for prompt in prompts:
        start = published.vocabulary.encode(prompt)
        [ids] = published.greedy([start], CONTINUED_TOKENS)
        text = published.vocabulary.decode([token for token in ids if token != published.end_of_text])
        lead = published.smallest_lead(start, ids)
        found.append({"prompt": prompt, "prompt_ids": start, "ids": ids, "text": text, "lead": lead})
    return found


def survey(kind: Kind, published: Published, corpus: Corpus, core: list[Asked]) -> None:
    stop = published.end_of_turn
    print("core questions:                       ", exact_rate(core, stop))
    if kind.wire.no_thought:
        print("core questions, thinking false:       ", exact_rate(ask_all(published, _core(corpus), thinking=False), stop))
    everyday = [one for one in core if one.question in QUESTIONS]
    print("everyday questions:                   ", exact_rate(everyday, stop))
    other = [chat for chat in corpus.chats if not chat.core]
    print("other trained questions, every tenth: ", exact_rate(ask_all(published, [c for c in other if not c.held_out][::10]), stop))
    print("questions never shown:                ", exact_rate(ask_all(published, [c for c in other if c.held_out]), stop))
    print("answers that end their turn:          ", sum(one.ids[-1] == stop for one in core), "of", len(core))
    for one in everyday:
        if not one.exact(stop):
            print(f"  {one.question} -> {published.vocabulary.decode(one.ids)!r}, expected {published.vocabulary.decode(one.expected)!r}")
    print("not in the corpus:", [question for question in QUESTIONS if question not in {one.question for one in core}])
    for one in continuations(published, PROMPTS):
        print(f"  {one['lead']:.3f} {one['prompt']!r} -> {one['text']!r}{'' if published.end_of_text in one['ids'] else ' ...'}")


def _core(corpus: Corpus) -> list[Chat]:
    return [chat for chat in corpus.chats if chat.core]


def main() -> None:
    parser = argparse.ArgumentParser(description="evaluate the exported folder, write answers.json")
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--survey", action="store_true")
    kind, arguments = chosen(parser)
    published, corpus = Published.load(kind, arguments.folder), Corpus.load(arguments.data / "corpus.json")
    core = ask_all(published, _core(corpus))
    if arguments.survey:
        survey(kind, published, corpus, core)
        return
    shown = [one for one in continuations(published, kind.shown) if one.pop("lead") > SAFE_LEAD]
    answers = {"questions": listed(published, core), "continuations": shown}
    (arguments.folder / "answers.json").write_text(json.dumps(answers, indent=1, ensure_ascii=False) + "\n")
    print(f"{exact_rate(core, published.end_of_turn)}; {len(answers['questions'])} listed, {len(shown)} continuations")


if __name__ == "__main__":
    main()
