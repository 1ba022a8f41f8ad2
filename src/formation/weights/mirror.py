"""A checkpoint that lies in several folders: the same shards again, or some of them, on other disks or mounts.

A copy is taken for one only after its header, its size and pieces of its payload spread over the file were compared. That finds another
checkpoint, a download that stopped and a file that was filled with zeros; it does not read every byte: `formation seal --hash-tensors` does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from formation.errors import CheckpointError, ReadError
from formation.weights.checkpoint import Checkpoint, Copy, Shard, open_checkpoint
from formation.weights.header import FileIdentity, read_header_bytes

PIECES, PIECE_BYTES = 8, 1 << 16  # of each copy
HINT = "copy the shard again, or leave this mirror out"
SEVERAL_HINT = "run without this mirror, or give it where only one checkpoint streams"


def with_mirrors(checkpoint: Checkpoint, folders: Sequence[str | Path]) -> Checkpoint:
    """The checkpoint, each shard with its copies in `folders`, each of which holds one or more of its shards.

    Raises CheckpointError for a folder without any, for one named twice and for a file that is no copy; ReadError.
    """
    mirrors = [Path(folder) for folder in folders]
    places = [folder.resolve() for folder in (checkpoint.path, *mirrors)]
    for n, path in enumerate(places):
        if path in places[:n]:
            raise CheckpointError(f"{path}: expected each mirror once, and none to be the checkpoint, got it again")
    shards = [replace(shard, copies=tuple(_copies(shard, mirrors))) for shard in checkpoint.shards]
    for place, folder in enumerate(mirrors, 1):
        if not any(copy.place == place for shard in shards for copy in shard.copies):
            raise CheckpointError(f"{folder}: expected a mirror with shards such as {shards[0].file}, got none of them")
    return replace(checkpoint, shards=tuple(shards), mirrors=tuple(mirrors))


def open_mirrored(path: str | Path, mirrors: Sequence[str | Path]) -> Checkpoint:
    """The checkpoint in `path`, with its mirrors if there are any. Raises CheckpointError, HeaderError, ReadError."""
    opened = open_checkpoint(path)
    return with_mirrors(opened, mirrors) if mirrors else opened


def open_several(paths: Sequence[str | Path], mirrors: Sequence[str | Path]) -> list[Checkpoint]:
    """The checkpoints in `paths`, each with those mirrors whose shards are copies of its own, compared as `with_mirrors` does.

    Raises as `open_mirrored`, and CheckpointError for a mirror of none of them and for one that may be of several.
    """
    places = [Path(path).resolve() for path in paths]
    opened = {place: open_checkpoint(path) for place, path in dict(zip(places, paths, strict=True)).items()}
    own: dict[Path, list[Path]] = {place: [] for place in opened}
    for folder in map(Path, mirrors):
        for place in _owners(opened, folder):
            own[place].append(folder)
    found = {place: with_mirrors(checkpoint, own[place]) if own[place] else checkpoint for place, checkpoint in opened.items()}
    return [found[place] for place in places]


def _owners(opened: Mapping[Path, Checkpoint], folder: Path) -> list[Path]:
    """Whose mirror it is. Models of one architecture have equal headers, and a model and its fine-tune may be equal in every piece that is compared:
    no file is taken for a copy of two. Only a folder that holds other files for each is a mirror of several."""
    asked = [folder.resolve()] if folder.resolve() in opened else list(opened)
    if len(asked) == 1:
        return asked  # with_mirrors says what is wrong with it
    files = _files_of(opened, folder)
    if sum(map(len, files.values())) > len(set().union(*files.values())):
        names = " and ".join(str(opened[place].path) for place in files)
        raise CheckpointError(f"{folder}: expected a mirror of one checkpoint, got files that may be copies of {names}", hint=SEVERAL_HINT)
    return list(files)


def _files_of(opened: Mapping[Path, Checkpoint], folder: Path) -> dict[Path, set[Path]]:
    """The files of `folder` that are copies, by the checkpoint. Raises CheckpointError where it is a mirror of none, with what each would say."""
    files: dict[Path, set[Path]] = {}
    refusals = []
    for place, checkpoint in opened.items():
        try:
            files[place] = {copy.path for shard in with_mirrors(checkpoint, [folder]).shards for copy in shard.copies}
        except CheckpointError as error:
            refusals.append(str(error))
    if not files:
        names = " or ".join(str(checkpoint.path) for checkpoint in opened.values()) or "a checkpoint"
        raise CheckpointError(f"{folder}: expected a mirror of {names}, got one of none: {'; '.join(refusals) or 'nothing streams here'}", hint=HINT)
    return files


def _copies(shard: Shard, folders: Sequence[Path]) -> Iterator[Copy]:
    for place, folder in enumerate(folders, 1):
        if (folder / shard.file).exists():
            yield Copy(place, folder / shard.file, _compared(shard, folder / shard.file))


def _compared(shard: Shard, path: Path) -> FileIdentity:
    """The identity of a copy, whose header, size and pieces are those of the shard."""
    ours, _ = read_header_bytes(shard.path)
    theirs, identity = read_header_bytes(path)
    if identity.size != shard.identity.size:
        raise CheckpointError(f"{path}: expected a copy of {shard.identity.size} bytes, got {identity.size}", hint=HINT)
    if theirs != ours:
        raise CheckpointError(f"{path}: expected the header of {shard.path}, got another", hint=HINT)
    offsets = [len(ours) + n * max(0, identity.size - len(ours) - PIECE_BYTES) // (PIECES - 1) for n in range(PIECES)]
    for offset, (mine, other) in zip(offsets, zip(_pieces(shard.path, offsets), _pieces(path, offsets), strict=True), strict=True):
        if mine != other:
            raise CheckpointError(f"{path}: expected the bytes of {shard.path} from {offset} on, got others", hint=HINT)
    return identity


def _pieces(path: Path, offsets: Sequence[int]) -> list[bytes]:
    try:
        with path.open("rb", buffering=0) as file:
            return [os.pread(file.fileno(), PIECE_BYTES, offset) for offset in offsets]
    except OSError as error:
        raise ReadError(f"{path}: expected a readable file, got {error.strerror}", hint=HINT) from error
