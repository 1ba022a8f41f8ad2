"""Keys: RFC 8032, the points that are refused, and the files in which keys live."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evidence import edwards, vectors

from formation.errors import EnvironmentFault
from formation.evidence import keys
from formation.evidence.keys import BadSignature, PublicKey
from formation.evidence.strict import Refused


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "formation"


# ---- signatures


@pytest.mark.parametrize("secret", [vectors.SECRET, vectors.OTHER_SECRET, bytes(32), b"\xff" * 32], ids=["test 1", "test 2", "zeros", "ones"])
def test_signing_agrees_with_rfc_8032_written_out(secret: bytes) -> None:
    key = vectors.key(secret)
    assert edwards.sign(secret, b"a message") == (key.public.data, key.sign(b"a message"))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 511))
def test_no_flipped_bit_of_a_signature_verifies(message: bytes, bit: int) -> None:
    signature = bytearray(vectors.key().sign(message))
    vectors.key().public.verify(bytes(signature), message)
    signature[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadSignature) as refusal:
        vectors.key().public.verify(bytes(signature), message)
    assert "signature" == refusal.value.check


def test_no_flipped_bit_of_the_message_or_the_key_verifies() -> None:
    message, public = b"sixteen bytes ok", vectors.key().public.data
    signature = vectors.key().sign(message)
    for bit in range(128):
        with pytest.raises(BadSignature):
            vectors.key().public.verify(signature, flipped(message, bit))
    for bit in range(256):
        with pytest.raises(Refused):
            PublicKey(flipped(public, bit)).verify(signature, message)


def flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def test_the_five_numbers_of_the_check_are_the_ys_of_the_eight_small_points() -> None:
    points = edwards.small_order()
    assert 8 == len(set(points))
    assert keys.SMALL_ORDER == {y for _, y in points}
    assert {edwards.ZERO} == {edwards.times(8, point) for point in points}


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_a_key_is_accepted_exactly_if_it_is_a_canonical_point_of_large_order(data: bytes) -> None:
    point = edwards.decode(data)
    honest = point is not None and edwards.encode(point) == data and edwards.times(8, point) != edwards.ZERO
    try:
        PublicKey(data)
    except Refused as refusal:
        assert (False, "key") == (honest, refusal.check)
    else:
        assert honest


def test_the_fingerprint_is_that_of_the_subject_public_key_info() -> None:
    public = vectors.key().public
    spki = ed25519.Ed25519PublicKey.from_public_bytes(public.data).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert "sha256:" + hashlib.sha256(spki).hexdigest() == public.fingerprint
    assert public == PublicKey.read(public.text)


# ---- the user's key


def test_the_first_use_makes_a_key_that_only_its_owner_reads(config: Path) -> None:
    key = keys.load_or_create()
    assert config / "key.pem" == keys.key_path()
    assert 0o600 == stat.S_IMODE((config / "key.pem").stat().st_mode)
    assert 0o700 == stat.S_IMODE(config.stat().st_mode)
    assert b"-----BEGIN PRIVATE KEY-----" == (config / "key.pem").read_bytes().split(b"\n")[0]
    assert key.public == keys.load_or_create().public
    assert [config / "key.pem"] == list(config.iterdir())


def test_the_umask_does_not_open_the_key(config: Path) -> None:
    before = os.umask(0)
    try:
        keys.load_or_create()
    finally:
        os.umask(before)
    assert 0o600 == stat.S_IMODE((config / "key.pem").stat().st_mode)


def test_without_xdg_the_key_is_in_dot_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative/folder"):  # which the XDG specification says to ignore
        monkeypatch.setenv("XDG_CONFIG_HOME", value)
        assert tmp_path / ".config" / "formation" / "key.pem" == keys.key_path()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_is_refused_with_the_way_to_mend_it(config: Path, mode: int) -> None:
    keys.load_or_create()
    (config / "key.pem").chmod(mode)
    with pytest.raises(EnvironmentFault, match="owner alone") as fault:
        keys.load_or_create()
    assert f"chmod 600 {config / 'key.pem'}" in str(fault.value.hint)


def test_a_key_that_is_named_but_not_there_is_not_made(config: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="No such file"):
        keys.load_or_create(tmp_path / "typo.pem")
    assert not (tmp_path / "typo.pem").exists()


def test_a_new_key_never_replaces_one(config: Path) -> None:
    first = keys.load_or_create()
    with pytest.raises(FileExistsError):
        keys.create(keys.key_path())
    assert first.public == keys.load_or_create().public
    assert [config / "key.pem"] == list(config.iterdir())


def test_processes_that_start_together_use_one_key(config: Path) -> None:
    code = "from formation.evidence import keys; print(keys.load_or_create().public.text)"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert 1 == len({process.communicate()[0] for process in running})
    assert [0] * 4 == [process.returncode for process in running]


def written(key: ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_a_key_is_written_as_openssl_writes_it_and_read_back(private: bytes) -> None:
    data = written(ed25519.Ed25519PrivateKey.from_private_bytes(private))
    assert data == keys.to_pem(private)
    assert private == keys.from_pem(data)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.tuples(st.integers(0, 118), st.integers(0, 255))))
def test_no_other_bytes_are_read_as_a_key_of_that_form(other: bytes | tuple[int, int]) -> None:
    whole = keys.to_pem(bytes(range(32)))
    data = other if isinstance(other, bytes) else whole[: other[0]] + bytes([other[1]]) + whole[other[0] + 1 :]
    private = keys.from_pem(data)
    assert private is None or keys.to_pem(private) == data
    assert keys.from_pem(keys.to_pem(bytes(31))) is keys.from_pem(keys.to_pem(bytes(33))) is None


def test_a_key_in_another_form_of_pem_is_the_same_key(tmp_path: Path) -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    path = tmp_path / "key.pem"
    for data in (written(private), b"made by hand\n" + written(private), written(private).replace(b"\n", b"\r\n")):
        path.write_bytes(data)
        path.chmod(0o600)
        assert private.public_key().public_bytes_raw() == keys.load(path).public.data
    assert keys.from_pem(data) is None


def test_loading_a_key_imports_none_of_the_readers_of_other_forms(config: Path) -> None:
    keys.load_or_create()
    code = "import sys; from formation.evidence import keys; keys.load_or_create().sign(b''); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "cryptography.hazmat.primitives.asymmetric.ed25519" in loaded
    assert "cryptography.hazmat.primitives.serialization" not in loaded


def other_keys() -> dict[str, bytes]:
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked = serialization.BestAvailableEncryption(b"secret")
    return {
        "another kind": ec.generate_private_key(ec.SECP256R1()).private_bytes(pem, pkcs8, serialization.NoEncryption()),
        "encrypted": ed25519.Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, locked),
        "no key": b"hello",
        "empty": b"",
    }


@pytest.mark.parametrize("name", ["another kind", "encrypted", "no key", "empty"])
def test_a_file_that_is_no_plain_ed25519_key_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(other_keys()[name])
    path.chmod(0o600)
    with pytest.raises(EnvironmentFault, match="expected"):
        keys.load(path)


def test_a_key_that_is_a_pipe_does_not_stop_us(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key.pem", 0o600)
    with pytest.raises(EnvironmentFault, match="regular file"):
        keys.load(tmp_path / "key.pem")


# ---- known signers


def test_known_signers_are_read_by_name(config: Path) -> None:
    one, two = vectors.key().public, vectors.key(vectors.OTHER_SECRET).public
    config.mkdir()
    assert {} == keys.known_signers()
    (config / "known_signers").write_text(f"# people\n\nzoë {one.text}\nlab {two.text}\n")
    assert {"zoë": one, "lab": two} == keys.known_signers()


ONE = vectors.key().public.text


TWO = vectors.key(vectors.OTHER_SECRET).public.text
IDENTITY = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
NO_SIGNERS = {
    "no key": ("name\n", "bytes"),
    "two spaces": (f"name  {ONE}\n", "one space"),
    "no name": (f" {ONE}\n", "one space"),
    "a space in the name": (f"a b {ONE}\n", "one space"),
    "a tab": (f"a\t{ONE}\n", "one space"),
    "an escape in the name": (f"a\x1b[2J {ONE}\n", "one space"),
    "a key cut short": (f"a {ONE[:-1]}\n", "base64"),
    "CRLF": (f"a {ONE}\r\n", "base64"),
    "a key twice": (f"a {ONE}\nb {ONE}\n", "once"),
    "a name twice": (f"a {ONE}\na {TWO}\n", "once"),
    "the identity": (f"a {IDENTITY}\n", "small order"),
}


@pytest.mark.parametrize(("text", "reason"), list(NO_SIGNERS.values()), ids=list(NO_SIGNERS))
def test_a_line_that_is_no_signer_is_refused_and_named(text: str, reason: str) -> None:
    with pytest.raises(Refused, match=rf"line \d.*({reason})") as refusal:
        keys.read_known_signers(text.encode())
    assert "known-signers" == refusal.value.check
