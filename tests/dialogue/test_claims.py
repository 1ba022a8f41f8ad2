"""Claims without a model: the file that is read strictly, the verdict, what standards and the transcript say, and what the lexicon finds."""

from __future__ import annotations

import math
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.dialogue.golden import OWN

from formation.dialogue.claims.catalog import PROCEDURES, settle
from formation.dialogue.claims.claim import (
    NOT_HERE,
    REFUTED,
    SCOPES,
    STANDARD,
    SUPPORTED,
    TRANSCRIPT,
    UNDETERMINED,
    VERDICTS,
    Claim,
    Finding,
    Settled,
)
from formation.dialogue.claims.judge import RELATIONS, judge
from formation.dialogue.claims.lexicon import LEXICON, skeleton, suggest, toml
from formation.dialogue.claims.models import Models
from formation.dialogue.claims.procedure import MODEL, NOTHING
from formation.dialogue.claims.read import FORMAT, ClaimRefusal, claims_in, read
from formation.dialogue.transcripts import formats
from formation.dialogue.transcripts.transcript import PROMPT, Message, Transcript
from formation.errors import EnvironmentFault
from formation.ledger import canonical

SAID = ("Say § now.", "§", "That was probability zero, and a byte 0xA7.", "§§ and §")
TALK = Transcript(("lamp", "owl"), tuple(Message(n % 2, text) for n, text in enumerate(SAID)))
DIGEST = "0" * 64
EXAMPLES = Path(__file__).parents[2] / "examples"


def one(procedure: str, message: int = 1, talk: Transcript = TALK, **inputs: Any) -> Settled:
    text = talk.said[message - 1][1].text
    return settle(talk, [Claim(message, (0, len(text)), text, "test", procedure, inputs)], Models(talk))[0]


def verdict(procedure: str, message: int = 1, talk: Transcript = TALK, **inputs: Any) -> tuple[Any, str]:
    found = one(procedure, message, talk, **inputs)
    return found.finding.value, found.verdict


# ---- the verdict


def finding(value: Any, interval: tuple[float, float] | None = None, answer: Any = None) -> Finding:
    return Finding(value, "", TRANSCRIPT, "", interval, answer)


@pytest.mark.parametrize(
    ("found", "says", "relation", "expected"),
    [
        (finding(3), 3, "is", SUPPORTED),
        (finding(3), 4, "is", REFUTED),
        (finding(3), 3.0, "is", SUPPORTED),
        (finding(3), 4, "is not", SUPPORTED),
        (finding(True), True, "is", SUPPORTED),
        (finding(True), 1, "is", REFUTED),  # yes is no number
        (finding("AE"), "AE", "is", SUPPORTED),
        (finding("C2 AE"), "AE", "is", REFUTED),
        (finding(None), 3, "is", NOT_HERE),
        (finding(3), None, "is", UNDETERMINED),
        (finding(3), 2, "more than", SUPPORTED),
        (finding(3), 3, "more than", REFUTED),
        (finding(3), 3, "at least", SUPPORTED),
        (finding(3), 3, "less than", REFUTED),
        (finding(3), 3, "at most", SUPPORTED),
        (finding(2.0, (1.0, 3.0)), 2.5, "more than", UNDETERMINED),
        (finding(2.0, (1.0, 3.0)), 3.5, "less than", SUPPORTED),
        (finding(2.0, (1.0, 3.0)), 2.9, "is", SUPPORTED),
        (finding(2.0, (1.0, 3.0)), 3.1, "is", REFUTED),
        (finding("AE"), 3, "more than", UNDETERMINED),
        (finding("UNDERFLOW(float16)", (-200.0, 0.0), "positive"), "zero", "is", REFUTED),
        (finding("MASKED(a rule)", None, "zero"), "zero", "is", SUPPORTED),
    ],
)
def test_a_verdict_is_a_comparison(found: Finding, says: Any, relation: str, expected: str) -> None:
    assert expected == judge(found, says, relation)


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.floats(-1e6, 1e6), st.sampled_from(RELATIONS))
def test_an_order_that_holds_over_the_whole_interval_is_supported_and_its_opposite_refuted(
    low: float, width: float, says: float, relation: str
) -> None:
    found = finding(low, (low, low + width))
    opposite = {"at least": "less than", "less than": "at least", "at most": "more than", "more than": "at most", "is": "is not", "is not": "is"}
    both = {judge(found, says, relation), judge(found, says, opposite[relation])}
    assert both in ({SUPPORTED, REFUTED}, {UNDETERMINED})


