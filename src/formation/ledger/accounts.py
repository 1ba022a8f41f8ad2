"""io.jsonl: one line for each step, of what was read for it. Not part of the ledger: a resumed run reads other bytes and forms the same tokens."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from formation.errors import EnvironmentFault
from formation.ledger import canonical
from formation.ledger.reader import disk_fault, whole_lines

NAME = "io.jsonl"


@dataclass(frozen=True)
class Totals:
    """Of all steps of a run, those before it was cut off included."""

    disk_bytes: int
    seconds: float
    shards: tuple[str, ...]  # files that weights were read from
    guessed_bytes: int  # of the disk bytes, those of right guesses
    guessed_unused_bytes: int  # and of wrong ones


class Accounts:
    """Appends to the file in `folder`, after the lines of its first `steps` steps; what stands behind them is dropped."""

    def __init__(self, folder: Path, steps: int) -> None:
        self._folder = folder
        try:
            self._file = (folder / NAME).open("r+b" if steps else "w+b")
            kept = list(zip(range(steps), whole_lines(self._file), strict=False))
            self._file.truncate(sum(len(line) + 1 for _, line in kept))
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise disk_fault(folder / NAME, "open", error) from error
        if len(kept) != steps:
            self._file.close()
            raise EnvironmentFault(f"{folder / NAME}: expected a line for each of {steps} steps, got {len(kept)}", hint="record anew")

    def append(self, account: Mapping[str, Any]) -> None:
        """Durable when it returns. Raises EnvironmentFault."""
        try:
            self._file.write(canonical.encode(dict(account)) + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise disk_fault(self._folder / NAME, "write", error) from error

    def close(self) -> None:
        self._file.close()


def totals(folder: Path) -> Totals:
    seconds, shards, sums = 0.0, set(), dict.fromkeys(("disk_bytes", "guessed_bytes", "guessed_unused_bytes"), 0)
    for account in read(folder):
        seconds, sums = seconds + account["seconds"], {name: total + account[name] for name, total in sums.items()}
        shards.update(account["shards"])
    return Totals(**sums, seconds=seconds, shards=tuple(sorted(shards)))


def read(folder: Path) -> Iterator[dict[str, Any]]:
    with (folder / NAME).open("rb") as file:
        for line in whole_lines(file):
            yield json.loads(line)
