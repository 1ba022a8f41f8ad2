"""`formation explore --serve`: a bundle and its page, for a browser on this machine and for nobody else.

It listens on 127.0.0.1 only. A request must name this machine as its host, so that no site whose name was made to point here gets an answer (DNS
rebinding), and its path begins with a word that only who was told the address knows: other users of the machine were not. It gives the page, and
ranges of the bundle's files by the names that the bundle had when it was opened; a path is never made of what a request says.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer

from formation.errors import EnvironmentFault
from formation.evidence.container import Container, ContainerRefusal
from formation.explorer import view

LOOPBACK = "127.0.0.1"
HOST = re.compile(r"(?:127\.0\.0\.1|localhost)(?::[0-9]{1,5})?")  # any port: ssh -L may have brought the request from another one
RANGE = re.compile(r"bytes=([0-9]{1,15})-([0-9]{1,15})")
IDLE_SECONDS = 60
ALWAYS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
PAGE = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": "frame-ancestors 'none'"}  # its own policy stands in it
BYTES = {"Content-Type": "application/octet-stream", "Content-Security-Policy": "default-src 'none'; sandbox"}
TEXT = {"Content-Type": "text/plain; charset=utf-8", "Content-Security-Policy": "default-src 'none'; sandbox"}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


def refusal(status: int, sentence: str) -> Answer:
    return Answer(status, TEXT, f"{sentence}\n".encode())


@dataclass(frozen=True)
class Site:
    """What is served: `page` at `root`, and ranges of the files of `sizes` beneath it."""

    root: str  # begins and ends with "/"
    page: bytes
    bundle: Container
    sizes: Mapping[str, int]

    def answer(self, path: str, hosts: list[str], wanted: str) -> Answer:
        """`hosts`: every Host header; `wanted`: the Range header, empty if there is none"""
        if len(hosts) != 1 or not HOST.fullmatch(hosts[0]):
            return refusal(403, "expected a request to this machine by its own name, got another host")
        if not secrets.compare_digest(path[: len(self.root)].encode(), self.root.encode()):
            return refusal(404, "expected the address that formation explore --serve said, got another")
        name = path.removeprefix(self.root)
        if not name:
            return Answer(200, PAGE, self.page)
        folder, _, name = name.partition("/")
        return self.range(name, wanted) if folder == "files" and name in self.sizes else refusal(404, "expected a file of the bundle, got none")

    def range(self, name: str, wanted: str) -> Answer:
        found, size = RANGE.fullmatch(wanted), self.sizes[name]
        begin, end = (int(found[1]), int(found[2]) + 1) if found else (0, 0)
        if not begin < end <= min(size, begin + view.PIECE_BYTES):
            return refusal(416, f"expected one range of at most {view.PIECE_BYTES} bytes, within {size}")
        try:
            with self.bundle.open(name) as file:
                file.seek(begin)
                data = file.read(end - begin)
        except (ContainerRefusal, OSError) as error:
            return refusal(500, f"expected to read {name}, got: {error}")
        if len(data) != end - begin:
            return refusal(500, f"{name}: expected {size} bytes, got a file that changes")
        return Answer(206, BYTES | {"Content-Range": f"bytes {begin}-{end - 1}/{size}"}, data)


class Server(ThreadingHTTPServer):
    site: Site

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # without asking a name server what 127.0.0.1 is called

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self.server_address[1]}{self.site.root}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "formation", ""
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True  # the last bytes of an answer need not wait until the first are acknowledged

    def do_GET(self) -> None:
        answer = self.server.site.answer(self.path, self.headers.get_all("Host", []), self.headers.get("Range", ""))
        self.send_response(answer.status)
        for name, value in {**ALWAYS, **answer.headers, "Content-Length": str(len(answer.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: what is asked for is nobody's business, and stderr is for people"""


def listening(site: Site, port: int) -> Server:
    """A server that holds its port (0: any that is free) and does not answer yet. Raises EnvironmentFault."""
    try:
        server = Server((LOOPBACK, port), Handler)
    except OSError as error:
        raise EnvironmentFault(f"port {port}: expected a free one, got: {error.strerror or error}", hint="--port 0 takes any that is free") from error
    server.site = site
    return server


def new_root() -> str:
    return f"/{secrets.token_urlsafe(16)}/"
