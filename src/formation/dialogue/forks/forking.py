"""A fork, from the choices to the tables.

out/branches.jsonl   what was asked for, then a line for each branch, with every token and all that is measured of it (log.py)
out/tree.json        the tokens of all branches as one tree
out/fork.json        the tables: choices with their prior odds, branches, outcomes with intervals, divergences; written last
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from formation.dialogue.forks import log, outcomes, tree
from formation.dialogue.forks.apart import OFFSETS, Reference, first_apart
from formation.dialogue.forks.choices import Asked, Chosen, resolve
from formation.dialogue.forks.source import Draws, Formed, Source, plan_draws
from formation.dialogue.side import CONTEXT, END_OF_TURN, MOST_TOKENS
from formation.errors import EvidenceError, UsageError
from formation.evidence.seal import ATTESTATION
from formation.exact64 import exp64
from formation.kernels.tensor import F32
from formation.ledger import canonical, files
from formation.ledger.fields import absent
from formation.ledger.formulas import LN2
from formation.run.distributions import of_logits
from formation.run.order import settings_of
from formation.run.sample import Sample
from formation.version import __version__

FORMAT = "formation-fork/1"
TREE, SUMMARY = "tree.json", "fork.json"
TOPS = 8
MOST_SAMPLES = 10000
NOTHING_FORCED, NO_BASE, NO_ODDS = "nothing is forced", "the base has no token there", "no probability"
Line = dict[str, Any]
BRANCH: log.Shape = {
    "choice": int, "sample": int, "seed": str, "branch": str, "ended": str, "text": str, "tokens": [log.TOKEN], "apart": [dict], "bundle?": str,
    "run_id?": str, "root?": str,
}  # fmt: skip
Watch = Callable[[str, int, Formed], None]  # a choice, the number of its sample, a token


@dataclass(frozen=True)
class Ask:
    """How a fork is to be made. `offsets`: after so many tokens branches are held against the base; `markers`: texts that are looked for."""

    choices: tuple[Asked, ...]
    samples: int = 1
    tokens: int = 32
    own_draws: bool = False
    offsets: int = OFFSETS
    markers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        limits = (("samples", self.samples, 1, MOST_SAMPLES), ("tokens", self.tokens, 1, tree.DEEPEST), ("offsets", self.offsets, 0, tree.DEEPEST))
        for name, got, least, most in limits:
            if not least <= got <= most:
                raise UsageError(f"{name}: expected {least} to {most}, got {got}")
        if not all(self.markers):
            raise UsageError("marker: expected a text, got an empty one")


@dataclass(frozen=True)
class Plan:
    """What is asked of this source, in ids"""

    chosen: tuple[Chosen, ...]
    draws: tuple[Draws, ...]
    most: int
    head: dict[str, Any]


def fork(source: Source, ask: Ask, out: Path, watch: Watch | None = None) -> dict[str, Any]:
    """The content of fork.json. Goes on where the same fork was cut off. Raises UsageError for choices that cannot stand there, EvidenceError for a
    source that does not come out as it is recorded, and for an `out` that holds another fork; EnvironmentFault."""
    plan = planned(source, ask)
    with log.opened(out, done=SUMMARY) as branches:
        branches.lead(plan.head)
        grow_missing(source, ask, plan, branches, watch)
        lines = branches.found[1:]
        made, leaves = planted(source, plan, lines)
        files.write_whole(out / TREE, encoded(tree.document(made, source.base.at, plan.head["next"])))
        summary = summary_of(source, ask, plan, lines, leaves)
        files.write_whole(out / SUMMARY, encoded(summary))
    return summary


def planned(source: Source, ask: Ask) -> Plan:
    most, root = min(ask.tokens, source.room), source.root()
    if not most:
        raise UsageError("fork: expected room in the model's context, got none behind this place")
    chosen = tuple(resolve(each, source, root) for each in ask.choices)
    for each in chosen:
        if len(each.ids) > most or set(each.ids[:-1]) & set(source.stop):
            got = f"{len(each.ids)} of {each.name[:40]!r}"
            raise UsageError(f"choice: expected at most {most} tokens, of which only the last may end the turn, got {got}")
    if twice := next((each for place, each in enumerate(chosen) if each.ids and each.ids in [one.ids for one in chosen[:place]]), None):
        raise UsageError(f"choices: expected different tokens, got {twice.name[:40]!r} with the ids of another")
    draws = tuple(plan_draws(source.chain, chosen, ask.samples, own=ask.own_draws, fixed=lambda each: is_fixed(source, each, most)))
    base = source.base
    head = {
        "format": FORMAT, "formation": __version__, "base": base.document, "names": list(base.names), "at": base.at,
        "sampler": settings_of(source.chain.sampler), "samples": ask.samples, "tokens": ask.tokens, "own_draws": ask.own_draws,
        "offsets": ask.offsets, "choices": [choice_document(source, each) for each in chosen], "next": next_tokens(source, root),
    }  # fmt: skip
    return Plan(chosen, draws, most, head)


def is_fixed(source: Source, chosen: Chosen, most: int) -> bool:
    """Whether its tokens are all given"""
    return bool(chosen.ids) and (len(chosen.ids) == most or chosen.ids[-1] in source.stop)


def choice_document(source: Source, chosen: Chosen) -> dict[str, Any]:
    given = b64encode(source.tokenizer.decode_bytes(chosen.ids)).decode()
    seed = absent("none") if chosen.seed is None else str(chosen.seed)
    return {"choice": chosen.name, "how": chosen.how, "ids": list(chosen.ids), "bytes": given, "seed": seed}


def next_tokens(source: Source, logits: F32) -> dict[str, Any]:
    """The model's distribution, by its most likely tokens"""
    found = of_logits("model", logits, np.zeros(len(logits), np.uint8), (), 1)
    best = np.argsort(-logits, kind="stable")[:TOPS]
    top = [{"id": int(i), "bytes": spelt(source, int(i)), "logprob_nats": found.logprob_nats(int(i))} for i in best]
    return {"entropy_nats": found.entropy_nats, "top": top}


