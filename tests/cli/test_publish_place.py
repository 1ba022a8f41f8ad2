"""Where `formation publish` writes: all or nothing, never over anything but a gallery."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest
from galleries import KNOWN, contents, index, run
from tests.evidence.whole_bundles import Kind, make

from formation.cli.main import main
from formation.explorer.gallery import publish


def test_what_is_in_the_way_stays(bundle: Path, gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("mine")
    for options in ([], ["--replace"]):
        assert "expected" in run(capsys, 2, bundle, tmp_path / "mine", *KNOWN, *options)[1]
        assert {"index.html": b"mine"} == contents(tmp_path / "mine")
    before = contents(gallery)
    assert "with --replace" in run(capsys, 2, bundle, gallery, *KNOWN)[1]
    assert "outside the bundle" in run(capsys, 2, bundle, bundle / "views", *KNOWN)[1]
    assert before == contents(gallery) and {"mine"} == {path.name for path in tmp_path.iterdir()}


def test_replace_puts_a_new_gallery_in_the_place_of_a_former_one(gallery: Path, tmp_path: Path) -> None:
    site = Path(shutil.copytree(gallery, tmp_path / "site"))
    other = make(tmp_path / "run.ofb", Kind(tokens=2))
    assert 0 == main(["publish", str(other), str(site), *KNOWN, "--replace"])
    assert "How 2 tokens formed" in index(site).words and not (site / "receipts" / "token-3.tlog-proof").exists()
    assert {"site", "run.ofb"} == {path.name for path in tmp_path.iterdir()}
    assert 0 == main(["publish", str(other), str(tmp_path / "new"), *KNOWN, "--replace"])


@pytest.mark.parametrize("change", ["more", "fewer", "a link"])
def test_replace_removes_nothing_that_no_gallery_has(
    bundle: Path, gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:  # fmt: skip
    site = Path(shutil.copytree(gallery, tmp_path / "site"))
    if change == "more":
        (site / "CNAME").write_text("example.org")
    elif change == "fewer":
        (site / "note.pdf").unlink()
    else:
        (site / "linked").symlink_to(tmp_path)
    before = contents(site)
    assert "a difference in" in run(capsys, 2, bundle, site, *KNOWN, "--replace")[1]
    assert before == contents(site) and {"site"} == {path.name for path in tmp_path.iterdir()}


def test_a_failed_replacement_leaves_the_former_gallery(gallery: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Path(shutil.copytree(gallery, tmp_path / "site"))
    before, rename = contents(site), Path.rename

    def failing(self: Path, target: Any) -> Path:
        if self.name.endswith(".new"):
            raise OSError(errno.EIO, "no luck")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    assert 3 == main(["publish", str(bundle), str(site), *KNOWN, "--replace"])
    assert before == contents(site) and {"site"} == {path.name for path in tmp_path.iterdir()}


def test_a_full_disk_leaves_nothing(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(publish, "write_new", full)
    out, err = run(capsys, 3, bundle, tmp_path / "out", *KNOWN)
    assert "" == out and "No space left" in err and [] == list(tmp_path.iterdir())
