"""Attacks on who signed what: envelope, statement, key, signature, tree head, and files that are not what was signed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from formation.certify.attack import BUNDLE, KEY, NOTHING, OTHER_BUNDLE, OTHER_KEY, Group
from formation.certify.forgery import ATTESTATION, TREE_HEAD, Forgery, secret_of
from formation.evidence import envelope, note
from formation.evidence.keys import SPKI, L
from formation.evidence.strict import to_base64
from formation.ledger import canonical, merkle

GROUP = Group("signature")
attack = GROUP.attack
BASE = (0x6666666666666666666666666666666666666666666666666666666666666658).to_bytes(32, "little")  # the generator of RFC 8032
IDENTITY = (1).to_bytes(32, "little")
IDENTITY_AGAIN = (2**255 - 19 + 1).to_bytes(32, "little")  # y = p + 1: the same point in an encoding that is none
ANYONES = BASE + IDENTITY  # R = B, S = 1: holds of every message under the identity as key, for [S]B = R + [k]0


def file(f: Forgery, change: Callable[[Any], object]) -> None:
    f.edit(ATTESTATION, change)


def signatures(f: Forgery, change: Callable[[list[Any]], object]) -> None:
    file(f, lambda value: change(value["dsseEnvelope"]["signatures"]))


def payload(f: Forgery) -> bytes:
    found: bytes = envelope.read(f.files[ATTESTATION], envelope.RUN).payload
    return found


def wrap(data: bytes, public: bytes, signature: bytes, kind: str = envelope.PAYLOAD_TYPE) -> bytes:
    """The file around a payload, with whatever key and signature are given"""
    name = "sha256:" + hashlib.sha256(SPKI + public).hexdigest()
    inner = {"payload": to_base64(data), "payloadType": kind, "signatures": [{"keyid": name, "sig": to_base64(signature)}]}
    value = {"dsseEnvelope": inner, "mediaType": envelope.MEDIA_TYPE, "verificationMaterial": {"publicKey": {"hint": name}}}
    return canonical.encode(value, limits=canonical.DOCUMENT)


def restate(f: Forgery, change: Callable[[Any], object], kind: str = envelope.PAYLOAD_TYPE) -> None:
    """Another statement, signed by the right key"""
    value = canonical.decode(payload(f), limits=canonical.DOCUMENT)
    change(value)
    data = canonical.encode(value, limits=canonical.DOCUMENT)
    key = f.scene.key
    f.files[ATTESTATION] = wrap(data, key.public.data, key.sign(envelope.pae(kind, data)), kind)


# ---- the envelope


@attack(BUNDLE, "envelope")
def no_signature(f: Forgery) -> None:
    """the list of signatures is empty"""
    signatures(f, list.clear)


@attack(OTHER_KEY, "envelope")
def two_signatures(f: Forgery) -> None:
    """the right signature, and one by another key under the same key id"""
    extra = f.scene.other.sign(envelope.pae(envelope.PAYLOAD_TYPE, payload(f)))
    signatures(f, lambda s: s.append({**s[0], "sig": to_base64(extra)}))


@attack(BUNDLE, "envelope")
def short_signature(f: Forgery) -> None:
    """63 bytes of the signature"""
    signatures(f, lambda s: s[0].update(sig=to_base64(b"\1" * 63)))


@attack(BUNDLE, "envelope")
def other_media_type(f: Forgery) -> None:
    """the file claims an older Sigstore bundle format"""
    file(f, lambda v: v.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.1"))


@attack(KEY, "envelope")
def other_payload_type(f: Forgery) -> None:
    """signed as plain JSON, not as an in-toto statement"""
    restate(f, lambda v: None, "application/json")


@attack(BUNDLE, "envelope")
def key_id_of_another(f: Forgery) -> None:
    """the key id and the hint are another key's fingerprint"""
    other = f.scene.other.public.fingerprint
    signatures(f, lambda s: s[0].update(keyid=other))


@attack(BUNDLE, "envelope")
def payload_in_other_base64(f: Forgery) -> None:
    """the payload's base64 with a line break"""
    file(f, lambda v: v["dsseEnvelope"].update(payload=v["dsseEnvelope"]["payload"] + "\n"))


