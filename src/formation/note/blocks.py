"""What a section of a note consists of: paragraphs, facts, tables, figures and commands.

A value is prose of our own, in which `…` is set as code, or Mono: a digest, a reference or what a model wrote, set letter by letter as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from formation.note.marks import Figure

CHUNK = 48  # letters without a space, after which a line may end


@dataclass(frozen=True)
class Mono:
    text: str

    def document(self) -> dict[str, str]:
        return {"mono": breakable(self.text)}


Value = str | Mono


def value_of(value: Value) -> Any:
    return value.document() if isinstance(value, Mono) else value


def breakable(text: str) -> str:
    """A zero-width space in what is too long for a line; digests are not"""
    words = text.split(" ")
    return " ".join(w if len(w) <= 1.5 * CHUNK else "\u200b".join(w[n : n + CHUNK] for n in range(0, len(w), CHUNK)) for w in words)


@dataclass(frozen=True)
class Column:
    """`reference` says where in the ledger the column's values stand, below its name; `share` is of the width, 0 for as wide as needed"""

    name: str
    reference: str = ""
    right: bool = False
    share: float = 0.0


@dataclass
class Section:
    title: str
    blocks: list[dict[str, Any]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        return {"title": self.title, "blocks": self.blocks}

    def text(self, *paragraphs: str) -> Section:
        self.blocks += [{"kind": "text", "text": text} for text in paragraphs]
        return self

    def facts(self, rows: Iterable[tuple[str, Value, str]]) -> Section:
        """Name, value, and where it stands"""
        self.blocks.append({"kind": "facts", "rows": [[name, value_of(value), where] for name, value, where in rows]})
        return self

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[Value]]) -> Section:
        heads = [{"name": c.name, "reference": c.reference, "right": c.right, "share": c.share} for c in columns]
        self.blocks.append({"kind": "table", "columns": heads, "rows": [[value_of(value) for value in row] for row in rows]})
        return self

    def figure(self, figure: Figure, caption: str) -> Section:
        self.blocks.append({"kind": "figure", "figure": figure.document(), "caption": caption})
        return self

    def commands(self, rows: Iterable[tuple[str, str]]) -> Section:
        """A command and what it does"""
        self.blocks.append({"kind": "commands", "rows": [[command, what] for command, what in rows]})
        return self
