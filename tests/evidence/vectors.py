"""Makes tests/vectors/evidence/: inputs with the verdict that every implementation must give, Python's and the page's.

    python -m tests.evidence.vectors        writes them; a test says whether the files are what this makes

A verdict is `holds`, or the name of the check that must refuse. Everything follows from two fixed keys, so files are the same on each machine.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.evidence import edwards
from tests.evidence.edwards import BASE, L, P, add, encode, times

from formation.evidence import envelope, note, receipt
from formation.evidence.keys import PrivateKey, PublicKey
from formation.ledger import canonical, merkle

FOLDER = Path(__file__).parents[1] / "vectors" / "evidence"
SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")  # RFC 8032, 7.1, test 1
OTHER_SECRET = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")  # test 2
RFC_8032 = [  # public key, message, signature
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
]  # fmt: skip
Case = dict[str, str]


@cache
def key(secret: bytes = SECRET) -> PrivateKey:
    private = Ed25519PrivateKey.from_private_bytes(secret)
    return PrivateKey(PublicKey(private.public_key().public_bytes_raw()), private)


# ---- Ed25519


def ed25519_cases() -> Iterator[Case]:
    for number, (public, message, signature) in enumerate(RFC_8032, 1):
        yield signed(f"RFC 8032 test {number}", *map(bytes.fromhex, (public, message, signature)), "holds")
    yield from small_keys()
    yield from other_encodings_of_keys()
    yield from small_r()
    yield from scalars()
    yield from mixed_order()


def small_keys() -> Iterator[Case]:
    """Forged by anyone: under a key T of small order, R = [s]B - [k]T holds for some message."""
    for number, point in enumerate(edwards.small_order()):
        yield signed(f"a key of small order, [{number}]T, and a forgery under it", encode(point), *forge(point, encode(point)), "key")


def forge(point: edwards.Point, public: bytes, s: int = 1234567) -> tuple[bytes, bytes]:
    for trial in count():
        message = b"anyone signs this %d" % trial
        r = encode(add(times(s, BASE), edwards.small_order()[trial % 8]))
        k = edwards.challenge(r, public, message)
        if add(edwards.decode(r) or edwards.ZERO, times(k % 8, point)) == times(s, BASE):
            return message, r + s.to_bytes(32, "little")
    raise AssertionError


def other_encodings_of_keys() -> Iterator[Case]:
    """y of p or more, with both signs; and x = 0 with its sign set. A forgery where the point is of small order, else an honest signature."""
    encodings = [(y, sign) for y in range(P, 2**255) for sign in (0, 1)] + [(1, 1), (P - 1, 1)]
    for y, sign in encodings:
        public = (y | sign << 255).to_bytes(32, "little")
        point = edwards.decode(public)
        small = point is not None and times(8, point) == edwards.ZERO
        message, signature = forge(point, public) if point and small else (b"", bytes.fromhex(RFC_8032[0][2]))
        named = f"p + {y - P}" if y >= P else "1" if y == 1 else "p - 1"
        yield signed(f"a key in another encoding, y = {named}, sign {sign}", public, message, signature, "key")


def small_r() -> Iterator[Case]:
    """R of small order by the owner of a key aB + T, chosen so that R + [k]A = [ka]B: the bare equation holds."""
    points, a = edwards.small_order(), 987654321
    for number, r in enumerate(points):
        owner = encode(times(a, BASE) if r == edwards.ZERO else add(times(a, BASE), points[1]))
        encodings = {"": encode(r)}
        if r[1] + P < 2**255:
            encodings[", y + p"] = (r[1] + P | (r[0] & 1) << 255).to_bytes(32, "little")
        if r[0] == 0:
            encodings[", sign of 0"] = (r[1] | 1 << 255).to_bytes(32, "little")
        for how, data in encodings.items():
            message, signature = sign_with_r(owner, a, r, data)
            yield signed(f"R of small order, [{number}]T{how}", owner, message, signature, "signature")


def sign_with_r(owner: bytes, a: int, r: edwards.Point, data: bytes) -> tuple[bytes, bytes]:
    point = edwards.decode(owner) or edwards.ZERO
    torsion = add(point, times(L - a, BASE))  # (A - aB)
    for trial in count():
        message = b"R is small %d" % trial
        k = edwards.challenge(data, owner, message)
        if add(r, times(k % 8, torsion)) == edwards.ZERO:
            return message, data + (k * a % L).to_bytes(32, "little")
    raise AssertionError


def scalars() -> Iterator[Case]:
    public, message, signature = (bytes.fromhex(h) for h in RFC_8032[1])
    s = int.from_bytes(signature[32:], "little")
    for multiple in range(1, 16):
        yield signed(f"S + {multiple} L", public, message, signature[:32] + (s + multiple * L).to_bytes(32, "little"), "signature")
    for name, value in (("S = L", L), ("S = L - 1", L - 1), ("S = 0", 0), ("S = 2^256 - 1", 2**256 - 1)):
        yield signed(name, public, message, signature[:32] + value.to_bytes(32, "little"), "signature")
    yield signed("a signature cut short", public, message, signature[:63], "signature")
    yield signed("a signature with a byte more", public, message, signature + b"\0", "signature")
    yield signed("an empty signature", public, message, b"", "signature")
    yield signed("a key cut short", public[:31], message, signature, "key")
    yield signed("a key off the curve", (2).to_bytes(32, "little"), message, signature, "key")


def mixed_order() -> Iterator[Case]:
    """The owner of aB + T signs: for some messages only the equation with the cofactor holds, which is not asked here."""
    a, r = 987654321, 192837465
    owner, point = encode(add(times(a, BASE), edwards.small_order()[1])), encode(times(r, BASE))
    for wanted, name in ((0, "with and without the cofactor"), (1, "only with the cofactor")):
        trial = next(i for i in count() if edwards.challenge(point, owner, b"mixed %d" % i) % 8 == wanted)
        message = b"mixed %d" % trial
        s = (r + edwards.challenge(point, owner, message) * a) % L
        yield signed(f"a key of mixed order, {name}", owner, message, point + s.to_bytes(32, "little"), "signature" if wanted else "holds")


def signed(case: str, public: bytes, message: bytes, signature: bytes, verdict: str) -> Case:
    return {"case": case, "public_key": public.hex(), "message": message.hex(), "signature": signature.hex(), "verdict": verdict}


# ---- tree heads, attestations and receipts: whole files

RUN_ID = "0e" * 32


def ledger(lines: int = 11) -> list[bytes]:
    rest: dict[str, Any] = {"run_id": RUN_ID, "kind": "generated", "measured": {}, "derived": {}}
    return [canonical.encode({**rest, "position": i // 4, "slot": f"layer {i % 4}"}) for i in range(lines)]


def head_of(lines: list[bytes], run_id: str = RUN_ID) -> note.TreeHead:
    return note.head_of(run_id, len(lines), merkle.root_of(map(merkle.leaf_hash, lines)))


def tree_head() -> bytes:
    return note.sign_tree_head(head_of(ledger()), key())


def attestation(secret: bytes = SECRET, **changes: Any) -> bytes:
    subjects = {"anchor.json": "ab" * 32, "rows/00000000.safetensors": "cd" * 32}
    statement = {"predicate_type": envelope.RUN, "subjects": subjects, "predicate": {"n": 1}}
    return envelope.make(envelope.Statement(**{**statement, **changes}), key(secret))


def a_receipt(index: int = 6, lines: int = 11, run_id: str = RUN_ID) -> bytes:
    leaves = ledger(lines)
    signed_head = note.sign_tree_head(head_of(leaves, run_id), key())
    path = merkle.inclusion_path(map(merkle.leaf_hash, leaves), index, lines)
    return receipt.encode(json.loads(leaves[index]), index, path, signed_head, key().public)


def resigned_head(text: str, name: str = note.ORIGIN + RUN_ID) -> bytes:
    return note.sign(text, name, key())


def tree_head_cases() -> Iterator[Case]:
    good = tree_head()
    head = head_of(ledger())
    root, lines = note.to_base64(head.root), good.decode().split("\n")
    other = note.sign_tree_head(head, key(OTHER_SECRET))
    yield whole("a tree head", good, "holds")
    yield whole("signed by another key", other, "signature")
    yield whole("signed by two keys", good + other.split(b"\n\n")[1], "tree-head")
    yield whole("signed twice by one key", good + good.split(b"\n\n")[1], "tree-head")
    yield whole("no signature", good.split(b"\n\n")[0] + b"\n\n", "tree-head")
    yield whole("no empty line", good.replace(b"\n\n", b"\n"), "tree-head")
    yield whole("no LF at the end", good[:-1], "tree-head")
    yield whole("CRLF", good.replace(b"\n", b"\r\n"), "tree-head")
    yield whole("a byte-order mark", b"\xef\xbb\xbf" + good, "tree-head")
    yield whole("not UTF-8", good.replace(b"\xe2\x80\x94", b"\xe2\x80"), "tree-head")
    yield whole("a hyphen for the dash", good.replace("—".encode(), b"-"), "tree-head")
    yield whole("an extension line", resigned_head(head.text + "more\n"), "tree-head")
    yield whole("no root", resigned_head("\n".join(lines[:2]) + "\n"), "tree-head")
    yield whole("a size with a leading zero", resigned_head(f"{head.origin}\n011\n{root}\n"), "tree-head")
    yield whole("a size with a plus", resigned_head(f"{head.origin}\n+11\n{root}\n"), "tree-head")
    yield whole("a size in other digits", resigned_head(f"{head.origin}\n١١\n{root}\n"), "tree-head")
    yield whole("a size of 2^53", resigned_head(f"{head.origin}\n{2**53}\n{root}\n"), "tree-head")
    yield whole("a root of 31 bytes", resigned_head(f"{head.origin}\n11\n{note.to_base64(head.root[:31])}\n"), "tree-head")
    yield whole("a root in another base64", resigned_head(f"{head.origin}\n11\n{root.rstrip('=')}\n"), "tree-head")
    yield whole("another log's origin", resigned_head(f"example.com/log\n11\n{root}\n", "example.com/log"), "tree-head")
    yield whole("an origin without a run", resigned_head(f"{note.ORIGIN}\n11\n{root}\n", note.ORIGIN), "tree-head")
    yield whole("a key name that is not the origin", resigned_head(head.text, note.ORIGIN + "11" * 32), "signature")
    yield whole("another size under the old signature", good.replace(b"\n11\n", b"\n12\n"), "signature")


def attestation_cases() -> Iterator[Case]:
    good = attestation()
    value = json.loads(good)
    yield whole("an attestation", good, "holds")
    yield whole("not canonical", good.replace(b",", b", ", 1), "envelope")
    yield whole("another media type", edited(value, "mediaType", envelope.MEDIA_TYPE.replace("0.3", "0.2")), "envelope")
    yield whole("a field more", edited(value, "more", 1), "envelope")
    yield whole("another hint", edited(value, "verificationMaterial", {"publicKey": {"hint": key(OTHER_SECRET).public.fingerprint}}), "envelope")
    yield whole("a certificate instead of a key", edited(value, "verificationMaterial", {"certificate": {"rawBytes": ""}}), "envelope")
    sealed = value["dsseEnvelope"]
    signature = sealed["signatures"][0]
    yield whole("no signature", in_envelope(value, signatures=[]), "envelope")
    yield whole("two signatures", in_envelope(value, signatures=[signature, signature]), "envelope")
    yield whole("a garbage signature", in_envelope(value, signatures=[{**signature, "sig": note.to_base64(bytes(64))}]), "signature")
    yield whole("another keyid", in_envelope(value, signatures=[{**signature, "keyid": "sha256:" + "00" * 32}]), "envelope")
    yield whole("another payload type", in_envelope(value, payloadType="text/plain"), "envelope")
    yield whole("URL-safe base64", in_envelope(value, payload=base64.urlsafe_b64encode(b"\xff\xfe\xfd").decode()), "envelope")
    yield whole("the signature of another statement", in_envelope(json.loads(attestation(predicate={"n": 2})), signatures=[signature]), "signature")
    yield whole("a statement of another kind", attestation(predicate_type=envelope.AUDIT), "statement")
    yield whole("no subject", attestation(subjects={}), "statement")
    for name in ("../anchor.json", "/anchor.json", "rows//a", ".anchor.json", "a\\b", "Ａ.json"):
        yield whole(f"a subject named {name}", attestation(subjects={name: "ab" * 32}), "statement")
    yield whole("a digest in capitals", attestation(subjects={"anchor.json": "AB" * 32}), "statement")
    for name, change in statement_changes():
        yield whole(name, resealed(change), "statement")
    yield whole("a signer of small order", resealed({"predicate": {"n": 1, "signer": note.to_base64(encode(edwards.ZERO))}}), "key")


def statement_changes() -> Iterator[tuple[str, dict[str, Any]]]:
    one = {"digest": {"sha256": "ab" * 32}, "name": "anchor.json"}
    two = {"digest": {"sha256": "ab" * 32}, "name": "contract.json"}
    yield "an older statement type", {"_type": "https://in-toto.io/Statement/v0.1"}
    yield "subjects out of order", {"subject": [two, one]}
    yield "a subject twice", {"subject": [one, one]}
    yield "another hash as well", {"subject": [{**one, "digest": {"sha256": "ab" * 32, "sha1": "ab" * 20}}]}
    yield "a subject without a name", {"subject": [{"digest": one["digest"]}]}
    yield "subjects that are no list", {"subject": one}
    yield "no signer", {"predicate": {"n": 1}}
    yield "a predicate that is no object", {"predicate": []}
    yield "a field more in the statement", {"more": None}


def resealed(change: dict[str, Any]) -> bytes:
    """The attestation with another payload, signed by the right key."""
    value = json.loads(attestation())
    statement = json.loads(base64.b64decode(value["dsseEnvelope"]["payload"]))
    payload = canonical.encode({**statement, **change})
    signature = {"keyid": key().public.fingerprint, "sig": note.to_base64(key().sign(envelope.pae(envelope.PAYLOAD_TYPE, payload)))}
    return in_envelope(value, payload=note.to_base64(payload), signatures=[signature])


def in_envelope(value: dict[str, Any], **changes: Any) -> bytes:
    return edited(value, "dsseEnvelope", {**value["dsseEnvelope"], **changes})


def edited(value: dict[str, Any], name: str, item: Any) -> bytes:
    return canonical.encode({**value, name: item}, limits=canonical.DOCUMENT)


def receipt_cases() -> Iterator[Case]:
    good = a_receipt()
    lines = good.decode().split("\n")
    yield whole("a receipt", good, "holds")
    yield whole("of the only line", a_receipt(0, 1), "holds")
    yield whole("of the last line of an odd tree", a_receipt(10), "holds")
    yield whole("another version", good.replace(b"@v1", b"@v2", 1), "receipt")
    yield whole("no extra", "\n".join([lines[0], *lines[2:]]).encode(), "receipt")
    yield whole("an index with a leading zero", good.replace(b"index 6", b"index 06"), "receipt")
    yield whole("a negative index", good.replace(b"index 6", b"index -6"), "receipt")
    yield whole("another index", good.replace(b"index 6", b"index 5"), "inclusion")
    yield whole("an index beyond the tree", good.replace(b"index 6", b"index 11"), "inclusion")
    yield whole("a path cut short", "\n".join(lines[:3] + lines[4:]).encode(), "inclusion")
    yield whole("a longer path", "\n".join(lines[:4] + lines[3:]).encode(), "inclusion")
    yield whole("a path out of order", "\n".join([*lines[:3], lines[4], lines[3], *lines[5:]]).encode(), "inclusion")
    yield whole("a path of 65 hashes", "\n".join([*lines[:3], *[lines[3]] * 65, *lines[7:]]).encode(), "receipt")
    yield whole("no tree head", good.split(b"\n\n")[0], "receipt")
    yield whole("the line of another receipt", "\n".join([lines[0], a_receipt(7).decode().split("\n")[1], *lines[2:]]).encode(), "inclusion")
    yield whole("a line of another run in this tree", a_receipt(run_id="0f" * 32), "run-id")
    yield whole("a root under which a node passes for a leaf", node_for_leaf(), "receipt")
    yield whole("a line of other fields in its own tree", alone({**json.loads(ledger()[0]), "more": 1}), "receipt")
    yield whole("a line without a kind in its own tree", alone({"run_id": RUN_ID, "position": 0, "slot": "embed"}), "receipt")
    yield whole("another key in extra", with_extra(good, "public_key", key(OTHER_SECRET).public.text), "signature")
    yield whole("a key of small order in extra", with_extra(good, "public_key", note.to_base64(encode(edwards.ZERO))), "key")
    yield whole("a field more in extra", with_extra(good, "more", 1), "receipt")
    yield whole("CRLF", good.replace(b"\n", b"\r\n"), "receipt")
    yield whole("text after the end", good + b"more\n", "tree-head")
    yield whole("nothing", b"", "receipt")


def with_extra(data: bytes, name: str, item: Any) -> bytes:
    lines = data.decode().split("\n")
    extra = json.loads(base64.b64decode(lines[1].removeprefix("extra ")))
    lines[1] = "extra " + note.to_base64(canonical.encode({**extra, name: item}, limits=receipt.EXTRA))
    return "\n".join(lines).encode()


def alone(line: dict[str, Any]) -> bytes:
    """A receipt for the one line of a ledger, in order but for the line itself."""
    signed_head = note.sign_tree_head(head_of([canonical.encode(line)]), key())
    return receipt.encode(line, 0, [], signed_head, key().public)


def node_for_leaf() -> bytes:
    """Second preimage: the two halves of the tree given as one leaf of a tree of one."""
    leaves = list(map(merkle.leaf_hash, ledger()))
    halves = merkle.root_of(leaves[:8]) + merkle.root_of(leaves[8:])
    signed_head = note.sign_tree_head(note.head_of(RUN_ID, 1, merkle.root_of(leaves)), key())
    return with_extra(receipt.encode({}, 0, [], signed_head, key().public), "line", halves.hex())


def whole(case: str, data: bytes, verdict: str) -> Case:
    return {"case": case, "data": base64.b64encode(data).decode(), "verdict": verdict}


FILES = {"ed25519": ed25519_cases, "tree-heads": tree_head_cases, "attestations": attestation_cases, "receipts": receipt_cases}


def text_of(name: str) -> str:
    head = {"public_key": key().public.text} if name == "tree-heads" else {"predicate_type": envelope.RUN} if name == "attestations" else {}
    return json.dumps({**head, "cases": list(FILES[name]())}, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (FOLDER / f"{name}.json").write_text(text_of(name))
