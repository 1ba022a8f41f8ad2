"""The two sides of a dialogue from their names: checkpoints opened under one memory budget, servers connected to.

One checkpoint on both sides is streamed once, for both. Two share the budget by need: each gets the least that it can run with, and of what is left
as much as the other for each byte of its weights that does not fit yet.

    NAME.dlg/sides.json     where the sides were: not in the log, which is the same wherever the dialogue is had
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from formation.dialogue.chain import chain_of
from formation.dialogue.context import BUDGET, Context
from formation.dialogue.local import ROOM, open_local
from formation.dialogue.side import THINKING, Manner, Side
from formation.errors import BudgetError, EnvironmentFault
from formation.ledger import files
from formation.run import machine
from formation.run.executor import Progress
from formation.run.generate import Engine
from formation.run.machine import show_bytes
from formation.text.prompt import read_day
from formation.weights.mirror import open_several

SIDES = "sides.json"
URLS = ("http://", "https://")


@dataclass(frozen=True)
class Asking:
    """How a server is asked; nothing of it is in the log. The key is in the environment variable of that name."""

    key_variable: str | None = None
    logprobs: bool = True
    pause_seconds: float | None = None  # without a byte, after which it is too late


@dataclass(frozen=True)
class Role:
    """Who a side is to be. `source` is a folder or a URL; `record` is that of the side in the log of a dialogue that is resumed."""

    name: str
    source: str
    manner: Manner
    asking: Asking = field(default_factory=Asking)
    record: Mapping[str, Any] | None = None

    @property
    def is_server(self) -> bool:
        return self.source.startswith(URLS)


@dataclass(frozen=True)
class Means:
    """How local sides are computed: nothing here decides what is said."""

    memory: str | int | None = None
    threads: int | None = None
    progress: Callable[[Progress], None] | None = None
    mirrors: Sequence[str] = ()


@contextmanager
def cast(roles: Sequence[Role], means: Means) -> Iterator[tuple[list[Side], list[str]]]:
    """The sides, and a line about each. Raises what `open_several`, `Engine` and the sides raise."""
    with ExitStack() as closing:
        engines = open_engines(roles, means, closing)
        lines = [line(role, engines, shared=len(engines) == 1 and not any(role.is_server for role in roles)) for role in roles]
        sides: list[Side] = []
        for role in roles:
            side = connected(role) if role.is_server else open_local(role.name, engines[place_of(role)], role.manner)
            sides.append(closing.enter_context(side))
        yield sides, lines


def connected(role: Role) -> Side:
    from formation.dialogue.remote.http import Patience
    from formation.dialogue.remote.side import connect

    asking = role.asking
    patience = Patience() if asking.pause_seconds is None else Patience(pause_seconds=asking.pause_seconds)
    return connect(
        role.name, role.source, role.manner, key_variable=asking.key_variable, logprobs=asking.logprobs, patience=patience, record=role.record
    )  # fmt: skip


def place_of(role: Role) -> Path:
    return Path(role.source).resolve()


def open_engines(roles: Sequence[Role], means: Means, closing: ExitStack) -> dict[Path, Engine]:
    """One for each checkpoint, with its share of the budget"""
    budget = machine.default_budget_bytes() if means.memory is None else machine.parse_bytes(means.memory)
    engines: dict[Path, Engine] = {}
    places = list(dict.fromkeys(place_of(role) for role in roles if not role.is_server))
    for place, checkpoint in zip(places, open_several(places, means.mirrors), strict=True):
        engine = Engine(checkpoint, memory=budget, threads=means.threads, progress=means.progress)
        engines[place] = closing.enter_context(engine)
    for engine, share in zip(
        engines.values(), shares(list(engines.values()), budget, [positions_of(roles, place) for place in engines]), strict=True
    ):
        engine.budget = share
    return engines


def positions_of(roles: Sequence[Role], place: Path) -> range:
    """How long the contexts of this checkpoint's sides are thought to grow, for the split: from one turn to this"""
    manners = [role.manner for role in roles if not role.is_server and place_of(role) == place]
    turn = max(manner.most_tokens for manner in manners)
    return range(turn, max(turn, *(m.context.limit + m.most_tokens if m.context.policy == BUDGET else ROOM for m in manners)) + 1)


def shares(engines: Sequence[Engine], budget: int, positions: Sequence[range]) -> list[int]:
    """Bytes for each, together no more than `budget`, for as long contexts as it holds of twice, four times, … less. Raises BudgetError."""
    if len(engines) < 2:
        return [budget] * len(engines)
    counts = [asked[-1] for asked in positions]
    while sum(least := [least_bytes(engine, count) for engine, count in zip(engines, counts, strict=True)]) > budget:
        fewer = [max(count // 2, asked[0]) for count, asked in zip(counts, positions, strict=True)]
        if fewer == counts:
            needs = " and ".join(show_bytes(each) for each in least)
            raise BudgetError(
                f"memory budget: expected at least {needs} for the two checkpoints, got {show_bytes(budget)}", hint="give more --memory"
            )
        counts = fewer
    wanted = [max(engine.checkpoint.total_bytes - own, 1) for engine, own in zip(engines, least, strict=True)]
    return [own + (budget - sum(least)) * want // sum(wanted) for own, want in zip(least, wanted, strict=True)]


def least_bytes(engine: Engine, positions: int) -> int:
    """The smallest budget of the engine that holds a run of so many positions, or of its whole context"""

    def enough(budget: int) -> bool:
        engine.budget = budget
        return holds(engine, min(positions, engine.model.shape.context))

    return bisect_left(range(1 << 50), True, key=enough)


def holds(engine: Engine, positions: int) -> bool:
    try:
        engine.plan(positions)
    except BudgetError:
        return False
    return True


def line(role: Role, engines: Mapping[Path, Engine], *, shared: bool) -> str:
    if role.is_server:
        return f"{role.name}: {role.source}"
    engine = engines[place_of(role)]
    sharing = 2 if shared else 1
    most = bisect_left(range(1, engine.model.shape.context + 1), True, key=lambda count: not holds(engine, sharing * count))
    return (
        f"{role.name}: {engine.checkpoint.path.name}, {show_bytes(engine.checkpoint.total_bytes)} of weights in {show_bytes(engine.budget)} of memory"
        f"{' that both sides share' if shared else ''}, up to {most} tokens of context"
    )


# ---- where they were


def write_places(folder: Path, roles: Sequence[Role]) -> None:
    """Raises EnvironmentFault."""
    places = [role.source if role.is_server else str(place_of(role)) for role in roles]
    files.write_document(folder / SIDES, {"sources": places})


def read_places(folder: Path) -> list[str]:
    """Raises EnvironmentFault."""
    value = files.read_document(folder / SIDES)
    sources = value.get("sources") if isinstance(value, dict) else None
    if not isinstance(sources, list) or len(sources) != 2 or not all(isinstance(each, str) for each in sources):
        raise EnvironmentFault(f"{folder / SIDES}: expected the sources of two sides", hint="name them again: --a NAME=CKPT --b NAME=CKPT")
    return sources


def manner_of(side: Mapping[str, Any]) -> Manner:
    """As the record `side` of a log has it. Raises UsageError for settings that there are not."""
    thinking = next((switch for switch, word in THINKING.items() if word == side["thinking"]), None)
    context = Context(side["context"]["policy"], side["context"]["limit"])
    today = read_day(side["today"]) if isinstance(side["today"], str) else None
    return Manner(side["system"], thinking, context, chain_of(side["sampler"], side["edits"]), side["most_tokens"], today)
