"""A gallery: one folder that holds a run, its evidence and the means to check it, ready for any web server.

    publish("run.ofb", "site", Terms(signers))     index.html and all that it links to, or nothing

The bundle is copied first, and everything comes from the copy: what was verified is what is shown and what can be downloaded. No file has a
clock's time in it, so that the same bundle gives the same bytes. A bundle that fails a check is refused, unless the publisher insists; then the
first page begins with that.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from formation.errors import EnvironmentFault, EvidenceError, FormationError, UsageError
from formation.evidence.bundle import Bundle
from formation.evidence.container import open_container
from formation.evidence.export import write_json, written_whole
from formation.evidence.report import Report
from formation.evidence.verify import Examination
from formation.explorer import page, view
from formation.explorer.gallery import copies
from formation.explorer.gallery.index import index
from formation.explorer.gallery.material import BUNDLE, EXPLORER, LEDGER, NOTE, RECEIPTS, VERIFY, File, Material, names_passed, tell
from formation.explorer.gallery.receipts import receipts
from formation.explorer.gallery.verdict import SUMS
from formation.ledger.store import sync_folder

INDEX = "index.html"
COPY = ".bundle"  # folder of the copy, while the gallery is made
NO_EXTRA = "it needs the extra `note`: pip install 'formation-ledger[note]', then formation note run.ofb"
UNVERIFIED = "none is made of a bundle that fails a check"
PROVEN = ("signature", "tree head", "lines", "root")  # checks without which a receipt proves nothing


@dataclass(frozen=True)
class Terms:
    """Under which a bundle is published. `signers` says of which keys the publisher knows whose they are, in words for readers; `note` makes the
    note of a bundle, None without its extra."""

    signers: Mapping[str, str]
    allow_unknown_signer: bool = False
    allow_unverified: bool = False
    replace: bool = False
    note: Callable[[Path], bytes] | None = None


@dataclass
class Gallery:
    """What is in the folder so far, what is not there and why, and files of the bundle that the explorer does not hold"""

    folder: Path
    files: dict[str, File] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def add(self, name: str, data: bytes) -> None:
        write_new(self.folder / name, data)
        self.files[name] = File(len(data), hashlib.sha256(data).hexdigest())

    def add_written(self, name: str) -> None:
        with (self.folder / name).open("rb") as file:
            self.files[name] = File((self.folder / name).stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


@dataclass(frozen=True)
class Published:
    report: Report
    files: Mapping[str, File]
    missing: Mapping[str, str]
    left_out: tuple[str, ...]


def publish(bundle: Path, out: Path, terms: Terms) -> Published:
    """Writes the folder `out`. Raises EvidenceError for what does not verify, UsageError if `out` is in the way, and EnvironmentFault."""
    bundle, out = bundle.resolve(), out.resolve()
    if out.is_relative_to(bundle):
        raise UsageError(f"{out}: expected a place outside the bundle, whose files are sealed, got one inside")
    with placed(out, terms.replace) as draft:
        copied = draft / COPY / bundle.name
        sizes = copies.copy(bundle, copied)
        with named_as(copied, bundle):
            material = fill(Gallery(draft), copied, sizes, terms)
            write_new(draft / INDEX, index(material))
        shutil.rmtree(draft / COPY)
        write_new(draft / SUMS, sums(draft))
    return Published(material.report, material.files, material.missing, material.left_out)


def fill(gallery: Gallery, bundle: Path, sizes: Mapping[str, int], terms: Terms) -> Material:
    """All files but index.html and the sums"""
    with open_container(bundle) as opened:
        found = Examination(opened, terms.signers, terms.allow_unknown_signer, None)
        report = found.report()
    if not report.verified and not terms.allow_unverified:
        raise EvidenceError(f"{bundle}: expected a bundle that verifies, got {report.failed[0]}", hint=hint_of(report))
    recorded = Bundle(bundle)
    key = found.attestation.signer if hasattr(found, "attestation") else None
    add_pages(gallery, bundle, sizes)
    add_note(gallery, bundle, report, terms)
    with (gallery.folder / LEDGER).open("xb") as file:
        counts = write_json(recorded, file)
    gallery.add_written(LEDGER)
    add_receipts(gallery, bundle, found, report)
    told = tell(recorded, counts["tokens"], counts["cells"])
    return Material(printable(bundle.name), recorded, report, key, sizes, told, gallery.files, gallery.missing, gallery.left_out)


def add_pages(gallery: Gallery, bundle: Path, sizes: Mapping[str, int]) -> None:
    """The explorer, the verify page, and the bundle as one ZIP"""
    if view.left_out_of(sizes) is None:
        gallery.missing[EXPLORER] = f"the bundle is too big for one page (over {view.MOST_BYTES >> 20} MiB); formation explore --serve shows it"
    else:
        packed = view.packed(bundle)
        gallery.add(EXPLORER, packed.page)
        gallery.left_out = packed.left_out
    gallery.add(VERIFY, page.verify_page())
    if copies.fits_a_zip(sizes):
        copies.pack(bundle, sizes, gallery.folder / BUNDLE)
        gallery.add_written(BUNDLE)
    else:
        gallery.missing[BUNDLE] = "the bundle is too big for one ZIP (over 2 GB): ask its signer for the folder, and compare its digest"


def add_note(gallery: Gallery, bundle: Path, report: Report, terms: Terms) -> None:
    if not report.verified:
        gallery.missing[NOTE] = UNVERIFIED
    elif terms.note is None:
        gallery.missing[NOTE] = NO_EXTRA
    else:
        gallery.add(NOTE, terms.note(bundle))


def add_receipts(gallery: Gallery, bundle: Path, found: Examination, report: Report) -> None:
    if not names_passed(report).issuperset(PROVEN):
        gallery.missing[RECEIPTS] = "no signature over this ledger holds"
        return
    (gallery.folder / RECEIPTS).mkdir()
    count = size_bytes = 0
    for name, data in receipts(bundle, found.attestation.signer):
        write_new(gallery.folder / name, data)
        count, size_bytes = count + 1, size_bytes + len(data)
    sync_folder(gallery.folder / RECEIPTS)
    gallery.files[RECEIPTS] = File(size_bytes, count=count)


def write_new(path: Path, data: bytes) -> None:
    """Durable when it returns; what it is in becomes visible only when all of it is."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sums(folder: Path) -> bytes:
    """For `sha256sum --check`: every file but this one"""
    lines = []
    for name in sorted(names_in(folder)):
        with (folder / name).open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines).encode("ascii")


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def hint_of(report: Report) -> str:
    if report.failed[0].check.name == "signer":
        return "if you know whose key it is, give --signer; to go on without: --allow-unknown-signer"
    return "formation verify says more; with --allow-unverified it is published all the same, and the page begins with that"


