"""times.jsonl, beside the log and no part of it: when each event was written, and what had passed until then.

    {"disk_bytes":1830912,"event":3,"seconds":0.912,"time":"2026-01-31 23:59:59"}

`seconds` are those that the dialogue went on, without the time between a cut and the resumption; `disk_bytes` are weights. Nothing depends on it but
rules of seconds and bytes, and the times that a transcript states: what is missing or damaged is as if it had not been written.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from formation.dialogue.transcripts.transcript import TranscriptRefusal, read_stamp, show_stamp
from formation.strict_json import JsonRefusal, parse_json

NAME = "times.jsonl"
Passed = Mapping[int, tuple[float, int]]  # by event: seconds until then, and bytes of weights read


class Clock(Protocol):
    def now(self) -> datetime: ...
    def seconds(self) -> float: ...


class WallClock:
    def now(self) -> datetime:
        return datetime.now().replace(microsecond=0)

    def seconds(self) -> float:
        return time.monotonic()


@dataclass
class Times:
    """`started` and `ended` are of the first event and of the one that ended the dialogue."""

    path: Path
    clock: Clock
    started: datetime | None = None
    ended: datetime | None = None
    disk_bytes: int = 0
    before: float = 0.0  # seconds until a cut
    since: float = field(init=False)

    def __post_init__(self) -> None:
        self.since = self.clock.seconds()

    @property
    def seconds(self) -> float:
        return self.before + self.clock.seconds() - self.since

    def note(self, event: int, kind: str) -> None:
        """Of an event that is on disk"""
        now = self.clock.now()
        self.started = self.started or now
        self.ended = now if kind == "dialogue_end" else None
        line = {"event": event, "time": show_stamp(now), "seconds": round(self.seconds, 3), "disk_bytes": self.disk_bytes}
        with self.path.open("ab") as file:
            file.write(json.dumps(line, sort_keys=True, separators=(",", ":")).encode() + b"\n")


def resume(path: Path, clock: Clock, events: int, *, complete: bool) -> Times:
    """Of a log with so many events"""
    times = Times(path, clock)
    for line in whole_lines(path, events):
        stamp = read_stamp(line["time"])
        times.started = times.started or stamp
        times.before, times.disk_bytes = max(times.before, line["seconds"]), max(times.disk_bytes, line["disk_bytes"])
        times.ended = stamp if complete and line["event"] == events - 1 else None
    if complete and times.ended is None:
        times.note(events - 1, "dialogue_end")  # the cut was between the event and its time
    return times


def passed(path: Path, events: int) -> Passed:
    """As far as it is known"""
    return {line["event"]: (float(line["seconds"]), line["disk_bytes"]) for line in whole_lines(path, events)}


def whole_lines(path: Path, events: int) -> list[dict[str, Any]]:
    return [line for line in map(read_line, path.read_bytes().split(b"\n") if path.is_file() else ()) if line and line["event"] < events]


def read_line(data: bytes) -> dict[str, Any] | None:
    try:
        line = parse_json(data)
        if not isinstance(line, dict) or set(line) != {"event", "time", "seconds", "disk_bytes"}:
            return None
        read_stamp(str(line["time"]))
    except (JsonRefusal, TranscriptRefusal):
        return None
    whole = type(line["event"]) is int and type(line["disk_bytes"]) is int and type(line["seconds"]) in (int, float)
    return line if whole and min(line["event"], line["disk_bytes"], line["seconds"]) >= 0 else None
