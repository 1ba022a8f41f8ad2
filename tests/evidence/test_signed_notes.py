"""C2SP signed notes and checkpoints: the examples of the specifications, and that no bit of a signed tree head can change."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evidence import vectors

from formation.evidence import note
from formation.evidence.keys import BadSignature
from formation.evidence.strict import Refused

ITALIAN = """Ognuno sta solo sul cuor della terra
trafitto da un raggio di sole:

ed è subito sera.

— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=
"""  # C2SP signed-note, the example at its top
SOFA = """example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
"""  # C2SP tlog-checkpoint, the example at its top


def test_the_examples_of_the_specifications_are_read_and_written_back() -> None:
    for text in (ITALIAN, SOFA):
        assert text.encode() == note.read_note(text.encode()).encode()


def test_a_text_may_hold_empty_lines_since_the_last_one_ends_it() -> None:
    found = note.read_note(ITALIAN.encode())
    assert found.text.endswith("\n\ned è subito sera.\n")
    assert ["quasimodo.example/salvatore"] == [s.name for s in found.signatures]
    assert [4 + 64] == [len(s.data) for s in found.signatures]


def test_the_example_checkpoint_is_read() -> None:
    head = note.parse_head(note.read_note(SOFA.encode()).text)
    assert ("example.com/behind-the-sofa", 20852163) == (head.origin, head.size)
    assert base64.b64decode("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=") == head.root


def test_a_key_id_is_four_bytes_of_a_hash_over_name_type_and_key() -> None:
    public = vectors.key().public
    assert hashlib.sha256(b"example.com/log\n\x01" + public.data).digest()[:4] == note.key_id("example.com/log", public)


def test_signatures_of_others_beside_a_known_one_are_not_looked_at() -> None:
    own = note.sign("text\n", "example.com/me", vectors.key())
    stranger = f"— example.com/you {base64.b64encode(bytes(20)).decode()}\n".encode()
    note.read_note(own + stranger).verify("example.com/me", vectors.key().public)
    with pytest.raises(BadSignature):
        note.read_note(own.split(b"\n\n")[0] + b"\n\n" + stranger).verify("example.com/me", vectors.key().public)


def test_a_second_signature_of_the_same_key_must_hold_as_well() -> None:
    own = note.sign("text\n", "example.com/me", vectors.key())
    wrong = note.sign("another\n", "example.com/me", vectors.key()).split(b"\n\n")[1]
    with pytest.raises(BadSignature):
        note.read_note(own + wrong).verify("example.com/me", vectors.key().public)


def test_sixteen_signatures_are_read_and_seventeen_refused() -> None:
    own = note.sign("text\n", "example.com/me", vectors.key())
    line = own.split(b"\n\n")[1]
    assert 16 == len(note.read_note(own + line * 15).signatures)
    with pytest.raises(Refused, match="1 to 16"):
        note.read_note(own + line * 16)


NO_SIGNATURES = {
    "a plus": "— a+b AAAAAAA=",
    "no name": "—  AAAAAAA=",
    "a Unicode space": "— a\u00a0b AAAAAAA=",
    "a third word": "— a AAAAAAA= b",
    "a hyphen": "- a AAAAAAA=",
    "no padding": "— a AAAAAAA",
    "spare bits": "— a AAAAAAB=",
    "a key id only": "— a AAAAAA==",
    "no signature": "— a",
    "no space": "—a AAAAAAA=",
}


@pytest.mark.parametrize("line", list(NO_SIGNATURES.values()), ids=list(NO_SIGNATURES))
def test_a_malformed_signature_line_is_refused(line: str) -> None:
    with pytest.raises(Refused) as refusal:
        note.read_note(f"text\n\n{line}\n".encode())
    assert "note" == refusal.value.check


@pytest.mark.parametrize("character", ["\t", "\r", "\x00", "\x1b"], ids=["tab", "CR", "NUL", "escape"])
def test_control_characters_are_refused(character: str) -> None:
    with pytest.raises(Refused, match="control"):
        note.read_note(f"te{character}xt\n\n— a AAAAAAA=\n".encode())


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300) | st.text(alphabet="\n— aA=+0", max_size=60).map(str.encode))
def test_any_bytes_are_a_note_that_writes_them_back_or_are_refused(data: bytes) -> None:
    try:
        found = note.read_note(data)
    except Refused:
        return
    assert data == found.encode()


def test_no_flipped_bit_of_a_tree_head_is_accepted() -> None:
    data = vectors.tree_head()
    assert vectors.head_of(vectors.ledger()) == note.read_tree_head(data, vectors.key().public)
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Refused) as refusal:
            note.read_tree_head(bytes(changed), vectors.key().public)
        assert refusal.value.check in ("tree-head", "signature")
