"""The page of a whole dialogue: one file, which checks the log in it, asks no network, and says nothing good of what is broken."""

from __future__ import annotations

import base64
import io
import json
import random
import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from dialogue_logs import STOP, Log, log, reported, said
from explorer_page import ELEMENT, Opened, looked_at
from test_the_verify_page import COMMENT, FORBIDDEN

from formation.dialogue import events
from formation.dialogue import page as made
from formation.dialogue.so_far import SoFar
from formation.errors import EvidenceError
from formation.explorer import page as pages
from formation.explorer import view
from formation.ledger import canonical

MODULES = sorted((pages.STATIC / "dialogue").glob("*.js"))
ARITHMETIC = re.compile(r"\|Math.*$")


def a_log() -> Log:
    owl = [said(b"Hello"), said(b", lamp"), said(b"<|im_end|>", id=STOP)]
    lamp = [said(b"I am", -3.0), said(b" on.", -9.25)]
    return log("owl", "lamp").turn(owl).turn(lamp, "tokens", fault_after=1).turn([said(b"[END]", -1.5)], "tokens").end([(3, 0, 5)])


def page_of(folder: Path, data: bytes) -> bytes:
    (folder / "talk.dlg").mkdir(exist_ok=True)
    (folder / "talk.dlg" / events.NAME).write_bytes(data)
    return made.packed(folder / "talk.dlg").page


