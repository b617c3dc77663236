"""Kept connections on which a request is sent without waiting for the answer.

botocore's HTTP session sends a request and waits. Many requests at once then take a thread each, and the
threads of one interpreter take turns: at 16 of them a call costs three times the processor time that it needs
alone (docs/performance.md). Here one thread sends on many connections and collects the answers afterwards.

Sockets are the session's own: its authorities, client certificates, socket options and timeouts apply. What
is read is read by the standard library's ``http.client``.
"""

from __future__ import annotations

import ssl
import time
from collections import deque
from collections.abc import Mapping
from http.client import HTTPException, HTTPResponse
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
    SSLError,
)
from botocore.httpsession import URLLib3Session
from urllib3.exceptions import ConnectTimeoutError as NoConnectionInTime
from urllib3.exceptions import NewConnectionError
from urllib3.exceptions import SSLError as ConnectionNotTrusted


def host_of(url: str) -> str:
    """What the header ``Host`` says: the usual ports are left out, as botocore leaves them out."""
    parts = urlsplit(url)
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.hostname}" if parts.port in {None, usual} else f"{parts.hostname}:{parts.port}"


class Answer(NamedTuple):
    """What came back, whatever its status."""

    status_code: int
    headers: Any
    content: bytes


class Connections:
    """Connections to the endpoint ``url``, as ``session`` makes them. Threads may share it."""

    def __init__(self, session: Any, url: str) -> None:
        self._url = url
        self._pool = session._manager.connection_from_url(url)
        session._setup_ssl_cert(self._pool, url, session._verify)
        self._path = urlsplit(url).path
        self._host = host_of(url)
        self._idle: deque[Any] = deque()

    @staticmethod
    def serve(session: Any, url: str) -> bool:
        """Whether they can be had: not where something else has taken the session's place, nor for a proxy."""
        return (
            type(session) is URLLib3Session and cast("Any", session)._proxy_config.proxy_url_for(url) is None
        )

    def send(self, headers: Mapping[str, Any], body: bytes) -> Pending:
        """Send a POST request.

        Raises
        ------
        botocore.exceptions.EndpointConnectionError, ConnectTimeoutError, SSLError
            There is no connection. Nothing was sent.
        botocore.exceptions.ConnectionClosedError
            It broke while the request was sent.
        """
        connection = self._take()
        lines = [f"POST {self._path} HTTP/1.1", f"Host: {self._host}", "Accept-Encoding: identity"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        try:
            # In one piece: a small second one would wait for the first's acknowledgement.
            connection.sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        except OSError as error:
            connection.close()
            raise ConnectionClosedError(endpoint_url=self._url, error=error) from error
        return Pending(self, connection, time.monotonic() + self._pool.timeout.read_timeout)

    def receive(self, connection: Any, deadline: float) -> Answer:
        """Read the answer from a connection and keep that for the next request; see :meth:`Pending.result`."""
        try:
            connection.sock.settimeout(max(0.001, deadline - time.monotonic()))
            response = HTTPResponse(connection.sock, method="POST")
            response.begin()
            if response.length is None and not response.chunked:
                # Its end is where the connection ends, or breaks: http.client takes half a head for a whole one.
                raise HTTPException("the answer does not say how long it is")
            answer = Answer(response.status, response.headers, response.read())
        except TimeoutError as error:
            connection.close()
            raise ReadTimeoutError(endpoint_url=self._url, error=error) from error
        except (OSError, HTTPException) as error:
            connection.close()
            raise ConnectionClosedError(endpoint_url=self._url, error=error) from error
        if response.will_close:
            connection.close()
        else:
            self._idle.append(connection)
        return answer

    def _take(self) -> Any:
        while self._idle:
            connection = self._idle.pop()
            # Something to read before a request has been sent is the server's farewell.
            if connection.is_connected:
                connection.sock.settimeout(self._pool.timeout.read_timeout)
                return connection
            connection.close()
        return self._connect()

    def _connect(self) -> Any:
        connection: Any = self._pool._new_conn()
        connection.timeout = self._pool.timeout.connect_timeout
        try:
            connection.connect()
        except (ssl.SSLError, ConnectionNotTrusted) as error:
            raise SSLError(endpoint_url=self._url, error=error) from error
        except (OSError, NewConnectionError) as error:
            raise EndpointConnectionError(endpoint_url=self._url, error=error) from error
        except NoConnectionInTime as error:  # of which NewConnectionError is a kind
            raise ConnectTimeoutError(endpoint_url=self._url, error=error) from error
        connection.sock.settimeout(self._pool.timeout.read_timeout)
        return connection


class Pending:
    """A request that was sent. If nobody asks for its answer, its connection is not used again."""

    def __init__(self, connections: Connections, connection: Any, deadline: float) -> None:
        self._connections = connections
        self._connection = connection
        self._deadline = deadline

    @property
    def is_here(self) -> bool:
        """Whether there is something to read."""
        return not self._connection.is_connected  # urllib3's word for: silent

    def result(self) -> Answer:
        """Wait for the answer. To be called once.

        Raises
        ------
        botocore.exceptions.ReadTimeoutError, ConnectionClosedError
            There is none, and the request may have had its effect.
        """
        return self._connections.receive(self._connection, self._deadline)
