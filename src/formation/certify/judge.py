"""What the verifier says of a forgery, through whichever of its doors the attack needs; a crash or a timeout is recorded as that.

A check is a function of the bytes it reads. So the two slow ones, the pass over the ledger and the tensor table, are not made again of the
very bytes for which they were made on the control; everything else is.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Self

import formation
from formation.certify.attack import INERT
from formation.certify.forgery import Files, Forgery, Scene
from formation.evidence import bundle, html, receipt
from formation.evidence.checks import CHECKS, Check
from formation.evidence.container import ContainerRefusal, Contents, checked, open_container
from formation.evidence.ledger_pass import Found, read_ledger
from formation.evidence.report import FAILED, NOT_CLAIMED, PASSED, Finding, Report
from formation.evidence.sidecar_pass import Sidecars
from formation.evidence.strict import Refused
from formation.evidence.verify import Examination, refused, verify

SECONDS = 60.0  # for one verdict: hundreds of times what the slowest needs
SIGNER_KNOWN = "the signer's part in this certification"


class Memory:
    """A container of files in memory."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def contents(self) -> Contents:
        return checked({name: len(data) for name, data in self.files.items()}, ())

    def open(self, name: str) -> BinaryIO:
        return BytesIO(self.files[name])

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@dataclass(frozen=True)
class Judgement:
    """`failed` are the names of the checks that refused, `states` those of all; `trouble` is a crash or a timeout."""

    failed: tuple[str, ...]
    states: Mapping[str, str]
    trouble: str = ""

    @property
    def verified(self) -> bool:
        return not self.failed and not self.trouble

    def __str__(self) -> str:
        return self.trouble or ", ".join(self.failed) or "verified"


def judgement(report: Report) -> Judgement:
    return Judgement(tuple(o.check.name for o in report.outcomes if o.state == FAILED), {o.check.name: o.state for o in report.outcomes})


class Known:
    """What the slow checks said of the control."""

    def __init__(self) -> None:
        self.found: dict[tuple[bytes, ...], Found] = {}
        self.checkpoint: dict[tuple[bytes, ...], tuple[Finding, Any]] = {}


class Quick(Examination):
    """The verifier over files in memory that begins from what is known."""

    def __init__(self, files: Files, scene: Scene, known: Known, nonce: str | None = None) -> None:
        super().__init__(Memory(files), {scene.key.public.fingerprint: SIGNER_KNOWN}, False, nonce)
        self.files, self.known = files, known

    def begin(self) -> None:
        """Not before it is known whether it is needed"""

    @cached_property
    def found(self) -> Found:
        key = tuple(data for name, data in sorted(self.files.items()) if name in ("anchor.json", "ledger.jsonl") or "/" in name)
        if key not in self.known.found:
            made = self._pass()
            if self.known.found:  # only the control's is kept
                return made
            self.known.found[key] = made
        return self.known.found[key]

    def _pass(self) -> Found:
        with self.container.open("ledger.jsonl") as file:
            return read_ledger(file, self.contents.sizes["ledger.jsonl"], self.anchor, Sidecars(self.container, self.contents.sizes))

    def finding(self, check: Check) -> Finding:
        if check.name != "checkpoint" or any(self.outcomes[n].state != PASSED for n in check.needs):
            return super().finding(check)
        key = self.files["anchor.json"], self.files["checkpoint.json"]
        if key not in self.known.checkpoint:
            made = super().finding(check)
            if self.known.checkpoint:
                return made
            self.known.checkpoint[key] = made, getattr(self, "checkpoint", None)
        found, self.checkpoint = self.known.checkpoint[key]
        return found


