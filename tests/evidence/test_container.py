"""Containers made to hurt: what is not exactly a bundle's files, as regular files or stored members, is refused, and nothing is extracted."""

from __future__ import annotations

import os
import socket
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evidence import vectors
from tests.evidence.whole_bundles import Kind, make

from formation.cli.main import main
from formation.errors import EnvironmentFault
from formation.evidence import container as containers
from formation.evidence.container import ContainerRefusal, open_container

FILES = dict.fromkeys(containers.REQUIRED, b"{}\n") | {"rows/00000000.safetensors": b"rows", "router/00000000.safetensors": b""}
Change = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / "run.ofb" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run.ofb" / name).write_bytes(data)
    return tmp_path / "run.ofb"


def write_zip(path: Path, files: dict[str, bytes], **kind: int) -> Path:
    with zipfile.ZipFile(path, "w", **kind) as archive:  # type: ignore[arg-type]
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, **({"compress_type": kind["compression"]} if kind else {}))
    return path


def read_all(path: Path) -> dict[str, bytes]:
    with open_container(path) as container:
        contents = container.contents()
        return {name: containers.read(container, contents, name) for name in contents.sizes}


def refusal_of(path: Path) -> str:
    with pytest.raises(ContainerRefusal) as refusal:
        read_all(path)
    return str(refusal.value)


# ---- what is read


def test_a_folder_and_an_archive_of_it_hold_the_same(folder: Path, tmp_path: Path) -> None:
    assert dict(sorted(FILES.items())) == read_all(folder)
    assert dict(sorted(FILES.items())) == read_all(write_zip(tmp_path / "run.zip", FILES))


def test_views_are_named_as_untrusted_and_not_looked_into(folder: Path, tmp_path: Path) -> None:
    (folder / "views").mkdir()
    (folder / "views" / "anything").symlink_to("/etc/passwd")
    with open_container(folder) as container:
        assert ("views/",) == container.contents().untrusted
        assert sorted(FILES) == list(container.contents().sizes)
    archive = write_zip(tmp_path / "run.zip", FILES | {"views/page.html": b"<script>", "rows/": b""})
    with open_container(archive) as container:
        assert ("views/page.html",) == container.contents().untrusted
        assert sorted(FILES) == list(container.contents().sizes)


def test_streams_of_one_container_do_not_disturb_each_other(folder: Path, tmp_path: Path) -> None:
    for path in (folder, write_zip(tmp_path / "run.zip", FILES)):
        with open_container(path) as container:
            container.contents()
            with container.open("host.json") as one, container.open("host.json") as other:
                assert (b"{", b"{}", b"}\n", b"\n") == (one.read(1), other.read(2), one.read(), other.read())


def test_a_whole_bundle_is_verified_from_an_archive_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make(tmp_path / "run.ofb", Kind())
    files = {str(path.relative_to(bundle)): path.read_bytes() for path in sorted(bundle.rglob("*")) if path.is_file()}
    assert 0 == main(["verify", str(write_zip(tmp_path / "run.zip", files)), "--signer", vectors.key().public.text])
    assert capsys.readouterr().out.startswith("verified")


def test_what_is_not_there_is_a_fault_of_the_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EnvironmentFault):
        open_container(tmp_path / "nothing")
    assert 3 == main(["verify", str(tmp_path / "nothing")])
    assert "verified" not in "".join(capsys.readouterr())


# ---- folders


def other_kind(name: str, make_it: Callable[[Path], object]) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        make_it(folder / name)

    return change


def bind(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda f: (f / "ANCHOR.JSON").write_bytes(b"{}"), "ANCHOR.JSON", id="the same name in capitals"),
        pytest.param(lambda f: (f / "anchor.json ").write_bytes(b"{}"), "anchor.json ", id="a space behind a name"),
        pytest.param(lambda f: (f / "аnchor.json").write_bytes(b"{}"), "\\u0430", id="a letter that looks the same"),
        pytest.param(lambda f: (f / ".anchor.json.123").write_bytes(b""), ".anchor", id="a hidden file"),
        pytest.param(lambda f: (f / "more").mkdir(), "more", id="another folder"),
        pytest.param(lambda f: (f / "rows" / "1.safetensors").write_bytes(b""), "1.safetensors", id="a row's file of another name"),
        pytest.param(lambda f: (f / "rows" / "deeper").mkdir(), "folder", id="a folder in a folder"),
        pytest.param(lambda f: (f / "host.json").unlink(), "host.json", id="a missing file"),
        pytest.param(other_kind("host.json", lambda p: p.mkdir()), "host.json", id="a folder for a file"),
        pytest.param(other_kind("host.json", lambda p: p.symlink_to("anchor.json")), "a link", id="a link to a file"),
        pytest.param(other_kind("host.json", lambda p: p.symlink_to("/dev/zero")), "a link", id="a link to a device"),
        pytest.param(other_kind("host.json", lambda p: p.symlink_to("gone")), "a link", id="a link to nothing"),
        pytest.param(other_kind("host.json", os.mkfifo), "a pipe", id="a pipe"),
        pytest.param(other_kind("host.json", bind), "a socket", id="a socket"),
        pytest.param(lambda f: os.truncate(f / "tree-head.txt", 1 << 13), "at most 4096", id="a file over its limit"),
        pytest.param(lambda f: os.truncate(f / "anchor.json", 1 << 40), "at most", id="a sparse file over its limit"),
    ],
)
def test_a_folder_that_is_not_exactly_a_bundle_is_refused(change: Change, said: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder)
    assert said in refusal_of(folder)
    assert 1 == main(["verify", str(folder)])
    out = "".join(capsys.readouterr())
    assert "V1 container: " in out
    assert "verified" not in out


