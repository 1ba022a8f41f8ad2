"""Results of audits and certifications for the readers of both languages: valid ones, and mutants, place by place."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from formation.evidence import audited, certification

POSITIONS, LAYERS, STEPS = 5, 4, 3
RUN = {"positions": POSITIONS, "layers": LAYERS, "steps": STEPS}
STRANGE: tuple[Any, ...] = (None, True, -1, 0, 1, 2, 2**53 - 1, 0.5, "", "é", "0A", [], [0], {}, {"cells": 1})
DIFFERENCE = {"position": -1, "slot": "run", "field": "prompt", "expected": "a", "got": "b"}
POINT = {"edited": 1, "of": LAYERS, "probability": 0.25, "for_99": 4}


def of_mode(mode: str) -> dict[str, Any]:
    """A passed audit: cells (0, 0) and (3, 2), column 2, or all"""
    result = audited.example(POSITIONS, LAYERS, STEPS)
    drawn = mode in (audited.PROFILE, audited.CELLS)
    columns = {audited.CELLS: [], audited.FULL: list(range(LAYERS))}.get(mode, [2])
    result["challenge"] |= {"mode": mode, "columns": columns, "cells": [[0, 0], [3, 2]] if drawn else []}
    if not drawn:
        result["challenge"] |= {"seed": None, "seed_source": None}
    result["executed"]["cells"] = {audited.PROFILE: POSITIONS + 1, audited.CELLS: 2, audited.COLUMN: POSITIONS, audited.FULL: 20}[mode]
    result["curve"]["cells"] = [] if mode == audited.COLUMN else result["curve"]["cells"]
    result["curve"]["columns"] = [POINT] if mode == audited.PROFILE else []
    result["weights"]["tensors"].append({"name": "b.weight", "sha256": "cd" * 32})
    return result


def failed() -> dict[str, Any]:
    """An audit that ended at the checkpoint's identity"""
    result = of_mode(audited.COLUMN)
    result["executed"] |= {"cells": 0, "tokens": 0, "values": 4, "rows_opened": 0}
    return result | {"differences": [DIFFERENCE], "difference_count": 1}


def certified() -> dict[str, Any]:
    """With an attack of each state but `got through`, and a mutation that only the weights can tell"""
    result = copy.deepcopy(dict(certification.EXAMPLE))
    (attack,) = result["attacks"]
    for state in (certification.NOT_APPLICABLE, certification.NOT_RUN):
        result["attacks"].append({**attack, "name": state, "observed": "why", "state": state})
    result["mutations"] |= {"count": 2, "signed": 1, "untold": {"layer.residual_norm": 1}}
    return result


def mutants(value: Any) -> Iterator[Any]:
    """Each place of `value`, to the depth of its leaves, with something else in it, without it, and with it twice"""
    for path in places(value):
        for strange in STRANGE:
            yield edited(value, path, lambda holder, at, strange=strange: holder.__setitem__(at, strange))
        yield edited(value, path, lambda holder, at: holder.pop(at))
        yield edited(value, path, twice)


def places(value: Any) -> Iterator[tuple[Any, ...]]:
    for name in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (name,)
        yield from ((name, *path) for path in places(value[name]))


def edited(value: Any, path: tuple[Any, ...], change: Callable[[Any, Any], object]) -> Any:
    changed = holder = copy.deepcopy(value)
    for name in path[:-1]:
        holder = holder[name]
    change(holder, path[-1])
    return changed


def twice(holder: Any, at: Any) -> None:
    if isinstance(holder, list):
        holder.append(holder[at])
    else:
        holder[f"{at} again"] = holder[at]


AUDITS: Mapping[str, Any] = {**{mode: of_mode(mode) for mode in audited.MODES}, "failed": failed()}
