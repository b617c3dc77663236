"""Requests under way at once, against a real socket at the other end."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ConnectionClosedError,
    EndpointConnectionError,
    ReadTimeoutError,
    SSLError,
)

from common.connections import Connections, host_of
from common.dynamodb import Fault
from tests.unit.certificates import Authority

SHORT = 0.2
"""Seconds that a client waits for an answer in vain."""


def reply(body: bytes, *headers: bytes) -> bytes:
    return (
        b"".join(
            line + b"\r\n" for line in (b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *headers, b"")
        )
        + body
    )


class Server(ThreadingHTTPServer):
    """Sends what ``respond`` makes of a request's body, byte for byte; nothing more after what is cut off."""

    daemon_threads = True

    def __init__(self, respond: Callable[[bytes], bytes] = reply, certificate: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.respond = respond
        self.connections: list[socket.socket] = []
        self.headers: list[dict[str, str]] = []
        if certificate:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.server_port}/"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def get_request(self) -> tuple[socket.socket, Any]:
        accepted = super().get_request()
        self.connections.append(accepted[0])
        return accepted

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that does not trust us hangs up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        self.server.headers.append(dict(self.headers))
        answer = self.server.respond(self.rfile.read(int(self.headers["Content-Length"])))
        self.wfile.write(answer)
        self.close_connection = b"Connection: close" in answer or b"200 OK\r\nContent-Length" not in answer

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*arguments: Any, **named: Any) -> Server:
        servers.append(Server(*arguments, **named))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def connections(url: str, *, verify: str | None = None, **config: Any) -> Connections:
    client: Any = boto3.client(
        "dynamodb",
        region_name="eu-central-1",
        endpoint_url=url,
        aws_access_key_id="AKID",
        aws_secret_access_key="secret",
        verify=verify,
        config=Config(**config),
    )
    session = client._endpoint.http_session
    assert Connections.serve(session, url)
    return Connections(session, url)


def post(to: Connections, body: bytes = b"{}") -> Any:
    return to.send({"X-Amz-Target": "X", "Content-Length": str(len(body))}, body)


def test_requests_are_under_way_at_once_and_each_gets_its_own_answer(serve: Callable[..., Server]) -> None:
    together = threading.Barrier(3, timeout=10)

    def respond(body: bytes) -> bytes:
        together.wait()  # nobody is answered before all have asked
        return reply(b"answer to " + body)

    server = serve(respond)
    to = connections(server.url)
    pending = [post(to, body) for body in (b"a", b"b", b"c")]
    assert [each.result().content for each in pending] == [b"answer to a", b"answer to b", b"answer to c"]
    assert len(server.connections) == 3


def test_a_connection_is_used_again(serve: Callable[..., Server]) -> None:
    server = serve()
    to = connections(server.url)
    assert [post(to, body).result().content for body in (b"a", b"b", b"c")] == [b"a", b"b", b"c"]
    assert len(server.connections) == 1


def test_what_is_sent_is_what_http_asks_for(serve: Callable[..., Server]) -> None:
    server = serve()
    answer = post(connections(server.url), b"{}").result()
    assert server.headers == [
        {
            "Host": f"127.0.0.1:{server.server_port}",
            "Accept-Encoding": "identity",
            "X-Amz-Target": "X",
            "Content-Length": "2",
        }
    ]
    assert (answer.status_code, answer.headers["content-length"]) == (200, "2")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://dynamodb.eu-central-1.amazonaws.com/", "dynamodb.eu-central-1.amazonaws.com"),
        ("https://example.com:443/", "example.com"),
        ("http://example.com:80/", "example.com"),
        ("http://example.com:443/", "example.com:443"),
        ("http://127.0.0.1:4566/", "127.0.0.1:4566"),
    ],
)
def test_the_host_has_a_port_where_it_is_not_the_usual_one(url: str, host: str) -> None:
    assert host_of(url) == host


