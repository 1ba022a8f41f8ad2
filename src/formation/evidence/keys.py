"""Ed25519 keys (RFC 8032): one private key per user, and public keys with a strict check before `cryptography` sees them.

Why the check: libraries accept public keys and R of small order, under which anyone can forge; and encodings of one point differ between
libraries. Here, as in what is elsewhere called strict verification, without the cofactor:

    public key   32 bytes, y below 2^255 - 19, on the curve, not of small order
    signature    64 bytes, R | S: y of R below 2^255 - 19, R not of small order, S below the group's order L

    ~/.config/formation/key.pem         the user's key: PKCS#8, mode 600, made on first use ($XDG_CONFIG_HOME goes before ~/.config)
    ~/.config/formation/known_signers   one signer a line: NAME KEY; empty lines and lines that begin with # say nothing

A key is written as the base64 of its 32 bytes, and named by its fingerprint, `sha256:` and the SHA-256 of its SubjectPublicKeyInfo, which is
what `openssl pkey -pubout -outform DER | sha256sum` prints. A key found inside of evidence says who signed, never that they are trusted.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from formation.errors import EnvironmentFault
from formation.evidence.strict import Refused, from_base64, to_base64
from formation.ledger import canonical
from formation.ledger.files import read_whole
from formation.ledger.store import sync_folder

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_BYTES, SIGNATURE_BYTES = 32, 64
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P  # of the curve -x^2 + y^2 = 1 + D x^2 y^2
ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826  # y of four of the eight points of small order
SMALL_ORDER = frozenset((0, 1, P - 1, ORDER_8, P - ORDER_8))
SPKI = bytes.fromhex("302a300506032b6570032100")  # SubjectPublicKeyInfo of an Ed25519 key, before its 32 bytes (RFC 8410)
PKCS8 = bytes.fromhex("302e020100300506032b657004220420")  # PrivateKeyInfo of a private one, before its 32 bytes (RFC 8410, section 7)
PEM = b"-----BEGIN PRIVATE KEY-----\n", b"\n-----END PRIVATE KEY-----\n"
LIMITS = canonical.Limits(size_bytes=1 << 20, depth=0)  # of key files and of known_signers


class BadSignature(Refused):
    """These bytes were not signed by this key."""

    def __init__(self, message: str) -> None:
        super().__init__("signature", message)


@dataclass(frozen=True)
class PublicKey:
    """A point that may sign. Making one from anything else raises Refused, check `key`."""

    data: bytes  # [32]

    def __post_init__(self) -> None:
        if len(self.data) != KEY_BYTES:
            raise Refused("key", f"public key: expected {KEY_BYTES} bytes, got {len(self.data)}")
        if fault := point_fault(self.data) or curve_fault(self.data):
            raise Refused("key", f"public key: {fault}", hint="no honest key is such a point: under it, anyone can sign")

    @classmethod
    def read(cls, text: object) -> PublicKey:
        """From the base64 of its 32 bytes. Raises Refused."""
        return cls(from_base64("key", "public key", text, KEY_BYTES))

    @property
    def text(self) -> str:
        return to_base64(self.data)

    @property
    def fingerprint(self) -> str:
        return "sha256:" + hashlib.sha256(SPKI + self.data).hexdigest()

    def verify(self, signature: bytes, message: bytes) -> None:
        """Returns if this key signed `message`. Raises BadSignature."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        check_signature(signature)
        try:
            Ed25519PublicKey.from_public_bytes(self.data).verify(signature, message)
        except (InvalidSignature, ValueError):
            raise BadSignature(f"signature: expected one by key {self.fingerprint}, got another") from None


def check_signature(signature: bytes) -> None:
    """That it can be a signature, whoever made it. Raises BadSignature."""
    if len(signature) != SIGNATURE_BYTES:
        raise BadSignature(f"signature: expected {SIGNATURE_BYTES} bytes, got {len(signature)}")
    if fault := point_fault(signature[:32]):
        raise BadSignature(f"signature, R: {fault}")
    if int.from_bytes(signature[32:], "little") >= L:
        raise BadSignature("signature, S: expected a number below the group's order, got a larger one")


def point_fault(data: bytes) -> str | None:
    """What makes 32 bytes an encoding that nobody honest sends; the top bit is the sign of x. Points with x = 0 are of small order."""
    y = int.from_bytes(data, "little") & (1 << 255) - 1
    if y >= P:
        return "expected a canonical point, got y of 2^255 - 19 or more"
    return "expected a point of large order, got one of small order" if y in SMALL_ORDER else None


