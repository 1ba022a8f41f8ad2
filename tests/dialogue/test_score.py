"""Scoring a transcript: what a side said, token by token, under the model's own template; how often something was to be expected; the command."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import formation
from formation.cli.main import main
from formation.dialogue import score
from formation.dialogue.chance import count
from formation.dialogue.local import open_local
from formation.dialogue.score import END_OF_TURN, event_of
from formation.dialogue.side import Manner, Turn
from formation.dialogue.taught import Speaker, speaker_of, taught
from formation.dialogue.transcripts import jsonl
from formation.dialogue.transcripts.transcript import PROMPT, Message, Transcript
from formation.errors import UsageError
from formation.ledger import accounts, start
from formation.run.generate import Engine, Step
from formation.samples import folder
from recorded_runs import HOW, Cut, contents

SAMPLE = folder("kimi_k25")
SAID = ("What does len do?", "It counts.<|im_end|>", "And  for\nstrings?  ", "Characters.", "[END]", "[END]")
TALK = Transcript(("lamp", "owl"), tuple(Message(n % 2, text) for n, text in enumerate(SAID)))


@pytest.fixture(scope="module")
def speaker() -> Speaker:
    return speaker_of(formation.open(SAMPLE))


# ---- what a model is given


@pytest.mark.parametrize("side", [0, 1])
def test_the_stretches_spell_what_the_side_said_and_end_where_its_turns_do(speaker: Speaker, side: int) -> None:
    found = taught(TALK, side, speaker, Manner())
    own = [number for number, message in TALK.said if message.side == side]
    assert own == [each.message for each in found.stretches]
    for each in found.stretches:
        assert each.ended and found.ids[each.end - 1] in speaker.stop
        assert SAID[each.message - 1] == speaker.tokenizer.decode(found.ids[each.begin : each.end - 1])
    assert len(found.ids) == found.stretches[-1].end
    assert sum(len(SAID[number - 1].encode()) for number in own) == found.bytes


def test_a_marker_that_somebody_typed_is_text(speaker: Speaker) -> None:
    found = taught(TALK, 1, speaker, Manner())
    begin, end = found.spans[0]
    assert 1 == sum(token in speaker.stop for token in found.ids[begin:end])


def test_everything_before_a_message_is_the_prompt_that_it_would_have_been_said_to(speaker: Speaker) -> None:
    """As `formation dialogue` gives it to a side that speaks here"""
    with Engine(formation.open(SAMPLE), memory="32MiB", threads=1) as engine:
        side = open_local("owl", engine, Manner(system="Be short."))
        found = taught(TALK, 1, speaker, Manner(system="Be short."))
        for place, (begin, _) in zip((1, 3, 5), found.spans, strict=True):
            turns = [Turn(n + 1, n % 2 == 1, text, tuple(speaker.tokenizer.encode(text)) if n % 2 else None) for n, text in enumerate(SAID[:place])]
            assert side.prompt(turns) == list(found.ids[:begin])


def test_the_transcripts_prompts_are_given_to_the_side_that_they_are_for(speaker: Speaker) -> None:
    prompts = (Message(0, "You are a lamp.", PROMPT), Message(1, "You are an owl.", PROMPT), Message(0, "Say something.", PROMPT))
    talk = Transcript(TALK.names, (*prompts, *TALK.messages))
    lamp, owl = (speaker.tokenizer.decode(taught(talk, side, speaker, Manner()).ids) for side in (0, 1))
    assert lamp.index("You are a lamp.") < lamp.index("Say something.") < lamp.index(SAID[0]) and "an owl" not in lamp
    assert "You are an owl." in owl and "a lamp" not in owl and "Say something." not in owl
    assert taught(talk, 0, speaker, Manner(system="Another.")).ids != taught(talk, 0, speaker, Manner()).ids


def test_a_message_without_a_token_is_not_scored_and_named(speaker: Speaker) -> None:
    talk = Transcript(TALK.names, (Message(0, "a"), Message(1, "b"), Message(0, ""), Message(1, "c")))
    found = taught(talk, 0, speaker, Manner())
    assert ((3,), [1]) == (found.silent, [each.message for each in found.stretches])


def test_a_side_that_says_nothing_is_refused(speaker: Speaker) -> None:
    with pytest.raises(UsageError, match="owl: expected a message with a token in it, got 0 without"):
        taught(Transcript(TALK.names, (Message(0, "a"),)), 1, speaker, Manner())


def test_an_event_is_the_end_of_a_turn_or_a_text_by_its_first_token(speaker: Speaker) -> None:
    assert (END_OF_TURN, speaker.stop) == (event_of(speaker, None).name, event_of(speaker, None).ids)
    ids = speaker.tokenizer.encode("[END]")
    assert ids[:1] == list(event_of(speaker, "[END]").ids) and len(ids) > 1
    assert f"[END], by its first of {len(ids)} tokens" == event_of(speaker, "[END]").name
    with pytest.raises(UsageError, match="expected a text with a token"):
        event_of(speaker, "")


# ---- expected and observed


def exact(chances: list[Fraction], wanted: Any) -> Fraction:
    """The sum over all outcomes whose number of successes is wanted"""
    outcomes = (hits for hits in product((0, 1), repeat=len(chances)) if wanted(sum(hits)))
    return sum((math.prod(p if hit else 1 - p for p, hit in zip(chances, hits, strict=True)) for hits in outcomes), start=Fraction(0))


@given(st.lists(st.integers(0, 64), min_size=0, max_size=8), st.data())
def test_tails_are_those_of_all_outcomes(parts: list[int], data: st.DataObject) -> None:
    chances = [Fraction(part, 64) for part in parts]
    observed = data.draw(st.integers(0, len(parts)))
    found = count(map(float, chances), observed)
    assert found.at_least == pytest.approx(float(exact(chances, lambda n: n >= observed)), rel=1e-14, abs=0)
    assert found.at_most == pytest.approx(float(exact(chances, lambda n: n <= observed)), rel=1e-14, abs=0)
    assert float(sum(chances)) == found.expected


def test_a_small_tail_keeps_its_digits() -> None:
    assert count([1e-9] * 30, 20).at_least == pytest.approx(math.comb(30, 20) * 1e-180, rel=1e-6)


@pytest.mark.parametrize(("chances", "observed"), [([0.5], 2), ([0.5], -1), ([1.5], 1), ([float("nan")], 0)], ids=str)
def test_what_is_no_probability_or_count_is_refused(chances: list[float], observed: int) -> None:
    with pytest.raises(ValueError, match="expected probabilities"):
        count(chances, observed)


# ---- the command


@pytest.fixture(scope="module")
def transcript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("talk") / "talk.jsonl"
    path.write_bytes(jsonl.write(TALK))
    return path


@pytest.fixture
def usual(transcript: Path, tmp_path: Path) -> list[str]:
    main(["key", "new", "--key", str(tmp_path / "key")])
    given = ["--memory", "32MiB", "--threads", "2", "--key", str(tmp_path / "key"), "--out", str(tmp_path / "out")]
    return ["score", str(transcript), *given]


def as_(name: str) -> list[str]:
    return ["--as", f"{name}={SAMPLE}"]


@pytest.fixture(scope="module")
def both(transcript: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both sides scored, in one pass, to the end"""
    out = tmp_path_factory.mktemp("both")
    main(["key", "new", "--key", str(out / "key")])
    given = ["--memory", "32MiB", "--threads", "2", "--key", str(out / "key"), "--out", str(out)]
    assert 0 == main(["score", str(transcript), *given, *as_("owl"), *as_("lamp")])
    return out


