"""A server behind TLS: spoken to if this machine trusts its certificate, and not else."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.dialogue.local_server import LocalServer

from formation.dialogue.remote.http import Patience, ServerFault
from formation.dialogue.remote.side import connect
from formation.dialogue.side import Manner, Turn

ONCE = Patience(connect_seconds=5, pause_seconds=10, answer_seconds=20, attempts=1)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 127.0.0.1, signed by itself, with its key"""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lamp")])
    now, address = datetime.now(UTC), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path = tmp_path_factory.mktemp("tls") / "lamp.pem"
    path.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, private, serialization.NoEncryption()))
    return path


def secured(certificate: Path) -> LocalServer:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return LocalServer(tls=context)


def test_a_certificate_that_is_trusted_is_spoken_to(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("LAMP_KEY", "sk-0123456789abcdef")
    with secured(certificate) as server:
        side = connect("Lamp", server.url, Manner(most_tokens=10), patience=ONCE, key_variable="LAMP_KEY")
        assert 7 == len(list(side.speak([Turn(0, False, "hello")])))
    assert side.describe()["url"].startswith("https://127.0.0.1:")


def test_a_certificate_that_is_not_trusted_gets_nothing_not_even_the_key(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMP_KEY", "sk-0123456789abcdef")
    with secured(certificate) as server:
        with pytest.raises(ServerFault, match="expected a connection, got: self-signed certificate") as caught:
            connect("Lamp", server.url, Manner(), patience=ONCE, key_variable="LAMP_KEY")
        assert [] == server.asked
    assert "its certificate must be one that this machine trusts" == caught.value.hint
