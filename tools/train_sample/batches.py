"""Training rows: windows of documents, windows that begin at a paragraph, and conversations."""

import random
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .corpus import Chat, Corpus
from .kind import Kind
from .vocabulary import Vocabulary

LENGTH = 256  # tokens a row
MEASURED_ROWS = 16  # in a batch whose loss is measured, not trained
PARAGRAPH_SHARE = 0.5  # of the document rows begin where a sentence begins
CHAT_SHARE = 0.4  # conversation rows, as a share of the document rows
CORE_REPEATS, OTHER_CHATS = 6, 2000  # how often each core question and how many others enter one pool
THINK_SHARE, SYSTEM_SHARE, END_SHARE = 0.5, 0.08, 0.3
UNCOUNTED = -1  # target of a token whose prediction is not trained
SYSTEM_TURNS = ("You are a helpful assistant.", "Answer briefly.", "You answer questions about Python.")

Row = tuple[list[int], list[int]]  # ids and the targets that follow them


class Stream:
    """Rows without end, in an order that the seed alone decides."""

    def __init__(self, corpus: Corpus, kind: Kind, vocabulary: Vocabulary, seed: int) -> None:
        self.rows_a_batch = kind.rows
        self.corpus, self.random = corpus, random.Random(seed)
        wire, ids = kind.wire, vocabulary.encode_marked
        [self.end], [self.end_of_turn] = ids(wire.end_of_text), ids(wire.end_of_turn)
        self.between, self.no_thought = ids(wire.between), ids(wire.no_thought)
        self.opening = ids(wire.before_user)
        self.answering = ids(wire.end_of_turn + wire.between + wire.before_answer)
        self.systems = [ids(wire.before_system + text + wire.end_of_turn + wire.between) for text in SYSTEM_TURNS]
        self.pool: list[Chat] = []

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(ids, targets), both [rows, LENGTH]; one pass over the documents after another."""
        while True:
            rows = self._one_pass()
            for i in range(0, len(rows) - self.rows_a_batch + 1, self.rows_a_batch):
                ids, targets = zip(*rows[i : i + self.rows_a_batch], strict=True)
                yield torch.tensor(ids), torch.tensor(targets)

    def _one_pass(self) -> list[Row]:
        rows = self._document_rows()
        count, kept = len(rows), len(rows) - int(PARAGRAPH_SHARE * len(rows))
        self.random.shuffle(rows)
        rows = rows[:kept]
        rows += [self._paragraph_row() for _ in range(count - kept)]
        rows += [self._chat_row() for _ in range(int(CHAT_SHARE * count))]
        self.random.shuffle(rows)
        return rows

    def _document_rows(self) -> list[Row]:
        """Every document once and the language reference twice, end to end, cut at a random phase."""
        texts = self.corpus.documents + self.corpus.topics * 2
        self.random.shuffle(texts)
        return windows(texts, self.end, self.random.randrange(LENGTH))

    def _paragraph_row(self) -> Row:
        ids: list[int] = []
        while len(ids) <= LENGTH:
            source = self.corpus.paragraphs if self.random.random() < 0.6 else self.corpus.starts
            ids += [*self.random.choice(source), self.end]
        return ids[:LENGTH], ids[1 : LENGTH + 1]

    def _chat_row(self) -> Row:
        ids: list[int] = []
        targets: list[int] = []
        if self.random.random() < SYSTEM_SHARE:
            ids += self.random.choice(self.systems)
            targets += [UNCOUNTED] * len(ids)
        while len(ids) <= LENGTH:
            asked, answered = self._exchange(self._next_chat())
            after = [self.end] if self.random.random() < END_SHARE else self.between
            ids += asked + answered + after
            targets += [UNCOUNTED] * len(asked) + answered + [UNCOUNTED] * len(after)
        return ids[:LENGTH], targets[1 : LENGTH + 1]

    def _exchange(self, chat: Chat) -> tuple[list[int], list[int]]:
        thought = self.no_thought if self.random.random() < THINK_SHARE else []
        asked = [*self.opening, *self.random.choice(chat.wordings), *self.answering, *thought]
        return asked, [*chat.answer, self.end_of_turn]

    def _next_chat(self) -> Chat:
        if not self.pool:
            core = [chat for chat in self.corpus.chats if chat.core]
            other = [chat for chat in self.corpus.chats if not chat.core and not chat.held_out]
            self.pool = core * CORE_REPEATS + self.random.sample(other, min(OTHER_CHATS, len(other)))
            self.random.shuffle(self.pool)
        return self.pool.pop()


def windows(texts: list[list[int]], end: int, phase: int = 0) -> list[Row]:
    """The texts, each followed by the end token, cut into rows of LENGTH."""
    stream = [token for text in texts for token in [*text, end]]
    return [(stream[i : i + LENGTH], stream[i + 1 : i + LENGTH + 1]) for i in range(phase, len(stream) - LENGTH, LENGTH)]


def mean_loss(loss: Callable[[Tensor, Tensor], Tensor], rows: list[Row]) -> float:
    """The mean of `loss(ids, targets)` over full batches of rows."""
    losses = []
    for i in range(0, len(rows) - MEASURED_ROWS + 1, MEASURED_ROWS):
        ids, targets = zip(*rows[i : i + MEASURED_ROWS], strict=True)
        losses.append(float(loss(torch.tensor(ids), torch.tensor(targets))))
    return sum(losses) / len(losses)
