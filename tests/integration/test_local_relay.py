"""The relay that lets containers in, and what ``sam local`` is given. (127.0.0.2 stands for Docker's bridge.)"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from local import sam_local
from local.errors import StackError
from local.machine import LOOPBACK, free_port
from local.relay import Relay

BRIDGE = "127.0.0.2"


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends one connection's bytes back, in capitals, and then closes it."""
    with socket.create_server((LOOPBACK, 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                while block := connection.recv(4096):
                    connection.sendall(block.upper())

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def test_bytes_go_both_ways_until_each_side_is_done(echo: int) -> None:
    with Relay(BRIDGE, [echo]), socket.create_connection((BRIDGE, echo), timeout=30) as connection:
        connection.sendall(b"one ")
        assert connection.recv(4096) == b"ONE "
        connection.sendall(b"two")
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while block := connection.recv(4096):
            received += block
        assert received == b"TWO"


def test_a_server_that_is_not_there_is_a_closed_connection() -> None:
    port = free_port()
    with Relay(BRIDGE, [port]), socket.create_connection((BRIDGE, port), timeout=30) as connection:
        assert connection.recv(1) == b""


def test_it_listens_no_more_when_it_is_closed() -> None:
    port = free_port()
    with Relay(BRIDGE, [port]):
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((BRIDGE, port), timeout=30)


def test_an_address_that_is_not_of_this_machine_is_named() -> None:
    with (
        pytest.raises(StackError, match=r"Containers cannot be let in at 192\.0\.2\.1"),
        Relay("192.0.2.1", [1]),
    ):
        pass


def test_sam_local_gets_the_endpoint_and_the_names_for_each_function(tmp_path: Path) -> None:
    build = tmp_path / "build"
    build.mkdir()
    template = {
        "Resources": {
            "Table": {"Type": "AWS::DynamoDB::Table"},
            "Named": {
                "Type": "AWS::Serverless::Function",
                "Properties": {"CodeUri": "Named", "Environment": {"Variables": {"TABLE": {"Ref": "Table"}}}},
            },
            "Plain": {"Type": "AWS::Serverless::Function", "Properties": {"CodeUri": "Plain"}},
        }
    }
    (build / "template.yaml").write_text(yaml.safe_dump(template))
    options = sam_local.prepare(
        build, tmp_path / "out", "http://here:1", {"Named": {"TABLE": "table-1"}, "Plain": {}}
    )
    paths = dict(zip(options[::2], options[1::2], strict=True))
    functions = yaml.safe_load(Path(paths["--template"]).read_text())["Resources"]
    assert {name: functions[name]["Properties"]["CodeUri"] for name in ("Named", "Plain")} == {
        name: str(build / name) for name in ("Named", "Plain")
    }
    # SAM hands on only what the template declares.
    assert "AWS_ENDPOINT_URL" in functions["Plain"]["Properties"]["Environment"]["Variables"]
    assert json.loads(Path(paths["--env-vars"]).read_text()) == {
        "Named": {"TABLE": "table-1", "AWS_ENDPOINT_URL": "http://here:1"},
        "Plain": {"AWS_ENDPOINT_URL": "http://here:1"},
    }


def test_what_runs_sam_local_reads_nothing_of_the_users_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    environment = sam_local.environment_of_sam("http://127.0.0.1:1")
    assert "AWS_PROFILE" not in environment
    assert "AWS_ENDPOINT_URL" not in environment, "SAM would hand it on to the functions, instead of theirs"
    assert environment["AWS_ENDPOINT_URL_STS"] == "http://127.0.0.1:1"
