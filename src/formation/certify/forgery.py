"""The bundle under attack, in memory, and the tools that every attacker is given: the project's own hashing, canonical JSON and signing.

The copy is signed by a key made for the certification alone, which plays the part of the signer's own: an attacker "with the right key" holds
that one. So no forgery bears anybody's real signature, and a bundle can be certified by others than its signer. The key follows from the seed,
so that an attack can be repeated byte for byte; nobody trusts it. Verdicts that were made later are about the old seal and are left out.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from formation import __version__
from formation.certify.attack import NotApplicable
from formation.evidence import container, envelope, note, payloads, seal
from formation.evidence.keys import PrivateKey, PublicKey
from formation.evidence.strict import Refused
from formation.ledger import anchor, canonical, lines, merkle
from formation.ledger.anchor import Anchor
from formation.ledger.blocks import Layout, first_of, router_tensors, row_tensors
from formation.ledger.derive import position as derive_position

LEDGER, ATTESTATION, TREE_HEAD = "ledger.jsonl", seal.ATTESTATION, seal.TREE_HEAD
Line = dict[str, Any]
Files = Mapping[str, bytes]


def throwaway_key(purpose: str, seed: int) -> PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.from_private_bytes(secret_of(purpose, seed))
    return PrivateKey(PublicKey(private.public_key().public_bytes_raw()), private)


def secret_of(purpose: str, seed: int) -> bytes:
    return hashlib.sha256(f"formation certify {purpose} {seed}".encode()).digest()


class Scene:
    """The untouched copy, what is known of it, and the keys of the part. `files` are a verified bundle's."""

    def __init__(self, files: Files, seed: int = 0) -> None:
        self.seed = seed
        self.key, self.other = throwaway_key("signer", seed), throwaway_key("stranger", seed)
        self.frozen = anchor.decode(files["anchor.json"])
        self.lines = tuple(files[LEDGER].split(b"\n")[:-1])
        self.run = lines.read_run(canonical.decode(self.lines[0], limits=canonical.LINE))
        kept = {name: data for name, data in sorted(files.items()) if name not in seal.LATER}
        first = Forgery(self, kept)
        first.seal()
        self.files: Files = dict(sorted(first.files.items()))

    @cached_property
    def slots(self) -> Mapping[tuple[int, str], int]:
        """(position, slot) -> number of the line"""
        found = (canonical.decode(line, limits=canonical.LINE) for line in self.lines)
        return {(line["position"], line["slot"]): n for n, line in enumerate(found)}

    @cached_property
    def steps(self) -> tuple[int, ...]:
        return tuple(sorted(position for position, slot in self.slots if slot == "token"))

    @cached_property
    def inputs(self) -> tuple[int, ...]:
        """The id that each position reads"""
        formed = (canonical.decode(self.lines[self.slots[p, "token"]], limits=canonical.LINE)["measured"]["id"] for p in self.steps)
        ids = self.frozen.prompt_ids if self.frozen.scores else (*self.frozen.prompt_ids, *formed)
        return ids[:-1]

    def forgery(self) -> Forgery:
        return Forgery(self, dict(self.files))


