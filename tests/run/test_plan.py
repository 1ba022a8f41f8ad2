"""The plan's sizes are the published facts, and a plan always fits its budget or says why not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools.synthetic_checkpoint import FP8, Names, k25_config, qwen3_next_config

from formation.errors import BudgetError
from formation.model.architecture import Model, parts_of
from formation.model.catalog import read_model
from formation.run.generate import Engine
from formation.run.machine import parse_bytes, show_bytes
from formation.run.plan import Sizes, count_parameters, make_plan, measure_sizes
from formation.samples import folder
from formation.weights.checkpoint import open_checkpoint
from small_models import fp8_config

K25 = read_model(k25_config())
K25_PARTS = parts_of(K25, Names(K25.quantisation))
K25_SIZES = measure_sizes(K25_PARTS, K25.shape)


def sizes_of(model: Model) -> Sizes:
    return measure_sizes(parts_of(model, Names(model.quantisation)), model.shape)


def test_sizes_of_kimi_k25_are_the_published_ones() -> None:
    assert K25_SIZES.experts[1] == 24_772_632
    assert K25_SIZES.expert_total == 60 * 384 * 24_772_632
    assert K25_SIZES.embedding == 163840 * 7168 * 2
    assert K25_SIZES.experts_per_token == pytest.approx(11.89e9, rel=1e-3)
    assert K25_SIZES.layers[0] == pytest.approx(995.0e6, rel=1e-3)
    assert K25_SIZES.layers[1] == pytest.approx(295.9e6, rel=1e-3)
    assert K25_SIZES.always + K25_SIZES.embedding == pytest.approx(23.44e9, rel=1e-3)


def test_parameters_of_kimi_k25_are_a_trillion_with_32_billion_active() -> None:
    parameters = count_parameters(K25_PARTS, K25.shape)
    assert parameters.total == pytest.approx(1.026e12, rel=1e-3)
    assert parameters.active == pytest.approx(31.7e9, rel=0.02)


def test_an_fp8_expert_of_kimi_k2_has_its_published_size() -> None:
    config = k25_config()["text_config"] | {"quantization_config": FP8}
    assert sizes_of(read_model(config)).experts[1] == 44_050_944


def test_sizes_of_qwen3_next_are_the_published_ones() -> None:
    model = read_model(qwen3_next_config())
    sizes = sizes_of(model)
    assert sizes.experts[0] == 6_291_456
    assert sizes.experts_per_token == pytest.approx(3.02e9, rel=1e-3)
    parameters = count_parameters(parts_of(model, Names(model.quantisation)), model.shape)
    assert parameters.total == pytest.approx(79.7e9, rel=1e-2)
    assert parameters.active == pytest.approx(3.6e9, rel=0.1)


def test_the_cache_of_qwen3_next_is_that_of_its_kinds_of_layers() -> None:
    model = read_model(qwen3_next_config())
    small, large = (make_plan(model, sizes_of(model), parse_bytes("32GiB"), n).cache_bytes for n in (1024, 2048))
    assert large - small == 12 * 1024 * 1024 * 4  # twelve layers keep 1,024 values of each position
    assert small - (large - small) == 36 * 4 * (32 * 128 * 128 + 3 * 8192)


def test_a_budget_that_holds_all_that_is_always_needed_keeps_it_and_caches_experts() -> None:
    plan = make_plan(K25, K25_SIZES, parse_bytes("32GiB"), 1024)
    assert len(plan.resident) == 62
    assert plan.always_read_bytes == 0
    assert plan.bytes_per_token == K25_SIZES.experts_per_token
    assert plan.expert_cache_bytes > 4e9


def test_a_small_budget_reads_the_rest_again_for_every_token() -> None:
    plan = make_plan(K25, K25_SIZES, parse_bytes("8GiB"), 1024)
    assert 0 < len(plan.resident) < 62
    assert plan.bytes_per_token == K25_SIZES.experts_per_token + K25_SIZES.always - plan.resident_bytes


@pytest.mark.parametrize("capture", [0, 200_000_000])
def test_the_head_and_the_dense_layer_are_the_first_parts_to_stay(capture: int) -> None:
    plan = make_plan(K25, K25_SIZES, parse_bytes("5GiB"), 1024, 1, capture)
    assert {("head",), ("layer", 0)} <= set(plan.resident)


@pytest.mark.parametrize("memory", ["6GiB", "10GiB", "14GiB", "18GiB", "20GiB"])
def test_layers_that_are_read_again_lie_evenly_between_those_that_stay(memory: str) -> None:
    plan = make_plan(K25, K25_SIZES, parse_bytes(memory), 1024)
    kept = [("layer", layer) in plan.resident for layer in range(1, 61)]
    share = sum(kept) / len(kept)
    assert 0 < share < 1
    for begin in range(len(kept)):
        for end in range(begin + 1, len(kept) + 1):
            assert sum(kept[begin:end]) == pytest.approx(share * (end - begin), abs=3)


def test_a_part_that_would_pass_through_room_of_its_own_size_stays() -> None:
    """With one part left over, what it passes through is as large as itself, and nothing else needs that room."""
    all_but_one = sum(K25_SIZES.layers) + K25_SIZES.head - min(K25_SIZES.layers)
    plan = make_plan(K25, K25_SIZES, all_but_one + 3 * 8 * max(K25_SIZES.experts.values()), 1)
    assert len(plan.resident) == 61


def test_a_prompt_reads_every_layer_once_and_the_union_of_its_experts() -> None:
    plan = make_plan(K25, K25_SIZES, parse_bytes("32GiB"), 1024)
    for positions, share in ((8, 0.15), (32, 0.49), (100, 0.88)):
        experts = plan.bytes_per_prompt(positions, 384) - K25_SIZES.always
        assert experts / K25_SIZES.expert_total == pytest.approx(share, abs=0.01)


@settings(max_examples=150)
@given(budget=st.integers(1 << 20, 1 << 40), positions=st.integers(1, 200_000), rows=st.integers(1, 64), capture=st.integers(0, 1 << 34))
def test_every_plan_fits_its_budget_or_is_refused(budget: int, positions: int, rows: int, capture: int) -> None:
    try:
        plan = make_plan(K25, K25_SIZES, budget, positions, rows, capture)
    except BudgetError as error:
        assert "weights in use" in str(error)
        assert bool(capture) == (", capture " in str(error))
        return
    assert plan.resident_bytes + plan.transient_bytes + plan.cache_bytes + plan.activation_bytes + capture <= budget
    assert plan.stream_bytes + plan.cache_bytes + plan.activation_bytes + plan.capture_bytes == budget
    assert plan.expert_cache_bytes >= 0
    assert plan.chunk >= 1


@settings(max_examples=50)
@given(positions=st.integers(1, 10_000), capture=st.integers(0, 1 << 32))
def test_the_budget_that_a_refusal_asks_for_is_enough(positions: int, capture: int) -> None:
    model = read_model(fp8_config())
    sizes = sizes_of(model)
    with pytest.raises(BudgetError) as refusal:
        make_plan(model, sizes, 1, positions, 1, capture)
    asked = str(refusal.value.hint).split("--memory ")[1].split()[0]
    assert make_plan(model, sizes, parse_bytes(asked), positions, 1, capture).stream_bytes > 0


@pytest.mark.parametrize(("text", "count"), [("8GiB", 8 << 30), ("1.5 gb", 1_500_000_000), ("512MiB", 512 << 20), ("4096", 4096), (7, 7)])
def test_sizes_are_read_in_both_kinds_of_units(text: str | int, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (24_772_632, "24.8 MB"), (595_148_192_736, "595 GB")])
def test_sizes_are_shown_with_three_figures(count: int, text: str) -> None:
    assert show_bytes(count) == text


@pytest.mark.parametrize("over", [0, 1 << 14, 1 << 17, 1 << 19, 1 << 21])
def test_routers_that_are_kept_apart_leave_room_for_the_largest_part(over: int) -> None:
    """Where a long context takes most of the budget, a twentieth of it is more than what is left of the weights' share."""
    with Engine(open_checkpoint(folder("kimi_k25")), memory=(7_458_624 // 4096 + 1) * 4096 + over) as engine:
        plan = engine.plan(1024)
    largest = max(plan.sizes.head, *(size + 2 * plan.sizes.experts.get(layer, 0) for layer, size in enumerate(plan.sizes.layers)))
    assert plan.stream_bytes - plan.resident_bytes - plan.router_bytes >= largest + plan.sizes.row_buffer
