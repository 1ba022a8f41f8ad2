"""What a run does, seen in a short one that is made here: of this checkpoint on this machine, and of no other run."""

from __future__ import annotations

from formation.dialogue.claims.claim import ELSEWHERE, LOCAL_RUN, Finding
from formation.dialogue.claims.inventory import MESSAGE, OF, model_of
from formation.dialogue.claims.procedure import MODEL, Case, Procedure


def here(case: Case, what: str) -> str:
    from formation.dialogue.claims.trial import TOKENS

    return f"under {model_of(case).label}, in a run of {TOKENS} tokens here: {what}; {ELSEWHERE}"


def changed_weights(case: Case) -> Finding:
    tensors, changed = model_of(case).trial.changed_weights
    names = f": {', '.join(changed[:3])}" if changed else ""
    caveat = f"{tensors} tensors by SHA-256 before and after, and which appeared or went{names}"
    return Finding(len(changed), "tensors changed", LOCAL_RUN, here(case, caveat))


def unlogged_passes(case: Case) -> Finding:
    passes, lines = model_of(case).trial.passes_and_lines
    return Finding(passes - lines, "passes without a line", LOCAL_RUN, here(case, f"{passes} passes through the model, {lines} tokens in the ledger"))


def uncommitted_positions(case: Case) -> Finding:
    held, committed = model_of(case).trial.cached_and_committed
    most = max(abs(each - committed) for each in held)
    caveat = f"{len(held)} layers, the cache of each against the {committed} ids that were computed"
    return Finding(most, "positions", LOCAL_RUN, here(case, caveat))


def goes_back(case: Case) -> Finding:
    compared, same = model_of(case).trial.goes_back
    caveat = f"{compared} rows of logits, bit for bit: first, again after the cache had gone another way, and from nothing"
    return Finding(same, "", LOCAL_RUN, here(case, caveat))


PROCEDURES = (
    Procedure("changed_weights", "how many tensors a run changes", LOCAL_RUN, MODEL, (OF, MESSAGE), changed_weights),
    Procedure("unlogged_passes", "how many passes of a recorded run its ledger lacks", LOCAL_RUN, MODEL, (OF, MESSAGE), unlogged_passes),
    Procedure("uncommitted_positions", "how many positions a cache holds beside those computed", LOCAL_RUN, MODEL, (OF, MESSAGE),
              uncommitted_positions),
    Procedure("goes_back", "does a run that is taken back give the same bits", LOCAL_RUN, MODEL, (OF, MESSAGE), goes_back),
)  # fmt: skip
