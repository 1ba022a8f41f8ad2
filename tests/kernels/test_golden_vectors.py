"""The golden vectors: the reference gives them, the C library gives them, and a changed bit is seen."""

from __future__ import annotations

import json
from inspect import isfunction

import numpy as np
import pytest

from formation.kernels import delta, golden, ops, readout, reference


@pytest.mark.parametrize("case", golden.cases(), ids=lambda case: case.name)
def test_the_reference_reproduces(case):
    assert golden.recorded()[case.name] == golden.measure(golden.Plain(), case)


def test_the_c_library_reproduces_every_case():
    assert [(case.name, True) for case in golden.cases()] == golden.check()
    assert [(case.name, True) for case in golden.cases()] == golden.check(threads=1)


def test_every_kernel_of_the_contract_has_a_case():
    named = "uniform argmax cache_store cache_load new_cache logit_statistics new_state state_matrices state_shape"
    names = " ".join([*(case.name for case in golden.cases()), named])
    modules = (readout, delta)
    others = [name for m in modules for name, value in vars(m).items() if isfunction(value) and value.__module__ == m.__name__]
    functions = [name for name in (*reference.__all__, *others) if name[0].islower() and name != "finite"]
    assert [name for name in functions if name not in names] == []


def test_the_file_holds_the_cases_and_nothing_else():
    stored = json.loads(golden.PATH.read_text())
    assert stored["contract"] == golden.CONTRACT
    assert sorted(stored["cases"]) == sorted(case.name for case in golden.cases())


def test_one_changed_bit_in_one_kernel_is_found(monkeypatch):
    def almost(x):
        y = reference.exp(x)
        y.reshape(-1).view(np.uint32)[7] ^= 1
        return y

    monkeypatch.setattr(ops, "exp", almost)
    assert [name for name, good in golden.check() if not good] == ["exp"]


def test_the_contract_digest_covers_every_case():
    found = golden.recorded()
    assert golden.contract_digest(found) == golden.CONTRACT_DIGEST
    for name in found:
        changed = {**found, name: {**found[name], "outputs": "0" * 64}}
        assert golden.contract_digest(changed) != golden.CONTRACT_DIGEST


def test_the_hash_that_makes_inputs_has_its_published_value():
    """MurmurHash3's finaliser of 1 is 0x514e28b7, of 0 is 0"""
    assert golden.hashed(0, 2).tolist() == [0, 0x514E28B7]
