"""Files of rows: the safetensors library opens them, an interrupted writer ends with the same bytes, a reader takes no other form."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from formation.errors import EnvironmentFault, EvidenceError
from formation.ledger import blocks, sidecar
from formation.ledger.blocks import Layout, SidecarRefusal, router_tensors, row_tensors

TENSORS = row_tensors("all", 2, 5)
SHAPES = {"rows": TENSORS, "boundaries": row_tensors("boundaries", 2, 5), "router": router_tensors(3, 4)}


def row(position: int, tensor: str, index: int, width: int = 5) -> bytes:
    return np.random.default_rng([position, len(tensor), index]).standard_normal(width).astype("<f4").tobytes()


def put(writer: sidecar.Writer, positions: Sequence[int], tensors: dict[str, tuple[int, int]] = TENSORS) -> None:
    """Layer by layer, as a pass over these positions does"""
    for index in range(max(rows for rows, _ in tensors.values())):
        for position in positions:
            for tensor, (rows, width) in tensors.items():
                if index < rows:
                    writer.put(position, tensor, index, row(position, tensor, index, width))


def written(folder: Path, positions: int, tensors: dict[str, tuple[int, int]] = TENSORS) -> Path:
    with sidecar.create(folder, tensors) as writer:
        put(writer, range(positions), tensors)
        writer.close(positions)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- the form


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("positions", [1, 64, 70])
def test_the_safetensors_library_opens_what_was_written(tmp_path: Path, name: str, positions: int) -> None:
    tensors = SHAPES[name]
    folder = written(tmp_path / "rows", positions, tensors)
    found = {key: value for path in folder.iterdir() for key, value in load_file(path).items()}
    assert {f"{tensor}.{p}" for tensor in tensors for p in range(positions)} == set(found)
    for p in range(positions):
        for tensor, (rows, width) in tensors.items():
            assert [row(p, tensor, index, width) for index in range(rows)] == [values.tobytes() for values in found[f"{tensor}.{p}"]]


@pytest.mark.parametrize("name", SHAPES)
def test_every_row_is_read_back(tmp_path: Path, name: str) -> None:
    tensors = SHAPES[name]
    with sidecar.Reader(written(tmp_path / "rows", 130, tensors)) as reader:
        assert (130, tensors) == (reader.positions, reader.tensors)
        for p in (129, 0, 64, 63, 128):
            for tensor, (rows, width) in tensors.items():
                assert [row(p, tensor, i, width) for i in range(rows)] == [reader.row(p, tensor, i) for i in range(rows)]
        for position, tensor, index in ((130, "residual", 0), (-1, "residual", 0), (0, "other", 0), (0, next(iter(tensors)), 3)):
            with pytest.raises(ValueError, match="expected a"):
                reader.row(position, tensor, index)


def test_data_begins_at_a_whole_page_and_grows_position_by_position(tmp_path: Path) -> None:
    folder = written(tmp_path / "rows", 3)
    data = (folder / "00000000.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    assert 0 == start % 4096
    in_order = [(p, t, i) for p in range(3) for t, (rows, _) in TENSORS.items() for i in range(rows)]
    assert b"".join(row(*each) for each in in_order) == data[start:]
    longer = (written(tmp_path / "longer", 64) / "00000000.safetensors").read_bytes()
    assert data[start:] == longer[start : len(data)]


# ---- interruptions


class Interrupted(OSError):
    pass


def interrupting(after: int, piece: int) -> Callable[[int, bytes, int], int]:
    """A disk that takes at most `piece` bytes at a time, and stops for good after so many writes"""
    left = [after]

    def write(descriptor: int, data: bytes, offset: int) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise Interrupted(errno.EIO, "gone")
        return os.pwrite(descriptor, data[:piece], offset)

    return write


def go_on(folder: Path, passes: Sequence[int], done: int, write: Callable[[int, bytes, int], int], *, resumed: bool) -> int:
    """Passes up to the next interruption; how many positions the caller knows to be committed"""
    writer = sidecar.resume(folder, TENSORS, done, write=write) if resumed else sidecar.create(folder, TENSORS, write=write)
    with writer:
        try:
            for end in passes:
                if end > done:
                    put(writer, range(done, end))
                    writer.commit(end)
                    done = end
            writer.close(done)
        except EnvironmentFault:
            return done
    return -1


@settings(max_examples=30, deadline=None)
@given(
    passes=st.lists(st.integers(1, 90), min_size=1, max_size=5),
    stops=st.lists(st.integers(0, 600), max_size=5),
    piece=st.sampled_from([7, 20, 1 << 20]),
    behind=st.integers(0, 70),
)
def test_a_resumed_writer_gives_the_bytes_of_an_uninterrupted_one(
    tmp_path_factory: pytest.TempPathFactory, passes: list[int], stops: list[int], piece: int, behind: int
) -> None:
    ends = np.cumsum(passes).tolist()
    base = tmp_path_factory.mktemp("rows")
    done, resumed = 0, False
    for stop in stops:
        done = go_on(base / "stopped", ends, done, interrupting(stop, piece), resumed=resumed)
        if done < 0:
            done = ends[-1]
        done, resumed = max(done - behind, 0), True  # the ledger may have committed less than its rows
    assert -1 == go_on(base / "stopped", ends, done, os.pwrite, resumed=resumed)
    assert contents(written(base / "whole", ends[-1])) == contents(base / "stopped")
    shutil.rmtree(base)


def test_what_was_not_committed_has_no_final_name(tmp_path: Path) -> None:
    with sidecar.create(tmp_path / "rows", TENSORS) as writer:
        put(writer, range(64))
        assert ["00000000.safetensors.part"] == sorted(contents(tmp_path / "rows"))
        writer.commit(64)
        assert ["00000000.safetensors"] == sorted(contents(tmp_path / "rows"))
        put(writer, [64])
        writer.commit(65)
    with pytest.raises(SidecarRefusal, match=r"expected finished files, got 00000064.safetensors.part"):
        sidecar.Reader(tmp_path / "rows")


@pytest.mark.parametrize("harm", ["shorter", "gone", "other header", "earlier file gone"])
def test_a_folder_that_lost_what_was_committed_is_not_resumed(tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "rows"
    with sidecar.create(folder, TENSORS) as writer:
        put(writer, range(70))
        writer.commit(70)
    part, whole = folder / "00000064.safetensors.part", folder / "00000000.safetensors"
    if harm == "shorter":
        os.truncate(part, part.stat().st_size - 1)
    elif harm == "gone":
        part.unlink()
    elif harm == "other header":
        whole.write_bytes(whole.read_bytes().replace(b"F32", b"I32", 1))
    else:
        whole.unlink()
    with pytest.raises((EnvironmentFault, SidecarRefusal), match="expected"):
        sidecar.resume(folder, TENSORS, 70)


def test_a_new_run_does_not_begin_among_the_rows_of_another(tmp_path: Path) -> None:
    written(tmp_path / "rows", 3)
    before = contents(tmp_path / "rows")
    with pytest.raises(EnvironmentFault, match=r"expected nothing in .*rows, got 00000000.safetensors"):
        sidecar.create(tmp_path / "rows", TENSORS)
    assert before == contents(tmp_path / "rows")


# ---- faults


def test_a_full_disk_is_a_fault_of_the_environment_that_says_so(tmp_path: Path) -> None:
    def full(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with sidecar.create(tmp_path / "rows", TENSORS, write=full) as writer, pytest.raises(EnvironmentFault, match="got a full disk") as fault:
        writer.put(0, "residual", 0, row(0, "residual", 0))
    assert 3 == fault.value.exit_code and "free space" in str(fault.value.hint)


def test_missing_rows_cannot_be_committed(tmp_path: Path) -> None:
    with sidecar.create(tmp_path / "rows", TENSORS) as writer:
        put(writer, [0])
        writer.put(1, "residual", 0, row(1, "residual", 0))
        with pytest.raises(EvidenceError, match="expected 14 rows of positions 0 to 1, got 8"):
            writer.commit(2)
        with pytest.raises(EvidenceError, match="expected rows of positions 0 to 2, got them up to 1"):
            writer.close(3)


def test_rows_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with sidecar.create(tmp_path / "rows", TENSORS) as writer:
        put(writer, [0])
        writer.commit(1)
        for position, tensor, index, data in ((0, "residual", 0, 20), (1, "residual", 3, 20), (1, "logits", 0, 20), (1, "residual", 0, 16)):
            with pytest.raises(ValueError, match="expected"):
                writer.put(position, tensor, index, bytes(data))


def test_memory_does_not_grow_with_positions(tmp_path: Path) -> None:
    tensors = {"residual": (2, 64)}
    data = bytes(256)

    def peak(name: str, positions: int) -> int:
        tracemalloc.start()
        with sidecar.create(tmp_path / name, tensors) as writer:
            for position in range(positions):
                for index in range(2):
                    writer.put(position, "residual", index, data)
            writer.close(positions)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak("warm", 128)
    assert peak("long", 1280) < peak("short", 128) + 100_000


# ---- hostile folders


def edited(folder: Path, change: Callable[[dict[str, dict[str, object]]], object], name: str = "00000000.safetensors") -> None:
    """The same file with another header, written as the format wants it"""
    path = folder / name
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    table = json.loads(data[8:end])
    change(table)
    text = json.dumps(table, sort_keys=True, separators=(",", ":")).encode()
    assert len(text) <= end - 8
    path.write_bytes(data[:8] + text.ljust(end - 8) + data[end:])


def rename_tensor(table: dict[str, dict[str, object]]) -> None:
    table["other.1"] = table.pop("residual.1")


def swap(table: dict[str, dict[str, object]]) -> None:
    table["residual.0"], table["residual.1"] = table["residual.1"], table["residual.0"]


def shift(table: dict[str, dict[str, object]]) -> None:
    table["residual.1"]["data_offsets"] = table["residual.0"]["data_offsets"]


def linked(folder: Path) -> None:
    (folder / "00000000.safetensors").rename(folder.parent / "elsewhere")
    (folder / "00000000.safetensors").symlink_to(folder.parent / "elsewhere")


def fifo(folder: Path) -> None:
    (folder / "00000000.safetensors").unlink()
    os.mkfifo(folder / "00000000.safetensors")


def resized(change: int) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        path = folder / "00000064.safetensors"
        path.write_bytes(path.read_bytes() + bytes(change) if change > 0 else path.read_bytes()[:change])

    return act


def moved(old: int, new: int) -> Callable[[Path], None]:
    return lambda folder: shutil.move(folder / f"{old:08}.safetensors", folder / f"{new:08}.safetensors")


def swapped(folder: Path) -> None:
    moved(0, 192)(folder)
    moved(64, 0)(folder)
    moved(192, 64)(folder)


def with_header(change: Callable[[dict[str, dict[str, object]]], object]) -> Callable[[Path], None]:
    return lambda folder: edited(folder, change)


def with_bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        path = folder / "00000000.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return act


HARMS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a tensor of another name": ("header", with_header(rename_tensor)),
    "a tensor of another shape": ("header", with_header(lambda t: t["residual.1"].update(shape=[5, 3]))),
    "another dtype": ("header", with_header(lambda t: t["residual.1"].update(dtype="I32"))),
    "another dtype everywhere": ("header", with_header(lambda t: [entry.update(dtype="I32") for entry in t.values()])),
    "a shape that is no list": ("header", with_header(lambda t: t["residual.0"].update(shape="3"))),
    "a side beyond every model": ("header", with_header(lambda t: t["residual.0"].update(shape=[3, 1 << 40]))),
    "a side that is false": ("header", with_header(lambda t: t["residual.0"].update(shape=[3, False]))),
    "tensors that overlap": ("header", with_header(shift)),
    "tensors in another order": ("header", with_header(swap)),
    "a tensor less": ("header", with_header(lambda t: t.pop("mlp_write.1"))),
    "metadata": ("header", with_header(lambda t: t.update(__metadata__={"format": "pt"}))),
    "no tensor": ("header", with_header(lambda t: t.clear())),
    "a header that is no object": ("header", with_bytes(lambda b: b[:8] + b"[]".ljust(len(b) - 8))),
    "a header with other spaces": ("header", with_bytes(lambda b: b[:8] + b" " + b[8:4095] + b[4096:])),
    "a header with another end": ("header", with_bytes(lambda b: b.replace(b"  ", b" \n", 1))),
    "a length that is too large": ("header", with_bytes(lambda b: b"\xff" * 8 + b[8:])),
    "a length that is not a page's": ("header", with_bytes(lambda b: (5).to_bytes(8, "little") + b[8:])),
    "bytes behind the last position": ("size", resized(1)),
    "a position too many": ("size", resized(140)),
    "a truncated file": ("size", resized(-1)),
    "a file cut in its header": ("size", with_bytes(lambda b: b[:100])),
    "an empty file": ("size", with_bytes(lambda b: b"")),
    "a symbolic link": ("kind", linked),
    "a FIFO": ("kind", fifo),
    "a missing first file": ("missing block", lambda f: (f / "00000000.safetensors").unlink()),
    "no file": ("missing block", lambda f: [path.unlink() for path in f.iterdir()]),
    "a gap": ("missing block", moved(64, 128)),
    "files out of order": ("header", swapped),
    "a file of another name": ("name", lambda f: (f / "notes.txt").write_text("")),
    "a file between": ("name", lambda f: (f / "00000032.safetensors").write_bytes(b"")),
    "an unfinished file": ("name", lambda f: (f / "00000064.safetensors").rename(f / "00000064.safetensors.part")),
    "a finished and an unfinished file": ("name", lambda f: (f / "00000064.safetensors.part").write_bytes(b"")),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMS)
def test_a_folder_in_any_other_form_is_refused(tmp_path: Path, name: str) -> None:
    reason, harm = HARMS[name]
    folder = written(tmp_path / "rows", 70)
    with sidecar.Reader(folder) as reader:
        assert 70 == reader.positions
    harm(folder)
    with pytest.raises(SidecarRefusal, match="expected") as refusal:
        sidecar.Reader(folder)
    assert (reason, 1) == (refusal.value.reason, refusal.value.exit_code)


@pytest.mark.parametrize("side", [0, 1 << 20, 1 << 60])
def test_shapes_that_no_model_has_are_refused_before_anything_is_counted(side: int) -> None:
    for tensors in (row_tensors("all", 2, side), row_tensors("boundaries", side - 1, 5), router_tensors(side, 4)):
        with pytest.raises(SidecarRefusal, match="expected 1 to 3 tensors with sides from 1 to 1048575"):
            Layout.of(tensors)


def test_a_first_file_that_is_not_full_must_be_the_last(tmp_path: Path) -> None:
    folder = written(tmp_path / "rows", 70)
    shutil.copy(written(tmp_path / "short", 3) / "00000000.safetensors", folder / "00000000.safetensors")
    with pytest.raises(SidecarRefusal, match="expected the header of positions from 0"):
        sidecar.Reader(folder)


def test_a_linked_folder_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "elsewhere", 3)
    (tmp_path / "rows").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SidecarRefusal, match="got a symbolic link"):
        sidecar.Reader(tmp_path / "rows")


def test_a_folder_that_cannot_be_read_is_a_fault_of_the_environment(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="expected to list"):
        sidecar.Reader(tmp_path / "rows")


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 8 + 20_000), bit=st.integers(0, 7))
def test_no_bit_of_a_header_is_free(at: int, bit: int) -> None:
    layout = Layout.of(TENSORS)
    header = bytearray(layout.header(0, 6))
    header[at % len(header)] ^= 1 << bit
    with pytest.raises(SidecarRefusal):
        blocks.header_length(bytes(header[:8]), "file")
        if len(header) != blocks.header_length(bytes(header[:8]), "file"):
            raise SidecarRefusal("size", "the data begins elsewhere")
        blocks.check_header(layout, 0, 6, bytes(header), "file")