class Judge:
    """Verdicts on forgeries of one scene. The first one is asked of the control."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.known = scene, Known()

    def verdict(self, forgery: Forgery) -> Judgement:
        try:
            with deadline(SECONDS):
                return self._door(forgery)
        except Overtime:
            return Judgement((), {}, f"timeout: no verdict within {SECONDS:.0f} s")
        except Exception as error:  # recorded as what it is: the verifier's failure
            return Judgement((), {}, f"crash: {type(error).__name__}: {ascii(str(error))[:120]}")

    def of_files(self, files: Files, nonce: str | None = None) -> Judgement:
        return judgement(Quick(files, self.scene, self.known, nonce).report())

    def _door(self, forgery: Forgery) -> Judgement:
        if forgery.receipt is not None:
            return of_receipt(forgery.receipt, self.scene)
        if forgery.archive is None and forgery.on_disk is None and not forgery.process and not forgery.shown:
            return self.of_files(forgery.files, forgery.nonce)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.ofb"
            place(path, forgery)
            if forgery.shown:
                return shown(path, forgery.shown, self.scene)
            if forgery.process:
                return in_process(path, forgery, self.scene)
            return self._on_disk(path, forgery.nonce)

    def _on_disk(self, path: Path, nonce: str | None) -> Judgement:
        try:
            with open_container(path) as container:
                return judgement(verify(container, signers={self.scene.key.public.fingerprint: SIGNER_KNOWN}, nonce=nonce))
        except ContainerRefusal as refusal:
            return judgement(refused(str(refusal)))


def place(path: Path, forgery: Forgery) -> None:
    """On disk, as a ZIP if the forgery is one"""
    if forgery.archive is not None:
        path.write_bytes(forgery.archive)
        return
    write_folder(path, forgery.files)
    if forgery.on_disk:
        forgery.on_disk(path)


def write_folder(path: Path, files: Files) -> None:
    path.mkdir(parents=True)
    for name, data in files.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(data)


def of_receipt(data: bytes, scene: Scene) -> Judgement:
    """Refusals by the receipt's own checks, and by its reader, who knows the signer"""
    try:
        found = receipt.read(data)
    except Refused as refusal:
        return Judgement((f"receipt: {refusal.check}",), {})
    known = found.signer == scene.key.public
    return Judgement(() if known else ("receipt: signer",), {})


# ---- a verifier in a process of its own


def command(flags: tuple[str, ...], *arguments: str) -> list[str]:
    return [sys.executable, *flags, "-m", "formation.cli.main", *arguments]


def run(flags: tuple[str, ...], environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[bytes]:
    source = str(Path(formation.__file__).parents[1])
    paths = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH", "")])])
    surroundings = {**os.environ, "PYTHONPATH": paths, **environment}
    return subprocess.run(command(flags, *arguments), env=surroundings, capture_output=True, timeout=SECONDS, check=False)


def in_process(path: Path, forgery: Forgery, scene: Scene) -> Judgement:
    done = run(forgery.flags, forgery.environment, "verify", str(path), "--signer", scene.key.public.text, "--json")
    if done.returncode not in (0, 1):
        return Judgement((), {}, f"crash: exit {done.returncode}: {done.stderr[-120:]!r}")
    document = json.loads(done.stdout)
    failed = tuple(check["name"] for check in document["checks"] if check["state"] == FAILED)
    if (done.returncode == 0) != (document["verdict"] == "verified") or bool(failed) == (done.returncode == 0):
        return Judgement(failed, {}, f"crash: exit {done.returncode} with verdict {document['verdict']}")
    return Judgement(failed, {check["name"]: check["state"] for check in document["checks"]})


def shown(path: Path, hostile: str, scene: Scene) -> Judgement:
    """All doors through which a reader sees text of a model: the terminal, and the page of a notebook. The text is there, and does nothing"""
    commands = (("show",), ("show", "--token", "1"), ("verify", "--checks", "--signer", scene.key.public.text))
    done = [run((), {}, *words, str(path)) for words in commands]
    if any(one.returncode for one in done):
        return Judgement((), {}, f"crash: exit {[one.returncode for one in done]}: {done[-1].stderr[-120:]!r}")
    told = [one.stdout.decode("utf-8", "replace") for one in done]
    page = html.page(bundle.Bundle(path))
    there = "script" in told[0] and "&lt;script" in page
    inert = all(map(is_inert, (*told, page))) and "<script" not in page.lower() and hostile not in page
    return Judgement((INERT,) if there and inert else (), {})


def is_inert(text: str) -> bool:
    """No character that moves a cursor, hides or turns round"""
    return all(c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") for c in text)


# ---- time


class Overtime(BaseException):
    """Raised inside of whatever takes too long; no handler for errors catches it."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Only in the main thread, where signals arrive; elsewhere time is not limited"""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(*_: object) -> None:
        raise Overtime

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def withheld(found: Judgement, check: str) -> bool:
    """The bundle stands, and the claim of this check does not"""
    return found.verified and found.states.get(check) == NOT_CLAIMED


NAMES = frozenset(check.name for check in CHECKS)
