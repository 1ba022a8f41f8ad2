"""index.html of a gallery: the page that a researcher links to. It runs no script, and everything of the bundle in it is text.

    index(material)     the same bytes for the same bundle, arguments and version: no clock, no machine but the one that is declared

What it says comes from the bundle and from the verdict on it; a bundle that failed is said to have failed before anything else.
"""

from __future__ import annotations

from collections.abc import Iterator

from formation.evidence.plain import counted, number, size
from formation.explorer import page
from formation.explorer.gallery.about import about, path, scope
from formation.explorer.gallery.markup import Markup, element, joined, scrolls, section, text
from formation.explorer.gallery.material import BUNDLE, EXPLORER, LEDGER, NOTE, RECEIPTS, VERIFY, Material
from formation.explorer.gallery.output import output
from formation.explorer.gallery.verdict import SUMS, verdict, verification

POLICY = "default-src 'none'; style-src '{style}'; base-uri 'none'; form-action 'none'"
DOORS = ((EXPLORER, "Explore the run"), (VERIFY, "Verify it yourself"), (NOTE, "Read the note"), (BUNDLE, "Get the evidence"))
WHAT = {
    EXPLORER: "the run, layer by layer and expert by expert; the bundle is in the page, which verifies it itself",
    VERIFY: "verifies the bundle, or a receipt, in your browser, offline",
    NOTE: "a technical note of a few pages",
    LEDGER: "the ledger as one JSON document, for programs",
    BUNDLE: "the evidence: everything on this page comes from it",
    RECEIPTS: "each proves one line of the ledger to someone who has nothing else: what a token is, and how probable it was",
}


def index(m: Material) -> bytes:
    style = page.styles("verify.css", "explorer.css", "gallery.css")
    policy = POLICY.format(style=page.source_hash(style))
    return page.assembled("gallery.html", "", style, {"POLICY": policy, "TITLE": text(title(m)), "ABOUT": text(lead(m)), "BODY": body(m)})


def body(m: Material) -> Markup:
    told = [
        element("p.over", "Formation · a recorded run, published with its evidence"),
        element("h1", heading(m)),
        element("p.lead", lead(m)),
        doors(m),
    ]
    head = element("header", *([*told, verdict(m)] if m.report.verified else [verdict(m), *told]))
    main = element("main", output(m), about(m), verification(m), path(m), scope(m), files(m))
    made = "Made by formation publish, without a clock: the same version gives the same bytes for the same bundle and the same known keys."
    return joined(head, main, element("footer", element("p", made)))


def heading(m: Material) -> str:
    return f"How {counted(m.told.count, 'token')} formed"


def title(m: Material) -> str:
    return heading(m) if m.report.verified else f"Not verified: {heading(m)}"


def lead(m: Material) -> str:
    shape = m.bundle.run.shape
    experts = f" and {number(shape.experts)} experts a layer ({number(shape.chosen)} chosen for a token)" if shape.experts else ""
    end = "sealed with a signature, and checkable by anyone without the weights" if m.report.verified else "but what should prove it does not hold"
    model = f"What a language model of {counted(shape.layers, 'layer')}{experts} did"
    return f"{model} to form {counted(m.told.count, 'token')}: recorded layer by layer, {end}."


def doors(m: Material) -> Markup:
    """Links to what there is, the first one in the strongest colour"""
    there = [(name, label, size(m.files[name].size_bytes)) for name, label in DOORS if name in m.files]
    kinds = ["li.first", *(["li"] * len(there))]
    return element("ul.doors", *(element(kind, element("a", label, " ", element("small", big), href=name))
                                 for kind, (name, label, big) in zip(kinds, there, strict=False)))  # fmt: skip


# ---- files


def files(m: Material) -> Markup:
    kinds = {"file": "th", "what it is": "th", "size": "th.right", "SHA-256": "th"}
    head = element("tr", *(element(kind, name, scope="col") for name, kind in kinds.items()))
    table = element("table", element("thead", head), element("tbody", *file_rows(m)))
    sentence = joined("All of them open from a disk as from a web server. The digests of all files, this page and receipts included, are in ",
                      element("a", SUMS, href=SUMS), ".")  # fmt: skip
    return section("Files", sentence, element("div.wide", table, **scrolls("Files")))


def file_rows(m: Material) -> Iterator[Markup]:
    for name, what in WHAT.items():
        if name not in m.files:
            why = element("td.left-out", f"not in this gallery: {m.missing[name]}")
            yield element("tr", element("td.name", name), why, element("td.right", "–"), element("td", "–"))
            continue
        file = m.files[name]
        many = f" ({counted(file.count, 'file')})" if file.count > 1 else without(m) if name == EXPLORER else ""
        link = element("td.name", name if name == RECEIPTS else element("a", name, href=name))
        digest = element("td", element("span.value.digest", file.sha256) if file.sha256 else "each its own")
        yield element("tr", link, element("td", what, many), element("td.right.name", size(file.size_bytes)), digest)


def without(m: Material) -> str:
    """What the explorer does not hold, and so does not check"""
    folders = sorted({name.partition("/")[0] for name in m.left_out})
    return (
        f"; without {' and '.join(f'{folder}/' for folder in folders)} ({counted(len(m.left_out), 'file')}), which it does not check"
        if folders
        else ""
    )