# ---- what a transcript says


def test_what_was_said_so_far_is_counted() -> None:
    assert (2, SUPPORTED) == verdict("count", 3, text="§", says=2)
    assert (5, SUPPORTED) == verdict("count", 4, text="§", says=5)
    assert (1, SUPPORTED) == verdict("count", 3, text="§", by="owl", says=1)
    assert (2, REFUTED) == verdict("count", 4, text="§", by="owl", of_what="messages", says=4)
    assert (3, SUPPORTED) == verdict("count", 1, text="§", first=4, last=4, says=3)
    assert "message 4" in one("count", 1, text="§", first=4, last=4).finding.caveat


def test_messages_of_a_prompt_are_none() -> None:
    talk = Transcript(TALK.names, (Message(0, "§§§", PROMPT), *TALK.messages))
    assert (4, SUPPORTED) == verdict("messages", 1, talk, says=4)
    assert (2, SUPPORTED) == verdict("messages", 1, talk, by="owl", says=2)
    assert (1, SUPPORTED) == verdict("messages", 1, talk, first=4, says=1)
    assert (5, REFUTED) == verdict("count", 4, talk, text="§", says=8)


def test_a_duration_is_the_headers_to_the_second() -> None:
    talk = formats.read(EXAMPLES / "small-talk" / "transcript.md")
    found = one("duration", 1, talk, says=12.4)
    assert (12.0, (11.0, 13.0), SUPPORTED) == (found.finding.value, found.finding.interval, found.verdict)
    assert (1.5, UNDETERMINED) == verdict("duration", 1, talk, per="message", says=1.6, relation="at most")
    assert (None, NOT_HERE) == verdict("duration", 1, TALK, says=12)


def test_the_length_of_a_message() -> None:
    assert [8, 11, 3] == [verdict("length", 4, unit=unit)[0] for unit in ("characters", "bytes", "words")]


# ---- what standards say


@pytest.mark.parametrize(
    ("procedure", "inputs", "value"),
    [
        ("code_point", {"code_point": "U+1FFFFF"}, False),
        ("code_point", {"code_point": "U+10FFFF"}, True),
        ("code_point", {"code_point": "U+110000"}, False),
        ("code_point", {"code_point": "0xAE"}, True),
        ("code_point", {"code_point": "U+D800"}, True),
        ("in_unicode", {"text": "®®𝄞"}, True),
        ("utf8", {"bytes": "AE"}, False),
        ("utf8", {"bytes": "C2 AE"}, True),
        ("utf8", {"bytes": "F4908080"}, False),  # U+110000
        ("utf8", {"bytes": "EDA080"}, False),  # a surrogate
        ("utf8_bytes", {"text": "®"}, "C2 AE"),
        ("http_status", {"phrase": "I’m a teapot"}, 418),
        ("http_status", {"phrase": "Not Found"}, 404),
        ("exit_status", {"status": 255}, True),
        ("exit_status", {"status": 256}, False),
        ("exit_status", {"status": 419}, False),
        ("exit_status", {"status": -1}, False),
        ("softmax", {}, "POSITIVE"),
        ("entropy_possible", {"nats": -0.001}, False),
        ("entropy_possible", {"nats": 0}, True),
        ("entropy_possible", {"nats": "nan"}, False),
        ("entropy_possible", {"nats": "inf"}, False),
        ("entropy_possible", {"nats": 12.1, "vocabulary": 163840}, False),
        ("entropy_possible", {"nats": 12.0, "vocabulary": 163840}, True),
        ("kl_possible", {"nats": "inf"}, False),
        ("kl_possible", {"nats": -1}, False),
        ("kl_possible", {"nats": 1e4}, True),
    ],
)
def test_what_a_standard_or_arithmetic_says(procedure: str, inputs: dict[str, Any], value: Any) -> None:
    found = one(procedure, **inputs)
    assert (value, STANDARD, UNDETERMINED) == (found.finding.value, found.finding.scope, found.verdict)
    says = "positive" if procedure == "softmax" else value
    assert SUPPORTED == one(procedure, **inputs, says=says).verdict and REFUTED == one(procedure, **inputs, says=says, relation="is not").verdict


