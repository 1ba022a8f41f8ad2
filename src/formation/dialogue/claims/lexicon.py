"""Words that a claim about tokens may hide behind, with the procedure that would settle it. Who writes the claims decides: nothing here judges."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from formation.dialogue.claims.claim import Claim
from formation.dialogue.claims.read import FORMAT, LONGEST_QUOTE
from formation.dialogue.transcripts.transcript import Transcript

Inputs = Callable[[re.Match[str]], dict[str, Any]]
NUMBERS = "one two three four five six seven eight nine ten eleven twelve".split()
GLYPH = re.compile(r"[^\w\s\x00-\x7f‘’“”–—…]")  # what a text about a glyph is about
MOST = 200  # suggestions, in the order of the text


@dataclass(frozen=True)
class Entry:
    """`inputs` may use the match, and `{glyph}` for the glyph that the message, or one before it, is about."""

    pattern: re.Pattern[str]
    predicate: str
    procedure: str
    inputs: Inputs


def entry(pattern: str, predicate: str, procedure: str, inputs: Inputs = lambda match: {}) -> Entry:
    return Entry(re.compile(pattern, re.IGNORECASE), predicate, procedure, inputs)


def number_of(word: str) -> int:
    return int(word) if word.isdigit() else NUMBERS.index(word.lower()) + 1


COUNT = "|".join(NUMBERS) + "|[0-9]{1,4}"
LEXICON = (
    entry(r"probability[ -]zero|\*{0,2}zero\*{0,2} (?:probability|mass)(?: mass)?", "a token has no probability", "zero",
          lambda m: {"text": "{glyph}", "says": "zero"}),
    entry(r"\b(?:infinitesimal|improbable|unlikely)\b", "a token is improbable", "probability",
          lambda m: {"text": "{glyph}", "says": -10.0, "relation": "less than"}),
    entry(r"out[- ]of[- ]vocab(?:ulary)?", "a text is no token", "is_token", lambda m: {"text": "{glyph}", "says": False}),
    entry(r"(?:single|one) (?:emergent )?token", "a text is one token", "tokens", lambda m: {"text": "{glyph}", "says": 1}),
    entry(rf"\b({COUNT}) (?:forward pass(?:es)?|decode steps)", "a message took so many steps", "decode_steps",
          lambda m: {"says": number_of(m[1])}),
    entry(rf"\b({COUNT}) (?:times|glyphs|punctures|tokens)\b", "something was said so often", "count",
          lambda m: {"text": "{glyph}", "says": number_of(m[1])}),
    entry(rf"\b({COUNT}) messages\b", "there are so many messages", "messages", lambda m: {"says": number_of(m[1])}),
    entry(r"\b([0-9]{1,6}) seconds\b", "the dialogue took so long", "duration", lambda m: {"says": int(m[1])}),
    entry(r"U\+([0-9A-Fa-f]{4,8})", "this is a code point of Unicode", "code_point", lambda m: {"code_point": f"U+{m[1].upper()}", "says": True}),
    entry(r"outside Unicode", "a text lies outside Unicode", "in_unicode", lambda m: {"text": "{glyph}", "says": False}),
    entry(r"\b0x([0-9A-Fa-f]{2})\b", "this byte is UTF-8", "utf8", lambda m: {"bytes": m[1].upper(), "says": True}),
    entry(r"\bcode ([0-9]{1,5})\b", "a process can end with this status", "exit_status", lambda m: {"status": int(m[1]), "says": True}),
    entry(r"\b([1-5][0-9]{2})\b[^.\n]{0,12}teapot", "the teapot's status has this number", "http_status",
          lambda m: {"phrase": "I'm a teapot", "says": int(m[1])}),
    entry(r"\bKL[- ]?(?:divergence)?[^.\n]{0,60}(?:infinit\w*|inf\b|overflow\w*)", "a divergence is infinite", "kl_possible",
          lambda m: {"nats": "inf", "says": True}),
    entry(r"\bentropy\b[^.\n]{0,60}\bnegative\b", "an entropy is negative", "entropy_possible", lambda m: {"nats": -1.0, "says": True}),
    entry(r"\bentropy\b[^.\n]{0,60}\bNaN\b", "an entropy is no number", "entropy_possible", lambda m: {"nats": "nan", "says": True}),
    entry(r"\b(?:reward|value|policy)[ -](?:head|model)\b", "the checkpoint has such a head", "tensors",
          lambda m: {"words": ["reward", "value_head", "v_head", "score."], "says": 1, "relation": "at least"}),
    entry(r"\bLoRA\b|\badapters?\b|embedding space|\bhot-patch\w*", "a run changes weights", "changed_weights",
          lambda m: {"says": 1, "relation": "at least"}),
    entry(r"\bunlogged\b|after the .{0,5}end.{0,5} of my own log", "passes are made that no log has", "unlogged_passes",
          lambda m: {"says": 1, "relation": "at least"}),
    entry(r"\bKV[- ]?cache\b|\bundecided\b|\bsuperposition\b", "something undecided is in the cache", "uncommitted_positions",
          lambda m: {"says": 1, "relation": "at least"}),
    entry(r"\breset\b|\birreversible\b|earlier checkpoint", "a run cannot be taken back", "goes_back", lambda m: {"says": False}),
    entry(r"\bbecomes? (?:more|less) (?:probable|likely)\b", "a text becomes more probable each time", "slope",
          lambda m: {"text": "{glyph}", "says": 0, "relation": "more than"}),
)  # fmt: skip


def suggest(transcript: Transcript) -> list[Claim]:
    """In the order of the text, at most MOST; a match about a glyph is left out where no message so far has one."""
    return [claim for _, claim in zip(range(MOST), suggestions(transcript), strict=False)]


def suggestions(transcript: Transcript) -> Iterator[Claim]:
    glyph = ""
    for number, message in transcript.said:
        hits = ((match.span(), each.procedure, match, each) for each in LEXICON for match in each.pattern.finditer(message.text))
        glyph = next(iter(GLYPH.findall(message.text)), glyph)
        for span, _, match, each in sorted(hits, key=lambda hit: hit[:2]):
            inputs = each.inputs(match)
            if (inputs.get("text") == "{glyph}" and not glyph) or span[1] - span[0] > LONGEST_QUOTE:
                continue
            if inputs.get("text") == "{glyph}":
                inputs |= {"text": glyph} | place(transcript, number, glyph, each.procedure)
            yield Claim(number, span, match[0], each.predicate, each.procedure, inputs)


def place(transcript: Transcript, number: int, glyph: str, procedure: str) -> dict[str, Any]:
    """Where a glyph is to be looked at: the message itself, or the nearest one that has it"""
    if procedure not in ("zero", "probability") or glyph in transcript.said[number - 1][1].text:
        return {}
    near = sorted((abs(n - number), n) for n, message in transcript.said if glyph in message.text)
    return {"message": near[0][1]} if near else {}


# ---- as a file


def skeleton(claims: list[Claim], transcript_sha256: str) -> bytes:
    """A claims.toml that can be read as it is; a person decides what of it stays."""
    head = [
        "# Suggested by words alone. Take out what is no claim, say what is meant in `predicate`, and set what the claim says.",
        f"format = {toml(FORMAT)}", f"transcript_sha256 = {toml(transcript_sha256)}",
    ]  # fmt: skip
    return ("\n".join([*head, *(line for claim in claims for line in rows(claim))]) + "\n").encode()


def rows(claim: Claim) -> Iterator[str]:
    yield from ("", "[[claim]]", f"message = {claim.message}", f"span = {toml(list(claim.span))}", f"quote = {toml(claim.quote)}")
    yield from (f"predicate = {toml(claim.predicate)}", f"procedure = {toml(claim.procedure)}")
    yield f"inputs = {{ {', '.join(f'{name} = {toml(value)}' for name, value in claim.inputs.items())} }}"


def toml(value: Any) -> str:
    """Of text, numbers, true, false and lists of them. TOML has the escapes of JSON, and wants DEL escaped too"""
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
