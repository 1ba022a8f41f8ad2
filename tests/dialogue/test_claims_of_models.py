"""Claims that a model settles: the samples stand in for both sides; a log of the dialogue itself; the recorded dialogue, where it is here."""

from __future__ import annotations

import json
import math
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from tests.dialogue.small_sides import a_side, two_checkpoints

import formation
from formation.cli.main import build_parser
from formation.dialogue import conduct, events
from formation.dialogue.claims.catalog import settle
from formation.dialogue.claims.claim import FORCING, INVENTORY, LOCAL_RUN, NOT_HERE, REFUTED, SCOPES, SUPPORTED, UNDETERMINED, VERDICTS, Claim
from formation.dialogue.claims.model import Terms
from formation.dialogue.claims.models import Models
from formation.dialogue.claims.read import read
from formation.dialogue.claims.trial import TOKENS, Trial
from formation.dialogue.side import Manner
from formation.dialogue.taught import speaker_of, taught
from formation.dialogue.transcripts import formats
from formation.dialogue.transcripts.transcript import Message, Transcript
from formation.errors import FormationError, UsageError
from formation.kernels import readout
from formation.run.executor import Progress
from formation.samples import folder
from formation.weights.checkpoint import open_checkpoint

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = EXAMPLES / "small-talk" / "transcript.md"
SIDES = ["--as", f"lamp={folder('kimi_k25')}", "--as", f"owl={folder('qwen3_next')}", "--memory", "64MiB", "--threads", "2", "--no-thinking"]
TERMS = Terms("64MiB", 2, Manner(thinking=False))

NEEDS_NOTHING = {
    "softmax": REFUTED, "count": SUPPORTED, "kl_possible": REFUTED, "entropy_possible": REFUTED, "code_point": REFUTED, "in_unicode": REFUTED,
    "exit_status": REFUTED, "http_status": REFUTED, "utf8": SUPPORTED, "utf8_bytes": REFUTED, "length": SUPPORTED, "none": NOT_HERE,
    "messages": SUPPORTED, "duration": SUPPORTED,
}  # fmt: skip
NEEDS_A_MODEL = {
    "is_token": REFUTED, "zero": REFUTED, "rank": REFUTED, "certificate": REFUTED, "probability": SUPPORTED, "tensors": REFUTED, "entropy": REFUTED,
    "opening": REFUTED, "kl": SUPPORTED, "tokens": REFUTED, "decode_steps": REFUTED, "selection": NOT_HERE, "slope": UNDETERMINED,
    "goes_back": REFUTED, "uncommitted_positions": REFUTED, "unlogged_passes": REFUTED, "changed_weights": REFUTED,
}  # fmt: skip


