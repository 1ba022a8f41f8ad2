"""A challenge: one model nominates a token, the other is told that it cannot say it, and speaks in five ways.

    out/branches.jsonl   the terms; each nomination; of each token what the other would say to it; then the arms, line by line (log.py)
    out/challenge.json   the tables and the answer, written last (answer.py)

Everything that is measured of a nominated token, its probability, its rank, the certificate's bound, before and after it is announced, is on disk
before the other side says anything. Arms of one sample share their draws.

    free      it goes on as it likes            least     it is made to say the least likely token
    forced    it is made to say the token       control   it is made to say a token that was as likely before, and that nobody announced
    removed   it goes on as it likes, and nothing was announced
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from formation.dialogue.certificate.bounds import Certificate
from formation.dialogue.forks import log
from formation.dialogue.forks.choices import FREE, LEAST, Chosen
from formation.dialogue.forks.nominate import Nomination, distinct, drawn_for
from formation.dialogue.forks.source import Formed
from formation.dialogue.forks.stem import Stem
from formation.dialogue.local import LocalSide
from formation.dialogue.side import Turn
from formation.errors import EvidenceError, UsageError
from formation.kernels.tensor import F32
from formation.run.distributions import Distribution, of_logits
from formation.run.sample import Greedy
from formation.version import __version__

FORMAT = "formation-challenge/1"
SUMMARY = "challenge.json"
FORCED, CONTROL, REMOVED = "forced", "control", "removed"
ARMS = (FREE, FORCED, LEAST, CONTROL, REMOVED)
CHANCE: log.Shape = {"logprob_nats": log.NUMBER, "rank_low": int, "entropy_nats": log.NUMBER}
SHAPES: dict[str, log.Shape] = {
    "nominated": {"line": str, "number": int, "text": str, "by": str, "how?": str, "id?": int, "measured?": dict},
    "measured": {
        "line": str, "number": int, "text": str, "ids": [int], "floor_nats": log.NUMBER, "before": CHANCE, "least": int,
        "control": CHANCE | {"id": int}, "repeats": [CHANCE | {"times": int, "control_logprob_nats": log.NUMBER}],
    },
}  # fmt: skip
ARM: log.Shape = {
    "line": str, "number": int, "text": str, "forced": [int], "said": str, "says_it": bool, "drawn": bool, "ended": bool, "chances": [log.NUMBER],
    "tokens": [log.TOKEN],
}  # fmt: skip
OPENING = "Say something."
ANNOUNCE = "The token {token} has zero probability: you cannot say it."
MOST_SAMPLES, MOST_REPEATS, MOST_TOKENS = 1000, 64, 256
Line = dict[str, Any]
Watch = Callable[[str, int], None]  # an arm or what is measured, and the sample


@dataclass(frozen=True)
class Terms:
    """`announce` has {token} in it. The announcement is made up to `repeats` times in one message, for the slope; once in the arms."""

    opening: str = OPENING
    announce: str = ANNOUNCE
    samples: int = 4
    repeats: int = 4
    tokens: int = 16

    def __post_init__(self) -> None:
        limits = (("seeds", self.samples, 1, MOST_SAMPLES), ("repeats", self.repeats, 1, MOST_REPEATS), ("tokens", self.tokens, 1, MOST_TOKENS))
        for name, got, least, most in limits:
            if not least <= got <= most:
                raise UsageError(f"{name}: expected {least} to {most}, got {got}")
        if "{token}" not in self.announce:
            raise UsageError(f"--announce: expected a text with {{token}} in it, got {self.announce[:40]!r}")

    def message(self, token: str, times: int) -> str:
        return "\n".join([self.opening, *[self.announce.replace("{token}", token)] * times])


@dataclass(eq=False)
class Target:
    """The side that is challenged. One stem at a time stands behind an announcement; that of the message without one stays."""

    side: LocalSide
    terms: Terms
    certificate: Certificate
    silent: Stem
    _announced: tuple[str, int, Stem] | None = None

    def announced(self, token: str, times: int = 1) -> Stem:
        if not times:
            return self.silent
        if self._announced is None or self._announced[:2] != (token, times):
            self._announced = (token, times, stem_of(self.side, self.terms.message(token, times), own_past=False))
        return self._announced[2]


def stem_of(side: LocalSide, message: str, *, own_past: bool) -> Stem:
    ids = side.prompt([Turn(0, False, message)])
    past = side.engine.past(len(ids)) if own_past else side.past
    return Stem(side.engine, past, ids, [], side.stop, side.tokenizer, side.manner.chain)


def target_of(side: LocalSide, terms: Terms, certificate: Certificate) -> Target:
    """Raises UsageError where all samples would be the same."""
    if terms.samples > 1 and isinstance(side.manner.chain.sampler, Greedy):
        raise UsageError(f"side {side.name}: expected --temperature, as {terms.samples} seeds of a greedy side say the same, got none")
    return Target(side, terms, certificate, stem_of(side, terms.message("", 0), own_past=True))


@dataclass(frozen=True)
class Due:
    """A line of the log: a nomination, what is measured of a text, or an arm; its number among its kind"""

    kind: str
    number: int
    text: str


def challenge(target: Target, nominations: Sequence[Nomination], head: Mapping[str, Any], out: Path, watch: Watch | None = None) -> list[Line]:
    """All lines of the log, from the terms on. Goes on where the same challenge was cut off. Raises what `fork` raises."""
    terms, texts = target.terms, distinct(nominations)
    whole = {
        "format": FORMAT, "formation": __version__, **head, "opening": terms.opening, "announce": terms.announce, "samples": terms.samples,
        "repeats": terms.repeats, "tokens": terms.tokens,
    }  # fmt: skip
    due = [Due("nominated", each.sample, each.text) for each in nominations] + [Due("measured", place, text) for place, text in enumerate(texts)]
    arms = [Due(arm, each.sample, text) for text in texts for arm in ARMS for each in nominations if each.text == text]
    with log.opened(out, done=SUMMARY) as lines:
        lines.lead(whole)
        check_found(lines, [*due, *arms])
        for each in due[len(lines.found) - 1 :]:
            line = nominated_line(nominations[each.number]) if each.kind == "nominated" else measured_line(target, each.text)
            append(lines, each, line, watch)
        measured = {line["text"]: line for line in lines.found if line.get("line") == "measured"}
        speak(target, lines, arms[len(lines.found) - 1 - len(due) :], measured, watch)
        return lines.found


def check_found(lines: log.BranchLog, due: Sequence[Due]) -> None:
    """What was there already. Raises EvidenceError for a line in the place of another."""
    if len(lines.found) - 1 > len(due):
        raise EvidenceError(f"{lines.path}: expected {len(due) + 1} lines, got {len(lines.found)}")
    for place, (found, each) in enumerate(zip(lines.found[1:], due, strict=False), 1):
        log.check_line(lines.path, place, found, SHAPES.get(each.kind, ARM))
        if (found["line"], found["number"], found["text"]) != (each.kind, each.number, each.text):
            raise EvidenceError(f"{lines.path}: expected line {place + 1} to be {each.kind} {each.number} of {each.text[:40]!r}, got another")


def append(lines: log.BranchLog, due: Due, line: Line, watch: Watch | None) -> None:
    lines.append({"line": due.kind, "number": due.number, **line})
    if watch:
        watch(due.kind, due.number)


def speak(target: Target, lines: log.BranchLog, arms: Sequence[Due], measured: Mapping[str, Line], watch: Watch | None) -> None:
    """The arms, those behind the same message in the same passes over the weights"""
    for (text, silent), group in groupby(arms, key=lambda each: (each.text, each.kind == REMOVED)):
        stem, some = target.silent if silent else target.announced(text), list(group)
        size = stem.together(target.terms.tokens)
        for first in range(0, len(some), size):
            part = some[first : first + size]
            for each, line in zip(part, arm_lines(target, stem, measured[text], part), strict=True):
                append(lines, each, line, watch)


def nominated_line(found: Nomination) -> Line:
    return {"text": found.text, **found.told}


# ---- before the other speaks


def measured_line(target: Target, text: str) -> Line:
    """Of a nominated token: without an announcement, after one, after several, and the certificate's bound; and of the control"""
    ids = target.side.tokenizer.encode(text)
    if not ids or len(ids) > target.terms.tokens:
        raise UsageError(f"token {text[:40]!r}: expected a text of 1 to {target.terms.tokens} tokens, got {len(ids)}")
    before = chance(target.silent, ids)
    control = control_of(target.silent, ids, before["logprob_nats"])
    repeats = []
    for times in range(1, target.terms.repeats + 1):
        stem = target.announced(text, times)
        repeats.append({"times": times, **chance(stem, ids), "control_logprob_nats": chance(stem, [control])["logprob_nats"]})
    floors = [target.certificate.floor_nats(token) for token in ids]
    return {
        "text": text, "ids": list(ids), "floor_nats": sum(floors), "before": before, "repeats": repeats, "least": least_of(target.announced(text)),
        "control": {"id": control, **chance(target.silent, [control])},
    }  # fmt: skip


