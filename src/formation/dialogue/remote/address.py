"""Where a server of the OpenAI protocol is, which of its models is meant, and the key that it wants.

http://localhost:8000/v1#qwen3-next        ADDRESS#MODEL; a server that has one model only needs none
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from formation.errors import UsageError

ADDRESS = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9][A-Za-z0-9._-]{0,252})(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(?:/[A-Za-z0-9._~%-]+)*)/?(?:#(?P<model>[\x21-\x7e]{1,200}))?"
)
LOOPBACK = re.compile(r"localhost|127(?:\.[0-9]{1,3}){3}|\[::1\]")
SECRET = re.compile(r"[A-Za-z0-9._~+/=:-]{1,512}")  # RFC 6750, and the colon that some keys have
SHORTEST_PART = 8  # of a key, that is hidden where a text was cut


@dataclass(frozen=True)
class Address:
    """`path` begins with "/" or is empty."""

    scheme: str
    host: str
    port: int
    path: str
    model: str | None = None

    @property
    def url(self) -> str:
        usual = self.port == (443 if self.scheme == "https" else 80)
        return f"{self.scheme}://{self.host}{'' if usual else f':{self.port}'}{self.path}"

    @property
    def on_this_machine(self) -> bool:
        return LOOPBACK.fullmatch(self.host) is not None


def read_address(text: str) -> Address:
    """Raises UsageError. What is refused is not repeated: it may hold a password."""
    found = ADDRESS.fullmatch(text)
    port = int(found["port"] or (443 if found["scheme"] == "https" else 80)) if found else 0
    if found is None or not 1 <= port <= 65535:
        hint = "no user, password or query in it; a key is named by the environment variable that holds it"
        raise UsageError("server: expected an address as http://HOST:PORT/v1#MODEL or https://HOST/v1#MODEL, got something else", hint=hint)
    return Address(found["scheme"], found["host"].lower(), port, found["path"], found["model"])


class Key:
    """What a server is given to let us in. It goes into the head of requests and nowhere else: no dataclass, which others print field by field."""

    def __init__(self, variable: str, secret: str) -> None:
        self.variable, self.secret = variable, secret

    def __repr__(self) -> str:
        return f"Key({self.variable!r})"

    def hidden(self, text: str) -> str:
        """`text` of a server, which may repeat the key, without it and without its beginning"""
        for length in range(len(self.secret), min(SHORTEST_PART, len(self.secret)) - 1, -1):
            text = text.replace(self.secret[:length], f"${self.variable}")
        return text


def read_key(variable: str, address: Address) -> Key:
    """Of the environment variable of this name. Raises UsageError, also where the key would cross a network unencrypted."""
    if address.scheme != "https" and not address.on_this_machine:
        raise UsageError(f"server {address.url}: expected https for a server that gets a key, got http", hint="others on the way could read the key")
    secret = os.environ.get(variable, "").strip()
    if not SECRET.fullmatch(secret):
        got = "characters that no key has" if secret else "none"
        raise UsageError(f"server {address.url}: expected its key in the environment variable {variable}, got {got}")
    return Key(variable, secret)
