"""Requests by way of AWS's C runtime (``awscrt``): many under way at once, on one event loop thread.

DynamoDB speaks plain JSON: a body, the operation in ``X-Amz-Target``, a signature
(docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.LowLevelAPI.html). Signing, TLS and HTTP are
awscrt's own. What is left out is botocore's service model: for a call that carries 25 small items, walking it is most
of the work.

What differs from a call of the boto3 client: events of the client are not emitted, and X-Ray shows no subsegment for
these calls. The endpoint is the one of the region, also where the client would put the account's id into it.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from awscrt.auth import AwsCredentialsProvider, AwsSigningConfig, aws_sign_request
from awscrt.exceptions import AwsCrtError
from awscrt.http import HttpClientConnection, HttpHeaders, HttpRequest
from botocore.exceptions import (
    BotoCoreError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)
from pydantic_core import to_json

from oncestream.transport.answers import HttpAnswer
from oncestream.transport.crt_route import Route, keep_thread_state

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class CrtTransport:
    """Sends to the endpoint of ``client``, with its region, timeouts and proxies.

    The client itself is not called. Connections are opened as they are needed, and kept.

    Parameters
    ----------
    client
        A boto3 client. What is used of it is public: ``client.meta``.
    session
        Where credentials come from: a boto3 session, asked anew for each request. If there is none: boto3's default
        session, as for ``boto3.client``. A client does not tell its credentials, so one that was given keys of its own
        needs a session with the same keys here.
    verify
        As for ``boto3.client``: a file of certificate authorities to trust, or False for no verification. If there is
        none: the file that ``AWS_CA_BUNDLE`` names, or else the authorities that boto3 trusts. ``ca_bundle`` of a
        profile is not looked at.
    clock
        The time that requests are signed with: seconds since the epoch.

    Raises
    ------
    ValueError
        The client's configuration wants what this transport cannot do: a client certificate, ``proxies_config``, or a
        proxy that is not reached by HTTP or HTTPS. :class:`~oncestream.transport.boto3.Boto3Transport` can.
    """

    def __init__(
        self,
        client: DynamoDBClient,
        *,
        session: boto3.Session | None = None,
        verify: str | bool | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        config: Any = client.meta.config
        for setting in ("client_cert", "proxies_config"):
            if getattr(config, setting):
                raise ValueError(f"CrtTransport cannot use {setting} of the client: use Boto3Transport")
        self.url = client.meta.endpoint_url
        self.connect_seconds = float(config.connect_timeout)
        self.read_seconds = float(config.read_timeout)
        self.route = Route(self.url, config, verify)
        self._path = urlsplit(self.url).path or "/"
        self._headers = [
            ("Host", self.route.host),
            ("Accept-Encoding", "identity"),
            ("Content-Type", "application/x-amz-json-1.0"),
            ("User-Agent", config.user_agent),
        ]
        self._signer = _Signer(session, client.meta.region_name, clock)
        self._idle: deque[HttpClientConnection] = deque()

    def send(self, operation: str, request: dict[str, Any]) -> Exchange:
        """Send one request: :meth:`oncestream.transport.Transport.send`. Waits for nothing, not for a connection."""
        body = to_json(request)
        headers = [
            *self._headers,
            ("X-Amz-Target", f"DynamoDB_20120810.{operation}"),
            ("Content-Length", str(len(body))),
        ]
        http = HttpRequest("POST", self._path, HttpHeaders(headers), BytesIO(body))
        self._signer.sign(http)
        exchange = Exchange(self, operation, http)
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open() and exchange.begin(connection):
                return exchange
        exchange.wait_for(self.route.connect())
        return exchange

    def keep(self, connection: HttpClientConnection) -> None:
        """Take a connection back, for another request."""
        self._idle.append(connection)


class NoConnectionInTimeError(ConnectTimeoutError):
    """There was no connection in time. The request was not sent, and will not be."""

    # After a failure of TLS the C runtime waits for 10 to 30 seconds, at random, before it tells: so that an attacker
    # cannot learn from the time (s2n-tls usage guide, "Blinding").
    fmt = (
        'No connection to "{endpoint_url}" in time. It cannot be reached, or its certificate is not one that '
        "AWS_CA_BUNDLE or the default authorities vouch for."
    )


class _Signer:
    """Signs requests to DynamoDB with a session's credentials, which may change, and the clock's day."""

    def __init__(self, session: boto3.Session | None, region: str, clock: Callable[[], float]) -> None:
        self._session = session
        self._region = region
        self._clock = clock
        self._credentials: Any = None
        self._provider: tuple[Any, AwsCredentialsProvider | None] = (None, None)

    def sign(self, request: HttpRequest) -> None:
        """Add the headers of a signature.

        Raises
        ------
        botocore.exceptions.BotoCoreError
            There are no credentials, or none that are still valid.
        """
        config = AwsSigningConfig(
            credentials_provider=self._current(),
            region=self._region,
            service="dynamodb",
            date=dt.datetime.fromtimestamp(self._clock(), dt.UTC),
        )
        aws_sign_request(request, config).result()

    def _current(self) -> AwsCredentialsProvider | None:
        if self._credentials is None:
            session = self._session or boto3.DEFAULT_SESSION or boto3.Session()
            self._credentials = session.get_credentials()
            if self._credentials is None:
                raise NoCredentialsError
        frozen = self._credentials.get_frozen_credentials()  # which renews them when they are about to expire
        known, provider = self._provider
        if known != frozen:
            provider = AwsCredentialsProvider.new_static(frozen.access_key, frozen.secret_key, frozen.token)
            self._provider = (frozen, provider)
        return provider


class Exchange:
    """A request and what becomes of it: a :class:`oncestream.transport.Pending`."""

    def __init__(self, transport: CrtTransport, operation: str, request: HttpRequest) -> None:
        self._transport = transport
        self._operation = operation
        self._request = request
        self._answer: Future[HttpAnswer] = Future()
        self._deciding = threading.RLock()
        """Held by whoever sends, ends or gives up: the event loop's thread, or the one that waits."""
        self._connection: HttpClientConnection | None = None
        self._connecting: threading.Event | None = None
        """Set when it is known whether there is a connection. None if there was one to begin with."""
        self._until = time.monotonic() + transport.connect_seconds
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body = bytearray()

    def done(self) -> bool:
        """Whether the answer is here, or it is known that there is none."""
        return self._answer.done()

    def result(self) -> dict[str, Any]:
        """The answer: :meth:`oncestream.transport.Pending.result`."""
        if self._connecting is not None and not self._connecting.wait(self._seconds_left()):
            with self._deciding:
                if self._connection is None:
                    self._fail(NoConnectionInTimeError(endpoint_url=self._transport.url))
        try:
            answer = self._answer.result(self._seconds_left())
        except TimeoutError:
            self._fail(ReadTimeoutError(endpoint_url=self._transport.url))
            answer = self._answer.result()
        return answer.read(self._operation)

    def wait_for(self, connecting: Future[HttpClientConnection]) -> None:
        """Send the request when there is a connection."""
        self._connecting = threading.Event()
        connecting.add_done_callback(self._connected)

    def _connected(self, connecting: Future[HttpClientConnection]) -> None:
        keep_thread_state()
        error = connecting.exception()
        if error is not None:
            self._fail(self._transport.route.why_not(error))
        elif not self.begin(connecting.result()):
            self._fail(EndpointConnectionError(endpoint_url=self._transport.url))
        if self._connecting is not None:
            self._connecting.set()

    def begin(self, connection: HttpClientConnection) -> bool:
        """Send the request. False: the connection is closed, and nothing was sent."""
        with self._deciding:
            if self._answer.done():  # given up: whoever has waited must be right in that nothing was sent
                self._transport.keep(connection)
                return True
            try:
                stream = connection.request(self._request, self._on_response, self._on_body)
                stream.activate()
            except AwsCrtError:
                return False
            self._connection = connection
            self._until = time.monotonic() + self._transport.read_seconds
        stream.completion_future.add_done_callback(self._on_end)
        return True

    def _on_response(self, *, status_code: int, headers: list[tuple[str, str]], **_: Any) -> None:
        self._status, self._headers = status_code, {name.lower(): value for name, value in headers}

    def _on_body(self, *, chunk: bytes, **_: Any) -> None:
        self._body += chunk

    def _on_end(self, ended: Future[int]) -> None:
        connection = self._connection
        error = ended.exception()
        if error is not None:
            self._fail(ConnectionClosedError(endpoint_url=self._transport.url, error=error))
            return
        if self._headers.get("connection", "").lower() != "close":
            self._transport.keep(connection)
        with self._deciding:
            if not self._answer.done():
                self._answer.set_result(HttpAnswer(self._status, self._headers, self._body))

    def _fail(self, error: BotoCoreError) -> None:
        with self._deciding:
            if self._connection is not None:
                self._connection.close()
            if not self._answer.done():
                self._answer.set_exception(error)

    def _seconds_left(self) -> float:
        return max(0.0, self._until - time.monotonic())
