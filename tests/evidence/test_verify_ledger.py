"""Checks V13 to V30, V38 and V39: each is broken alone, by an owner who hashes and signs again what was changed."""

from __future__ import annotations

import math
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.evidence.broken_bundles import STEP, edit, flip, refused, replace_row, report_of
from tests.evidence.whole_bundles import GREEDY, SAMPLE, Kind, edit_document, edit_lines, make, reseal, ulp_more
from tests.ledger.small_ledger import Line, at, with_vector
from tests.ledger.small_ledger import ulp_more as vector_ulp_more

from formation.ledger.formulas import DERIVED, recompute

pytestmark = pytest.mark.usefixtures("no_keys_of_the_user")


# ---- LEDGER


def test_v13_a_line_of_another_run_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_lines(bundle, lambda lines: lines[5].update(run_id="ab" * 32))
    reseal(bundle)
    refused(capsys, bundle, "V13")


def test_v13_another_field_table_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, -1, "run", "fields_sha256", lambda _: "00" * 32)
    refused(capsys, bundle, "V13")


def test_v13_a_shape_beyond_any_file_is_refused_without_delay(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, -1, "run", "shape", lambda shape: shape | {"layers": 1 << 50, "dense_layers": 1 << 50, "experts": 0, "chosen": 0})
    refused(capsys, bundle, "V13")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda lines: lines[:-1], id="the last line is missing"),
        pytest.param(lambda lines: lines[:-7], id="the last token is missing"),
        pytest.param(lambda lines: [*lines, lines[-1]], id="a line twice"),
        pytest.param(lambda lines: [*lines[:5], lines[6], lines[5], *lines[7:]], id="two lines in another order"),
        pytest.param(lambda lines: lines[:1] + [line for line in lines[1:] if line["slot"] != "layer 1"], id="a layer is skipped"),
        pytest.param(lambda lines: lines[5]["measured"].pop("residual_norm") and None, id="a field is missing"),
        pytest.param(lambda lines: lines[5]["derived"].update(lines[5]["measured"]), id="measured values as derived"),
    ],
)
def test_v14_a_ledger_of_other_lines_than_its_anchor_demands_is_refused(change: Any, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_lines(bundle, change)
    reseal(bundle)
    refused(capsys, bundle, "V14")


def test_v14_a_run_that_goes_on_behind_a_stop_id_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "token", "id", lambda _: 38)
    refused(capsys, bundle, "V14")


def test_v15_a_derived_value_changed_by_its_owner_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "lm_head", "logprob", lambda x: x + 2.0**-40)
    refused(capsys, bundle, "V15")


def test_v16_contributions_that_do_not_add_up_are_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "lm_head", "exact_logit", lambda x: x + 2.0**-40)
    refused(capsys, bundle, "V16")


def test_v17_experts_that_do_not_add_up_to_their_layer_are_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "layer 1", "dla_experts", lambda x: [x[0] + 2.0**-40, *x[1:]])
    refused(capsys, bundle, "V17")


def test_v15_another_rounding_of_the_head_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "lm_head", "lm_head_rounding", lambda x: x + 2.0**-40)
    refused(capsys, bundle, "V15")


def test_v19_a_last_lens_that_is_not_the_head_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "layer 2", "lens_top_logits", with_vector(lambda z: z.__setitem__(4, z[4] - 0.125)))
    refused(capsys, bundle, "V19")


def test_v20_a_runner_up_out_of_its_order_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def swap(values: list[Any]) -> None:
        values[1], values[2] = values[2], values[1]

    names = ("logits", "scores", "selection", "biases")
    for name in names:
        edit(bundle, STEP, "layer 1", f"runner_up_{name}", with_vector(swap))
    edit(bundle, STEP, "layer 1", "runners_up", lambda x: [x[0], x[2], x[1], *x[3:]])
    refused(capsys, bundle, "V20")


def test_v21_a_score_that_is_not_its_logits_sigmoid_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "layer 1", "chosen_logits", with_vector(lambda q: q.__setitem__(0, q[0] + 0.5)))
    refused(capsys, bundle, "V21")