def test_an_answer_is_there_when_it_has_come(serve: Callable[..., Server]) -> None:
    asked, may_answer = threading.Event(), threading.Event()

    def respond(body: bytes) -> bytes:
        asked.set()
        assert may_answer.wait(10)
        return reply(body)

    pending = post(connections(serve(respond).url))
    assert asked.wait(10)
    assert not pending.is_here
    may_answer.set()
    while not pending.is_here:  # ends with the answer; nothing is waited for without one
        pass
    assert pending.result().content == b"{}"


def test_a_server_that_says_goodbye_gets_a_new_connection(serve: Callable[..., Server]) -> None:
    server = serve(lambda body: reply(body, b"Connection: close"))
    to = connections(server.url)
    assert [post(to).result().status_code for _ in range(2)] == [200, 200]
    assert len(server.connections) == 2


def test_a_connection_that_was_closed_while_idle_is_not_used(serve: Callable[..., Server]) -> None:
    server = serve()
    to = connections(server.url)
    post(to).result()
    server.connections[0].shutdown(socket.SHUT_RDWR)
    kept = to._idle[0]
    while kept.is_connected:  # until the end of the connection has reached this side
        pass
    assert post(to).result().status_code == 200
    assert len(server.connections) == 2


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Le", reply(b"{}")[:-1] + b"\r\nConnection: close", b"garbage\r\n\r\n"],
    ids=["none", "half a head", "a short body", "not HTTP"],
)
def test_an_answer_that_breaks_off_leaves_open_what_was_done(
    serve: Callable[..., Server], answer: bytes
) -> None:
    cut = answer.replace(b"Content-Length: 2", b"Content-Length: 99")
    to = connections(serve(lambda body: cut).url)
    with pytest.raises(ConnectionClosedError, match=r"127\.0\.0\.1") as caught:
        post(to).result()
    assert Fault.of_request(caught.value).ambiguous
    assert not to._idle


def test_an_answer_that_does_not_come_in_time_leaves_open_what_was_done(
    serve: Callable[..., Server],
) -> None:
    over = threading.Event()

    def respond(body: bytes) -> bytes:
        over.wait(10)
        return reply(body)

    to = connections(serve(respond).url, read_timeout=SHORT)
    with pytest.raises(ReadTimeoutError) as caught:
        post(to).result()
    over.set()
    assert Fault.of_request(caught.value).ambiguous
    assert not to._idle


def test_a_connection_whose_answer_nobody_asked_for_is_not_used_again(serve: Callable[..., Server]) -> None:
    server = serve()
    to = connections(server.url)
    post(to, b"forgotten")
    assert post(to, b"mine").result().content == b"mine"
    assert len(server.connections) == 2


@pytest.mark.parametrize("host", ["127.0.0.1:1", "no-such-host.invalid"])
def test_without_a_server_nothing_was_sent(host: str) -> None:
    with pytest.raises(EndpointConnectionError, match=host) as caught:
        post(connections(f"http://{host}/"))
    assert not Fault.of_request(caught.value).ambiguous


def test_a_server_is_verified_as_the_client_says(serve: Callable[..., Server], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = serve(certificate=authority.certificate("127.0.0.1"))
    assert post(connections(server.url, verify=str(authority.file))).result().content == b"{}"
    with pytest.raises(SSLError) as caught:
        post(connections(server.url))
    assert not Fault.of_request(caught.value).ambiguous


def test_a_proxy_and_whoever_stands_in_are_given_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def session(**config: Any) -> Any:
        client: Any = boto3.client("dynamodb", region_name="eu-central-1", config=Config(**config))
        return client._endpoint.http_session

    url = "https://dynamodb.eu-central-1.amazonaws.com/"
    assert Connections.serve(session(), url)
    assert not Connections.serve(session(proxies={"https": "http://proxy:3128"}), url)
    assert not Connections.serve(object(), url)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    assert not Connections.serve(session(), url)
    monkeypatch.setenv("NO_PROXY", "amazonaws.com")
    assert Connections.serve(session(), url)


def test_every_failure_is_one_of_botocores() -> None:
    for error in (ConnectionClosedError, EndpointConnectionError, ReadTimeoutError, SSLError):
        assert issubclass(error, BotoCoreError)