@pytest.fixture(scope="module")
def opened(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    folder = tmp_path_factory.mktemp("dialogue")
    yield from looked_at(browser, folder, page_of(folder, a_log().data))


def states(opened: Opened) -> dict[str, str]:
    """What the bar says of each check"""
    pills = opened.page.locator(".pill").all()
    return {pill.locator(".pill-name").inner_text(): pill.locator(".pill-text").inner_text() for pill in pills}


# ---- one file


@pytest.mark.parametrize("source", MODULES, ids=lambda path: path.name)
def test_no_module_of_the_page_reads_markup_or_code_from_text_or_asks_a_network(source: Path) -> None:
    forbidden = re.compile(ARITHMETIC.sub("", FORBIDDEN.pattern))
    assert forbidden.search("x.innerHTML") and not forbidden.search(COMMENT.sub("", source.read_text()))


def test_the_page_holds_the_logs_own_bytes_and_its_policy_allows_its_own_script_and_no_more(tmp_path: Path) -> None:
    data = a_log().data
    content = page_of(tmp_path, data).decode()
    script, style = re.search("<script>(.*?)</script>", content, re.DOTALL), re.search("<style>(.*?)</style>", content, re.DOTALL)
    policy = re.search('Content-Security-Policy" content="([^"]*)"', content)
    assert script and style and policy
    expected = f"default-src 'none'; script-src '{pages.source_hash(script[1])}'; style-src '{pages.source_hash(style[1])}'"
    assert f"{expected}; base-uri 'none'; form-action 'none'" == policy[1]
    assert not re.search(r"\b(?:src|href|srcset|action)=|url\(|@import|<link|<iframe", content.replace(script[1], ""))
    assert [events.NAME] == [name for name, _ in ELEMENT.findall(content)]
    assert page_of(tmp_path, data) == content.encode()


# ---- what the page finds out about its bytes


def test_a_whole_log_is_checked_in_the_page_and_nobody_is_said_to_have_signed_it(opened: Opened) -> None:
    assert "✓ Chain checked in this page" == opened.text("#evidence .word")
    last = events.survey(opened.path.parent / "talk.dlg").last_sha256
    checks = dict.fromkeys(("bytes", "chain", "order", "fields", "texts", "numbers"), "✓")
    assert checks | {"complete": "to its end", "signed": "nobody", "last event": last[:16]} == states(opened)


def test_a_reader_who_knows_the_last_digest_is_told_whether_it_is_this_log(opened: Opened) -> None:
    page, last = opened.page, events.survey(opened.path.parent / "talk.dlg").last_sha256
    page.click("#evidence .word")
    for typed, found in ((last, "✓ The same"), ("0" * 64, "✗ Another"), ("abc", "expected 64")):
        page.fill("#known", typed)
        page.click(".signer button")
        assert page.locator(".signer [role=status]").inner_text().startswith(found)
    page.click("#evidence .word")


def test_a_byte_that_was_changed_after_the_page_was_made_turns_the_bar_red_though_it_is_in_the_last_event(browser: Any, tmp_path: Path) -> None:
    data = a_log().data
    changed = data[:-600] + data[-600:].replace(b'"rule":"3 messages"', b'"rule":"4 messages"')
    assert len(changed) == len(data) and changed != data
    text = page_of(tmp_path, data).decode()
    found = next(ELEMENT.finditer(text))
    content = text[: found.start()] + view.element(events.NAME, changed) + text[found.end() :].removeprefix("\n")
    for page in looked_at(browser, tmp_path, content.encode()):
        assert "failed" == page.page.locator("#evidence").get_attribute("class")
        assert "✗ Failed" == page.text("#evidence .word") and "✗" == states(page)["bytes"]
        assert "checked in this page" not in page.text("#evidence")


def rewritten(change: Callable[[dict[str, Any]], None], number: int = 3) -> Callable[[bytes], bytes]:
    """Another event in the place of one, in canonical form, with the chain behind it written again: whole but for what the change breaks"""

    def of(data: bytes) -> bytes:
        previous, lines = events.FIRST, []
        for line in data.splitlines():
            value = json.loads(line) | {"previous": previous}
            if value["event"] == number:
                change(value)
            lines.append(canonical.encode(value))
            previous = sha256(lines[-1]).hexdigest()
        return b"".join(line + b"\n" for line in lines)

    return of


BROKEN: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "a changed token": ("chain", lambda data: data.replace(base64.b64encode(b", lamp"), base64.b64encode(b", lump"))),
    "a number in another form": ("chain", lambda data: data.replace(b'"logprob_nats":-3,', b'"logprob_nats":-3.0,', 1)),
    "an event left out": ("chain", lambda data: b"".join(line + b"\n" for n, line in enumerate(data.splitlines()) if n != 3)),
    "an index that jumps": ("order", rewritten(lambda event: event["body"].update(index=7))),
    "a turn of the wrong side": ("order", rewritten(lambda event: event["body"].update(side=1), 1)),
    "text in a number's place": ("fields", rewritten(lambda event: event["body"].update(position="<b>4</b>"))),
    "a field too many": ("fields", rewritten(lambda event: event["body"].update(more=1))),
    "a reason that is none": ("fields", rewritten(lambda event: event["body"].update(position={"absent": "so"}))),
    "a message that its tokens do not spell": ("texts", rewritten(lambda event: event["body"].update(text="Hello, lump"), 5)),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_log_that_is_broken_is_refused_at_the_event_where_the_reader_in_python_refuses_it(browser: Any, tmp_path: Path, case: str) -> None:
    check, change = BROKEN[case]
    data = change(a_log().data)
    for page in looked_at(browser, tmp_path, page_of(tmp_path, data)):
        assert ("✗ Failed", "✗", "✓") == (page.text("#evidence .word"), states(page)[check], states(page)["bytes"])
        page.page.click("#evidence .word")
        sentence = page.text("#evidence .broken")
        assert "checked in this page" not in page.text("#evidence")
        assert 0 == page.page.locator("b", has_text="4").count()
    path = tmp_path / "talk.dlg" / events.NAME
    if case not in ("a turn of the wrong side", "a message that its tokens do not spell"):  # so_far.py refuses these
        with pytest.raises(EvidenceError) as refused:
            list(events.read(path))
        event = re.search(r"event \d+", str(refused.value))
        assert event and event[0] in sentence


CHECK = """async ({ logs }) => {
  const { fromBase64 } = formation["bytes.js"];
  const found = [];
  for (const text of logs) {
    const { checks } = await formation["chain.js"].checkLog(new Blob([fromBase64(text)]), "", 0, async () => {});
    const failed = checks.find(({ name, state }) => name !== "bytes" && state === "failed");
    found.push(failed ? Number(/^event ([0-9]+): /.exec(failed.said)[1]) + (failed.name === "numbers" ? 1 : 0) : null);
  }
  return found;
}"""


def refused_at(data: bytes) -> int | None:
    """The event that Python refuses, None if it refuses none"""
    course, so_far = events.Course(), SoFar()
    try:
        for event, _ in events.whole_events(Path("log"), io.BytesIO(data), course):
            so_far.take(event)
    except EvidenceError as refusal:
        named = re.search(r"event (\d+):", str(refusal))
        return int(named[1]) if named else course.number - 1
    return None


def test_of_a_hundred_changed_bytes_the_page_refuses_those_that_python_refuses_at_the_same_event(opened: Opened) -> None:
    """But one in the last event, which no later line names: of those both take what is still an event. A number that contradicts another is
    refused by the page at its own event, by Python at the next, which names its line's digest."""
    chance, data = random.Random(7), a_log().data
    logs = []
    for _ in range(100):
        at = chance.randrange(len(data))
        logs.append(data[:at] + bytes([chance.choice([data[at] ^ 1, chance.randrange(32, 127), 10])]) + data[at + 1 :])
    expected = [refused_at(each) for each in logs]
    assert sum(each is not None for each in expected) > 80
    assert expected == opened.page.evaluate(CHECK, {"logs": [base64.b64encode(each).decode() for each in logs]})


def test_bytes_behind_the_end_of_a_dialogue_are_refused(browser: Any, tmp_path: Path) -> None:
    for page in looked_at(browser, tmp_path, page_of(tmp_path, a_log().data + b"{")):
        assert ("✗ Failed", "✗") == (page.text("#evidence .word"), states(page)["order"])


def test_numbers_that_contradict_each_other_are_refused(browser: Any, tmp_path: Path) -> None:
    bits = rewritten(lambda event: event["body"]["measured"]["model"].update(logprob_bits=-1))
    for page in looked_at(browser, tmp_path, page_of(tmp_path, bits(a_log().data))):
        assert "✗" == states(page)["numbers"] and "✗ Failed" == page.text("#evidence .word")


def test_a_log_that_was_cut_off_is_shown_to_its_last_whole_line_and_said_to_be_so(browser: Any, tmp_path: Path) -> None:
    lines = a_log().lines
    for page in looked_at(browser, tmp_path, page_of(tmp_path, b"\n".join(lines[:10]) + b'\n{"body":')):
        assert "cut off" == states(page)["complete"] and "✓" == states(page)["chain"]
        assert "The log does not say" in page.text("#ending")
        assert "I am" in page.text("#said")


# ---- for everybody


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 800)])
def test_axe_finds_no_barrier_for_people_who_do_not_see_or_point_well(browser: Any, tmp_path: Path, theme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python", reason="it brings axe-core")
    source = (Path(axe.__file__).parent / "axe.min.js").read_text("utf-8")
    talk = log("owl", "lamp", server=True).turn([said(b"Hello"), said(b" you", -7.0, method="forced")], "tokens")
    talk.turn([reported(b"none", None, "SENTINEL(null)", [(b"a", -0.5)]), reported(b"some", -1.0, "POSITIVE")], "tokens").end([(1, 0, 5)])
    claim = {"message": 1, "span": [0, 5], "quote": "Hello", "predicate": "a greeting", "procedure": "words", "verdict": "refuted", "value": 1.5}
    (tmp_path / "claims.json").write_text(json.dumps({"claims": [claim]}))
    (tmp_path / "talk.dlg").mkdir()
    (tmp_path / "talk.dlg" / events.NAME).write_bytes(talk.data)
    content = made.packed(tmp_path / "talk.dlg", tmp_path / "claims.json").page
    for found in looked_at(browser, tmp_path, content, "#message=1&token=0&claim=0"):
        found.page.set_viewport_size({"width": width, "height": 900})
        found.page.emulate_media(color_scheme=theme)
        found.page.click("#evidence .word")
        found.page.click("#token summary")
        found.page.evaluate(f"() => {{ {source} }}")
        result = found.page.evaluate("axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'best-practice'] })")
        assert [] == [(each["id"], each["nodes"][0]["html"]) for each in result["violations"]]
        assert len(result["passes"]) > 20
