"""Attacks on the container: what lies in the folder or in the ZIP, and what two readers could see differently in it."""

from __future__ import annotations

import os
import struct
import zipfile
from io import BytesIO
from pathlib import Path

from formation.certify.attack import BUNDLE, KEY, NETWORK, NOTHING, Group
from formation.certify.forgery import Files, Forgery

GROUP = Group("container")
attack = GROUP.attack
END = struct.Struct("<4s4H2IH")
CENTRAL_METHOD, CENTRAL_FLAGS, CENTRAL_STORED = 10, 8, 20  # offsets in a member's header in the directory


# ---- files


@attack(NETWORK, "container")
def missing_file(f: Forgery) -> None:
    """host.json is left out"""
    del f.files["host.json"]


@attack(NETWORK, "container")
def missing_seal(f: Forgery) -> None:
    """attestation.json is left out: an unsealed bundle"""
    del f.files["attestation.json"]


@attack(NOTHING, "container")
def nothing_at_all(f: Forgery) -> None:
    """an empty folder"""
    f.files.clear()


@attack(KEY, "container")
def extra_file(f: Forgery) -> None:
    """a file that no bundle has, listed in the signed statement"""
    f.files["notes.txt"] = b"see here"
    f.seal()


@attack(KEY, "container")
def file_name_in_other_case(f: Forgery) -> None:
    """Anchor.json beside anchor.json, signed: one file on some disks, two on others"""
    f.files["Anchor.json"] = f.files["anchor.json"]
    f.seal()


@attack(KEY, "container")
def sidecar_of_another_name(f: Forgery) -> None:
    """rows/first.safetensors, signed"""
    f.files["rows/first.safetensors"] = b""
    f.seal()


@attack(KEY, "container")
def file_beyond_its_limit(f: Forgery) -> None:
    """a tree head of 5,000 bytes"""
    f.files["tree-head.txt"] += b"\n" * 5000
    f.attest()


@attack(BUNDLE, "complete")
def ledger_that_grows(f: Forgery) -> None:
    """ledger.jsonl takes the name that it has while it grows"""
    f.files["ledger.jsonl.part"] = f.files.pop("ledger.jsonl")


@attack(KEY, "complete")
def interrupted_run_sealed(f: Forgery) -> None:
    """progress.json of a run that was cut off is there, and signed"""
    f.files["progress.json"] = b"{}"
    f.seal()


# ---- a folder on disk


@attack(BUNDLE, "container")
def symbolic_link(f: Forgery) -> None:
    """host.json is a link to a file elsewhere, of the same bytes"""

    def plant(folder: Path) -> None:
        (folder / "host.json").rename(folder.parent / "elsewhere.json")
        (folder / "host.json").symlink_to(folder.parent / "elsewhere.json")

    f.on_disk = plant


@attack(BUNDLE, "container")
def linked_folder(f: Forgery) -> None:
    """router/ is a link to a folder elsewhere"""

    def plant(folder: Path) -> None:
        (folder.parent / "elsewhere").mkdir()
        for path in (folder / "router").glob("*"):
            path.rename(folder.parent / "elsewhere" / path.name)
        if (folder / "router").exists():
            (folder / "router").rmdir()
        (folder / "router").symlink_to(folder.parent / "elsewhere")

    f.on_disk = plant


@attack(BUNDLE, "container")
def pipe(f: Forgery) -> None:
    """host.json is a pipe that nobody writes to: a reader that opens it waits for ever"""

    def plant(folder: Path) -> None:
        (folder / "host.json").unlink()
        os.mkfifo(folder / "host.json")

    f.on_disk = plant


@attack(BUNDLE, "container")
def folder_in_place_of_a_file(f: Forgery) -> None:
    """host.json is a folder"""

    def plant(folder: Path) -> None:
        (folder / "host.json").unlink()
        (folder / "host.json").mkdir()

    f.on_disk = plant


