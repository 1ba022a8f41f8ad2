"""What came out of a run, on a gallery's first page: the prompt, the tokens coloured by surprisal, where each took shape, and a table of them."""

from __future__ import annotations

from collections.abc import Iterator

from formation.evidence.plain import counted, cut, number
from formation.explorer.gallery import lens
from formation.explorer.gallery.markup import Markup, element, joined, scrolls, section, text
from formation.explorer.gallery.material import EXPLORER, RECEIPTS, SHOWN, Material
from formation.explorer.gallery.receipts import name_of
from formation.ledger.tables import TokenRecord

BITS = (0.5, 2.0, 4.0, 8.0)  # of surprisal, up to which a token has the first shades
IDS, LONGEST = 24, 20_000  # of a prompt: ids if it has no text, characters
HEADS = ("no.", "token", "id", "probability", "surprisal", "rank", "arrives at", "receipts")
LEFT = ("token", "receipts")  # columns of text
LENS = "The rank that a token would have had if the model had stopped after each layer (logit lens). Layers go up; rank 1 stands out most."


def output(m: Material) -> Markup:
    first = f" The first {SHOWN} are shown." if m.told.count > SHOWN else ""
    sentence = f"What the model was given, and the {counted(m.told.count, 'token')} it formed: the stronger the colour, the less probable.{first}"
    chips = element("p.ribbon", *(chip(m, token) for token in m.told.tokens))
    return section("Output", sentence, prompt(m), element("p.who", "Formed"), chips, bits(), *arrival(m), table(m))


def prompt(m: Material) -> Markup:
    anchor = m.bundle.anchor
    if anchor.prompt_text is not None:
        return joined(element("p.who", "Prompt"), element("pre.said", text(cut(anchor.prompt_text, LONGEST), "\n"), **scrolls("Prompt")))
    ids = ", ".join(map(str, anchor.prompt_ids[:IDS])) + (", …" if len(anchor.prompt_ids) > IDS else "")
    return element("p", f"Prompt, given as {counted(len(anchor.prompt_ids), 'id')}: ", element("span.value", ids))


def chip(m: Material, token: TokenRecord) -> Markup:
    shade = sum(token.surprisal_bits > most for most in BITS)
    told = f"token {token.token}: {number(token.surprisal_bits)} bits"
    if EXPLORER not in m.files:
        return element(f"span.chip.s{shade}", lens.spelled(token), title=told)
    return element(f"a.chip.s{shade}", lens.spelled(token), title=told, href=f"{EXPLORER}#position={token.step}")


def bits() -> Markup:
    names = [*(f"up to {most:g}" for most in BITS), f"over {BITS[-1]:g} bits of surprisal"]
    return element("ul.scale", *(element("li", element(f"span.swatch.s{n}", aria_hidden="true"), name) for n, name in enumerate(names)))


def arrival(m: Material) -> Iterator[Markup]:
    yield element("h3", "Where each token took shape")
    if not lens.is_captured(m.told.columns):
        yield element("p.quiet", f"Not in this ledger: it was captured at level {m.bundle.run.step_level}, and the logit lens needs standard.")
        return
    first = f" The first {lens.MOST} tokens." if m.told.count > lens.MOST else ""
    yield element("p.sentence", f"{LENS}{first}")
    yield element("div.wide", lens.figure(m.told.columns), **scrolls("Figure: rank by token and layer"))
    yield lens.scale()


def table(m: Material) -> Markup:
    kept = [n for n, name in enumerate(HEADS) if name != "receipts" or RECEIPTS in m.files]
    head = element("tr", *(element("th" if HEADS[n] in LEFT else "th.right", HEADS[n], scope="col") for n in kept))
    rows = (element("tr", *(cells[n] for n in kept)) for cells in map(row, m.told.tokens))
    summary = f"The tokens as a table{', with receipts' if RECEIPTS in m.files else ''}"
    whole = element("table", element("thead", head), element("tbody", *rows))
    return element("details.more", element("summary", summary), element("div.wide", whole, **scrolls("Tokens")))


def row(t: TokenRecord) -> list[Markup]:
    """One cell for each of HEADS"""
    links = [element("a", label, href=name_of(t.token, slot), aria_label=f"{label}: receipt of token {t.token}") for label, slot in RECEIPT_LINKS]
    arrives = f"layer {t.arrival_layer}" if isinstance(t.arrival_layer, int) else "–"
    values = [number(t.id), number(t.probability), f"{number(t.surprisal_bits)} bits", number(t.rank_low), arrives]
    spelled = element("td", element("span.value", lens.spelled(t)))
    return [element("td.right", t.token), spelled, *(element("td.right", value) for value in values), element("td", links[0], " · ", links[1])]


RECEIPT_LINKS = (("what it is", "token"), ("how probable", "lm_head"))
