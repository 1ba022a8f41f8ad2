"""A challenge as lines: the answer first, then what was nominated, how probable it was, and what each arm said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from formation.cli.fork_view import clipped, is_absent, quoted

Told = Mapping[str, Any]
SHOWN = 3  # of what an arm said
WORDS = {
    "free": "free", "forced": "made to say it", "least": "made to say the least likely", "control": "made to say the control",
    "removed": "nothing announced",
}  # fmt: skip


def lines(told: Told, out: str) -> Iterator[str]:
    names = [side["name"] for side in told["sides"]]
    nominations = ", ".join(dict.fromkeys(quoted(each["text"]) for each in told["nominations"]))
    yield f"{names[0] if len(names) > 1 else 'the operator'} nominated {nominations} for {names[-1]}"
    for sentence in told["answer"]:
        yield f"  {sentence}"
    yield ""
    yield from token_lines(told)
    yield ""
    yield from slope_lines(told)
    yield ""
    yield from arm_lines(told)
    yield f"all of it is in {out}: challenge.json, branches.jsonl"


def token_lines(told: Told) -> Iterator[str]:
    times = told["repeats"]
    yield f"  {'token':<16} {'ln p ≥':>9} {'before':>9} {'rank':>6}  announced once … {times} times, and rank" + " " * 12 + "control"
    for each in told["tokens_measured"]:
        rows = each["repeats"]
        course = " ".join(f"{row['logprob_nats']:8.3f}" for row in rows)
        ranks = f"{rows[0]['rank_low']}…{rows[-1]['rank_low']}"
        before, control = each["before"], f"{each['control']['logprob_nats']:.3f} → {rows[0]['control_logprob_nats']:.3f}"
        token = f"{clipped(quoted(each['text'])):<16} {each['floor_nats']:9.2f} {before['logprob_nats']:9.3f} {before['rank_low']:6}"
        yield f"  {token}  {course}  {ranks}  {control}"


def slope_lines(told: Told) -> Iterator[str]:
    yield f"  nats added to ln p of   {'':<4} by announcing it {'':<16} by each repetition"
    for name, found in told["announced"].items():
        yield f"    {name:<24} {interval(found, 'nats'):<32} {interval(told['repeated'][name], 'slope')}"


def interval(found: Told, name: str) -> str:
    value = "?" if is_absent(found[name]) else f"{found[name]:+.3f}"
    return value if is_absent(found["low"]) else f"{value} [{found['low']:+.3f}, {found['high']:+.3f}]"


def arm_lines(told: Told) -> Iterator[str]:
    yield f"  {'arm':<30} {'says it (then)':<26} {'ln p of it next':>15}"
    for arm in told["arms"]:
        share, nats = arm["says_it"], arm["next_logprob_nats"]
        says = f"{share['times']} of {share['of']}  [{share['low']:.3f}, {share['high']:.3f}]"
        yield f"  {WORDS[arm['arm']]:<30} {says:<26} {'?' if is_absent(nats) else f'{nats:.3f}':>15}"
        for text in arm["said"][:SHOWN]:
            yield f"      {clipped(text)}"
