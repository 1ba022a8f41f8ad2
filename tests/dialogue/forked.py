"""A dialogue of two small models to be forked, with the folders of both beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.dialogue.small_sides import StoppedClock, a_side, two_checkpoints

from formation.cli.main import main
from formation.dialogue import conduct, events
from formation.dialogue.cast import Role, write_places
from formation.dialogue.conduct import Terms
from formation.dialogue.side import Manner

TOKENS = 6
MACHINE = ["--memory", "32MiB", "--threads", "1"]


def a_dialogue(place: Path) -> Path:
    """Four messages: owl, with attention only, says 1 and 3, lamp, with delta layers, 2 and 4"""
    folder, checkpoints = place / "talk.dlg", two_checkpoints(place)
    with a_side("owl", checkpoints[0], 1, most_tokens=TOKENS) as owl, a_side("lamp", checkpoints[1], 2, most_tokens=TOKENS) as lamp:
        with conduct.begin(folder, (owl, lamp), Terms(how="text", text="Hello?", stops=("4 messages",)), clock=StoppedClock()) as conductor:
            conductor.run()
        write_places(folder, [Role("owl", str(checkpoints[0]), Manner()), Role("lamp", str(checkpoints[1]), Manner())])
    return folder


def tokens_of(folder: Path, message: int) -> list[dict[str, Any]]:
    return [event.body for event in events.read(folder) if event.kind == "token" and event.body["turn"] == message]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def fork(talk: Path, out: Path, at: str, *words: str) -> int:
    return main(["fork", str(talk), "--at", at, *words, "--out", str(out), *MACHINE])