def claims(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The document of the command"""
    args = build_parser(["claims"]).parse_args(["claims", *words, "--json"])
    assert 0 == args.run(args)
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def verdicts(told: dict[str, Any]) -> dict[str, str]:
    return {each["procedure"]: each["verdict"] for each in told["claims"]}


@pytest.fixture(scope="module")
def with_samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The document of the small dialogue with a sample on each side"""
    out = tmp_path_factory.mktemp("claims") / "claims.json"
    args = build_parser(["claims"]).parse_args(["claims", str(SMALL), *SIDES, "--out", str(out)])
    assert 0 == args.run(args)
    told: dict[str, Any] = json.loads(out.read_text())
    return told


# ---- the small dialogue


def test_the_small_dialogue_without_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    told = claims(capsys, str(SMALL))
    assert NEEDS_NOTHING | dict.fromkeys(NEEDS_A_MODEL, NOT_HERE) == verdicts(told)
    assert ("file", []) == (told["claims_from"], told["models"]) and len(told["claims"]) == sum(told["verdicts"].values())
    waiting = [each for each in told["claims"] if each["procedure"] in NEEDS_A_MODEL]
    assert all(None is each["value"] and "give --as '" in each["caveat"] for each in waiting)


def test_the_small_dialogue_with_the_samples(with_samples: dict[str, Any]) -> None:
    told = with_samples
    assert NEEDS_NOTHING | NEEDS_A_MODEL == verdicts(told)
    assert {*VERDICTS} == {name for name, count in told["verdicts"].items() if count}
    found = {each["procedure"]: each for each in told["claims"]}
    for name in {*NEEDS_A_MODEL} - {"selection"}:
        assert found[name]["caveat"].startswith("under ") and "what the machine of the transcript ran is not known" in found[name]["caveat"]
        assert found[name]["scope"] in SCOPES[2:]
    assert {FORCING, INVENTORY, LOCAL_RUN} <= {each["scope"] for each in told["claims"]}
    sha256 = {model["name"]: model["checkpoint_sha256"][:12] for model in told["models"]}
    assert sha256["owl"] in found["kl"]["caveat"] and sha256["lamp"] in found["zero"]["caveat"]
    low, high = found["certificate"]["interval"]
    assert low < found["probability"]["value"] < high == 0
    assert (0, True) == (found["changed_weights"]["value"], found["goes_back"]["value"])


def test_what_is_measured_is_what_the_engine_computes(with_samples: dict[str, Any]) -> None:
    found = {each["procedure"]: each for each in with_samples["claims"]}
    checkpoint, talk = formation.open(folder("qwen3_next")), formats.read(SMALL)
    said = taught(talk, 1, speaker_of(checkpoint), Manner())
    with formation.Engine(checkpoint, memory="64MiB", threads=1) as engine:
        logits = engine.logits(said.ids)
    begin = said.stretches[0].begin
    sums = readout.logit_statistics(logits, threads=1)
    nats = [float(logits[at - 1, said.ids[at]]) - float(sums.log_sum_exp[at - 1]) for at in (begin, begin + 1)]
    assert math.fsum(nats) == found["probability"]["value"]
    assert readout.ranks(logits[begin - 1][None], said.ids[begin], threads=1).low[0] == found["rank"]["value"]
    assert float(sums.log_sum_exp[begin - 1]) - float(sums.mean[begin - 1]) == found["entropy"]["value"]
    second = said.stretches[1].begin
    assert float(logits[second - 1, said.ids[second]]) - float(sums.log_sum_exp[second - 1]) == found["opening"]["value"]
    assert said.stretches[2].end - said.stretches[2].begin == found["decode_steps"]["value"]


def test_messages_beyond_the_context_are_not_measured_and_said_so() -> None:
    talk = Transcript(("a", "b"), (Message(0, "x " * 200), Message(1, "§"), Message(0, "y " * 3000), Message(1, "§ again")))
    models = Models(talk, {1: str(folder("qwen3_next"))}, None, TERMS)
    two = [Claim(number, (0, 1), "§", "test", "probability", {"text": "§", "says": 0, "relation": "less than"}) for number in (2, 4)]
    near, far = settle(talk, two, models)
    assert (SUPPORTED, NOT_HERE) == (near.verdict, far.verdict)
    assert "was given messages 1 to 2: the others have no token, or lie beyond its context" in far.finding.caveat
    (none,) = settle(Transcript(talk.names, talk.messages[2:]), [Claim(2, (0, 1), "§", "t", "rank", {"text": "§"})], Models(
        Transcript(talk.names, talk.messages[2:]), {1: str(folder("qwen3_next"))}, None, TERMS))  # fmt: skip
    assert NOT_HERE == none.verdict and "ends beyond the 2048 positions" in none.finding.caveat


def test_an_occurrence_that_is_not_there_is_not_measured() -> None:
    talk = Transcript(("a", "b"), (Message(0, "x"), Message(1, "§ and §")))
    models = Models(talk, {1: str(folder("qwen3_next"))}, None, TERMS)
    both = [Claim(2, (0, 1), "§", "t", "probability", {"text": "§", "occurrence": nth}) for nth in (2, 3)]
    second, third = settle(talk, both, models)
    assert second.finding.value is not None and "asked for was occurrence 3" in third.finding.caveat


def test_a_trial_finds_a_tensor_that_was_changed(tmp_path: Path) -> None:
    """Bytes are changed between the two readings: what is counted is what is there, not what ought to be"""
    path = two_checkpoints(tmp_path)[0]
    trial = Trial(open_checkpoint(path), [1, 2, 3], "32MiB", 1, say=lambda line: None)
    entry = trial.checkpoint.tensors["language_model.model.norm.weight"]

    passes = []

    def damage(now: Progress) -> None:
        passes.append(now.stage == "done")
        if sum(passes) == TOKENS and now.stage == "done":  # behind the last pass: a run that still reads refuses a file that changed
            data = bytearray((path / entry.file).read_bytes())
            data[entry.begin] ^= 1
            (path / entry.file).write_bytes(data)

    trial.progress = damage
    assert ["language_model.model.norm.weight"] == trial.changed_weights[1]


# ---- the log of a dialogue


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("logged")
    kimi, qwen = two_checkpoints(base)
    terms = conduct.Terms(how="text", text="Hi", stops=("4 messages",))
    with a_side("owl", kimi, 3, system="abc") as owl, a_side("lamp", qwen, 5) as lamp, conduct.begin(base / "t.dlg", [owl, lamp], terms) as conductor:
        conductor.run()
    return base / "t.dlg"


def log_claims(path: Path, procedure: str, **inputs: Any) -> list[Any]:
    transcript = formats.read(path / "transcript.jsonl")
    own = [Claim(number, (0, 1), message.text[:1], "t", procedure, inputs) for number, message in transcript.said if message.text]
    return settle(transcript, own, Models(transcript, None, path / "events.jsonl"))


def test_what_a_log_measured_is_what_a_claim_is_held_against(talk: Path) -> None:
    tokens = [event.body for event in events.read(talk) if event.kind == "token"]
    steps = [each.finding.value for each in log_claims(talk, "decode_steps")]
    assert [sum(token["turn"] == turn for token in tokens) for turn in (1, 2, 3, 4)] == steps
    settled = log_claims(talk, "decode_steps", says=4)
    assert all(each.finding.scope == LOCAL_RUN and "measured as it was said" in each.finding.caveat for each in settled)
    transcript = formats.read(talk / "transcript.jsonl")
    models = Models(transcript, None, talk)
    for turn, (number, message) in enumerate(transcript.said, 1):
        first = next(token for token in tokens if token["turn"] == turn)
        spelt = b64decode(first["bytes"])
        if len(spelt) != 1 or not message.text.encode().startswith(spelt):
            continue  # bytes that are no text
        text = message.text[0]
        nats, method = settle(
            transcript, [Claim(number, (0, 1), text, "t", name, {"text": text}) for name in ("probability", "selection")], models
        )  # fmt: skip
        if nats.finding.value is not None:
            assert (first["measured"]["model"]["logprob_nats"], "sample") == (nats.finding.value, method.finding.value)


def test_the_log_of_another_dialogue_is_refused(talk: Path) -> None:
    transcript = formats.read(talk / "transcript.jsonl")
    other = Transcript(transcript.names, (*transcript.messages[:-1], Message(1, "something else")))
    with pytest.raises(UsageError, match="--event-log: expected the log of this dialogue, got one with other sides or other messages"):
        Models(other, None, talk)


# ---- the command


def test_the_terminal_says_quote_predicate_value_and_caveat(capsys: pytest.CaptureFixture[str]) -> None:
    args = build_parser(["claims"]).parse_args(["claims", str(SMALL)])
    assert 0 == args.run(args)
    shown = capsys.readouterr().out
    assert 'refuted              message 5, lamp: "exit with code 419"' in shown
    assert "exit_status: no, said: yes  [standard or arithmetic]" in shown and "of 419 it would see 163" in shown
    assert "31 claims of" in shown and "16 not measurable here" not in shown.splitlines()[0]


def test_suggestions_are_written_and_not_over_anything(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    parser = build_parser(["claims"])
    args = parser.parse_args(["claims", str(SMALL), "--suggest", "--out", str(tmp_path / "claims.toml")])
    assert 0 == args.run(args)
    talk = formats.read(SMALL)
    sha256 = claims(capsys, str(SMALL))["transcript"]["sha256"]
    assert len(read(tmp_path / "claims.toml", talk, sha256)) > 10
    with pytest.raises(FormationError, match="expected a new file, got one that is there"):
        args.run(args)


def test_hostile_text_reaches_no_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "t.md").write_text(SMALL.read_text().replace("That was impossible.", "zero probability \x1b[2J\u202e"))
    (tmp_path / "claims.toml").write_text(
        'format = "formation-claims/1"\n[[claim]]\nmessage = 3\nspan = [0, 22]\nquote = "zero probability \\u001b[2J\\u202e"\n'
        'predicate = "\\u001b[31m"\nprocedure = "count"\ninputs = { text = "\\u001b", says = 1 }\n'
    )
    args = build_parser(["claims"]).parse_args(["claims", str(tmp_path / "t.md")])
    assert 0 == args.run(args)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\u202e" not in shown and "\\u001b" in shown


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--as", "moth=x"), 2, "--as: expected NAME=CKPT with the name lamp or owl, got 'moth=x'"),
        (("--as", "lamp"), 2, "--as: expected NAME=CKPT"),
        (("--as", "lamp=a", "--as", "lamp=b"), 2, "--as: expected each side once, got one twice"),
        (("--as", "lamp=nowhere"), 3, "nowhere: expected a checkpoint folder, got nothing"),
        (("--claims", "nothing.toml"), 3, "nothing.toml: expected a readable file"),
        (("--event-log", "nothing.jsonl"), 3, "nothing.jsonl"),
    ],
)
def test_a_wrong_input_is_refused_by_its_name(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, sentence: str) -> None:
    args = build_parser(["claims"]).parse_args(["claims", str(SMALL), *words])
    with pytest.raises(FormationError, match=sentence) as refused:
        args.run(args)
    assert code == refused.value.exit_code and "" == capsys.readouterr().out
