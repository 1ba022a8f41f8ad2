"""A challenge on the shipped samples: what is on disk before the other side speaks, what the numbers are, and the answer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.dialogue.forked import files_of

import formation
from formation.cli.main import main
from formation.dialogue.certificate.bounds import certify
from formation.dialogue.certificate.lm_head import LmHead
from formation.dialogue.forks import answer, log
from formation.dialogue.forks.challenge import ARMS, SUMMARY
from formation.dialogue.forks.nominate import shared_tokens
from formation.dialogue.intervals import slope
from formation.dialogue.local import open_local
from formation.dialogue.side import Manner, Turn
from formation.ledger import canonical
from formation.run.generate import Engine
from formation.samples import folder
from formation.text import load_tokenizer

KIMI, QWEN = folder("kimi_k25"), folder("qwen3_next")
SEEDS, REPEATS = 2, 3
ASKED = ["--b", f"lamp={KIMI}", "--b-no-thinking", "--temperature", "1", "--repeats", str(REPEATS), "--tokens", "4", "--memory", "48MiB"]
NOMINATED = ["--a", f"owl={QWEN}", "--seeds", str(SEEDS)]


def challenge(out: Path, *words: str) -> int:
    return main(["challenge", *ASKED, *words, "--out", str(out)])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("challenge") / "made"
    assert 0 == challenge(out, *NOMINATED)
    return out


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / log.NAME).read_bytes().splitlines()]


def told(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / SUMMARY).read_bytes())
    return found


def test_all_that_is_measured_of_a_token_is_on_disk_before_the_other_side_speaks(made: Path) -> None:
    head, *lines = lines_of(made)
    tokens = list(dict.fromkeys(line["text"] for line in lines[:SEEDS]))
    kinds = [line["line"] for line in lines]
    assert kinds[: SEEDS + len(tokens)] == ["nominated"] * SEEDS + ["measured"] * len(tokens)
    assert sorted(kinds[SEEDS + len(tokens) :]) == sorted(ARMS * SEEDS)
    assert ["owl", "lamp"] == [side["name"] for side in head["sides"]]
    for line in lines[SEEDS : SEEDS + len(tokens)]:
        assert line["floor_nats"] < line["before"]["logprob_nats"] <= 0 and 1 <= line["before"]["rank_low"]
        assert all(line["floor_nats"] < each["logprob_nats"] <= 0 for each in line["repeats"])
        assert [*range(1, REPEATS + 1)] == [each["times"] for each in line["repeats"]]


def test_a_nominated_token_is_one_token_of_both_and_what_the_nominator_would_say(made: Path) -> None:
    own, other = (load_tokenizer(place, formation.open(place).config) for place in (QWEN, KIMI))
    for line in lines_of(made)[1 : SEEDS + 1]:
        assert [line["id"]] == own.encode(line["text"]) and 1 == len(other.encode(line["text"])) and line["text"].strip()
        assert "sample" == line["measured"]["method"] and 0 <= line["measured"]["draw"] < 1
    shared = shared_tokens(own, other)
    assert 100 < len(shared) < own.size and not shared & set(own.specials.values())


def test_probability_rank_and_bound_are_those_of_the_models_logits(made: Path) -> None:
    """Of whole passes over the prompts, in plain numpy"""
    head, line = lines_of(made)[0], next(line for line in lines_of(made)[1:] if line["line"] == "measured")
    with Engine(formation.open(KIMI), memory="48MiB", threads=1) as engine:
        side = open_local("lamp", engine, Manner(thinking=False))
        (token,) = line["ids"]
        for times, found in ((0, line["before"]), *((each["times"], each) for each in line["repeats"])):
            message = "\n".join([head["opening"], *[head["announce"].replace("{token}", line["text"])] * times])
            z = engine.logits(side.prompt([Turn(0, False, message)]))[-1].astype(np.float64)
            total = z.max() + math.log(np.exp(z - z.max()).sum())
            assert pytest.approx(z[token] - total, abs=1e-9) == found["logprob_nats"]
            assert 1 + int((z > z[token]).sum()) == found["rank_low"]
            control = line["control"]["id"]
            if not times:
                apart = abs(z[control] - total - found["logprob_nats"])
                others = [i for i in range(side.tokenizer.size) if i != token and i not in side.stop]
                assert control != token and pytest.approx(min(abs(z[i] - z[token]) for i in others), abs=1e-9) == apart
            else:
                assert pytest.approx(z[control] - total, abs=1e-9) == found["control_logprob_nats"]
    with LmHead(formation.open(KIMI), memory="48MiB") as lm_head:
        assert certify(lm_head).floor_nats(token) == line["floor_nats"]


def test_the_arms_are_what_they_are_called(made: Path) -> None:
    lines = lines_of(made)
    measured = {line["text"]: line for line in lines[1:] if line["line"] == "measured"}
    for line in lines[1:]:
        if line["line"] not in ARMS:
            continue
        own = measured[line["text"]]
        due = {"forced": own["ids"], "least": [own["least"]], "control": [own["control"]["id"]]}.get(line["line"], [])
        assert due == line["forced"] == [token["id"] for token in line["tokens"][: len(due)]]
        assert ["forced"] * len(due) == [token["measured"]["method"] for token in line["tokens"]][: len(due)]
        assert {"sample"} >= {token["measured"]["method"] for token in line["tokens"][len(due) :]}
        drawn = [token["id"] for token in line["tokens"][len(due) :]]
        assert (own["ids"][0] in drawn) == line["says_it"] and 1 == len(own["ids"])
        first = own["before"] if line["line"] == "removed" else own["repeats"][0]
        assert first["logprob_nats"] == line["chances"][0] and len(line["tokens"]) == len(line["chances"])


def test_arms_of_a_seed_share_their_draws(made: Path) -> None:
    draws: dict[tuple[int, str], list[Any]] = {}
    for line in lines_of(made)[1:]:
        if line["line"] in ("forced", "least", "control"):
            draws.setdefault((line["number"], line["text"]), []).append([token["measured"]["draw"] for token in line["tokens"][1:]])
    for group in draws.values():
        shortest = min(map(len, group))
        assert 3 == len(group) and 1 == len({tuple(each[:shortest]) for each in group})


def test_the_answer_is_of_these_numbers(made: Path) -> None:
    found = told(made)
    rows = found["tokens_measured"]
    gains = [row["repeats"][0]["logprob_nats"] - row["before"]["logprob_nats"] for row in rows]
    assert pytest.approx(sum(gains) / len(gains)) == found["announced"]["token"]["nats"]
    rise = slope([[(each["times"], each["logprob_nats"]) for each in row["repeats"]] for row in rows])
    assert rise.document() == found["repeated"]["token"]
    assert f"{rise.slope:+.3f} nats" in found["answer"][3] and "before it was announced its probability was" in found["answer"][0]
    assert "in no context is it below" in found["answer"][2]
    assert list(ARMS) == [arm["arm"] for arm in found["arms"]] and {SEEDS} == {arm["samples"] for arm in found["arms"]}


@pytest.mark.parametrize(("rows", "says"), [((-5.0, -4.0, -3.1), "more so"), ((-3.0, -4.0, -5.1), "less so"), ((-5.0, -1.0, -5.1), "neither")])
def test_repeating_makes_it_more_so_only_if_the_interval_says_it(rows: tuple[float, ...], says: str) -> None:
    repeats = [{"times": n, "logprob_nats": nats, "control_logprob_nats": -9.0, "rank_low": 1} for n, nats in enumerate(rows, 1)]
    line: Mapping[str, Any] = {
        "line": "measured", "text": "x", "before": {"logprob_nats": -6.0}, "control": {"logprob_nats": -6.0}, "floor_nats": -40.0, "repeats": repeats
    }  # fmt: skip
    lines = [
        {"format": "x"},
        line,
        *({"line": arm, "text": "x", "drawn": False, "ended": True, "says_it": False, "said": "", "forced": []} for arm in ARMS),
    ]
    assert answer.summary(lines)["answer"][3].endswith(says if says != "neither" else "neither, as far as this can tell")


# ---- again, and after a kill


@pytest.mark.parametrize("lines", [0, 1, 3, 6])
def test_killed_and_begun_again_it_goes_on_to_the_same_bytes(made: Path, tmp_path: Path, lines: int) -> None:
    out = tmp_path / "cut"
    out.mkdir()
    whole = (made / log.NAME).read_bytes().splitlines(keepends=True)
    (out / log.NAME).write_bytes(b"".join(whole[:lines]) + whole[lines][:30])
    assert 0 == challenge(out, *NOMINATED)
    assert files_of(made) == files_of(out)


@pytest.mark.parametrize("change", [{"ids": None}, {"before": {}}, {"repeats": [{}]}, {"floor_nats": "x"}, {"line": "free"}, {"text": 1}], ids=str)
def test_a_line_that_somebody_changed_is_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:  # fmt: skip
    lines = (made / log.NAME).read_bytes().splitlines(keepends=True)
    place = next(place for place, line in enumerate(lines_of(made)) if place and line["line"] == "measured")
    lines[place] = canonical.encode(json.loads(lines[place]) | change, limits=log.LIMITS) + b"\n"
    out = tmp_path / "out"
    out.mkdir()
    (out / log.NAME).write_bytes(b"".join(lines))
    assert 1 == challenge(out, *NOMINATED)
    said = capsys.readouterr()
    assert f"line {place + 1}" in said.err and not said.out and not (out / SUMMARY).exists()


def test_an_operator_can_nominate_a_text_of_several_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == challenge(tmp_path / "out", "--token", "®", "--seeds", "1")
    said = capsys.readouterr().out
    line = lines_of(tmp_path / "out")[2]
    assert 1 < len(line["ids"]) and math.isfinite(line["before"]["logprob_nats"])
    assert 'the operator nominated "®" for lamp' in said and "made to say the control" in said


WRONG: dict[str, tuple[list[str], str]] = {
    "nobody nominates": ([], "expected --a, which nominates, or --token"),
    "both nominate": ([*NOMINATED, "--token", "x"], "expected --a, which nominates, or --token"),
    "nothing is nominated": (["--token", "", "--seeds", "1"], "expected a text of 1 to 4 tokens, got 0"),
    "more than an arm holds": (["--token", "one two three four five six", "--seeds", "1"], "expected a text of 1 to 4 tokens"),
    "no token in the announcement": (["--token", "x", "--announce", "It is here."], "expected a text with {token} in it"),
    "a greedy side": (["--token", "x", "--temperature", "0"], "expected --temperature, as 4 seeds of a greedy side say the same"),
    "no seeds": (["--token", "x", "--seeds", "0"], "seeds: expected 1 to 1000, got 0"),
    "a server": (["--a", "owl=http://localhost:1/v1"], "side owl: expected a folder with a checkpoint"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_challenge_is_refused_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    words, sentence = WRONG[name]
    assert 2 == challenge(tmp_path / "out", *words)
    said = capsys.readouterr()
    first, *hint = said.err.splitlines()
    assert first.startswith("formation: ") and sentence in first and len(hint) <= 1 and not said.out
    assert not (tmp_path / "out" / SUMMARY).exists()


def test_another_challenge_in_its_folder_is_refused(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 3 == challenge(made, *NOMINATED)
    out = tmp_path / "out"
    out.mkdir()
    (out / log.NAME).write_bytes((made / log.NAME).read_bytes())
    assert 1 == challenge(out, *NOMINATED, "--opening", "Speak.")
    assert "expected opening" in capsys.readouterr().err and not (out / SUMMARY).exists()
