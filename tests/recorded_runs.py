"""Recordings of small models, as several tests make them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import formation
from formation.cli.main import main
from formation.ledger import accounts, canonical, reader
from formation.ledger.progress import Watch
from formation.recording import Means, Recording, begin, resume
from formation.run.order import Order
from formation.text.prompt import make_prompt

IDS = (5, 6, 7, 8, 9)
WATCH = Watch("standard", "minimal", "boundaries")


def means(**options: Any) -> Means:
    return Means(**({"memory": "24MiB", "threads": 2} | options))


def run(folder: Path, out: Path, order: Order | None = None, watch: Watch = WATCH, **options: Any) -> Recording:
    return begin(formation.open(folder), order or Order(IDS, 4), watch, out, means(**options))


def ledger(out: Path) -> list[dict]:
    return [canonical.decode(line, limits=canonical.LINE) for line in reader.lines(out)]


HOW = ("io.jsonl", "host.json", "tree-head.txt", "attestation.json", "manifest-sha256.txt")


def contents(out: Path, *, without: tuple[str, ...] = HOW) -> dict[str, bytes]:
    """Every file of a bundle by its path, but for those that say how it was computed, and the seal over these"""
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file() and p.name not in without}


# ---- a recording that is cut off, and the one that is not

TOKENS = 5
GIVEN = ["--ids", "5,6,7,8,9", "--tokens", str(TOKENS), "--capture-prompt", "standard", "--rows", "all"]
HERE = [*GIVEN, "--parity", "none", "--memory", "24MiB", "--threads", "2", "--json"]
WATCHED = Watch("standard", "standard", "all")


def asked(folder: Path) -> Order:
    """As the command line asks for it"""
    stop = make_prompt(folder, formation.open(folder).config, ids=IDS).stop
    return Order(IDS, TOKENS, stop=tuple(sorted(stop)))


class Cut(Exception):
    pass


def cut(
    folder: Path, out: Path, *, after: int, going_on: bool = False, order: Order | None = None, watch: Watch = WATCHED, **options: object
) -> None:  # fmt: skip
    seen = 0

    def count(step: object) -> None:
        nonlocal seen
        seen += 1
        if seen == after:
            raise Cut

    with pytest.raises(Cut):
        if going_on:
            resume(formation.open(folder), out, means(on_step=count, parity="none", **options))
        else:
            run(folder, out, order or asked(folder), watch, on_step=count, parity="none", **options)


def check_resumed(folder: Path, out: Path, whole: Recording) -> None:
    """What is there can be read; going on gives every byte of the recording that was never cut off."""
    complete = (out / reader.NAME).exists()
    if complete or (out / reader.PART_NAME).exists():
        reader.survey(out)
    assert (3 if complete else 0) == main(["record", str(folder), *HERE, "--resume", "--out", str(out)])
    assert contents(whole.folder) == contents(out)
    steps = range(len(IDS) - 1, len(IDS) - 1 + TOKENS)
    assert list(steps) == [line["position"] for line in accounts.read(out)]
