"""events.jsonl: what happened in a dialogue, one canonical JSON line for each event, chained by digests, on disk before the next event.

    {"body":{…},"event":0,"kind":"dialogue","previous":"0000…"}
    {"body":{…},"event":1,"kind":"turn","previous":"<SHA-256 of the line before, without its line feed>"}

The log is whole if its last event is `dialogue_end`. What was cut off while a line was being written is dropped by the reader and by who goes on; a
line that is there to its line feed and is not what must follow is refused, and named. Nothing in it depends on clocks or machines but amounts that
a rule compared at the end: a dialogue that was cut off and resumed, or had again elsewhere, has the same bytes. The kinds: event_table.py.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from formation.dialogue.event_table import EventRefusal, check_body
from formation.errors import EnvironmentFault, EvidenceError
from formation.ledger import canonical
from formation.ledger.reader import disk_fault, open_for_reading
from formation.ledger.store import make_folder, sync_folder

NAME = "events.jsonl"
LIMITS = canonical.Limits(size_bytes=1 << 24, depth=16)  # of one line
FIRST = "0" * 64
FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True)
class Event:
    number: int
    kind: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Survey:
    """What a log holds: `events` whole lines in `size_bytes`, the digest of the last, and the bytes behind it of a line that was cut off."""

    events: int
    size_bytes: int
    last_sha256: str
    complete: bool
    dropped_bytes: int


# ---- what may follow


class Course:
    """What the events so far allow as the next one: a dialogue begins, turns follow each other, tokens are in turns, and an end is the end."""

    def __init__(self) -> None:
        self.number = 0
        self.previous = FIRST
        self.ended = False
        self._turn = 0
        self._open = False
        self._tokens = 0

    def take(self, line: bytes) -> Event:
        """The event in `line`, if it is the next one. Raises EventRefusal."""
        try:
            value = canonical.decode(line, limits=LIMITS)
        except canonical.CanonicalRefusal as refusal:
            raise EventRefusal(str(refusal)) from None
        if not isinstance(value, dict) or set(value) != {"body", "event", "kind", "previous"}:
            raise EventRefusal(f"expected the fields body, event, kind and previous, got {canonical.quoted(value)}")
        event = self.allowed(value["event"], value["kind"], value["body"], value["previous"])
        self.previous = hashlib.sha256(line).hexdigest()
        return event

    def allowed(self, number: Any, kind: Any, body: Any, previous: Any) -> Event:
        if type(number) is not int or number != self.number:
            raise EventRefusal(f"expected event {self.number}, got {canonical.quoted(number)}")
        if previous != self.previous:
            raise EventRefusal(f"expected previous {self.previous}, the digest of the line before, got {canonical.quoted(previous)}")
        if not isinstance(kind, str) or kind not in self._kinds():
            raise EventRefusal(f"expected {' or '.join(self._kinds()) or 'nothing after dialogue_end'}, got {canonical.quoted(kind)}")
        check_body(kind, body)
        self._check_numbers(kind, body)
        self.number += 1
        return Event(number, kind, body)

    def _kinds(self) -> tuple[str, ...]:
        if self.ended:
            return ()
        if self.number == 0:
            return ("dialogue",)
        return ("token", "fault", "turn_end") if self._open else ("turn", "dialogue_end")

    def _check_numbers(self, kind: str, body: dict[str, Any]) -> None:
        turn = self._turn + (kind == "turn")
        expected: dict[str, Any] = {"turn": turn} if "turn" in body else {}
        expected |= {"token": {"index": self._tokens}, "turn_end": {"tokens": self._tokens}, "dialogue_end": {"messages": self._turn}}.get(kind, {})
        for name, number in expected.items():
            if body[name] != number:
                raise EventRefusal(f"{kind}.{name}: expected {number}, got {body[name]}")
        if kind == "dialogue" and (len(body["sides"]) != 2 or body["first"] > 1):
            raise EventRefusal(f"dialogue: expected two sides, one of which is first, got {len(body['sides'])} and {body['first']}")
        if kind == "turn" and body["side"] > 1:
            raise EventRefusal(f"turn.side: expected 0 or 1, got {body['side']}")
        self._turn, self._open, self.ended = turn, kind in ("turn", "token", "fault"), kind == "dialogue_end"
        self._tokens = self._tokens + 1 if kind == "token" else 0


# ---- reading


def read(path: Path) -> Iterator[Event]:
    """The events of the log at `path`, or in this folder, in order. Raises EnvironmentFault, and EvidenceError that names the event where the
    chain is broken; a line that was cut off ends it."""
    path = located(path)
    with open_for_reading(path) as file:
        for event, _ in whole_events(path, file, Course()):
            yield event


def survey(path: Path) -> Survey:
    """Reads the log once. Raises as `read` does."""
    path, course = located(path), Course()
    with open_for_reading(path) as file:
        size_bytes = sum(size for _, size in whole_events(path, file, course))
        dropped_bytes = os.fstat(file.fileno()).st_size - size_bytes
    return Survey(course.number, size_bytes, course.previous, course.ended, dropped_bytes)


def whole_events(path: Path, file: BinaryIO, course: Course) -> Iterator[tuple[Event, int]]:
    """Each event and the bytes of its line. What lies behind the last line feed was cut off, unless nothing may follow, or no line is that long."""
    while (line := file.readline(LIMITS.size_bytes + 1)).endswith(b"\n"):
        try:
            yield course.take(line[:-1]), len(line)
        except EventRefusal as refusal:
            raise EvidenceError(f"{path}: event {course.number}: {refusal}") from None
    if line and course.ended:
        raise EvidenceError(f"{path}: expected nothing after event {course.number - 1}, which ends the dialogue, got more bytes")
    if len(line) > LIMITS.size_bytes:
        raise EvidenceError(f"{path}: event {course.number}: expected a line of at most {LIMITS.size_bytes} bytes, got a longer one")


def located(path: Path) -> Path:
    return path / NAME if path.is_dir() else path


# ---- writing


class Log:
    """Made by `create` and `resume`; held by this process alone (flock, which the system drops when the process dies)."""

    def __init__(self, path: Path, descriptor: int, course: Course) -> None:
        self.path = path
        self._descriptor: int | None = descriptor
        self._course = course

    def append(self, kind: str, body: dict[str, Any]) -> Event:
        """The event is on disk when this returns. Raises EnvironmentFault, after which this log is of no more use, and ValueError (a caller's
        mistake, nothing is written) for an event that may not follow."""
        if self._descriptor is None:
            raise EnvironmentFault(f"{self.path}: expected an open log, got one that is closed or failed", hint="resume the dialogue")
        value = {"event": self._course.number, "previous": self._course.previous, "kind": kind, "body": body}
        line = canonical.encode(value, limits=LIMITS)
        event = self._course.take(line)
        try:
            write_all(self._descriptor, line + b"\n")
            os.fsync(self._descriptor)
        except OSError as error:
            self.close()  # nobody knows what is on disk
            raise disk_fault(self.path.parent, f"write {NAME} of", error) from error
        return event

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def create(folder: Path) -> Log:
    """An empty log in `folder`, which is made if missing. Raises EnvironmentFault if one is there."""
    make_folder(folder)
    path = folder / NAME
    try:
        descriptor = os.open(path, FLAGS | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        raise EnvironmentFault(f"expected no dialogue in {folder}, got {NAME}", hint="resume it, or choose another folder") from None
    except OSError as error:
        raise disk_fault(folder, f"create {NAME} of", error) from error
    lock(path, descriptor)
    sync_folder(folder)
    return Log(path, descriptor, Course())


def resume(folder: Path) -> tuple[Log, list[Event]]:
    """Goes on after the last whole event, and drops what lies behind it. Raises EnvironmentFault, and EvidenceError as `read` does."""
    path = folder / NAME
    try:
        descriptor = os.open(path, FLAGS)
    except OSError as error:
        raise disk_fault(folder, f"open {NAME} of", error) from error
    lock(path, descriptor)
    try:
        course, found, size_bytes = Course(), [], 0
        with open_for_reading(path) as file:
            for event, size in whole_events(path, file, course):
                found.append(event)
                size_bytes += size
        os.ftruncate(descriptor, size_bytes)
        os.fsync(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return Log(path, descriptor, course), found


def lock(path: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise EnvironmentFault(f"{path}: expected to be alone, got another process that writes it") from None
