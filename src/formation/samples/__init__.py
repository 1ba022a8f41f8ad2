"""The checkpoints that ship with the package, each a folder in a published layout with its own README."""

from __future__ import annotations

from pathlib import Path

from formation.errors import UsageError

NAMES = ("kimi_k25", "qwen3_next")


def folder(name: str) -> Path:
    """Where the named sample lies; UsageError for a name that is not in `NAMES`."""
    if name not in NAMES:
        raise UsageError(f"sample {name!r}: expected one of {', '.join(NAMES)}", hint="formation demo uses kimi_k25")
    return Path(__file__).parent / name
