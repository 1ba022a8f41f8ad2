"""One headless browser, in which the verify page is open as a user has it: from disk, with its own policy, and without a network."""

from __future__ import annotations

import base64
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.evidence.whole_bundles import make

from formation.explorer.page import verify_page

sys.path.insert(0, str(Path(__file__).parents[1] / "ledger"))  # the corpora are those of the tests there
pytest.register_assert_rewrite("verdicts")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
Run = Callable[..., Any]  # (JavaScript function of one argument, in which `m` holds the page's modules; the argument) -> its result


@pytest.fixture(scope="session")
def chromium() -> str:
    found = os.environ.get("FORMATION_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found and os.environ.get("FORMATION_BROWSER") == "required":
        pytest.fail("expected a Chromium, got none")
    if not found:
        pytest.skip("no Chromium on this machine: install one, or set FORMATION_CHROMIUM")
    return found


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("page") / "verify.html"
    path.write_bytes(verify_page())
    return path.as_uri()


@pytest.fixture(scope="session")
def run(browser: Any, address: str) -> Run:
    """Bytes in the argument arrive as Uint8Array, and bytes in the result come back as bytes."""
    page = browser.new_context(offline=True).new_page()
    page.goto(address)
    page.evaluate(CONVERSIONS)
    return lambda function, argument=None: from_page(page.evaluate(CALL % function, to_page(argument)))


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each kind, which no test may change"""
    from verdicts import KINDS

    folder = tmp_path_factory.mktemp("bundles")
    return {name: make(folder / f"{n}.ofb", kind) for n, (name, kind) in enumerate(KINDS.items())}


CONVERSIONS = """() => {
  const { fromBase64, toBase64 } = formation["bytes.js"];
  const mapped = (value, leaf) => leaf(value) ?? (Array.isArray(value) ? value.map((each) => mapped(each, leaf))
    : value && typeof value === "object" ? Object.fromEntries(Object.entries(value).map(([k, v]) => [k, mapped(v, leaf)])) : value);
  globalThis.toTest = (value) => mapped(value, (v) => (v instanceof Uint8Array ? { base64: toBase64(v) } : undefined));
  const cut = (all, sizes, at = 0) => sizes.map((size) => all.slice(at, (at += size)));
  const bytes = (v) => (v?.sizes ? cut(fromBase64(v.base64), v.sizes) : typeof v?.base64 === "string" ? fromBase64(v.base64) : undefined);
  globalThis.fromTest = (value) => mapped(value, bytes);
}"""
CALL = "async (argument) => { const m = formation; return toTest(await (%s)(fromTest(argument))); }"


def to_page(value: Any) -> Any:
    if isinstance(value, list) and len(value) > 1 and all(isinstance(item, bytes) for item in value):  # one text for thousands is faster
        return {**to_page(b"".join(value)), "sizes": [len(item) for item in value]}
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {name: to_page(item) for name, item in value.items()}
    return [to_page(item) for item in value] if isinstance(value, list | tuple) else value


def from_page(value: Any) -> Any:
    if isinstance(value, dict):
        return base64.b64decode(value["base64"]) if set(value) == {"base64"} else {name: from_page(item) for name, item in value.items()}
    return [from_page(item) for item in value] if isinstance(value, list) else value
