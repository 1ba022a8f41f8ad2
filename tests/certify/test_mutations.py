"""Random mutations: a thousand of them, the same each time, and the list of what nobody can tell, held against the verifier both ways."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

from formation.certify import mutations
from formation.certify.crew import Crew, tasks
from formation.certify.forgery import Files, f32_text, f32s
from formation.certify.judge import Judge
from formation.certify.on_values import f32_step
from formation.certify.untold import ALWAYS, DECLARED, untold_names
from formation.evidence.certification import read_mutations
from formation.ledger import canonical
from formation.ledger.fields import FIELDS
from formation.ledger.lines import layer_of

COUNT = 1000


def test_a_thousand_mutants_are_refused_or_differ_where_nobody_can_tell(judges: Mapping[str, Judge]) -> None:
    with Crew(judges["greedy"], 11, COUNT, 2) as crew:
        tally = crew.tally(lambda done, of: None)
    assert [] == tally.failures
    assert (COUNT, 334) == (tally.count, tally.signed)
    assert tally.refused > 0.9 * COUNT
    assert {"subjects", "root", "census", "formulas", "rows", "container"} <= tally.checks.keys()
    assert (COUNT, ()) == read_mutations(tally.row())


@pytest.mark.parametrize("name", ["sampled", "full", "delta", "recorded"])
def test_mutants_of_other_bundles_are_refused_too(judges: Mapping[str, Judge], name: str) -> None:
    tally = mutations.run(judges[name], 3, range(60))
    assert [] == tally.failures
    assert 60 == tally.count


def test_every_bit_of_a_signed_tree_head_counts(judges: Mapping[str, Judge]) -> None:
    bits = range(8 * len(judges["greedy"].scene.files["tree-head.txt"]))
    tally = mutations.flip_every_bit(judges["greedy"], "tree-head.txt", bits)
    assert ([], {"tree head": len(bits)}) == (tally.failures, tally.checks)


def test_every_bit_of_small_files_is_flipped_if_asked(judges: Mapping[str, Judge]) -> None:
    scene = judges["greedy"].scene
    found = [task for task in tasks(scene, 0, 30, every_bit=True) if task.file]
    assert {name for name, data in scene.files.items() if len(data) <= 4096} == {task.file for task in found}
    assert 8 * len(scene.files["anchor.json"]) == sum(len(task.numbers) for task in found if task.file == "anchor.json")
    assert (25, []) == ((tally := found[0].make(judges["greedy"])).count // 8, tally.failures)


def test_processes_make_no_difference(judges: Mapping[str, Judge]) -> None:
    tallies = []
    for processes in (0, 1):
        with Crew(judges["greedy"], 5, 40, processes) as crew:
            tallies.append(crew.tally(lambda done, of: None).row())
    assert tallies[0] == tallies[1]


def test_a_mutant_follows_from_seed_and_number(judges: Mapping[str, Judge]) -> None:
    scene = judges["greedy"].scene
    assert mutations.mutant(scene, 2, 17) == mutations.mutant(scene, 2, 17)
    assert mutations.mutant(scene, 2, 17) != mutations.mutant(scene, 3, 17)
    assert all(dict(mutations.mutant(scene, 2, n).files) != dict(scene.files) for n in range(50))


# ---- what nobody can tell


@cache
def accepted(judge: Judge, kept: bool) -> dict[str, bool]:
    """SLOT.FIELD -> whether some change of it alone was accepted, with the right key, over the slots of a first and of a last step"""
    scene, found = judge.scene, dict[str, bool]()
    places = [(-1, "run"), *((p, slot) for p, slot in scene.slots if p in (scene.steps[0], 0) and slot not in ("layer 1",))]
    for position, slot in places:
        line = canonical.decode(scene.lines[scene.slots[position, slot]], limits=canonical.LINE)
        for tag in ("measured", "derived"):
            for field in line[tag]:
                name = f"{'layer' if layer_of(slot) >= 0 else slot}.{field}"
                if not found.get(name) and not (isinstance(line[tag][field], dict) and "absent" in line[tag][field]):
                    found[name] = any(stands(judge, line, tag, field, trial, kept) for trial in range(4))
    return found


def stands(judge: Judge, line: Any, tag: str, field: str, trial: int, kept: bool) -> bool:
    source, changed = random.Random(f"{trial} {field}"), copy.deepcopy(line)
    step = smallest_step(changed[tag][field], TYPES[field]) if not trial else None
    if step is not None:
        changed[tag][field] = step
    elif isinstance(changed[tag][field], list | dict):
        mutations.change_somewhere(changed[tag][field], source)
    else:
        changed[tag][field] = mutations.other_value(changed[tag][field], source)
    forgery = judge.scene.forgery()
    if not kept:
        forgery.drop_rows()
    forgery.put(changed)
    forgery.seal()
    return changed != line and judge.verdict(forgery).verified


TYPES = {field.name: field.dtype for field in FIELDS}


def smallest_step(value: Any, dtype: str) -> Any:
    """One number of it by one step of its type; None where it has none"""
    if dtype in ("f64", "f64[]"):
        return math.nextafter(value, math.inf) if dtype == "f64" else [math.nextafter(value[0], math.inf), *value[1:]]
    if dtype in ("f32", "f32[]"):
        *rest, last = [value] if dtype == "f32" else f32s(value)
        return f32_step(last, math.inf) if dtype == "f32" else f32_text([*rest, f32_step(last, math.inf)])
    if dtype == "record[]" and "weight" in value[-1]:
        return [*value[:-1], {**value[-1], "weight": f32_step(value[-1]["weight"], 0.0)}]
    return None


@pytest.mark.parametrize(("name", "kept"), [("greedy", True), ("sampled", False), ("delta", False)])
def test_the_list_has_every_value_that_no_rule_binds(judges: Mapping[str, Judge], name: str, kept: bool) -> None:
    unbound = {field for field, stood in accepted(judges[name], kept).items() if stood}
    assert set() == unbound - untold_names(files_of(judges[name], kept))


def files_of(judge: Judge, kept: bool) -> Files:
    forgery = judge.scene.forgery()
    if not kept:
        forgery.drop_rows()
    return forgery.files


@pytest.mark.parametrize("name", ["full", "delta"])
def test_the_list_has_no_value_that_a_rule_binds(judges: Mapping[str, Judge], name: str) -> None:
    """Over a full capture without rows, and a sampled run; of fields whose smallest changes count as none, larger ones do not"""
    found = accepted(judges[name], False) | {name: True for name, stood in accepted(judges["sampled"], False).items() if stood}
    listed = untold_names(files_of(judges[name], False))
    unbound = {field for field, stood in found.items() if stood}
    assert set() == {field for field in listed - DECLARED if field in found} - unbound - SELDOM
    assert ALWAYS <= listed


# Bound in these bundles: by the same id at another position, by a list that has the same weights, by the gates of all heads of a full capture, by
# masses in which every listed logit counts
SELDOM = frozenset((
    "embed.residual_sha256", "lm_head.top_logits", "layer.attention_strongest_by_head", "run.router", "layer.delta_betas", "layer.delta_decays",
    *(f"layer.delta_{gate}_{which}" for gate in ("beta", "decay") for which in ("min", "mean", "max")),
))  # fmt: skip
