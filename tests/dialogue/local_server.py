"""A small server of the OpenAI protocol on this machine, with every bad habit that a dialogue must survive; habits are given by name.

with LocalServer() as server:
    connect("Lamp", server.url, Manner())
    server.habits = {"drop in the middle"}       # from now on
    server.once = [{"503"}]                      # for the next answer of chat/completions only
"""

from __future__ import annotations

import json
import math
import random
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Protocol, Self

MODEL = "lamp-2"
WORDS = (b"I", b" float", b".", b" Caf", b"\xc3", b"\xa9", b" au", b" lait", b" too", b",", b" as", b" do", b" ducks", b"!")
END = b"<|im_end|>"
OTHERS = tuple(f" other{n}".encode() for n in range(24))  # less likely than the word itself


@dataclass(frozen=True)
class Said:
    """A token as the model says it: `top` from the most likely down, as long as the server can give it"""

    spelt: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]


class Model(Protocol):
    def speak(self, messages: Sequence[dict[str, str]], most: int, settings: dict[str, Any]) -> tuple[list[Said], str]:
        """Tokens and finish_reason; with "stop" the last token is the one that ends the turn"""

    def echo(self, text: str) -> list[Said]: ...


class Parrot:
    """Says the same words; at a temperature now and then another one, which depends on the seed where there is one."""

    def __init__(self, words: Sequence[bytes] = WORDS, *, length: int = 6) -> None:
        self.words, self.length = words, length

    def speak(self, messages: Sequence[dict[str, str]], most: int, settings: dict[str, Any]) -> tuple[list[Said], str]:
        temperature = settings.get("temperature", 1)
        heat = temperature if temperature and "tempered" in settings["habits"] else 1.0
        source = random.Random(settings.get("seed") if "seed ignored" not in settings["habits"] else None)
        said = []
        for n in range(self.length):
            word = self.words[n % len(self.words)]
            own = distribution(word if word.isascii() or not temperature else b" x", heat)
            said.append(drawn(own, source.randrange(len(own.top))) if temperature else own)
        return [*said, distribution(END, heat)][:most], "stop" if most > self.length else "length"

    def echo(self, text: str) -> list[Said]:
        return [distribution(word.encode(), 1.0) for word in text.replace(" ", "\0 ").split("\0")]


def distribution(word: bytes, temperature: float) -> Said:
    """Its most likely token"""
    names = (word, *OTHERS)
    logits = [(1.0 - 0.3 * n) / temperature for n in range(len(names))]
    total = math.log(sum(map(math.exp, logits)))
    return drawn(Said(word, 0.0, tuple((name, logit - total) for name, logit in zip(names, logits, strict=True))), 0)


def drawn(said: Said, place: int) -> Said:
    return Said(*said.top[place], said.top)


# ---- the protocol


@dataclass(frozen=True)
class Asked:
    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    habits: frozenset[str]

    def has(self, habit: str) -> bool:
        return habit in self.habits


def token(said: Said, asked: Asked) -> dict[str, Any]:
    """An entry of logprobs.content"""
    top = said.top[: min(asked.body.get("top_logprobs", 0), 5 if asked.has("few tops") else 20)]
    top = said.top if asked.has("too many tops") else top
    top = [each for each in top if each[0] != said.spelt] if asked.has("unlisted") else top
    value: Any = said.logprob
    for habit, sentinel in (("null", None), ("-9999", -9999.0), ("-100", -100.0), ("above zero", 3.5)):
        value = sentinel if asked.has(habit) else value
    value = "-1.5" if asked.has("a value as text") else value
    names = {"top_logprobs": [spelling(name, asked) | {"logprob": own} for name, own in top]}
    return spelling(said.spelt, asked) | {"logprob": value} | names | ({"id": len(said.spelt)} if asked.has("ids") else {})


def spelling(spelt: bytes, asked: Asked) -> dict[str, Any]:
    text = spelt.decode("utf-8", "replace")
    return {"token": text.replace(" ", "Ġ") if asked.has("raw spelling") else text, "bytes": None if asked.has("no bytes") else list(spelt)}


def logprobs(said: Sequence[Said], asked: Asked) -> dict[str, Any] | None:
    streaming = asked.body.get("stream") and not asked.has("no streaming")
    if not asked.body.get("logprobs") or asked.has("no logprobs") or (streaming and asked.has("logprobs in whole answers")):
        return None
    listed = [token(each, asked) for each in said]
    if asked.has("wrong count"):
        listed = listed[1:]
    if asked.has("older logprobs"):
        values = [each["logprob"] for each in listed]
        tops = [{top["token"]: top["logprob"] for top in each["top_logprobs"]} for each in listed]
        return {
            "tokens": [each["token"] for each in listed],
            "token_logprobs": values[1:] if asked.has("uneven arrays") else values,
            "top_logprobs": tops,
        }
    return {"content": listed}


