"""Where a server is, and its key: one form of an address, and a secret that is said nowhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formation.dialogue.remote.address import Key, read_address, read_key
from formation.errors import UsageError


@pytest.mark.parametrize(
    ("text", "url", "port", "model"),
    [
        ("http://localhost:8000/v1#qwen/qwen3-next:free", "http://localhost:8000/v1", 8000, "qwen/qwen3-next:free"),
        ("https://Host.example/v1/", "https://host.example/v1", 443, None),
        ("https://host.example:443", "https://host.example", 443, None),
        ("http://[::1]:80/v1", "http://[::1]/v1", 80, None),
        ("http://10.0.0.1:1/a/b-c_d~e.f/v1#m", "http://10.0.0.1:1/a/b-c_d~e.f/v1", 1, "m"),
    ],
)
def test_an_address_is_read(text: str, url: str, port: int, model: str | None) -> None:
    found = read_address(text)
    assert (url, port, model) == (found.url, found.port, found.model)
    assert found.url == read_address(found.url).url


@pytest.mark.parametrize(
    "text",
    [
        "", "localhost:8000", "ftp://host/v1", "file:///etc/passwd", "http://user:hunter2@host/v1", "https://host/v1?key=hunter2", "http://host:0/v1",
        "http://host:65536/v1", "http://ho st/v1", "http://host/v1\r\nX: hunter2", "http://host/v1#", "http://host//v1", "http://hôst/v1", " http://host",
        "http://host\n", "http://[::1/v1", "http:///v1",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_address(text)
    assert 2 == caught.value.exit_code
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"
    assert "expected an address" in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        found = read_address("http://" + text)
    except UsageError:
        return
    assert found == read_address(found.url + (f"#{found.model}" if found.model else ""))
    assert 1 <= found.port <= 65535


def test_a_key_comes_from_the_environment_and_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMP_KEY", "sk-0123456789abcdef\n")
    key = read_key("LAMP_KEY", read_address("https://host/v1"))
    assert "sk-0123456789abcdef" == key.secret
    assert "sk-" not in repr(key)
    assert "wrong: $LAMP_KEY, $LAMP_KEY" == key.hidden("wrong: sk-0123456789abcdef, sk-0123456789")  # a text that was cut off, too


@pytest.mark.parametrize(
    ("secret", "got"), [("", "got none"), ("two words", "no key has"), ("sk\nX-Header: 1", "no key has"), ("ключ", "no key has")]
)
def test_an_environment_without_a_key_is_refused(secret: str, got: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMP_KEY", secret)
    with pytest.raises(UsageError, match=f"environment variable LAMP_KEY, .*{got}") as caught:
        read_key("LAMP_KEY", read_address("https://host/v1"))
    assert not secret or secret not in str(caught.value)


def test_a_key_crosses_no_network_unencrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMP_KEY", "sk-0123456789abcdef")
    with pytest.raises(UsageError, match="expected https for a server that gets a key"):
        read_key("LAMP_KEY", read_address("http://host.example/v1"))
    with pytest.raises(UsageError, match="expected https"):
        read_key("LAMP_KEY", read_address("http://localhost.example/v1"))
    for here in ("localhost", "127.0.0.1", "[::1]"):
        assert isinstance(read_key("LAMP_KEY", read_address(f"http://{here}:8000/v1")), Key)
