"""rows/ and router/ held against the ledger, position by position in step with it: form, digests, sums and the choice among all experts.

Their layout follows from the ledger's first line, so a file has one possible header and one possible size. Memory holds one position.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import SEEK_CUR
from itertools import count
from typing import BinaryIO

from formation.evidence.container import FOLDERS, Container, ContainerRefusal
from formation.ledger import canonical, rules
from formation.ledger.blocks import POSITIONS, Layout, SidecarRefusal, data_start, file_name, router_tensors, row_tensors
from formation.ledger.gaps import Gap, fact
from formation.ledger.lines import Run
from formation.ledger.routing import ALL_EXPERTS, of_all_experts
from formation.ledger.rules import ADDITION, Observed

ROWS = "rows"
LARGEST_POSITION = 1 << 30  # bytes, held in memory
WRITES = ("attention_write", "mlp_write")
Rows = Mapping[str, Sequence[bytes]]  # of one position: tensor -> its rows


@dataclass(frozen=True)
class Part:
    """Every `of`-th position, from `number` on"""

    number: int = 0
    of: int = 1

    def has(self, position: int) -> bool:
        return position % self.of == self.number


class Sidecars:
    """The two folders of one container, or none of them; `sizes` names all files. The form of every file is looked at, and the rows of `part`."""

    def __init__(self, container: Container, sizes: Mapping[str, int], part: Part = Part()) -> None:
        self._container, self._part = container, part
        self._files = {folder: {name: size for name, size in sizes.items() if name.startswith(f"{folder}/")} for folder in FOLDERS}
        self._streams: dict[str, Iterator[Rows]] = {}
        self._refused = False

    def of_position(self, lines: Sequence[Observed], run: Run) -> Iterator[Gap]:
        if not any(self._files.values()) or self._refused:
            return
        try:
            rows, router = self._next("rows", run), self._next("router", run) if run.shape.experts else {}
        except ContainerRefusal as refusal:
            self._refused = True
            yield fact(ROWS, False, str(refusal))
            return
        layers = [observed for observed in lines if observed.place.layer >= 0]
        yield from digests(lines[0], layers, rows, router, run)
        for observed in layers:
            yield from additions(observed, rows)
            yield from self._experts(observed, router, run)

    def at_end(self, positions: int) -> Iterator[Gap]:
        """No file begins after the last position, and no row lies behind it"""
        for folder, files in self._files.items():
            if files and not self._refused:
                whole = len(files) == -(-positions // POSITIONS) and self._ended(folder)
                yield fact(ROWS, whole, f"{folder}/: expected rows of {positions} positions and no more")

    def _ended(self, folder: str) -> bool:
        try:
            return folder in self._streams and next(self._streams[folder], None) is None
        except ContainerRefusal:
            return False

    def _next(self, folder: str, run: Run) -> Rows:
        if folder not in self._streams:
            self._streams[folder] = self._read(folder, run)
        rows = next(self._streams[folder], None)
        if rows is None:
            raise ContainerRefusal(f"{folder}/: expected rows of every position, got fewer")
        return rows

    def _read(self, folder: str, run: Run) -> Iterator[Rows]:
        """The rows of each position of the part. Raises ContainerRefusal."""
        candidates = layouts(folder, run)
        for first, (name, size) in zip(count(0, POSITIONS), self._files[folder].items(), strict=False):
            if name != f"{folder}/{file_name(first)}":
                raise ContainerRefusal(f"expected {folder}/{file_name(first)}, got {name}")
            with self._container.open(name) as file:
                candidates, positions = fitting(candidates, file, first, size, name)
                if positions < POSITIONS and name != max(self._files[folder]):
                    raise ContainerRefusal(f"{name}: expected {POSITIONS} positions, got {positions} in a file that is not the last")
                for position in range(first, first + positions):
                    if self._part.has(position):
                        yield split(file.read(candidates[0].position_bytes), candidates[0], name)
                    else:
                        file.seek(candidates[0].position_bytes, SEEK_CUR)

    def _experts(self, observed: Observed, router: Rows, run: Run) -> Iterator[Gap]:
        at = observed.place.layer - run.shape.dense_layers
        if not router or at < 0:
            return
        try:
            yield from of_all_experts(observed.values, observed.place, router["logits"][at])
        except canonical.CanonicalRefusal as refusal:
            yield fact(ALL_EXPERTS, False, f"router logits of {observed.place}: {refusal}")


def layouts(folder: str, run: Run) -> list[Layout]:
    """Those that the ledger's first line allows. Raises ContainerRefusal for a first line that allows none."""
    shape = run.shape
    try:
        if folder == "router":
            return [Layout.of(router_tensors(shape.layers - shape.dense_layers, shape.experts))]
        return [Layout.of(row_tensors(mode, shape.layers, shape.hidden)) for mode in ("boundaries", "all")]
    except SidecarRefusal as refusal:
        raise ContainerRefusal(f"{folder}/: {refusal}") from None


def fitting(candidates: Sequence[Layout], file: BinaryIO, first: int, size: int, name: str) -> tuple[list[Layout], int]:
    """The one layout that the file's header and size have, and how many positions there are; the file stands before the first then."""
    for layout in candidates:
        positions, rest = divmod(size - data_start(layout, first), layout.position_bytes)
        if not rest and 1 <= positions <= POSITIONS and layout.position_bytes <= LARGEST_POSITION:
            file.seek(0)
            if file.read(data_start(layout, first)) == layout.header(first, positions):
                return [layout], positions
    raise ContainerRefusal(f"{name}: expected the one header and size that positions from {first} of this run have, got others")


def split(data: bytes, layout: Layout, name: str) -> Rows:
    if len(data) != layout.position_bytes:
        raise ContainerRefusal(f"{name}: expected {layout.position_bytes} bytes of a position, got a file that changes")
    rows, at = {}, 0
    for tensor, height, width in layout.tensors:
        rows[tensor] = [data[begin : begin + 4 * width] for begin in range(at, at + 4 * width * height, 4 * width)]
        at += 4 * width * height
    return rows


# ---- against the lines


def digests(embed: Observed, layers: Sequence[Observed], rows: Rows, router: Rows, run: Run) -> Iterator[Gap]:
    yield digest(rows["residual"][0], embed, "residual_sha256")
    for n, observed in enumerate(layers):
        yield digest(rows["residual"][n + 1], observed, "residual_sha256")
        for write in WRITES:
            if write in rows:
                yield digest(rows[write][n], observed, f"{write}_sha256")
        if router and n >= run.shape.dense_layers:
            for tensor in ("logits", "selection"):
                yield digest(router[tensor][n - run.shape.dense_layers], observed, f"router_{tensor}_sha256")


def digest(row: bytes, observed: Observed, name: str) -> Gap:
    found = sha256(row).hexdigest()
    return fact(ROWS, found == observed.values[name], f"{name} of {observed.place}: the row has {found}")


def additions(observed: Observed, rows: Rows) -> Iterator[Gap]:
    """fl(fl(x + a) + m) = x'"""
    if WRITES[0] not in rows:
        return
    n = observed.place.layer
    after = rules.added(rows["residual"][n], rows["attention_write"][n])
    if after is None:
        yield fact(ADDITION, False, str(observed.place))
    else:
        yield rules.addition(after, rows["mlp_write"][n], rows["residual"][n + 1], str(observed.place))
