"""One request to a server and its answer, with a limit on everything: time until a connection, pauses, the whole answer, bytes.

Nothing is guessed: redirects are not followed, what is compressed, of another type or not JSON is refused. Each failure is a ServerFault, one
sentence that names the server, what was expected and what came. One that may pass is tried again, each time after twice the wait, as long as nothing
of substance was handed on.
"""

from __future__ import annotations

import io
import ssl
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead, RemoteDisconnected
from typing import Any, TypeVar

from formation.dialogue.remote.address import Address, Key
from formation.dialogue.remote.reply import LONGEST_MESSAGE, ReplyRefusal, message_of
from formation.dialogue.remote.stream import Events, StreamRefusal
from formation.dialogue.side import SideFault
from formation.ledger import canonical
from formation.strict_json import JsonRefusal, parse_json
from formation.version import __version__

T = TypeVar("T")
AT_ONCE = 1 << 16
MOST_BYTES = 1 << 26  # of an answer, its head included
MOST_ERROR_BYTES = 1 << 16
JSON, STREAM = "application/json", "text/event-stream"
MAY_PASS = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
HINTS = {
    400: "its message says which setting it does not take",
    401: "name the environment variable that holds its key",
    403: "name the environment variable that holds its key",
    404: "an address usually ends in /v1, and #MODEL must be a name that the server lists",
    429: "it is busy, or a quota is used up",
}


@dataclass(frozen=True)
class Patience:
    """How long a server may take, and how often it is asked again. A model that is streamed from a disk needs minutes for a first token."""

    connect_seconds: float = 10.0
    pause_seconds: float = 300.0  # without a byte
    answer_seconds: float = 3600.0
    attempts: int = 4
    first_wait_seconds: float = 0.5
    longest_wait_seconds: float = 60.0  # that a server may ask for


class ServerFault(SideFault):
    """`sentence` is the message without the server's name, `status` that of HTTP where there is one, `answered` whether the server has answered this
    request, in a way that is of no use."""

    def __init__(
        self, url: str, sentence: str, *, again: bool = True, hint: str | None = None, status: int | None = None, answered: bool = False,
        wait_seconds: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(f"server {url}: {sentence}", again=again, hint=hint)
        self.sentence, self.status, self.answered, self.wait_seconds = sentence, status, answered, wait_seconds

    def told(self, attempts: int) -> None:
        """Of the last of so many attempts"""
        if attempts > 1:
            self.args = (f"{self.args[0]}, the last of {attempts} attempts",)


class TooLong(Exception):
    """More bytes than an answer may have"""


class Received(io.RawIOBase):
    """What comes over a connection; the limits hold for every byte of it, heads and sizes of chunks too."""

    def __init__(self, connection: Any, patience: Patience) -> None:
        self._connection, self.patience = connection, patience
        self._until = time.monotonic() + patience.answer_seconds
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(min(left, self.patience.pause_seconds))
        size: int = self._connection.recv_into(buffer)
        self.count += size
        if self.count > MOST_BYTES:
            raise TooLong
        return size


@dataclass(frozen=True)
class Line:
    """What http.client sees of a connection: it writes as usual, and reads through the limits"""

    connection: Any
    received: Received

    def sendall(self, data: bytes) -> None:
        self.connection.settimeout(self.received.patience.pause_seconds)
        self.connection.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self.received, AT_ONCE)

    def close(self) -> None:
        """Not here: http.client calls this while the answer is still read"""