@attack(BUNDLE, "envelope")
def certificate_beside_the_key(f: Forgery) -> None:
    """verification material of another kind stands beside the key"""
    file(f, lambda v: v["verificationMaterial"].update(certificate={"rawBytes": "AAAA"}))


# ---- the statement


@attack(KEY, "envelope")
def other_predicate_type(f: Forgery) -> None:
    """a statement about an audit, where one about a run must be"""
    restate(f, lambda v: v.update(predicateType=envelope.AUDIT))


@attack(KEY, "envelope")
def older_statement_type(f: Forgery) -> None:
    """an in-toto Statement v0.1"""
    restate(f, lambda v: v.update(_type="https://in-toto.io/Statement/v0.1"))


@attack(KEY, "envelope")
def no_subjects(f: Forgery) -> None:
    """a statement about no file at all"""
    restate(f, lambda v: v.update(subject=[]))


@attack(KEY, "envelope")
def subject_by_weaker_digest(f: Forgery) -> None:
    """a subject with a SHA-1 beside its SHA-256"""
    restate(f, lambda v: v["subject"][0]["digest"].update(sha1="0" * 40))


@attack(KEY, "envelope")
def subject_twice(f: Forgery) -> None:
    """one file named twice, with two digests"""
    restate(f, lambda v: v["subject"].insert(0, {**v["subject"][0], "digest": {"sha256": "0" * 64}}))


@attack(KEY, "envelope")
def statement_without_signer(f: Forgery) -> None:
    """the statement does not name the key that signs it"""
    restate(f, lambda v: v["predicate"].pop("signer"))


# ---- key and signature


@attack(BUNDLE, "signature")
def garbage_signature(f: Forgery) -> None:
    """64 bytes that no key made"""
    signatures(f, lambda s: s[0].update(sig=to_base64(BASE + b"\1" * 32)))


@attack(BUNDLE, "signature")
def one_bit_of_the_signature(f: Forgery) -> None:
    """one bit of R is flipped"""
    at = f.scene.key.sign(envelope.pae(envelope.PAYLOAD_TYPE, payload(f)))
    signatures(f, lambda s: s[0].update(sig=to_base64(bytes([at[0] ^ 1]) + at[1:])))


@attack(BUNDLE, "signature")
def another_form_of_the_signature(f: Forgery) -> None:
    """S + L in place of S, which a lax verifier takes for the same signature"""
    found = f.scene.key.sign(envelope.pae(envelope.PAYLOAD_TYPE, payload(f)))
    s = int.from_bytes(found[32:], "little") + L
    signatures(f, lambda v: v[0].update(sig=to_base64(found[:32] + s.to_bytes(32, "little"))))


@attack(OTHER_BUNDLE, "signature")
def signature_of_another_bundle(f: Forgery) -> None:
    """a valid signature by the right key, over another statement"""
    other = f.scene.key.sign(envelope.pae(envelope.PAYLOAD_TYPE, payload(f) + b" "))
    signatures(f, lambda s: s[0].update(sig=to_base64(other)))


@attack(KEY, "signature")
def signature_without_its_encoding(f: Forgery) -> None:
    """the right key signs the payload, not its pre-authentication encoding"""
    bare = f.scene.key.sign(payload(f))
    signatures(f, lambda s: s[0].update(sig=to_base64(bare)))


@attack(OTHER_KEY, "signature")
def signed_by_another_in_the_signers_name(f: Forgery) -> None:
    """another key signs the statement that names the right one"""
    bare = f.scene.other.sign(envelope.pae(envelope.PAYLOAD_TYPE, payload(f)))
    signatures(f, lambda s: s[0].update(sig=to_base64(bare)))


