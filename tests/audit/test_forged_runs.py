"""Runs that really were computed, but not as the model and the checkpoint say: their ledgers obey every sum rule, and the audit finds them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import formation
from audit.forger import Forger
from audit.sealed_runs import check, places, sealed
from formation.evidence.keys import PrivateKey
from formation.evidence.payloads import write as write_digests
from formation.evidence.seal import seal
from formation.model.latent_attention import LatentAttention
from formation.model.moe import MixtureOfExperts
from formation.run.order import Order
from formation.run.sample import Sample
from formation.weights.payload import hash_tensors
from small_models import small_checkpoint, small_config

SAMPLER = {"method": "sample", "temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": "3", "branch": "0"}


@pytest.fixture(scope="module")
def drawn(k25_folder: Path, key: PrivateKey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose tokens were sampled, from the bytes of a text"""
    order = Order(tuple(b"Hi >?"), 2, Sample(temperature=1.5, seed=3), prompt_text="Hi >?")
    return sealed(k25_folder, tmp_path_factory.mktemp("drawn") / "run.ofb", key, order=order)


def perturbed(name: str) -> tuple[type, str, Callable[..., Any]]:
    """A class, one of its methods, and what takes its place"""
    attend, remember, route = LatentAttention.__call__, LatentAttention.remember, MixtureOfExperts.route

    def steered(self, h, number, pieces, use):
        a = attend(self, h, number, pieces, use)
        if number == 1:
            a[pieces[0].positions == 5, 7] += np.float32(0.25)
        return a

    def skipped(self, h, number, *rest):
        a = attend(self, h, number, *rest)
        return np.zeros_like(a) if number == 0 else a

    def lying(self, h, number, pieces, use):
        found = remember(self, h, number, pieces, use)
        if number == 1:
            pieces[0].cache.values[0, :, 2] *= np.float32(1.5)
        return found

    def rerouted(self, h, number, positions, use, probe):
        return route(self, -h if number == 2 else h, number, positions, use, probe)

    return {
        "a steered cell": (LatentAttention, "__call__", steered),
        "a skipped attention": (LatentAttention, "__call__", skipped),
        "a lying cache": (LatentAttention, "remember", lying),
        "wrong experts": (MixtureOfExperts, "route", rerouted),
    }[name]


