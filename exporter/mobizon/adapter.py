"""The adapter of requests over our connections, without what costs more than sending a request does.

Everything here is done by public means of requests and urllib3.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from exporter.mobizon.authorities import Authorities
from exporter.mobizon.connection import Connection, TlsConnection

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Pool(HTTPConnectionPool):
    ConnectionCls = Connection


class _TlsPool(HTTPSConnectionPool):
    def __init__(self, authorities: Authorities, *args: Any, **options: Any) -> None:
        self.ConnectionCls = cast("Any", partial(TlsConnection, authorities))
        super().__init__(*args, **options)


class Request(requests.PreparedRequest):
    """A request that knows the parts of its URL, which takes long to be taken apart."""

    headers: Any  # a dict, which needs no time to be copied
    origin: tuple[str, str]  # scheme; host and port
    target: str  # path and query


class Response(NamedTuple):
    """The parts of an answer that are read, named as in requests; `raw` is urllib3's answer."""

    request: Request  # not read here, but by `responses` in tests
    raw: Any
    status_code: int
    headers: Mapping[str, str]

    def close(self) -> None:
        """Give the connection back; closed, if the body was not read to its end."""
        self.raw.close()
        self.raw.release_conn()


class BoundedAdapter(HTTPAdapter):
    """Sends a `Request` with a `Body`, as requests does, over connections that keep to their time-out."""

    def __init__(self, ca_file: str | None, connections: int, hosts: int) -> None:
        authorities = Authorities(ca_file or DEFAULT_CA_BUNDLE_PATH)
        self._pool_classes = {"http": _Pool, "https": partial(_TlsPool, authorities)}
        self._hosts = hosts
        self._pools: dict[tuple[str, str], Any] = {}  # by origin
        super().__init__(pool_connections=hosts, pool_maxsize=connections, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As in requests, with pools of ours."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pool_classes

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        """As in requests, with pools of ours."""
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self._pool_classes
        return manager

    def get_connection_with_tls_context(
        self, request: Any, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """As in requests, but kept by origin; before there is one for one host too many, all are closed."""
        pool = self._pools.get(request.origin)
        if pool is None:
            if len(self._pools) == self._hosts:
                self.close()
            pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
            self._pools[request.origin] = pool
        return pool

    def request_url(self, request: Any, proxies: Any) -> str:
        """As in requests."""
        return super().request_url(request, proxies) if proxies else request.target

    def close(self) -> None:
        """Close idle connections now, and others after their answers."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
        super().close()

    def cert_verify(self, *_: Any) -> None:
        """Do nothing: connections know the authorities, and requests looks at the file at each request."""

    def build_response(self, req: Any, resp: Any) -> Any:
        """As in requests, without what is not read here, such as cookies."""
        return Response(req, resp, resp.status, resp.headers)
