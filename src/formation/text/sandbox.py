"""The environment a chat template is rendered in: jinja2's immutable sandbox, as transformers sets it up, with limits.

Bounded: output characters, loop turns, products and powers. Not bounded: the memory one filter or string method may take
(`'%999999999d' | format`); a template comes with the weights that are about to be run, it is not sent by a user.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from formation.errors import PromptError

MAX_OUTPUT_CHARS = 1 << 24
MAX_TURNS = 1 << 18
DATE_HINT = "say which day it is: --today YYYY-MM-DD, in Python today=; no clock is asked, so that the prompt is the same tomorrow"
TURN = "formation_turn"  # the name under which a template's loops call their counter


class GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}`, with which a publisher marks text to train on, is its content."""

    tags = {"generation"}  # noqa: RUF012 (declared so by jinja2)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Block trimming, loop controls and `tojson` as chat templates expect them."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", GenerationTag])
        self.filters["tojson"] = to_json
        self.globals["raise_exception"] = refuse

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or _product_size(left, right) > MAX_OUTPUT_CHARS:
            raise SecurityError(f"expected products up to {MAX_OUTPUT_CHARS}, got {operator} over the limit")
        return super().call_binop(context, operator, left, right)


def _product_size(left: Any, right: Any) -> int:
    sizes = [len(value) if isinstance(value, (str, list, tuple)) else value for value in (left, right)]
    return abs(sizes[0] * sizes[1]) if all(isinstance(size, int) for size in sizes) else 0


def to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: tuple[str, str] | None = None, sort_keys: bool = False
) -> str:
    """JSON without HTML escapes (jinja2's own filter would write `<` as an escape)."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def refuse(message: str) -> None:
    """What `raise_exception` of a template does."""
    raise PromptError(f"the chat template refuses these messages: {message}", hint="see the checkpoint's chat template")


class Clock:
    """`strftime_now` of a template: the declared date and no other, so that a prompt does not depend on when it was rendered."""

    def __init__(self, today: date | None) -> None:
        self._today = today

    def __call__(self, form: str) -> str:
        if self._today is None:
            raise PromptError("expected a declared date, which the chat template asks for, got none", hint=DATE_HINT)
        return self._today.strftime(form)


class Turns:
    """Counts the turns of all loops of one rendering."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self) -> None:
        self._count += 1
        if self._count > MAX_TURNS:
            raise SecurityError(f"expected at most {MAX_TURNS} loop turns, got more")


class CountTurns(NodeTransformer):
    """Puts a call of the counter at the start of every loop body and macro body."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        node.body.insert(0, _turn(node.lineno))
        return self.generic_visit(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        node.body.insert(0, _turn(node.lineno))
        return self.generic_visit(node)


def _turn(line: int) -> nodes.Node:
    call = nodes.Call(nodes.Name(TURN, "load", lineno=line), [], [], None, None, lineno=line)
    return nodes.ExprStmt(call, lineno=line)


def joined(parts: Iterable[str]) -> str:
    """The parts as one string. Raises SecurityError as soon as they exceed the limit."""
    kept: list[str] = []
    length = 0
    for part in parts:
        length += len(part)
        if length > MAX_OUTPUT_CHARS:
            raise SecurityError(f"expected at most {MAX_OUTPUT_CHARS} characters of output, got more")
        kept.append(part)
    return "".join(kept)
