"""The explorer with ledgers of all sizes, in headless Chromium: how long until something is seen, until a click is answered, and in how much memory.

    PYTHONPATH=.:src python benchmarks/explorer.py                    the sample with 5 tokens; a run in the shape of Kimi K2.5 (61 layers, 384
                                                                      experts) with 5 and 300 tokens in one page, and with 1,000 from a server
    python benchmarks/explorer.py run.ofb --served                    a bundle of yours

Clicks are made with a mouse, at random cells of the formation matrix: from the moment on that all views are there, while the page still reads and
verifies, and again when it has done that. A click is answered when the frame that shows the cell's numbers has been drawn; "all views" is the time
until every other view shows it too. Memory is what the JavaScript engine holds, of the page and of its worker, and the most that the browser's
process for the page ever had. How fast the machine was meanwhile stands beside: its load, and how long ten million steps of a loop took.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.verify import CHOSEN, EXPERTS, shape
from playwright.sync_api import Browser, CDPSession, Page, sync_playwright
from tests.evidence import whole_bundles

from formation import samples
from formation.kernels.choices import Router

CLICKS, HIDDEN = 40, 7168
COMMAND = [sys.executable, "-m", "formation.cli.main"]
DONE = "#evidence.passed, #evidence.failed, #evidence.partial, #evidence.stopped"
WATCH = """
new MutationObserver((_, watch) => {
  if (!document.querySelector(".card")) return;
  watch.disconnect();
  requestAnimationFrame(() => setTimeout(() => (globalThis.firstView = performance.now())));
}).observe(document, { childList: true, subtree: true });
globalThis.answers = [];
globalThis.wholes = [];
addEventListener("click", ({ timeStamp }) => {
  setTimeout(() => formation.view.selection.settled().then(() => wholes.push(performance.now() - timeStamp)));
  const drawn = () => {
    const { position, layer } = formation.view.selection;
    const isThere = document.querySelector("#cell .where")?.textContent === `position ${position}, layer ${layer}`;
    if (isThere) setTimeout(() => answers.push(performance.now() - timeStamp));
    else requestAnimationFrame(drawn);
  };
  requestAnimationFrame(drawn);
}, true);
"""
LOOP = """() => {
  const begin = performance.now();
  let x = 1;
  for (let n = 0; n < 1e7; n++) x = (Math.imul(x, 1103515245) + 12345) | 0;
  return x ? performance.now() - begin : 0;
}"""
SOMEWHERE = """(share) => {
  const drawing = document.querySelector("#matrix .scrolls-x");
  drawing.scrollLeft = share * (drawing.scrollWidth - drawing.clientWidth);
  drawing.scrollIntoView({ block: "center" });
}"""


@dataclass(frozen=True)
class Case:
    name: str
    bundle: Path
    served: bool


# ---- what is looked at


def made(folder: Path, tokens: int) -> Path:
    """In the shape of Kimi K2.5, without rows"""
    kind = whole_bundles.Kind(prompt=tuple(range(3, 13)), tokens=tokens, rows="none", repeat=True)
    router = Router(experts=EXPERTS, chosen=CHOSEN, scale=whole_bundles.ROUTER.scale)
    return whole_bundles.make(folder, kind, router=router, shape=shape(HIDDEN))


def recorded(folder: Path) -> Path:
    command = [*COMMAND, "record", str(samples.folder("kimi_k25")), "--chat", "What does len do?", "--tokens", "5", "--out", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def cases(scratch: Path) -> Iterator[Case]:
    yield Case("sample, 5 tokens", recorded(scratch / "sample.ofb"), False)
    for tokens, served in ((5, False), (300, False), (1000, True)):
        yield Case(f"61 x 384, {tokens} tokens", made(scratch / f"{tokens}.ofb", tokens), served)


@contextmanager
def address_of(case: Case, scratch: Path) -> Iterator[str]:
    if not case.served:
        out = scratch / "explorer.html"
        subprocess.run([*COMMAND, "explore", str(case.bundle), "--out", str(out)], check=True, capture_output=True)
        yield out.as_uri()
        return
    server = subprocess.Popen(
        [*COMMAND, "explore", str(case.bundle), "--serve", "--port", "0", "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert server.stdout
        yield json.loads(server.stdout.readline())["address"]
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


# ---- looking


def looked_at(browser: Browser, address: str, clicks: int) -> dict[str, Any]:
    page = browser.new_context(viewport={"width": 1280, "height": 1000}).new_page()
    page.add_init_script(WATCH)
    heaps, begin = Heaps(page), time.monotonic()
    page.goto(address, wait_until="commit")
    page.wait_for_selector("#track", timeout=120_000)
    first = page.evaluate("firstView")
    found = {"first_view_ms": first, "clicks": clicks, **clicked(page, clicks, "")}
    page.wait_for_selector(DONE, timeout=900_000)
    seconds, state = time.monotonic() - begin, page.locator("#evidence").get_attribute("class")
    found |= clicked(page, clicks, "_at_rest")
    page_mb, worker_mb = heaps.used()
    found |= {"checked_s": seconds, "verdict": state, "page_heap_mb": page_mb, "worker_heap_mb": worker_mb, "process_mb": most_of_a_renderer()}
    found |= {"load": os.getloadavg()[0], "loop_ms": statistics.median(page.evaluate(LOOP) for _ in range(9))}
    page.context.close()
    return found


def clicked(page: Page, count: int, when: str) -> dict[str, float]:
    page.evaluate("() => { answers.length = wholes.length = 0; }")
    source = random.Random(5)
    for n in range(count):
        box = None
        while not box:  # while the page is read, the drawing may just be another
            page.evaluate(SOMEWHERE, source.random())
            box = page.locator("#matrix canvas").bounding_box()
        width, height = min(box["width"], 600) - 60, box["height"] - 90
        page.mouse.click(box["x"] + 48 + source.random() * width, box["y"] + 10 + source.random() * height)
        page.wait_for_function("(n) => answers.length > n && wholes.length > n", arg=n, timeout=60_000)
    answers, wholes = page.evaluate("[answers, wholes]")
    return {f"click{when}_ms": statistics.median(answers), f"worst_click{when}_ms": max(answers), f"all_views{when}_ms": statistics.median(wholes)}


class Heaps:
    """What the engine holds of a page and of its workers, in MB"""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.session: CDPSession = page.context.new_cdp_session(page)
        self.workers: list[str] = []
        self.said: list[dict[str, Any]] = []
        self.session.on("Target.attachedToTarget", lambda event: self.workers.append(event["sessionId"]))
        self.session.on("Target.receivedMessageFromTarget", lambda event: self.said.append(json.loads(event["message"])))
        self.session.send("Target.setAutoAttach", {"autoAttach": True, "waitForDebuggerOnStart": False, "flatten": False})

    def used(self) -> tuple[float, float]:
        own = self.session.send("Runtime.getHeapUsage")["usedSize"]
        for worker in self.workers:
            message = json.dumps({"id": 1, "method": "Runtime.getHeapUsage"})
            self.session.send("Target.sendMessageToTarget", {"sessionId": worker, "message": message})
        self.page.wait_for_timeout(200)  # in which they answer
        return own / 1e6, sum(each["result"]["usedSize"] for each in self.said if "result" in each) / 1e6


def most_of_a_renderer() -> float:
    """The largest resident memory that one of the browser's processes for pages ever had, in MB"""
    found = [0.0]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"--type=renderer" in (folder / "cmdline").read_bytes():
                found.append(int((folder / "status").read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e6)
        except (OSError, IndexError):
            continue  # it has ended
    return max(found)


COLUMNS = {
    "first_view_ms": "first view ms", "click_ms": "click ms", "worst_click_ms": "worst", "all_views_ms": "all views",
    "click_at_rest_ms": "click at rest ms", "worst_click_at_rest_ms": "worst", "all_views_at_rest_ms": "all views", "checked_s": "checked s",
    "page_heap_mb": "heap MB", "worker_heap_mb": "worker MB", "process_mb": "process MB", "load": "load", "loop_ms": "loop ms", "verdict": "verdict",
}  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown"""
    heads = ["", "bundle MB", *COLUMNS.values()]
    lines = [
        [row["name"], f"{row['bundle_mb']:.1f}", *(value if isinstance(value := row[name], str) else f"{value:.1f}" for name in COLUMNS)]
        for row in rows
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [heads, ["---"] * len(heads), *lines])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", help="this one instead")
    parser.add_argument("--served", action="store_true", help="and from a server")
    parser.add_argument("--clicks", type=int, default=CLICKS)
    args = parser.parse_args()
    rows = []
    chromium = os.environ.get("FORMATION_CHROMIUM") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        scratch = Path(name)
        for case in [Case(args.bundle.name, args.bundle, args.served)] if args.bundle else cases(scratch):
            size = sum(path.stat().st_size for path in case.bundle.rglob("*") if path.is_file())
            browser = driver.chromium.launch(executable_path=chromium)  # a fresh one for each
            with address_of(case, scratch) as address:
                rows.append(
                    {
                        "name": f"{case.name}, {'served' if case.served else 'inline'}",
                        "bundle_mb": size / 1e6,
                        **looked_at(browser, address, args.clicks),
                    }
                )
            browser.close()
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
