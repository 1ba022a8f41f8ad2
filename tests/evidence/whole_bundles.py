"""Whole sealed bundles that every check passes, made without a model: small_ledger's lines, an anchor they agree with, documents and rows.

    make(folder)                              greedy, all rows
    make(folder, Kind(sampler=SAMPLE))        sampled, at temperature 1
    make(folder, SCORED)                      a given text, of which two stretches are scored; DRAWN: by a sampler that chose them
    make(folder, Kind(rows="none", …))        and so on; `reseal` signs what a test has changed, as its owner could
"""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from tests.evidence import vectors
from tests.ledger.small_ledger import ROUTER, Line, Maker

from formation.evidence import audited, certification, documents, envelope, note, seal
from formation.kernels.choices import Router
from formation.kernels.reference_choose import uniform
from formation.ledger import canonical, merkle, sidecar
from formation.ledger.anchor import Anchor
from formation.ledger.blocks import router_tensors, row_tensors

GREEDY: Mapping[str, Any] = {"method": "greedy"}
SAMPLE: Mapping[str, Any] = {"method": "sample", "temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0, "seed": "7", "branch": "1"}
VECTORS = json.loads(documents.VECTORS.read_bytes())
NAME, DIGEST = documents.known_contract()
SHARD = {"path": "model.safetensors", "size": 96, "sha256": "5e" * 32, "covers": "header"}
FILES = [{"path": "config.json", "size": 2, "sha256": "c0" * 32, "covers": "file"}, SHARD]
NAMES = ("a.weight", "b.weight", "c.weight")
MATRIX = {"file": "model.safetensors", "dtype": "F32", "shape": [2, 2]}
TENSORS = [MATRIX | {"name": name, "begin": 16 * i, "end": 16 * i + 16} for i, name in enumerate(NAMES)]
ROOT = merkle.root_of(merkle.leaf_hash(canonical.encode(row)) for row in TENSORS).hex()
CHECKPOINT: dict[str, Any] = {"files": FILES, "tensor_table": TENSORS, "tensor_table_root": ROOT}
HOST = {
    "formation": "0.1.0", "python": "3.11.7", "system": "Linux", "kernels": "avx2", "cores": 2, "threads": 2, "memory_bytes": 1 << 33,
    "memory_budget_bytes": 1 << 32, "kv_cache": True, "file_system": {"kind": "ext4", "source": "local"}, "guess": True, "mirrors": [],
    "resumed": [],
}  # fmt: skip
SHARED = {
    "parts": [], "shards": ["model.safetensors"], "seconds": 0.5, "shared_by": 1, "disk_bytes": 96, "mirror_bytes": 32, "unused_bytes": 16,
    "guessed_bytes": 0, "guessed_unused_bytes": 16,
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """What to make; `repeat` copies the lines of the first step instead of making others, for long ledgers."""

    prompt: tuple[int, ...] = (3, 5, 3)
    tokens: int = 3
    sampler: Mapping[str, Any] = field(default_factory=lambda: GREEDY)
    rows: str = "all"
    parity: str = "replay"
    steps: str = "standard"
    nonce: str | None = None
    repeat: bool = False
    checkpoint: Mapping[str, Any] = field(default_factory=lambda: CHECKPOINT)


MODELS = {"score": "chosen_logit", "log_sum_exp": "log_sum_exp", "mean": "mean_logit", "mean_square": "mean_square_logit", "top_masses": "top_masses"}


def of_model(name: str, head: dict[str, Any]) -> Any:
    """What tempered or sampler say where they are the model's distribution"""
    name = name.partition("_")[2]
    return head["logprob"] / math.log(2) if name == "logprob_bits" else head[MODELS.get(name, name)]


SPANS = [[2, 4], [6, 8]]
SCORED = Kind(prompt=(3, 5, 11, 3, 7, 8, 13, 21), tokens=4, sampler={"method": "forced", "scored": SPANS})
DRAWN = replace(SCORED, sampler={**SAMPLE, "scored": SPANS}, rows="none")


def anchor_of(kind: Kind) -> Anchor:
    listed, stop = sha256(canonical.encode(kind.checkpoint["files"])).hexdigest(), () if "scored" in kind.sampler else (38, 39)
    return Anchor(kind.prompt, "Say it", listed, kind.checkpoint["tensor_table_root"], NAME, DIGEST, kind.sampler, kind.tokens, stop, kind.nonce)


class BundleMaker(Maker):
    """Lines of one run, with rows behind their digests."""

    def __init__(self, kind: Kind, *, router: Router = ROUTER, **model: Any) -> None:
        super().__init__(router, steps=kind.steps, **model)
        self.kind, self.anchor = kind, anchor_of(kind)
        self.input = kind.prompt[0]
        self.given: int | None = None
        self.embeddings: dict[int, list[float]] = {}
        self.rows: dict[str, list[bytes]] = {}

    def lines(self) -> Iterator[Line]:
        run_id, last, steps = self.anchor.run_id, len(self.kind.prompt) - 1, self.anchor.steps()
        yield self.run() | {"run_id": run_id}
        once: list[Line] = []
        for position in range(steps.positions):
            if position <= last:
                self.input = self.kind.prompt[position]
            kind = self.anchor.step_kind(position) if position in steps else "prompt"
            self.given = self.anchor.given(position) if position in steps else None
            made = once or self.position(position, kind, str(self.kind.sampler["method"]))
            once = made if self.kind.repeat and position >= last else []
            yield from ({**line, "run_id": run_id, "position": position} for line in made)

    def position(self, position: int, kind: str, method: str) -> list[Line]:
        made = super().position(position, kind, method)
        self.with_rows(made)
        if kind != "prompt":
            by_slot = {line["slot"]: line["measured"] | line["derived"] for line in made}
            self.input = by_slot["token"]["id"]
            if method == "sample":
                sampler = next(line for line in made if line["slot"] == "sampler")
                sampler["measured"] |= self.drawn(position, by_slot["lm_head"])
                sampler["derived"] = {name: of_model(name, by_slot["lm_head"]) for name in sampler["derived"]}
        return made

    def token(self, row: list[float], method: str) -> int:
        """Never a stop id, whose logits are low, unless it is given"""
        return super().token(row, method) if self.given is None else self.given

    def logits(self) -> list[float]:
        row = super().logits()
        return [z - 50 if v in (38, 39) else z for v, z in enumerate(row)]

    def drawn(self, position: int, head: dict[str, Any]) -> dict[str, Any]:
        """An interval of the token's probability around the draw, at temperature 1, without a filter: all numbers are the model's"""
        draw, width = uniform(7, 1, position + 1), math.exp(head["logprob"])
        low = min(max(draw - width / 2, 0.0), 1 - width)
        own = {"draw": draw, "low": low, "high": low + width, "kept": self.shape["vocabulary"], "kept_mass": 1, "truncated_mass": 0}
        ranks = {"tempered_rank_low": head["rank_low"], "tempered_rank_high": head["rank_high"]}
        return own | ranks | {f"{prefix}_{name}": of_model(f"_{name}", head) for prefix in ("tempered", "sampler") for name in MODELS}

    def with_rows(self, made: list[Line]) -> None:
        """x' = fl(fl(x + a) + m) in binary32; the same id has the same embedding"""
        hidden = self.shape["hidden"]
        x = np.array(self.embeddings.setdefault(self.input, [random.Random(self.input).gauss(0, 1) for _ in range(hidden)]), np.float32)
        rows = {"residual": [x], "attention_write": [], "mlp_write": []}
        for line in made[1 : 1 + self.shape["layers"]]:
            a, m = (np.array([self.random.gauss(0, 1) for _ in range(hidden)], np.float32) for _ in range(2))
            x = (x + a) + m
            for name, row in (("attention_write", a), ("mlp_write", m), ("residual", x)):
                rows[name].append(row)
                line["measured"][f"{name}_sha256"] = sha256(row.astype("<f4").tobytes()).hexdigest()
        made[0]["measured"]["residual_sha256"] = sha256(rows["residual"][0].astype("<f4").tobytes()).hexdigest()
        self.rows = {name: [row.astype("<f4").tobytes() for row in each] for name, each in rows.items()}

    # ---- into a folder

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        positions = self.anchor.steps().positions
        with (folder / "ledger.jsonl").open("wb") as file:
            if self.kind.rows == "none":
                file.writelines(canonical.encode(line) + b"\n" for line in self.lines())
            else:
                self.write_with_rows(file, folder, positions)

    def write_with_rows(self, file: Any, folder: Path, positions: int) -> None:
        shape = self.shape
        rows = row_tensors(self.kind.rows, shape["layers"], shape["hidden"])
        router = router_tensors(shape["layers"] - shape["dense_layers"], shape["experts"])
        with sidecar.create(folder / "rows", rows) as kept, sidecar.create(folder / "router", router) as routers:
            for line in self.lines():
                file.write(canonical.encode(line) + b"\n")
                if line["slot"] == "embed":
                    self.put(line["position"], kept, routers)
            kept.close(positions)
            routers.close(positions)

    def put(self, position: int, kept: sidecar.Writer, routers: sidecar.Writer) -> None:
        for name, _, _ in kept.layout.tensors:
            for n, row in enumerate(self.rows[name]):
                kept.put(position, name, n, row)
        made = position if not self.kind.repeat else min(position, len(self.kind.prompt) - 1)
        for n in range(self.shape["dense_layers"], self.shape["layers"]):
            routers.put(position, "logits", n - self.shape["dense_layers"], self.sidecars[made, n])
            routers.put(position, "selection", n - self.shape["dense_layers"], self.selections[made, n])


def make(folder: Path, kind: Kind = Kind(), **model: Any) -> Path:
    """A sealed bundle in `folder`, which must not exist, of a model that is small_ledger's but for what `model` says"""
    maker = BundleMaker(kind, **model)
    maker.write(folder)
    (folder / "anchor.json").write_bytes(maker.anchor.encode())
    write(folder, "contract.json", {"name": NAME, "digest": DIGEST, "cases": VECTORS["cases"]})
    write(folder, "checkpoint.json", kind.checkpoint)
    write(folder, "host.json", HOST)
    accounts = (canonical.encode({"position": position, **SHARED}) + b"\n" for position in maker.anchor.steps())
    (folder / "io.jsonl").write_bytes(b"".join(accounts))
    write(folder, "parity.json", parity_of(folder, kind, maker))
    reseal(folder)
    return folder


def parity_of(folder: Path, kind: Kind, maker: Maker) -> dict[str, Any]:
    if kind.parity == "none":
        return {"parity": "not claimed"}
    cells = maker.anchor.steps().positions * maker.shape["layers"]
    compared = {"logits_compared": kind.tokens, "cache_entries_compared": cells}
    if kind.parity == "replay":
        return {"parity": "passed", "method": "replay", **compared}
    leaves = [merkle.leaf_hash(line) for line in (folder / "ledger.jsonl").read_bytes().split(b"\n")[:-1]]
    off = {"capture": "off", **compared, "tokens_compared": kind.tokens}
    on = {"capture": "on", "lines_compared": len(leaves), "root": merkle.root_of(leaves).hex()}
    return {"parity": "passed", "method": "full", "runs": [off, on, off, on]}


def write(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_bytes(canonical.encode(value, limits=canonical.DOCUMENT))


def reseal(folder: Path, secret: bytes = vectors.SECRET, *, head: bytes | None = None, **changes: Any) -> None:
    """Signs the bundle as it is now, as whoever holds the key could; nothing is checked. `changes` are lies in the predicate, `head` another
    tree-head.txt."""
    for name in seal.LATER:
        (folder / name).unlink(missing_ok=True)
    key, run_id = vectors.key(secret), sha256((folder / "anchor.json").read_bytes()).hexdigest()
    leaves = [merkle.leaf_hash(line) for line in (folder / "ledger.jsonl").read_bytes().split(b"\n")[:-1]]
    tree = note.head_of(run_id, len(leaves), merkle.root_of(leaves))
    (folder / "tree-head.txt").write_bytes(head or note.sign_tree_head(tree, key))
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0] != "views")
    subjects = {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}
    parity = json.loads((folder / "parity.json").read_bytes())["parity"]
    frozen = json.loads((folder / "anchor.json").read_bytes())
    predicate = {
        "run_id": run_id, "tree_head": {"origin": tree.origin, "size": tree.size, "root": tree.root.hex()}, "contract": frozen["contract"],
        "checkpoint": frozen["checkpoint"], "parity": parity, "weights": "headers", "formation": "0.1.0",
    }  # fmt: skip
    (folder / "attestation.json").write_bytes(envelope.make(envelope.Statement(envelope.RUN, subjects, predicate | changes), key))


def later(folder: Path, name: str, kind: str, *, secret: bytes = vectors.SECRET, **changes: Any) -> None:
    """audit.json or certification.json, as the commands that make them would sign it"""
    attestation = (folder / "attestation.json").read_bytes()
    run = envelope.read(attestation, envelope.RUN).statement.predicate
    result = audit_result(folder) if kind == envelope.AUDIT else dict(certification.EXAMPLE)
    predicate = {"formation": "0.1.0", "outcome": "passed", "result": result, "tree_head": run["tree_head"]} | changes
    subjects = {"attestation.json": sha256(attestation).hexdigest()}
    (folder / name).write_bytes(envelope.make(envelope.Statement(kind, subjects, predicate), vectors.key(secret)))


def audit_result(folder: Path) -> dict[str, Any]:
    """Of one cell of the ledger"""
    lines = [json.loads(line) for line in (folder / "ledger.jsonl").read_bytes().splitlines()]
    layers = len({line["slot"] for line in lines if line["slot"].startswith("layer ")})
    return audited.example(1 + lines[-1]["position"], layers, sum(line["slot"] == "token" for line in lines))


# ---- breaking one


def edit_lines(folder: Path, edit: Callable[[list[Line]], list[Line] | None]) -> None:
    """Decodes the ledger, changes it, and writes it again in canonical form; not signed"""
    lines = [json.loads(line) for line in (folder / "ledger.jsonl").read_bytes().splitlines()]
    lines = edit(lines) or lines
    (folder / "ledger.jsonl").write_bytes(b"".join(canonical.encode(line) + b"\n" for line in lines))


def edit_document(folder: Path, name: str, edit: Callable[[Any], None]) -> None:
    value = json.loads((folder / name).read_bytes())
    edit(value)
    write(folder, name, value)


def ulp_more(row: bytes, i: int = 0) -> bytes:
    """Number `i` of a row one binary32 step away"""
    (bits,) = struct.unpack_from("<I", row, 4 * i)
    return row[: 4 * i] + struct.pack("<I", bits ^ 1) + row[4 * i + 4 :]
