"""A bundle copied: into a folder that nobody else writes in, and into the one ZIP file that verifies as the folder does."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

from formation.errors import EvidenceError
from formation.evidence import container

ZIP_BYTES, ZIP_FILES = 1 << 31, 1 << 16  # below these a ZIP needs no fields of ZIP64, which evidence/archive.py refuses
HEADERS_BYTES = 256  # of one member, at most
NO_TIME = (1980, 1, 1, 0, 0, 0)  # the first that a ZIP can hold
BLOCK = 1 << 20


def copy(bundle: Path, folder: Path) -> Mapping[str, int]:
    """Writes the files of a folder or a ZIP into `folder`, which is new; returns their sizes by name. What is never trusted (views/) stays behind.
    What is read, shown and packed afterwards are the same bytes. Raises EvidenceError for what is no container of a bundle."""
    folder.mkdir(parents=True)
    try:
        with container.open_container(bundle) as opened:
            sizes = opened.contents().sizes
            for name in sizes:
                (folder / name).parent.mkdir(exist_ok=True)
                with opened.open(name) as source, (folder / name).open("xb") as target:
                    shutil.copyfileobj(source, target, BLOCK)
    except container.ContainerRefusal as refusal:
        raise EvidenceError(f"{bundle}: {refusal}", hint="formation verify says more") from None
    return sizes


def fits_a_zip(sizes: Mapping[str, int]) -> bool:
    return sum(sizes.values()) * 1.06 + HEADERS_BYTES * len(sizes) < ZIP_BYTES and len(sizes) < ZIP_FILES  # zipfile adds 5 % when it decides


def pack(folder: Path, names: Mapping[str, int], out: Path) -> None:
    """Stored members in the order of their names, without times: the same bundle gives the same bytes"""
    with zipfile.ZipFile(out, "x", zipfile.ZIP_STORED) as archive:
        for name in names:
            member = zipfile.ZipInfo(name, NO_TIME)
            member.create_system, member.external_attr = 3, 0o100644 << 16  # as from Unix, whatever wrote it
            member.file_size = (folder / name).stat().st_size
            with (folder / name).open("rb") as source, archive.open(member, "w") as target:
                shutil.copyfileobj(source, target, BLOCK)
