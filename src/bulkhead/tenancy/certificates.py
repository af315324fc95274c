"""An own certificate authority: PEM in, PEM out. Keys are P-256, which TLS 1.2 and 1.3 both have and which is fast."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bulkhead.errors import Refused

NAME = "Bulkhead"
_SLACK = datetime.timedelta(minutes=5)
"""Clocks of two machines differ."""
Pair = tuple[bytes, bytes]
"""Certificate and key."""


def make_ca(*, days: int) -> Pair:
    """A certificate authority of one level."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"{NAME} CA")
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    certificate = (
        _begun(name, name, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _public_pem(certificate), _key_pem(key)


def issue_server(ca: Pair, names: Sequence[str], *, days: int) -> Pair:
    """A certificate for a daemon that is reached by these names and addresses. Raises Refused."""
    return _issue(ca, names[0], [_alternative(name) for name in names], ExtendedKeyUsageOID.SERVER_AUTH, days)


def issue_client(ca: Pair, user: str, *, days: int) -> Pair:
    """A certificate that signs a user in. Raises Refused."""
    return _issue(ca, user, [], ExtendedKeyUsageOID.CLIENT_AUTH, days)


def make_request(common: str) -> Pair:
    """A request to be signed, and its key, which stays where it was made."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(common)).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM), _key_pem(key)


def sign_host(ca: Pair, request: bytes, common: str, address: str, *, days: int) -> bytes:
    """A certificate for a host that serves at `address` and asks others, by the key of its request.

    Nothing else of the request is taken over. Raises Refused.
    """
    try:
        asked = x509.load_pem_x509_csr(request)
        good = asked.is_signature_valid
    except (ValueError, TypeError) as error:
        raise Refused(f"the certificate request cannot be read: {error}") from error
    key = asked.public_key()
    if not good or not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != ec.SECP256R1.name:
        raise Refused("the certificate request is not signed by a P-256 key of its own")
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return _public_pem(_signed(ca, common, [_alternative(address)], purposes=both, key=key, days=days))


def _issue(
    ca: Pair, common: str, others: Sequence[x509.GeneralName], purpose: x509.ObjectIdentifier, days: int
) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    return _public_pem(_signed(ca, common, others, purposes=[purpose], key=key.public_key(), days=days)), _key_pem(key)


def _signed(
    ca: Pair,
    common: str,
    others: Sequence[x509.GeneralName],
    *,
    purposes: Sequence[x509.ObjectIdentifier],
    key: ec.EllipticCurvePublicKey,
    days: int,
) -> x509.Certificate:
    try:
        issuer, signer = x509.load_pem_x509_certificate(ca[0]), serialization.load_pem_private_key(ca[1], None)
    except ValueError as error:
        raise Refused(f"the CA's certificate or key cannot be read: {error}", hint="bulkhead ca init") from error
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise Refused("the CA's key is not one that bulkhead ca init has made")
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    builder = (
        _begun(_name(common), issuer.subject, key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if others:
        builder = builder.add_extension(x509.SubjectAlternativeName(others), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _begun(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLACK)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _name(common: str) -> x509.Name:
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    except ValueError as error:
        raise Refused(f"{common!r} cannot be a certificate's name: {error}") from error


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise Refused(f"{name!r} is neither a host's name nor an address: {error}") from error


def _public_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