@dataclass
class Forgery:
    """A copy that an attack changes. Beside its files, what else the attack asks of the judge: a nonce, a ZIP in their place, a folder changed
    on disk, a receipt, surroundings of the verifier's process."""

    scene: Scene
    files: dict[str, bytes]
    nonce: str | None = None
    archive: bytes | None = None
    on_disk: Callable[[Path], None] | None = None
    receipt: bytes | None = None
    flags: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    process: bool = False  # judged by a verifier of its own process
    shown: str = ""  # hostile text that `show` and `verify` must make inert

    # ---- documents

    def document(self, name: str) -> Any:
        return canonical.decode(self.files[name], limits=canonical.DOCUMENT)

    def write(self, name: str, value: Any) -> None:
        self.files[name] = canonical.encode(value, limits=canonical.DOCUMENT)

    def edit(self, name: str, change: Callable[[Any], object]) -> None:
        """`change` works in place"""
        value = self.document(name)
        change(value)
        self.write(name, value)

    def set_anchor(self, change: Callable[[Any], object]) -> None:
        """Another anchor, and its run_id in every line"""
        before = self.run_id
        self.edit("anchor.json", change)
        self.files[LEDGER] = self.files[LEDGER].replace(before.encode(), self.run_id.encode())

    @property
    def run_id(self) -> str:
        return self.frozen().run_id

    def frozen(self) -> Anchor:
        """The anchor, or the control's where an attack left none that can be read"""
        try:
            return anchor.decode(self.files["anchor.json"])
        except (KeyError, anchor.AnchorRefusal, canonical.CanonicalRefusal):
            return self.scene.frozen

    # ---- lines

    @property
    def lines(self) -> list[bytes]:
        return self.files.get(LEDGER, b"").split(b"\n")[:-1]

    @lines.setter
    def lines(self, found: Iterable[bytes]) -> None:
        self.files[LEDGER] = b"".join(line + b"\n" for line in found)

    def index(self, position: int, slot: str) -> int:
        return self.scene.slots[position, slot]

    def line(self, position: int, slot: str) -> Line:
        found: Line = canonical.decode(self.lines[self.index(position, slot)], limits=canonical.LINE)
        return found

    def put(self, *changed: Line) -> None:
        """Each in the place of the line of its position and slot"""
        found = self.lines
        for line in changed:
            found[self.index(line["position"], line["slot"])] = canonical.encode(line)
        self.lines = found

    def change(self, position: int, slot: str, **values: Any) -> None:
        """Values by field name, whatever their tag; those that follow from others stay as they are"""
        line = self.line(position, slot)
        for name, value in values.items():
            line[tag_of(line, name)][name] = value
        self.put(line)

    def step(self, position: int) -> dict[str, Line]:
        """Slot -> line of a step, in their order"""
        return {slot: self.line(position, slot) for (at, slot) in self.scene.slots if at == position}

    def derive(self, step: Mapping[str, Line]) -> None:
        """What follows from the values of a step is computed anew, as the recorder does, and all of it is put in place"""
        derive_position(list(step.values()), self.scene.run)
        self.put(*step.values())

    # ---- rows

    def layout(self, folder: str) -> Layout:
        shape, name = self.scene.run.shape, f"{folder}/00000000.safetensors"
        if name not in self.files:
            raise NotApplicable(f"the bundle has no {folder}/")
        if folder == "router":
            return Layout.of(router_tensors(shape.layers - shape.dense_layers, shape.experts))
        mode = "all" if b'"mlp_write.0"' in self.files[name][: 1 << 16] else "boundaries"
        return Layout.of(row_tensors(mode, shape.layers, shape.hidden))

    def row(self, folder: str, position: int, tensor: str, index: int) -> bytes:
        name, at, size = self._place(folder, position, tensor, index)
        return self.files[name][at : at + size]

    def set_row(self, folder: str, position: int, tensor: str, index: int, row: bytes) -> None:
        name, at, size = self._place(folder, position, tensor, index)
        if len(row) != size:
            raise ValueError(f"expected a row of {size} bytes, got {len(row)}")
        self.files[name] = self.files[name][:at] + row + self.files[name][at + size :]

    def _place(self, folder: str, position: int, tensor: str, index: int) -> tuple[str, int, int]:
        at, size = self.layout(folder).place(position, tensor, index)
        return f"{folder}/{first_of(position):08}.safetensors", at, size

    def drop_rows(self) -> None:
        """A bundle need not have any"""
        for name in [name for name in self.files if name.startswith(("rows/", "router/"))]:
            del self.files[name]

    # ---- signing

    def head(self, *, size: int | None = None, root: bytes | None = None) -> note.TreeHead:
        leaves = list(map(merkle.leaf_hash, self.lines))
        return note.head_of(self.run_id, len(leaves) if size is None else size, merkle.root_of(leaves) if root is None else root)

    def seal(self, key: PrivateKey | None = None, *, head: note.TreeHead | None = None, **predicate: Any) -> None:
        """Hashed and signed anew, by the right key unless another is given; `predicate` are lies in the statement"""
        key, head = key or self.scene.key, head or self.head()
        self.files[TREE_HEAD] = note.sign_tree_head(head, key)
        self.attest(key, head=head, **predicate)

    def attest(
        self, key: PrivateKey | None = None, *, head: note.TreeHead | None = None, subjects: Mapping[str, str] | None = None, **predicate: Any
    ) -> None:  # fmt: skip
        """The attestation alone, over the files as they are"""
        stated = self.statement(head or self.head(), subjects)
        made = {name: value for name, value in {**stated.predicate, **predicate}.items() if value is not None}
        self.files[ATTESTATION] = envelope.make(envelope.Statement(envelope.RUN, stated.subjects, made), key or self.scene.key)

    def statement(self, head: note.TreeHead, subjects: Mapping[str, str] | None = None) -> envelope.Statement:
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items() if name not in (ATTESTATION, *seal.VERDICTS)}
        predicate = seal.run_predicate(self.frozen(), head, self._parity(), self._weights())
        return envelope.Statement(envelope.RUN, digests if subjects is None else subjects, {**predicate, "formation": __version__})

    def _parity(self) -> str:
        try:
            return seal.parity_of(self.document("parity.json"))
        except (KeyError, Refused, canonical.CanonicalRefusal):
            return seal.parity_of(canonical.decode(self.scene.files["parity.json"], limits=canonical.DOCUMENT))

    def _weights(self) -> str:
        if container.TENSOR_DIGESTS not in self.files:
            return payloads.HEADERS
        try:
            names = [row["name"] for row in self.document("checkpoint.json")["tensor_table"]]
            return payloads.level(payloads.read(self.files[container.TENSOR_DIGESTS], self.frozen().tensor_table_root), names)
        except (KeyError, TypeError, Refused, canonical.CanonicalRefusal):
            return payloads.HEADERS


def tag_of(line: Line, name: str) -> str:
    for tag in ("measured", "derived"):
        if name in line[tag]:
            if isinstance(line[tag][name], dict):
                raise NotApplicable(f"{name} is absent: {line[tag][name].get('absent')}")
            return tag
    raise NotApplicable(f"{name} is not at this capture level")


def value_in(line: Line, name: str) -> Any:
    """Raises NotApplicable where the line has none"""
    return line[tag_of(line, name)][name]


def f32s(text: str) -> list[float]:
    return list(lines.vector(text))


def f32_text(values: Iterable[float]) -> str:
    found = list(values)
    return base64.b64encode(struct.pack(f"<{len(found)}f", *found)).decode()


def ulp(row: bytes, number: int = 0) -> bytes:
    """Number `number` of a row of binary32 one step away"""
    (bits,) = struct.unpack_from("<I", row, 4 * number)
    return row[: 4 * number] + struct.pack("<I", bits ^ 1) + row[4 * number + 4 :]
