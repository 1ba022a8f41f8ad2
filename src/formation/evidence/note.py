"""Signed notes (C2SP signed-note v1) and, as such a note, the signed tree head of a ledger (C2SP tlog-checkpoint).

    formation-ledger.dev/run/9f86…0a08          origin: this prefix and the run_id
    76                                          size: lines of the ledger
    hUd8kzMt+lpcKJg2XCpQVaaFNA4PzqGR6…          base64 of its root (RFC 9162)
                                                an empty line
    — formation-ledger.dev/run/9f86… NnugSz…    base64 of key id | signature over everything before the empty line

The key id is the first four bytes of SHA-256(name | LF | 0x01 | public key); the key's name is the origin. A tree head of a ledger has exactly
one signature and no extension lines, which is narrower than C2SP. The same run recorded at another capture level is another tree under the
same origin: its first line says which.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from formation.evidence.keys import SIGNATURE_BYTES, BadSignature, PrivateKey, PublicKey
from formation.evidence.strict import Refused, count, from_base64, to_base64
from formation.ledger import canonical
from formation.ledger.merkle import HASH_BYTES

ORIGIN = "formation-ledger.dev/run/"
NOTE_BYTES, MOST_SIGNATURES = 1 << 16, 16
ED25519 = b"\x01"
ID_BYTES = 4
NAME = re.compile(r"[^\s+]+")


@dataclass(frozen=True)
class Signature:
    name: str
    data: bytes  # key id | signature


@dataclass(frozen=True)
class Note:
    """A text that ends in LF, and who says they signed it: nothing is verified yet."""

    text: str
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        lines = (f"— {s.name} {to_base64(s.data)}\n" for s in self.signatures)
        return f"{self.text}\n{''.join(lines)}".encode()

    def verify(self, name: str, key: PublicKey) -> None:
        """Returns if `key` under `name` signed the text. Signatures of others are not looked at. Raises BadSignature."""
        own = [s.data[ID_BYTES:] for s in self.signatures if s.name == name and s.data[:ID_BYTES] == key_id(name, key)]
        if not own:
            raise BadSignature(f"note: expected a signature by {name} with key {key.fingerprint}, got none")
        for signature in own:
            key.verify(signature, self.text.encode())


def key_id(name: str, key: PublicKey) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + key.data).digest()[:ID_BYTES]


def sign(text: str, name: str, key: PrivateKey) -> bytes:
    """The note over `text`, which ends in LF, signed once."""
    data = key_id(name, key.public) + key.sign(text.encode())
    return Note(text, (Signature(name, data),)).encode()


def read_note(data: bytes, check: str = "note") -> Note:
    """Strictly: the bytes are those that the note is written as. Verifies nothing. Raises Refused, and nothing else, on any bytes."""
    if len(data) > NOTE_BYTES:
        raise Refused(check, f"note: expected at most {NOTE_BYTES} bytes, got {len(data)}")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(check, "note: expected UTF-8, got something else") from None
    if any(c < " " and c != "\n" for c in whole):
        raise Refused(check, "note: expected no control characters but LF, got one")
    text, found, signatures = whole.rpartition("\n\n")
    lines = signatures.split("\n")
    if not found or not text or lines.pop() or not 1 <= len(lines) <= MOST_SIGNATURES:
        raise Refused(check, f"note: expected a text, an empty line and 1 to {MOST_SIGNATURES} lines of signatures, got something else")
    return Note(text + "\n", tuple(_signature(line, check) for line in lines))


def _signature(line: str, check: str) -> Signature:
    dash, name, encoded, *more = [*line.split(" "), "", ""]
    if dash != "—" or not NAME.fullmatch(name) or any(more):
        raise Refused(check, f"note: expected a signature as '— NAME BASE64', got {canonical.quoted(line)}")
    data = from_base64(check, "note, signature", encoded)
    if len(data) <= ID_BYTES:
        raise Refused(check, f"note, signature: expected a key id of {ID_BYTES} bytes and a signature, got {len(data)} bytes")
    return Signature(name, data)


# ---- tree heads


@dataclass(frozen=True)
class TreeHead:
    origin: str
    size: int
    root: bytes  # [32]

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{to_base64(self.root)}\n"

    @property
    def run_id(self) -> str:
        return self.origin.removeprefix(ORIGIN)


def head_of(run_id: str, size: int, root: bytes) -> TreeHead:
    return TreeHead(ORIGIN + run_id, size, root)


def sign_tree_head(head: TreeHead, key: PrivateKey) -> bytes:
    return sign(head.text, head.origin, key)


def read_tree_head(data: bytes, key: PublicKey) -> TreeHead:
    """The head of a ledger's tree, signed by `key` alone. Raises Refused (check `tree-head`) and BadSignature."""
    note = read_note(data, "tree-head")
    head = parse_head(note.text)
    if not re.fullmatch(re.escape(ORIGIN) + "[0-9a-f]{64}", head.origin):
        raise Refused("tree-head", f"tree head: expected origin {ORIGIN} and a run_id, got {canonical.quoted(head.origin)}")
    if len(note.signatures) != 1 or len(note.signatures[0].data) != ID_BYTES + SIGNATURE_BYTES:
        raise Refused("tree-head", f"tree head: expected one Ed25519 signature, got {len(note.signatures)} signatures")
    note.verify(head.origin, key)
    return head


def parse_head(text: str) -> TreeHead:
    """Of any log, not only of ledgers. Raises Refused."""
    lines = text.split("\n")
    if len(lines) != 4 or not lines[0] or lines[3]:
        raise Refused("tree-head", "tree head: expected three lines, origin, size and root, got something else")
    origin, size, root = lines[:3]
    return TreeHead(origin, count("tree-head", "tree head, size", size), from_base64("tree-head", "tree head, root", root, HASH_BYTES))
