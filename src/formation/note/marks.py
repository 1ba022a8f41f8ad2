"""What a figure is made of: rectangles, lines and words at places in points, which the template draws and nothing else touches.

Drawn by typst itself: the same bytes on every machine, in the typeface of the text, and no plotting library. y grows downwards. Places are
rounded to a thousandth of a point, so that the last bit of a logarithm changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any

INK, FAINT, PAPER, GRID = "#222222", "#6b7280", "#ffffff", "#d5dae1"
BLUE, YELLOW, RED = "#004488", "#ddaa33", "#bb5566"  # told apart with any colour vision, and in grey
PALE, DARK = (0xEE, 0xF2, 0xF7), (0x00, 0x33, 0x6B)  # ends of the ramp
LEFT, CENTRE, RIGHT = "left", "centre", "right"
SMALL = 6.5  # points
NARROW = 1e-200  # a span without ticks


@dataclass(frozen=True)
class Rect:
    x: float
    y: float
    w: float
    h: float
    fill: str = ""
    stroke: str = ""
    kind: str = "rect"


@dataclass(frozen=True)
class Line:
    x: float
    y: float
    to_x: float
    to_y: float
    stroke: str = GRID
    thickness: float = 0.4
    dashed: bool = False
    kind: str = "line"


@dataclass(frozen=True)
class Words:
    """`y` is the middle of the line, `x` where it begins, has its middle or ends"""

    x: float
    y: float
    text: str
    anchor: str = LEFT
    fill: str = INK
    mono: bool = False
    size: float = SMALL
    kind: str = "words"


Mark = Rect | Line | Words


@dataclass(frozen=True)
class Figure:
    width: float
    height: float
    marks: list[Mark] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        marks = [{name: settled(value) for name, value in asdict(mark).items()} for mark in self.marks]
        return {"width": settled(self.width), "height": settled(self.height), "marks": marks}


def settled(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value


@dataclass(frozen=True)
class Scale:
    """From values to places; either end may be the larger one."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        return self.start + (self.end - self.start) * ((value - self.low) / span if span else 0.5)

    def ticks(self, most: int = 5) -> list[float]:
        """Round numbers between the ends"""
        span = abs(self.high - self.low)
        if span < NARROW:
            return [self.low]
        step = next(s for s in steps(span / most) if span / s <= most)
        first, last = math.ceil(min(self.low, self.high) / step), math.floor(max(self.low, self.high) / step)
        return [n * step for n in range(first, last + 1)]


def steps(least: float) -> Iterator[float]:
    """1, 2, 5, 10, … times a power of ten, from about `least` on"""
    for power in count(exponent(least) - 1):
        yield from (float(f"{n}e{power}") for n in (1, 2, 5))


def exponent(value: float) -> int:
    """Of ten, when rounded to one digit; no logarithm, whose last bit is a machine's own"""
    return int(f"{value:.0e}".partition("e")[2])


def ramp(share: float) -> str:
    """Pale at 0, dark at 1, evenly in between"""
    share = min(max(share, 0.0), 1.0)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(PALE, DARK, strict=True))


def on(share: float) -> str:
    """The colour of words on that of the ramp"""
    return PAPER if share > 0.45 else INK


def axis(scale: Scale, left: float, right: float) -> Iterator[Mark]:
    """Horizontal lines at round values, labelled at their left"""
    ticks = scale.ticks()
    places = max(0, -exponent(ticks[1] - ticks[0])) if len(ticks) > 1 else 2
    for value in ticks:
        yield Line(left, scale(value), right, scale(value))
        yield Words(left - 3, scale(value), signed(f"{value:.{places}f}"), RIGHT, FAINT)


def signed(text: str) -> str:
    """With a minus sign as long as a plus sign"""
    return text.replace("-", "−")


def spaced(count: int, most: int) -> range:
    """Numbers 0 to count - 1 that are labelled, evenly, at most about `most`"""
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, count or 1) if count <= s * most)
    return range(0, count, step)
