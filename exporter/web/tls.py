"""TLS for the server: certificates and client authorities that may be renewed while it runs."""

from __future__ import annotations

import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - cattrs resolves the schema's types at run time
from typing import TYPE_CHECKING, Final, NewType

import structlog

from exporter.config.schema import ValidationErrors
from exporter.files import Signature, describe_error, signature

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger(__name__)

Suite = NewType("Suite", str)
Inline = NewType("Inline", str)
Unsupported = NewType("Unsupported", str)

# the names of https://pkg.go.dev/crypto/tls#CipherSuites, and OpenSSL's
TLS13_SUITES: Final = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
SUITES: Final = {
    f"TLS_ECDHE_{signed}_WITH_{go}": f"ECDHE-{signed}-{openssl}"
    for signed in ("ECDSA", "RSA")
    for go, openssl in {
        "AES_128_CBC_SHA": "AES128-SHA",
        "AES_256_CBC_SHA": "AES256-SHA",
        "AES_128_GCM_SHA256": "AES128-GCM-SHA256",
        "AES_256_GCM_SHA384": "AES256-GCM-SHA384",
        "CHACHA20_POLY1305_SHA256": "CHACHA20-POLY1305",
    }.items()
}
_MISMATCHES: Final = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """`tls_server_config` as it is written."""

    cert_file: Path
    key_file: Path
    client_auth_type: ssl.VerifyMode = ssl.CERT_NONE
    client_ca_file: Path | None = None
    client_allowed_sans: tuple[str, ...] = ()
    min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    max_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    cipher_suites: tuple[Suite, ...] = ()
    prefer_server_cipher_suites: bool = True
    curve_preferences: Unsupported | None = None
    cert: Inline | None = None
    key: Inline | None = None
    client_ca: Inline | None = None


class RenewableTls:
    """The TLS side of a server, whose files may be renewed while it runs.

    `context` is what listens, and stays the same object. Each handshake takes certificate, key and client
    authorities from the newest good files at once. They are not loaded into the listening context: that is
    not atomic while handshakes go on, and would leave authorities trusted that a renewal has dropped.

    `allowed_sans`: a client's certificate must have one of these alternative names; none: no matter which.
    """

    def __init__(self, settings: TlsSettings) -> None:
        """Raises ValidationErrors, with paths below `tls_server_config`, if clients could not connect."""
        self.allowed_sans = frozenset(settings.client_allowed_sans)
        self._settings = settings
        self._seen = self._look()
        self.context = self._newest = _context(settings)
        self._renewed_at = 0
        self.context.sni_callback = self._choose

    def renew(self) -> bool:
        """Take the files if they have changed and are good; whether they were taken.

        Costs a few stat calls while nothing changes. It reads files, so it belongs on a thread, every few
        seconds, and never on two at once. Files that cannot be used are logged once, and the old ones stay.
        """
        seen = self._look()
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            newest = _context(self._settings)
        except ValidationErrors as problems:
            wrong = str(problems)
        else:
            self._newest, self._renewed_at = newest, int(time.time())
            log.info("TLS files reloaded")
            return True
        log.error("Failed to load new TLS files, keeping the old ones", error=wrong)
        return False

    def _look(self) -> list[Signature | None]:
        files = self._settings.cert_file, self._settings.key_file, self._settings.client_ca_file
        return [signature(file) for file in files if file]

    def _choose(self, peer: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> int | None:
        """Called in each handshake, also without a server's name."""
        peer.context = self._newest
        # a resumed session is not verified anew, and its authority may be one that was dropped
        old = peer.session_reused and peer.session and peer.session.time <= self._renewed_at
        return ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE if old and self._settings.client_ca_file else None


def _context(settings: TlsSettings) -> ssl.SSLContext:
    """A context with the files as they are now.

    Raises ValidationErrors with paths below `tls_server_config`.
    """
    older = [SUITES[suite] for suite in settings.cipher_suites if suite in SUITES]
    minimum = settings.min_version
    if settings.cipher_suites and not older:  # none for TLS 1.2 is no TLS 1.2
        minimum = ssl.TLSVersion.TLSv1_3
    wrong = _contradictions(settings, minimum)
    if wrong:
        raise ValidationErrors([((key,), message) for key, message in wrong.items()])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = minimum, settings.max_version
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    if not settings.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if older:
        context.set_ciphers(":".join(older))
        client.set_ciphers(":".join(older))
    context.set_alpn_protocols(["http/1.1"])
    _take("cert_file", settings.cert_file, client.load_verify_locations)
    # without a password OpenSSL would ask for one on the terminal
    _take("key_file", settings.key_file, lambda key: context.load_cert_chain(settings.cert_file, key, ""))
    _rehearse(context, client)
    if settings.client_ca_file:
        _take("client_ca_file", settings.client_ca_file, context.load_verify_locations)
        context.verify_mode = settings.client_auth_type
        # who resumes a session is not verified again; sessions of TLS 1.2 are left, see RenewableTls._choose
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    return context


def _contradictions(settings: TlsSettings, minimum: ssl.TLSVersion) -> dict[str, str]:
    """What does not go together, by key."""
    wrong = {}
    if TLS13_SUITES.intersection(settings.cipher_suites) not in (set(), TLS13_SUITES):
        wrong["cipher_suites"] = "those of TLS 1.3 cannot be chosen among: list all three, or none"
    if minimum > settings.max_version:
        wrong["max_version"] = "min_version and cipher_suites leave no version of TLS up to this one"
    if settings.client_auth_type is ssl.CERT_NONE and settings.client_ca_file:
        wrong["client_ca_file"] = "needs a client_auth_type that verifies"
    if settings.client_auth_type is not ssl.CERT_NONE and not settings.client_ca_file:
        wrong["client_auth_type"] = "needs client_ca_file"
    if settings.client_auth_type is not ssl.CERT_REQUIRED and settings.client_allowed_sans:
        wrong["client_allowed_sans"] = "needs client_auth_type: RequireAndVerifyClientCert"
    return wrong


def _take(key: str, file: Path, load_into: Callable[[Path], None]) -> None:
    """Have OpenSSL read a file; its errors are rephrased without any content of the file."""
    try:
        load_into(file)
    except ssl.SSLError as error:
        if error.reason in _MISMATCHES:
            message = "does not belong to the certificate in cert_file"
        elif (error.reason or "").startswith(("EE_", "CA_")):  # below OpenSSL's security level
            message = f"OpenSSL refuses the certificate in cert_file: {_words(error)}"
        elif key == "key_file":
            message = "holds no private key in PEM, or one with a passphrase"
        else:
            message = "holds no certificate in PEM"
        raise ValidationErrors([((key,), f"{file}: {message}")]) from None
    except OSError as error:  # gone since it was looked at
        raise ValidationErrors([((key,), f"{file}: {describe_error(error)}")]) from None


def _rehearse(context: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """A handshake with a client that trusts the certificate by itself: what it objects to, all will.

    Raises ValidationErrors where there is nothing to agree upon, such as ECDSA suites alone for an RSA key;
    warns of a certificate that has expired.
    """
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        for end in (client.wrap_bio(down, up), context.wrap_bio(up, down, server_side=True)) * 2:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    except ssl.SSLCertVerificationError as error:
        log.warning("Certificate not acceptable to clients", reason=error.verify_message)
    except ssl.SSLError as error:
        raise ValidationErrors([((), f"no client could connect: {_words(error)}")]) from None


def _words(error: ssl.SSLError) -> str:
    return (error.reason or "unknown reason").lower().replace("_", " ")