def rows_in(out: Path, *names: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "tokens.jsonl").read_text().splitlines()]
    return [row for row in rows if row["side"] in names] if names else rows


UNPROVEN = ("--parity", "none")
ANY_PROOF = (*HOW, "parity.json")


def test_both_sides_are_scored_into_a_table_a_summary_and_a_bundle_each(both: Path, speaker: Speaker) -> None:
    told = json.loads((both / "summary.json").read_text())
    assert ["owl", "lamp"] == [each["name"] for each in told["sides"]]
    rows = rows_in(both)
    assert sorted(rows, key=lambda row: (row["message"], row["index"])) == rows
    for place, (name, side) in enumerate((("owl", 1), ("lamp", 0))):
        own, summary, found = [row for row in rows if row["side"] == name], told["sides"][place], taught(TALK, side, speaker, Manner())
        assert [found.ids[position] for begin, end in found.spans for position in range(begin, end)] == [row["id"] for row in own]
        assert summary["nats_per_token"] == pytest.approx(-sum(row["logprob_nats"] for row in own) / len(own))
        spelling = [row["surprisal_bits"] for row in own if not row["ends_turn"]]
        assert summary["bits_per_byte"] == pytest.approx(sum(spelling) / sum(len(SAID[n].encode()) for n in range(side, 6, 2)))
        assert (3, 3, len(own)) == (summary["messages"], summary["count"]["observed"], summary["tokens"])
        assert summary["count"]["expected"] == pytest.approx(sum(row["event_probability"] for row in own))
        assert max(own, key=lambda row: row["surprisal_bits"])["position"] == summary["most_surprising"][0]["position"]
        bundle = both / summary["bundle"]
        assert found.ids == start.read_anchor(bundle).prompt_ids
        assert 0 == main(["verify", str(bundle), "--allow-unknown-signer"])
        assert ("ab"[side] + ".ofb", "passed") == (summary["bundle"], summary["parity"])