def anyones(f: Forgery, public: bytes) -> None:
    """Everything signed under a key of small order, for which nobody needs a secret"""
    head = f.head()
    name = hashlib.sha256(head.origin.encode() + b"\n" + note.ED25519 + public).digest()[: note.ID_BYTES]
    f.files[TREE_HEAD] = note.Note(head.text, (note.Signature(head.origin, name + ANYONES),)).encode()
    stated = f.statement(head)
    subjects = [{"digest": {"sha256": digest}, "name": path} for path, digest in sorted(stated.subjects.items())]
    value = {"_type": envelope.STATEMENT_TYPE, "predicateType": envelope.RUN, "predicate": {**stated.predicate, "signer": to_base64(public)}}
    data = canonical.encode({**value, "subject": subjects}, limits=canonical.DOCUMENT)
    f.files[ATTESTATION] = wrap(data, public, ANYONES)


@attack(NOTHING, "signature")
def key_of_small_order(f: Forgery) -> None:
    """the key is the neutral point, under which one signature holds of every message"""
    anyones(f, IDENTITY)


@attack(NOTHING, "signature")
def key_of_small_order_in_another_encoding(f: Forgery) -> None:
    """the same point with y = p + 1"""
    anyones(f, IDENTITY_AGAIN)


@attack(NOTHING, "signature")
def key_that_is_no_point(f: Forgery) -> None:
    """the key is off the curve"""
    anyones(f, (2).to_bytes(32, "little"))


@attack(KEY, "signature")
def signature_with_r_of_small_order(f: Forgery) -> None:
    """the right key's owner signs with R = 0, so that one S serves as proof of no particular moment"""
    message = envelope.pae(envelope.PAYLOAD_TYPE, payload(f))
    secret = bytearray(hashlib.sha512(secret_of("signer", f.scene.seed)).digest()[:32])
    secret[0], secret[31] = secret[0] & 248, secret[31] & 127 | 64
    k = int.from_bytes(hashlib.sha512(IDENTITY + f.scene.key.public.data + message).digest(), "little")
    s = k * int.from_bytes(secret, "little") % L
    signatures(f, lambda v: v[0].update(sig=to_base64(IDENTITY + s.to_bytes(32, "little"))))


@attack(OTHER_KEY, "signer")
def everything_signed_by_another_key(f: Forgery) -> None:
    """tree head and statement made anew, consistently, by a key of the attacker's own"""
    f.seal(f.scene.other)


@attack(OTHER_KEY, "signer")
def edited_and_signed_by_another_key(f: Forgery) -> None:
    """a value is changed before everything is hashed and signed anew by the attacker's key"""
    f.edit("host.json", lambda v: v.update(cores=1 + v["cores"]))
    f.seal(f.scene.other)


# ---- the tree head


@attack(OTHER_KEY, "tree head")
def tree_head_by_another_key(f: Forgery) -> None:
    """the statement by the right key, the tree head by another"""
    f.files[TREE_HEAD] = note.sign_tree_head(f.head(), f.scene.other)
    f.attest()


@attack(KEY, "tree head")
def garbage_under_the_tree_head(f: Forgery) -> None:
    """the tree head's signature is none; the statement over it is signed"""
    head = f.head()
    name = note.key_id(head.origin, f.scene.key.public)
    f.files[TREE_HEAD] = note.Note(head.text, (note.Signature(head.origin, name + BASE + b"\1" * 32),)).encode()
    f.attest()


@attack(OTHER_KEY, "tree head")
def tree_head_with_two_signatures(f: Forgery) -> None:
    """a second signature under the tree head, by another key"""
    one, two = (note.read_note(note.sign_tree_head(f.head(), key)) for key in (f.scene.key, f.scene.other))
    f.files[TREE_HEAD] = note.Note(one.text, (*one.signatures, *two.signatures)).encode()
    f.attest()


@attack(KEY, "tree head")
def tree_head_of_another_run(f: Forgery) -> None:
    """the tree head's origin is another run's"""
    head = note.head_of("ab" * 32, f.head().size, f.head().root)
    f.files[TREE_HEAD] = note.sign_tree_head(head, f.scene.key)
    f.attest()


@attack(KEY, "tree head")
def tree_head_with_a_line_more(f: Forgery) -> None:
    """an extension line, which other readers of such notes would pass over"""
    head = f.head()
    f.files[TREE_HEAD] = note.sign(head.text + "and more\n", head.origin, f.scene.key)
    f.attest()


