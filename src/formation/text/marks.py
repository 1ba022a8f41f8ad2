"""How the special tokens a template writes are told from the same text in a message.

Every special token gets a mark: one private-use character that occurs in no input of the rendering. In the parsed template,
the names of special tokens inside literal text are replaced by their marks; messages are left exactly as they are. In the
rendered text a mark can then only come from the template, and everything else is plain text. Messages are never altered, so that
templates which strip, split, search or measure them work as published.

A literal that is only compared with or searched in other text (`'</think>' in content`) must stay as it is, or it would not be
found: see `MarkLiterals`. Where that classification is wrong for some template, the rendering is refused (`chat.py`), not changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from formation.errors import PromptError

_FIRST, _LAST = 0xF0000, 0x10FFFD  # private use planes 15 and 16
_WRITING_METHODS = frozenset({"join", "format"})  # their arguments end up in the output
_WRITING_FILTERS = frozenset({"default", "d", "join", "format"})


@dataclass(frozen=True)
class Marks:
    """names[i] is a special token's name, characters[i] its mark. Names are ordered longest first."""

    names: tuple[str, ...]
    characters: str

    @cached_property
    def _of(self) -> dict[str, str]:
        return dict(zip(self.names, self.characters, strict=True))

    @cached_property
    def _name(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self.names)) or r"(?!)")

    @cached_property
    def _mark(self) -> re.Pattern[str]:
        return re.compile(f"([{self.characters}])" if self.characters else r"((?!))")

    @cached_property
    def _names_of(self) -> dict[int, str]:
        return {ord(mark): name for name, mark in self._of.items()}

    def mark(self, text: str) -> str:
        """`text` with each special token's name replaced by its mark."""
        return self._name.sub(lambda match: self._of[match[0]], text)

    def restore(self, text: str) -> str:
        """The inverse of `mark`."""
        return text.translate(self._names_of)

    def found(self, text: str) -> set[str]:
        """Names of special tokens spelt out in `text`, overlapping ones included."""
        return {name for name in self.names if name in text}

    def neutral(self, text: str) -> str:
        """`text` with each special token's name overwritten by as many letters x."""
        return self._name.sub(lambda match: "x" * len(match[0]), text)

    def split(self, text: str) -> Iterator[tuple[str, bool]]:
        """The parts of rendered text in order: (plain text, False) or (name of a special token, True)."""
        for part in self._mark.split(text):
            if part:
                name = self.restore(part)
                yield name, len(part) == 1 and part in self.characters


def choose_marks(names: Iterable[str], inputs: Iterable[str]) -> Marks:
    """Marks for `names` out of the private-use characters that no input holds: the lowest ones, so the choice is repeatable.

    Raises PromptError when too few are left.
    """
    ordered = tuple(sorted(names, key=lambda name: (-len(name), name)))
    used = {ord(character) for text in inputs if not text.isascii() for character in text}
    free = (chr(code) for code in range(_FIRST, _LAST + 1) if code not in used and code & 0xFFFE != 0xFFFE)
    characters = "".join(mark for mark, _ in zip(free, ordered, strict=False))
    if len(characters) < len(ordered):
        raise PromptError("the messages use too many private-use characters to be rendered", hint="remove characters above U+F0000")
    return Marks(ordered, characters)


class MarkLiterals(NodeTransformer):
    """Marks the literal text of a parsed template, except where it is compared, searched for or used as a key."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:
        node.data = self._marks.mark(node.data)
        return node

    def visit_Const(self, node: nodes.Const) -> nodes.Node:
        if isinstance(node.value, str):
            node.value = self._marks.mark(node.value)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        node.node = self.visit(node.node)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        node.value = self.visit(node.value)
        return node

    def visit_Call(self, node: nodes.Call) -> nodes.Node:
        method = node.node.attr if isinstance(node.node, nodes.Getattr) else None
        if method is None or method in _WRITING_METHODS:
            return self.generic_visit(node)
        node.node = self.visit(node.node)
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        if node.name in _WRITING_FILTERS:
            return self.generic_visit(node)
        if node.node is not None:
            node.node = self.visit(node.node)
        return node
