"""tiktoken.model: what is read, what is refused, and what text becomes."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as LibraryTokenizer

from formation.errors import CheckpointError, PromptError, ReadError
from formation.text import Tokenizer, load_tokenizer
from formation.text.merges import byte_alphabet
from formation.text.ranks import MAX_RUN_CHARS, MAX_TEXT_CHARS, RankTokenizer, cut_positions, read_ranks

WORDS = st.sampled_from(["length", " container", "don't", "  ", "\n\n", "\r\n", "123456", "漢字", "é", "e\u0301", "🙂", "_", " (", "LEN", "Len"])
NAMES = st.sampled_from(["[BOS]", "<|im_end|>", "<|im_user|>", "<think>", "</think>", "<|reserved_token_405|>", "<|", "im_end", "|>"])
TEXT = st.one_of(st.text(), st.lists(WORDS).map("".join))


def config_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / "config.json").read_text())


@pytest.fixture(scope="module")
def tokenizer(kimi: Path) -> Tokenizer:
    return load_tokenizer(kimi, config_of(kimi))


@pytest.fixture
def folder(kimi: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(kimi, tmp_path / "copy"))


def test_ids_are_the_ranks_then_256_special_ids(tokenizer: Tokenizer, kimi: Path) -> None:
    ranks = len((kimi / "tiktoken.model").read_text().splitlines())
    assert ranks + 256 == tokenizer.size == tokenizer.rows
    assert list(range(ranks, ranks + 256)) == sorted(tokenizer.specials.values())
    assert ranks + 2 == tokenizer.encode_special("<|im_end|>")
    assert ranks + 5 == tokenizer.specials[f"<|reserved_token_{ranks + 5}|>"]
    assert (ranks, (ranks + 1,)) == (tokenizer.bos_id, tokenizer.eos_ids)


def test_the_files_it_was_read_from_are_named(tokenizer: Tokenizer, kimi: Path) -> None:
    assert (kimi / "tiktoken.model", kimi / "tokenizer_config.json") == tokenizer.files


def test_the_text_of_any_special_token_is_plain_text(tokenizer: Tokenizer) -> None:
    special_ids = set(tokenizer.specials.values())
    for name in tokenizer.specials:
        ids = tokenizer.encode(f"a{name} {name}{name}")
        assert special_ids.isdisjoint(ids)
        assert f"a{name} {name}{name}" == tokenizer.decode(ids)


@settings(deadline=None, max_examples=50)
@given(text=st.lists(st.one_of(NAMES, TEXT)).map("".join))
def test_plain_text_comes_back_and_holds_no_special_id(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert text == tokenizer.decode(ids)
    assert set(tokenizer.specials.values()).isdisjoint(ids)


@settings(deadline=None, max_examples=50)
@given(text=TEXT)
def test_two_libraries_split_text_into_the_same_tokens(tokenizer: Tokenizer, library: LibraryTokenizer, text: str) -> None:
    expected = [bytes(byte_alphabet()[character] for character in token) for token in library.encode(text).tokens]
    assert expected == [tokenizer.token_bytes(token) for token in tokenizer.encode(text)]


def test_each_alternative_of_the_split_pattern_holds(tokenizer: RankTokenizer) -> None:
    pieces = ["漢字", "かな", " don't", "123", "456", "7", " +=\n\n", "  \n", "  ", " x", "Foo", "BARs", "CAFÉ"]
    whole = tiktoken.Encoding(
        "pieces",
        pat_str=tokenizer.encoding._pat_str,
        mergeable_ranks={bytes([byte]): byte for byte in range(256)} | {piece.encode(): 256 + i for i, piece in enumerate(pieces)},
        special_tokens={},
    )
    assert pieces == [whole.decode([token]) for token in whole.encode_ordinary("".join(pieces))]


def test_a_lone_surrogate_is_no_text(tokenizer: Tokenizer) -> None:
    with pytest.raises(PromptError, match="lone surrogate at character 2"):
        tokenizer.encode("ab\ud800")


def test_an_id_of_another_model_is_refused(tokenizer: Tokenizer) -> None:
    for token in (-1, tokenizer.rows):
        with pytest.raises(PromptError, match=f"got {token}"):
            tokenizer.token_bytes(token)


def test_an_output_row_without_a_token_has_no_text(kimi: Path) -> None:
    padded = load_tokenizer(kimi, {"vocab_size": 4096})
    assert (padded.rows, padded.token_bytes(4095)) == (4096, b"")


def test_an_unknown_special_name_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(PromptError, match="special token"):
        tokenizer.encode_special("<|im_start|>")


# long text


def publisher_cuts(text: str) -> list[str]:
    """The publisher's rule, one character at a time."""
    parts = []
    for first in range(0, len(text), MAX_TEXT_CHARS):
        part, start, run = text[first : first + MAX_TEXT_CHARS], 0, 0
        for i, character in enumerate(part):
            run = run + 1 if i and character.isspace() == part[i - 1].isspace() else 1
            if run > MAX_RUN_CHARS:
                parts.append(part[start:i])
                start, run = i, 1
        parts.append(part[start:])
    return parts