@attack(KEY, "tree head")
def size_with_a_leading_zero(f: Forgery) -> None:
    """the tree's size as 076"""
    head = f.head()
    f.files[TREE_HEAD] = note.sign(head.text.replace(f"\n{head.size}\n", f"\n0{head.size}\n"), head.origin, f.scene.key)
    f.attest()


@attack(BUNDLE, "tree head")
def rehashed_without_a_key(f: Forgery) -> None:
    """a line is changed, and root and digests with it; the signatures stay the old ones"""
    f.lines = [*f.lines[:-1], f.lines[-1].replace(b'"kind":"', b'"kind":" ')]
    old = note.read_note(f.files[TREE_HEAD])
    f.files[TREE_HEAD] = note.Note(f.head().text, old.signatures).encode()


# ---- the root


@attack(KEY, "root")
def wrong_root(f: Forgery) -> None:
    """the right key signs a root that is not the ledger's, everywhere"""
    f.seal(head=f.head(root=b"\7" * 32))


@attack(KEY, "root")
def size_one_more(f: Forgery) -> None:
    """the right key signs one line more than there are"""
    f.seal(head=f.head(size=len(f.lines) + 1))


@attack(KEY, "root")
def tree_without_leaf_prefix(f: Forgery) -> None:
    """the right key signs the root of a tree whose leaves are hashed as nodes are not told from them (no 0x00 in front)"""
    f.seal(head=f.head(root=merkle.root_of(hashlib.sha256(line).digest() for line in f.lines)))


@attack(BUNDLE, "root")
def last_leaf_twice(f: Forgery) -> None:
    """the last line again: a tree that pairs an odd leaf with itself would have the same root"""
    f.lines = [*f.lines, f.lines[-1]]


@attack(BUNDLE, "lines")
def nodes_as_leaves(f: Forgery) -> None:
    """the first two lines are replaced by one that spells the node over them"""
    first, second = (merkle.leaf_hash(line) for line in f.lines[:2])
    f.lines = [(b"\1" + first + second).replace(b"\n", b"\n\n"), *f.lines[2:]]


@attack(BUNDLE, "root")
def edited_line(f: Forgery) -> None:
    """one value of one line, nothing else"""
    line = f.line(f.scene.steps[0], "token")
    line["measured"]["id"] ^= 1
    f.put(line)


# ---- the files


@attack(BUNDLE, "subjects")
def edited_file(f: Forgery) -> None:
    """host.json says another machine; nothing is signed anew"""
    f.edit("host.json", lambda v: v.update(system="Linux, but another"))


@attack(BUNDLE, "subjects")
def flipped_row(f: Forgery) -> None:
    """one bit in rows/ is flipped; nothing is signed anew"""
    name = next((name for name in f.files if name.startswith("rows/")), "io.jsonl")
    f.files[name] = f.files[name][:-9] + bytes([f.files[name][-9] ^ 1]) + f.files[name][-8:]


@attack(KEY, "subjects")
def file_that_was_not_signed(f: Forgery) -> None:
    """the statement does not name host.json"""
    digests = f.statement(f.head()).subjects
    f.attest(subjects={name: digest for name, digest in digests.items() if name != "host.json"})


@attack(KEY, "subjects")
def signed_file_that_is_gone(f: Forgery) -> None:
    """the statement names a file of rows/ that is not there"""
    f.attest(subjects={**f.statement(f.head()).subjects, "rows/99999936.safetensors": "ab" * 32})


@attack(OTHER_BUNDLE, "subjects")
def attestation_of_another_bundle(f: Forgery) -> None:
    """a valid attestation by the right key, of a bundle whose host.json differs, beside this bundle's files"""
    other = f.scene.forgery()
    other.edit("host.json", lambda v: v.update(threads=v["threads"] + 1))
    other.seal()
    f.files[ATTESTATION] = other.files[ATTESTATION]


@attack(OTHER_BUNDLE, "subjects")
def swapped_files(f: Forgery) -> None:
    """host.json and parity.json change places"""
    f.files["host.json"], f.files["parity.json"] = f.files["parity.json"], f.files["host.json"]