def envelope(asked: Asked, choices: list[dict[str, Any]], count: int | None = None) -> dict[str, Any]:
    model = "another-model" if asked.has("another model") else MODEL
    made: dict[str, Any] = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": model, "choices": choices}
    if count is not None and not asked.has("no usage"):
        made["usage"] = {"prompt_tokens": 5, "completion_tokens": count, "total_tokens": 5 + count}
    return made


def choice(asked: Asked, part: str, said: Sequence[Said], text: str, finish: str | None) -> dict[str, Any]:
    content: Any = 5 if asked.has("text as a number") else text
    return {"index": 0, part: {"role": "assistant", "content": content}, "logprobs": logprobs(said, asked), "finish_reason": finish}


def reply(asked: Asked, said: list[Said], finish: str) -> Any:
    """A whole answer"""
    text = text_of(said, finish, asked)
    if asked.has("error with 200"):
        return {"error": {"message": "out of memory", "type": "server_error"}}
    choices = [choice(asked, "message", said, text, told(finish, asked))]
    return envelope(asked, choices * (2 if asked.has("two choices") else 1), len(said))


def told(finish: str, asked: Asked) -> str | None:
    return None if asked.has("no finish") else "content_filter" if asked.has("filter") else finish


def text_of(said: Sequence[Said], finish: str, asked: Asked) -> str:
    words = [each.spelt for each in said]
    text = b"".join(words[:-1] if finish == "stop" else words).decode("utf-8", "replace")
    return "".join(reversed(text)) if asked.has("another text") else text.lstrip() if asked.has("strips") else text


