"""claims.toml, held against the transcript that it is about: what it says in one way only, or it is refused.

    format = "formation-claims/1"

    [[claim]]
    message = 5
    span = [1503, 1531]
    quote = "zero probability mass"
    predicate = "the token has no probability"
    procedure = "zero"
    inputs = { text = "®", says = "zero" }

`transcript_sha256` may stand before the claims: the file that the spans are about.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from formation.dialogue.claims.catalog import PROCEDURES
from formation.dialogue.claims.claim import Claim
from formation.dialogue.claims.procedure import RELATION, SAYS
from formation.dialogue.transcripts.transcript import Transcript
from formation.errors import EnvironmentFault
from formation.ledger import canonical, files
from formation.ledger.canonical import quoted

FORMAT = "formation-claims/1"
NAME = "claims.toml"
LIMITS = canonical.Limits(size_bytes=1 << 20, depth=8)
MOST_CLAIMS, LONGEST_QUOTE, LONGEST_PREDICATE = 1000, 500, 500
FIELDS = ("message", "span", "quote", "predicate", "procedure", "inputs")
HINT = "docs/claims.md says what a claim is; formation claims TRANSCRIPT --suggest writes a file to begin with"


class ClaimRefusal(ValueError):
    """Why something is no file of claims about this transcript; callers add the file's name."""


def read(path: Path, transcript: Transcript, transcript_sha256: str) -> list[Claim]:
    """Raises EnvironmentFault, and nothing else, whatever the file holds."""
    data = files.read_whole(path, LIMITS)
    try:
        return claims_in(data, transcript, transcript_sha256)
    except ClaimRefusal as refusal:
        raise EnvironmentFault(f"{path}: {refusal}", hint=HINT) from None


def claims_in(data: bytes, transcript: Transcript, transcript_sha256: str) -> list[Claim]:
    """Raises ClaimRefusal."""
    table = parse(data)
    if extra := sorted(set(table) - {"format", "transcript_sha256", "claim"}):
        raise ClaimRefusal(f"expected format, transcript_sha256 and claim, got {quoted(extra[0])}")
    if table.get("format") != FORMAT:
        raise ClaimRefusal(f"format: expected {FORMAT}, got {quoted(table.get('format'))}")
    if table.get("transcript_sha256", transcript_sha256) != transcript_sha256:
        raise ClaimRefusal(f"transcript_sha256: expected {transcript_sha256}, that of this transcript, got {quoted(table['transcript_sha256'])}")
    rows = table.get("claim", [])
    if not isinstance(rows, list) or len(rows) > MOST_CLAIMS:
        raise ClaimRefusal(f"claim: expected at most {MOST_CLAIMS} tables [[claim]], got {len(rows) if isinstance(rows, list) else quoted(rows)}")
    return [claim_of(number, row, transcript) for number, row in enumerate(rows, 1)]


def parse(data: bytes) -> dict[str, Any]:
    if len(data) > LIMITS.size_bytes:
        raise ClaimRefusal(f"expected at most {LIMITS.size_bytes} bytes, got more")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ClaimRefusal(f"expected UTF-8, got byte 0x{data[error.start]:02x} at {error.start}") from None
    except RecursionError:
        raise ClaimRefusal("expected shallow TOML, got nesting beyond this interpreter's depth") from None
    except ValueError as error:  # TOMLDecodeError is one, and so is an integer with thousands of digits
        raise ClaimRefusal(f"expected TOML, got an error: {str(error)[:120]}") from None


def claim_of(number: int, row: Any, transcript: Transcript) -> Claim:
    where = f"claim {number}"
    if not isinstance(row, dict) or set(row) - {"inputs"} != set(FIELDS) - {"inputs"}:
        got = sorted(row) if isinstance(row, dict) else row
        raise ClaimRefusal(f"{where}: expected message, span, quote, predicate, procedure and perhaps inputs, got {quoted(got)}")
    begin, end = span_of(where, row, transcript)
    check_text(where, "predicate", row["predicate"], LONGEST_PREDICATE)
    if not isinstance(row["procedure"], str) or row["procedure"] not in PROCEDURES:
        raise ClaimRefusal(f"{where}: procedure: expected one of {', '.join(PROCEDURES)}, got {quoted(row['procedure'])}")
    inputs = inputs_of(where, row["procedure"], row.get("inputs", {}), transcript)
    return Claim(row["message"], (begin, end), row["quote"], row["predicate"], row["procedure"], inputs)


def span_of(where: str, row: Mapping[str, Any], transcript: Transcript) -> tuple[int, int]:
    """What it quotes must stand there, character by character"""
    message, span = row["message"], row["span"]
    if type(message) is not int or not 1 <= message <= len(transcript.said):
        raise ClaimRefusal(f"{where}: message: expected a number from 1 to {len(transcript.said)}, got {quoted(message)}")
    text = transcript.said[message - 1][1].text
    if not isinstance(span, list) or [type(edge) for edge in span] != [int, int] or not 0 <= span[0] < span[1] <= len(text):
        raise ClaimRefusal(f"{where}: span: expected [begin, end) within the {len(text)} characters of message {message}, got {quoted(span)}")
    check_text(where, "quote", row["quote"], LONGEST_QUOTE)
    if (found := text[span[0] : span[1]]) != row["quote"]:
        raise ClaimRefusal(f"{where}: quote: expected {quoted(found)}, as message {message} has it there, got {quoted(row['quote'])}")
    return span[0], span[1]


def check_text(where: str, name: str, value: Any, longest: int) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        raise ClaimRefusal(f"{where}: {name}: expected a text of at most {longest} characters, got {quoted(value)}")


def inputs_of(where: str, procedure: str, inputs: Any, transcript: Transcript) -> Mapping[str, Any]:
    known = {each.name: each for each in (*PROCEDURES[procedure].inputs, SAYS, RELATION)}
    extra = sorted(set(inputs) - set(known)) if isinstance(inputs, dict) else [inputs]
    if extra:
        raise ClaimRefusal(f"{where}: inputs of {procedure}: expected {', '.join(known)}, got {quoted(extra[0])}")
    for name, each in known.items():
        if name not in inputs:
            if each.needed:
                raise ClaimRefusal(f"{where}: inputs of {procedure}: expected {name} among them, got none")
        elif problem := each.problem(inputs[name]) or place_problem(each.type, name, inputs[name], transcript):
            raise ClaimRefusal(f"{where}: inputs of {procedure}: {name}: expected {problem}, got {quoted(inputs[name])}")
    return dict(inputs)


def place_problem(kind: str, name: str, value: Any, transcript: Transcript) -> str:
    if kind == "name" and value not in transcript.names:
        return " or ".join(transcript.names)
    if name in ("message", "first", "last") and value > len(transcript.said):
        return f"a message from 1 to {len(transcript.said)}"
    return ""
