"""Connections of AWS's C runtime: to whom, by way of whom, and whom to trust."""

from __future__ import annotations

import ctypes
import os
import threading
from concurrent.futures import Future
from functools import cache
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from awscrt.http import (
    HttpClientConnection,
    HttpProxyAuthenticationType,
    HttpProxyOptions,
)
from awscrt.io import (
    ClientBootstrap,
    ClientTlsContext,
    DefaultHostResolver,
    EventLoopGroup,
    SocketOptions,
    TlsConnectionOptions,
    TlsContextOptions,
)
from botocore.exceptions import (
    BotoCoreError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ProxyConnectionError,
    SSLError,
)
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

_PORTS = {"http": 80, "https": 443}


@cache
def _bootstrap() -> ClientBootstrap:
    """One event loop thread, for all connections of the process."""
    group = EventLoopGroup(1)
    return ClientBootstrap(group, DefaultHostResolver(group))


_thread = threading.local()


def keep_thread_state() -> None:
    """Let Python keep what it knows of the thread that calls this, for as long as that lives.

    To be called once on the event loop's thread. It is not one of Python's, so Python makes a thread state for each
    callback and frees it afterwards (docs.python.org/3/c-api/threads.html, PyGILState_Ensure): with some five callbacks
    a request, that is a third of all the processor time that a request takes. An Ensure without its Release keeps it.
    """
    if not getattr(_thread, "kept", False):
        ctypes.pythonapi.PyGILState_Ensure()
        _thread.kept = True


class Route:
    """Makes connections to the endpoint ``url``.

    Parameters
    ----------
    config
        A boto3 client's: its proxies (if it has none, those of ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY``), its
        timeout for connecting, and its ``tcp_keepalive``.
    verify
        A file of authorities to trust, True or None for boto3's, False for no verification.

    Raises
    ------
    ValueError
        The configuration wants what cannot be done here.
    """

    def __init__(self, url: str, config: Any, verify: str | bool | None) -> None:
        self._url = url
        self._to = urlsplit(url)
        self._proxy = _proxy_of(url, config)
        uses_tls = self._to.scheme == "https" or (self._proxy is not None and self._proxy.scheme == "https")
        self._tls = ClientTlsContext(_trust(verify)) if uses_tls else None
        self._socket = SocketOptions()
        self._socket.connect_timeout_ms = int(config.connect_timeout * 1000)
        self._socket.keep_alive = bool(config.tcp_keepalive)

    @property
    def host(self) -> str:
        """What the header ``Host`` says: the usual port is left out, as botocore leaves it out."""
        name = f"[{self._to.hostname}]" if ":" in (self._to.hostname or "") else f"{self._to.hostname}"
        usual = _PORTS.get(self._to.scheme)
        return name if self._to.port in {None, usual} else f"{name}:{self._to.port}"

    def connect(self) -> Future[HttpClientConnection]:
        """Begin to open a connection."""
        future: Future[HttpClientConnection] = HttpClientConnection.new(
            host_name=self._to.hostname,
            port=_port(self._to),
            bootstrap=_bootstrap(),
            socket_options=self._socket,
            tls_connection_options=self._tls_to(self._to),
            proxy_options=self._proxy_options(),
        )
        return future

    def why_not(self, error: Any) -> BotoCoreError:
        """What :meth:`connect` has failed with, in botocore's words. Nothing was sent."""
        name = getattr(error, "name", "")
        if "PROXY" in name and self._proxy is not None:
            return ProxyConnectionError(proxy_url=f"{self._proxy.hostname}:{_port(self._proxy)}", error=error)
        if "_TLS_" in name:
            return SSLError(endpoint_url=self._url, error=error)
        if "TIMEOUT" in name:
            return ConnectTimeoutError(endpoint_url=self._url, error=error)
        return EndpointConnectionError(endpoint_url=self._url, error=error)

    def _tls_to(self, server: SplitResult) -> TlsConnectionOptions | None:
        if self._tls is None or server.scheme != "https":
            return None
        options = TlsConnectionOptions(self._tls)
        options.set_server_name(server.hostname)
        return options

    def _proxy_options(self) -> HttpProxyOptions | None:
        proxy = self._proxy
        if proxy is None:
            return None
        login = HttpProxyAuthenticationType.Basic if proxy.username else HttpProxyAuthenticationType.Nothing
        return HttpProxyOptions(
            host_name=proxy.hostname or "",
            port=_port(proxy),
            tls_connection_options=self._tls_to(proxy),
            auth_type=login,
            auth_username=unquote(proxy.username) if proxy.username else None,
            auth_password=unquote(proxy.password or "") if proxy.username else None,
        )


def _port(server: SplitResult) -> int:
    return server.port or _PORTS[server.scheme]


def _proxy_of(url: str, config: Any) -> SplitResult | None:
    proxies = config.proxies if config.proxies is not None else get_environ_proxies(url)
    address = proxies.get(urlsplit(url).scheme)
    if not address:
        return None
    proxy = urlsplit(address if "://" in address else f"http://{address}")
    if proxy.scheme not in _PORTS:
        raise ValueError(
            f"CrtTransport cannot use a proxy by {proxy.scheme!r}, only by http and https: use Boto3Transport"
        )
    return proxy


def _trust(verify: str | bool | None) -> TlsContextOptions:
    if verify is None:  # the order in which botocore looks
        verify = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE") or True
    options = TlsContextOptions()
    if verify is False:
        options.verify_peer = False
    else:
        options.override_default_trust_store_from_path(
            ca_filepath=get_cert_path(True) if verify is True else verify
        )
    return options
