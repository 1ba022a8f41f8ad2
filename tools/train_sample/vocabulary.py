"""What training needs of a vocabulary, and how a byte-level BPE is learned."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers


class Vocabulary(Protocol):
    """Text to ids and back. Special tokens are only recognised where `encode_marked` says so."""

    def encode(self, text: str) -> list[int]: ...

    def encode_marked(self, text: str) -> list[int]:
        """Ids of text in which names of special tokens are those tokens."""
        ...

    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class Wire:
    """How a chat is written, as texts with special tokens in them.

    A message is `before_system` or `before_user`, its text, and `end_of_turn`; then, before the next message, `between`.
    """

    end_of_text: str
    end_of_turn: str
    before_system: str
    before_user: str
    before_answer: str
    between: str = ""
    no_thought: str = ""  # put before half of the answers


def learn_bytes(texts: Iterable[str], pattern: str, size: int) -> Tokenizer:
    """A byte-level BPE of `size` tokens without special ones: the 256 single bytes, then merges."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    learner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False))
    return learner
