"""`formation bench`: what streaming costs here; `--replay`: what a cache would have held of a recorded run's experts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from formation.cli.main import main
from formation.cli.options import POLICY_NAMES
from formation.evidence.bundle import Bundle
from formation.weights.policy import DEFAULT, POLICIES
from recorded_runs import IDS, run


@pytest.fixture(scope="module")
def bundle(k25_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bench") / "run.ofb"
    run(k25_folder, out, parity="none")
    return out


def test_every_use_of_the_run_is_counted_and_with_room_for_all_only_first_uses_are_read(bundle: Path, capsys):
    assert 0 == main(["bench", "--replay", str(bundle), "--slots", "500", "--json"])
    facts = json.loads(capsys.readouterr().out)
    first = len(IDS) - 1  # the prompt's positions share a pass: there each expert is used once
    used = list({(max(first, e.position), e.layer, e.expert) for e in Bundle(bundle).experts if not e.shared})
    assert len(used) == facts["uses"]
    used = [key[1:] for key in used]
    assert len(set(used)) == facts["experts_used"] <= facts["experts"]
    assert [[len(used) - len(set(used))]] * 5 == [row["hits"] for row in facts["policies"]]


def test_of_several_runs_each_begins_with_an_empty_cache(bundle: Path, capsys):
    asked = ["--slots", "20", "--policies", "fading,optimum", "--json"]
    assert 0 == main(["bench", "--replay", str(bundle), *asked])
    one = json.loads(capsys.readouterr().out)
    assert 0 == main(["bench", "--replay", str(bundle), str(bundle), *asked])
    two = json.loads(capsys.readouterr().out)
    assert (2 * one["uses"], one["experts_used"]) == (two["uses"], two["experts_used"])
    assert [[2 * hits for hits in row["hits"]] for row in one["policies"]] == [row["hits"] for row in two["policies"]]


def test_the_table_has_a_line_for_each_policy_and_a_column_for_each_size(bundle: Path, capsys):
    assert 0 == main(["bench", "--replay", str(bundle), "--policies", "lru,optimum", "--slots", "20", "--slots", "10"])
    lines = capsys.readouterr().out.splitlines()
    assert ["10", "20"] == lines[-3].split()[-2:]
    assert ["lru", "optimum"] == [line.split()[0] for line in lines[-2:]]
    shares = [[float(word.rstrip("%")) for word in line.split()[1:]] for line in lines[-2:]]
    assert all(kept <= best for kept, best in zip(*shares, strict=True))


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--policies", "lru,mru"], 2, "policies: expected some of fading, lru, lfu, segmented, optimum, got 'mru'"),
        (["--slots", "1"], 2, "slots: expected at least the 4 experts that a token uses in one layer, got 1"),
    ],
)
def test_a_wrong_option_is_refused_by_name(bundle: Path, capsys, more, code, said):
    assert code == main(["bench", "--replay", str(bundle), *more])
    out, err = capsys.readouterr()
    assert "" == out
    assert said in err


def test_the_options_name_the_policies_that_there_are_the_default_first():
    assert list(POLICIES) == list(POLICY_NAMES)
    assert DEFAULT == POLICY_NAMES[0]


def test_what_is_no_bundle_is_refused(tmp_path: Path, capsys):
    assert 3 == main(["bench", "--replay", str(tmp_path / "none.ofb")])
    assert "expected a bundle" in capsys.readouterr().err


def test_a_checkpoint_is_measured_and_its_figures_fit_together(k25_folder: Path, capsys):
    asked = ["bench", str(k25_folder), "--memory", "2MiB", "--rounds", "1", "--tokens", "3", "--positions", "4", "--threads", "1"]
    assert 0 == main([*asked, "--json"])
    facts = json.loads(capsys.readouterr().out)
    (found,), decode = facts["rounds"], facts["decode"]
    tokens = found["tokens"]
    assert 3 == len(tokens) and not facts["interrupted"] and 2 == len(facts["prefills"])
    read, seconds = sum(token["disk_bytes"] for token in tokens), sum(token["seconds"] for token in tokens)
    needed = sum(token["floor_bytes"] for token in tokens)
    assert (read / 3, read / seconds / found["raw"]) == (decode["bytes_per_token"], decode["disk_share_of_raw"])
    assert (needed / seconds / found["raw"], read / needed) == (decode["share_of_raw"], decode["read_over_floor"])
    assert 0 < decode["read_over_floor"] and 0 <= decode["wasted_share"] < 1 and 0 <= decode["waiting_share"] <= 1
    assert 12 * 3 == sum(token["expert_uses"] for token in tokens)  # four experts in each of three layers
    assert {"seconds_per_token_off", "seconds_per_token_on", "added"} == facts["capture"].keys()
    assert [2 << 20] == [p["budget"] for p in facts["prediction"]]


def test_the_table_says_every_figure_and_what_guessing_did(k25_folder: Path, capsys):
    assert 0 == main(["bench", str(k25_folder), "--memory", "2MiB", "--rounds", "1", "--tokens", "2", "--no-guess", "--no-capture"])
    out = capsys.readouterr().out
    for words in ("raw disk", "whole token", "of the floor", "0.0% of the bytes read, and 0.0%", "waiting", "peak resident", "all 4 layers"):
        assert words in out
    assert "recording" not in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "bench: expected CKPT or --replay, got none"),
        (["CKPT", "--replay", "x.ofb"], "bench: expected CKPT or --replay, got both"),
        (["CKPT", "--slots", "3"], "bench: expected --policies and --slots with --replay"),
        (["CKPT", "--rounds", "0"], "of 1 or more, got less"),
    ],
)
def test_what_cannot_be_measured_is_refused(k25_folder: Path, capsys, words, said):
    assert 2 == main(["bench", *(str(k25_folder) if word == "CKPT" else word for word in words)])
    assert said in capsys.readouterr().err
