"""The page of a whole dialogue: what `formation dialogue` or `formation score` left in a folder, packed into one file that opens from disk.

    formation explore talk.dlg        every token of events.jsonl, whose chain the page computes again from the bytes in it
    formation explore scored          every token of tokens.jsonl, which the page holds against the signed ledgers of a.ofb and b.ofb

Nothing is computed here: the page (explorer/static/dialogue/) reads these bytes itself, and asks no network for anything. With them may come what
`formation claims --json` found, and what `formation fork` left in its folder, or its tree alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from formation.dialogue import event_table, events
from formation.errors import EnvironmentFault
from formation.explorer import page, view
from formation.ledger import canonical, files, merkle, reader
from formation.ledger.values import PHRASES
from formation.ledger.zero import Kind

TOKENS, SUMMARY = "tokens.jsonl", "summary.json"
CLAIMS, FORKS, BRANCHES = "claims.json", "forks.json", "branches.json"  # as they are named in the page
TREE, TABLES = "tree.json", "fork.json"  # what formation fork left in its folder
ENTRY, TABLE = "dialogue.js", "eventtable.js"
DIALOGUE, SCORED = "dialogue", "scored"
SIGNED = {"head": "tree-head.txt", "attestation": "attestation.json"}  # of a bundle, as they are named in the page behind a. or b.
LIMITS = canonical.Limits(view.MOST_BYTES, 0)  # of one file
SLOTS = tuple(f'"slot":"{slot}"}}'.encode() for slot in ("lm_head", "token"))  # canonical JSON sorts its names, so that the slot ends the line


@dataclass(frozen=True)
class Packed:
    """dialogue.html. `kind` is dialogue or scored; `dropped_bytes` are those of a line that was cut off: the page does not have them."""

    page: bytes
    kind: str
    dropped_bytes: int


def kind_of(path: Path) -> str | None:
    """What a path holds, by its files: a dialogue, a scored transcript, or None for neither."""
    if (path / events.NAME).is_file() or (path.name == events.NAME and path.is_file()):
        return DIALOGUE
    return SCORED if all((path / name).is_file() for name in (TOKENS, SUMMARY)) else None


def packed(path: Path, claims: Path | None = None, forks: Path | None = None) -> Packed:
    """The page of the dialogue or scored transcript at `path`. What is wrong with a log is said by the page, in red. Raises EnvironmentFault, also
    for more than a page can hold."""
    kind = kind_of(path)
    if kind is None:
        raise EnvironmentFault(
            f"{path}: expected {events.NAME}, or {TOKENS} with {SUMMARY}, got neither", hint="formation dialogue and score make them"
        )
    held, dropped = of_dialogue(path) if kind == DIALOGUE else (of_scored(path), 0)
    given = {CLAIMS: claims} if claims else {}
    if forks:
        given |= {FORKS: forks / TREE, BRANCHES: forks / TABLES} if forks.is_dir() else {FORKS: forks}
    held |= {name: files.read_whole(file, LIMITS) for name, file in given.items()}
    if (size_bytes := sum(map(len, held.values()))) > view.MOST_BYTES:
        raise EnvironmentFault(f"{path}: expected at most {view.MOST_BYTES} bytes for one page, got {size_bytes}")
    folder = path if path.is_dir() else path.parent
    return Packed(assembled(view.named(folder), held, kind, dropped), kind, dropped)


def of_dialogue(path: Path) -> tuple[dict[str, bytes], int]:
    """The log to its last whole line, and how many bytes lie behind"""
    data = files.read_whole(events.located(path), LIMITS)
    end = data.rfind(b"\n") + 1
    return {events.NAME: data[:end]}, len(data) - end


def of_scored(path: Path) -> dict[str, bytes]:
    """The table, and of each bundle beside it what proves that a row is in its ledger"""
    held = {name: files.read_whole(path / name, LIMITS) for name in (TOKENS, SUMMARY)}
    for letter in "ab":
        bundle = path / f"{letter}.ofb"
        if all((bundle / name).is_file() for name in (reader.NAME, *SIGNED.values())):
            held |= {f"{letter}.{name}": data for name, data in of_bundle(bundle).items()}
    return held


def of_bundle(bundle: Path) -> dict[str, bytes]:
    """Of a sealed bundle: the lines that its scored tokens are in, the place of each in the ledger, and the hashes of all leaves, 32 bytes each. A
    page computes the root from these and needs no other line."""
    leaves, lines, places = bytearray(), bytearray(), []
    for place, line in enumerate(reader.lines(bundle)):
        leaves += merkle.leaf_hash(line)
        if line.endswith(SLOTS) and b'"kind":"scored"' in line:
            places.append(place)
            lines += line + b"\n"
    made = {"lines": bytes(lines), "places": json.dumps(places, separators=(",", ":")).encode(), "leaves": bytes(leaves)}
    return made | {name: files.read_whole(bundle / file, LIMITS) for name, file in SIGNED.items()}


def assembled(name: str, held: Mapping[str, bytes], kind: str, dropped_bytes: int) -> bytes:
    """`held` are the files, named by the constants above: no name that markup could be made of."""
    said = {
        "kind": kind, "sizes": {each: len(data) for each, data in held.items()}, "most": view.PIECE_BYTES, "dropped": dropped_bytes,
        "digests": {each: sha256(data).hexdigest() for each, data in held.items()},
    }  # fmt: skip
    about = f'<script type="application/json" data-about>{json.dumps(said, separators=(",", ":"))}</script>\n'
    elements = "".join(
        view.element(each, data[at : at + view.PIECE_BYTES]) for each, data in held.items() for at in range(0, len(data), view.PIECE_BYTES)
    )
    return page.assembled(
        "dialogue.html", script(), page.styles("verify.css", "explorer.css", "dialogue.css"), {"DATA": name + about, "FILES": elements}
    )


def script() -> str:
    return page.bundle(page.modules("verify", "explore", "dialogue") | {TABLE: "".join(page.constants(tables()))}, ENTRY)


def tables() -> dict[str, Any]:
    """What the page's readers need of event_table.py and zero.py"""
    return {
        "EVENTS": rows(event_table.EVENTS), "RECORDS": rows(event_table.RECORDS), "VIEWS": event_table.VIEWS, "FORMAT": event_table.FORMAT,
        "TYPE_PHRASES": dict(PHRASES), "ZERO_KINDS": list(Kind),
        "LINE_LIMITS": {"sizeBytes": events.LIMITS.size_bytes, "depth": events.LIMITS.depth},
    }  # fmt: skip


def rows(table: Mapping[str, tuple[event_table.Field, ...]]) -> dict[str, Any]:
    return {name: [asdict(field) for field in fields] for name, fields in table.items()}