@pytest.mark.parametrize(
    ("name", "column", "first"),
    [
        ("a steered cell", 1, (5, "layer 1")), ("a skipped attention", 0, (0, "layer 0")), ("a lying cache", 1, (2, "layer 1")),
        ("wrong experts", 2, (0, "layer 2")),
    ],
)  # fmt: skip
def test_a_run_that_was_computed_otherwise_is_found_by_the_layer_where_it_was(
    k25_folder: Path, tmp_path: Path, key: PrivateKey, name: str, column: int, first: tuple[int, str]
) -> None:
    """Its ledger obeys every sum rule: it was recorded from what really was computed"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*perturbed(name))
        bundle = sealed(k25_folder, tmp_path / "run.ofb", key)
    report = check(bundle, k25_folder, column=column)
    assert first == (report.differences[0].position, report.differences[0].slot)
    assert {column} == {d.layer for d in report.differences}  # committed rows keep the other layers out of it
    assert check(bundle, k25_folder, column=3).passed
    assert not check(bundle, k25_folder, full=True).passed


# ---- the checkpoint


def test_another_checkpoint_is_refused_by_its_identity(standard: Path, tmp_path: Path) -> None:
    other = small_checkpoint(tmp_path / "other", small_config(rms_norm_eps=1e-6))
    report = check(standard, other, full=True)
    assert [(-1, "checkpoint", "identity")] == sorted(places(report))
    assert "config.json" in str(report.differences[0])
    assert (0, 0) == (report.executed_cells, report.bytes_read)


def test_other_weights_of_the_same_names_and_shapes_are_found_at_once(standard: Path, tmp_path: Path) -> None:
    other = small_checkpoint(tmp_path / "other", seed=1)
    report = check(standard, other, cells=1)
    assert {(p, "embed", "residual_sha256") for p in range(8)} <= places(report)


def test_one_changed_tensor_is_found_by_its_layer(k25_folder: Path, standard: Path, tmp_path: Path) -> None:
    changed_folder = with_a_bit_flipped(k25_folder, tmp_path / "changed", "language_model.model.layers.2.self_attn.o_proj.weight")
    report = check(standard, changed_folder, column=2)
    assert (0, "layer 2") == (report.differences[0].position, report.differences[0].slot)
    assert check(standard, changed_folder, column=1).passed


def test_one_changed_tensor_is_named_where_the_bundle_knows_its_digest(
    k25_folder: Path, tmp_path: Path, key: PrivateKey
) -> None:
    name = "language_model.model.layers.2.self_attn.o_proj.weight"
    bundle = sealed(k25_folder, tmp_path / "run.ofb", key)
    write_digests(bundle, hash_tensors(formation.open(k25_folder), threads=1, cache=tmp_path / "cache"))
    seal(bundle, key)
    report = check(bundle, with_a_bit_flipped(k25_folder, tmp_path / "changed", name), column=2)
    assert f"payload of {name}" == report.differences[0].field


def test_a_checkpoint_that_computes_no_finite_numbers_is_a_finding_and_not_a_crash(k25_folder: Path, standard: Path, tmp_path: Path) -> None:
    for name, place in (("model.layers.2.self_attn.o_proj.weight", (0, "layer 2")), ("lm_head.weight", (4, "lm_head"))):
        broken = with_bytes(k25_folder, tmp_path / name, f"language_model.{name}", b"\xc0\x7f")  # NaN in bfloat16
        report = check(standard, broken, column=2)
        (found,) = [d for d in report.differences if (d.position, d.slot) == place and d.field == "values"]
        assert "finite ones" == found.expected
        assert "expected finite values, got nan" in found.got


def with_a_bit_flipped(folder: Path, copy: Path, tensor: str) -> Path:
    entry = formation.open(folder).tensors[tensor]
    data = (folder / entry.file).read_bytes()[entry.begin + 40]
    return with_bytes(folder, copy, tensor, bytes([data ^ 1]))


def with_bytes(folder: Path, copy: Path, tensor: str, data: bytes) -> Path:
    shutil.copytree(folder, copy)
    entry = formation.open(copy).tensors[tensor]
    with (copy / entry.file).open("r+b") as file:
        file.seek(entry.begin + 40)
        file.write(data)
    return copy


# ---- the anchor


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"prompt_text": "Say <nothing>"}, (-1, "run", "prompt text")),
        ({"prompt_ids": (72, 105, 33, 62, 63)}, (2, "embed", "residual_sha256")),
        ({"prompt_ids": (72, 105, 32, 62, 9999)}, (-1, "run", "prompt")),
        ({"sampler": SAMPLER | {"seed": "4"}}, (4, "sampler", "draw")),
        ({"sampler": SAMPLER | {"temperature": 1.25}}, (4, "sampler", "low")),
        ({"sampler": {"method": "greedy"}}, (4, "sampler", "method")),
        ({"sampler": SAMPLER | {"seed": "04"}}, (-1, "checkpoint", "identity")),
        ({"tokens": 9}, (-1, "run", "number of tokens")),
        ({"contract_digest": "ab" * 32}, (-1, "checkpoint", "identity")),
        ({"tensor_table_root": "ab" * 32}, (-1, "checkpoint", "identity")),
        ({"checkpoint_sha256": "ab" * 32}, (-1, "checkpoint", "identity")),
    ],
    ids=["text", "id", "id beyond", "seed", "temperature", "method", "seed's form", "tokens", "contract", "table", "checkpoint"],
)  # fmt: skip
def test_an_anchor_that_says_something_else_is_found(
    drawn: Path, k25_folder: Path, key: PrivateKey, tmp_path: Path, changes: dict, found: tuple
) -> None:
    forger = Forger(drawn, tmp_path / "run.ofb", key)
    forger.anchor(**changes)
    assert found in places(check(forger.finish(), k25_folder, cells=1))


@pytest.mark.parametrize(
    ("text", "said"), [("Hi >?", "its text gives exactly its ids"), ("i >", "its ids hold its text and more"), (None, "ids without a text")]
)
def test_what_the_prompts_text_is_worth_is_said(drawn: Path, k25_folder: Path, key: PrivateKey, tmp_path: Path, text: str | None, said: str) -> None:
    forger = Forger(drawn, tmp_path / "run.ofb", key)
    forger.anchor(prompt_text=text)
    report = check(forger.finish(), k25_folder, cells=1)
    assert report.passed
    assert report.prompt.startswith(said)