def chunks(asked: Asked, said: list[Said], finish: str) -> Iterator[Any]:
    """A streamed answer: each piece has the characters that became complete with its tokens"""
    yield envelope(asked, [{"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}])
    at_once = 3 if asked.has("three at once") else 1
    whole, shown = text_of(said, finish, asked), ""
    end = None if asked.has("no finish in streams") else told(finish, asked)
    for first in range(0, len(said), at_once):
        own, last = said[first : first + at_once], first + at_once >= len(said)
        complete = b"".join(each.spelt for each in said[: first + at_once]).decode("utf-8", "ignore")
        text = whole if last else complete[: len(whole)] if whole.startswith(complete) else shown
        yield envelope(asked, [choice(asked, "delta", own, text.removeprefix(shown), end if last else None)])
        shown = text
        if asked.has("error in the stream"):
            yield {"error": {"message": "out of memory"}}
    if asked.body.get("stream_options", {}).get("include_usage"):
        yield envelope(asked, [], len(said))


# ---- the server


@dataclass
class LocalServer:
    """`asked` holds every request, in order."""

    model: Model = field(default_factory=Parrot)
    habits: Iterable[str] = ()
    once: list[set[str]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    tls: ssl.SSLContext | None = None

    def __enter__(self) -> Self:
        self._gate = threading.Event()  # what a slow answer waits for
        self._http = Listener(("127.0.0.1", 0), Handler)
        self._http.local = self
        if self.tls:
            self._http.socket = self.tls.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._gate.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    @property
    def root(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self._http.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1#{MODEL}"

    def wait(self) -> None:
        self._gate.wait(20)

    def chats(self) -> list[dict[str, Any]]:
        return [each.body for each in self.asked if each.path == "/v1/chat/completions"]


class Listener(ThreadingHTTPServer):
    local: LocalServer
    daemon_threads = False

    def server_bind(self) -> None:
        TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away: what it is for"""


class Handler(BaseHTTPRequestHandler):
    server: Listener
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        asked = self._asked({})
        names = [{"id": name} for name in ((MODEL, "moth") if asked.has("two models") else (MODEL,))]
        if self.path != "/v1/models" or asked.has("no models"):
            self._status("404", asked)
        else:
            self._json({"object": "list", "data": names}, asked)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = self._asked(body)
        if refusal := self._refusal(asked):
            return self._status(refusal, asked)
        if self.path == "/v1/completions":
            return self._json(self._continued(asked), asked)
        limit = body.get("max_tokens", body.get("max_completion_tokens"))
        settings = body | {"habits": asked.habits}
        said, finish = self.server.local.model.speak(body["messages"], limit * (2 if asked.has("too many tokens") else 1), settings)
        if asked.has("slow"):
            self.server.local.wait()
        if body.get("stream") and not asked.has("no streaming"):
            return self._stream(chunks(asked, said, finish), asked)
        return self._json(reply(asked, said, finish), asked)

    def _asked(self, body: dict[str, Any]) -> Asked:
        local = self.server.local
        chat = self.path == "/v1/chat/completions"
        habits = local.once.pop(0) if chat and local.once else local.habits
        asked = Asked(self.path, body, dict(self.headers), frozenset(habits))
        local.asked.append(asked)
        return asked

    def _refusal(self, asked: Asked) -> str:
        body, chat = asked.body, asked.path == "/v1/chat/completions"
        refusals = {
            "no chat": chat and "404", "no completions": not chat and "404", "streaming refused": body.get("stream") and "400",
            "usage refused": "stream_options" in body and "400", "logprobs refused": chat and "logprobs" in body and "400",
            "top at most 5": body.get("top_logprobs", 0) > 5 and "400", "echo refused": "echo" in body and "400",
            "seed refused": "seed" in body and "400", "max_completion_tokens": chat and "max_tokens" in body and "400",
        }  # fmt: skip
        status = next((habit for habit in sorted(asked.habits) if habit.isdecimal()), "") if chat else ""
        return status or next((str(found) for habit, found in refusals.items() if asked.has(habit) and found), "")

    def _continued(self, asked: Asked) -> Any:
        prompt = asked.body["prompt"]
        said, finish = self.server.local.model.speak([], asked.body["max_tokens"], asked.body | {"habits": asked.habits})
        given = self.server.local.model.echo(prompt) if asked.body.get("echo") and not asked.has("echo ignored") else []
        asked = Asked(asked.path, asked.body, asked.headers, asked.habits | {"older logprobs"})
        told_of = None if asked.has("echo without logprobs") else logprobs([*given, *said], asked)
        text = (prompt if given else "") + text_of(said, finish, asked)
        return envelope(asked, [{"index": 0, "text": text, "logprobs": told_of, "finish_reason": finish}], len(said))

    # ---- how it is sent

    def _status(self, status: str, asked: Asked) -> None:
        waits = {"Retry-After": "7"} if asked.has("come back") else {"Retry-After": "7200"} if asked.has("come back later") else {}
        if asked.has("redirect"):
            status, waits = "307", {"Location": "http://127.0.0.1:9/elsewhere"}
        message = f"key {self.headers['Authorization']} is wrong" if asked.has("repeats the key") else f"no: {status}"
        self._json({"error": {"message": message, "code": int(status)}}, asked, int(status), waits)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _json(self, value: Any, asked: Asked, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = damaged(json.dumps(value).encode(), asked, self.headers["Authorization"])
        kind = "text/html" if asked.has("html") else "application/json; charset=utf-8"
        length = len(data) + (10 if asked.has("drop in the middle") else 0)
        self._head(status, {"Content-Type": kind, "Content-Length": str(length), "Connection": "close", **(headers or {})})
        self.wfile.write(data)
        self.close_connection = True

    def _stream(self, events: Iterable[Any], asked: Asked) -> None:
        self.close_connection = True
        if asked.has("drop before"):
            return
        if asked.has("not http"):
            self.wfile.write(b"220 mail.example ESMTP\r\n")
            return
        coding = {"Content-Encoding": "gzip"} if asked.has("gzip") else {}
        kind = "text/html" if asked.has("html") else "text/event-stream"
        self._head(200, {"Content-Type": kind, "Transfer-Encoding": "chunked", "Connection": "close", **coding})
        end = b"\r\n" if asked.has("CR LF") else b"\n"
        for number, event in enumerate(events):
            if asked.has("comments"):
                self._chunk(b": still here" + end + b"event: delta" + end, asked)
            data = damaged(json.dumps(event).encode(), asked, self.headers["Authorization"]) if number == 3 else json.dumps(event).encode()
            self._chunk(b"data: " + data + end * 2, asked)
            if number == 3 and asked.has("drop in the middle"):
                return
            if number == 3 and asked.has("stops in the middle"):
                self.server.local.wait()
            if asked.has("drips"):
                time.sleep(0.02)
        if not asked.has("no DONE"):
            self._chunk(b"data: [DONE]" + (b"" if asked.has("no last line") else end * 2), asked)
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes, asked: Asked) -> None:
        for piece in [data[n : n + 1] for n in range(len(data))] if asked.has("byte by byte") else [data]:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))


def damaged(data: bytes, asked: Asked, key: str | None) -> bytes:
    """What a bad habit makes of the JSON of an answer, of the fourth event of a stream"""
    if asked.path != "/v1/chat/completions":
        return b"<html>" if asked.has("malformed elsewhere") else data
    harms = {
        "malformed": data[:-2], "empty": b"", "an array": b"[" + data + b"]", "a name twice": b'{"model":"x",' + data[1:],
        "not a number": data.replace(b'"index": 0', b'"index": NaN'), "deep": b"[" * 100_000, "long number": b"9" * 5000,
        "not UTF-8": data.replace(b'"content": "', b'"content": "\xff'), "half a pair": data.replace(b'"content": "', b'"content": "\\ud83d'),
        "a long event": data + b" " * (1 << 21), "says the key": data.replace(b"assistant", (key or "").encode()),
    }  # fmt: skip
    return next((harm for habit, harm in harms.items() if asked.has(habit)), data)
