"""The first sample's vocabulary: a byte-level BPE with Kimi K2's split pattern, and K2's special tokens at K2's offsets."""

import base64
import pathlib
from collections.abc import Iterable, Sequence

import tiktoken

from ..vocabulary import Wire, learn_bytes

FILE = "tiktoken.model"
BASE, SPECIALS = 2816, 256  # ordinary tokens, special tokens
VOCABULARY = BASE + SPECIALS
NAMED_SPECIALS = {
    0: "[BOS]", 1: "[EOS]", 2: "<|im_end|>", 3: "<|im_user|>", 4: "<|im_assistant|>", 6: "<|start_header_id|>",
    7: "<|end_header_id|>", 9: "[EOT]", 10: "<|im_system|>", 11: "<|tool_calls_section_begin|>",
    12: "<|tool_calls_section_end|>", 13: "<|tool_call_begin|>", 14: "<|tool_call_argument_begin|>",
    15: "<|tool_call_end|>", 17: "<|im_middle|>", 18: "<|media_begin|>", 19: "<|media_content|>", 20: "<|media_end|>",
    21: "<|media_pad|>", 22: "<think>", 23: "</think>", 254: "[UNK]", 255: "[PAD]",
}  # fmt: skip
WIRE = Wire(
    end_of_text="[EOS]",
    end_of_turn="<|im_end|>",
    before_system="<|im_system|>system<|im_middle|>",
    before_user="<|im_user|>user<|im_middle|>",
    before_answer="<|im_assistant|>assistant<|im_middle|>",
    no_thought="<think></think>",
)
CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
SPLIT_PATTERN = "|".join(
    [
        r"[\p{Han}]+",
        rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTION}",
        rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTION}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)


def special_tokens() -> dict[str, int]:
    """{content: id} of all 256 specials; unnamed ones are reserved, as in K2."""
    return {NAMED_SPECIALS.get(i, f"<|reserved_token_{BASE + i}|>"): BASE + i for i in range(SPECIALS)}


def train_ranks(texts: Iterable[str]) -> list[bytes]:
    """The ordinary tokens in rank order: 256 single bytes, then merges in the order they were learned."""
    to_byte = _byte_of_letter()
    learned = sorted(learn_bytes(texts, SPLIT_PATTERN, BASE).get_vocab().items(), key=lambda item: item[1])
    merged = [bytes(to_byte[letter] for letter in word) for word, _ in learned if len(word) > 1]
    return [bytes([b]) for b in range(256)] + merged


def _byte_of_letter() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes: printable Latin-1 stands for itself, the rest follow from U+0100."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(hidden)}


def write_ranks(path: pathlib.Path, ranks: list[bytes]) -> None:
    """A `tiktoken.model` file: base64 of the token, a blank, its rank; one a line."""
    path.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(ranks)))


class Ranks:
    """`Vocabulary` over tiktoken."""

    def __init__(self, path: pathlib.Path) -> None:
        ranks = {base64.b64decode(word): int(rank) for word, rank in (line.split() for line in path.read_bytes().splitlines())}
        self.encoding = tiktoken.Encoding("sample", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens=special_tokens())

    def encode(self, text: str) -> list[int]:
        return self.encoding.encode_ordinary(text)

    def encode_marked(self, text: str) -> list[int]:
        return self.encoding.encode(text, allowed_special="all")

    def decode(self, ids: Sequence[int]) -> str:
        return self.encoding.decode(list(ids))


def learn(texts: Iterable[str], folder: pathlib.Path) -> None:
    write_ranks(folder / FILE, train_ranks(texts))


def load(folder: pathlib.Path) -> Ranks:
    return Ranks(folder / FILE)
