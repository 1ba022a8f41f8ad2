"""A fork as lines: the choices and how probable they were, what came of each, how far it is from what was said."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Told = Mapping[str, Any]
WIDTH = 76  # of a text that is shown


def lines(told: Told) -> Iterator[str]:
    at, base = told["at"], told["base"]
    if base["kind"] == "run":
        yield f"run {base['run_id'][:16]}… at token {at['token']}"
    else:
        yield f"message {at['message']} of {told['names'][at['side']]} at token {at['token']}"
    yield from next_lines(told["next"])
    yield ""
    yield from choice_lines(told)
    yield ""
    yield from branch_lines(told)
    yield from outcome_lines(told["outcomes"])
    yield from apart_lines(told)
    yield f"all of it is in {told['out']}: fork.json, tree.json, branches.jsonl"


def next_lines(found: Told) -> Iterator[str]:
    top = ", ".join(f"{quoted(spelling(each['bytes']))} {percent(each['logprob_nats'])}" for each in found["top"][:4])
    yield f"  next was, by the model: {top}; entropy {found['entropy_nats']:.3f} nats"


def choice_lines(told: Told) -> Iterator[str]:
    name = width(told)
    yield f"  {'choice':<{name}} {'ln p':>10} {'rank':>6} {'ln q':>10}  against the base's token"
    for each in told["choices"]:
        if is_absent(each["logprob_nats"]):
            yield f"  {shown(each):<{name}} {'':>10} {'':>6} {'':>10}  {'drawn' if each['how'] != 'undecided' else 'nothing is said'}"
            continue
        odds = each["odds_nats"]
        against = odds["absent"] if is_absent(odds) else f"1 : {_exp(-odds)}" if odds < 0 else f"{_exp(odds)} : 1"
        q = each["sampler_logprob_nats"]
        drawn = "none" if is_absent(q) else f"{q:.4f}"
        yield f"  {shown(each):<{name}} {each['logprob_nats']:10.4f} {each['rank']:6} {drawn:>10}  {against}"


def branch_lines(told: Told) -> Iterator[str]:
    name = width(told)
    yield f"  {'base':<{name}} {clipped(told['base_text'])}"
    forced = {each["choice"]: spelling(each["bytes"]) for each in told["choices"]}
    for each in told["branches"]:
        given = forced[each["choice"]]
        text = f"⟦{given}⟧{each['text'][len(given) :]}" if given and each["text"].startswith(given) else each["text"]
        ends = " ⟦end of turn⟧" if each["ended"] == "end of turn" and not each["text"] else " ∎" if each["ended"] == "end of turn" else " …"
        yield f"  {clipped_name(each['choice']):<{name}} {clipped(text)}{ends}"
        if "bundle" in each:
            yield f"  {'':<{name}} recorded in {each['bundle']}"
    yield ""


def outcome_lines(outcomes: Sequence[Told]) -> Iterator[str]:
    for outcome in dict.fromkeys(each["outcome"] for each in outcomes):
        yield f"  {outcome}:"
        for each in outcomes:
            if each["outcome"] == outcome:
                sure = f" of {each['of']}, 95 % interval {each['low']:.3f} to {each['high']:.3f}" if each["drawn"] else ", nothing of it is drawn"
                yield f"    {clipped_name(each['choice'])}: {each['times']}{sure}"
    if outcomes:
        yield ""


def apart_lines(told: Told) -> Iterator[str]:
    """Of the first sample of each choice"""
    first = [each for each in told["divergences"] if each["sample"] == 0]
    if not first:
        return
    name, offsets = width(told), sorted({each["offset"] for each in first})
    yield f"  KL from the base after as many tokens, in nats (· is below the noise floor of {max(each['floor_nats'] for each in first):.0e})"
    yield f"  {'after':<{name}} " + " ".join(f"{offset:>7}" for offset in offsets)
    for choice in dict.fromkeys(each["choice"] for each in first):
        own = {each["offset"]: each for each in first if each["choice"] == choice}
        yield f"  {clipped_name(choice):<{name}} " + " ".join(f"{number(own.get(offset)):>7}" for offset in offsets)
    yield ""


def number(each: Told | None) -> str:
    if each is None:
        return ""
    kl = each["kl_nats"]
    return "inf" if is_absent(kl) else f"{kl:.3f}" if each["is_above_floor"] else "·"


# ---- words


def shown(choice: Told) -> str:
    name = clipped_name(choice["choice"])
    return f"{name} = {quoted(spelling(choice['bytes']))}" if choice["how"] in ("id", "end", "least") else name


def width(told: Told) -> int:
    return max(12, *(len(shown(each)) for each in told["choices"]))


def clipped_name(name: str) -> str:
    return quoted(name) if len(name) <= 24 else quoted(name[:23] + "…")


def clipped(text: str) -> str:
    one = text.replace("\n", "⏎")
    return one if len(one) <= WIDTH else one[: WIDTH - 1] + "…"


def spelling(data: str) -> str:
    return b64decode(data).decode("utf-8", "backslashreplace")


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def percent(nats: float) -> str:
    from formation.exact64 import exp64

    p = exp64(nats)
    return f"{100 * p:.1f} %" if p >= 0.001 else f"{p:.1e}"


def _exp(nats: float) -> str:
    """As a number where it is short, as a power of ten where it is not"""
    from formation.exact64 import exp64

    return f"{exp64(nats):.2f}" if nats < 9 else f"10^{nats * 0.4342944819032518:.1f}"


def is_absent(value: Any) -> bool:
    return isinstance(value, dict) and "absent" in value
