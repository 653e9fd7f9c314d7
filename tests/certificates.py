"""Certificates for tests, made on the spot, and how a client asks for one."""

from __future__ import annotations

import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

HANDSHAKE = b"\x16"
"""How a TLS record of the handshake begins; one of an alert begins with another byte."""


def make_certificate(
    folder: Path,
    name: str,
    password: bytes | None = None,
    kind: Literal["ECDSA", "RSA"] = "ECDSA",
    days: float = 365,
) -> tuple[Path, Path]:
    """A certificate of ``localhost``, signed by itself, that ends in so many days, and its key."""
    key = (
        ec.generate_private_key(ec.SECP256R1())
        if kind == "ECDSA"
        else rsa.generate_private_key(65537, 2048)
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=30))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secrecy = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    certificate, place = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    place.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secrecy)
    )
    return certificate, place


def client_hello(name: bytes, most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    """The first bytes of a client that asks for a host by this name, of whatever bytes: Python's
    own sends ASCII only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = most
    stand_in = "x" * len(name)
    sent = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=stand_in)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    hello = sent.read()
    assert hello.count(stand_in.encode()) == 1
    return hello.replace(stand_in.encode(), name)
