"""The second half of a note: under which arithmetic, what was compared and checked, what others found, what it does not prove."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from formation.evidence.audited import Audited
from formation.evidence.certification import Certified
from formation.evidence.checks import CERTIFIED, CHECKS, LEVELS, REPLAY, WEIGHTS
from formation.evidence.report import NOT_CLAIMED
from formation.note.blocks import Column, Mono, Section, Value
from formation.note.material import Later, Material
from formation.note.words import number, shown
from formation.version import __version__

WHERE = re.compile(r"(\w+) in ([\w ]+) at position (\d+)")
CONTRACT = (
    "Under this numerics contract every sum has one order and every operation its own rounding, so that a run has the same bits on any machine, at "
    "any number of threads, alone or in a batch. Its name and the digest of its golden vectors:"
)


def closing(m: Material) -> list[Section]:
    return [execution(m), rules(m), verdict(m), verdicts_of_others(m), limits(m), yourself(m)]


def execution(m: Material) -> Section:
    anchor = m.bundle.anchor
    named: list[tuple[str, Value, str]] = [
        ("contract", anchor.contract, "anchor.json/contract/name"), ("vectors", Mono(anchor.contract_digest), "anchor.json/contract/digest"),
    ]  # fmt: skip
    return Section("Execution contract and parity").text(CONTRACT).facts([*named, *parity(m.document("parity.json"))])


def parity(said: Any) -> Iterator[tuple[str, Value, str]]:
    """Its form was verified"""
    if said["parity"] == NOT_CLAIMED:
        yield "parity", "not claimed: no run without capture was made", "parity.json"
        return
    full = said["method"] == "full"
    off = said["runs"][0] if full else said
    how = "four runs in processes of their own, without and with capture" if full else "a second run without capture, in another process"
    yield "parity", f"{said['parity']}: {how}, gave the same bits, as the signer attests", "parity.json/method"
    yield "compared", f"{number(off['logits_compared'])} rows of all logits", "parity.json/logits_compared"
    yield "", f"{number(off['cache_entries_compared'])} cache entries, one for each position and layer", "parity.json/cache_entries_compared"


# ---- sum rules


def rules(m: Material) -> Section:
    columns = (
        Column("check"), Column("what holds", share=5), Column("checked", right=True), Column("worst gap", right=True),
        Column("tolerance", right=True), Column("where", share=4),
    )  # fmt: skip
    rows = [row for check in CHECKS if check.name in m.rules for row in rule_row(m, check.id, check.name, check.says)]
    return Section("Sum rules").table(columns, rows).text(
        "Recomputed from the ledger when this note was made. The worst gap is that of all things checked; 0 means equal to the last bit. Closure of "
        "a sum proves the book-keeping, not its parts: an audit proves the parts."
    )  # fmt: skip


def rule_row(m: Material, number_of: str, name: str, says: str) -> Iterator[tuple[Value, ...]]:
    result = m.rules[name]
    if not result.checked:
        yield f"{number_of} {name}", says, "0", "–", "–", "nothing to check"
        return
    tolerance = number(result.tolerance, 2) if result.tolerance else "0"
    yield f"{number_of} {name}", says, number(result.checked), number(result.worst_gap, 2), tolerance, place(result.where) if result.worst_gap else ""


def place(where: str) -> Value:
    """As a reference, where it names one"""
    found = WHERE.fullmatch(where)
    return Mono(f"{found[3]}/{found[2]}/{found[1]}") if found else shown(where, 80)


# ---- verdicts


def verdict(m: Material) -> Section:
    levels = m.report.levels()
    rows = [(level, levels[level], meaning_of(m, level, meaning)) for level, meaning in LEVELS.items()]
    made = sum(outcome.state == "passed" for outcome in m.report.outcomes)
    return Section("Verification").table((Column("level"), Column("state"), Column("means", share=1)), rows).text(
        f"{made} of {len(m.report.outcomes)} checks passed, none failed; the others had nothing to hold against. Whose key it is that signed, no "
        "bundle can say: this note was made without knowing any key, so SIGNER is for you to decide."
    )  # fmt: skip


def meaning_of(m: Material, level: str, meaning: str) -> str:
    """With what the report says of this bundle"""
    said = {WEIGHTS: m.head.weights} | {level: m.report.notes.get(level, "") for level in (REPLAY, CERTIFIED)}
    return f"{meaning} ({said[level]})" if said.get(level) else meaning


def verdicts_of_others(m: Material) -> Section:
    section = Section("Audit and certification")
    none: Value = "not claimed: none is attached to this bundle"
    rows = list(audit(m.audit, m)) if m.audit else [("audit", none, "audit.json")]
    rows += certified(m.certification, m) if m.certification else [("certification", none, "certification.json")]
    return section.facts(rows)


def audit(made: Later[Audited], m: Material) -> Iterator[tuple[str, Value, str]]:
    challenge = made.result["challenge"]
    yield "audit", f"{made.outcome}, signed by {whose(made.signer, m)}", "audit.json"
    yield "auditor", Mono(made.signer), "audit.json"
    yield "executed again", str(made.said), "audit.json/result/executed"
    yield "differences", number(made.said.differences), "audit.json/result/difference_count"
    yield "challenge", challenge["mode"], "audit.json/result/challenge/mode"
    if challenge["seed"] is not None:
        yield "drawn from", Mono(shown(challenge["seed"], 80)), "audit.json/result/challenge/seed"
    yield "prompt", Mono(shown(made.result["prompt"], 200)), "audit.json/result/prompt"


def certified(made: Later[Certified], m: Material) -> Iterator[tuple[str, Value, str]]:
    yield "certification", f"{made.outcome}, signed by {whose(made.signer, m)}", "certification.json"
    yield "certifier", Mono(made.signer), "certification.json"
    yield "attacks", str(made.said), "certification.json/result"


def whose(signer: str, m: Material) -> str:
    return "the key that sealed the bundle" if signer == m.head.signer else "another key"


# ---- limits, and how to verify


def limits(m: Material) -> Section:
    return Section("Limits of the claim").text(
        f"{m.report.honesty[0].upper()}{m.report.honesty[1:]}.",
        "Attribution is the direct path only: what a component did through later layers is not in it. A lens reads a row as if it were the last one. "
        "What the machine was, and what it read, is the operator's word; parity is the signer's.",
    )


def yourself(m: Material) -> Section:
    whole = [
        (f"formation verify run.ofb --signer {m.head.public_key}", "all checks, without weights"),
        ("formation audit run.ofb --checkpoint FOLDER --full", "executes all of it again, with the weights"),
        ("formation record FOLDER --anchor run.ofb --out again.ofb", "runs it again, compares the ledgers"),
        (f"formation receipt run.ofb --token {m.formation.token.token} --layer 0", "proves one line"),
        ("formation verify --page verify.html", "the same checks in a browser, offline"),
        (f"formation note run.ofb{token_option(m)} --out note.pdf", f"this note again (formation {__version__})"),
    ]
    return Section("How to verify it yourself").commands(whole)


def token_option(m: Material) -> str:
    token = m.formation.token.token
    return f" --token {token}" if token != 1 else ""
