"""A bundle's files for the explorer's page: packed into it, or left with the server that gives it. Nothing is computed here but where things are: the
page reads and verifies these bytes itself.

Each file is cut in pieces, and each piece becomes one element that runs nothing: gzip, then base64. A browser unpacks gzip without help, one
piece when it is looked at, and one changed byte is noticed.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from formation.errors import EnvironmentFault
from formation.evidence import container
from formation.explorer import page, places

MOST_BYTES = 1 << 28  # of the files in one page together: a browser keeps the page's text
PIECE_BYTES = 1 << 18
LEDGERS = ("ledger.jsonl", f"ledger.jsonl{container.PART}")
ORDER = ("anchor.json", *LEDGERS)  # in a page: what the first view needs comes first
ELEMENT = '<script type="application/gzip"{side} data-file="{name}">{text}</script>\n'  # of no type that a browser would run
OTHER = ' data-side="b"'  # of the bundle to compare with
SERVE = "formation explore --serve shows bundles of any size"


@dataclass(frozen=True)
class Packed:
    """explorer.html with a bundle in it. `left_out`: names of the files that were too much for one page; the page says that it did not check them."""

    page: bytes
    left_out: tuple[str, ...]


def explorer(path: Path, other: Path | None = None) -> bytes:
    """explorer.html with the bundle at `path` in it, a folder or a ZIP, and `other` to compare it with. Raises EnvironmentFault, also for a ledger
    too big for one page."""
    return packed(path, other).page


def packed(path: Path, other: Path | None = None) -> Packed:
    sides = [elements(path, ""), *([elements(other, OTHER)] if other else [])]
    data, files, left_out = zip(*sides, strict=True)
    return Packed(page.explorer_page("".join(data), "".join(files)), tuple(name for names in left_out for name in names))


def elements(path: Path, side: str) -> tuple[str, str, tuple[str, ...]]:
    """What is said about a bundle, the files that are held, and the names of those that are left out"""
    with opened(path) as (bundle, contents):
        left_out = left_out_of(contents.sizes)
        if left_out is None:
            raise EnvironmentFault(f"{path}: expected a ledger of at most {MOST_BYTES} bytes for one page, got a larger one", hint=SERVE)
        sizes = {name: size for name, size in contents.sizes.items() if name not in left_out}
        files = "".join(piece for name in sorted(sizes, key=place) for piece in pieces(bundle, name, sizes[name], side))
        return named(path, side) + about(bundle, sizes, left_out, side=side), files, left_out


def served(path: Path, bundle: container.Container, contents: container.Contents) -> bytes:
    """explorer.html that asks its server for ranges of the bundle's files, `files/NAME` beside it. Raises ContainerRefusal."""
    return page.explorer_page(named(path) + about(bundle, contents.sizes, (), served=True), served=True)


@contextmanager
def opened(path: Path) -> Iterator[tuple[container.Container, container.Contents]]:
    """A bundle, held open. Raises EnvironmentFault, also for what in it is refused meanwhile."""
    try:
        with container.open_container(path) as bundle:
            yield bundle, bundle.contents()
    except container.ContainerRefusal as refusal:
        raise EnvironmentFault(f"{path}: {refusal}", hint="formation verify says what is wrong with it") from refusal


def left_out_of(sizes: Mapping[str, int]) -> tuple[str, ...] | None:
    """Nothing of a bundle that fits in one page; else rows/ and router/, which are most of a bundle; None if the rest is too much as well"""
    if sum(sizes.values()) <= MOST_BYTES:
        return ()
    rows = tuple(name for name in sizes if name.startswith(tuple(f"{folder}/" for folder in container.FOLDERS)))
    return rows if sum(size for name, size in sizes.items() if name not in rows) <= MOST_BYTES else None


def place(name: str) -> tuple[int, str]:
    return ORDER.index(name) if name in ORDER else len(ORDER), name


def about(bundle: container.Container, sizes: Mapping[str, int], left_out: tuple[str, ...], *, side: str = "", served: bool = False) -> str:
    """Which files there are, in which pieces, what is not here, and where positions begin: names of container.py's list, and numbers"""
    said = {"sizes": dict(sizes), "most": PIECE_BYTES, "leftOut": left_out, "isServed": served, "begins": begins(bundle, sizes)}
    return f'<script type="application/json"{side} data-about>{json.dumps(said, separators=(",", ":"))}</script>\n'


def begins(bundle: container.Container, sizes: Mapping[str, int]) -> list[tuple[int, int]]:
    for name in LEDGERS:
        if name in sizes:
            with bundle.open(name) as file:
                return places.begins(file)
    return []


def pieces(bundle: container.Container, name: str, size: int, side: str = "") -> Iterator[str]:
    """An element for each piece of a file, in order. The same bytes for the same file: no time stands in them."""
    left = size
    with bundle.open(name) as file:
        while block := file.read(PIECE_BYTES):
            left -= len(block)
            yield element(name, block, side)
    if left:
        raise container.ContainerRefusal(f"{name}: expected {size} bytes, got a file that changes")


def element(name: str, block: bytes, side: str = "") -> str:
    """`name` is one of container.py's list: none that markup could be made of"""
    return ELEMENT.format(side=side, name=name, text=base64.b64encode(gzip.compress(block, 6, mtime=0)).decode())


def named(path: Path, side: str = "") -> str:
    """The bundle's name, which is anyone's text, in the form of a file's content"""
    name = base64.b64encode(path.resolve().name.encode("utf-8", "replace")).decode()
    return f'<script type="text/plain"{side} data-name="{name}"></script>\n'
