"""mitmproxy with our addon, in front of a server that counts: each fault does what its name says."""

from __future__ import annotations

import http.server
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.proxy import Proxy
from chaos.wire import CALM, Rates
from tests.ended import all_end


class Server(http.server.ThreadingHTTPServer):
    """Answers every POST, and counts them."""

    requests = 0


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        self.server.requests += 1
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), _Handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture(scope="module")
def proxy(server: Server, server_directory: Path) -> Iterator[Proxy]:
    with Proxy(server_directory / "proxy", server.server_port, seed=1) as made:
        yield made


def _post(proxy: Proxy) -> int | str:
    """The status of the answer, or the name of what happened instead."""
    headers = {"X-Amz-Target": "DynamoDB_20120810.PutItem"}
    request = urllib.request.Request(f"{proxy.endpoint}/", data=b"{}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return type(error).__name__


@pytest.mark.parametrize(
    ("kind", "answer", "carried_out"),
    [
        ("delayed", 200, True),
        ("refused", "RemoteDisconnected", False),
        ("unavailable", 503, False),
        ("dropped", "RemoteDisconnected", True),
        ("failed", 500, True),
    ],
)
def test_a_fault_does_what_it_says(
    proxy: Proxy, server: Server, kind: str, answer: int | str, carried_out: bool
) -> None:
    before, noted = server.requests, len(proxy.entries())
    proxy.set_rates(Rates(**{kind: 1.0}))
    assert _post(proxy) == answer
    assert server.requests - before == int(carried_out)
    (entry,) = proxy.entries()[noted:]
    assert (entry["kind"], entry["operation"]) == (kind, "DynamoDB.PutItem")
    assert entry["status"] == (200 if carried_out else None)
    assert abs(entry["time"] - time.time()) < 60


def test_a_calm_lets_everything_through(proxy: Proxy, server: Server) -> None:
    before, noted = server.requests, len(proxy.entries())
    proxy.set_rates(CALM)
    assert [_post(proxy) for _ in range(20)] == [200] * 20
    assert server.requests - before == 20
    assert len(proxy.entries()) == noted


def test_at_its_end_it_says_how_many_requests_it_saw(server: Server, server_directory: Path) -> None:
    with Proxy(server_directory / "ending", server.server_port, seed=1) as made:
        assert made._child is not None
        with all_end([made._child.pid, made._child.guard_pid]):
            _post(made)
            _post(made)
            made.stop()
    assert made.entries()[-1]["requests"] == 2
