"""The web configuration: what it takes, what it refuses, and TLS as clients meet it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import bcrypt
import pytest
import requests
from aiohttp import web
from cryptography import x509
from structlog.testing import capture_logs

from exporter.errors import ConfigError
from exporter.web import auth, webconfig
from exporter.web import tls as tls_module
from tests.support.certificates import PASSPHRASE, Authority, Pair, ip, rsa_key, serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SOON = 5.0  # more than anything here takes, and less than waiting for it would hurt
HASH = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
SERVER = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
MUTUAL = SERVER + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"

TLS13_SUITES = ", ".join(sorted(tls_module.TLS13_SUITES))


@dataclass
class Certificates:
    """What stands beside every configuration here."""

    folder: Path
    ca: Authority
    server: Pair
    client: Pair
    stranger: Pair

    def load(self, text: str) -> webconfig.WebConfig:
        path = self.folder / "web.yaml"
        path.write_text(text)
        return webconfig.load_web_config(path)

    def tls(self, text: str) -> tls_module.RenewableTls:
        tls = self.load(text).tls
        assert tls
        return tls


@pytest.fixture
def certs(tmp_path: Path) -> Certificates:
    ca = Authority(tmp_path)
    (tmp_path / "strange").mkdir()
    stranger = Authority(tmp_path / "strange", "stranger-ca").issue("stranger")
    return Certificates(tmp_path, ca, ca.server(), ca.issue("client"), stranger)


@dataclass(frozen=True)
class Met:
    """What a client saw in a handshake."""

    version: str | None
    cipher: str
    alpn: str | None
    subject: str
    session: ssl.SSLSession | None
    reused: bool | None


def meet(port: int, ca: Authority, adapt: Callable[[ssl.SSLContext], object] = lambda _context: None) -> Met:
    """One request over a new TLS connection."""
    context = ssl.create_default_context(cafile=ca.cert)
    adapt(context)
    return meet_again(port, context, None)


def meet_again(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> Met:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=SOON) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1", session=session) as peer,
    ):
        peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: peer.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 ")
        seen: Any = peer.getpeercert()
        cipher = peer.cipher()
        assert cipher
        return Met(
            peer.version(),
            cipher[0],
            peer.selected_alpn_protocol(),
            seen["subject"][0][0][1],
            peer.session,
            peer.session_reused,
        )


def ask(port: int, ca: Authority, client: Pair | None = None) -> int:
    """The status of a request with `requests`, which raises ConnectionError where TLS fails."""
    return requests.get(
        f"https://127.0.0.1:{port}/", verify=str(ca.cert), cert=client.files if client else None, timeout=SOON
    ).status_code


def only_tls12(context: ssl.SSLContext) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2


def app() -> web.Application:
    async def hello(_request: web.Request) -> web.Response:
        return web.Response(text="hello")

    made = web.Application()
    made.router.add_get("/", hello)
    return made


# What is taken


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "{}", "tls_server_config: {}\nbasic_auth_users:\nrate_limit: {}\n"]
)
def test_a_file_that_asks_for_nothing_changes_nothing(certs: Certificates, text: str) -> None:
    assert certs.load(text) == webconfig.WebConfig()


def test_the_toolkit_s_sample_is_understood(certs: Certificates) -> None:
    config = certs.load(
        f"{SERVER}http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n"
        f"    X-XSS-Protection: ''\nbasic_auth_users:\n  alice: {HASH}\n  zoë: $2y{HASH[3:]}\n"
    )
    assert config.tls
    assert config.headers == {"X-Frame-Options": "deny"}
    assert {name: secret.reveal() for name, secret in config.users.items()} == {
        "alice": HASH,
        "zoë": f"$2y{HASH[3:]}",
    }


def test_http2_is_taken_with_a_warning_and_not_spoken(certs: Certificates) -> None:
    with capture_logs() as logs:
        certs.load("http_server_config:\n  http2: true\n")
    assert [(line["log_level"], line["event"]) for line in logs] == [
        ("warning", "HTTP/2 not supported, clients get HTTP/1.1")
    ]


def test_an_expired_certificate_is_only_a_warning(certs: Certificates) -> None:
    certs.ca.server(days=-1)
    with capture_logs() as logs:
        assert certs.load(SERVER).tls
    assert [(line["log_level"], line["reason"]) for line in logs] == [("warning", "certificate has expired")]


# What is refused, with the very words. {d} is the folder of the configuration.

KEY = "basic_auth_users:\n  alice: "
BAD: dict[str, tuple[str, list[str]]] = {
    "no mapping": ("- x\n", ["1: expected a mapping, got a list"]),
    "unknown section": (
        "tls_config:\n  x: y\n",
        [
            "1: tls_config: unknown key; did you mean 'tls_server_config'?",
        ],
    ),
    "unknown key": (
        SERVER + "  client_ca_fiel: x\n",
        ["4: tls_server_config.client_ca_fiel: unknown key; did you mean 'client_ca_file'?"],
    ),
    "duplicate key": (SERVER + "  key_file: x\n", ["4: tls_server_config.key_file: duplicate key"]),
    "no key": (
        "tls_server_config:\n  cert_file: server.crt\n",
        ["1: tls_server_config.key_file: required, but missing"],
    ),
    "no certificate": (
        "tls_server_config:\n  key_file: server.key\n",
        ["1: tls_server_config.cert_file: required, but missing"],
    ),
    "files missing": (
        "tls_server_config:\n  cert_file: a.crt\n  key_file: a.key\n",
        [
            "2: tls_server_config.cert_file: {d}/a.crt: no such file or directory",
            "3: tls_server_config.key_file: {d}/a.key: no such file or directory",
        ],
    ),
    "a folder": (
        "tls_server_config:\n  cert_file: .\n  key_file: server.key\n",
        ["2: tls_server_config.cert_file: {d}: is a directory"],
    ),
    "certificate not PEM": (
        "tls_server_config:\n  cert_file: web.yaml\n  key_file: server.key\n",
        ["2: tls_server_config.cert_file: {d}/web.yaml: holds no certificate in PEM"],
    ),
    "key not PEM": (
        "tls_server_config:\n  cert_file: server.crt\n  key_file: web.yaml\n",
        [
            (
                "3: tls_server_config.key_file: {d}/web.yaml: "
                "holds no private key in PEM, or one with a passphrase"
            )
        ],
    ),
    "key with a passphrase": (
        "tls_server_config:\n  cert_file: locked.crt\n  key_file: locked.key\n",
        [
            (
                "3: tls_server_config.key_file: {d}/locked.key: "
                "holds no private key in PEM, or one with a passphrase"
            )
        ],
    ),
    "key of another": (
        "tls_server_config:\n  cert_file: server.crt\n  key_file: client.key\n",
        ["3: tls_server_config.key_file: {d}/client.key: does not belong to the certificate in cert_file"],
    ),
    "key of another kind": (
        "tls_server_config:\n  cert_file: server.crt\n  key_file: rsa.key\n",
        ["3: tls_server_config.key_file: {d}/rsa.key: does not belong to the certificate in cert_file"],
    ),
    "weak key": (
        "tls_server_config:\n  cert_file: weak.crt\n  key_file: weak.key\n",
        [
            (
                "3: tls_server_config.key_file: {d}/weak.key: "
                "OpenSSL refuses the certificate in cert_file: ee key too small"
            )
        ],
    ),
    "inline key": (
        SERVER + "  key: BEGIN TOP SECRET\n",
        ["4: tls_server_config.key: not supported: give a file, as cert_file, key_file, client_ca_file"],
    ),
    "authority missing": (
        SERVER + "  client_auth_type: VerifyClientCertIfGiven\n",
        ["4: tls_server_config.client_auth_type: needs client_ca_file"],
    ),
    "authority without a use": (
        SERVER + "  client_ca_file: ca.crt\n",
        ["4: tls_server_config.client_ca_file: needs a client_auth_type that verifies"],
    ),
    "authority not PEM": (
        MUTUAL.replace("ca.crt", "server.key"),
        ["5: tls_server_config.client_ca_file: {d}/server.key: holds no certificate in PEM"],
    ),
    "auth type unknown": (
        SERVER + "  client_auth_type: Verify\n",
        [
            (
                "4: tls_server_config.client_auth_type: expected NoClientCert or VerifyClientCertIfGiven "
                "or RequireAndVerifyClientCert, got 'Verify'"
            )
        ],
    ),
    "SANs of nobody": (
        SERVER + "  client_allowed_sans: [prometheus]\n",
        ["4: tls_server_config.client_allowed_sans: needs client_auth_type: RequireAndVerifyClientCert"],
    ),
    "version too old": (
        SERVER + "  min_version: TLS11\n",
        ["4: tls_server_config.min_version: expected TLS12 or TLS13, got 'TLS11'"],
    ),
    "versions crossed": (
        SERVER + "  min_version: TLS13\n  max_version: TLS12\n",
        [
            (
                "5: tls_server_config.max_version: "
                "min_version and cipher_suites leave no version of TLS up to this one"
            )
        ],
    ),
    "suites of TLS 1.3 alone, below it": (
        f"{SERVER}  max_version: TLS12\n  cipher_suites: [{TLS13_SUITES}]\n",
        [
            (
                "4: tls_server_config.max_version: "
                "min_version and cipher_suites leave no version of TLS up to this one"
            )
        ],
    ),
    "suite insecure": (
        SERVER + "  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]\n",
        [
            (
                "4: tls_server_config.cipher_suites[0]: expected a secure suite such as "
                "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, got 'TLS_RSA_WITH_RC4_128_SHA'"
            )
        ],
    ),
    "suites of TLS 1.3 chosen": (
        SERVER + "  cipher_suites: [TLS_AES_256_GCM_SHA384]\n",
        [
            (
                "4: tls_server_config.cipher_suites: "
                "those of TLS 1.3 cannot be chosen among: list all three, or none"
            )
        ],
    ),
    "suites for no such key": (
        SERVER + "  max_version: TLS12\n  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n",
        ["1: tls_server_config: no client could connect: no shared cipher"],
    ),
    "curves": (
        SERVER + "  curve_preferences: [X25519]\n",
        ["4: tls_server_config.curve_preferences: not supported"],
    ),
    "rate limit": ("rate_limit:\n  interval: 1s\n  burst: 20\n", ["1: rate_limit: not supported"]),
    "not a boolean": (
        "http_server_config:\n  http2: maybe\n",
        ["2: http_server_config.http2: expected true or false, got 'maybe'"],
    ),
    "headers listed": (
        "http_server_config:\n  headers: [X]\n",
        ["2: http_server_config.headers: expected a mapping of headers, got a list"],
    ),
    "header not to be set": (
        "http_server_config:\n  headers:\n    Server: me\n",
        [
            (
                "3: http_server_config.headers.Server: this header cannot be set, only "
                "Content-Security-Policy, "
                "Strict-Transport-Security, X-Content-Type-Options, X-Frame-Options, X-XSS-Protection"
            )
        ],
    ),
    "header of two lines": (
        'http_server_config:\n  headers:\n    X-XSS-Protection: "0\\r\\nSet-Cookie: x"\n',
        ["3: http_server_config.headers.X-XSS-Protection: expected one line of text"],
    ),
    "header with another value": (
        "http_server_config:\n  headers:\n    X-Frame-Options: DENY\n",
        ["3: http_server_config.headers.X-Frame-Options: expected deny or sameorigin, got 'DENY'"],
    ),
    "users listed": (
        f"basic_auth_users: ['{HASH}']\n",
        ["1: basic_auth_users: expected a mapping of names to bcrypt hashes"],
    ),
    "user's password in clear": (
        KEY + "secret\n",
        [
            (
                "2: basic_auth_users.alice: "
                "expected a bcrypt hash, 60 characters that start with $2a$, $2b$ or $2y$"
            )
        ],
    ),
    "user without a hash": (
        KEY + "\n",
        [
            (
                "2: basic_auth_users.alice: "
                "expected a bcrypt hash, 60 characters that start with $2a$, $2b$ or $2y$"
            )
        ],
    ),
    "user with a colon": (
        f"basic_auth_users:\n  'a:b': {HASH}\n",
        ["2: basic_auth_users.a:b: a user's name cannot hold a colon or control characters"],
    ),
    "user and hash swapped": (
        f"basic_auth_users:\n  {HASH}: alice\n",
        ["1: basic_auth_users: a hash stands where a user's name belongs"],
    ),
    "several at once": (
        SERVER + "  min_version: TLS9\nhttp_server_config:\n  http2: 7\n",
        [
            "4: tls_server_config.min_version: expected TLS12 or TLS13, got 'TLS9'",
            "6: http_server_config.http2: expected true or false, got '7'",
        ],
    ),
} | {
    f"auth type {kind}": (
        SERVER + f"  client_auth_type: {kind}\n",
        [
            (
                f"4: tls_server_config.client_auth_type: {kind} would not verify certificates: "
                "use VerifyClientCertIfGiven or RequireAndVerifyClientCert"
            )
        ],
    )
    for kind in ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
}


@pytest.mark.parametrize(("text", "problems"), BAD.values(), ids=BAD.keys())
def test_a_mistake_is_told_with_file_line_and_path(
    certs: Certificates, text: str, problems: list[str]
) -> None:
    certs.ca.issue("locked", passphrase=PASSPHRASE)
    certs.ca.issue("rsa", key=rsa_key())
    if "weak" in text:
        certs.ca.issue("weak", key=rsa_key(1024))
    with pytest.raises(ConfigError) as caught:
        certs.load(text)
    folder = str(certs.folder)
    assert caught.value.problems == tuple(f"{folder}/web.yaml:{told.format(d=folder)}" for told in problems)


@pytest.mark.parametrize(
    "mistake",
    [HASH[:-1], HASH + "x", HASH[:28] + "z" + HASH[29:], f"$2x{HASH[3:]}"],
    ids=["too short", "too long", "odd salt", "unknown variant"],
)
def test_a_hash_of_the_wrong_form_is_refused_and_not_shown(certs: Certificates, mistake: str) -> None:
    with pytest.raises(ConfigError) as caught:
        certs.load(KEY + mistake)
    assert mistake[7:] not in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"web\.yaml: no such file or directory$"):
        webconfig.load_web_config(tmp_path / "web.yaml")


def test_a_suite_that_this_openssl_lacks_is_refused(
    certs: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
    monkeypatch.setitem(tls_module.SUITES, name, "NO-SUCH-SUITE")
    with pytest.raises(ConfigError, match=rf"cipher_suites\[0\]: this OpenSSL has no {name}$"):
        certs.load(SERVER + f"  cipher_suites: [{name}]\n")


def test_no_secret_is_printed(certs: Certificates) -> None:
    config = certs.load(f"{MUTUAL}{KEY}{HASH}\n")
    secret = certs.server.key.read_text().splitlines()[1]
    with capture_logs() as logs:
        assert config.tls
        certs.server.cert.write_text(certs.server.key.read_text())
        assert not config.tls.renew()
    told = f"{config!r} {config} {vars(config.tls)} {logs}"
    assert logs
    assert HASH not in told
    assert secret not in told


# TLS as clients meet it


async def test_serves_tls_1_2_and_1_3_and_http_1_1(certs: Certificates) -> None:
    async with serving(app(), certs.tls(SERVER).context) as port:
        assert await asyncio.to_thread(ask, port, certs.ca) == 200
        met = await asyncio.to_thread(
            meet, port, certs.ca, lambda context: context.set_alpn_protocols(["h2", "http/1.1"])
        )
        assert (met.version, met.alpn) == ("TLSv1.3", "http/1.1")
        met = await asyncio.to_thread(meet, port, certs.ca, only_tls12)
        assert met.version == "TLSv1.2"


async def test_min_version_is_enforced(certs: Certificates) -> None:
    async with serving(app(), certs.tls(SERVER + "  min_version: TLS13\n").context) as port:
        assert await asyncio.to_thread(ask, port, certs.ca) == 200
        with pytest.raises(ssl.SSLError):
            await asyncio.to_thread(meet, port, certs.ca, only_tls12)


async def test_max_version_is_enforced(certs: Certificates) -> None:
    async with serving(app(), certs.tls(SERVER + "  max_version: TLS12\n").context) as port:
        assert (await asyncio.to_thread(meet, port, certs.ca)).version == "TLSv1.2"


@pytest.mark.parametrize(
    ("prefer", "expected"),
    [("true", "ECDHE-ECDSA-AES256-GCM-SHA384"), ("false", "ECDHE-ECDSA-CHACHA20-POLY1305")],
)
async def test_suites_are_chosen_in_the_order_of_whom_it_should_be(
    certs: Certificates, prefer: str, expected: str
) -> None:
    listed = "  cipher_suites:\n" + "".join(
        f"  - TLS_ECDHE_ECDSA_WITH_{suite}\n" for suite in ("AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256")
    )
    tls = certs.tls(f"{SERVER}{listed}  prefer_server_cipher_suites: {prefer}\n")

    def contrary(context: ssl.SSLContext) -> None:
        only_tls12(context)
        context.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-GCM-SHA384")

    def other(context: ssl.SSLContext) -> None:
        only_tls12(context)
        context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")

    async with serving(app(), tls.context) as port:
        assert (await asyncio.to_thread(meet, port, certs.ca, contrary)).cipher == expected
        with pytest.raises(ssl.SSLError):
            await asyncio.to_thread(meet, port, certs.ca, other)


@pytest.mark.parametrize("suite", tls_module.SUITES)
async def test_every_suite_of_the_toolkit_can_be_had(certs: Certificates, suite: str) -> None:
    certs.ca.server(key=rsa_key() if "RSA" in suite.split("_") else None)
    tls = certs.tls(SERVER + f"  cipher_suites: [{suite}]\n  max_version: TLS12\n")

    def alike(context: ssl.SSLContext) -> None:
        context.set_ciphers("ALL")

    async with serving(app(), tls.context) as port:
        met = await asyncio.to_thread(meet, port, certs.ca, alike)
    assert met.cipher == tls_module.SUITES[suite]


async def test_suites_of_tls_1_3_alone_leave_tls_1_3_alone(certs: Certificates) -> None:
    tls = certs.tls(SERVER + f"  cipher_suites: [{TLS13_SUITES}]\n")
    async with serving(app(), tls.context) as port:
        assert (await asyncio.to_thread(meet, port, certs.ca)).version == "TLSv1.3"
        with pytest.raises(ssl.SSLError):
            await asyncio.to_thread(meet, port, certs.ca, only_tls12)


@pytest.mark.parametrize(
    ("kind", "nobody", "stranger"),
    [
        ("NoClientCert", True, True),
        ("VerifyClientCertIfGiven", True, False),
        ("RequireAndVerifyClientCert", False, False),
    ],
)
async def test_client_certificates_are_asked_for_and_verified(
    certs: Certificates, kind: str, nobody: bool, stranger: bool
) -> None:
    authority = "" if kind == "NoClientCert" else "  client_ca_file: ca.crt\n"
    tls = certs.tls(f"{SERVER}  client_auth_type: {kind}\n{authority}")
    async with serving(app(), tls.context) as port:
        assert await asyncio.to_thread(ask, port, certs.ca, certs.client) == 200
        for client, admitted in ((None, nobody), (certs.stranger, stranger)):
            if admitted:
                assert await asyncio.to_thread(ask, port, certs.ca, client) == 200
            else:
                with pytest.raises(requests.exceptions.ConnectionError):
                    await asyncio.to_thread(ask, port, certs.ca, client)


@pytest.mark.parametrize(
    "san",
    [
        x509.DNSName("prometheus"),
        ip("10.0.0.7"),
        ip("2001:db8::7"),
        x509.RFC822Name("ops@example.org"),
        x509.UniformResourceIdentifier("spiffe://example.org/prometheus"),
    ],
)
async def test_only_clients_of_allowed_names_are_served(certs: Certificates, san: x509.GeneralName) -> None:
    config = certs.load(f"{MUTUAL}  client_allowed_sans: [grafana, '{san.value}']\n")
    assert config.tls
    protected = app()
    auth.protect(protected, config)
    async with serving(protected, config.tls.context) as port:
        named = certs.ca.issue("named", x509.DNSName("x"), san)
        assert await asyncio.to_thread(ask, port, certs.ca, named) == 200
        other = certs.ca.issue("other", x509.DNSName("prometheus.example.org"))
        assert await asyncio.to_thread(ask, port, certs.ca, other) == 403
        assert await asyncio.to_thread(ask, port, certs.ca, certs.client) == 403


async def test_users_log_in_over_tls_and_headers_are_on_the_answer(certs: Certificates) -> None:
    config = certs.load(f"{MUTUAL}http_server_config:\n  headers:\n    X-Frame-Options: deny\n{KEY}{HASH}\n")
    assert config.tls
    protected = app()
    auth.protect(protected, config)

    def login(port: int, password: str) -> requests.Response:
        return requests.get(
            f"https://127.0.0.1:{port}/",
            verify=str(certs.ca.cert),
            cert=certs.client.files,
            auth=("alice", password),
            timeout=SOON,
        )

    async with serving(protected, config.tls.context) as port:
        good = await asyncio.to_thread(login, port, "secret")
        assert (good.status_code, good.headers["X-Frame-Options"]) == (200, "deny")
        bad = await asyncio.to_thread(login, port, "wrong")
        assert (bad.status_code, bad.headers["X-Frame-Options"]) == (401, "deny")
        with pytest.raises(requests.exceptions.ConnectionError):  # a password does not replace a certificate
            await asyncio.to_thread(ask, port, certs.ca)


async def test_sessions_of_verified_clients_have_no_tickets(certs: Certificates) -> None:
    tls = certs.tls(MUTUAL)
    async with serving(app(), tls.context) as port:
        for adapt in (only_tls12, lambda _context: None):
            context = ssl.create_default_context(cafile=certs.ca.cert)
            context.load_cert_chain(*certs.client.files)
            adapt(context)
            met = await asyncio.to_thread(meet_again, port, context, None)
            assert met.session
            assert not met.session.has_ticket


# Renewal


async def test_renewed_certificates_are_shown_to_new_connections(certs: Certificates) -> None:
    tls = certs.tls(SERVER)
    async with serving(app(), tls.context) as port:
        with requests.Session() as kept:
            kept.verify, kept.trust_env = str(certs.ca.cert), False
            assert (await asyncio.to_thread(kept.get, f"https://127.0.0.1:{port}/", timeout=SOON)).ok
            assert not tls.renew()
            renew(certs, certs.ca.server("renewed"))
            assert tls.renew()
            assert not tls.renew()
            assert (await asyncio.to_thread(meet, port, certs.ca)).subject == "renewed"
            assert (await asyncio.to_thread(meet, port, certs.ca, only_tls12)).subject == "renewed"
            assert (await asyncio.to_thread(kept.get, f"https://127.0.0.1:{port}/", timeout=SOON)).ok


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (
            lambda certs: certs.server.key.write_text("x"),
            "holds no private key in PEM, or one with a passphrase",
        ),
        (lambda certs: certs.server.key.unlink(), "no such file or directory"),
        (
            lambda certs: certs.server.cert.write_bytes(certs.client.cert.read_bytes()),
            "does not belong to the certificate in cert_file",
        ),
    ],
)
async def test_a_bad_renewal_is_told_once_and_the_old_stays(
    certs: Certificates, spoil: Callable[[Certificates], object], told: str
) -> None:
    tls = certs.tls(SERVER)
    spoil(certs)
    with capture_logs() as logs:
        assert not tls.renew()
        assert not tls.renew()
    assert logs == [
        {
            "event": "Failed to load new TLS files, keeping the old ones",
            "log_level": "error",
            "error": f"{certs.server.key}: {told}",
        }
    ]
    async with serving(app(), tls.context) as port:
        assert (await asyncio.to_thread(meet, port, certs.ca)).subject == "server"
        renew(certs, certs.ca.server("renewed"))
        assert tls.renew()
        assert (await asyncio.to_thread(meet, port, certs.ca)).subject == "renewed"


async def test_a_dropped_authority_is_trusted_no_more_not_even_for_resumed_sessions(
    certs: Certificates,
) -> None:
    clients = certs.folder / "clients.crt"
    clients.write_bytes(certs.ca.cert.read_bytes())
    tls = certs.tls(MUTUAL.replace("ca.crt", "clients.crt"))
    context = ssl.create_default_context(cafile=certs.ca.cert)
    context.load_cert_chain(*certs.client.files)
    only_tls12(context)
    async with serving(app(), tls.context) as port:
        first = await asyncio.to_thread(meet_again, port, context, None)
        again = await asyncio.to_thread(meet_again, port, context, first.session)
        assert again.reused
        clients.write_bytes((certs.folder / "strange" / "stranger-ca.crt").read_bytes())
        assert tls.renew()
        assert await asyncio.to_thread(ask, port, certs.ca, certs.stranger) == 200
        with pytest.raises(requests.exceptions.ConnectionError):
            await asyncio.to_thread(ask, port, certs.ca, certs.client)
        with pytest.raises(ssl.SSLError):
            await asyncio.to_thread(meet_again, port, context, again.session)


def renew(certs: Certificates, pair: Pair) -> None:
    """Put `pair` into the place of the server's, as a renewing program does."""
    pair.cert.replace(certs.server.cert)
    pair.key.replace(certs.server.key)
