"""A checkpoint folder: config.json, and which bytes of which shard are which tensor.

Opening reads the config, the index and every shard's header (a K2.5 is 64 small reads and 208,550 entries), no weights. What
the index says and what the shards say must be the same table. File names of an index are plain names in the folder; a shard
may be a symbolic link (download caches are made of them). A shard that lies in the folder but not in the index is reported
in `unlisted`, not refused: publishers leave other formats beside. Unknown config keys are the model's business, not refused here.
"""

from __future__ import annotations

import gc
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from formation.errors import CheckpointError, ReadError
from formation.strict_json import JsonRefusal, parse_json
from formation.weights.header import FileIdentity, Header, read_header

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MAX_CONFIG_BYTES = 16 * 2**20
MAX_INDEX_BYTES = 256 * 2**20
FOLDER_HINT = "give the folder that holds config.json"
DOWNLOAD_HINT = "download the checkpoint again; every file of the publisher's listing must be there"


class TensorEntry(NamedTuple):
    """One tensor of the checkpoint: bytes [begin, end) of `file`, row-major, little endian."""

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.begin

    def rows(self, first: int, count: int) -> TensorEntry:
        """Rows [first, first + count) along the first dimension, as an entry of its own. Raises CheckpointError."""
        if not self.shape or first < 0 or count < 0 or first + count > self.shape[0]:
            raise CheckpointError(f"tensor {self.name!r}: expected rows within {list(self.shape)}, got [{first}, {first + count})")
        width = self.nbytes // max(self.shape[0], 1)
        begin = self.begin + first * width
        return self._replace(shape=(count, *self.shape[1:]), begin=begin, end=begin + count * width)


class Copy(NamedTuple):
    """A file that holds a shard: `place` is 0 in the checkpoint's own folder, n in its n-th mirror."""

    place: int
    path: Path
    identity: FileIdentity


@dataclass(frozen=True)
class Shard:
    """One safetensors file, and the identity it had when its header was read. `copies` are those in mirrors, see mirror.py."""

    file: str
    path: Path
    identity: FileIdentity
    copies: tuple[Copy, ...] = ()

    @property
    def everywhere(self) -> tuple[Copy, ...]:
        return (Copy(0, self.path, self.identity), *self.copies)


@dataclass(frozen=True)
class Checkpoint:
    """An opened folder. `config` is config.json as parsed; `unlisted` names safetensors files that the index does not; `mirrors` are folders
    with shards of it."""

    path: Path
    config: dict[str, Any]
    tensors: Mapping[str, TensorEntry]
    shards: tuple[Shard, ...]
    unlisted: tuple[str, ...]
    mirrors: tuple[Path, ...] = ()

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.nbytes for entry in self.tensors.values())


@dataclass(frozen=True)
class Outline:
    """Config and index alone: names and shards without shapes. `total_bytes` is what the index declares, if it does."""

    path: Path
    config: dict[str, Any]
    files: Mapping[str, str]  # tensor name -> shard file
    shards: tuple[str, ...]
    total_bytes: int | None


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a folder with its weights. Raises CheckpointError, HeaderError or ReadError; each names the file and the tensor."""
    with _collector_at_rest():
        return _open(Path(path))


def _open(path: Path) -> Checkpoint:
    config = _read_config(path)
    index = _read_index(path)
    files = tuple(sorted(set(index.files.values()))) if index else (_single(path),)
    headers = [(file, _shard_header(path, file)) for file in files]
    tensors = _collect(headers)
    if index:
        _compare(index.files, tensors)
    shards = tuple(Shard(file, path / file, header.identity) for file, header in headers)
    return Checkpoint(path, config, MappingProxyType(tensors), shards, _unlisted(path, files))


def open_plan_only(path: str | Path) -> Outline:
    """Open a folder whose weights need not be there: what is known from config.json and the index. Raises CheckpointError."""
    path = Path(path)
    config = _read_config(path)
    index = _read_index(path)
    if index is None:
        header = _shard_header(path, _single(path))
        index = _Index({entry.name: SINGLE for entry in header.entries}, sum(entry.end - entry.begin for entry in header.entries))
    files = MappingProxyType(dict(index.files))
    return Outline(path, config, files, tuple(sorted(set(files.values()))), index.total_bytes)


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """A million small tuples without a cycle: walking them over and over is half of the time of opening a K2.5."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Index(NamedTuple):
    files: dict[str, str]
    total_bytes: int | None


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        got = "a file" if path.exists() else "nothing"
        raise CheckpointError(f"{path}: expected a checkpoint folder, got {got}", hint=FOLDER_HINT)
    config = _read_json(path / CONFIG, MAX_CONFIG_BYTES)
    if config is None:
        raise CheckpointError(f"{path}: expected {CONFIG}, got a folder without it", hint=FOLDER_HINT)
    return config


