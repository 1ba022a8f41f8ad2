"""Bundles under attack, and the verdicts on them, made once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from tests.evidence.whole_bundles import DRAWN, SAMPLE, SCORED, Kind, make
from tests.ledger.small_ledger import OF_DELTA_LAYERS, ROUTER, SHAPE

from audit.sealed_runs import sealed
from formation.certify.certification import read_bundle
from formation.certify.forgery import Scene
from formation.certify.judge import Judge
from formation.evidence import keys
from formation.evidence.keys import PrivateKey
from formation.ledger.anchor import Fork
from formation.run.order import Order
from formation.run.sample import Sample
from recorded_runs import IDS

KINDS = {
    "greedy": Kind(), "sampled": Kind(sampler=SAMPLE), "repeating": Kind(repeat=True, steps="minimal", rows="none"),
    "full": Kind(steps="full", rows="none"), "scored": SCORED, "drawn": DRAWN,
}  # fmt: skip
DELTA = {
    "router": replace(ROUTER, experts=16, softmax=True), "shape": SHAPE | {"experts": 16}, "biased": False, "gated": True, "kinds": OF_DELTA_LAYERS,
}  # fmt: skip


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> PrivateKey:
    return keys.create(tmp_path_factory.mktemp("keys") / "key.pem")


@pytest.fixture(scope="session")
def recorded(k25_folder: Path, key: PrivateKey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model's run, sampled at temperature 0.7"""
    out = tmp_path_factory.mktemp("recorded") / "run.ofb"
    return sealed(k25_folder, out, key, order=Order(IDS, 4, Sample(0.7, seed=5)))


@pytest.fixture(scope="session")
def forked(k25_folder: Path, key: PrivateKey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model's run that departs from another, two of its four tokens given"""
    out = tmp_path_factory.mktemp("forked") / "run.ofb"
    order = Order(IDS, 4, Sample(0.7, seed=5), stop=(257,), fork=Fork("ab" * 32, 3, (65, 66)))
    return sealed(k25_folder, out, key, order=order)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder = tmp_path_factory.mktemp("whole")
    made = {name: make(folder / f"{name}.ofb", kind) for name, kind in KINDS.items()}
    return made | {"delta": make(folder / "delta.ofb", Kind(steps="full"), **DELTA)}


@pytest.fixture(scope="session")
def judges(folders: Mapping[str, Path], recorded: Path, forked: Path) -> Mapping[str, Judge]:
    """Of each bundle; its control has been verified"""
    found = {name: Judge(Scene(read_bundle(path))) for name, path in {**folders, "recorded": recorded, "forked": forked}.items()}
    for judge in found.values():
        assert judge.verdict(judge.scene.forgery()).verified
    return found
