"""Certificates for tests, made on the spot, and a server on a free loopback port to show them."""

from __future__ import annotations

import datetime as dt
import ipaddress
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from requests.utils import DEFAULT_CA_BUNDLE_PATH

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

PASSPHRASE = b"a passphrase"

# Python 3.13 and later demand it of an authority, and the identifiers of keys.
SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in two PEM files."""

    cert: Path
    key: Path

    @property
    def files(self) -> tuple[str, str]:
        """As `requests` wants a client certificate."""
        return str(self.cert), str(self.key)


class Authority:
    """A certificate authority; its own certificate is in the file `cert`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.cert = folder / f"{name}.crt"
        certificate = (
            _blank(self._name, self._key, days=365)
            .issuer_name(self._name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(SIGNS_CERTIFICATES, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def beside_usual_ones(self) -> Path:
        """A file of what everybody trusts, as for Mobizon itself, and of this authority."""
        bundle = self.cert.with_suffix(".bundle.crt")
        bundle.write_bytes(Path(DEFAULT_CA_BUNDLE_PATH).read_bytes() + self.cert.read_bytes())
        return bundle

    def issue(
        self,
        name: str,
        *sans: x509.GeneralName,
        key: Key | None = None,
        days: int = 30,
        passphrase: bytes | None = None,
    ) -> Pair:
        """`name`.crt and `name`.key, good for server and client alike; `days` below 0: expired."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = (
            _blank(subject, key, days)
            .issuer_name(self._name)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        )
        if sans:
            builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
        pair = Pair(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        certificate = builder.sign(self._key, hashes.SHA256())
        pair.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(passphrase)
                if passphrase
                else serialization.NoEncryption(),
            )
        )
        return pair

    def server(self, name: str = "server", **how: Any) -> Pair:
        """A certificate for 127.0.0.1."""
        return self.issue(name, ip("127.0.0.1"), **how)


def ip(address: str) -> x509.IPAddress:
    """A subject alternative name that is an address."""
    return x509.IPAddress(ipaddress.ip_address(address))


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """A key that ECDSA cipher suites cannot use; the same each time, for it takes long to be made."""
    return rsa.generate_private_key(65537, bits)


@asynccontextmanager
async def serving(app: web.Application, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serves `app` meanwhile; the port on 127.0.0.1."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        port: int = runner.addresses[0][1]
        yield port
    finally:
        await runner.cleanup()


def _blank(subject: x509.Name, key: Key, days: int) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=365))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
