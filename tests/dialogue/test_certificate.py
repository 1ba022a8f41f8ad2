"""The certificate of no zero: no position and no state found by optimisation beats it; it is close to what a state reaches; the command."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools.synthetic_checkpoint import INT4

import formation
from formation.cli.certificate import down
from formation.cli.main import build_parser
from formation.dialogue.certificate.attained import attained
from formation.dialogue.certificate.bounds import Certificate, Pairwise, Rounding, certify, pairwise
from formation.dialogue.certificate.certified import Certified, examine, ids_of
from formation.dialogue.certificate.lm_head import BLOCK_ROWS, Block, LmHead
from formation.dialogue.forks.choices import read_choice
from formation.dialogue.named import read_named
from formation.errors import BudgetError, FormationError, NonFiniteError
from formation.kernels import ops, readout
from formation.kernels.tensor import F32, Kind, Weight
from formation.model.taps import Blind
from formation.samples import NAMES, folder
from formation.text import load_tokenizer
from small_models import fp8_config, qwen3_config, qwen_config, small_checkpoint, small_config

EPS = 1e-6
ROUNDED = 1e-12  # nats that a log probability may be off by its own binary64


@dataclass
class SmallHead:
    """What certificate and search ask of a head, over matrices in memory: w [V, D], g [D]"""

    w: F32
    g: F32
    block: int = 7
    threads: int = 1
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def vocabulary(self) -> int:
        return len(self.w)

    @property
    def width(self) -> int:
        return self.w.shape[1]

    @property
    def weight(self) -> Weight:
        return Weight("w", Kind.F32, *self.w.shape, np.ascontiguousarray(self.w).view(np.uint8).reshape(-1))

    def norm_weight(self) -> F32:
        return self.g

    def normed(self, x: F32) -> F32:
        return ops.rmsnorm(x, self.g, EPS, threads=1)

    def rows(self, ids: Any) -> F32:
        return self.w[list(ids)]

    def blocks(self, what: str) -> Iterator[Block]:
        for first in range(0, self.vocabulary, self.block):
            yield Block(first, min(self.block, self.vocabulary - first), self.weight, first, 1)

    def logprobs(self, x: F32) -> Any:
        logits = ops.linear(self.weight, self.normed(x), threads=1)
        return logits.astype(np.float64) - readout.logit_statistics(logits, threads=1).log_sum_exp[:, None]


@st.composite
def heads(draw: st.DrawFn) -> SmallHead:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tokens, width = draw(st.integers(2, 40)), draw(st.integers(1, 40))
    w = rng.standard_normal((tokens, width)) * 10.0 ** draw(st.integers(-4, 1)) + rng.standard_normal(width) * draw(st.sampled_from([0.0, 3.0]))
    return SmallHead(w.astype(np.float32), (1 + rng.standard_normal(width) * draw(st.sampled_from([0.0, 0.3, 2.0]))).astype(np.float32))


def floors(found: Certificate) -> Any:
    return np.array([found.floor_nats(token) for token in range(len(found.reach))])


# ---- no state beats it


@settings(max_examples=60, deadline=None)
@given(heads(), st.integers(0, 2**32 - 1), st.integers(-25, 25))
def test_no_state_beats_the_bound_whatever_its_size(head: SmallHead, seed: int, power: int) -> None:
    x = (np.random.default_rng(seed).standard_normal((8, head.width)) * 10.0**power).astype(np.float32)
    assert (head.logprobs(x) >= floors(certify(head)) - ROUNDED).all()


@settings(max_examples=60, deadline=None)
@given(heads(), st.data())
def test_states_that_were_looked_for_stay_above_the_bound_and_come_within_ln_v_of_it(head: SmallHead, data: st.DataObject) -> None:
    found = certify(head)
    tokens = data.draw(st.lists(st.integers(0, head.vocabulary - 1), min_size=1, max_size=4))
    pairs = pairwise(head, found, tokens)
    for pair, state in zip(pairs, attained(head, found, pairs, 3), strict=True):
        assert found.floor_nats(pair.token) - ROUNDED <= state.logprob_nats and pair.floor_nats - ROUNDED <= state.logprob_nats
        assert state.logprob_nats == head.logprobs(state.state[None])[0, pair.token]
        rounding = 4 * float(found.margins.max()) + 1e-5 * abs(pair.floor_nats) + EPS
        assert state.logprob_nats - pair.floor_nats <= math.log(head.vocabulary) + rounding


def test_a_row_that_overflows_or_is_nothing_is_as_any_other() -> None:
    head = SmallHead(np.eye(4, dtype=np.float32) * 3, np.ones(4, np.float32))
    x = np.array([[3e38, -3e38, 1, 1], [0, 0, 0, 0], [1e-45, 0, 0, 0], [1e-30, 1e30, 0, 0]], np.float32)
    assert (head.logprobs(x) >= floors(certify(head)) - ROUNDED).all()


@settings(max_examples=25, deadline=None)
@given(heads())
def test_the_bounds_are_the_formulas_and_a_little_less(head: SmallHead) -> None:
    """In exact arithmetic, without what rounding adds"""
    found, token = certify(head), head.vocabulary // 2
    (pair,) = pairwise(head, found, [token])
    with mpmath.workdps(40):
        w = [[mpmath.mpf(float(v)) * mpmath.mpf(float(g)) for v, g in zip(row, head.g, strict=True)] for row in head.w]
        centre = [mpmath.mpf(float(c)) * mpmath.mpf(float(g)) for c, g in zip(found.centre, head.g, strict=True)]
        root = mpmath.sqrt(head.width)
        rho = [root * distance(row, centre) for row in w]
        of_all = -(rho[token] + mpmath.log(mpmath.fsum(mpmath.exp(r) for r in rho)))
        of_pair = -mpmath.log(mpmath.fsum(mpmath.exp(root * distance(row, w[token])) for row in w))
        for exact, got in ((of_all, found.floor_nats(token)), (of_pair, pair.floor_nats)):
            assert float(exact) - 1e-4 * (1 + abs(float(exact))) - 4 * float(found.margins.max()) <= got <= exact


def distance(a: list[Any], b: list[Any]) -> Any:
    return mpmath.sqrt(mpmath.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def test_a_norm_is_never_longer_than_the_radius() -> None:
    """Equal numbers, of which none is lost: the length is √d but for rounding, in widths up to the published ones"""
    rng = np.random.default_rng(5)
    for width in (1, 15, 16, 17, 192, 2048, 7168):
        x = np.concatenate([np.full((1, width), 0.1), np.full((1, width), 1e15), rng.standard_normal((60, width)) * 1e3]).astype(np.float32)
        n = ops.rmsnorm(x, np.ones(width, np.float32), 1e-30, threads=1).astype(np.float64)
        longest = float(np.sqrt((n * n).sum(axis=1)).max())
        assert math.sqrt(width) * (1 - 1e-6) < longest <= Rounding(width, 10).radius < math.sqrt(width) * (1 + 1e-4)


# ---- the samples


@cache
def certified(name: str) -> Certified:
    return examined(name, "8MiB", 2)


def examined(name: str, memory: str, threads: int) -> Certified:
    checkpoint = formation.open(folder(name))
    tokenizer = load_tokenizer(checkpoint.path, checkpoint.config)
    return examine(checkpoint, tokenizer, ids_of(tokenizer, ["len", "7"]), memory=memory, threads=threads)


@pytest.mark.parametrize("name", NAMES)
def test_no_state_found_by_ascent_is_below_the_bound(name: str) -> None:
    """Gradient ascent on -ln p in numpy from random rows, with a step size, independent of the search that the report uses"""
    rng = np.random.default_rng(11)
    with LmHead(formation.open(folder(name)), memory="16MiB", threads=2) as head:
        found, tokens = certified(name).certificate, rng.integers(0, head.vocabulary, 6)
        w = head.rows(range(head.vocabulary)).astype(np.float64) * found.norm.astype(np.float64)
        n, surprise = rng.standard_normal((6, head.width)), []
        for step in range(25):
            n *= math.sqrt(head.width) / np.sqrt((n * n).sum(axis=1))[:, None]
            z = n @ w.T
            p = np.exp(z - z.max(axis=1)[:, None])
            surprise.append(np.log(p.sum(axis=1)) + z.max(axis=1) - z[np.arange(6), tokens])
            n = n + (4.0 / (1 + step)) * ((p / p.sum(axis=1)[:, None]) @ w - w[tokens])
        logits = np.concatenate([block.logits(head.normed((n * 100).astype(np.float32))) for block in head.blocks("test")], axis=1)
        got = logits.astype(np.float64) - readout.logit_statistics(logits, threads=2).log_sum_exp[:, None]
        pairs = pairwise(head, found, tokens.tolist())
    assert (got >= floors(found)).all()
    assert (surprise[-1] > 2 * surprise[0]).all()  # it did climb
    assert all(row[pair.token] >= pair.floor_nats for row, pair in zip(got, pairs, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_report_says_how_tight_it_is(name: str) -> None:
    least, word, seventh = certified(name).named
    assert least.token == certified(name).certificate.least and word.name == "len" and (seventh.name, seventh.token) == ("7", 7)
    for each in certified(name).named:
        assert each.bound_nats <= each.floor_nats <= each.found.logprob_nats < 0
        assert each.found.logprob_nats - each.pair.floor_nats < 2.0


def test_a_found_state_gives_its_probability_in_the_model_itself() -> None:
    checkpoint, least = formation.open(folder("kimi_k25")), certified("kimi_k25").named[0]
    with formation.Engine(checkpoint, memory="16MiB", threads=1) as engine:
        engine.logits([1])
        with engine.head() as tensors:
            logits = engine.model.head(least.found.state[None], np.zeros(1, np.int64), tensors, Blind(), threads=1)
    assert least.found.logprob_nats == float(logits[0, least.token]) - float(readout.logit_statistics(logits, threads=1).log_sum_exp[0])


# ---- blocks, budgets, storage


def numbers(found: Certified) -> Any:
    return [(each.bound_nats, each.pair, each.found.logprob_nats, each.found.state.tobytes()) for each in found.named], found.digests


def test_memory_and_threads_change_no_bit() -> None:
    assert numbers(examined("kimi_k25", "2MiB", 1)) == numbers(certified("kimi_k25"))


def test_what_does_not_stay_in_memory_is_read_again_for_every_pass() -> None:
    def read(memory: str) -> int:
        with LmHead(formation.open(folder("kimi_k25")), memory=memory, threads=1) as head:
            certify(head)
            return head.bytes_read

    matrix = 3072 * 192 * 2
    assert matrix < read("8MiB") < 1.2 * matrix < read("2000kB")


STORED = {
    "int4": small_config(quantization_config=INT4 | {"ignore": [p for p in INT4["ignore"] if p != "lm_head"]}),
    "fp8": fp8_config(), "centred": qwen_config(), "tied": qwen3_config(tie_word_embeddings=True),
}  # fmt: skip


@pytest.mark.parametrize("kind", STORED)
def test_every_storage_of_a_head_has_its_certificate(tmp_path: Path, kind: str) -> None:
    checkpoint = formation.open(small_checkpoint(tmp_path / kind, STORED[kind]))
    with LmHead(checkpoint, memory="8MiB", threads=1) as head:
        found = certify(head)
        pairs = pairwise(head, found, [found.least, 3])
        states = attained(head, found, pairs, 2)
        assert set(head.digests) == set(head.model.part(("head",), checkpoint.tensors).names)
        for name, sha256 in head.digests.items():
            entry = checkpoint.tensors[name]
            data = (checkpoint.path / entry.file).read_bytes()[entry.begin : entry.end]
            assert sha256 == hashlib.sha256(data).hexdigest()
    with formation.Engine(checkpoint, memory="16MiB", threads=1) as engine:
        logits = engine.logits(list(range(100)))
    sums = readout.logit_statistics(logits, threads=1).log_sum_exp
    assert (logits - sums[:, None] >= floors(found)).all()
    assert all(pair.floor_nats <= state.logprob_nats < pair.floor_nats + math.log(512) for pair, state in zip(pairs, states, strict=True))


def test_a_vocabulary_that_ends_within_a_block_is_read_to_its_end(tmp_path: Path) -> None:
    checkpoint = formation.open(small_checkpoint(tmp_path / "odd", small_config(vocab_size=2 * BLOCK_ROWS + 17)))
    with LmHead(checkpoint, memory="8MiB", threads=1) as head:
        assert [BLOCK_ROWS, BLOCK_ROWS, 17] == [block.count for block in head.blocks("test")]
        assert np.array_equal(head.rows([0, 272]), np.concatenate([block.rows() for block in head.blocks("test")])[[0, 272]])


# ---- refused


def test_a_budget_that_holds_no_block_is_refused_with_the_one_that_does() -> None:
    checkpoint = formation.open(folder("qwen3_next"))
    with pytest.raises(BudgetError, match=r"memory budget: expected at least 1\.[0-9]+ MB for lm_head in blocks, got 100 kB") as refused:
        LmHead(checkpoint, memory="100kB", threads=1, taken=200000)
    assert "2MiB" in str(refused.value.hint)
    LmHead(checkpoint, memory="2MiB", threads=1).close()


def test_a_matrix_that_is_not_finite_has_no_certificate(tmp_path: Path) -> None:
    checkpoint = formation.open(small_checkpoint(tmp_path / "nan"))
    entry = checkpoint.tensors["language_model.lm_head.weight"]
    data = bytearray((checkpoint.path / entry.file).read_bytes())
    data[entry.begin + 2 * 96 * 300 : entry.begin + 2 * 96 * 300 + 2] = b"\x80\x7f"  # +inf in bfloat16
    (checkpoint.path / entry.file).write_bytes(data)
    with LmHead(formation.open(checkpoint.path), memory="8MiB", threads=1) as head, pytest.raises(NonFiniteError, match="lm_head, rows 256 to 383"):
        certify(head)


# ---- the command


def certificate(*words: str) -> int:
    """As `main` runs it"""
    args = build_parser(["certificate"]).parse_args(["certificate", *words])
    try:
        return int(args.run(args))
    except FormationError as error:
        return error.exit_code


def test_the_command_prints_the_same_as_a_program_gets(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sample = str(folder("kimi_k25"))
    assert certificate(sample, "--tokens", "len", "7", "®", "--memory", "8MiB", "--json", "--out", str(tmp_path / "c.json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((tmp_path / "c.json").read_text())
    assert certificate(sample, "--tokens", "len", "7", "®", "--memory", "8MiB") == 0
    shown = capsys.readouterr().out
    assert told["checkpoint"]["sha256"] in shown and all(each["sha256"] in shown for each in told["tensors"])
    assert f"ln p ≥ {down(told['bound_nats'], 4)}" in shown and "no text is known to lead to" in shown and "is 2 tokens: together" in shown
    first, word, seventh, *glyph = told["tokens"]
    assert (told["least"], "len", 7, 2) == (first["id"], word["asked"], seventh["id"], len(glyph))
    assert {"measured", "derived"} == {each["tag"] for each in told["fields"].values()}
    assert certified("kimi_k25").named[1].pair == Pairwise(word["id"], word["pairwise_nats"], word["farthest"])


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--tokens", "3072"), 2, "token: expected an id from 0 to 3071, got 3072"),
        (("--tokens", "5", "5"), 2, "expected at most 64 different ones"),
        (("--tokens", "7", "id:7"), 2, "expected at most 64 different ones"),
        (("--tokens", "x" * 65), 2, "expected at most 64 different ones"),
        (("--tokens", "id:x"), 2, "'id:x': expected a number below"),
        (("--tokens", ""), 2, "expected an id or a text, got nothing"),
        (("--memory", "200kB"), 3, "memory budget: expected at least"),
        (("--memory", "many"), 2, "memory size: expected a number"),
    ],
)
def test_a_wrong_input_is_refused_by_its_name(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, sentence: str) -> None:
    args = build_parser(["certificate"]).parse_args(["certificate", str(folder("kimi_k25")), *words])
    with pytest.raises(FormationError, match=sentence) as refused:
        args.run(args)
    assert code == refused.value.exit_code and "ln p" not in capsys.readouterr().out


def test_a_certificate_names_tokens_as_a_fork_does() -> None:
    tokenizer = load_tokenizer(folder("kimi_k25"), formation.open(folder("kimi_k25")).config)
    digit, *more = tokenizer.encode("7")
    assert not more and [("id:7", 7), ("text:7", digit)] == ids_of(tokenizer, ["id:7", "text:7"]) and digit != 7
    for word in ("7", "id:7", "text:7", "seven", "id", "text:id:7", "²"):
        named, chosen = read_named(word), read_choice(word)
        assert named == (chosen.number if chosen.how == "id" else chosen.text)


def test_a_bound_that_is_printed_is_still_one() -> None:
    assert ("-150.91", "-0.01", "-2.00") == (down(-150.9001, 2), down(-1e-9, 2), down(-2.0, 2))


def test_the_row_of_a_block_may_come_from_the_middle_of_a_matrix() -> None:
    head = SmallHead(np.arange(24, dtype=np.float32).reshape(6, 4), np.ones(4, np.float32), block=4)
    second = list(head.blocks("test"))[1]
    assert np.array_equal(head.w[4:], second.rows())
    assert np.array_equal(ops.linear(head.weight, head.w[:2], threads=1)[:, 4:], second.logits(head.w[:2].copy()))
    assert np.array_equal(head.w[4:5] + 2 * head.w[5:6], second.mixed(np.array([[1, 2]], np.float32)))