@pytest.mark.parametrize(
    ("procedure", "inputs"),
    [
        ("code_point", {"code_point": "U+XYZ"}),
        ("utf8", {"bytes": "A"}),
        ("http_status", {"phrase": "I am a kettle"}),
        ("kl_possible", {"nats": "much"}),
        ("none", {"reason": "no"}),
    ],
)
def test_what_cannot_be_settled_says_why(procedure: str, inputs: dict[str, Any]) -> None:
    found = one(procedure, **inputs, says=True)
    assert (None, NOT_HERE) == (found.finding.value, found.verdict) and found.finding.caveat


@pytest.mark.parametrize("name", [name for name, each in PROCEDURES.items() if each.needs == MODEL])
def test_what_needs_a_model_says_so_and_loads_none(name: str) -> None:
    needed = {each.name: ["x"] if each.type == "words" else "§" for each in PROCEDURES[name].inputs if each.needed}
    found = one(name, 2, **needed, says=1)
    assert (None, NOT_HERE, PROCEDURES[name].scope) == (found.finding.value, found.verdict, found.finding.scope)
    assert "needs a checkpoint that stands in for owl: give --as 'owl=CKPT'" == found.finding.caveat


def test_claims_without_a_model_are_settled_without_numpy_kernels_or_a_tokenizer() -> None:
    code = (
        "import sys; from formation.cli.claims import HELP; from formation.dialogue.claims.catalog import settle; "
        "from formation.dialogue.claims.models import Models; "
        "print([m for m in ('numpy', 'tokenizers', 'jinja2', 'formation.kernels', 'formation.run') if m in sys.modules])"
    )
    assert "[]" == subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


# ---- documents


def test_a_document_has_always_the_same_fields_and_is_canonical() -> None:
    names = ["message", "span", "quote", "predicate", "procedure", "inputs", "value", "unit", "interval", "verdict", "scope", "caveat"]
    for found in (one("count", text="§", says=1), one("duration"), one("tensors", words=["x"]), one("kl_possible", nats="inf", says=False)):
        told = found.document()
        assert names == list(told) and told["verdict"] in VERDICTS and told["scope"] in SCOPES
        assert canonical.encode(told)
    assert None is one("duration").document()["value"]


# ---- claims.toml


GOOD = """
format = "formation-claims/1"
[[claim]]
message = 3
span = [9, 25]
quote = "probability zero"
predicate = "it had no probability"
procedure = "zero"
inputs = { text = "§", message = 2, says = "zero" }
"""


