"""The live dialogue of `formation dialogue`: begun or resumed, shown while it goes on, and what came of it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formation.cli.bundles import make, planned, signer
from formation.cli.live_dialogue import LiveDialogue
from formation.cli.roles import asking, gives_manners, read_roles, read_side
from formation.cli.speech import harmless, say
from formation.errors import EnvironmentFault, Interrupted, UsageError

if TYPE_CHECKING:
    from formation.dialogue.cast import Role
    from formation.dialogue.conduct import Conductor, Terms

MOST_SPANS = 4  # that are shown of why it ended


def run(args: argparse.Namespace) -> int:
    key = signer(args) if args.bundles else None
    with LiveDialogue(echo=not args.json) as live, conducted(args, live) as conductor:
        conductor.run()
        live.end()
        told = facts(conductor)
        wanted = planned(conductor) if key else []
    say(harmless("\n".join(closing_lines(told))))
    if key:  # the sides have given their memory back
        told["bundles"] = make(args, conductor.folder, wanted, key)
    if args.json:
        print(json.dumps(told, ensure_ascii=False))
    return exit_code(told)


@contextmanager
def conducted(args: argparse.Namespace, live: LiveDialogue) -> Iterator[Conductor]:
    from formation.dialogue import cast, conduct

    if args.resume is None:
        roles, terms, folder = read_roles(complete(args)), read_terms(args), args.out
        conduct.check_names([role.name for role in roles])
        check_new(folder)
    else:
        roles, folder = known_roles(args), args.resume
    with cast.cast(roles, cast.Means(args.memory, args.threads, live.progress, args.mirror)) as (sides, lines):
        say(harmless("\n".join(lines)) + "\n")
        if args.resume is None:
            conductor = conduct.begin(folder, sides, terms, watch=live.watch)
        else:
            conductor = conduct.resume(folder, sides, watch=live.watch)
            live.resumed(conductor.so_far)
        with conductor:
            cast.write_places(folder, roles)
            yield conductor


# ---- what is asked for


def complete(args: argparse.Namespace) -> argparse.Namespace:
    """Raises UsageError where something is missing that a new dialogue needs."""
    for name, example in (("a", "lamp=./checkpoint"), ("b", "owl=http://localhost:8000/v1"), ("out", "talk.dlg")):
        if getattr(args, name) is None:
            raise UsageError(f"dialogue: expected --{name}, got none", hint=f"for example --{name} {example}")
    return args


def read_terms(args: argparse.Namespace) -> Terms:
    """Raises UsageError."""
    from formation.dialogue.conduct import Terms
    from formation.dialogue.stops.words import DEFAULT, read_rule

    stops = tuple(str(read_rule(words)) for words in args.stop or DEFAULT)
    how = "template" if args.no_kickoff else "empty" if args.kickoff is None else "text"
    return Terms("ab".index(args.first), how, args.kickoff or "", stops)


def check_new(folder: Path) -> None:
    from formation.dialogue.events import NAME

    if (folder / NAME).exists():
        raise EnvironmentFault(f"expected no dialogue in {folder}, got {NAME}", hint=f"go on with --resume {folder}, or choose another folder")


def known_roles(args: argparse.Namespace) -> list[Role]:
    """Those of the log in --resume, where they were or where --a and --b say that they are now. Raises UsageError."""
    from formation.dialogue import cast

    if args.out or args.stop or args.kickoff is not None or args.no_kickoff or gives_manners(args):
        raise UsageError("dialogue: expected --resume alone, or with --a, --b, --memory and --threads, got what its log decides", hint="leave it out")
    sides = first_event(args.resume)["sides"]
    if args.a is None or args.b is None:
        sources = cast.read_places(args.resume)
    roles = []
    for place, (letter, side) in enumerate(zip("ab", sides, strict=True)):
        given = getattr(args, letter)
        name, source = read_side(letter, given) if given else (side["name"], sources[place])
        if name != side["name"]:
            raise UsageError(f"--{letter}: expected the name {side['name']}, as the dialogue was begun with, got {name}")
        roles.append(cast.Role(name, source, cast.manner_of(side), asking(args, letter), side))
    return roles


def first_event(folder: Path) -> dict[str, Any]:
    from formation.dialogue import events

    if not (folder / events.NAME).is_file():
        raise EnvironmentFault(f"{folder}: expected the folder of a dialogue, got no {events.NAME}", hint="begin one with --out")
    for event in events.read(folder):
        return event.body
    raise EnvironmentFault(f"{folder}: expected a dialogue that was begun, got an empty log", hint="remove the folder and begin again")


# ---- what came of it


def facts(conductor: Conductor) -> dict[str, Any]:
    so_far = conductor.so_far
    messages = [turn for turn in so_far.ended if turn.is_message]
    return {
        "out": str(conductor.folder), "names": [side["name"] for side in so_far.head["sides"]], "messages": len(messages),
        "by_side": [sum(turn.side == side for turn in messages) for side in (0, 1)], "tokens": so_far.tokens, "errors": so_far.errors,
        "failed": bool(so_far.ended) and so_far.ended[-1].reason == "failed", "evidence": (so_far.end or {}).get("evidence"),
        "bundles": [],
        "seconds": round(conductor.times.seconds, 3), "disk_bytes": conductor.times.disk_bytes, "texts": [turn.text for turn in messages],
    }  # fmt: skip


def closing_lines(told: dict[str, Any]) -> Iterator[str]:
    from formation.run.machine import show_bytes

    evidence = told["evidence"]
    where = f"in turn {evidence['after'] + 1}" if evidence["within"] else f"after message {evidence['after']}"
    yield f"ended by {evidence['rule']!r} {where}"
    yield from seen_lines(told, evidence["spans"])
    counts = f"{told['messages']} message{'s' * (told['messages'] != 1)}, {told['tokens']} token{'s' * (told['tokens'] != 1)}"
    yield f"{counts} in {told['seconds']:.1f} s · read {show_bytes(told['disk_bytes'])} from disk"
    yield f"the log and the transcript are in {told['out']}"


def seen_lines(told: dict[str, Any], spans: Sequence[dict[str, int]]) -> Iterator[str]:
    from formation.cli.transcripts import excerpt

    for span in spans[-MOST_SPANS:]:
        text = told["texts"][span["message"] - 1][span["start"] : span["end"]]
        yield f"  message {span['message']} [{span['start']}:{span['end']}] {excerpt(text)}"


def exit_code(told: dict[str, Any]) -> int:
    if told["failed"]:
        return EnvironmentFault.exit_code
    return Interrupted.exit_code if told["evidence"]["rule"] == "Ctrl-C" else 0