@attack(BUNDLE, "container")
def hidden_folder(f: Forgery) -> None:
    """a folder that no bundle has"""
    f.on_disk = lambda folder: (folder / ".hidden").mkdir()


# ---- a ZIP


def zipped(files: Files, method: int = zipfile.ZIP_STORED) -> bytes:
    target = BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return target.getvalue()


def directory(archive: bytes) -> int:
    """Where it begins"""
    return int(END.unpack(archive[-END.size :])[6])


def patched(archive: bytes, at: int, form: str, value: int) -> bytes:
    data = bytearray(archive)
    struct.pack_into(form, data, at, value)
    return bytes(data)


@attack(NETWORK, "container")
def compressed_members(f: Forgery) -> None:
    """a ZIP whose members are compressed: a bomb for whoever unpacks it"""
    f.archive = zipped(f.files, zipfile.ZIP_DEFLATED)


@attack(NETWORK, "container")
def path_that_climbs(f: Forgery) -> None:
    """a ZIP with a member ../key.pem"""
    f.archive = zipped({**f.files, "../key.pem": b"-----BEGIN PRIVATE KEY-----"})


@attack(NETWORK, "container")
def absolute_path(f: Forgery) -> None:
    """a ZIP with a member /etc/profile"""
    f.archive = zipped({**f.files, "/etc/profile": b"true"})


@attack(NETWORK, "container")
def path_with_backslashes(f: Forgery) -> None:
    """a ZIP with a member rows\\..\\anchor.json"""
    f.archive = zipped({**f.files, "rows\\..\\anchor.json": f.files["anchor.json"]})


@attack(NETWORK, "container")
def two_members_of_one_name(f: Forgery) -> None:
    """a ZIP with anchor.json twice: the first for one reader, the last for another"""
    target = BytesIO(zipped(f.files))
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr(zipfile.ZipInfo("anchor.jsoN"), f.files["anchor.json"])
    f.archive = target.getvalue().replace(b"anchor.jsoN", b"anchor.json")


@attack(NETWORK, "container")
def two_readings_of_a_member(f: Forgery) -> None:
    """a ZIP whose directory calls a member anchor.json and whose header before the data calls it Anchor.json"""
    f.archive = zipped(f.files).replace(b"anchor.json", b"Anchor.json", 1)


@attack(NETWORK, "container")
def overlapping_members(f: Forgery) -> None:
    """a ZIP whose second member begins where the first one does"""
    data = zipped(f.files)
    at = directory(data)
    second = data.index(b"PK\x01\x02", at + 4)
    f.archive = patched(data, second + 42, "<I", 0)


@attack(NETWORK, "container")
def encrypted_member(f: Forgery) -> None:
    """a ZIP whose first member claims to be encrypted"""
    data = zipped(f.files)
    f.archive = patched(data, directory(data) + CENTRAL_FLAGS, "<H", 1)


@attack(NETWORK, "container")
def member_larger_than_it_says(f: Forgery) -> None:
    """a ZIP whose first member claims another stored size"""
    data = zipped(f.files)
    f.archive = patched(data, directory(data) + CENTRAL_STORED, "<I", 1)


@attack(NETWORK, "container")
def program_before_the_archive(f: Forgery) -> None:
    """a ZIP behind a shell script, in one file"""
    f.archive = b"#!/bin/sh\nexit 0\n" + zipped(f.files)


@attack(NETWORK, "container")
def comment_behind_the_archive(f: Forgery) -> None:
    """a ZIP with a comment that holds another directory's end"""
    data = zipped(f.files)
    f.archive = patched(data, len(data) - 2, "<H", 22) + data[-END.size :]


@attack(NETWORK, "container")
def linked_member(f: Forgery) -> None:
    """a ZIP with a member that unpacks as a symbolic link"""
    target = BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in f.files.items():
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, (0o120777 if name == "host.json" else 0o100644) << 16
            archive.writestr(info, data)
    f.archive = target.getvalue()
