"""The verdict on a gallery's first page: in one glance, level by level with every check, and how to compute one's own."""

from __future__ import annotations

from collections.abc import Iterator

from formation.evidence.checks import LEVELS, SIGNER
from formation.evidence.plain import capital
from formation.evidence.report import FAILED, PASSED, Outcome
from formation.explorer.gallery.markup import Markup, element, scrolls, section, text
from formation.explorer.gallery.material import BUNDLE, VERIFY, Material
from formation.version import __version__

MARKS = {PASSED: "✓", FAILED: "✗"}
SUMS = "SHA256SUMS"
KNOWN_TO_THEM = "Whoever published this page knows that key; whether you do, only you can say"
ON_PURPOSE = "It was published all the same, on purpose. Take nothing on this page as evidence."


def verdict(m: Material) -> Markup:
    """Verified or not, each level, and what that proves"""
    report = m.report
    pills = element("ul.pills", *(pill(level, state) for level, state in report.levels().items()))
    proves, when = element("p.proves", f"{capital(report.honesty)}."), element("p.quiet", *computed(m))
    if report.verified:
        return element("div.verdict.passed", element("h2", "✓ Verified"), pills, proves, when)
    said = element("p", "First failure: ", element("span.value", str(report.failed[0])), ".")
    return element("div.verdict.failed.alarm", element("h2", "✗ This bundle does not verify"), said, element("p", ON_PURPOSE), pills, proves, when)


def computed(m: Material) -> Iterator[object]:
    yield f"Computed by formation {__version__} when this page was made"
    if digest := m.report.facts.get("bundle"):
        yield from (", of bundle ", element("span.value", digest))
    yield from (". This is a copy of that verdict: ", element("a", "compute your own", href="#verification"), ".")


def pill(level: str, state: str) -> Markup:
    mark = "✓ for its publisher" if (level, state) == (SIGNER, PASSED) else MARKS.get(state, f"– {state}")
    return element(f"li.pill.{colour(state)}", element("span.pill-name", level), element("span.pill-text", mark))


def colour(state: str) -> str:
    return state if state in MARKS else "open"


# ---- level by level


def verification(m: Material) -> Markup:
    made, failed = sum(outcome.state == PASSED for outcome in m.report.outcomes), len(m.report.failed)
    others = f"{failed} failed; the others were not reached" if failed else "none failed; the others are about what is not claimed"
    sentence = f"{made} of {len(m.report.outcomes)} checks passed, {others}. Open a level to see its checks."
    levels = element("ul.levels", *(level_item(m, level, state) for level, state in m.report.levels().items()))
    return section("Verification result", sentence, levels, *yourself(m), id="verification")


def level_item(m: Material, level: str, state: str) -> Markup:
    said = KNOWN_TO_THEM if level == SIGNER else capital(LEVELS[level])
    note = [element("span.note", m.report.notes[level])] if level in m.report.notes else []
    meaning = element(f"span.meaning.{'so' if state == PASSED else 'unsaid'}", said if state == PASSED else f"Not said: {LEVELS[level]}", *note)
    checks = element("ol.checks", *(check_item(outcome) for outcome in m.report.outcomes if outcome.check.level == level))
    summary = element("summary", element("span.name", level), badge(state), meaning)
    return element("li.level", element("details", summary, checks))


def check_item(outcome: Outcome) -> Markup:
    check, found = outcome.check, outcome.finding
    which = element("span.which", element("span", check.id, " "), check.name)
    lines = [found.checked, *([f"expected {found.expected}", f"got {found.found}"] if found.expected else [])]
    meaning = [f"Says: {check.says}.", f"Does not say: {check.says_not}."]
    said = element("div", *(element("p.value", line) for line in lines), *(element("p.quiet", line) for line in meaning))
    return element("li", which, element("span", badge(found.state)), said)


def badge(state: str) -> Markup:
    return element(f"span.state.{colour(state)}", f"{MARKS.get(state, '–')} {state}")


# ---- one's own


def yourself(m: Material) -> Iterator[Markup]:
    yield element("h3", "Check it yourself")
    how = ", with the bundle's ZIP dropped on it, verifies in your browser and asks no network for anything. In a terminal:"
    yield element("p", "The page ", element("a", VERIFY, href=VERIFY), how)
    yield element("pre.commands", text("\n".join(commands(m)), "\n"), **scrolls("Commands"))
    if m.key:
        yield element("p.quiet", "Signed by the key ", element("span.value", m.key.fingerprint), ". Whose it is, no page can tell: compare it with "
                      "what its owner says elsewhere, and leave --signer out if you know the key already.")  # fmt: skip


def commands(m: Material) -> Iterator[str]:
    if BUNDLE in m.files:
        yield f"formation verify {BUNDLE}{f' --signer {m.key.text}' if m.key else ''}"
        yield f"unzip {BUNDLE} -d run.ofb && formation audit run.ofb --checkpoint FOLDER   # with the weights"
    yield f"sha256sum --check {SUMS}"