def test_v22_a_gate_one_step_away_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "layer 1", "gates", vector_ulp_more(0))
    gates: list[float] = []
    edit(bundle, STEP, "layer 1", "gates", with_vector(gates.extend))
    edit(bundle, STEP, "layer 1", "gate_sum", lambda _: 0.0 + gates[0] + gates[1])
    refused(capsys, bundle, "V22")


def test_v23_a_largest_logit_behind_a_smaller_one_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "layer 0", "lens_top", lambda x: [x[1], x[0], *x[2:]])
    edit(bundle, STEP, "layer 0", "lens_top_logits", with_vector(lambda z: z.__setitem__(slice(0, 2), [z[1], z[0]])))
    refused(capsys, bundle, "V23")


def test_v24_an_entropy_beyond_the_vocabulary_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "layer 0", "lens_entropy", lambda _: 4.0)
    refused(capsys, bundle, "V24")


def test_v25_a_draw_outside_of_the_tokens_interval_is_refused(sampled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def moved(lines: list[Line]) -> None:
        values = at(lines, STEP, "sampler")["measured"]
        width = values["high"] - values["low"]
        values["low"] = 0 if values["draw"] > width else 1 - width
        values["high"] = values["low"] + width

    edit_lines(sampled, moved)
    reseal(sampled)
    refused(capsys, sampled, "V25")


def test_v25_a_greedy_token_without_the_largest_logit_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "token", "id", lambda i: (i + 1) % 30)
    failed = [outcome.check.id for outcome in report_of(bundle).failed]
    assert "V25" in failed


def test_v26_an_id_with_two_embeddings_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, 0, "embed", "residual_sha256", lambda _: "00" * 32)
    refused(capsys, bundle, "V26")


def test_v26_a_prompt_id_beyond_the_vocabulary_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, make(tmp_path / "run.ofb", Kind(prompt=(3, 40, 3), rows="none")), "V26")


def test_v26_a_token_spelled_in_two_ways_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "run.ofb", Kind(prompt=(3, 5, 3, 5), rows="none", repeat=True))
    edit(folder, 4, "token", "bytes", lambda _: "eA==")
    refused(capsys, folder, "V26")