def chance(stem: Stem, ids: Sequence[int]) -> Line:
    """ln p of these ids one after the other; the rank is that of the first"""
    found = [model(logits) for logits in stem.logits_along(ids[:-1])]
    nats = [each.logprob_nats(token) for each, token in zip(found, ids, strict=True)]
    ranks = found[0].ranks(ids[0])
    assert ranks is not None and all(each is not None for each in nats)  # nothing is masked under the model
    return {"logprob_nats": sum(each for each in nats if each is not None), "rank_low": ranks[0], "entropy_nats": found[0].entropy_nats}


def model(logits: F32) -> Distribution:
    return of_logits("model", logits, np.zeros(len(logits), np.uint8), (), 1)


def control_of(stem: Stem, ids: Sequence[int], nats: float) -> int:
    """The token whose log probability is nearest; the lower id of two. Tokens that end the turn, and the nominated one, are none."""
    logits = stem.root()[: stem.tokenizer.size].astype(np.float64)
    apart = np.abs(logits - model(stem.root()).log_sum_exp - nats)
    apart[[*ids, *stem.stop]] = np.inf
    return int(apart.argmin())


def least_of(stem: Stem) -> int:
    return int(stem.root()[: stem.tokenizer.size].argmin())


# ---- how it speaks


def arm_lines(target: Target, stem: Stem, measured: Line, arms: Sequence[Due]) -> list[Line]:
    """`chances` are ln p of the nominated token's first id at each token of the arm"""
    forced = {FORCED: measured["ids"], LEAST: [measured["least"]], CONTROL: [measured["control"]["id"]]}
    tokens: list[list[Formed]] = [[] for _ in arms]
    chances: list[list[float | None]] = [[] for _ in arms]

    def hear(number: int, formed: Formed, logits: F32) -> None:
        tokens[number].append(formed)
        chances[number].append(model(logits).logprob_nats(measured["ids"][0]))

    wanted = [(Chosen(each.kind, each.kind, tuple(forced.get(each.kind, ()))), drawn_for(stem.chain, each.number)) for each in arms]
    stem.grow_together(wanted, target.terms.tokens, hear)
    rows = zip(wanted, tokens, chances, strict=True)
    return [{**said_line(target, measured, chosen.ids, own), "chances": course} for (chosen, _), own, course in rows]


def said_line(target: Target, measured: Line, forced: Sequence[int], tokens: Sequence[Formed]) -> Line:
    """`says_it`: whether the nominated token, and not only its letters, is in what was drawn"""
    said = b"".join(each.spelt for each in tokens if each.id not in target.side.stop).decode("utf-8", "replace")
    own, due = [each.id for each in tokens[len(forced) :]], list(measured["ids"])
    return {
        "text": measured["text"], "forced": list(forced), "said": said, "ended": tokens[-1].id in target.side.stop, "drawn": bool(own),
        "says_it": any(own[place : place + len(due)] == due for place in range(len(own))), "tokens": [each.document() for each in tokens],
    }  # fmt: skip
