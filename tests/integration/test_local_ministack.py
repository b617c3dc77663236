"""MiniStack as a child process."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from local.errors import StackError
from local.machine import LOOPBACK, free_port
from local.ministack import MiniStack
from tests.ended import all_end

FUNCTION = """
import json, os, sys

def handler(event, context):
    return {"environment": dict(os.environ), "version": sys.version_info[:2], "pid": os.getpid()}
"""


@pytest.fixture
def emulator(server_directory: Path, request: pytest.FixtureRequest) -> Iterator[MiniStack]:
    """An emulator of the test's own, which it may stop."""
    with MiniStack(server_directory / request.node.name[:60], environment={"EXTRA": "one"}) as emulator:
        yield emulator


def invoke(emulator: MiniStack) -> dict[str, object]:
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("shown.py", FUNCTION)
    functions = emulator.client("lambda")
    functions.create_function(
        FunctionName="shown",
        Runtime="python3.13",
        Handler="shown.handler",
        Role="arn:aws:iam::000000000000:role/any",
        Code={"ZipFile": package.getvalue()},
    )
    answer: dict[str, object] = json.loads(functions.invoke(FunctionName="shown")["Payload"].read())
    return answer


def test_functions_run_on_python_3_13_in_a_clean_environment_that_knows_the_endpoint(
    emulator: MiniStack,
) -> None:
    os.environ["SECRET_OF_THE_USER"] = "yes"
    try:
        answer = invoke(emulator)
    finally:
        del os.environ["SECRET_OF_THE_USER"]
    environment = answer["environment"]
    assert isinstance(environment, dict)
    assert answer["version"] == [3, 13]
    assert environment["AWS_ENDPOINT_URL"] == emulator.endpoint
    assert environment["EXTRA"] == "one"
    assert not {"SECRET_OF_THE_USER", "AWS_CONFIG_FILE", "PYTHONPATH", "PIP_CERT"} & environment.keys()
    assert Path(environment["TMPDIR"]).is_relative_to(emulator.directory)
    assert Path(environment["LAMBDA_TASK_ROOT"]).is_relative_to(emulator.directory)


def test_stop_ends_the_functions_and_removes_their_code(emulator: MiniStack) -> None:
    pid = invoke(emulator)["pid"]
    assert isinstance(pid, int)
    with all_end([emulator.pid, pid]):
        emulator.stop()
    assert [entry.name for entry in emulator.directory.iterdir()] == ["ministack.log"]


def test_functions_end_with_an_emulator_that_is_killed(emulator: MiniStack) -> None:
    pid = invoke(emulator)["pid"]
    assert isinstance(pid, int)
    with all_end([emulator.pid, pid]):
        os.kill(emulator.pid, signal.SIGKILL)
    assert not emulator.is_running


def test_it_listens_on_the_loopback_address_only(emulator: MiniStack) -> None:
    listening = {
        connection.laddr
        for connection in psutil.Process(emulator.pid).net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {(LOOPBACK, emulator.port)}


def test_a_port_that_is_given_and_in_use_is_an_error(server_directory: Path) -> None:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(StackError, match=f"Port {port} is in use, so MiniStack cannot listen"):
            MiniStack(server_directory / "port-in-use", port=port).start()


def test_a_free_port_that_is_taken_in_the_last_moment_is_replaced_by_another(
    server_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        taken = listener.getsockname()[1]
        ports = [taken, free_port()]
        monkeypatch.setattr("local.ministack.free_port", lambda: ports.pop(0))
        with MiniStack(server_directory / "port-taken") as emulator:
            assert emulator.port != taken
            emulator.client("sqs").list_queues()


def test_an_emulator_that_does_not_get_ready_shows_the_end_of_its_log(server_directory: Path) -> None:
    broken = MiniStack(server_directory / "broken", environment={"PYTHONHOME": "/nowhere"})
    with pytest.raises(
        StackError, match=r"MiniStack did not get ready on http://127\.0\.0\.1:\d+\. The end of"
    ):
        broken.start()
    assert not broken.is_running
