"""Observers of one's own: copies of every tap under its name, whole, once per layer and pass; they change nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import formation
from formation.errors import UsageError
from formation.kernels.tensor import F32, I64
from formation.model.catalog import read_model
from formation.model.taps import Site, Tap
from formation.run.observe import NAMES, OF_A_LAYER
from formation.samples import folder
from small_models import flat_config, qwen_config, small_checkpoint

IDS = [int(i) for i in np.random.default_rng(7).integers(0, 512, 9)]
LAYERS, MOE = range(4), range(1, 4)
Seen = list[tuple[I64, Any]]


def engine(folder: Path, **options: object) -> formation.Engine:
    return formation.Engine(formation.open(folder), **({"memory": "24MiB", "threads": 2} | options))  # type: ignore[arg-type]


class Keeper:
    """What a run showed: site -> position -> values"""

    def __init__(self) -> None:
        self.rows: dict[Site, dict[int, Any]] = {}

    def wants(self, tap: Tap) -> bool:
        return True

    def __call__(self, site: Site, positions: I64, values: F32 | I64) -> None:
        for position, row in zip(positions.tolist(), values, strict=True):
            self.rows.setdefault(site, {})[position] = row.copy()


def collect(seen: dict[str, Seen], name: str) -> Callable[[I64, Any], None]:
    return lambda positions, values: seen.setdefault(name, []).append((positions, values))


def every_name() -> list[str]:
    """Of a model with attention in every layer, whose shared expert has no gate"""
    names = ["embedding", "final_norm", "logits"]
    for layer in LAYERS:
        routed = {"router_logits", "router_scores", "router_selection", "router", "chosen", "gates"}
        held = [name for name in OF_A_LAYER if name != "shared_gate" and not name.startswith("delta_")]
        names += [f"layer.{layer}.{name}" for name in held if layer in MOE or name not in routed]
        names += [f"layer.{layer}.expert.{e}" for e in (0, 3, "shared") if layer in MOE]
    return names


def site_of(name: str) -> Site:
    parts = name.split(".")
    if len(parts) == 1:
        return Site(Tap(name))
    if parts[2] == "expert":
        return Site(Tap.EXPERT_OUTPUT, int(parts[1]), -1 if parts[3] == "shared" else int(parts[3]))
    return Site(Tap("router_logits" if parts[2] == "router" else parts[2]), int(parts[1]))


@pytest.mark.parametrize("chunk", [256, 2], ids=["whole", "in pieces"])
def test_every_name_shows_what_the_probe_sees_once_in_a_pass(k25_folder: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr("formation.run.plan.LARGEST_CHUNK", chunk)
    keeper, seen = Keeper(), dict[str, Seen]()
    with engine(k25_folder, probe=keeper) as e:
        e.logits(IDS, observe={name: collect(seen, name) for name in every_name()})
    for name in every_name():
        rows = keeper.rows.get(site_of(name), {})
        assert (1 if rows else 0) == len(seen.get(name, [])), name
        for positions, values in seen.get(name, []):
            assert sorted(rows) == positions.tolist()
            for position, row in zip(positions.tolist(), values, strict=True):
                expected = rows[position]
                assert expected.tobytes() == row[..., : expected.shape[-1]].tobytes() and not row[..., expected.shape[-1] :].any()


def test_observers_change_no_bit_whatever_they_do_with_what_they_get(k25_folder: Path) -> None:
    def spoil(positions: I64, values: Any) -> None:
        for array in (positions, values):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0
            array.flags.writeable = True
            array[...] = 1

    with engine(k25_folder) as e:
        wanted = e.logits(IDS)
        assert wanted.tobytes() == e.logits(IDS, observe=dict.fromkeys(every_name(), spoil)).tobytes()
        plain = [step.logits.tobytes() for step in e.generate(IDS, 3)]
        assert plain == [step.logits.tobytes() for step in e.generate(IDS, 3, observe=dict.fromkeys(every_name(), spoil))]


def test_two_names_of_one_tensor_get_copies_of_their_own(k25_folder: Path) -> None:
    seen = dict[str, Seen]()
    names = ("layer.2.router", "layer.2.router_logits", "layer.*.router")
    with engine(k25_folder) as e:
        e.logits(IDS, observe={name: collect(seen, name) for name in names})
    first, second, third = (seen[name][-2 if "*" in name else 0][1] for name in names)
    assert first.tobytes() == second.tobytes() == third.tobytes()
    assert not np.shares_memory(first, second) and not np.shares_memory(second, third)


def test_a_star_stands_for_every_layer_that_has_it_in_order(k25_folder: Path) -> None:
    seen = dict[str, Seen]()
    with engine(k25_folder) as e:
        every = {name: collect(seen, name) for name in ("layer.*.residual", "layer.*.gates")}
        e.logits(IDS, observe=every | {f"layer.{n}.residual": collect(seen, f"layer.{n}.residual") for n in LAYERS})
    assert (4, 3) == (len(seen["layer.*.residual"]), len(seen["layer.*.gates"]))
    assert [seen[f"layer.{n}.residual"][0][1].tobytes() for n in LAYERS] == [values.tobytes() for _, values in seen["layer.*.residual"]]


@pytest.mark.parametrize("keep_cache", [True, False])
def test_a_generation_is_a_pass_of_the_prompt_and_one_for_each_step(k25_folder: Path, keep_cache: bool) -> None:
    seen = dict[str, Seen]()
    with engine(k25_folder, keep_cache=keep_cache) as e:
        steps = list(e.generate(IDS, 3, observe={name: collect(seen, name) for name in ("layer.1.residual", "logits")}))
    new = [[9], [10]] if keep_cache else [list(range(10)), list(range(11))]
    assert [list(range(9)), *new] == [positions.tolist() for positions, _ in seen["layer.1.residual"]]
    assert [step.logits.tobytes() for step in steps] == [values.tobytes() for _, values in seen["logits"]]


def test_what_an_observer_raises_ends_the_run_and_the_next_begins_anew(k25_folder: Path) -> None:
    def fail(positions: I64, values: Any) -> None:
        raise ArithmeticError("seen enough")

    seen = dict[str, Seen]()
    with engine(k25_folder) as e:
        with pytest.raises(ArithmeticError, match="seen enough"):
            e.logits(IDS, observe={"layer.1.after_attention": fail})
        e.logits(IDS, observe={"layer.1.after_attention": collect(seen, "u")})
    assert [len(IDS)] == [len(positions) for positions, _ in seen["u"]]


WRONG = {
    "layer.3.rooter": "expected a name of a tap",
    "layers.3.router": "expected a name of a tap",
    "": "expected a name of a tap",
    "layer.3": "expected a name of a tap",
    "residual": "expected a name of a tap",
    "layer.3.expert_output": "expected a name of a tap",
    "layer.3.embedding": "expected a name of a tap",
    "layer.4.residual": "expected a layer from 0 to 3",
    "layer.-1.residual": "expected a layer from 0 to 3",
    "layer.x.residual": "expected a layer from 0 to 3",
    "layer.0.router": "expected a layer from 1 to 3",
    "layer.0.expert.shared": "expected a layer from 1 to 3",
    "layer.3.expert.24": "expected an expert from 0 to 23",
    "layer.3.expert.": "expected an expert from 0 to 23",
    "layer.3.expert.*": "expected an expert from 0 to 23",
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("call", ["logits", "generate"])
def test_a_name_that_is_none_is_refused_before_anything_is_read(k25_folder: Path, name: str, call: str) -> None:
    with engine(k25_folder) as e:
        run: dict[str, Callable[..., object]] = {"logits": e.logits, "generate": lambda ids, observe: e.generate(ids, 1, observe=observe)}
        with pytest.raises(UsageError, match=WRONG[name]) as refused:
            run[call](IDS, observe={name: print})
        assert e._executor is None and 2 == refused.value.exit_code and repr(name) in str(refused.value)
    if "name of a tap" in WRONG[name]:
        assert all(known in str(refused.value.hint) for known in NAMES)


def test_a_model_without_experts_has_no_names_for_them(tmp_path: Path) -> None:
    folder = small_checkpoint(tmp_path / "model", flat_config(first_k_dense_replace=4))
    with engine(folder) as e, pytest.raises(UsageError, match=r"expected a layer with experts, got 'layer\.\*\.gates'"):
        e.logits(IDS, observe={"layer.*.gates": print})


OF_A_MIXED_MODEL = {
    "layer.0.attention_weights": "expected a layer from 3 to 3",
    "layer.1.cache_entry": "expected a layer from 3 to 3",
    "layer.3.delta_beta": "expected a layer from 0 to 2",
    "layer.4.delta_state": "expected a layer from 0 to 2",
}


@pytest.mark.parametrize("name", OF_A_MIXED_MODEL)
def test_names_of_another_kind_of_layer_are_refused(tmp_path: Path, name: str) -> None:
    folder = small_checkpoint(tmp_path / "model", qwen_config())
    with engine(folder) as e, pytest.raises(UsageError, match=OF_A_MIXED_MODEL[name]):
        e.logits(IDS, observe={name: print})


@pytest.mark.parametrize(("name", "lacks"), [("layer.*.delta_decay", "a delta net"), ("layer.0.shared_gate", "a gate of the shared expert")])
def test_names_that_no_layer_of_the_model_has_are_refused(k25_folder: Path, name: str, lacks: str) -> None:
    with engine(k25_folder) as e, pytest.raises(UsageError, match=f"expected a layer with {lacks}, got '{re.escape(name)}'"):
        e.logits(IDS, observe={name: print})


def test_gates_and_states_of_delta_layers_can_be_seen(tmp_path: Path) -> None:
    folder = small_checkpoint(tmp_path / "model", qwen_config())
    seen: dict[str, list[Any]] = {}
    names = ("delta_beta", "delta_decay", "delta_state", "delta_tail", "shared_gate", "attention_weights")
    observe = {f"layer.*.{name}": lambda positions, values, name=name: seen.setdefault(name, []).append(values) for name in names}
    with engine(folder) as e:
        blind, shown = e.logits(IDS), e.logits(IDS, observe=observe)
    assert blind.tobytes() == shown.tobytes()
    T = len(IDS)
    shapes = {"delta_beta": (T, 4), "delta_decay": (T, 4), "delta_state": (T, 4, 24, 40), "delta_tail": (T, 3, 256)}
    assert {name: [shape] * 3 for name, shape in shapes.items()} == {name: [v.shape for v in seen[name]] for name in shapes}
    assert [(T,)] * 4 == [v.shape for v in seen["shared_gate"]] and [(T, 4, T)] == [v.shape for v in seen["attention_weights"]]


def test_the_example_of_the_quickstart_runs() -> None:
    text = (Path(__file__).parents[2] / "docs/quickstart.md").read_text()
    (code,) = re.findall(r"## Observers\n.*?```python\n(.*?)```", text, re.S)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shape = read_model(formation.open(folder("kimi_k25")).config).shape
    assert 2 == len(done.stdout.splitlines())
    assert f"{len(shape.expert_layers())} (3, {shape.chosen})" == done.stdout.splitlines()[1]


def test_the_quickstart_names_every_tap() -> None:
    text = (Path(__file__).parents[2] / "docs/quickstart.md").read_text()
    (section,) = re.findall(r"## Observers\n(.*?)\n## ", text, re.S)
    for name in NAMES:
        last = name.removeprefix("layer.N.").replace("expert.E", "expert.17")
        assert f"`{last}`" in section, name