def test_a_claim_is_read_as_it_stands() -> None:
    (claim,) = claims_in(GOOD.encode(), TALK, DIGEST)
    assert Claim(3, (9, 25), "probability zero", "it had no probability", "zero", {"text": "§", "message": 2, "says": "zero"}) == claim
    assert [claim] == claims_in(GOOD.replace("[[claim]]", f'transcript_sha256 = "{DIGEST}"\n[[claim]]').encode(), TALK, DIGEST)
    assert [] == claims_in(b'format = "formation-claims/1"', TALK, DIGEST)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('quote = "probability zero"', 'quote = "probability One!"', r"claim 1: quote: expected 'probability zero', as message 3 has it there, got"),
        ("span = [9, 25]", "span = [9, 26]", r"claim 1: quote: expected 'probability zero,'"),
        ("span = [9, 25]", "span = [25, 9]", r"claim 1: span: expected \[begin, end\) within the 43 characters of message 3, got"),
        ("span = [9, 25]", "span = [9, 9999]", r"claim 1: span: expected"),
        ("span = [9, 25]", "span = [-5, 25]", r"claim 1: span: expected"),
        ("span = [9, 25]", "span = [9, 25, 26]", r"claim 1: span: expected"),
        ("span = [9, 25]", "span = [9.0, 25]", r"claim 1: span: expected"),
        ("span = [9, 25]", "span = [false, true]", r"claim 1: span: expected"),
        ("message = 3", "message = 5", r"claim 1: message: expected a number from 1 to 4, got 5"),
        ("message = 3", "message = 0", r"claim 1: message: expected a number from 1 to 4, got 0"),
        ("message = 3", "message = true", r"claim 1: message: expected a number from 1 to 4, got True"),
        ("message = 3", "message = 2026-11-22", r"claim 1: message: expected a number from 1 to 4, got datetime"),
        ('procedure = "zero"', 'procedure = "judge"', r"claim 1: procedure: expected one of count, .*, got 'judge'"),
        ('procedure = "zero"', "procedure = []", r"claim 1: procedure: expected one of"),
        ('procedure = "zero"', 'procedure = "zero"\nvalue = 3', r"claim 1: expected message, span, .* got \['inputs'"),
        ('predicate = "it had no probability"', "", r"claim 1: expected message, span"),
        ('predicate = "it had no probability"', 'predicate = ""', r"claim 1: predicate: expected a text of at most 500 characters"),
        ('predicate = "it had no probability"', f'predicate = "{"x" * 501}"', r"claim 1: predicate: expected a text of at most 500"),
        ('text = "§"', "text = 3", r"claim 1: inputs of zero: text: expected a text of at most 500 characters, got 3"),
        ('text = "§", ', "", r"claim 1: inputs of zero: expected text among them, got none"),
        ("message = 2", "message = 9", r"claim 1: inputs of zero: message: expected a message from 1 to 4, got 9"),
        ("message = 2", "message = -1", r"claim 1: inputs of zero: message: expected a number from 1, got -1"),
        ("message = 2", 'weight = "all"', r"claim 1: inputs of zero: expected text, message, occurrence, says, relation, got 'weight'"),
        ('says = "zero"', "says = [1]", r"claim 1: inputs of zero: says: expected a number, a text, true or false"),
        ('says = "zero"', "says = nan", r"claim 1: inputs of zero: says: expected"),
        ('says = "zero"', 'relation = "rather"', r"claim 1: inputs of zero: relation: expected is or is not or at least"),
        ('{ text = "§", message = 2, says = "zero" }', "3", r"claim 1: inputs of zero: expected text, .* got 3"),
        ("[[claim]]", "[claim]", r"claim: expected at most 1000 tables"),
        ("formation-claims/1", "formation-claims/2", r"format: expected formation-claims/1, got 'formation-claims/2'"),
        ("[[claim]]", "[extra]\n[[claim]]", r"expected format, transcript_sha256 and claim, got 'extra'"),
        ("[[claim]]", 'transcript_sha256 = "1"\n[[claim]]', r"transcript_sha256: expected 0{64}, that of this transcript, got '1'"),
        ("[[claim]]", "[[claim", r"expected TOML, got an error"),
        ("message = 3", "message = 3\nmessage = 3", r"expected TOML, got an error: Cannot overwrite a value"),
        ("message = 3", f"message = {'9' * 5000}", r"expected TOML, got an error"),
        ("message = 3", f"message = {'[' * 5000}", r"expected shallow TOML|expected TOML"),
    ],
)
def test_a_file_that_is_not_as_it_must_be_is_refused_in_one_sentence(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    with pytest.raises(ClaimRefusal, match=sentence) as refused:
        claims_in(text.encode(), TALK, DIGEST)
    assert len(str(refused.value)) < 700 and str(refused.value).isprintable()
    (tmp_path / "claims.toml").write_text(text)
    with pytest.raises(EnvironmentFault, match=r"claims\.toml: ") as fault:
        read(tmp_path / "claims.toml", TALK, DIGEST)
    assert 3 == fault.value.exit_code


@pytest.mark.parametrize("data", [b"\xff\xfe", b"#" * (1 << 20) + b"##", b"\0"])
def test_bytes_that_are_no_toml_are_refused(data: bytes) -> None:
    with pytest.raises(ClaimRefusal, match="expected"):
        claims_in(data, TALK, DIGEST)


def test_more_claims_than_anybody_has_are_refused() -> None:
    with pytest.raises(ClaimRefusal, match=r"claim: expected at most 1000 tables \[\[claim\]\], got 1001"):
        claims_in((f'format = "{FORMAT}"\n' + "[[claim]]\n" * 1001).encode(), TALK, DIGEST)


def test_a_name_that_is_no_side_is_refused() -> None:
    text = GOOD.replace('procedure = "zero"', 'procedure = "count"').replace("message = 2", 'by = "moth"')
    with pytest.raises(ClaimRefusal, match="claim 1: inputs of count: by: expected lamp or owl, got 'moth'"):
        claims_in(text.encode(), TALK, DIGEST)


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode), st.integers(0, len(GOOD)).map(lambda n: GOOD.encode()[:n])))
def test_any_bytes_are_claims_or_refused(data: bytes) -> None:
    with suppress(ClaimRefusal):
        assert isinstance(claims_in(data, TALK, DIGEST), list)


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=60))
def test_what_the_skeleton_writes_toml_reads(text: str) -> None:
    assert text == tomllib.loads(f"a = {toml(text)}")["a"] and [text, 1, True] == tomllib.loads(f"a = {toml([text, 1, True])}")["a"]