def _read_json(path: Path, cap: int) -> dict[str, Any] | None:
    """The object in a file, or None when there is no such file."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{path.name}: expected a regular file, got another kind", hint=DOWNLOAD_HINT)
        if status.st_size > cap:
            raise CheckpointError(f"{path.name}: expected at most {cap} bytes, got {status.st_size}", hint=DOWNLOAD_HINT)
        value = parse_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReadError(f"{path}: expected a readable file, got {error.strerror}", hint="check the path and its permissions") from error
    except JsonRefusal as refusal:
        raise CheckpointError(f"{path.name}: {refusal}", hint=DOWNLOAD_HINT) from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path.name}: expected a JSON object, got something else", hint=DOWNLOAD_HINT)
    return value


def _read_index(path: Path) -> _Index | None:
    index = _read_json(path / INDEX, MAX_INDEX_BYTES)
    if index is None:
        return None
    files = index.get("weight_map")
    if not isinstance(files, dict) or not files:
        raise CheckpointError(f"{INDEX}: expected weight_map to map tensor names to files, got something else", hint=DOWNLOAD_HINT)
    for name, file in files.items():
        if type(file) is not str:
            raise CheckpointError(f"{INDEX}: tensor {name!r}: expected a file name, got something else", hint=DOWNLOAD_HINT)
    for file in set(files.values()):
        _check_plain_name(file)
    return _Index(files, _declared_bytes(index.get("metadata")))


def _check_plain_name(file: str) -> None:
    """A shard is named, never reached: no folder, no parent, no drive, no hidden file."""
    plain = file.endswith(".safetensors") and not file.startswith(".") and not set(file) & set("/\\:\0\n\r")
    if not plain or not file.isprintable():
        raise CheckpointError(f"{INDEX}: expected the plain name of a .safetensors file in the folder, got {file!r}", hint=DOWNLOAD_HINT)


def _declared_bytes(metadata: object) -> int | None:
    size = metadata.get("total_size") if isinstance(metadata, dict) else None
    return size if type(size) is int and size >= 0 else None


def _single(path: Path) -> str:
    if (path / SINGLE).exists():
        return SINGLE
    found = [file.name for file in sorted(path.glob("*.safetensors"))]
    got = f"{len(found)} shards without an index, the first {found[0]!r}" if found else "no safetensors file"
    raise CheckpointError(f"{path}: expected {INDEX} or {SINGLE}, got {got}", hint=DOWNLOAD_HINT)


def _shard_header(path: Path, file: str) -> Header:
    if not (path / file).exists():
        raise CheckpointError(f"{path}: expected shard {file!r}, which the index names, got no such file", hint=DOWNLOAD_HINT)
    return read_header(path / file)


def _collect(headers: Iterable[tuple[str, Header]]) -> dict[str, TensorEntry]:
    tensors: dict[str, TensorEntry] = {}
    for file, header in headers:
        for name, dtype, shape, begin, end in header.entries:
            if name in tensors:
                both = f"{tensors[name].file!r} and {file!r}"
                raise CheckpointError(f"tensor {name!r}: expected in one shard, got it in {both}", hint=DOWNLOAD_HINT)
            tensors[name] = TensorEntry(name, file, dtype, shape, begin, end)
    return tensors


def _compare(files: Mapping[str, str], tensors: Mapping[str, TensorEntry]) -> None:
    """The index and the shards must be the same table."""
    for name, file in files.items():
        entry = tensors.get(name)
        if entry is None or entry.file != file:
            where = "in no shard" if entry is None else f"in {entry.file!r}"
            raise CheckpointError(f"tensor {name!r}: expected in shard {file!r}, as the index says, got it {where}", hint=DOWNLOAD_HINT)
    for name, entry in tensors.items():
        if name not in files:
            raise CheckpointError(f"tensor {name!r}: expected in the index, got it only in shard {entry.file!r}", hint=DOWNLOAD_HINT)


def _unlisted(path: Path, files: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({file.name for file in path.glob("*.safetensors")} - set(files)))
