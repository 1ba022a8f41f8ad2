"""How far a recording has come, in `progress.json` of its folder: replaced as a whole after each commit, removed when the ledger is closed.

Only what cannot be read from the folder otherwise: what is observed, and the last commit. The tokens so far are in the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from formation.errors import EnvironmentFault, UsageError
from formation.ledger import canonical, files, merkle, reader
from formation.ledger.fields import LEVELS
from formation.ledger.reader import Commit

NAME = "progress.json"
KIND = "formation-progress/1"
ROWS = ("none", "boundaries", "all")
NOTHING = Commit(0, 0, merkle.EMPTY_ROOT)
TOKEN_LINE = b'"slot":"token"}'  # how the canonical line of a token ends: `slot` is its last name


@dataclass(frozen=True)
class Watch:
    """What is observed of steps and of prompt positions (levels), and which rows are kept."""

    capture: str
    capture_prompt: str
    rows: str

    def __post_init__(self) -> None:
        for name, value, known in (("capture", self.capture, LEVELS), ("capture of prompts", self.capture_prompt, LEVELS), ("rows", self.rows, ROWS)):
            if value not in known:
                raise UsageError(f"{name}: expected {', '.join(known)}, got {value!r}")


def write(folder: Path, watch: Watch, commit: Commit) -> None:
    place = {"lines": commit.lines, "size_bytes": commit.size_bytes, "root": commit.root.hex()}
    files.write_document(folder / NAME, {"kind": KIND, "watch": asdict(watch), "commit": place})


def read(folder: Path) -> tuple[Watch, Commit] | None:
    """None where no recording has begun. Raises EnvironmentFault for a file that is none of ours."""
    path = folder / NAME
    if not path.exists():
        return None
    value = files.read_document(path)
    try:
        return decode(value)
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise EnvironmentFault(f"{path}: expected the progress of a recording, got {error}", hint="record anew into another folder") from None


def decode(value: Any) -> tuple[Watch, Commit]:
    """Raises KeyError, TypeError, ValueError and UsageError."""
    if set(value) != {"kind", "watch", "commit"} or value["kind"] != KIND:
        raise ValueError(f"something else than {KIND}")
    watch, commit = Watch(**value["watch"]), value["commit"]
    if set(commit) != {"lines", "size_bytes", "root"} or any(type(commit[name]) is not int for name in ("lines", "size_bytes")):
        raise ValueError(f"a commit of {sorted(commit)}")
    return watch, Commit(commit["lines"], commit["size_bytes"], bytes.fromhex(commit["root"]))


def remove(folder: Path) -> None:
    (folder / NAME).unlink(missing_ok=True)


def token_ids(folder: Path, commit: Commit) -> Iterator[int]:
    """The tokens formed before `commit`, whose lines somebody has held against its root."""
    for line in reader.lines(folder, end=commit.size_bytes):
        if line.endswith(TOKEN_LINE):
            yield canonical.decode(line, limits=canonical.LINE)["measured"]["id"]
