"""Attacks on runs whose tokens are given: which ids are scored, in whose name they were chosen, and what a step may call itself."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

from formation.certify.attack import KEY, RECORDER, Group, NotApplicable
from formation.certify.forgery import LEDGER, Forgery
from formation.evidence import note
from formation.ledger import canonical, merkle
from formation.ledger.anchor import FORCED

GROUP = Group("scored")
attack = GROUP.attack
SAMPLING = {"method": "sample", "temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0, "seed": "1", "branch": "0"}


def spans(f: Forgery) -> list[list[int]]:
    """Of the ids that are scored. Raises NotApplicable."""
    if not f.scene.frozen.scores:
        raise NotApplicable("the run scores nothing")
    return [list(span) for span in f.scene.frozen.sampler["scored"]]


def with_spans(f: Forgery, found: list[list[int]], **stop: Any) -> None:
    """Another anchor, and all that counts its steps"""
    steps = [place - 1 for begin, end in found for place in range(begin, end)]
    lines = [canonical.decode(line, limits=canonical.LINE) for line in f.files["io.jsonl"].split(b"\n")[:-1]]
    f.files["io.jsonl"] = b"".join(canonical.encode(line | {"position": at}) + b"\n" for line, at in zip(lines, steps, strict=False))
    run_of(f, lambda a: (a["sampler"].update(scored=found), a["stop"].update({"tokens": len(steps)} | stop)))


def run_of(f: Forgery, change: Callable[[Any], object]) -> None:
    """Another anchor, and its name in every line and under every signature, also where no reader takes it for an anchor"""
    f.edit("anchor.json", change)
    run_id = sha256(f.files["anchor.json"]).hexdigest()
    f.files[LEDGER] = f.files[LEDGER].replace(f.scene.frozen.run_id.encode(), run_id.encode())
    leaves = list(map(merkle.leaf_hash, f.lines))
    f.seal(head=note.head_of(run_id, len(leaves), merkle.root_of(leaves)), run_id=run_id)


# ---- which ids


@attack(RECORDER, "sampler")
def another_id_is_said_to_be_scored(f: Forgery) -> None:
    """the last of the given ids is another one in the anchor: what was scored is said to be what somebody else said"""
    spans(f)
    size = f.scene.run.shape.vocabulary
    f.set_anchor(lambda a: a["prompt"]["ids"].__setitem__(-1, (a["prompt"]["ids"][-1] + 1) % size))
    f.seal()


@attack(RECORDER, "census")
def stretch_moved(f: Forgery) -> None:
    """a stretch of scored ids begins and ends one id sooner: as many are scored, others"""
    found = spans(f)
    begin, end = found[0]
    if begin < 2 or len(found) < 2:
        raise NotApplicable("there is one stretch, or no id before it that has one before")
    with_spans(f, [[begin - 1, end - 1], *found[1:]])


@attack(RECORDER, "census")
def stretch_longer(f: Forgery) -> None:
    """one more id before a stretch is said to be scored"""
    (begin, end), *others = spans(f)
    if begin < 2:
        raise NotApplicable("no id before the stretch has one before")
    with_spans(f, [[begin - 1, end], *others])


@attack(RECORDER, "anchor")
def stretches_that_touch(f: Forgery) -> None:
    """one stretch is written as two, so that a run has two names"""
    *others, (begin, end) = spans(f)
    if end - begin < 2:
        raise NotApplicable("the last stretch is a single id")
    with_spans(f, [*others, [begin, end - 1], [end - 1, end]])


@attack(RECORDER, "anchor")
def ids_behind_the_last_that_is_scored(f: Forgery) -> None:
    """ids stand in the anchor that no position of the run reads"""
    spans(f)
    run_of(f, lambda a: a["prompt"]["ids"].append(a["prompt"]["ids"][0]))


@attack(RECORDER, "anchor")
def stop_ids_of_a_run_that_scores(f: Forgery) -> None:
    """the anchor says that an id ends the run, which ends with its last id"""
    with_spans(f, spans(f), ids=[0])


# ---- how they came


@attack(RECORDER, "sampler")
def given_tokens_said_to_be_sampled(f: Forgery) -> None:
    """ids that were only given are said to be what a sampler chose"""
    found = spans(f)
    if f.scene.frozen.sampler["method"] != FORCED:
        raise NotApplicable("a sampler chose the tokens")
    f.set_anchor(lambda a: a.update(sampler=SAMPLING | {"scored": found}))
    f.seal()


@attack(RECORDER, "sampler")
def sampled_tokens_said_to_be_given(f: Forgery) -> None:
    """what a sampler chose is said to be given"""
    found = spans(f)
    if f.scene.frozen.sampler["method"] == FORCED:
        raise NotApplicable("no sampler chose the tokens")
    f.set_anchor(lambda a: a.update(sampler={"method": FORCED, "scored": found}))
    f.seal()


@attack(KEY, "census")
def scored_step_that_claims_to_be_generated(f: Forgery) -> None:
    """all lines of the last step say that the run generated it"""
    spans(f)
    position = f.scene.steps[-1]
    f.put(*({**line, "kind": "generated"} for line in f.step(position).values()))
    f.seal()


@attack(KEY, "census")
def scored_steps_lines_without_its_choice(f: Forgery) -> None:
    """a scored position between others is said to be the prompt's: its lines of head, sampler and token are not there"""
    spans(f)
    position = f.scene.steps[0]
    dropped = {f.index(position, slot) for slot in ("lm_head", "sampler", "token")}
    f.lines = [line for number, line in enumerate(f.lines) if number not in dropped]
    f.seal()