def spelt(source: Source, token: int) -> str:
    return b64encode(source.tokenizer.token_bytes(token)).decode()


# ---- the branches


def grow_missing(source: Source, ask: Ask, plan: Plan, branches: log.BranchLog, watch: Watch | None) -> None:
    for number, (draws, line) in enumerate(zip(plan.draws, branches.found[1:], strict=False), 1):
        log.check_line(branches.path, number, line, BRANCH)
        if "bundle" in line and not (branches.path.parent / line["bundle"] / ATTESTATION).is_file():
            raise EvidenceError(f"{branches.path}: expected the bundle {canonical.quoted(line['bundle'])} beside it, got none")
        if (line.get("choice"), line.get("sample")) != (draws.place, draws.sample):
            raise EvidenceError(f"{branches.path}: expected sample {draws.sample} of choice {draws.place}, got another branch in its place")
    missing = plan.draws[len(branches.found) - 1 :]
    if len(branches.found) - 1 > len(plan.draws):
        raise EvidenceError(f"{branches.path}: expected {len(plan.draws)} branches, got {len(branches.found) - 1}")
    reference = Reference(ask.offsets)
    if missing and source.base.tokens:
        source.follow(min(len(source.base.tokens), ask.offsets + 1), reference.hear)
    size = source.together(plan.most)
    for first in range(0, len(missing), size):
        for line in grown(source, ask, plan, missing[first : first + size], reference, watch):
            branches.append(line)


def grown(source: Source, ask: Ask, plan: Plan, draws: Sequence[Draws], reference: Reference, watch: Watch | None) -> list[Line]:
    """The lines of some branches, which grow together"""
    tokens: list[list[Formed]] = [[] for _ in draws]
    apart: list[list[dict[str, Any]]] = [[] for _ in draws]
    chosen = [plan.chosen[each.place] for each in draws]

    def hear(number: int, formed: Formed, logits: F32) -> None:
        own, sample = tokens[number], draws[number].sample
        if found := reference.apart(f"{chosen[number].name} (sample {sample})", len(own), logits):
            apart[number].append(found)
        own.append(formed)
        if watch:
            watch(chosen[number].name, sample, formed)

    beside = source.grow([(one, each.of(source.chain)) for one, each in zip(chosen, draws, strict=True)], plan.most, hear)
    rows = zip(draws, tokens, apart, beside, strict=True)
    return [{**line_of(source, ask, each, said), "apart": far, **more} for each, said, far, more in rows]