def printable(name: str) -> str:
    """Without what UTF-8 has no bytes for, which a name on a disk may hold"""
    return name.encode("utf-8", "replace").decode()


@contextmanager
def named_as(copied: Path, bundle: Path) -> Iterator[None]:
    """What went wrong with the copy is said of the bundle."""
    try:
        yield
    except FormationError as error:
        error.args = (str(error).replace(str(copied), str(bundle)),)
        raise


# ---- the place


@contextmanager
def placed(out: Path, replace: bool) -> Iterator[Path]:
    """A draft that becomes the folder `out` when all of it is on disk; what was there, a former gallery, goes only then."""
    if not os.path.lexists(out):
        with written_whole(out) as draft:
            yield draft
        return
    if not replace:
        hint = "give a new DIR; with --replace it may be a former gallery"
        raise UsageError(f"{out}: expected a name that is free, got one that is there", hint=hint)
    check_gallery(out)
    fresh = out.with_name(f".{out.name}.{os.getpid()}.new")
    with written_whole(fresh) as draft:
        yield draft
    try:
        check_gallery(out)
        swap(fresh, out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def swap(fresh: Path, out: Path) -> None:
    """Between the two renames there is no gallery for a moment; if the second fails, the old one is back."""
    former = out.with_name(f".{out.name}.{os.getpid()}.former")
    try:
        out.rename(former)
        try:
            fresh.rename(out)
        except OSError:
            former.rename(out)
            raise
    except OSError as error:
        raise EnvironmentFault(f"{out}: expected to replace it, got {error.strerror or error}") from error
    shutil.rmtree(former)


def check_gallery(folder: Path) -> None:
    """That nothing but a gallery is there, whole. Raises UsageError: --replace removes nothing else."""
    try:
        listed = {line[66:] for line in (folder / SUMS).read_text("ascii").splitlines()}
    except (OSError, ValueError):
        raise UsageError(f"{folder}: expected a former gallery to replace, got a folder without {SUMS}", hint="give a new DIR") from None
    found = names_in(folder) - {SUMS}
    if INDEX not in found or found != listed:
        strange = min((found ^ listed) or {INDEX})
        raise UsageError(f"{folder}: expected only what {SUMS} lists, got a difference in {ascii(strange)[:80]}", hint="give a new DIR")
