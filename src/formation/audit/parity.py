"""Capture did not perturb the run: repeated without it, in fresh processes, it gives the same logits, cache entries and states of delta layers.

    replay   one pass without capture, cache or steps over all ids: it reads the weights once, not once a token
    full     the run from its anchor four times, step by step: without capture, with it, without, with

Logits and cache entries exist without any tap, so a difference is localised to a step or a layer. A run with capture must give the same ledger.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from formation.errors import EnvironmentFault, ParityBroken
from formation.ledger import canonical, departure, lines, reader
from formation.run.child import ask
from formation.run.generate import Engine
from formation.run.order import Order

METHODS = ("replay", "full", "none")
HINT = "capture changed the run, or the checkpoint changed during it"


@dataclass(frozen=True)
class Place:
    """Where a run is repeated: this checkpoint, with these mirrors, under this budget."""

    checkpoint: str
    mirrors: tuple[str, ...]
    memory: int
    threads: int

    @classmethod
    def of(cls, engine: Engine) -> Place:
        checkpoint = engine.checkpoint
        return cls(str(checkpoint.path), tuple(map(str, checkpoint.mirrors)), engine.budget, engine.threads)


def by_replay(runs: Sequence[tuple[Path, Order, Sequence[int]]], place: Place) -> list[dict[str, Any]]:
    """What each parity.json says, of runs (folder, order, tokens) that are repeated in one pass together. Raises ParityBroken, which names the first
    step or cell that differs, and EnvironmentFault."""
    steps = [list(islice(order.steps, len(ids))) for _, order, ids in runs]
    texts = [{"ids": [*order.prompt_ids, *(() if order.scores else ids)], "steps": own} for (_, order, ids), own in zip(runs, steps, strict=True)]
    found = in_fresh_process("formation.run.replay", asdict(place) | {"texts": texts})
    compared = [compare(reader.lines(out), repeated, own) for (out, _, _), repeated, own in zip(runs, found, steps, strict=True)]
    return [{"parity": "passed", "method": "replay", **counts} for counts in compared]


def in_full(out: Path, order: Order, place: Place, again: Callable[[], Path]) -> dict[str, Any]:
    """As `by_replay`, with one entry in "runs" for each repetition. `again` records into another folder, with capture, and says where."""
    runs: list[dict[str, Any]] = []
    for _ in range(2):
        found = in_fresh_process("formation.audit.stepwise", asdict(place) | {"bundle": str(out)})
        runs.append({"capture": "off", **compare(reader.lines(out), found, list(order.steps))})
        runs.append({"capture": "on", **compare_ledgers(out, again())})
    return {"parity": "passed", "method": "full", "runs": runs}


def in_fresh_process(module: str, asked: Mapping[str, Any]) -> Any:
    """What `python -m module` answers in JSON. Raises EnvironmentFault with the end of what it said if it fails."""
    done = ask(module, asked)
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2][-300:]
        raise EnvironmentFault(f"parity: expected {module} to end, got exit code {done.returncode}: {said}", hint="record --resume tries again")
    return json.loads(done.stdout)


def compare(recorded: Iterable[bytes], repeated: Mapping[str, Any], steps: Sequence[int]) -> dict[str, int]:
    """How many logits and cache entries (and tokens, where there are any) were compared, all equal. `steps` are their positions.
    Raises ParityBroken, which names the first that is not."""
    counts = {"logits_compared": 0, "cache_entries_compared": 0} | ({"tokens_compared": 0} if "ids" in repeated else {})
    numbers = {position: number for number, position in enumerate(steps)}
    for data in recorded:
        line = canonical.decode(data, limits=canonical.LINE)
        name, counter, values = repetition_of(line, repeated, numbers)
        if not name:
            continue
        if line["measured"][name] != values:
            raise ParityBroken(
                f"parity: expected {name} {values} in {line['slot']} at position {line['position']}, as without capture, "
                f"got {line['measured'][name]}", hint=HINT,
            )  # fmt: skip
        counts[counter] += 1
    if counts["logits_compared"] != len(repeated["logits"]):
        raise ParityBroken(f"parity: expected {len(repeated['logits'])} steps, as without capture, got {counts['logits_compared']}", hint=HINT)
    return counts


def repetition_of(line: lines.Line, repeated: Mapping[str, Any], numbers: Mapping[int, int]) -> tuple[str, str, Any]:
    """The field of the line that a repetition gives too, what it counts as, and the value there; an empty name if there is none"""
    layer, position = lines.layer_of(line["slot"]), line["position"]
    if layer >= 0:
        keeps = "cache_entry_sha256" if isinstance(line["measured"]["cache_entry_sha256"], str) else "delta_state_sha256"
        return keeps, "cache_entries_compared", item(item(repeated["cache"], layer), position)
    if line["slot"] == "lm_head":
        return "logits_sha256", "logits_compared", item(repeated["logits"], numbers.get(position))
    if line["slot"] == "token" and "ids" in repeated:
        return "id", "tokens_compared", item(repeated["ids"], numbers.get(position))
    return "", "", None


def item(values: Any, index: int | None) -> Any:
    """None beyond the end: a repetition that stopped early differs there"""
    return values[index] if values is not None and index is not None and index < len(values) else None


def compare_ledgers(out: Path, again: Path) -> dict[str, Any]:
    """The root of both ledgers. Raises ParityBroken, which names the first field that differs."""
    found = departure.first_departure(reader.lines(out), reader.lines(again))
    if found:
        raise ParityBroken(f"parity: the run repeated with capture departs in {found}", hint=HINT)
    end = reader.survey(again).readable
    return {"lines_compared": end.lines, "root": end.root.hex()}
