"""Conducting a dialogue: turns in alternation, every token an event, until a rule, an error or Ctrl-C ends it.

    NAME.dlg/events.jsonl       the log: all that the dialogue is (events.py)
    NAME.dlg/transcript.md      what was said, for people; transcript.jsonl, with the prompts
    NAME.dlg/times.jsonl        when (times.py)

What happens next follows from the events so far and nothing else. So whoever reads the log of a dialogue that was cut off, at any event, goes on to
the same bytes; but a rule of seconds or bytes read knows more than that, and so does a server.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from formation.dialogue import events, times
from formation.dialogue.event_table import FORMAT, NO_PROMPT
from formation.dialogue.events import Event, Log
from formation.dialogue.interrupts import Interrupts
from formation.dialogue.side import CONTEXT, Piece, Side, SideFault, Speech
from formation.dialogue.so_far import AGAIN, CUT_OFF, FAILED, GIVEN_UP, STOPPED, SoFar
from formation.dialogue.stops.conditions import Said
from formation.dialogue.stops.rules import Evidence, Stops
from formation.dialogue.stops.words import DEFAULT, read_rule
from formation.dialogue.times import Clock, Times, WallClock
from formation.dialogue.transcripts import jsonl, markdown
from formation.dialogue.transcripts.transcript import Transcript, TranscriptRefusal
from formation.errors import EnvironmentFault, EvidenceError, FormationError, UsageError
from formation.kernels import golden
from formation.ledger import canonical, files
from formation.ledger.fields import absent
from formation.version import __version__

MOST_ATTEMPTS = 5  # at one turn, if no rule ends the dialogue before
TEXT, LOSSLESS = "transcript.md", "transcript.jsonl"
Watch = Callable[[Event, SoFar], None]  # called after each event that is on disk


@dataclass(frozen=True)
class Terms:
    """What the first side is given to begin with, who that is, and what ends it. `how` is empty (an empty message), text, or template (nothing)."""

    first: int = 0
    how: str = "empty"
    text: str = ""
    stops: tuple[str, ...] = DEFAULT

    def head(self, sides: Sequence[Side]) -> dict[str, Any]:
        """The body of the first event. Raises UsageError for a rule that is none, and for names that a transcript cannot hold."""
        return {
            "format": FORMAT, "formation": __version__, "contract": golden.CONTRACT, "sides": [side.describe() for side in sides],
            "first": self.first, "kickoff": {"how": self.how, "text": self.text}, "stops": [str(read_rule(rule)) for rule in self.stops],
        }  # fmt: skip


def check_names(names: Sequence[str]) -> None:
    """Raises UsageError for two names that a transcript could not tell apart."""
    try:
        markdown.write(Transcript((names[0], names[1]), ()))
    except TranscriptRefusal as refusal:
        raise UsageError(f"names of the sides: {refusal}".removesuffix(": write JSONL")) from None


@dataclass
class Conductor:
    """Made by `begin` and `resume`; leaving its block closes the log. `verdict` is why the dialogue ends, once that is known."""

    folder: Path
    sides: Sequence[Side]
    log: Log
    times: Times
    stops: Stops
    watch: Watch | None = None
    interrupts: Interrupts = field(default_factory=Interrupts)
    so_far: SoFar = field(default_factory=SoFar)
    verdict: Evidence | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.log.close()

    def run(self) -> dict[str, Any]:
        """Goes on to the end: the body of dialogue_end. Raises what the disk raises; what a side raises is an event."""
        with self.interrupts:
            while self.so_far.end is None:
                self._go_on()
        self._write_transcripts()
        return self.so_far.end

    def _go_on(self) -> None:
        turn, interrupted = self.so_far.open, self.interrupts.times
        if self.verdict is None and interrupted and turn is None:
            self.verdict = self.stops.interrupted(interrupted)
        if turn is None and self.verdict:
            self.append("dialogue_end", {"messages": len(self.so_far.ended), "evidence": self.verdict.document()})
        elif turn is None:
            self._speak(self.so_far.next_side)
        elif self.verdict or turn.is_given_up:
            self._end_turn(FAILED if turn.last_fault else STOPPED)
        elif turn.tokens and not self.sides[turn.side].continues:
            self._fault("the dialogue was cut off in the middle of this turn", CUT_OFF)
        else:
            self._speak(turn.side)

    def _speak(self, side: int) -> None:
        """The next turn, or what is left of the one that is open"""
        speech: Speech | None = None
        error: FormationError | None = None
        try:
            speech = self.sides[side].speak(self.so_far.context(side), self.so_far.open.tokens if self.so_far.open else ())
        except FormationError as caught:
            error = caught
        self._begin_turn(side, speech.prompt if speech else {**absent_prompt(), "left_out": 0})
        if speech:
            self._listen(speech)
        elif error:
            self._failed(error)

    def _begin_turn(self, side: int, prompt: dict[str, Any]) -> None:
        turn = self.so_far.open
        if turn is None:
            self.append("turn", {"turn": len(self.so_far.ended) + 1, "side": side, **prompt})
        elif found := difference(turn.prompt, prompt):
            raise EvidenceError(f"turn {turn.number}: expected {found[0]}, as the log has it, got {found[1]}", hint="it is no log of these sides")

    def _listen(self, speech: Speech) -> None:
        pieces = iter(speech)
        while self.verdict is None:
            try:
                with self.interrupts.allowed():
                    piece = next(pieces, None)
            except FormationError as error:
                return self._failed(error)
            except KeyboardInterrupt:
                self.verdict = self.stops.interrupted(self.interrupts.times)
                return None
            if piece is None:
                return self._end_turn(speech.ended)
            self._token(piece)
        return None

    def _token(self, piece: Piece) -> None:
        turn = self.so_far.open
        assert turn is not None
        self.times.disk_bytes += piece.disk_bytes
        self.append("token", {"turn": turn.number, "index": len(turn.tokens), **piece.event})
        if self.interrupts.times and self.verdict is None:
            self.verdict = self.stops.interrupted(self.interrupts.times)

    def _failed(self, error: FormationError) -> None:
        turn = self.so_far.open
        again = isinstance(error, SideFault) and error.again and turn is not None and len(turn.faults) + 1 < MOST_ATTEMPTS
        self._fault(f"{error}{f'; {error.hint}' if error.hint else ''}", AGAIN if again else GIVEN_UP)

    def _fault(self, sentence: str, then: str) -> None:
        turn = self.so_far.open
        assert turn is not None
        self.append("fault", {"turn": turn.number, "attempt": len(turn.faults) + 1, "then": then, "sentence": sentence})

    def _end_turn(self, reason: str) -> None:
        turn = self.so_far.open
        assert turn is not None
        self.append("turn_end", {"turn": turn.number, "reason": reason, "tokens": len(turn.tokens), "text": self.so_far.text()})
        self._write_transcripts()

    # ---- what follows from it

    def append(self, kind: str, body: dict[str, Any]) -> None:
        event = self.log.append(kind, body)
        self.hear(event, self.times.seconds, self.times.disk_bytes)
        self.times.note(event.number, event.kind)
        if self.watch:
            self.watch(event, self.so_far)

    def hear(self, event: Event, seconds: float | None = None, disk_bytes: int | None = None) -> None:
        """Takes an event, and judges whether the dialogue is over"""
        self.so_far.take(event)
        amounts = self.so_far.amounts(seconds, disk_bytes)
        if event.kind in ("token", "fault"):
            self.verdict = self.stops.measured(amounts)
        elif event.kind == "turn_end":
            last = self.so_far.ended[-1]
            if last.reason == STOPPED:
                self.verdict = self.verdict or self.stops.interrupted(1)
            elif last.reason == FAILED:
                self.verdict = self.verdict or Evidence("error", last.number - 1, True, amounts=(("errors", amounts.errors),))
            else:
                self.verdict = self.stops.said(Said(last.number, last.side, last.text), amounts)
                if last.reason == CONTEXT and not self.verdict:
                    self.verdict = Evidence("context", last.number - (not last.is_message), not last.is_message)

    def _write_transcripts(self) -> None:
        """Both forms, or only the lossless one: not every dialogue has a text that is read in one way."""
        stamps = {"started": self.times.started, "ended": self.times.ended}
        files.write_whole(self.folder / LOSSLESS, jsonl.write(self.so_far.transcript(prompts=True, **stamps)))
        try:
            text = markdown.write(self.so_far.transcript(prompts=False, **stamps))
        except TranscriptRefusal:
            (self.folder / TEXT).unlink(missing_ok=True)
        else:
            files.write_whole(self.folder / TEXT, text)


def absent_prompt() -> dict[str, Any]:
    return {"prompt_tokens": absent(NO_PROMPT), "prompt_sha256": absent(NO_PROMPT)}


def begin(folder: Path, sides: Sequence[Side], terms: Terms, *, watch: Watch | None = None, clock: Clock | None = None) -> Conductor:
    """A new dialogue in `folder`, which must hold none. Raises UsageError and EnvironmentFault."""
    check_names([side.name for side in sides])
    head = terms.head(sides)
    conductor = Conductor(
        folder, sides, events.create(folder), Times(folder / times.NAME, clock or WallClock()), stops_of(head), watch
    )  # fmt: skip
    conductor.append("dialogue", head)
    return conductor


def resume(folder: Path, sides: Sequence[Side], *, watch: Watch | None = None, clock: Clock | None = None) -> Conductor:
    """One that was cut off. Raises EvidenceError for sides that are not those of its log, and EnvironmentFault."""
    log, found = events.resume(folder)
    if not found:
        log.close()
        raise EnvironmentFault(f"{folder}: expected a dialogue that was begun, got an empty log", hint="remove the folder and begin again")
    try:
        check_sides(found[0].body["sides"], [side.describe() for side in sides])
        files.sweep(folder)
        known = times.resume(folder / times.NAME, clock or WallClock(), len(found), complete=found[-1].kind == "dialogue_end")
        conductor = Conductor(folder, sides, log, known, stops_of(found[0].body), watch)
        for event in found[:-1]:
            conductor.hear(event)
        conductor.hear(found[-1], known.seconds, known.disk_bytes)
    except BaseException:
        log.close()
        raise
    return conductor


def check_sides(known: Sequence[dict[str, Any]], given: Sequence[dict[str, Any]]) -> None:
    for letter, theirs, ours in zip("AB", known, given, strict=True):
        if found := difference(theirs, ours):
            raise EvidenceError(f"side {letter}: expected {found[0]}, as the dialogue was begun with, got {found[1]}")


def difference(expected: Any, got: Any, name: str = "") -> tuple[str, str] | None:
    """The first place where two records of the same kind differ, with what is expected there and what is found"""
    if expected == got:
        return None
    if isinstance(expected, dict) and isinstance(got, dict) and expected.keys() == got.keys():
        return next(filter(None, (difference(value, got[key], f"{name}.{key}" if name else key) for key, value in expected.items())), None)
    return f"{name} {canonical.quoted(expected)}", canonical.quoted(got)


def stops_of(head: dict[str, Any]) -> Stops:
    return Stops([read_rule(rule) for rule in head["stops"]])
