"""The sample in Qwen3-Next's layout: gated delta nets, a softmax router, BF16."""

from ..kind import Kind
from . import tokens

SHOWN = (
    "The for statement is used to",
    "The while statement",
    "The if statement",
    "The with statement",
    "A function definition",
    "Objects are",
    "Comparisons can be chained",
    "Lambda expressions",
    "Assignment statements are used to",
    "A list is",
)


KIND = Kind(
    name="qwen3_next",
    wire=tokens.WIRE,
    shown=SHOWN,
    learn=tokens.learn,
    load=tokens.load,
    rows=12,
    digits=(5, 5),
)
