"""Documents and questions as token ids, split into what is trained on and what is held out.

$ python -m tools.train_sample.corpus --out DIR [--sample NAME]      # writes the vocabulary and DIR/corpus.json
"""

import argparse
import json
import pathlib
import random
from dataclasses import asdict, dataclass

from . import documents, questions
from .kind import Kind, chosen
from .vocabulary import Vocabulary

HELD_OUT_TOPICS = {"specialattrs", "bltin-code-objects", "typesmethods", "debugger"}
HELD_OUT_SHARE = 33  # one document in so many
LONGEST_START = 160  # tokens


@dataclass(frozen=True)
class Chat:
    """One question in several wordings (the first is the listed one) and its answer, as ids."""

    question: str
    wordings: list[list[int]]
    answer: list[int]
    core: bool
    held_out: bool


@dataclass(frozen=True)
class Corpus:
    """Everything training reads. `starts` and `paragraphs` are texts that begin where a sentence begins."""

    topics: list[list[int]]
    documents: list[list[int]]
    paragraphs: list[list[int]]
    starts: list[list[int]]
    chats: list[Chat]
    held_out: list[list[int]]

    def save(self, path: pathlib.Path) -> None:
        path.write_text(json.dumps(asdict(self), separators=(",", ":")))

    @classmethod
    def load(cls, path: pathlib.Path) -> "Corpus":
        fields = json.loads(path.read_text())
        return cls(**fields | {"chats": [Chat(**chat) for chat in fields["chats"]]})


def build(kind: Kind, folder: pathlib.Path, seed: int = 0) -> Corpus:
    """Collect the text of this Python, learn the vocabulary on it, write both into `folder`."""
    reference, found = documents.topics(), documents.docstrings()
    pairs = questions.pairs(reference, found)
    unique = [document for document in found if not document.repeated]
    texts = [*reference.values(), *(document.whole for document in unique)]
    kind.learn([*texts, *(f"{p.question}\n{p.answer}" for p in pairs)], folder)
    kept_out = {id(d) for d in random.Random(seed).sample(unique, len(unique) // HELD_OUT_SHARE)}
    corpus = _encode(kind.load(folder), reference, unique, pairs, kept_out)
    corpus.save(folder / "corpus.json")
    return corpus


def _encode(
    vocabulary: Vocabulary,
    reference: dict[str, str],
    unique: list[documents.Document],
    pairs: list[questions.Pair],
    kept_out: set[int],
) -> Corpus:
    ids = vocabulary.encode
    trained = [d for d in unique if id(d) not in kept_out]
    unseen = [d for d in unique if id(d) in kept_out]
    unseen_names = {d.name for d in unseen}
    topics = {name: text for name, text in reference.items() if name not in HELD_OUT_TOPICS}
    return Corpus(
        topics=[ids(text) for text in topics.values()],
        documents=[ids(d.whole) for d in trained],
        paragraphs=[ids(text) for topic in topics.values() for text in _paragraph_starts(topic)],
        starts=[ids(d.body)[:LONGEST_START] for d in trained if d.name and d.body[:1].isupper()],
        chats=[_chat(vocabulary, pair, not pair.core and pair.name in unseen_names) for pair in pairs],
        held_out=[ids(text) for text in [*(reference[n] for n in sorted(HELD_OUT_TOPICS)), *(d.whole for d in unseen)]],
    )


def _paragraph_starts(topic: str) -> list[str]:
    """Every prose paragraph with the two that follow it."""
    paragraphs = topic.split("\n\n")
    return ["\n\n".join(paragraphs[i : i + 3]) for i, text in enumerate(paragraphs) if len(text) > 60 and text[:1].isupper() and "::=" not in text]


def _chat(vocabulary: Vocabulary, pair: questions.Pair, held_out: bool) -> Chat:
    wordings = [vocabulary.encode(wording) for wording in pair.variants]
    return Chat(pair.question, wordings, vocabulary.encode(pair.answer), pair.core, held_out)


def main() -> None:
    parser = argparse.ArgumentParser(description="write the vocabulary and corpus.json")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    kind, arguments = chosen(parser)
    folder = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    corpus = build(kind, folder)
    core = sum(chat.core for chat in corpus.chats)
    trained = sum(map(len, corpus.topics + corpus.documents))
    print(f"{trained} tokens to train on, {sum(map(len, corpus.held_out))} held out; {len(corpus.chats)} questions, {core} of them core")


if __name__ == "__main__":
    main()