def line_of(source: Source, ask: Ask, draws: Draws, tokens: Sequence[Formed]) -> Line:
    ended = END_OF_TURN if tokens[-1].id in source.stop else MOST_TOKENS if len(tokens) == ask.tokens else CONTEXT
    return {
        "choice": draws.place, "sample": draws.sample, "seed": str(draws.seed), "branch": str(draws.branch), "ended": ended,
        "text": text_of(source, tokens), "tokens": [each.document() for each in tokens],
    }  # fmt: skip


def text_of(source: Source, tokens: Sequence[Formed]) -> str:
    """From the fork on, without what ends the turn"""
    said = tokens[:-1] if tokens and tokens[-1].id in source.stop else tokens
    return b"".join(each.spelt for each in said).decode("utf-8", "replace")


# ---- what came of them


def planted(source: Source, plan: Plan, lines: Sequence[Line]) -> tuple[tree.Tree, list[int]]:
    """The base first, then the branches in their order; and the leaf of each branch"""
    undecided: list[list[Formed | None]] = [[None]] if not all(each.grows for each in plan.chosen) else []
    root = tree.planted(source.base.token)
    found, leaves = root.with_branches([source.base.tokens[: plan.most], *map(tokens_of, lines), *undecided])
    return found, leaves[1 : len(lines) + 1]


def tokens_of(line: Mapping[str, Any]) -> list[Formed]:
    return [Formed(token["id"], token["bytes"], token["kind"], token["measured"]) for token in line["tokens"]]


def summary_of(source: Source, ask: Ask, plan: Plan, lines: Sequence[Line], leaves: Sequence[int]) -> dict[str, Any]:
    base = source.base.tokens[: plan.most]
    text = text_of(source, base)
    names = [each.name for each in plan.chosen]
    drawn = [isinstance(source.chain.sampler, Sample) and not is_fixed(source, each, plan.most) for each in plan.chosen]
    counted = outcomes.table(outcomes.outcomes_of(ask.markers), names, drawn, lines, text)
    return plan.head | {
        "base_text": text, "base_tokens": len(base), "base_ended": source.base.ended,
        "choices": [prior(source, each, place, lines, base) for place, each in enumerate(plan.chosen)],
        "branches": [branch_row(line, leaf, names, base) for line, leaf in zip(lines, leaves, strict=True)],
        "outcomes": list(counted),
        "divergences": [{"choice": names[line["choice"]], "sample": line["sample"], **each} for line in lines for each in line["apart"]],
    }  # fmt: skip


def prior(source: Source, chosen: Chosen, place: int, lines: Sequence[Line], base: Sequence[Formed]) -> dict[str, Any]:
    """How probable the forced tokens of a choice were, one after the other, and against the base's own token"""
    own = next((tokens_of(line)[: len(chosen.ids)] for line in lines if line["choice"] == place), [])
    document = choice_document(source, chosen)
    if not own:
        reason = absent(NOTHING_FORCED)
        return document | {"logprob_nats": reason, "surprisal_bits": reason, "sampler_logprob_nats": reason, "rank": reason, "odds_nats": reason}
    nats = -tree.surprisal_nats(own)
    drawn = [tree.view(each.measured, "sampler")["logprob_nats"] for each in own]
    odds = nats + tree.surprisal_nats(base[:1]) if base else None
    return document | {
        "logprob_nats": nats, "surprisal_bits": -nats / LN2, "rank": tree.view(own[0].measured, "model")["rank_low"],
        "sampler_logprob_nats": sum(drawn) if all(isinstance(each, int | float) for each in drawn) else absent(NO_ODDS),
        "odds_nats": absent(NO_BASE) if odds is None else odds, "probability": exp64(nats),
    }  # fmt: skip


def branch_row(line: Line, leaf: int, names: Sequence[str], base: Sequence[Formed]) -> dict[str, Any]:
    tokens = tokens_of(line)
    apart = first_apart([each.id for each in tokens], [each.id for each in base])
    kept = {name: value for name, value in line.items() if name not in ("choice", "tokens", "apart")}
    return kept | {
        "choice": names[line["choice"]], "tokens": len(tokens), "surprisal_nats": tree.surprisal_nats(tokens), "leaf": leaf,
        "first_apart": absent("nowhere") if apart is None else apart,
    }  # fmt: skip


def encoded(value: Mapping[str, Any]) -> bytes:
    """Keys in order, numbers in full: the same bytes for the same value. The nesting of a tree is beyond canonical JSON's limits."""
    return (json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n").encode()