@pytest.mark.parametrize("unit", ["a", " ", "ab ", "\x1c", "漢"])
@pytest.mark.parametrize("count", [1, MAX_RUN_CHARS, MAX_RUN_CHARS + 1, 3 * MAX_RUN_CHARS + 5, MAX_TEXT_CHARS + 30_000])
def test_long_text_is_cut_where_the_publisher_cuts_it(unit: str, count: int) -> None:
    text = "x  " + unit * (count // len(unit)) + " end"
    cuts = cut_positions(text)
    assert publisher_cuts(text) == [text[first:last] for first, last in pairwise(cuts)]


@pytest.mark.parametrize(
    ("unit", "count"),
    [(" ", 1_000_000)]  # the library crashes on this in one piece
    + [(unit, 60_000) for unit in ("\n", "\t", " \n", "a", "A", "1", "漢", "\u0301", ".", "aA", "'s", "a ")],
)
def test_long_runs_of_like_characters_are_tokenised(tokenizer: Tokenizer, unit: str, count: int) -> None:
    text = (unit * count)[:count]
    assert text == tokenizer.decode(tokenizer.encode(text))


# files that must be refused


def line(token: bytes, rank: object) -> bytes:
    return base64.b64encode(token) + b" " + str(rank).encode() + b"\n"


BAD_RANKS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a line without a rank": (lambda data: data + b"YWJj\n", "line 401: expected base64, a space and a rank"),
    "a rank that is no number": (lambda data: data + b"YWJj x\n", "line 401: expected base64, a space and a rank"),
    "a negative rank": (lambda data: data + line(b"\x00\x00", -1), "line 401: expected base64, a space and a rank"),
    "a token that is not base64": (lambda data: data + b"Y*Jj 400\n", "line 401: expected base64"),
    "a token without its padding": (lambda data: data + b"YWI 400\n", "line 401: expected base64"),
    "a rank given twice": (lambda data: data + line(b"\x00\x00", 7), "line 401: rank 7 was given in line 8"),
    "a token given twice": (lambda data: data + line(b"\x07", 400), "line 401: token b'\\\\x07' was given in line 8"),
    "a hole in the ranks": (lambda data: data + line(b"\x00\x00", 401), "none with rank 400"),
    "a byte without a token": (lambda data: data.replace(line(b"\x07", 7), line(b"\x07\x07", 7)), "none for byte 7"),
    "an empty file": (lambda data: b"", "none for byte 0"),
}


@pytest.mark.parametrize("case", BAD_RANKS)
def test_a_rank_file_is_refused_for(case: str, folder: Path) -> None:
    spoil, sentence = BAD_RANKS[case]
    path = folder / "tiktoken.model"
    assert len(read_ranks(path)) == 400
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(CheckpointError, match=sentence) as refusal:
        load_tokenizer(folder, {})
    assert str(path) in str(refusal.value)


BAD_CONFIGS: dict[str, tuple[dict[str, object], str]] = {
    "a special id that is a rank": ({"added_tokens_decoder": {"7": {"content": "<x>"}}}, "'<x>' has id 7, which is an ordinary rank"),
    "a special id beyond the reserved ones": ({"added_tokens_decoder": {"656": {"content": "<x>"}}}, "from 400 to 655, got 656"),
    "one name for two ids": (
        {"added_tokens_decoder": {"400": {"content": "<x>"}, "401": {"content": "<x>"}}},
        "'<x>' has two ids, 400 and 401",
    ),
    "one id for two names": (
        {"added_tokens_decoder": {"400": {"content": "<x>"}, "0400": {"content": "<y>"}}},
        "id 0?400 is given to both '<x>' and '<y>'",
    ),
    "a name that is taken by a reserved id": (
        {"added_tokens_decoder": {"400": {"content": "<|reserved_token_401|>"}}},
        "'<|reserved_token_401|>' has two ids".replace("|", "\\|"),
    ),
    "an id that is no number": ({"added_tokens_decoder": {"x": {"content": "<x>"}}}, "expected a decimal id"),
    "an empty name": ({"added_tokens_decoder": {"400": {"content": ""}}}, "non-empty content"),
    "a list of special tokens": ({"added_tokens_decoder": []}, "expected an object"),
    "an eos token that is none": ({"added_tokens_decoder": {}, "eos_token": "<x>"}, "eos_token is '<x>'"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_a_tokenizer_config_is_refused_for(case: str, folder: Path) -> None:
    content, sentence = BAD_CONFIGS[case]
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=sentence) as refusal:
        load_tokenizer(folder, {})
    assert "tokenizer_config.json" in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"{", "expected JSON"), (b"[]", "a JSON object, got list"), (b'{"a": 1, "a": 2}', "got 'a' twice"), (b"\xff", "UTF-8")],
)
def test_broken_json_is_refused(content: bytes, sentence: str, folder: Path) -> None:
    (folder / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=sentence):
        load_tokenizer(folder, {})


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: expected this file"):
        load_tokenizer(folder, {})
    (folder / "tiktoken.model").unlink()
    with pytest.raises(CheckpointError, match=r"expected tiktoken\.model or tokenizer\.json, got neither"):
        load_tokenizer(folder, {})


def test_a_file_that_cannot_be_read_is_a_read_error(folder: Path) -> None:
    (folder / "tiktoken.model").unlink()
    (folder / "tiktoken.model").mkdir()
    with pytest.raises(ReadError, match=r"tiktoken\.model"):
        load_tokenizer(folder, {})


@pytest.mark.parametrize("rows", [655, 0, "656", True])
def test_more_ids_than_the_model_has_rows_are_refused(kimi: Path, rows: object) -> None:
    with pytest.raises(CheckpointError, match="vocab_size"):
        load_tokenizer(kimi, {"text_config": {"vocab_size": rows}})


@pytest.mark.parametrize("eos", ["1", True, [1, None], -1])
def test_an_eos_id_that_is_no_id_is_refused(kimi: Path, eos: object) -> None:
    with pytest.raises(CheckpointError, match="eos_token_id"):
        load_tokenizer(kimi, {"eos_token_id": eos})
