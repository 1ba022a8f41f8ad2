"""A bundle's files, packed so that the explorer's page holds them: nothing is computed here, the page reads and verifies these bytes itself.

Each file becomes one element that runs nothing: gzip, then base64. A browser unpacks gzip without help, and one changed byte is noticed.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterator
from pathlib import Path

from formation.errors import EnvironmentFault
from formation.evidence import container
from formation.explorer import page

MOST_BYTES = 1 << 28  # of a bundle's files together: a page is held in memory, as text and as bytes
ELEMENT = '<script type="application/gzip" data-file="{name}">{text}</script>\n'  # of no type that a browser would run


def explorer(path: Path) -> bytes:
    """explorer.html with the bundle at `path` in it, a folder or a ZIP. Raises EnvironmentFault, also for a bundle too big for one page."""
    try:
        with container.open_container(path) as opened:
            contents = opened.contents()
            check_size(path, sum(contents.sizes.values()))
            return page.explorer_page(named(path) + "".join(packed(opened, contents)))
    except container.ContainerRefusal as refusal:
        raise EnvironmentFault(f"{path}: {refusal}", hint="formation verify says what is wrong with it") from refusal


def check_size(path: Path, size_bytes: int) -> None:
    if size_bytes > MOST_BYTES:
        hint = "rows/ is most of a bundle: one recorded with --rows none is smaller"
        raise EnvironmentFault(f"{path}: expected at most {MOST_BYTES} bytes for one page, got {size_bytes}", hint=hint)


def packed(opened: container.Container, contents: container.Contents) -> Iterator[str]:
    """An element for each file, in the order of names. The same bytes for the same file: no time stands in them."""
    for name in contents.sizes:  # each of container.py's list: no name that markup could be made of
        data = gzip.compress(container.read(opened, contents, name), 9, mtime=0)
        yield ELEMENT.format(name=name, text=base64.b64encode(data).decode())


def named(path: Path) -> str:
    """The bundle's name, which is anyone's text, in the form of a file's content"""
    name = base64.b64encode(path.resolve().name.encode("utf-8", "replace")).decode()
    return f'<script type="text/plain" data-name="{name}"></script>\n'
