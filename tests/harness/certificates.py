"""Certificates of a test's own authority, for servers and clients that ask one another for them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_BEGIN = datetime.now(UTC) - timedelta(hours=1)


class Authority:
    """`NAME.crt` and `NAME.key` in a directory, all signed by its `ca.crt`."""

    def __init__(self, directory: Path, *, name: str = "ca") -> None:
        self._directory, self._name = directory, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = directory / f"{name}.crt"
        subject = _subject(name)
        usage = x509.KeyUsage(
            **{field: field in ("key_cert_sign", "crl_sign") for field in _USAGES},
        )
        made = _builder(subject, subject, self._key).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        self._write(self.certificate, made.add_extension(usage, True).sign(self._key, hashes.SHA256()))

    def issue(self, name: str, addresses: Sequence[str]) -> tuple[Path, Path]:
        """(certificate, key) for a server on these addresses, and a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        made = _builder(_subject(name), _subject(self._name), key).add_extension(usages, False)
        if addresses:
            names = [x509.IPAddress(ip_address(address)) for address in addresses]
            made = made.add_extension(x509.SubjectAlternativeName(names), False)
        made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False)
        certificate, private = self._directory / f"{name}.crt", self._directory / f"{name}.key"
        self._write(certificate, made.sign(self._key, hashes.SHA256()))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, private

    def _write(self, path: Path, certificate: x509.Certificate) -> None:
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


_USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(_BEGIN + timedelta(days=2))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    )