def test_v27_a_draw_that_is_not_the_seeds_is_refused(sampled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def drawn_again(lines: list[Line]) -> None:
        values = at(lines, STEP, "sampler")["measured"]
        values["draw"] = values["low"] + (values["high"] - values["low"]) / 4

    edit_lines(sampled, drawn_again)
    reseal(sampled)
    refused(capsys, sampled, "V27")


def test_v25_another_probability_than_the_intervals_is_refused(sampled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def wider(lines: list[Line]) -> None:
        values = at(lines, STEP, "sampler")["measured"]
        values["low"], values["high"] = values["low"] / 2, (1 + values["high"]) / 2

    edit_lines(sampled, wider)
    reseal(sampled)
    refused(capsys, sampled, "V25")


@pytest.mark.parametrize("field", ["tempered_score", "tempered_mean", "tempered_rank_high", "sampler_top_masses", "sampler_log_sum_exp"])
def test_v27_numbers_of_another_temperature_are_refused(sampled: Path, capsys: pytest.CaptureFixture[str], field: str) -> None:
    """At temperature 1, with nothing cut off, they are those of the model's own distribution, bit for bit"""

    def step_up(lines: list[Line]) -> None:
        line = at(lines, STEP, "sampler")
        line["measured"][field] = stepped(line["measured"][field])
        for name in DERIVED:
            if name in line["derived"]:
                line["derived"][name] = recompute(name, line["measured"] | line["derived"])

    edit_lines(sampled, step_up)
    reseal(sampled)
    refused(capsys, sampled, "V27")


def stepped(value: Any) -> Any:
    if isinstance(value, list):
        return [*value[:-1], stepped(value[-1])]
    return value + 1 if isinstance(value, int) else math.nextafter(value, math.inf)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(dict(GREEDY), id="greedy"),
        pytest.param({**SAMPLE, "seed": "8"}, id="another seed"),
        pytest.param({**SAMPLE, "branch": "0"}, id="another branch"),
        pytest.param({**SAMPLE, "top_k": 2}, id="top-k"),
    ],
)
def test_v27_an_anchor_that_lies_about_the_sampler_is_refused(settings: Any, sampled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_document(sampled, "anchor.json", lambda anchor: anchor.update(sampler=settings))
    run_id = sha256((sampled / "anchor.json").read_bytes()).hexdigest()
    edit_lines(sampled, lambda lines: [line | {"run_id": run_id} for line in lines])
    reseal(sampled)
    refused(capsys, sampled, "V27")


def test_v28_a_row_that_is_not_the_one_its_line_names_is_refused(with_rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(with_rows / "router" / "00000000.safetensors", -1)
    reseal(with_rows)
    refused(capsys, with_rows, "V28")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda rows: flip(rows / "00000000.safetensors", 9), id="header"),
        pytest.param(lambda rows: (rows / "00000000.safetensors").rename(rows / "00000064.safetensors"), id="name"),
        pytest.param(lambda rows: (rows / "00000000.safetensors").open("ab").write(b"\0" * 4), id="bytes behind"),
        pytest.param(lambda rows: (rows / "00000064.safetensors").write_bytes((rows / "00000000.safetensors").read_bytes()), id="a file too many"),
        pytest.param(lambda rows: (rows / "00000000.safetensors").unlink(), id="no file"),
    ],
)
def test_v28_a_file_of_rows_in_another_form_is_refused(change: Any, with_rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(with_rows / "router")
    reseal(with_rows)
    refused(capsys, with_rows, "V28")


def test_v28_a_file_behind_the_last_position_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make(tmp_path / "run.ofb", Kind(prompt=(4,) * 62, tokens=3))
    (folder / "rows" / "00000064.safetensors").write_bytes(b"\0" * 4096)
    reseal(folder)
    refused(capsys, folder, "V28")


def test_v28_rows_of_fewer_positions_than_the_ledger_has_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, shorter = make(tmp_path / "run.ofb"), make(tmp_path / "shorter.ofb", Kind(tokens=2))
    (shorter / "router" / "00000000.safetensors").rename(folder / "router" / "00000000.safetensors")
    reseal(folder)
    refused(capsys, folder, "V28")


def test_v29_one_step_in_a_row_that_its_owner_hashed_and_signed_again_is_refused(with_rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replace_row(with_rows, "rows/00000000.safetensors", ulp_more, STEP, "layer 1", "residual_sha256")
    refused(capsys, with_rows, "V29")


def test_v30_a_selection_row_that_does_not_follow_from_the_logits_is_refused(with_rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replace_row(with_rows, "router/00000000.safetensors", ulp_more, STEP, "layer 1", "router_selection_sha256")
    refused(capsys, with_rows, "V30")


def test_v30_a_row_of_logits_that_are_no_numbers_is_refused(with_rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    not_a_number = partial(bytes.__add__, b"\0\0\xc0\x7f")
    replace_row(with_rows, "router/00000000.safetensors", lambda row: not_a_number(row[4:]), STEP, "layer 1", "router_logits_sha256")
    refused(capsys, with_rows, "V30")


def test_v38_a_write_longer_than_the_rows_around_it_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "layer 1", "after_attention_norm", lambda x: 2 * x)
    refused(capsys, bundle, "V38")


def test_v38_a_scale_that_would_excuse_any_attribution_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "lm_head", "final_scale", lambda x: x * 2.0**-40)
    edit(bundle, STEP, "lm_head", "exact_logit", lambda x: x + 1e-6)
    refused(capsys, bundle, "V38")


def test_v39_attention_weights_out_of_their_order_are_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "layer 1", "attention_strongest", lambda x: x[::-1])
    refused(capsys, bundle, "V39")


def test_v39_attention_more_uncertain_than_its_positions_allow_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(bundle, STEP, "layer 1", "attention_entropy", lambda x: x + 3)
    refused(capsys, bundle, "V39")
