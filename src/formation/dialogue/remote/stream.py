"""Server-sent events: bytes as they come, events out (HTML Living Standard, section 9.2.6). No connection is touched here.

What is kept of an event is its data. The stream is over with "[DONE]", also if its line is the last and no empty one follows.
"""

from __future__ import annotations

MOST_EVENT_BYTES = 1 << 20
DONE = b"[DONE]"
BOM = b"\xef\xbb\xbf"


class StreamRefusal(ValueError):
    """Why bytes are no stream of events; callers name the server."""


class Events:
    """One stream. `done`: the server has said that it is over."""

    def __init__(self) -> None:
        self.done = False
        self._unread = bytearray()  # of the line that is not whole
        self._data: list[bytes] = []  # of the event that is not whole
        self._size = 0
        self._first = True

    def feed(self, received: bytes) -> list[bytes]:
        """The data of each event that these bytes complete, up to [DONE]. Raises StreamRefusal for an event that does not end."""
        events = []
        for line in self._lines(received):
            if line and not self.done:
                self._field(line)
            elif self._data and not self.done:
                events.append(b"\n".join(self._data))
                self._data, self._size = [], 0
        if self._size + len(self._unread) > MOST_EVENT_BYTES:
            raise StreamRefusal(f"expected events of at most {MOST_EVENT_BYTES} bytes, got a longer one")
        return events

    def _lines(self, received: bytes) -> list[bytes]:
        """Lines end with CR LF, LF or CR; a CR at the end of what came may be half of a CR LF."""
        waiting = self._unread.endswith(b"\r")
        self._unread += received
        if not waiting and b"\n" not in received and b"\r" not in received:
            return []
        held = b"\r" if self._unread.endswith(b"\r") else b""
        text = bytes(self._unread).removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        self._unread = bytearray(rest + held)
        if self._first and lines:
            lines[0], self._first = lines[0].removeprefix(BOM), False
        return lines

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name != b"data":
            return  # a comment that keeps the connection open, an event's name, an id
        value = value.removeprefix(b" ")
        self.done = value == DONE and not self._data
        if not self.done:
            self._data.append(value)
            self._size += len(value) + 1
