"""Two bundles in one page of the explorer, opened once both are verified and compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from explorer_page import Opened, looked_at

from formation.explorer import view

SECOND = "#evidence-b.passed, #evidence-b.failed"


def two(browser: Any, folder: Path, a: Path, b: Path, fragment: str = "") -> Iterator[Opened]:
    for found in looked_at(browser, folder, view.explorer(a, b), fragment):
        found.page.wait_for_selector(SECOND)
        found.page.wait_for_selector("#compare .departure >> text=differ")
        yield found


def departure(opened: Opened) -> str:
    return opened.text("#compare .departure")