def test_sides_with_one_checkpoint_share_a_pass_and_have_the_bundles_that_each_has_alone(
    usual: list[str], both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for bundle, name in {"a.ofb": "lamp", "b.ofb": "owl"}.items():
        out = tmp_path / name
        capsys.readouterr()
        assert 0 == main([*usual[:-1], str(out), *as_(name), *UNPROVEN, "--json"])
        assert json.loads(capsys.readouterr().out)["sides"] == json.loads((out / "summary.json").read_text())["sides"]
        assert contents(out / bundle, without=ANY_PROOF) == contents(both / bundle, without=ANY_PROOF)
        assert rows_in(out) == rows_in(both, name)
        assert {2} == {line["shared_by"] for line in accounts.read(both / bundle)}


def cut_off(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A score that ends at its fifth token"""
    take, seen = score.Chances.__call__, []

    def cut(self: score.Chances, step: Step) -> None:
        seen.append(step)
        if len(seen) == 5:
            raise Cut
        take(self, step)

    with monkeypatch.context() as patched:
        patched.setattr(score.Chances, "__call__", cut)
        with pytest.raises(Cut):
            main(asked)


def test_a_side_that_is_there_and_one_that_was_cut_off_are_gone_on_with_alone(
    usual: list[str], both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [*usual, *as_("owl"), *as_("lamp"), *UNPROVEN]
    cut_off(asked, monkeypatch)
    assert 0 == main([*asked, "--resume"])
    for bundle in ("a.ofb", "b.ofb"):
        assert contents(both / bundle, without=ANY_PROOF) == contents(tmp_path / "out" / bundle, without=ANY_PROOF)
    assert (both / "tokens.jsonl").read_bytes() == (tmp_path / "out" / "tokens.jsonl").read_bytes()


def test_the_chance_of_the_token_that_came_is_its_probability(usual: list[str], tmp_path: Path) -> None:
    assert 0 == main([*usual, *as_("lamp"), "--event", "What", "--parity", "none", "--rows", "none"])
    first, *_ = rows_in(tmp_path / "out")
    assert first["event_probability"] == pytest.approx(math.exp(first["logprob_nats"]), rel=1e-12)


def test_what_a_side_said_here_scores_as_it_was_said(tmp_path: Path, speaker: Speaker) -> None:
    """Words of the sample itself, through a transcript and back"""
    with Engine(formation.open(SAMPLE), memory="32MiB", threads=2) as engine:
        side = open_local("owl", engine, Manner(most_tokens=24))
        pieces = [piece.event for piece in side.speak([Turn(1, False, SAID[0])])]
    ids = [event["id"] for event in pieces]
    text = speaker.tokenizer.decode(side.body(ids))
    assert speaker.tokenizer.encode(text) == list(side.body(ids))
    talk = tmp_path / "talk.jsonl"
    talk.write_bytes(jsonl.write(Transcript(("lamp", "owl"), (Message(0, SAID[0]), Message(1, text)))))
    main(["key", "new", "--key", str(tmp_path / "key")])
    out = ["--out", str(tmp_path / "out"), "--key", str(tmp_path / "key"), "--parity", "none", "--memory", "32MiB"]
    assert 0 == main(["score", str(talk), *as_("owl"), *out])
    rows = rows_in(tmp_path / "out")
    assert ids == [row["id"] for row in rows][: len(ids)]
    for event, row in zip(pieces, rows, strict=False):
        model = event["measured"]["model"]
        names = ("logprob_nats", "rank_low", "rank_high", "entropy_nats", "varentropy", "top_masses", "zero")
        assert [model[name] for name in names] == [row[name] for name in names]  # to the last bit
        assert event["position"] == row["position"]


def test_the_terminal_tells_the_figures_and_makes_hostile_text_harmless(usual: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = tmp_path / "hostile.jsonl"
    hostile.write_bytes(jsonl.write(Transcript(("lamp", "owl"), (Message(0, "a\x1b[2Jb\u202e"),))))
    capsys.readouterr()
    assert 0 == main(["score", str(hostile), *usual[2:], *as_("lamp"), "--table", "--parity", "none"])
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err and "\u202e" not in out + err
    figures = (
        "nats per token (perplexity",
        "bits per byte of text",
        "end of turn: observed 1, expected",
        "most surprising",
        "parity          not claimed",
    )
    for words in figures:
        assert words in out
    assert "lamp: one pass of" in err and "next: formation verify" in err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--as", "lamp"], "--as: expected NAME=CKPT with the name lamp or owl, got 'lamp'"),
        (as_("moth"), "--as: expected NAME=CKPT with the name lamp or owl"),
        ([*as_("lamp"), *as_("lamp")], "--as: expected each side once, got one twice"),
        ([*as_("lamp"), "--event", ""], "event: expected a text with a token"),
    ],
    ids=["no checkpoint", "a name of nobody", "a side twice", "an empty event"],
)
def test_what_cannot_be_asked_is_a_usage_error(
    usual: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], said: str
) -> None:  # fmt: skip
    assert 2 == main([*usual, *given])
    out, err = capsys.readouterr()
    assert said in err and "nats per token" not in out
    assert not (tmp_path / "out").exists()


def test_a_folder_with_scores_is_not_written_into(usual: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tokens.jsonl").write_text("")
    assert 3 == main([*usual, *as_("lamp")])
    assert "expected a folder without scores, got tokens.jsonl" in capsys.readouterr().err
    assert ["tokens.jsonl"] == [path.name for path in (tmp_path / "out").iterdir()]


def test_a_dialogue_longer_than_the_models_context_is_refused_before_anything_begins(
    usual: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    long = tmp_path / "long.jsonl"
    long.write_bytes(jsonl.write(Transcript(("lamp", "owl"), (Message(0, "a"), Message(1, "b"), Message(0, "c " * 3000)))))
    assert 2 == main([usual[0], str(long), *usual[2:], *as_("lamp")])
    err = capsys.readouterr().err
    assert "lamp: expected at most 2048 positions (max_position_embeddings), got " in err and "--messages 1 scores the first 1 messages" in err
    assert not (tmp_path / "out").exists()
    assert 0 == main([usual[0], str(long), *usual[2:], *as_("lamp"), "--messages", "2", "--parity", "none", "--rows", "none"])
    rows = rows_in(tmp_path / "out")
    assert {1} == {row["message"] for row in rows}


# ---- an event of several tokens, and a score that was cut off


def test_a_text_of_several_tokens_is_counted_by_its_first_and_its_chance_told_where_it_was_said(
    usual: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], speaker: Speaker
) -> None:  # fmt: skip
    whole = speaker.tokenizer.encode(" does len do?")
    assert 2 < len(whole)
    assert 0 == main([*usual, *as_("lamp"), "--event", " does len do?", "--parity", "none", "--rows", "none"])
    assert f"all {len(whole)} tokens of it: said 1 times, with " in capsys.readouterr().out
    count = json.loads((tmp_path / "out" / "summary.json").read_text())["sides"][0]["count"]
    rows = rows_in(tmp_path / "out")
    begin = next(n for n, row in enumerate(rows) if row["id"] == whole[0])
    assert whole == [row["id"] for row in rows[begin : begin + len(whole)]]
    expected = math.fsum(row["logprob_nats"] for row in rows[begin : begin + len(whole)])
    assert {"ids": whole, "said": 1, "logprob_nats": [expected]} == count["whole"]
    assert whole[:1] == count["ids"] and count["observed"] == sum(row["id"] == whole[0] for row in rows) >= 1
    assert math.exp(expected) <= rows[begin]["event_probability"]


def test_a_score_that_was_cut_off_goes_on_to_the_same_files(
    usual: list[str], both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    asked = [*usual, *as_("lamp"), *UNPROVEN]
    cut_off(asked, monkeypatch)
    assert 3 == main(asked)  # something is there
    assert 0 == main([*asked, "--resume"])
    assert contents(both / "a.ofb", without=ANY_PROOF) == contents(tmp_path / "out" / "a.ofb", without=ANY_PROOF)
    assert rows_in(both, "lamp") == rows_in(tmp_path / "out")


def test_another_score_is_not_gone_on_with(usual: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main([*usual, *as_("lamp"), "--parity", "none", "--rows", "none"])
    assert 1 == main([*usual, *as_("lamp"), "--parity", "none", "--rows", "none", "--messages", "1", "--resume"])
    assert "expected a recording of run" in capsys.readouterr().err
