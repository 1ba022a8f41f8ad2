"""The second half of a gallery's first page: what was recorded and from what, the way from a prompt to a claim, and what is not proven."""

from __future__ import annotations

from collections.abc import Iterator

from formation.evidence.checks import CERTIFIED, PARITY, REPLAY, SIGNER, WEIGHTS
from formation.evidence.plain import counted, cut, number, size
from formation.evidence.report import PASSED
from formation.explorer.gallery.markup import Markup, element, section
from formation.explorer.gallery.material import Material
from formation.ledger import accounts

NO_ROWS = "none kept, so that nothing less than the whole run can be executed again"
LONGEST = 300  # characters of what anyone may have written
Line = tuple[str, str]  # what is said, and a digest or a remark in small letters


def about(m: Material) -> Markup:
    rows = {"Surface": surface(m), "Artifact": artifact(m), "Model": model(m), "Checkpoint": checkpoint(m), "Evidence collected": collected(m)}
    listed = [part for name, lines in rows.items() for part in (element("dt", name), element("dd", *map(line, lines)))]
    return section("What this is", "Read from the bundle; digests name exactly what is meant.", element("dl.about", *listed))


def line(told: Line) -> Markup:
    said, small = told
    return element("p", said, *([" ", element("span.value.quiet", cut(small, LONGEST))] if small else []))


def surface(m: Material) -> Iterator[Line]:
    run, told = m.bundle.run, m.told
    before = counted(len(m.bundle.anchor.prompt_ids), "id")
    yield f"Output formation: {counted(told.count, 'token')} after a prompt of {before}, every layer of every step.", ""
    places = f"{counted(told.cells // run.shape.layers, 'position')} × {counted(run.shape.layers, 'layer')} = {counted(told.cells, 'cell')}"
    yield f"{places}, captured at level {run.step_level} where tokens formed and {run.prompt_level} before.", ""


def artifact(m: Material) -> Iterator[Line]:
    facts = m.report.facts
    files = f"{counted(len(m.sizes), 'file')}, {size(sum(m.sizes.values()))}"
    yield f"An evidence bundle of {files}; on its maker's disk, unsigned, it is called", m.name
    yield "Run", m.bundle.run_id
    for name, key in (("Bundle", "bundle"), ("Root of the ledger", "root"), ("Signed by", "signer")):
        if key in facts:
            yield name, str(facts[key])


def model(m: Material) -> Iterator[Line]:
    shape, settings = m.bundle.run.shape, dict(m.bundle.anchor.sampler)
    sizes = f"{counted(shape.layers, 'layer')}, {number(shape.hidden)} wide, {counted(shape.heads, 'attention head')}"
    yield f"{sizes}, {number(shape.vocabulary)} tokens in the vocabulary.", ""
    if shape.experts:
        dense = f" but the first{f' {shape.dense_layers}' if shape.dense_layers > 1 else ''}" if shape.dense_layers else ""
        yield f"Mixture of experts: {number(shape.chosen)} of {number(shape.experts)} chosen for each token, in each layer{dense}.", ""
    method = str(settings.pop("method"))
    yield "Tokens chosen by", ", ".join([method, *(f"{name.replace('_', ' ')} {value}" for name, value in settings.items())])
    yield "Arithmetic: numerics contract", m.bundle.anchor.contract


def checkpoint(m: Material) -> Iterator[Line]:
    anchor = m.bundle.anchor
    if m.holds("checkpoint"):
        table = m.document("checkpoint.json")
        weights = sum(row["end"] - row["begin"] for row in table["tensor_table"])
        shards = sum(row["covers"] == "header" for row in table["files"])
        kinds = ", ".join(sorted({row["dtype"] for row in table["tensor_table"]}))
        yield f"{counted(len(table['tensor_table']), 'tensor')} in {counted(shards, 'shard')}, {size(weights)} of weights stored as", kinds
    yield "Identity: digest of the list of its files", anchor.checkpoint_sha256
    yield "Root of the table of its tensors", anchor.tensor_table_root
    yield level(m, WEIGHTS, "Weights named by digest")


