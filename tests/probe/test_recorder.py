"""The recorder observes without changing, keeps copies, and tells the same whichever way positions were computed."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probe_runs import IDS, Forced, Overwriting, Recorded, expectations, finish, prepare, record_pass, record_steps

import formation
from formation.errors import RuleBroken
from formation.kernels import ops
from formation.ledger import fields, lines
from formation.model.taps import Probe, Site, Tap
from formation.probe import readout
from formation.probe.encode import Observation
from formation.probe.layer import LayerRows
from formation.probe.pending import Token
from formation.run.sampled import sampled
from small_models import flat_config, qwen3_config, qwen_config, small_checkpoint, small_config

PROMPT = 12
LEVELS = [("minimal", "minimal"), ("standard", "minimal"), ("full", "full")]


Record = Callable[..., Recorded]


def text(observations: list[Observation]) -> str:
    return json.dumps(observations, sort_keys=True)


@pytest.fixture(scope="module")
def record(k25_folder: Path) -> Record:
    """`record_steps` of the usual model and prompt; each choice of levels runs once"""
    return cache(partial(record_steps, k25_folder, PROMPT))


# ---- capture changes nothing, and keeps copies


@pytest.mark.parametrize("keep_cache", [True, False])
def test_recording_changes_no_bit_of_the_logits(k25_folder: Path, keep_cache: bool) -> None:
    with formation.Engine(formation.open(k25_folder), memory="24MiB", threads=2) as engine:
        wanted = [step.logits for step in engine.generate(IDS[:PROMPT], len(IDS) - PROMPT, Forced(IDS))]
    got = record_steps(k25_folder, PROMPT, keep_cache=keep_cache, level="full", prompt_level="full").logits
    assert [z.tobytes() for z in wanted] == [z.tobytes() for z in got]


def test_buffers_that_are_used_again_change_no_observation(record: Record, k25_folder: Path) -> None:
    wanted = record(level="full", prompt_level="full")
    got = record_steps(k25_folder, PROMPT, wrap=Overwriting, level="full", prompt_level="full")
    assert text(wanted.observations) == text(got.observations)


def test_a_recorder_that_kept_references_would_be_caught(k25_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless(LayerRows):
        def put(self, tap: Tap, positions: Any, values: Any) -> None:
            super().put(tap, positions, values)
            if len(values) == len(self.positions):
                self._taps[tap] = values

    monkeypatch.setattr("formation.probe.layer_probe.LayerRows", Careless)
    with pytest.raises(RuleBroken, match="layer 0 at position 0: expected"):
        record_steps(k25_folder, PROMPT, wrap=Overwriting)


# ---- one truth, however it was computed


@pytest.mark.parametrize(("level", "prompt_level"), LEVELS)
def test_steps_with_and_without_a_cache_and_one_pass_give_the_same(record: Record, k25_folder: Path, level: str, prompt_level: str) -> None:
    levels = {"level": level, "prompt_level": prompt_level}
    wanted = text(record(**levels).observations)
    assert wanted == text(record_steps(k25_folder, PROMPT, keep_cache=False, threads=1, **levels).observations)
    assert wanted == text(record_pass(k25_folder, PROMPT, **levels).observations)


def test_rows_computed_in_small_chunks_give_the_same_observations(k25_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = text(record_pass(k25_folder, PROMPT, prompt_level="full").observations)
    monkeypatch.setattr("formation.run.plan.LARGEST_CHUNK", 5)
    assert wanted == text(record_pass(k25_folder, PROMPT, prompt_level="full").observations)


def test_prompt_and_step_observe_the_same_of_a_position(k25_folder: Path) -> None:
    late, early = record_steps(k25_folder, PROMPT, prompt_level="standard"), record_steps(k25_folder, 4, prompt_level="standard")
    for position in range(4, PROMPT - 1):
        for slot in ("embed", *(f"layer {i}" for i in range(4))):
            (prompt,) = [o for o in late.observations if (o["position"], o["slot"]) == (position, slot)]
            (step,) = [o for o in early.observations if (o["position"], o["slot"]) == (position, slot)]
            assert ("prompt", "forced") == (prompt["kind"], step["kind"])
            assert step["measured"] == prompt["measured"]
            for name, value in prompt["derived"].items():
                assert value in (step["derived"][name], {"absent": "not a step"})


# ---- lines are what the field table says


def check_against_table(recorded: Recorded) -> None:
    run = expectations(recorded)
    for o in recorded.observations:
        kind, _, number = o["slot"].partition(" ")
        method = o["measured"].get("method", "")
        place = lines.Place(run, o["position"], o["kind"], o["slot"], int(number) if number else -1, method)
        wanted = [f for f in fields.fields_of(kind, run.level(o["kind"])) if f.recompute != "ledger"]
        assert [f.name for f in wanted] == [*o["measured"], *o["derived"]]
        for f in wanted:
            lines.check_value(f, o[f.tag][f.name], place)  # type: ignore[literal-required]


@pytest.mark.parametrize(("level", "prompt_level"), LEVELS)
def test_every_line_has_the_fields_of_its_level(record: Record, level: str, prompt_level: str) -> None:
    recorded = record(level=level, prompt_level=prompt_level)
    check_against_table(recorded)
    slots = ["embed", *(f"layer {i}" for i in range(4))]
    wanted = [(p, s) for p in range(len(IDS) - 1) for s in slots + ([] if p < PROMPT - 1 else ["lm_head", "sampler", "token"])]
    assert wanted == [(o["position"], o["slot"]) for o in recorded.observations]


CONFIGS = {
    "groups": small_config(n_group=4, topk_group=2),
    "no bias, softmax": flat_config(scoring_func="softmax", topk_method="greedy"),
    "no shared expert": flat_config(n_shared_experts=0),
    "all experts chosen, tied": flat_config(n_routed_experts=4, num_experts_per_tok=4, tie_word_embeddings=True),
    "no dense layer": flat_config(first_k_dense_replace=0),
    "attention beside delta nets, a gate for the shared expert": qwen_config(),
    "grouped attention, no shared expert, one dense layer": qwen3_config(mlp_only_layers=[0]),
}
OF_DELTA = {field.name for field in fields.fields_of("layer", "full") if "attention layer" in field.absent}


@pytest.mark.parametrize("name", CONFIGS)
def test_models_of_other_shapes_give_lines_of_the_table(tmp_path: Path, name: str) -> None:
    recorded = record_steps(small_checkpoint(tmp_path / "model", CONFIGS[name]), PROMPT, level="full", prompt_level="standard")
    check_against_table(recorded)
    values = recorded.at(len(IDS) - 2, "layer 3")
    lacks = {field for field, value in values.items() if isinstance(value, dict)}
    shared = {"shared_output_norm", "shared_write_norm", "shared_write_cosine", "dla_shared", "dla_centred_shared", "dla_runner_up_shared"}
    wanted = {
        "no bias, softmax": {"chosen_biases", "runner_up_biases", "shared_gate"},
        "no shared expert": {*shared, "shared_gate"},
        "attention beside delta nets, a gate for the shared expert": {"chosen_biases", "runner_up_biases"},
        "grouped attention, no shared expert, one dense layer": {*shared, "shared_gate", "chosen_biases", "runner_up_biases"},
    }
    assert OF_DELTA | wanted.get(name, {"shared_gate"}) == lacks


def test_a_delta_layer_says_why_it_has_no_attention(tmp_path: Path) -> None:
    recorded = record_steps(small_checkpoint(tmp_path / "model", qwen_config()), PROMPT, level="full", prompt_level="standard")
    of_attention = {field.name for field in fields.fields_of("layer", "full") if "delta layer" in field.absent}
    for position, level in ((0, "standard"), (PROMPT, "full")):
        wanted = {field.name for field in fields.fields_of("layer", level)}
        values = recorded.at(position, "layer 1")
        assert of_attention & wanted == {name for name, value in values.items() if value == {"absent": "delta layer"}}
        assert OF_DELTA & wanted <= {name for name, value in values.items() if not isinstance(value, dict)}


def test_a_dense_layer_says_why_it_has_no_experts(record: Record) -> None:
    recorded = record(level="full", prompt_level="full")
    for position, kind in ((0, "prompt"), (PROMPT, "forced")):
        values = recorded.at(position, "layer 0")
        for name in ("chosen", "gates", "chosen_biases", "runners_up", "router_logits_sha256", "expert_write_cosines", "shared_output_norm",
                     "dla_experts", "dla_shared", "dla_centred_combination_rounding"):  # fmt: skip
            assert {"absent": "dense layer"} == values[name], (kind, name)
    assert {"absent": "not a step"} == recorded.at(0, "layer 0")["dla_attention"] == recorded.at(0, "layer 1")["dla_experts"]
    assert {"absent": "forced"} == recorded.at(PROMPT, "sampler")["draw"]


def test_refused_experts_of_closed_groups_are_no_runners_up() -> None:
    router = ops.Router(experts=8, chosen=2, groups=4, kept_groups=2)
    selection = np.array([0.9, 0.1, 0.8, 0.7, 0.6, 0.65, 0.5, 0.4], np.float32)  # the groups' two best sum to 1.0, 1.5, 1.25 and 0.9
    assert [5, 4] == readout.runners_up(router, selection, np.array([2, 3])).tolist()


def test_a_draw_is_recorded(k25_folder: Path) -> None:
    sampler = formation.Sample(temperature=0.9, top_k=50, seed=3)
    with formation.Engine(formation.open(k25_folder), memory="24MiB") as engine:
        recorder = prepare(engine, range(PROMPT - 1, PROMPT), lambda probe: probe, {"level": "minimal"})
        (step,) = engine.generate(IDS[:PROMPT], 1, sampler)
        token = Token(step.id, b"x", "generated", "sample", sampled(sampler, step.choice, step.logits))
        found = finish(engine, recorder, PROMPT - 1, step.logits, token)
    measured = {o["slot"]: o["measured"] for o in found}["sampler"]
    draw = step.choice.draw
    assert draw is not None and 50 >= draw.kept > 0
    drawn = {"method": "sample", "draw": draw.draw, "low": draw.low, "high": draw.high, "kept": draw.kept, "kept_mass": draw.kept_mass}
    assert drawn.items() <= measured.items()
    assert measured.keys() == {field.name for field in fields.fields_of("sampler", "minimal") if field.tag == "measured"}


# ---- memory


def test_memory_does_not_grow_with_steps(k25_folder: Path) -> None:
    held: list[int] = []
    with formation.Engine(formation.open(k25_folder), memory="24MiB", threads=1) as engine:
        recorder = prepare(engine, range(0, 200), lambda probe: probe, {"level": "standard"})
        engine.probe = None
        list(engine.generate(IDS[:1], 25))  # now every expert of the run is in the engine's cache: what grows below is the recorder's
        engine.probe = recorder
        tracemalloc.start()
        for step in engine.generate(IDS[:1], 25):
            finish(engine, recorder, step.position - 1, step.logits, Token(step.id, b"", "generated", "greedy"))
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    a_step = 4 * 96 * 4 * (4 + 4 + 1)  # bytes of the rows of one step
    assert held[-1] - held[4] < 10 * a_step


def test_prompt_observations_are_given_once_and_leave_nothing_behind(k25_folder: Path) -> None:
    with formation.Engine(formation.open(k25_folder), memory="24MiB") as engine:
        recorder = prepare(engine, range(0), lambda probe: probe, {"prompt_level": "standard"})
        engine.logits(IDS)
        assert 5 * len(IDS) == len(list(recorder.prompt_observations()))
        assert [] == list(recorder.prompt_observations())
        assert recorder._spool._places == {} and recorder._spool._file.seek(0, 2) == 0


def test_a_pass_that_failed_halfway_can_be_run_again(k25_folder: Path) -> None:
    class Failing:
        def __init__(self, probe: Probe) -> None:
            self.probe = probe

        def wants(self, tap: Tap) -> bool:
            return self.probe.wants(tap)

        def __call__(self, site: Site, positions: Any, values: Any) -> None:
            if site.layer == 2:
                raise OSError("cut")
            self.probe(site, positions, values)

    wanted = text(record_pass(k25_folder, PROMPT).observations)
    with formation.Engine(formation.open(k25_folder), memory="24MiB") as engine:
        recorder = prepare(engine, range(PROMPT - 1, len(IDS) - 1), Failing, {})
        with pytest.raises(OSError, match="cut"):
            engine.logits(IDS[:-1])
        assert [] == list(recorder.prompt_observations())
        engine.probe = recorder
        logits = engine.logits(IDS[:-1])
        observations = list(recorder.prompt_observations())
        for p in range(PROMPT - 1, len(IDS) - 1):
            observations += finish(engine, recorder, p, logits[p], Token(IDS[p + 1], bytes([IDS[p + 1] % 256]), "forced", "forced"))
    assert wanted == text(observations)
