"""SHA-256 of every tensor's bytes: a pass over the whole checkpoint, apart from any run, that can be stopped and taken up again.

What is hashed is kept in the user's cache folder, one file per shard, named by which file the shard is (path, size, modification time, inode)
and one line per tensor: a shard that changed is another file, and is read anew. SHA-256 takes a core about a second per gigabyte, so tensors
are hashed side by side; the page cache is given back after each, so that the pass does not push out what others need.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from formation.errors import ReadError
from formation.strict_json import JsonRefusal, parse_json
from formation.weights.checkpoint import Checkpoint, Shard, TensorEntry
from formation.weights.header import FileIdentity

CHUNK_BYTES = 1 << 22
ROW = {"name": str, "begin": int, "end": int, "sha256": str}
SHA256 = re.compile(r"[0-9a-f]{64}")
CHANGED_HINT = "the checkpoint must not change while it is hashed; start again: what was hashed before is kept"


@dataclass(frozen=True)
class HashProgress:
    """How far the pass is; bytes are of payloads, and those read by this pass alone are `read_bytes`, in `seconds`."""

    shard: str
    tensors: int
    total_tensors: int
    done_bytes: int
    total_bytes: int
    read_bytes: int
    seconds: float

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None before anything was read"""
        return (self.total_bytes - self.done_bytes) * self.seconds / self.read_bytes if self.read_bytes else None


def hash_tensors(
    checkpoint: Checkpoint, *, threads: int, cache: Path | None = None, progress: Callable[[HashProgress], None] | None = None
) -> dict[str, str]:
    """Tensor name -> SHA-256 in hexadecimal of bytes [begin, end) of its shard. `cache` defaults to the user's cache folder.

    Raises ReadError if a file cannot be read or is no longer the one that was opened. Whatever stops it, finished tensors are kept.
    """
    folder = cache_folder() if cache is None else cache
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    digests: dict[str, str] = {}
    began = time.monotonic()
    state = HashProgress("", 0, len(checkpoint.tensors), 0, checkpoint.total_bytes, 0, 0.0)
    for shard in checkpoint.shards:
        entries = sorted((e for e in checkpoint.tensors.values() if e.file == shard.file), key=lambda e: e.begin)
        for entry, digest, was_read in _hash_shard(shard, entries, folder, threads):
            digests[entry.name] = digest
            read = state.read_bytes + entry.nbytes * was_read
            done = state.done_bytes + entry.nbytes
            state = replace(state, shard=shard.file, tensors=len(digests), done_bytes=done, read_bytes=read, seconds=time.monotonic() - began)
            if progress:
                progress(state)
    return digests


def cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".cache") / "formation" / "tensor-digests"


def cache_path(folder: Path, shard: Shard) -> Path:
    identity = [str(shard.path.resolve()), shard.identity.size, shard.identity.mtime_ns, shard.identity.inode]
    return folder / f"{hashlib.sha256(json.dumps(identity).encode()).hexdigest()}.jsonl"


def _hash_shard(shard: Shard, entries: Sequence[TensorEntry], folder: Path, threads: int) -> Iterator[tuple[TensorEntry, str, bool]]:
    """(entry, digest, whether it was read now), first those known, then the others in the order of their bytes."""
    path = cache_path(folder, shard)
    known, whole_bytes = _read_cache(path)
    missing = []
    for entry in entries:
        digest = known.get((entry.name, entry.begin, entry.end))
        if digest is None:
            missing.append(entry)
        else:
            yield entry, digest, False
    if missing:
        with path.open("ab") as cache:
            cache.truncate(whole_bytes)
            for entry, digest in _read_shard(shard, missing, threads):
                row = {"name": entry.name, "begin": entry.begin, "end": entry.end, "sha256": digest}
                cache.write(json.dumps(row).encode() + b"\n")
                cache.flush()
                yield entry, digest, True
            os.fsync(cache.fileno())


def _read_cache(path: Path) -> tuple[dict[tuple[str, int, int], str], int]:
    """What is known of a shard, and how many bytes of the file say it: a torn line and what follows it are nothing."""
    known: dict[tuple[str, int, int], str] = {}
    whole_bytes = 0
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        row = _cached_row(line)
        if row is None:
            break
        known[row[:3]] = row[3]
        whole_bytes += len(line)
    return known, whole_bytes


def _cached_row(line: bytes) -> tuple[str, int, int, str] | None:
    try:
        row = parse_json(line) if line.endswith(b"\n") else None
    except JsonRefusal:
        return None
    if not isinstance(row, dict) or {name: type(value) for name, value in row.items()} != ROW or not SHA256.fullmatch(row["sha256"]):
        return None
    return row["name"], row["begin"], row["end"], row["sha256"]


def _read_shard(shard: Shard, entries: Sequence[TensorEntry], threads: int) -> Iterator[tuple[TensorEntry, str]]:
    try:
        descriptor = os.open(shard.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ReadError(f"{shard.path}: expected a readable file, got {error.strerror}") from error
    pool = ThreadPoolExecutor(threads)
    try:
        yield from zip(entries, pool.map(lambda entry: _hash_tensor(shard, descriptor, entry), entries), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)  # what was not begun is not waited for
        os.close(descriptor)


def _hash_tensor(shard: Shard, descriptor: int, entry: TensorEntry) -> str:
    digest, offset = hashlib.sha256(), entry.begin
    view = memoryview(bytearray(min(CHUNK_BYTES, entry.nbytes)))
    try:
        while offset < entry.end:
            got = os.preadv(descriptor, [view[: entry.end - offset]], offset)
            if not got:
                where = f"tensor {entry.name!r} in {shard.file}"
                raise ReadError(f"{where}: expected bytes up to {entry.end}, got the end at {offset}", hint=CHANGED_HINT)
            digest.update(view[:got])
            offset += got
        os.posix_fadvise(descriptor, entry.begin, entry.nbytes, os.POSIX_FADV_DONTNEED)
        found = FileIdentity.of(os.fstat(descriptor))
    except OSError as error:
        raise ReadError(f"tensor {entry.name!r} in {shard.file} at byte {offset}: expected bytes, got {error.strerror}") from error
    if found != shard.identity:
        raise ReadError(f"{shard.file}: expected the file that was opened, {shard.identity}, got {found}", hint=CHANGED_HINT)
    return digest.hexdigest()
