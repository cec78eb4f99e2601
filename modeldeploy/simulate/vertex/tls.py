"""A certificate for this machine alone, made anew for each simulator, so that clients can be tested with credentials as they send them."""

from __future__ import annotations

import datetime as dt

import attrs

HOST = "localhost"
_LIFE = dt.timedelta(days=1)


@attrs.frozen
class Certificate:
    """A certificate that signs itself, and its key, both in PEM."""

    pem: bytes
    key: bytes = attrs.field(repr=False)


def certificate() -> Certificate:
    """Make a certificate for ``localhost``."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - _LIFE, now + _LIFE)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Certificate(pem, private)
