"""`formation explore --serve`: what its server answers, what it refuses, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path

import pytest
from tests.evidence.whole_bundles import Kind, make
from tests.served_bundles import serving

from formation.cli import serve
from formation.cli.main import main
from formation.explorer import places


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("served") / "run.ofb", Kind(rows="boundaries"))


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[serve.Server]:
    with serving(bundle) as found:
        yield found


def asked(
    server: serve.Server, path: str, *, host: str | None = "127.0.0.1", wanted: str = "bytes=0-9", more: tuple[str, ...] = ()
) -> tuple[int, bytes]:
    """Status and body of a request for `path`, byte for byte"""
    connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
    for name, value in (("Host", host), ("Range", wanted), *(("Host", other) for other in more)):
        if value:
            connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


# ---- what it gives


def test_ranges_of_every_file_are_the_bytes_of_the_bundle(server: serve.Server, bundle: Path) -> None:
    for name, size in server.site.sizes.items():
        middle, end = size // 2, min(size, size // 2 + 1000)
        expected = (bundle / name).read_bytes()[middle:end]
        assert (206, expected) == asked(server, f"{server.site.root}files/{name}", wanted=f"bytes={middle}-{end - 1}")


def test_a_zip_is_served_as_its_folder_is(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.ofb"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(each for each in bundle.rglob("*") if each.is_file()):
            archive.write(file, file.relative_to(bundle))
    with serving(path) as server:
        assert (206, (bundle / "ledger.jsonl").read_bytes()[7:500]) == asked(server, f"{server.site.root}files/ledger.jsonl", wanted="bytes=7-499")


def test_the_page_is_at_the_address_only_and_nothing_is_kept_or_framed(server: serve.Server) -> None:
    site = server.site
    answer = site.answer(site.root, ["127.0.0.1:1"], "")
    assert (200, site.page) == (answer.status, answer.body) == asked(server, site.root)
    assert "frame-ancestors 'none'" == answer.headers["Content-Security-Policy"] and "no-store" == serve.ALWAYS["Cache-Control"]
    policy = re.search(rb'Content-Security-Policy" content="([^"]*)"', site.page)
    assert policy and policy[1].endswith(b"worker-src blob:; connect-src 'self'") and b"unsafe" not in policy[1]
    for path in ("/", "//", "/index.html", site.root[:-1], site.root.upper(), f"/x{site.root}", f"{site.root}x", "/" + "A" * 22 + "/"):
        assert 404 == asked(server, path)[0]


# ---- what it refuses


HOSTS = ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", "[::1]", "0.0.0.0", "", "127.0.0.1:x", "127.0.0.1 "]
NAMES = """ . .. ../ ../run.ofb/anchor.json ./anchor.json rows rows/ rows/../anchor.json /anchor.json //etc/passwd ../../../../../../etc/passwd
..%2f..%2fetc%2fpasswd %2e%2e/anchor.json anchor.json%00 anchor.json? anchor.json?x=1 anchor.json# anchor.json/ ANCHOR.JSON views/ %61nchor.json
anchor%2ejson rows%2f00000000.safetensors ..\\anchor.json ledger.jsonl.part""".replace("\n", " ").split(" ")
RANGES = [
    "",
    "bytes=0-",
    "bytes=-5",
    "bytes=5-4",
    "bytes=0-1,3-4",
    "bytes= 0-1",
    "items=0-1",
    "bytes=0-999999999",
    "bytes=0-1 ",
    "bytes=" + "9" * 20 + "-1",
]


@pytest.mark.parametrize("host", HOSTS)
def test_a_request_to_another_host_is_refused(server: serve.Server, host: str) -> None:
    site = server.site
    assert 403 == site.answer(site.root, [host], "").status
    assert 403 == site.answer(f"{site.root}files/anchor.json", [host], "bytes=0-9").status


def test_a_strangers_name_that_points_here_gets_no_byte_and_this_machines_own_names_do(server: serve.Server) -> None:
    path = f"{server.site.root}files/anchor.json"
    for host, more in (("evil.example", ()), (None, ()), ("127.0.0.1", ("evil.example",)), ("evil.example", ("127.0.0.1",))):
        status, body = asked(server, path, host=host, more=more)
        assert status in (400, 403) and b"prompt" not in body
    for host in ("127.0.0.1", "localhost", "localhost:9000"):
        assert 206 == asked(server, path, host=host)[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_that_is_no_name_of_the_bundle_is_refused(server: serve.Server, name: str) -> None:
    status, body = asked(server, f"{server.site.root}files/{name}")
    assert 404 == status and b"root:" not in body and b"anchor.json" not in body
    assert 404 == asked(server, f"{server.site.root}{name or 'files'}")[0]


@pytest.mark.parametrize("wanted", RANGES)
def test_a_range_that_is_not_one_inside_the_file_is_refused(server: serve.Server, wanted: str) -> None:
    answer = server.site.answer(f"{server.site.root}files/ledger.jsonl", ["127.0.0.1"], wanted)
    assert 416 == answer.status and b"expected one range" in answer.body


def test_a_file_that_became_a_link_or_shorter_is_not_given(tmp_path: Path) -> None:
    bundle = make(tmp_path / "run.ofb", Kind(rows="none"))
    secret = tmp_path / "secret"
    secret.write_text("root:secret" * 1000)
    with serving(bundle) as server:
        path = f"{server.site.root}files/host.json"
        assert 206 == asked(server, path)[0]
        os.truncate(bundle / "host.json", 5)
        assert (500, True) == (lambda found: (found[0], b"a file that changes" in found[1]))(asked(server, path))
        (bundle / "host.json").unlink()
        (bundle / "host.json").symlink_to(secret)
        status, body = asked(server, path)
        assert 500 == status and b"secret" not in body


def test_only_get_is_answered(server: serve.Server) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"):
        connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
        connection.request(method, server.site.root)
        assert 501 == connection.getresponse().status
        connection.close()


# ---- the command


def heard() -> None:
    """An interrupt, even where the tests run behind a shell that ignores it"""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_it_listens_on_this_machine_only_says_where_and_ctrl_c_ends_it(bundle: Path) -> None:
    command = [sys.executable, "-m", "formation.cli.main", "explore", str(bundle), "--serve", "--port", "0", "--json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=heard) as process:
        assert process.stdout and process.stderr
        address = json.loads(process.stdout.readline())["address"]
        host, port = re.fullmatch(r"http://([0-9.]+):([0-9]+)/[\w-]{22}/", address).groups()  # type: ignore[union-attr]
        assert "127.0.0.1" == host
        socket.create_connection((host, int(port))).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", int(port)))
        process.send_signal(signal.SIGINT)
        rest, said = process.communicate(timeout=30)
    assert (0, "") == (process.returncode, rest) and "Ctrl-C ends it" in said and "Traceback" not in said


def test_a_port_that_is_taken_and_options_that_do_not_go_together_are_refused(
    server: serve.Server, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = str(server.server_address[1])
    assert 3 == main(["explore", str(bundle), "--serve", "--port", taken])
    assert f"port {taken}: expected a free one" in capsys.readouterr().err
    for words in (["--port", "1"], ["--serve", "--out", str(tmp_path / "x.html")], ["--serve", "--with", str(bundle)]):
        assert 2 == main(["explore", str(bundle), *words])
        assert "explore: expected --serve" in capsys.readouterr().err
    for port in ("65536", "-1", "x"):
        with pytest.raises(SystemExit, match="2"):
            main(["explore", str(bundle), "--serve", f"--port={port}"])
    (bundle / "strange").write_text("x")
    assert 3 == main(["explore", str(bundle), "--serve", "--port", "0"])
    assert "only files of a bundle" in capsys.readouterr().err
    (bundle / "strange").unlink()


# ---- where positions begin


def test_positions_begin_where_their_first_lines_do(bundle: Path) -> None:
    data = (bundle / "ledger.jsonl").read_bytes()
    lines = data.split(b"\n")[:-1]
    expected, at = [], 0
    for number, line in enumerate(lines):
        if json.loads(line)["slot"] == "embed":
            expected.append((at, number))
        at += len(line) + 1
    assert [*expected, (len(data), len(lines))] == places.begins(BytesIO(data))
    assert 5 == len(expected)


@pytest.mark.parametrize(("data", "expected"), [(b"", [(0, 0)]), (b"x", [(0, 0)]), (b"x\ny", [(2, 1)]), (b"y" * (1 << 21), [(0, 0)])])
def test_what_is_no_ledger_has_no_positions(data: bytes, expected: list[tuple[int, int]]) -> None:
    assert expected == places.begins(BytesIO(data))
