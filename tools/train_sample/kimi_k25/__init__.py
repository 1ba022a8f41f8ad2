"""The sample in Kimi K2.5's layout: latent attention, a router with a bias, int4 experts."""

from ..kind import Kind
from . import tokens

SHOWN = (
    "The for statement is used to",
    "The while statement",
    "The with statement",
    "The import statement",
    "A function definition",
    "Functions are",
    "Objects are",
    "Comparisons can be chained",
    "Lambda expressions",
    "Assignment statements are used to",
)


KIND = Kind(
    name="kimi_k25",
    wire=tokens.WIRE,
    shown=SHOWN,
    learn=tokens.learn,
    load=tokens.load,
    rows=16,
    digits=(5, 6),
)
