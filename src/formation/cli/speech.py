"""How the program speaks. stdout carries the result; stderr carries everything said about it.

On a terminal, progress is one live line that is redrawn; elsewhere it is a plain line every ten seconds. Errors are
`formation: expected X, got Y`, then `hint: …`. Text that comes from a model or a file is shown without control characters.
"""

from __future__ import annotations

import sys
import time
import unicodedata
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from formation.errors import FormationError
    from formation.run.executor import Progress

PLAIN_EVERY_SECONDS = 10.0
LIVE_EVERY_SECONDS = 0.1


def say_error(error: FormationError) -> int:
    print(f"formation: {harmless(str(error))}", file=sys.stderr)
    if error.hint:
        print(f"hint: {harmless(error.hint)}", file=sys.stderr)
    return error.exit_code


def say(text: str = "") -> None:
    print(text, file=sys.stderr, flush=True)


def harmless(text: str) -> str:
    """Control, format and surrogate characters made visible, so that no text can move the cursor or hide itself."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co") else f"\\u{ord(c):04x}" for c in text)


def guesses(right: int, wrong: int) -> str:
    """How many of the bytes read were read on guesses; empty for none"""
    from formation.run.machine import show_bytes

    return f" ({show_bytes(right)} of it on right guesses, {show_bytes(wrong)} on wrong ones)" if right or wrong else ""


class LiveLine:
    """One line about long work: redrawn on a terminal, a plain one every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Whether enough time has passed; if so, it begins anew"""
        now = time.monotonic()
        if now - self._last < (LIVE_EVERY_SECONDS if self._live else PLAIN_EVERY_SECONDS):
            return False
        self._last = now
        return True

    def show(self, line: str) -> None:
        if self._live:
            print("\r\x1b[K" + harmless(line), end="", file=sys.stderr, flush=True)
        else:
            say(harmless(line))

    def end(self) -> None:
        if self._live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def progress_line(p: Progress, done: int, wanted: int, since: float) -> str:
    """One sentence: where the pass is, what was read, how fast, and how long the rest will take."""
    seconds = max(time.monotonic() - since, 1e-9)
    where = {"layer": f"layer {p.layer + 1}/{p.layers}", "head": "lm_head", "done": "done"}[p.stage]
    what = f"token {done + 1}/{wanted}" if done else f"prompt of {p.positions}"
    read = f"{p.bytes_read / 1e9:.2f} GB read, {p.bytes_read / 1e9 / seconds:.2f} GB/s"
    left = _seconds_left(p, done, wanted, seconds)
    return " · ".join([what, where, read] + ([f"{_duration(left)} left{'' if done else ' for the prompt'}"] if left is not None else []))


def _seconds_left(p: Progress, done: int, wanted: int, seconds: float) -> float | None:
    """From the mean pace so far: of the tokens once one is done, of the prompt's layers before that."""
    if done:
        through = done + p.layer / p.layers
        return seconds / through * (wanted - through)
    return p.seconds / p.layer * (p.layers - p.layer) if p.layer else None


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s" if minutes else f"{rest} s"


class LiveText:
    """Streams a model's text to stdout while progress goes to stderr, without one tearing the other apart.

    Where both are the same terminal the text is redrawn above the progress line, and printed for good at the end;
    otherwise the text is written to stdout as it comes.
    """

    def __init__(self, wanted: int, *, echo: bool = True) -> None:
        self.wanted = wanted
        self.done = 0
        self.text = ""
        self.echo = echo
        self._began = self._last = time.monotonic()
        self._live: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True, highlight=False, markup=False)
            self._live = Live(console=console, transient=True, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()
            if self.echo:
                sys.stdout.write(self.text)
        if self.echo and (self.text or not kind):
            sys.stdout.write("\n")
            sys.stdout.flush()

    def add(self, text: str) -> None:
        """More text of the model, at the end of a token."""
        self.done += 1
        self.add_rest(text)

    def add_rest(self, text: str) -> None:
        """Text without a token of its own: what a decoder still held at the end."""
        shown = harmless(text)
        self.text += shown
        if self.echo and not self._live:
            sys.stdout.write(shown)
            sys.stdout.flush()

    def progress(self, p: Progress) -> None:
        now = time.monotonic()
        if now - self._last < (LIVE_EVERY_SECONDS if self._live else PLAIN_EVERY_SECONDS):
            return
        self._last = now
        line = progress_line(p, self.done, self.wanted, self._began)
        if self._live:
            from rich.text import Text

            tail = "\n".join(self.text.splitlines()[-12:]) if self.echo else ""
            self._live.update(Text(f"{tail}\n{line}" if tail else line), refresh=True)
        else:
            say(line)
