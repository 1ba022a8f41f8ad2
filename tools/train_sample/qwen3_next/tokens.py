"""The second sample's vocabulary: `tokenizer.json` as Qwen publishes it, a byte-level BPE with Qwen2's split pattern,
text normalised to NFC, and Qwen3's 26 added tokens right after the ordinary ones."""

import pathlib
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, normalizers, processors

from ..vocabulary import Wire, learn_bytes

FILE = "tokenizer.json"
ORDINARY = 2560  # 256 bytes and 2,304 merges
SPECIAL = """
<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|> <|quad_start|> <|quad_end|>
<|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>
""".split()
MARKS = """
<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> <|repo_name|> <|file_sep|>
<tool_response> </tool_response> <think> </think>
""".split()  # kept when text is decoded without specials
ADDED = [*SPECIAL, *MARKS]
ROWS = 2688  # of embedding and head: the next multiple of 128, as published
END_OF_TEXT, END_OF_TURN = ORDINARY, ORDINARY + 2
SPLIT_PATTERN = "|".join(
    [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
WIRE = Wire(
    end_of_text="<|endoftext|>",
    end_of_turn="<|im_end|>",
    before_system="<|im_start|>system\n",
    before_user="<|im_start|>user\n",
    before_answer="<|im_start|>assistant\n",
    between="\n",
)


class Merges:
    """`Vocabulary` over the file, read as it will be published."""

    def __init__(self, path: pathlib.Path) -> None:
        self.marked = Tokenizer.from_file(str(path))
        self.plain = Tokenizer.from_file(str(path))
        self.plain.encode_special_tokens = True

    def encode(self, text: str) -> list[int]:
        return self.plain.encode(text, add_special_tokens=False).ids

    def encode_marked(self, text: str) -> list[int]:
        return self.marked.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self.marked.decode(list(ids), skip_special_tokens=False)


def learn(texts: Iterable[str], folder: pathlib.Path) -> None:
    learner = learn_bytes(texts, SPLIT_PATTERN, ORDINARY)
    learner.normalizer, learner.post_processor = normalizers.NFC(), processors.ByteLevel(trim_offsets=False)
    learner.add_tokens([AddedToken(name, normalized=False, special=name in SPECIAL) for name in ADDED])
    if learner.token_to_id("<|endoftext|>") != END_OF_TEXT:
        raise ValueError(f"expected {ORDINARY} ordinary tokens, got {learner.token_to_id('<|endoftext|>')}")
    learner.save(str(folder / FILE))


def load(folder: pathlib.Path) -> Merges:
    return Merges(folder / FILE)
