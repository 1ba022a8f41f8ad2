"""What stands in a note, section by section. Every number comes with where it stands: position/slot/field of the ledger, or file/field."""

from __future__ import annotations

from collections.abc import Iterator

from formation.evidence.plain import counted, size
from formation.evidence.report import PASSED
from formation.ledger import accounts
from formation.ledger.tables import Absent
from formation.note import figures
from formation.note.blocks import Column, Mono, Section, Value
from formation.note.material import SHOWN, Formation, Material
from formation.note.proof import closing
from formation.note.words import number, shown, token_text

SUBTITLE = "Formation note"
RUN = "-1/run"
PROMPT = 600  # characters of the prompt that are shown
STRONGEST = 8
LEVEL_HINT = "a run recorded with `--capture standard`"


def title(m: Material) -> str:
    return f"How {counted(m.told.count, 'token')} formed"


def sections(m: Material) -> list[Section]:
    return [opening(), what_ran(m), tokens(m), formed(m), *closing(m)]


def opening() -> Section:
    return Section("").text(
        "This note is made from one evidence bundle and from nothing else. Beside each value stands where it is: `position/slot/field` is a value of "
        "the ledger whose root is at the foot of every page, `file/field` one of another file of the bundle. Values are rounded for print; "
        "`formation show run.ofb --token 1 --layer 0` prints them in full, and `formation receipt` proves any one line to someone who has neither "
        "the bundle nor the weights."
    )


# ---- what ran


def what_ran(m: Material) -> Section:
    return Section("What ran").facts([*of_run(m), *of_anchor(m), *of_machine(m)])


def of_run(m: Material) -> Iterator[tuple[str, Value, str]]:
    anchor, shape, head = m.bundle.anchor, m.bundle.run.shape, m.head
    table = m.document("checkpoint.json")
    shards = sum(row["covers"] == "header" for row in table["files"])
    yield "bundle", Mono(f"sha256:{head.bundle.removeprefix('sha256:')}"), "attestation.json"
    yield "signed by", Mono(head.signer), "attestation.json"
    yield "verdict", verdict_of(m), "formation verify"
    files = f"{counted(shards, 'shard')}, {counted(len(table['tensor_table']), 'tensor')}; known by digest: {head.weights}"
    yield "checkpoint", files, "checkpoint.json"
    yield "identity", Mono(anchor.checkpoint_sha256), "anchor.json/checkpoint/sha256"
    yield "tensor table", Mono(anchor.tensor_table_root), "anchor.json/…/tensor_table_root"
    moe = f"; {shape.chosen} of {shape.experts} experts a token from layer {shape.dense_layers} on" if shape.experts else ""
    widths = f"{number(shape.hidden)} wide, {shape.heads} heads, {number(shape.vocabulary)} tokens in the vocabulary"
    sizes = f"{shape.layers} layers{deltas(m)}, {widths}{moe}"
    yield "model", sizes, f"{RUN}/shape"


def deltas(m: Material) -> str:
    count = m.bundle.run.kinds.count("delta")
    return f", {count} of them delta nets" if count else ""


def verdict_of(m: Material) -> str:
    levels = m.report.levels()
    passed = [level for level, state in levels.items() if state == PASSED]
    return f"{', '.join(passed)} passed; {', '.join(level for level in levels if level not in passed)} not claimed"


def of_anchor(m: Material) -> Iterator[tuple[str, Value, str]]:
    anchor, first = m.bundle.anchor, m.told.tokens[0]
    if anchor.prompt_text is not None:
        yield "prompt", Mono(shown(anchor.prompt_text, PROMPT)), "anchor.json/prompt/text"
    ids = ", ".join(map(str, anchor.prompt_ids[:24])) + (", …" if len(anchor.prompt_ids) > 24 else "")
    yield "prompt ids", f"{number(len(anchor.prompt_ids))}: {ids}", "anchor.json/prompt/ids"
    yield "anchor token", f"id {first.id} at position {first.position}, the first that the anchor leads to", f"{first.step}/token/id"
    yield "sampler", sampler(m), "anchor.json/sampler"
    stops = f", or at {' or '.join(map(str, anchor.stop_ids[:8]))}" if anchor.stop_ids else ""
    yield "ends", f"after {counted(anchor.tokens, 'token')}{stops}", "anchor.json/stop"
    if anchor.nonce is not None:
        yield "nonce", Mono(shown(anchor.nonce, 120)), "anchor.json/nonce"
    run = m.bundle.run
    yield "captured", f"{run.step_level} at steps, {run.prompt_level} at other positions of the prompt", f"{RUN}/capture"


def sampler(m: Material) -> str:
    settings = dict(m.bundle.anchor.sampler)
    method = str(settings.pop("method"))
    return method + "".join(f", {name.replace('_', ' ')} {value}" for name, value in settings.items())


