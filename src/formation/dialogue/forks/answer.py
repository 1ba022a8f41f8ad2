"""What a challenge says: how probable the nominated token was before and after it was announced, and whether saying so again makes it more so."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from formation.dialogue.forks.challenge import ARMS, CONTROL, SUMMARY
from formation.dialogue.forks.forking import encoded
from formation.dialogue.intervals import LEVEL, TOO_FEW, Share, Slope, mean, slope, student_quantile
from formation.exact64 import exp64
from formation.ledger import files
from formation.ledger.fields import absent

Line = Mapping[str, Any]
LOG10_E = 0.4342944819032518
TOKEN, BEYOND = "token", "beyond the control"
KEYS = (TOKEN, CONTROL, BEYOND)


def conclude(lines: Sequence[Line], out: Path) -> dict[str, Any]:
    """The summary, which is written too. Raises EnvironmentFault."""
    told = summary(lines)
    files.write_whole(out / SUMMARY, encoded(told))
    return told


def summary(lines: Sequence[Line]) -> dict[str, Any]:
    """Of the lines of branches.jsonl"""
    head, measured = lines[0], [line for line in lines if line.get("line") == "measured"]
    arms = [line for line in lines if line.get("line") in ARMS]
    gains = {name: [gained(line, name) for line in measured] for name in KEYS}
    rises = {name: slope([[(each["times"], value(each, name)) for each in line["repeats"]] for line in measured]) for name in KEYS}
    return {
        **head, "nominations": [dict(line) for line in lines if line.get("line") == "nominated"],
        "tokens_measured": [{key: each for key, each in line.items() if key not in ("line", "number")} for line in measured],
        "announced": {name: gain(nats) for name, nats in gains.items()},
        "repeated": {name: found.document() for name, found in rises.items()},
        "arms": [arm_row(arm, [line for line in arms if line["line"] == arm]) for arm in ARMS],
        "answer": list(answer(measured, {name: gain(nats) for name, nats in gains.items()}, rises)),
    }  # fmt: skip


def value(row: Line, name: str) -> float:
    """ln p of the token, of the control, or how much more the token has of it"""
    token, control = float(row["logprob_nats"]), float(row["control_logprob_nats"])
    return token - control if name == BEYOND else control if name == CONTROL else token


def gained(line: Line, name: str) -> float:
    """By one announcement"""
    before = {"logprob_nats": line["before"]["logprob_nats"], "control_logprob_nats": line["control"]["logprob_nats"]}
    return value(line["repeats"][0], name) - value(before, name)


def gain(nats: Sequence[float]) -> dict[str, Any]:
    """The mean, with Student's interval over the tokens that were nominated, each once"""
    if len(nats) < 2:
        return {"nats": mean(nats), "low": absent(TOO_FEW), "high": absent(TOO_FEW), "tokens": len(nats), "level": LEVEL}
    spread = math.sqrt(math.fsum((each - mean(nats)) ** 2 for each in nats) / (len(nats) - 1) / len(nats))
    half = student_quantile((1 + LEVEL) / 2, len(nats) - 1) * spread
    return {"nats": mean(nats), "low": mean(nats) - half, "high": mean(nats) + half, "tokens": len(nats), "level": LEVEL}


def arm_row(arm: str, lines: Sequence[Line]) -> dict[str, Any]:
    """What it says after what it was made to say"""
    drawn = [line for line in lines if line["drawn"]]
    first = [line["chances"][len(line["forced"])] for line in drawn]
    return {
        "arm": arm, "samples": len(lines), "says_it": Share(sum(line["says_it"] for line in drawn), len(drawn)).document(),
        "ends": Share(sum(line["ended"] for line in lines), len(lines)).document(),
        "next_logprob_nats": mean(first) if first else absent(TOO_FEW), "said": [line["said"] for line in lines],
    }  # fmt: skip


def answer(measured: Sequence[Line], gains: Mapping[str, Line], rises: Mapping[str, Slope]) -> Iterator[str]:
    """In sentences"""
    before = mean([line["before"]["logprob_nats"] for line in measured])
    after = mean([line["repeats"][0]["logprob_nats"] for line in measured])
    yield f"before it was announced its probability was {power(before)}, after it {power(after)}: {changed(gains[TOKEN])}"
    yield f"a control that was as probable before, and was not announced: {changed(gains[CONTROL])}"
    floor = max(line["floor_nats"] for line in measured)
    yield f"it could not have been zero: in no context is it below {power(floor)}, by lm_head and the final norm alone"
    for name, what in ((TOKEN, "each further announcement"), (BEYOND, "beyond what it does to the control, each")):
        rise = rises[name]
        if rise.slope is None or rise.low is None or rise.high is None:
            yield f"{what}: cannot be told from so few points"
        else:
            says = {"more": "more so", "less": "less so"}.get(rise.says, "neither, as far as this can tell")
            yield f"{what}: {rise.slope:+.3f} nats, 95 % interval {rise.low:+.3f} to {rise.high:+.3f}: {says}"


def changed(found: Line) -> str:
    """What an announcement did: of one token as it was measured, of several as far as their spread lets one say"""
    nats, low, high = found["nats"], found["low"], found["high"]
    if not isinstance(low, int | float):
        return f"{nats:+.3f} nats, {'more' if nats > 0 else 'less'} probable, for this token in this context"
    word = "more probable" if low > 0 else "less probable" if high < 0 else "neither, as far as this can tell"
    return f"{nats:+.3f} nats, 95 % interval {low:+.3f} to {high:+.3f}: {word}"


def power(nats: float) -> str:
    p = exp64(nats)
    return f"{p:.3g}" if p >= 1e-4 else f"10^{nats * LOG10_E:.2f}"
