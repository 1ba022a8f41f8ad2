"""What a standard or arithmetic says, whatever any model does."""

from __future__ import annotations

import math
import re

from formation.dialogue.claims.claim import STANDARD, Finding, NotHere
from formation.dialogue.claims.procedure import NOTHING, Case, Input, Procedure

LAST_CODE_POINT, SURROGATES = 0x10FFFF, range(0xD800, 0xE000)
CODE_POINT, HEX_BYTES = re.compile(r"(?:U\+|0x)?([0-9A-Fa-f]{1,8})"), re.compile(r"(?:[0-9A-Fa-f]{2} ?){1,64}")
STATUSES = {  # of HTTP: RFC 9110 and, where it says so, another
    "ok": 200, "moved permanently": 301, "not modified": 304, "bad request": 400, "unauthorized": 401, "forbidden": 403, "not found": 404,
    "conflict": 409, "gone": 410, "content too large": 413, "unprocessable content": 422, "too many requests": 429, "internal server error": 500,
    "not implemented": 501, "bad gateway": 502, "service unavailable": 503, "gateway timeout": 504,
    "i'm a teapot": 418,  # RFC 2324, section 2.3.2
}  # fmt: skip
LARGEST_EXIT = 255
SHOWN = 8  # characters of a text


def code_point(case: Case) -> Finding:
    match = CODE_POINT.fullmatch(case.get("code_point"))
    if match is None:
        raise NotHere(f"{case.get('code_point')!r} is no number of a code point")
    number = int(match[1], 16)
    inside = number <= LAST_CODE_POINT
    surrogate = "; it is a surrogate, which stands for no character" if number in SURROGATES else ""
    return Finding(inside, "", STANDARD, f"Unicode ends at U+10FFFF (D9 of its chapter 3); U+{number:04X} is {number - LAST_CODE_POINT} after that"
                   if not inside else f"Unicode goes from U+0000 to U+10FFFF; U+{number:04X} is within{surrogate}")  # fmt: skip


def in_unicode(case: Case) -> Finding:
    text = case.get("text")
    shown = " ".join(f"U+{ord(c):04X}" for c in text[:SHOWN]) + (" …" if len(text) > SHOWN else "")
    caveat = f"{text!r} is {shown}: what a transcript in UTF-8 holds can be nothing else"
    return Finding(all(ord(c) <= LAST_CODE_POINT for c in text), "", STANDARD, caveat)


def utf8(case: Case) -> Finding:
    words = case.get("bytes")
    if not HEX_BYTES.fullmatch(words):
        raise NotHere(f"{words!r} are no bytes in hexadecimal")
    try:
        text = bytes.fromhex(words).decode("utf-8")
    except UnicodeDecodeError as error:
        return Finding(False, "", STANDARD, f"RFC 3629: byte {error.start} of {words}: {error.reason}")
    return Finding(True, "", STANDARD, f"RFC 3629: {words} is {text!r}")


def utf8_bytes(case: Case) -> Finding:
    return Finding(case.get("text").encode().hex(" ").upper(), "bytes in hexadecimal", STANDARD, "RFC 3629")


def http_status(case: Case) -> Finding:
    phrase = case.get("phrase").lower().replace("’", "'")
    if phrase not in STATUSES:
        raise NotHere(f"no status with the phrase {phrase!r} is known here")
    return Finding(STATUSES[phrase], "status code", STANDARD, "RFC 2324, section 2.3.2" if STATUSES[phrase] == 418 else "RFC 9110, section 15")


def exit_status(case: Case) -> Finding:
    number = case.get("status")
    return Finding(0 <= number <= LARGEST_EXIT, "", STANDARD, f"POSIX: a parent that waits sees the low eight bits, 0 to {LARGEST_EXIT}; of {number} "
                   f"it would see {number & LARGEST_EXIT}")  # fmt: skip


def softmax(case: Case) -> Finding:
    caveat = "exp of a finite number is positive, and so is its share of the sum; that a dtype prints 0 is rounding. Of the model's distribution: "
    return Finding("POSITIVE", "kind of zero", STANDARD, caveat + "a mask or a sampler behind it may take a token out", answer="positive")


def entropy_possible(case: Case) -> Finding:
    nats, size = number(case), case.get("vocabulary")
    most = math.inf if size is None else math.log(size)
    possible = math.isfinite(nats) and 0 <= nats <= most
    limit = "ln V, which is finite for every vocabulary" if size is None else f"ln {size} = {most:.4f} nats"
    return Finding(possible, "", STANDARD, f"the entropy of a distribution over V tokens lies from 0 to {limit}")


def kl_possible(case: Case) -> Finding:
    nats = number(case)
    caveat = (
        "for finite logits of one vocabulary, 0 ≤ KL ≤ max d - min d, d their difference; infinite only where a mask took a token from the reference"
    )
    return Finding(math.isfinite(nats) and nats >= 0, "", STANDARD, caveat)


def number(case: Case) -> float:
    """ "inf" and "nan" are written as text"""
    value = case.get("nats")
    if isinstance(value, str) and value not in ("inf", "-inf", "nan"):
        raise NotHere(f"{value!r} is no number of nats")
    return float(value)


def unmeasurable(case: Case) -> Finding:
    raise NotHere(case.get("reason"))


NATS = Input("nats", "value", 'the number that is claimed, or "inf", "-inf", "nan"', True)
PROCEDURES = (
    Procedure("code_point", "is this number a code point of Unicode", STANDARD, NOTHING, (
        Input("code_point", "text", "as U+00AE or 0xAE", True),), code_point),
    Procedure("in_unicode", "is every character of a text one of Unicode", STANDARD, NOTHING, (Input("text", "text", "the text", True),), in_unicode),
    Procedure("utf8", "are these bytes well-formed UTF-8", STANDARD, NOTHING, (Input("bytes", "text", "hexadecimal", True),), utf8),
    Procedure("utf8_bytes", "which bytes a text is in UTF-8", STANDARD, NOTHING, (Input("text", "text", "the text", True),), utf8_bytes),
    Procedure("http_status", "the number of a status of HTTP", STANDARD, NOTHING, (Input("phrase", "text", "its reason phrase", True),), http_status),
    Procedure("exit_status", "can a process end with this status", STANDARD, NOTHING, (Input("status", "whole", "the number", True),), exit_status),
    Procedure("softmax", "can a softmax of finite logits give a token nothing", STANDARD, NOTHING, (), softmax),
    Procedure("entropy_possible", "can an entropy be this number", STANDARD, NOTHING, (
        NATS, Input("vocabulary", "number", "how many tokens there are, if known"),), entropy_possible),
    Procedure("kl_possible", "can a Kullback-Leibler divergence of two softmaxes be this number", STANDARD, NOTHING, (NATS,), kl_possible),
    Procedure("none", "says why there is no procedure", STANDARD, NOTHING, (Input("reason", "text", "why not", True),), unmeasurable),
)  # fmt: skip