def collected(m: Material) -> Iterator[Line]:
    facts = m.report.facts
    if "lines" in facts:
        yield f"Ledger of {counted(facts['lines'], 'line')}: digests, norms, attention, routing, experts, attribution and lens of every step.", ""
    rows, logits = m.size_of("rows/"), m.size_of("router/")
    yield f"Rows of the residual stream: {f'{size(rows)}, from which parts of the run can be executed again' if rows else NO_ROWS}.", ""
    yield f"Router logits: {size(logits) if logits else 'none kept'}.", ""
    for name, what in ((PARITY, "Parity with a run without capture"), (REPLAY, "Audit, parts executed again with the weights"),
                       (CERTIFIED, "Certification, attacks on the bundle and the verifier")):  # fmt: skip
        yield level(m, name, what)
    yield from declared(m)


def level(m: Material, name: str, what: str) -> Line:
    state = m.report.levels()[name]
    note = m.report.notes.get(name, "")
    return f"{what}: {state}{'' if note else '.'}", note


def declared(m: Material) -> Iterator[Line]:
    if not m.holds("declarations"):
        return
    host, read = m.document("host.json"), accounts.totals(m.bundle.folder)
    machine = f"{counted(host['cores'], 'core')}, {size(host['memory_bytes'])} of memory, a budget of {size(host['memory_budget_bytes'])}"
    resumed = f", and {counted(len(host['resumed']), 'machine')} more on which it was resumed" if host["resumed"] else ""
    told = f"{size(read.disk_bytes)} read from {counted(len(read.shards), 'shard')}; {machine}{resumed};"
    yield f"Declared by the operator, not measured: {told}", f"{host['kernels']} kernels, {host['system']}"


# ---- four steps


def path(m: Material) -> Markup:
    items = [element("li", element("h3", name), element("p", said), element("p.quiet.value", small)) for name, said, small in steps(m)]
    return section("The evidence path", "From a prompt to a claim that can be checked, in four steps.", element("ol.path", *items))


def steps(m: Material) -> Iterator[tuple[str, str, str]]:
    facts, report = m.report.facts, m.report
    anchor = "Prompt, checkpoint, arithmetic, sampler and stop rule are frozen before the first token. Their digest names the run."
    yield "Anchor", anchor, f"run {m.bundle.run_id[:16]}…"
    lines = f"{counted(facts['lines'], 'line')}, root {facts['root'][:16]}…" if "lines" in facts else "no ledger that was closed"
    yield "Ledger", "Each layer of each step leaves a line: what it read, wrote and chose. Every line is a leaf of one Merkle tree.", lines
    signed = f"key {facts['signer'].removeprefix('sha256:')[:16]}…" if "signer" in facts else "no signature that holds"
    yield "Seal", "One key signs the root of the tree and the digest of every file. From then on, one changed bit is noticed.", signed
    check = "Anyone verifies all of this without the weights. Who has the weights executes any part of it again, bit for bit."
    yield "Check", check, f"{'verified' if report.verified else 'not verified'}; audit {report.levels()[REPLAY]}"


# ---- limits


AUDIT = "The attached audit is its signer's word, for what it executed again and nothing else; an audit of your own proves it to you"
NO_AUDIT = "No audit counts here: until somebody with the weights executes them again, that these numbers are theirs is the signer's word."
DIRECT = "Attribution is the direct path only: what a component did through later layers is not in it. A lens reads a row as if it were the last."
UNCLAIMED = {
    PARITY: "That recording left the run as it was is not claimed: no run without capture was compared with it.",
    WEIGHTS: "The weights are not named by digest, only the headers of their files: another checkpoint could have the same names and shapes.",
    CERTIFIED: "No certification counts here: none by a known key says which attacks on this very bundle a verifier refused.",
}  # fmt: skip


def scope(m: Material) -> Markup:
    listed = element("ul.limits", *(element("li", each) for each in limits(m)))
    return section("Scope, and what is not proven", "What this page is about ends here; a claim that goes further is not its own.", listed)


def limits(m: Material) -> Iterator[str]:
    states = m.report.levels()
    yield f"This is one run of {counted(m.told.count, 'token')}. It says nothing of other prompts, and it may have been picked from many runs."
    yield f"{AUDIT} ({m.report.notes[REPLAY]})." if states[REPLAY] == PASSED else NO_AUDIT
    if states[SIGNER] != PASSED:
        yield "Whose key signed was not known to whoever published this page."
    yield from (sentence for name, sentence in UNCLAIMED.items() if states[name] != PASSED)
    yield "Wall time, hardware and bytes read are declared, not proven. That a model formed a text does not make the text true."
    yield DIRECT
