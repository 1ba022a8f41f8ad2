"""Where a run can start from: an anchor, alone or in a bundle, whose run it repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from formation.errors import EnvironmentFault, EvidenceError
from formation.ledger import canonical, files, lines, progress, reader, sidecar
from formation.ledger.anchor import Anchor, AnchorRefusal, decode
from formation.ledger.departure import Departure, first_departure
from formation.ledger.progress import Watch

ANCHOR, CHECKPOINT = "anchor.json", "checkpoint.json"


@dataclass(frozen=True)
class Start:
    """`bundle` is None for an anchor alone; `readable` ends what can be read of the bundle's ledger."""

    anchor: Anchor
    bundle: Path | None = None
    watch: Watch | None = None
    readable: reader.Commit | None = None

    def listed_files(self) -> Sequence[dict[str, Any]]:
        """What the bundle says of the checkpoint's files; empty for an anchor alone"""
        if self.bundle is None or not (self.bundle / CHECKPOINT).exists():
            return ()
        found = files.read_document(self.bundle / CHECKPOINT)
        return found["files"] if isinstance(found, dict) and isinstance(found.get("files"), list) else ()

    def departure(self, out: Path) -> Departure | None:
        """Where the ledger in `out` first departs from the bundle's, as far as that can be read."""
        if self.bundle is None or self.readable is None:
            raise ValueError("expected a bundle to compare with, got an anchor alone")
        complete = reader.find(self.bundle).name == reader.NAME
        end = self.readable.size_bytes
        return first_departure(reader.lines(self.bundle, end=end), reader.lines(out, end=None if complete else end))


def read_anchor(path: Path) -> Anchor:
    """The anchor in this file, or in this bundle. Raises EnvironmentFault, and EvidenceError for bytes that are none."""
    path = path / ANCHOR if path.is_dir() else path
    try:
        return decode(files.read_whole(path))
    except (AnchorRefusal, canonical.CanonicalRefusal) as refusal:
        raise EvidenceError(f"{path}: {refusal}") from None


def read_start(path: Path) -> Start:
    """Raises EnvironmentFault, and EvidenceError for a bundle whose ledger is not of its anchor, or of another field table."""
    anchor = read_anchor(path)
    if not path.is_dir():
        return Start(anchor)
    readable = reader.survey(path).readable
    run = run_of(path, anchor, readable)
    if run is None:
        raise EvidenceError(f"{path}: expected a ledger with lines, got none", hint=f"give {path / ANCHOR} to run from the anchor alone")
    return Start(anchor, path, Watch(run.step_level, run.prompt_level, rows_mode(path)), readable)


def run_of(folder: Path, anchor: Anchor, end: reader.Commit) -> lines.Run | None:
    """What the first line says; None without one. Raises EvidenceError unless it is of this anchor and of our field table."""
    first = next(reader.lines(folder, end=end.size_bytes), None)
    if first is None:
        return None
    try:
        run = lines.read_run(canonical.decode(first, limits=canonical.LINE))
    except (lines.LineRefusal, canonical.CanonicalRefusal) as refusal:
        raise EvidenceError(f"{folder}: {refusal}", hint="use the version of formation that began it, or its anchor alone") from None
    if run.run_id != anchor.run_id:
        raise EvidenceError(f"{folder}: expected the ledger of run {anchor.run_id}, which the anchor names, got that of {run.run_id}")
    return run


def rows_mode(bundle: Path) -> str:
    """Which rows a bundle keeps. Raises EnvironmentFault and SidecarRefusal."""
    recording = progress.read(bundle)
    if recording:
        return recording[0].rows
    if not (bundle / "rows").exists():
        return "none"
    with sidecar.Reader(bundle / "rows") as rows:
        return "all" if "mlp_write" in rows.tensors else "boundaries"


def interrupted(out: Path) -> tuple[Anchor, Watch, reader.Commit] | None:
    """What a recording in `out` that was cut off had begun; None if nothing had.
    Raises EnvironmentFault if it is complete, and EvidenceError for lines of another anchor."""
    if (out / reader.NAME).exists():
        progress.remove(out)  # the last thing that a recorder does, if it is given the time
        raise EnvironmentFault(f"{out}: expected an INCOMPLETE ledger to resume, got a complete one", hint=f"look at it: formation show {out}")
    found = progress.read(out)
    if found is None:
        return None
    anchor, (watch, commit) = read_anchor(out), found
    if commit.lines:
        run_of(out, anchor, commit)
    return anchor, watch, commit
