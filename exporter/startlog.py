"""What the exporter says of itself when it has started."""

from __future__ import annotations

import platform
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from exporter import __version__, output, revision
from exporter.check import full_refresh_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.model import Config
    from exporter.web.webconfig import WebConfig

log = structlog.get_logger(__name__)


def log_start(config: Config, listening: Sequence[str]) -> None:
    """Log where it listens, and what it refreshes how fast."""
    for address in listening:
        log.info("Listening", address=address)
    log.info(
        "Started mobizon-exporter",
        version=__version__,
        revision=revision(),
        python=platform.python_version(),
        accounts=len(config.accounts),
        tasks=sum(len(account.tasks) for account in config.accounts),
    )
    for account in config.accounts:
        log.info(
            "Refresh plan",
            **({"account": account.name} if account.name else {}),
            tasks=len(account.tasks),
            request_interval_seconds=account.api.request_interval,
            full_refresh_seconds=full_refresh_seconds(account),
        )
        host = urlsplit(account.api.url)
        if host.scheme == "http" and not _is_loopback(host.hostname or ""):
            log.warning("API key sent unencrypted", url=account.api.url)


def warn_of_open_registry(web: WebConfig, listening: Sequence[str]) -> None:
    """Warn if other machines can register tasks without a password or a certificate."""
    protected = web.users or (web.tls and web.tls.context.verify_mode is ssl.CERT_REQUIRED)
    beyond = [address for address in listening if not _is_loopback(address.rpartition(":")[0].strip("[]"))]
    if beyond and not protected:
        log.warning(
            "Registry writable without authentication",
            address=beyond[0],
        )


def print_demo(config: Config, listening: Sequence[str], telemetry_path: str) -> None:
    """Say on stdout where the demo is to be seen."""
    from exporter.simulator import DEMO_KEY  # only the demo needs it

    port = listening[0].rpartition(":")[2]
    output.stdout.write(
        "Demo of mobizon-exporter, with a simulated Mobizon API:\n"
        f"  status page  http://localhost:{port}/\n"
        f"  metrics      http://localhost:{port}{telemetry_path}\n"
        f"  Mobizon      {config.accounts[0].api.url}, simulated, with the key {DEMO_KEY}\n"
        "Within two minutes the tasks have been in every state. Ctrl-C ends it."
    )


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host.startswith("127.") or host == "::1"