# ---- the lexicon


@pytest.mark.parametrize("path", [OWN, EXAMPLES / "small-talk" / "transcript.md"], ids=["night owl", "small talk"])
def test_suggestions_are_claims_that_can_be_read_and_settled(path: Path) -> None:
    talk = formats.read(path)
    found = suggest(talk)
    assert found == claims_in(skeleton(found, DIGEST), talk, DIGEST)
    assert len(found) == len(settle(talk, found, Models(talk)))


def test_the_lexicon_finds_what_the_small_dialogue_claims() -> None:
    found = {claim.procedure for claim in suggest(formats.read(EXAMPLES / "small-talk" / "transcript.md"))}
    wanted = "zero tensors kl_possible entropy_possible code_point in_unicode exit_status http_status utf8 count tokens goes_back"
    assert {*wanted.split(), "uncommitted_positions", "unlogged_passes"} <= found


def test_a_dialogue_without_such_words_has_no_suggestions() -> None:
    assert [] == suggest(Transcript(("a", "b"), (Message(0, "What does len do?"), Message(1, "It counts the items of a container."))))


def test_a_claim_about_a_glyph_looks_where_the_glyph_is() -> None:
    talk = Transcript(("a", "b"), (Message(0, "Now."), Message(1, "☞"), Message(0, "That had zero probability.")))
    (claim,) = suggest(talk)
    assert ("zero", {"text": "☞", "message": 2, "says": "zero"}) == (claim.procedure, claim.inputs)


def test_every_entry_names_a_procedure_and_inputs_that_it_takes() -> None:
    for each in LEXICON:
        assert each.procedure in PROCEDURES and PROCEDURES[each.procedure].needs in (NOTHING, MODEL)


def test_numbers_of_nats_may_be_none() -> None:
    assert not math.isfinite(float(one("kl_possible", nats="nan").claim.inputs["nats"]))
