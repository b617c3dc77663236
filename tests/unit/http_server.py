"""A server on a real socket, and a proxy, for tests of what is sent by HTTP.

Whoever wants to stand between the product and DynamoDB starts a :class:`Server` and gives a boto3 client its ``url``
as ``endpoint_url``: every transport sends there. What it answers is what ``respond`` makes of the request's body.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def reply(body: bytes, *headers: bytes, status: int = 200) -> bytes:
    """An answer with this body, as bytes on the wire."""
    length = b"Content-Length: %d" % len(body)
    lines = (b"HTTP/1.1 %d X" % status, b"x-amzn-RequestId: r-1", length, *headers, b"")
    return b"".join(line + b"\r\n" for line in lines) + body


def reply_json(answer: Any, *headers: bytes, status: int = 200) -> bytes:
    """An answer whose body is ``answer`` as JSON."""
    return reply(json.dumps(answer).encode(), *headers, status=status)


class Server(ThreadingHTTPServer):
    """Sends what ``respond`` makes of a request's body, byte for byte; nothing more after what is cut off.

    Parameters
    ----------
    certificate
        Its PEM file with key and certificate, for TLS.
    version
        The one TLS version that it speaks.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        respond: Callable[[bytes], bytes] = reply,
        certificate: Path | None = None,
        version: ssl.TLSVersion | None = None,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.respond = respond
        self.connections: list[socket.socket] = []
        self.headers: list[dict[str, str]] = []
        """Of each request."""
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        self._tls: ssl.SSLContext | None = None
        if certificate:
            self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._tls.load_cert_chain(certificate)
            if version:
                self._tls.minimum_version = self._tls.maximum_version = version
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def get_request(self) -> tuple[socket.socket, Any]:
        accepted, address = super().get_request()
        if self._tls:  # the thread of the connection shakes hands, at its first read
            accepted = self._tls.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        self.connections.append(accepted)
        return accepted, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that does not trust us hangs up."""

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        self.server.headers.append(dict(self.headers))
        self.server.paths.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(body)
        answer = self.server.respond(body)
        self.wfile.write(answer)
        head, _, content = answer.partition(b"\r\n\r\n")
        whole = b"Content-Length: %d\r\n" % len(content) in head + b"\r\n"
        self.close_connection = b"Connection: close" in head or not whole

    def do_HEAD(self) -> None:
        self.wfile.write(self.server.respond(b""))
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


class Proxy(Server):
    """Connects clients to ``behind`` whatever they ask for, or to nobody if there is none."""

    def __init__(self, behind: Server | None = None, certificate: Path | None = None) -> None:
        self.behind = behind
        self.asked: list[tuple[str, str | None]] = []
        """Where clients wanted to go, and how they logged in."""
        super().__init__(certificate=certificate)
        self.RequestHandlerClass = _Tunnel


class _Tunnel(_Handler):
    server: Proxy

    def do_CONNECT(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Proxy-Authorization")))
        self.close_connection = True
        if self.server.behind is None:
            self.send_error(502)
            return
        behind = socket.create_connection(self.server.behind.server_address[:2])
        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        back = threading.Thread(target=_pump, args=(behind, self.connection), daemon=True)
        back.start()
        _pump(self.connection, behind)
        back.join(10)
        behind.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # one of the two has hung up
