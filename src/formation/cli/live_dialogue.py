"""A dialogue while it goes on: what the sides say on stdout, how far they are on stderr.

On a terminal each token is coloured by its surprisal, forced ones stand in ⟦ ⟧, and a line says which layer is computed and how long the turn may
take. Elsewhere the text is plain.
"""

from __future__ import annotations

import codecs
import sys
import time
from base64 import b64decode
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from formation.cli.speech import LIVE_EVERY_SECONDS, PLAIN_EVERY_SECONDS, harmless, progress_line, say

if TYPE_CHECKING:
    from formation.dialogue.events import Event
    from formation.dialogue.so_far import SoFar
    from formation.run.executor import Progress

SPEAKERS = ("bold cyan", "bold magenta")
COLOURS = ((0.1, "dim"), (1.0, ""), (3.0, "yellow"), (6.0, "dark_orange"), (float("inf"), "red"))  # up to so many nats of surprisal
TAIL_LINES = 12


def surprisal_nats(token: dict[str, Any]) -> float | None:
    """Of the event `token`: under the model, or what a server reports"""
    measured, reported = token["measured"], token["reported"]
    told = measured.get("model", reported).get("logprob_nats")
    return -told if isinstance(told, int | float) else None


def style_of(token: dict[str, Any]) -> str:
    nats = surprisal_nats(token)
    return "" if nats is None else next(style for most, style in COLOURS if nats <= most)


class LiveDialogue:
    def __init__(self, *, echo: bool = True) -> None:
        self._echo = echo
        self._began = self._last = time.monotonic()
        self._done = self._wanted = self._side = self._read_before = 0
        self._decoder: Any = None
        self._pieces: list[tuple[str, str]] = []  # text and style
        self._name = ""
        self._live: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()

    def resumed(self, so_far: SoFar) -> None:
        """What was said before is not shown again, but the turn that goes on is, from its beginning."""
        say(f"goes on after {len(so_far.ended)} turns\n" if so_far.end is None else "it is complete\n")
        if so_far.open:
            self._begin(so_far)
            for token in so_far.open.tokens:
                self._add(token, so_far)

    def watch(self, event: Event, so_far: SoFar) -> None:
        if event.kind == "turn":
            self._begin(so_far)
        elif event.kind == "token":
            self._add(event.body, so_far)
        elif event.kind == "fault":
            self._fail(event.body)
        elif event.kind == "turn_end":
            self._finish()

    def progress(self, p: Progress) -> None:
        if p.stage == "layer" and p.layer == 0 and not self._done:
            self._read_before = p.bytes_read  # the first pass of the turn
        now = time.monotonic()
        if now - self._last < (LIVE_EVERY_SECONDS if self._live else PLAIN_EVERY_SECONDS):
            return
        self._last = now
        self._read_before = min(p.bytes_read, self._read_before)
        p = replace(p, bytes_read=p.bytes_read - self._read_before)
        line = f"{self._name} · {progress_line(p, self._done, max(self._wanted, 1), self._began)}"
        if self._live:
            self._draw(line)
        else:
            say(harmless(line))

    # ---- a turn

    def _begin(self, so_far: SoFar) -> None:
        assert so_far.open is not None
        self._side = so_far.open.side
        side = so_far.head["sides"][self._side]
        self._name, self._wanted, self._done, self._began = side["name"], side["most_tokens"], 0, time.monotonic()
        self._pieces = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True, highlight=False, markup=False), transient=True, auto_refresh=False)
            self._live.start()
        else:
            self._write([(f"{self._name}\n", SPEAKERS[self._side])])

    def _add(self, token: dict[str, Any], so_far: SoFar) -> None:
        self._done += 1
        ends = token["id"] in so_far.head["sides"][self._side]["stop_ids"]
        text = harmless("" if ends else self._decoder.decode(b64decode(token["bytes"])))
        forced = token["measured"].get("method") == "forced"
        self._pieces.append((f"⟦{text}⟧" if forced else text, style_of(token)))
        if not self._live:
            self._write(self._pieces[-1:])

    def _fail(self, fault: dict[str, Any]) -> None:
        """What was said in this turn is void."""
        void, self._pieces, self._done = self._pieces, [], 0
        if not self._live and void:
            self._write([("\n", "")])
        say(harmless(f"{self._name}: {fault['sentence']}{'; once more' if fault['then'] == 'again' else ''}"))

    def _finish(self) -> None:
        rest = [(harmless(self._decoder.decode(b"", final=True)), ""), ("\n\n", "")]
        if self._live:
            self.end()
            self._write([(f"{self._name}\n", SPEAKERS[self._side]), *self._pieces, *rest])
        else:
            self._write(rest)

    def end(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    # ---- where it is shown

    def _write(self, pieces: list[tuple[str, str]]) -> None:
        if not self._echo:
            return
        if sys.stdout.isatty():
            from rich.console import Console

            Console(highlight=False, markup=False, soft_wrap=True).print(styled(pieces), end="")
        else:
            sys.stdout.write("".join(text for text, _ in pieces))
        sys.stdout.flush()

    def _draw(self, line: str) -> None:
        from rich.console import Group
        from rich.text import Text

        said = styled([(f"{self._name}\n", SPEAKERS[self._side]), *self._pieces]).split("\n")[-TAIL_LINES:] if self._echo else []
        self._live.update(Group(*said, Text(harmless(line))), refresh=True)


def styled(pieces: list[tuple[str, str]]) -> Any:
    from rich.text import Text

    return Text.assemble(*pieces)