def of_machine(m: Material) -> Iterator[tuple[str, Value, str]]:
    """What the operator declares"""
    host, read = m.document("host.json"), accounts.totals(m.bundle.folder)
    bytes_read = f"{number(read.disk_bytes)} ({size(read.disk_bytes)}) from {counted(len(read.shards), 'shard')}, declared"
    yield "bytes read", bytes_read, "io.jsonl/disk_bytes"
    disk = host["file_system"]
    told = f"{host['cores']} cores, {host['threads']} threads; {size(host['memory_bytes'])} of memory, budget {size(host['memory_budget_bytes'])}"
    said = f"{told}; {host['kernels']} kernels; {disk['kind']} ({disk['source']}); formation {host['formation']}, declared"
    yield "machine", Mono(shown(said, 300)), "host.json"
    if host["resumed"]:
        yield "resumed", f"on {counted(len(host['resumed']), 'machine')} more, declared", "host.json/resumed"


# ---- the tokens


def tokens(m: Material) -> Section:
    columns = (
        Column("no."), Column("position", "p + 1", right=True), Column("id", "token/id", right=True), Column("token", "token/bytes", share=1),
        Column("probability", "exp lm_head/\nlogprob", right=True), Column("surprisal", "lm_head/\nsurprisal_bits", right=True),
        Column("entropy", "lm_head/\nentropy_nats", right=True), Column("rank", "lm_head/\nrank_low", right=True),
        Column("arrival", "lm_head/\narrival_layer", right=True),
    )  # fmt: skip
    rows = [
        (
            str(t.token), str(t.position), str(t.id), Mono(token_text(t, 28)), number(t.probability, 4), number(t.surprisal_bits, 4),
            number(t.entropy_nats, 4), number(t.rank_low), number(t.arrival_layer),
        ) for t in m.told.tokens
    ]  # fmt: skip
    left = m.told.count - SHOWN
    more = f" The first {SHOWN} of {number(m.told.count)} tokens are shown; `formation show run.ofb` has all." if left > 0 else ""
    return Section("The tokens").table(columns, rows).text(
        "A row's values stand at p, one position before the token's own. Surprisal is in bits, entropy of the whole distribution in nats; arrival is "
        f"the first layer from which on the lens has the token first.{more}"
    )  # fmt: skip


# ---- how they formed


def formed(m: Material) -> Section:
    f, section = m.formation, Section(f"How token {m.formation.token.token} formed")
    step = f.token.step
    if isinstance(f.token.embed_dla, Absent):
        why = f"This run was captured at level {m.bundle.run.step_level}: lens and attribution, and so their figures, need {LEVEL_HINT}."
        section.text(why)
    else:
        section.figure(figures.lens(m.told, f), lens_caption(m, f))
        section.figure(figures.waterfall(f), waterfall_caption(f))
        section.table((Column("largest direct contributions"), Column("reference", share=1), Column("logit", right=True)), contributions(f))
    if m.told.gates:
        section.figure(figures.routing(m.told, f, m.bundle.run.shape.experts), routing_caption(m, step))
    return section


def contributions(f: Formation) -> Iterator[tuple[Value, ...]]:
    for name, reference, value in figures.strongest(f, STRONGEST):
        yield name, Mono(reference), number(value)


def lens_caption(m: Material, f: Formation) -> str:
    step, rival = f.token.step, f.cells[-1].lens_runner_up_logprob
    absent = f" The runner-up is absent: {rival.reason}." if isinstance(rival, Absent) else ""
    return (
        f"The logit lens: the final norm and `lm_head` on the row after each layer, with the row's own norm. a: token {f.token.token} and its "
        f"runner-up, `{step}/layer l/lens_logprob` and `lens_runner_up_logprob`. b: the rank of each token, `p/layer l/lens_rank`; the darker, the "
        f"nearer to rank 1.{absent}"
    )


def waterfall_caption(f: Formation) -> str:
    step, token = f.token.step, f.token
    return (
        f"What wrote the logit of token {token.token}, by the direct path only and with the frozen scale of the final norm: `{step}/embed/dla`, then "
        f"`{step}/layer l/dla_attention` and `dla_mlp`, then all `dla_attention_rounding` and `dla_mlp_rounding` together "
        f"({number(figures.roundings(f.cells), 3)}). They add up to {number(token.dla_logit, 9)} (`{step}/lm_head/dla_logit`); with lm_head's own "
        f"rounding, {number(token.lm_head_rounding, 3)} (`lm_head_rounding`), to the engine's logit, {number(token.chosen_logit, 9)} "
        f"(`chosen_logit`).{mixers(f)}"
    )


def mixers(f: Formation) -> str:
    """Which layers have attention, where not all do"""
    layers = [str(cell.layer) for cell in f.cells if figures.mixer(cell) == figures.ATTENTION]
    if len(layers) == len(f.cells):
        return ""
    return f" Layers with attention: {', '.join(layers) or 'none'}; a delta net writes in the others (`-1/run/layer_kinds`)."


def routing_caption(m: Material, step: int) -> str:
    margin = " Margin: by how much the last chosen one led the first refused, `router_margin`." if figures.with_margins(m.formation) else ""
    return (
        f"Experts. The darker, the larger the mean gate over all {number(m.told.count)} tokens, `p/layer l/gates` of `chosen`; framed: chosen for "
        f"token {m.formation.token.token}, `{step}/layer l/chosen`.{margin}"
    )
