"""Measure what streaming costs here; --replay: how many of a recorded run's experts a cache of some size would have held, by policy."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formation.cli.options import add_json

if TYPE_CHECKING:
    from formation.weights.residency import Access

HELP = "what streaming costs on this machine"
OPTIMUM = "optimum"
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)  # of all routed experts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--replay", type=Path, required=True, metavar="NAME.ofb", help="a recorded run, whose routes are replayed")
    parser.add_argument("--policies", default="lru,lfu,segmented,optimum", metavar="A,B", help="which (default: all of lru,lfu,segmented,optimum)")
    words = "experts that fit, once for each column (default: a sixteenth, an eighth, a quarter and half of them)"
    parser.add_argument("--slots", type=int, action="append", metavar="N", help=words)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    facts = compared(args.replay, _policies(args.policies), args.slots)
    print(json.dumps(facts) if args.json else table(facts))
    return 0


def _policies(text: str) -> list[str]:
    from formation.errors import UsageError
    from formation.weights.policy import POLICIES

    known = [*POLICIES, OPTIMUM]
    names = text.split(",")
    for name in names:
        if name not in known:
            raise UsageError(f"policies: expected some of {', '.join(known)}, got {name!r}")
    return names


def compared(bundle: Path, policies: list[str], slots: list[int] | None) -> dict[str, Any]:
    """Hits of each policy for each number of slots. Raises UsageError, EnvironmentFault."""
    from formation.errors import UsageError
    from formation.weights.policy import POLICIES
    from formation.weights.residency import optimum, replay

    accesses, experts, tokens = routes(bundle)
    most = max(map(len, accesses))
    sizes = sorted(set(slots or [max(most, round(experts * share)) for share in SHARES]))
    if sizes[0] < most:
        raise UsageError(f"slots: expected at least the {most} experts that a token uses in one layer, got {sizes[0]}")
    rows = []
    for name in policies:
        found = [optimum(accesses, n) if name == OPTIMUM else replay(POLICIES[name](), accesses, n) for n in sizes]
        rows.append({"policy": name, "hits": [kept.hits for kept in found], "share": [kept.share for kept in found]})
    uses, used = sum(map(len, accesses)), len({key for access in accesses for key in access})
    return {
        "bundle": str(bundle), "positions": tokens, "experts": experts, "experts_used": used, "uses": uses, "slots": sizes, "policies": rows,
    }  # fmt: skip


def routes(bundle: Path) -> tuple[list[Access], int, int]:
    """The chosen experts of every recorded cell in order, the number of routed experts, and of positions. Raises EnvironmentFault, UsageError."""
    from formation.errors import UsageError
    from formation.evidence.bundle import Bundle

    opened = Bundle(bundle)
    chosen: dict[tuple[int, int], list[tuple[str, int, int]]] = {}
    for record in opened.experts:
        if record.expert >= 0:
            chosen.setdefault((record.position, record.layer), []).append(("expert", record.layer, record.expert))
    if not chosen:
        raise UsageError(f"{bundle}: expected a run with chosen experts, got none", hint="give a run of a mixture-of-experts model")
    shape = opened.run.shape
    return list(chosen.values()), shape.experts * (shape.layers - shape.dense_layers), len({position for position, _ in chosen})


def table(facts: dict[str, Any]) -> str:
    head = f"{facts['positions']} positions · {facts['uses']} uses of {facts['experts_used']} of {facts['experts']} experts"
    widths = [f"{n:>10}" for n in facts["slots"]]
    rows = ["experts that fit".ljust(18) + "".join(widths)]
    rows += [row["policy"].ljust(18) + "".join(f"{share:>10.1%}" for share in row["share"]) for row in facts["policies"]]
    return "\n".join([head, "found in memory when used:", *rows])
