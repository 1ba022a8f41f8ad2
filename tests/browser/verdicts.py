"""The verdict on one bundle from Python and from the page, and whether they are the same: every check, every level, every word."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.evidence import vectors
from tests.evidence.whole_bundles import SAMPLE, Kind, edit_document, edit_lines, reseal

from formation.evidence.container import ContainerRefusal, open_container
from formation.evidence.verify import refused, verify

Lines = dict[tuple[str, int], dict[str, Any]]  # of a ledger by slot and position
SIGNER = vectors.key().public.fingerprint
VERIFY = """async ([files, zip, signers, allowUnknownSigner, nonce]) => {
  const { folderContents, zipContents } = m["container.js"];
  const open = zip ? () => zipContents(new Blob([zip])) : () => folderContents(files.map(([name, data]) => [name, new Blob([data])]));
  return m["report.js"].documentOf(await m["verify.js"].verify(open, { signers: new Map(signers), allowUnknownSigner, nonce }));
}"""
KINDS = {
    "greedy, all rows, replayed": Kind(),
    "sampled, boundaries": Kind(sampler=SAMPLE, rows="boundaries"),
    "no rows, no parity": Kind(rows="none", parity="none"),
    "full parity, full capture": Kind(parity="full", steps="full"),
    "a nonce, 65 positions": Kind(prompt=(3,), tokens=65, rows="boundaries", nonce="chosen", steps="minimal", repeat=True),
}
GREEDY, SAMPLED, FULL, LONG = (list(KINDS)[n] for n in (0, 1, 3, 4))
OWN_WORDS = ("JSON", "UTF-8")  # what was found instead of these, and of base64, each language's reader says in its own words


def python_verdict(path: Path, *, known: bool = True, **options: Any) -> dict[str, Any]:
    signers = {SIGNER: "known to you as test"} if known else {}
    try:
        with open_container(path) as container:
            return verify(container, signers=signers, **options).document()
    except ContainerRefusal as refusal:
        return refused(str(refusal)).document()


def browser_verdict(run: Any, path: Path, *, known: bool = True, allow_unknown_signer: bool = False, nonce: str | None = None) -> dict[str, Any]:
    signers = [[SIGNER, "known to you as test"]] if known else []
    files = [[str(file.relative_to(path)), file.read_bytes()] for file in files_of(path)] if path.is_dir() else []
    return run(VERIFY, [files, None if path.is_dir() else path.read_bytes(), signers, allow_unknown_signer, nonce])


def files_of(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def words(document: dict[str, Any]) -> list[Any]:
    return [*map(comparable, document["checks"]), *([name, value] for name, value in document.items() if name != "checks")]


def comparable(check: dict[str, str]) -> dict[str, str]:
    expected = check.get("expected", "")
    if expected in OWN_WORDS:
        return {**check, "found": ""}
    return {**check, "expected": "base64", "found": ""} if expected.startswith("base64") else check


def expect_same(run: Any, path: Path, **options: Any) -> set[str]:
    """The names of the checks that failed, the same in both"""
    expected, found = python_verdict(path, **options), browser_verdict(run, path, **options)
    assert [] == [pair for pair in zip(words(expected), words(found), strict=True) if pair[0] != pair[1]]
    return {check["name"] for check in found["checks"] if check["state"] == "failed"}


def expect_verified(run: Any, path: Path) -> None:
    """By both, with all that a run without an audit can have"""
    assert set() == expect_same(run, path)
    levels = python_verdict(path)["levels"]
    assert ["passed"] * 4 == [levels[name] for name in ("INTEGRITY", "SIGNER", "LEDGER", "PARITY")]


# ---- what its owner changes, and signs again


def copy_of(bundle: Path, folder: Path) -> Path:
    return Path(shutil.copytree(bundle, folder / "run.ofb"))


def with_lines(bundle: Path, folder: Path, edit: Callable[[Lines], object]) -> Path:
    """A copy in which `edit` has changed lines, in place"""
    copy = copy_of(bundle, folder)
    edit_lines(copy, lambda lines: edit({(line["slot"], line["position"]): line for line in lines}) and None)
    reseal(copy)
    return copy


def with_anchor(bundle: Path, folder: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """A copy with another anchor, and the lines of the run under its new name"""
    copy = copy_of(bundle, folder)
    before = sha256((copy / "anchor.json").read_bytes()).hexdigest()
    edit_document(copy, "anchor.json", lambda anchor: edit(anchor) and None)
    after = sha256((copy / "anchor.json").read_bytes()).hexdigest()
    (copy / "ledger.jsonl").write_bytes((copy / "ledger.jsonl").read_bytes().replace(before.encode(), after.encode()))
    reseal(copy)
    return copy


def sealed_again(bundle: Path) -> bool:
    """Whether the owner's own tool signs what the bundle has become"""
    try:
        reseal(bundle)
    except Exception:  # what is no bundle at all is not signed, and nobody gets to verify it
        return False
    return True
