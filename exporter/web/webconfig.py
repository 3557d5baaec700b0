"""`--web.config.file`: TLS, client certificates, headers, users, in the form of Prometheus's exporters.

What the form can say is honoured or refused, never ignored. The form and its defaults:
https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NewType, TypeVar

import structlog

from exporter.config.schema import Schema, ValidationErrors, describe, text
from exporter.config.yaml_document import Document
from exporter.errors import ConfigError
from exporter.files import describe_error
from exporter.model import Secret
from exporter.web.tls import SUITES, TLS13_SUITES, Inline, RenewableTls, Suite, TlsSettings, Unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.config.yaml_document import ValuePath

T = TypeVar("T")

log = structlog.get_logger(__name__)

# the meaning of a value of the file is its type; `_schema` has a check for each
Headers = NewType("Headers", dict[str, str])
Users = NewType("Users", dict[str, Secret])

# OpenSSL has older ones too, but at its default security level no handshake succeeds with them
_VERSIONS: Final = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
AUTH_TYPES: Final = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
# the toolkit's choice of headers, and of values
_HEADERS: Final = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}
# 128 bits of salt leave four choices for its last character; libraries differ in what they make of others
_BCRYPT: Final = re.compile(
    r"\$2[aby]\$(?:0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}", re.ASCII
)


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """`http_server_config` as it is written."""

    http2: bool | None = None
    headers: Headers | None = None


@dataclass(frozen=True, slots=True)
class WebConfigFile:
    """A web configuration file as it is written."""

    tls_server_config: TlsSettings | None = None
    http_server_config: HttpSettings | None = None
    basic_auth_users: Users | None = None
    rate_limit: Unsupported | None = None


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What is asked of clients and added to answers. `users` maps names to bcrypt hashes."""

    tls: RenewableTls | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, Secret] = field(default_factory=dict)


def load_web_config(path: Path) -> WebConfig:
    """The web configuration at `path`; raises ConfigError with what is wrong.

    Files that it names are relative to it; what they hold is looked at once all else is right.
    """
    document = Document(str(path), _read(path))
    if document.data is None:  # an empty file asks for nothing
        return WebConfig()
    if isinstance(document.data, dict) and document.data.get("tls_server_config") == {}:
        document.data["tls_server_config"] = None  # as templates leave it: plain HTTP, for the toolkit too
    settings = _schema(path.parent).structure(document, WebConfigFile)
    tls = None
    if settings and settings.tls_server_config:
        try:
            tls = RenewableTls(settings.tls_server_config)
        except ValidationErrors as errors:
            for below, message in errors.errors:
                document.report(("tls_server_config", *below), message)
    document.check()
    assert settings is not None  # noqa: S101 - else there was something to report
    http = settings.http_server_config or HttpSettings()
    if http.http2:
        # no more than an offer, which no client depends on
        log.warning("HTTP/2 not supported, clients get HTTP/1.1", file=str(path))
    return WebConfig(tls, http.headers or {}, settings.basic_auth_users or {})


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: {describe_error(error)}"]) from None


def _schema(folder: Path) -> Schema:
    def file(value: Any) -> Path:
        path = folder / text(value)
        try:
            _read(path)
        except ConfigError as error:
            raise ValueError(error.problems[0]) from None
        return path

    return Schema(
        {
            Path: file,
            ssl.VerifyMode: _auth_type,
            ssl.TLSVersion: lambda value: _one_of(_VERSIONS, value),
            bool: lambda value: _one_of({"true": True, "false": False}, value),
            Suite: _suite,
            Headers: _headers,
            Users: _users,
            # values are not shown: one is a private key
            Inline: lambda value: _refuse(
                value, "not supported: give a file, as cert_file, key_file, client_ca_file"
            ),
            Unsupported: lambda value: _refuse(value, "not supported"),
        }
    )


def _refuse(value: Any, message: str) -> None:
    if value:
        raise ValueError(message)


def _one_of(known: Mapping[str, T], value: Any) -> T:
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"expected {' or '.join(known)}, got {describe(value)}")
    return known[value]


def _auth_type(value: Any) -> ssl.VerifyMode:
    if value in ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert"):
        raise ValueError(f"{value} would not verify certificates: use {' or '.join([*AUTH_TYPES][1:])}")
    return _one_of(AUTH_TYPES, value)


def _suite(value: Any) -> Suite:
    if value in TLS13_SUITES:
        return Suite(value)
    if not isinstance(value, str) or value not in SUITES:
        raise ValueError(f"expected a secure suite such as {next(iter(SUITES))}, got {describe(value)}")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(SUITES[value])
    except ssl.SSLError:
        raise ValueError(f"this OpenSSL has no {value}") from None
    return Suite(value)


def _headers(value: Any) -> Headers:
    """Headers that the toolkit knows; an empty value leaves one unset."""
    if not isinstance(value, dict):
        raise ValueError(f"expected a mapping of headers, got {describe(value)}")
    wrong: list[tuple[ValuePath, str]] = []
    for name, content in value.items():
        if name not in _HEADERS:
            wrong.append(((name,), f"this header cannot be set, only {', '.join(_HEADERS)}"))
        elif content and (not isinstance(content, str) or not content.isprintable()):
            wrong.append(((name,), "expected one line of text"))
        elif content and _HEADERS[name] and content not in _HEADERS[name]:
            wrong.append(((name,), f"expected {' or '.join(_HEADERS[name])}, got {describe(content)}"))
    if wrong:
        raise ValidationErrors(wrong)
    return Headers({name: content for name, content in value.items() if content})


def _users(value: Any) -> Users:
    """Names and bcrypt hashes. No hash is shown, nor where one stands for a name."""
    if not isinstance(value, dict):
        raise ValueError("expected a mapping of names to bcrypt hashes")
    wrong: list[tuple[ValuePath, str]] = []
    for name, hashed in value.items():
        if name.startswith("$2"):
            wrong.append(((), "a hash stands where a user's name belongs"))
        elif ":" in name or not name.isprintable():
            wrong.append(((name,), "a user's name cannot hold a colon or control characters"))
        elif not isinstance(hashed, str) or not _BCRYPT.fullmatch(hashed):
            wrong.append(
                ((name,), "expected a bcrypt hash, 60 characters that start with $2a$, $2b$ or $2y$")
            )
    if wrong:
        raise ValidationErrors(wrong)
    return Users({name: Secret(hashed) for name, hashed in value.items()})
