"""Of tokens that were said: how probable each was where it stands, by the model and in the context that are here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from formation.dialogue import intervals
from formation.dialogue.claims.claim import FORCING, LOCAL_RUN, Finding, NotHere, Value
from formation.dialogue.claims.inventory import MESSAGE
from formation.dialogue.claims.procedure import MODEL, Case, Input, Procedure
from formation.ledger.zero import Kind

if TYPE_CHECKING:
    from formation.dialogue.claims.readings import Reading, Readings
    from formation.run.distributions import Distribution

KEPT = ("kl", "opening")  # which look at the first distribution of a message
ANSWERS = {Kind.POSITIVE: "positive", Kind.UNDERFLOW: "positive"}
UNKNOWN = (Kind.BELOW_REPORT, Kind.SENTINEL, Kind.NONFINITE)  # of which nothing follows


# ---- where


def spelling(case: Case) -> tuple[Readings, list[Reading], str]:
    """The tokens that spell the text where it stands, and which they are. Raises NotHere."""
    found, text, nth = case.models.readings(case.side), case.get("text"), case.get("occurrence", 1)
    spans = occurrences(case.text, text)
    if nth > len(spans):
        raise NotHere(f"message {case.message} has {text!r} {len(spans)} times, asked for was occurrence {nth}")
    begin, end = spans[nth - 1]
    own = [each for each in tokens_of(found, case.message) if each.begin < end and each.end > begin]
    if not own:
        raise NotHere(f"the tokens of message {case.message} spell bytes that are no text: nobody knows which of them is {text!r}")
    wider = ", which spell more than that" if own[0].begin < begin or own[-1].end > end else ""
    return found, own, f"{text!r} in message {case.message}, tokens {[each.id for each in own]}{wider}"


def told(value: Value, unit: str, found: Readings, detail: str, interval: tuple[float, float] | None = None, answer: Value | None = None) -> Finding:
    """Under which model, in which context, and what is not known beyond that"""
    return Finding(value, unit, found.scope, f"{found.under}: {detail}{found.beyond}", interval, answer)


def tokens_of(found: Readings, message: int) -> Sequence[Reading]:
    if message not in found.tokens:
        raise NotHere(f"message {message}: {found.missing}")
    return found.tokens[message]


def occurrences(body: str, text: str) -> list[tuple[int, int]]:
    """Bytes [begin, end) of each, none overlapping another"""
    data, wanted, spans, at = body.encode(), text.encode(), [], 0
    while (at := data.find(wanted, at)) >= 0:
        spans.append((at, at + len(wanted)))
        at += len(wanted)
    return spans


def logprob(own: Sequence[Reading]) -> float:
    """Of all of them, one after the other. Raises NotHere."""
    values = [each.logprob_nats for each in own]
    if not values or None in values:
        raise NotHere("a token of it has no log probability: it was put out, or not reported")
    return math.fsum(value for value in values if value is not None)


# ---- what


def probability(case: Case) -> Finding:
    found, own, where = spelling(case)
    nats = logprob(own)
    return told(nats, "nats", found, f"{where}; p = 10^{nats / math.log(10):.2f}")


def rank(case: Case) -> Finding:
    found, own, where = spelling(case)
    low, high = own[0].rank_low, own[0].rank_high
    if low is None or high is None:
        raise NotHere("its rank is not known: a server reports none")
    return told(low, "rank", found, f"{where}; of the first of them", (low, high) if low != high else None)


def zero(case: Case) -> Finding:
    """Of the first token that is not positive, if there is one"""
    found, own, where = spelling(case)
    kinds = [each.zero for each in own]
    shown = next((kind for kind in kinds if kind != Kind.POSITIVE), kinds[0])
    kind = shown.partition("(")[0]
    if not kind or kind in UNKNOWN:
        raise NotHere(f"nothing follows from {shown or 'a token without measurement'}: {where}")
    return told(shown, "kind of zero", found, f"{where}; in the model's own distribution, before any sampler", answer=ANSWERS.get(Kind(kind), "zero"))


def entropy(case: Case) -> Finding:
    found, own, where = spelling(case)
    nats = own[0].entropy_nats
    if nats is None:
        raise NotHere("the entropy is not known: a server reports none")
    return told(nats, "nats", found, f"{where}; of what could have come in place of the first")


def selection(case: Case) -> Finding:
    found, own, where = spelling(case)
    if own[0].method is None:
        raise NotHere("how a token was selected is in no transcript: give --event-log, the log of the dialogue")
    return told(own[0].method, "method", found, f"{where}; of the first of them")


def decode_steps(case: Case) -> Finding:
    found = case.models.readings(case.side)
    own = tokens_of(found, case.message)
    how = "one for each token of the log" if found.scope != FORCING else "one for each token of its own encoding of the text, its end too"
    return told(len(own), "steps", found, f"message {case.message}, {how}")


def slope(case: Case) -> Finding:
    """Least squares over the occurrences in the side's messages so far, with Student's interval of 95 %"""
    found, text, last = case.models.readings(case.side), case.get("text"), case.get("last", len(case.transcript.said))
    values = [
        logprob([each for each in own if each.begin < end and each.end > begin])
        for message, own in sorted(found.tokens.items()) if message <= last
        for begin, end in occurrences(case.transcript.said[message - 1][1].text, text)
    ]  # fmt: skip
    line = intervals.slope([[(float(number), value) for number, value in enumerate(values)]])
    if line.slope is None or line.low is None or line.high is None:
        raise NotHere(f"{text!r}: expected three occurrences that can be measured, got {len(values)}; {found.missing}")
    where = f"{len(values)} occurrences of {text!r}, from {values[0]:.3f} to {values[-1]:.3f} nats; they depend on each other"
    return told(line.slope, "nats per occurrence", found, where, (line.low, line.high))


def opening(case: Case) -> Finding:
    model, text = case.models.of(case.side), case.get("text")
    first = first_of(model.readings, case.message)
    ids = model.speaker.tokenizer.encode(text)
    where = f"{text!r} at the beginning of message {case.message}, the first of tokens {ids}"
    return told(float(first.scores[ids[0]]) - first.log_sum_exp, "nats", model.readings, where)


def first_of(found: Readings, message: int) -> Distribution:
    if message not in found.first:
        raise NotHere(f"message {message}: {found.missing}")
    return found.first[message]


def kl(case: Case) -> Finding:
    from formation.dialogue.divergence import divergence

    model = case.models.of(case.side)
    found, first = model.readings, first_of(model.readings, case.message)
    reference = f"{model.label} where nothing was said before"
    apart = divergence(first, model.prior, of=f"the first token of message {case.message}", reference=reference)
    where = f"{apart.of} from {reference}; at most {apart.most_nats:.4g}, noise up to {apart.floor_nats:.2g} nats"
    return told(apart.kl_nats, "nats", found, where)


NTH = Input("occurrence", "number", "which of its occurrences in the message (default: 1)")
AT = (Input("text", "text", "the text whose tokens are looked at", True), MESSAGE, NTH)
LAST = Input("last", "number", "the last message looked at (default: all)")
OF = Input("of", "name", "the side whose messages they are (default: who said the claim)")
PROCEDURES = (
    Procedure("probability", "ln p of a text where it was said", FORCING, MODEL, AT, probability),
    Procedure("rank", "rank of the first token of a text where it was said", FORCING, MODEL, AT, rank),
    Procedure("zero", "has a text where it was said no probability, and of which kind", FORCING, MODEL, AT, zero),
    Procedure("entropy", "entropy where a text was said", FORCING, MODEL, AT, entropy),
    Procedure("opening", "ln p that a message begins with the first token of a text, whatever it begins with", FORCING, MODEL, AT[:2], opening),
    Procedure("selection", "how a text was selected where it was said: sample, greedy, forced", LOCAL_RUN, MODEL, AT, selection),
    Procedure("decode_steps", "how many steps a message took", FORCING, MODEL, (MESSAGE,), decode_steps),
    Procedure("slope", "does a text become more probable each time it is said", FORCING, MODEL, (AT[0], OF, LAST), slope),
    Procedure("kl", "how far the first token of a message is from the same model without the dialogue", FORCING, MODEL, (MESSAGE,), kl),
)  # fmt: skip