def curve_fault(data: bytes) -> str | None:
    """x^2 = (y^2 - 1) / (D y^2 + 1) must be a square (Euler's criterion)."""
    y = int.from_bytes(data, "little") & (1 << 255) - 1
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    return None if pow(square, (P - 1) // 2, P) == 1 else "expected a point on the curve, got none"


# ---- the user's key


@dataclass(frozen=True)
class PrivateKey:
    public: PublicKey
    _key: Ed25519PrivateKey

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of RFC 8032: the same message gives the same signature."""
        return self._key.sign(message)


def config_folder() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".config") / "formation"


def key_path() -> Path:
    return config_folder() / "key.pem"


def load_or_create(path: Path | None = None) -> PrivateKey:
    """The key in `path`, which must be there; without a path the user's own, made on first use. Raises EnvironmentFault."""
    if path is not None:
        return load(path)
    with suppress(FileExistsError):
        if not key_path().exists():
            create(key_path())
    return load(key_path())


def create(path: Path) -> PrivateKey:
    """A new key in a new file; its folder is made with mode 700. Raises FileExistsError where one is, and EnvironmentFault."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    data = to_pem(Ed25519PrivateKey.generate().private_bytes_raw())
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(path, data)
    except FileExistsError:
        raise
    except OSError as error:
        raise EnvironmentFault(f"{path}: expected to write a key, got {error.strerror}") from error
    return load(path)


def load(path: Path) -> PrivateKey:
    """Raises EnvironmentFault if the file is not an Ed25519 key that its owner alone can read."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    data = _read_secret(path)
    private = from_pem(data)
    key = _load_other(path, data) if private is None else Ed25519PrivateKey.from_private_bytes(private)
    return PrivateKey(PublicKey(key.public_key().public_bytes_raw()), key)


def to_pem(private: bytes) -> bytes:
    """The file of a key of these 32 bytes, as OpenSSL writes it too"""
    return to_base64(PKCS8 + private).encode().join(PEM)


def from_pem(data: bytes) -> bytes | None:
    """The 32 bytes of a key in that form; None of any other file"""
    with suppress(ValueError):
        private = base64.b64decode(data[len(PEM[0]) : -len(PEM[1])])[len(PKCS8) :]
        if len(private) == KEY_BYTES and to_pem(private) == data:
            return private
    return None


def _load_other(path: Path, data: bytes) -> Ed25519PrivateKey:
    """From any other form of PEM. The readers of all forms take 20 ms to import, a tenth of what verifying a small bundle takes."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError):  # TypeError: it is encrypted
        raise EnvironmentFault(f"{path}: expected a private key as unencrypted PEM, got something else") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise EnvironmentFault(f"{path}: expected an Ed25519 key, got another kind")
    return key


def _read_secret(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise EnvironmentFault(f"{path}: expected a key, got {error.strerror}", hint=f"formation key new --key {path}") from error
    if not stat.S_ISREG(mode):
        raise EnvironmentFault(f"{path}: expected a regular file, got another kind")
    if mode & 0o077:
        found = f"expected a key that its owner alone can read, got mode {stat.S_IMODE(mode):o}"
        raise EnvironmentFault(f"{path}: {found}", hint=f"chmod 600 {path}; if others may have read it, make a new one: formation key new")
    return read_whole(path, LIMITS)


def _write_new(path: Path, data: bytes) -> None:
    """All of it or nothing; a key that is there stays: unlike a rename, a link fails where a file is."""
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.link(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink()


# ---- other people's keys


def known_signers(path: Path | None = None) -> Mapping[str, PublicKey]:
    """Name -> key of the signers that the user knows; none without a file. Raises Refused, check `known-signers`, and EnvironmentFault."""
    path = path or config_folder() / "known_signers"
    return read_known_signers(read_whole(path, LIMITS), str(path)) if path.exists() else {}


def read_known_signers(data: bytes, what: str = "known_signers") -> dict[str, PublicKey]:
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise Refused("known-signers", f"{what}: expected UTF-8, got something else") from None
    signers: dict[str, PublicKey] = {}
    for number, line in enumerate(lines, 1):
        if line and not line.startswith("#"):
            name, key = _known_signer(f"{what}, line {number}", line)
            if name in signers or key in signers.values():
                raise Refused("known-signers", f"{what}, line {number}: expected each name and each key once, got one again")
            signers[name] = key
    return signers


def _known_signer(where: str, line: str) -> tuple[str, PublicKey]:
    name, _, key = line.partition(" ")
    if not name or not name.isprintable() or " " in key:
        raise Refused("known-signers", f"{where}: expected NAME KEY with one space, got {canonical.quoted(line)}")
    try:
        return name, PublicKey.read(key)
    except Refused as refusal:
        raise Refused("known-signers", f"{where}: {refusal}", hint="formation key show prints a key as it must stand here") from None