def test_a_linked_folder_of_rows_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "rows").rename(tmp_path / "rows")
    (folder / "rows").symlink_to(tmp_path / "rows")
    assert "rows: expected a regular file, got a link" in refusal_of(folder)


def test_a_file_replaced_by_a_link_after_it_was_listed_is_refused(folder: Path) -> None:
    with open_container(folder) as container:
        contents = container.contents()
        (folder / "host.json").unlink()
        (folder / "host.json").symlink_to("anchor.json")
        with pytest.raises(ContainerRefusal):
            container.open("host.json")
        (folder / "io.jsonl").write_bytes(b"longer than before")
        with pytest.raises(ContainerRefusal):
            containers.read(container, contents, "io.jsonl")


# ---- archives


def info(name: str, **more: int) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    for field, value in more.items():
        setattr(made, field, value)
    return made


def bytes_of(files: list[tuple[zipfile.ZipInfo | str, bytes]], path: Path, compression: int = zipfile.ZIP_STORED) -> bytes:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return path.read_bytes()


def patched(data: bytes, at: int, form: str, value: int) -> bytes:
    return data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]


def directory(data: bytes) -> int:
    """Where the central directory begins"""
    return int(struct.unpack_from("<I", data, len(data) - 6)[0])


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "extra", ["../evil", "/etc/passwd", "anchor.json/", "rows/../anchor.json", "C:\\anchor.json", "ANCHOR.json", "rows\\00000000.safetensors"]
)
def test_a_member_of_another_name_is_refused(extra: str, tmp_path: Path) -> None:
    assert "expected only files of a bundle" in refusal_of(write_zip(tmp_path / "run.zip", FILES | {extra: b""}))
    assert [tmp_path / "run.zip"] == sorted(tmp_path.iterdir())


def test_compressed_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.zip"
    bytes_of([(name, data * 100) for name, data in FILES.items()], path, zipfile.ZIP_DEFLATED)
    assert "neither compressed nor encrypted" in refusal_of(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.zip"
    bytes_of([*FILES.items(), ("anchor.json", b"[]\n")], path)
    assert "each name once" in refusal_of(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda d: b"#!/bin/sh\n" + d, "directory", id="bytes before the first member"),
        pytest.param(lambda d: d + b"more", "ends with its directory", id="bytes behind the end"),
        pytest.param(lambda d: d[:-2] + b"\x02\x00hi", "ends with its directory", id="a comment"),
        pytest.param(lambda d: d[: directory(d)] + b"gap" + d[directory(d) :], "right before the end", id="a gap before the directory"),
        pytest.param(lambda d: patched(d, directory(d) + 8, "<H", 1), "neither compressed nor encrypted", id="encrypted, says the directory"),
        pytest.param(lambda d: patched(d, 6, "<H", 8), "both its headers", id="a data descriptor, says the member"),
        pytest.param(lambda d: patched(d, 18, "<I", 2), "both its headers", id="another size, says the member"),
        pytest.param(lambda d: patched(d, 30, "<B", 65), "both its headers", id="another name, says the member"),
        pytest.param(lambda d: patched(d, directory(d) + 42, "<I", 7), "right behind the one before", id="a member that begins elsewhere"),
        pytest.param(
            lambda d: patched(patched(d, directory(d) + 20, "<I", 9), directory(d) + 24, "<I", 9), "both its headers", id="overlapping members"
        ),
        pytest.param(lambda d: patched(d, directory(d) + 38, "<I", 0o120777 << 16), "regular file", id="a link"),
        pytest.param(
            lambda d: patched(patched(d, len(d) - 14, "<H", 99), len(d) - 12, "<H", 99), "as many members", id="more members than there are"
        ),
        pytest.param(lambda d: patched(d, len(d) - 12, "<H", 99), "one ZIP file", id="two counts"),
        pytest.param(lambda d: patched(d, len(d) - 6, "<I", 0xFFFFFFFF), "ZIP64", id="ZIP64"),
        pytest.param(lambda d: d[:30], "directory", id="a torso"),
        pytest.param(lambda d: b"", "ZIP file", id="nothing"),
    ],
)
def test_an_archive_that_two_readers_could_read_differently_is_refused(
    change: Callable[[bytes], bytes], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_zip(tmp_path / "run.zip", FILES)
    path.write_bytes(change(path.read_bytes()))
    assert said in refusal_of(path)
    assert 1 == main(["verify", str(path)])
    assert "verified" not in "".join(capsys.readouterr())


def test_an_extra_field_that_could_rename_a_member_is_refused(tmp_path: Path) -> None:
    files = [*list(FILES.items())[1:], (info("anchor.json", extra=struct.pack("<HHBI", 0x7075, 5, 1, 0)), b"{}\n")]
    bytes_of(files, tmp_path / "run.zip")  # type: ignore[arg-type]
    assert "extra fields" in refusal_of(tmp_path / "run.zip")


def test_times_and_owners_of_members_are_allowed(tmp_path: Path) -> None:
    files = [*list(FILES.items())[1:], (info("anchor.json", extra=struct.pack("<HHBI", 0x5455, 5, 1, 0)), b"{}\n")]
    bytes_of(files, tmp_path / "run.zip")  # type: ignore[arg-type]
    assert set(FILES) == set(read_all(tmp_path / "run.zip"))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_is_changed_in_an_archive_it_is_refused_or_reads_as_a_bundle(data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        path = write_zip(Path(scratch) / "run.zip", FILES)
        whole = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(whole)
        try:
            found = read_all(path)
        except ContainerRefusal:
            return
        assert set(FILES) == {name for name in found if name in containers.REQUIRED or "/" in name}