@dataclass(frozen=True)
class Server:
    address: Address
    key: Key | None = None
    patience: Patience = field(default_factory=Patience)
    sleep: Callable[[float], None] = time.sleep

    def ask(self, path: str, body: Any = None, read: Callable[[Any], T] = lambda value: value) -> T:
        """What `read` makes of the JSON that answers: of a GET without a body, else of a POST. `read` raises ReplyRefusal; raises ServerFault."""

        def once() -> Generator[T]:
            with self._exchange(path, body, JSON) as response:
                yield read(self._value(b"".join(pieces(response))))

        with closing(self._patiently(once)) as answers:
            return next(answers)

    def stream(self, path: str, body: Any, read: Callable[[Any], T]) -> Generator[T]:
        """What `read` makes of each event, as they come; whether the last of them ended the answer is for the caller to see. Raises as `ask`."""

        def once() -> Generator[T]:
            events = Events()
            with self._exchange(path, body, STREAM) as response:
                for piece in pieces(response):
                    for data in events.feed(piece):
                        yield read(self._value(data))
                    if events.done:
                        return

        return self._patiently(once)

    def _patiently(self, begin: Callable[[], Generator[T]]) -> Generator[T]:
        for attempt in range(1, self.patience.attempts + 1):
            heard = False
            try:
                with closing(begin()) as answers:
                    for each in answers:
                        heard = heard or bool(each)
                        yield each
                return
            except ServerFault as fault:
                wait = fault.wait_seconds or self.patience.first_wait_seconds * 2 ** (attempt - 1)
                if heard or not fault.again or attempt == self.patience.attempts or wait > self.patience.longest_wait_seconds:
                    fault.told(attempt)
                    raise
            self.sleep(wait)

    def _value(self, data: bytes) -> Any:
        if self.key and self.key.secret.encode() in data:
            raise ReplyRefusal(f"expected an answer without the key of {self.key.variable} in it, got one that repeats it")
        return parse_json(data)

    # ---- one exchange

    @contextmanager
    def _exchange(self, path: str, body: Any, wanted: str) -> Iterator[HTTPResponse]:
        """The answer, its head already found to be right"""
        http, connection, received = self._connection(), None, None
        try:
            http.connect()
            connection = http.sock
            received = Received(connection, self.patience)
            http.sock = Line(connection, received)
            http.request(*self._request(path, body, wanted))
            response = http.getresponse()
            self._check_head(response, f"{'GET' if body is None else 'POST'} {path}", wanted)
            yield response
        except (TooLong, OSError, HTTPException, JsonRefusal, ReplyRefusal, StreamRefusal) as error:
            raise self._fault(error, received) from error
        finally:
            if connection is not None:
                connection.close()

    def _connection(self) -> HTTPConnection:
        host, port, seconds = self.address.host.strip("[]"), self.address.port, self.patience.connect_seconds
        if self.address.scheme == "https":
            return HTTPSConnection(host, port, timeout=seconds, context=ssl.create_default_context())
        return HTTPConnection(host, port, timeout=seconds)

    def _request(self, path: str, body: Any, wanted: str) -> tuple[str, str, bytes | None, dict[str, str]]:
        headers = {"Accept": wanted, "User-Agent": f"formation/{__version__}", "Connection": "close"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key.secret}"
        if body is None:
            return "GET", f"{self.address.path}/{path}", None, headers
        data = canonical.encode(body, limits=canonical.DOCUMENT)
        return "POST", f"{self.address.path}/{path}", data, headers | {"Content-Type": JSON}

    def _check_head(self, response: HTTPResponse, request: str, wanted: str) -> None:
        status, kind, coding = response.status, response.headers.get_content_type(), response.headers.get("Content-Encoding", "identity")
        if status != 200:
            raise self._refused(response, request)
        if kind != wanted or coding != "identity":
            got = kind if kind != wanted else f"one with Content-Encoding {coding}"
            hint = "is this the address of a server of the OpenAI protocol?"
            raise self._useless(f"expected {request} to answer with {wanted}, got {canonical.quoted(got)}", hint=hint, again=False)

    def _refused(self, response: HTTPResponse, request: str) -> ServerFault:
        status, hint = response.status, HINTS.get(response.status)
        if place := response.headers.get("Location"):
            hint = f"if you trust it, give the address that it points to: {canonical.quoted(place)}"
        try:
            said = f": {self._hidden(message_of(parse_json(some(response))))[:LONGEST_MESSAGE]}"
        except (JsonRefusal, TooLong, OSError, HTTPException):
            said = ""  # whatever it is, the status stands
        again, asked = status in MAY_PASS, response.headers.get("Retry-After", "").strip()
        wait = float(asked) if asked.isdecimal() and asked.isascii() and len(asked) < 10 else None
        sentence = f"expected {request} to be answered, got HTTP {status}{said}{f', to be asked again after {wait:g} s' if wait else ''}"
        hint = hint or ("its own log may say why" if status >= 500 else None)
        return ServerFault(self.address.url, sentence, again=again, hint=hint, status=status, answered=True, wait_seconds=wait)

    def _useless(self, sentence: str, *, again: bool = True, hint: str | None = None) -> ServerFault:
        return ServerFault(self.address.url, self._hidden(sentence), again=again, hint=hint, answered=True)

    def _hidden(self, text: str) -> str:
        return self.key.hidden(text) if self.key else text

    def _fault(self, error: Exception, received: Received | None) -> ServerFault:
        """The sentence of what went wrong on the way, or inside an answer"""
        count = received.count if received else 0
        if isinstance(error, TooLong):
            return self._useless(f"expected an answer of at most {MOST_BYTES} bytes, got a longer one", again=False)
        if isinstance(error, JsonRefusal | ReplyRefusal | StreamRefusal):
            return self._useless(str(error))
        if isinstance(error, TimeoutError):
            return ServerFault(self.address.url, self._late(received), hint="it may be busy, or be given more time")
        if received is None:
            hint = "its certificate must be one that this machine trusts" if isinstance(error, ssl.SSLError) else "is it running, at this address?"
            passes = not isinstance(error, ssl.SSLCertVerificationError)
            return ServerFault(self.address.url, f"expected a connection, got: {reason_of(error)}", again=passes, hint=hint)
        if isinstance(error, IncompleteRead | RemoteDisconnected | OSError):
            return ServerFault(self.address.url, f"expected the whole answer, got a connection that was dropped after {count} bytes")
        return self._useless(f"expected an answer in HTTP, got {reason_of(error)}", hint="does another program listen at this address?")

    def _late(self, received: Received | None) -> str:
        if received is None:
            return f"expected a connection within {self.patience.connect_seconds:g} s, got none"
        limits = f"{self.patience.pause_seconds:g} s without a byte and {self.patience.answer_seconds:g} s in all"
        return f"expected an answer within {limits}, got {received.count} bytes and no end"


def pieces(response: HTTPResponse) -> Iterator[bytes]:
    """The body as it comes. Raises IncompleteRead where it is shorter than its head said."""
    while piece := response.read1(AT_ONCE):
        yield piece
    if response.length:
        raise IncompleteRead(b"", response.length)


def some(response: HTTPResponse) -> bytes:
    """The beginning of the body of an error"""
    found = b""
    for piece in pieces(response):
        found += piece
        if len(found) > MOST_ERROR_BYTES:
            break
    return found


def reason_of(error: Exception) -> str:
    said = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ascii(said).strip("'\"")[:200]
