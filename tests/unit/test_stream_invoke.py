"""What answers like a function: a URL, a Python handler in process."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lambda_esm.invoke import HandlerInvoker, UrlInvoker
from lambda_esm.records import Answered, Batch, FunctionFailed, NotInvoked
from tests.unit.stream_records import mapping, records

BATCH = Batch(tuple(records(1, 2)))


class Emulator(BaseHTTPRequestHandler):
    """Answers what the server's ``answer`` says, and keeps what it was sent."""

    def do_POST(self) -> None:
        server: Any = self.server
        server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        status, headers, body = server.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def emulator() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Emulator)
    server.bodies = []
    threading.Thread(target=server.serve_forever, args=(0.01,)).start()
    yield server
    server.shutdown()
    server.server_close()


ERROR = {"errorType": "ValueError", "errorMessage": "bad"}


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        (200, {}, b'{"batchItemFailures": []}', Answered({"batchItemFailures": []})),
        (200, {"X-Amzn-RequestId": "r"}, b"", Answered(None, "r")),
        (200, {}, json.dumps(ERROR).encode(), FunctionFailed(ERROR)),
        (200, {"X-Amz-Function-Error": "Unhandled"}, b'"x"', FunctionFailed("x")),
        (200, {}, b"Task timed out after 3.00 seconds", FunctionFailed("Task timed out after 3.00 seconds")),
        (502, {}, b'{"errorType": "Runtime.ExitError"}', FunctionFailed({"errorType": "Runtime.ExitError"})),
    ],
)
def test_an_answer_of_the_emulator_is_understood(
    emulator: Any, status: int, headers: dict[str, str], body: bytes, expected: object
) -> None:
    emulator.answer = (status, headers, body)
    invoker = UrlInvoker(f"http://127.0.0.1:{emulator.server_port}/function")

    assert invoker.invoke(mapping(), BATCH) == expected
    assert emulator.bodies == [BATCH.payload]


@pytest.mark.parametrize("status", [400, 429, 503])
def test_an_emulator_that_is_busy_was_not_invoked(emulator: Any, status: int) -> None:
    emulator.answer = (status, {}, b"busy")
    outcome = UrlInvoker(f"http://127.0.0.1:{emulator.server_port}/").invoke(mapping(), BATCH)

    assert isinstance(outcome, NotInvoked)
    assert f"status {status}: busy" in outcome.reason


def test_a_url_that_nothing_answers_at_is_named_with_the_cure() -> None:
    outcome = UrlInvoker("http://127.0.0.1:1/").invoke(mapping(), BATCH)

    assert isinstance(outcome, NotInvoked)
    assert "POST http://127.0.0.1:1/" in outcome.reason
    assert "start the function, or correct --function-url" in outcome.reason


class TestHandler:
    def test_it_gets_the_event_and_a_context_and_its_answer_is_json(self) -> None:
        seen: list[Any] = []

        def handler(event: Any, context: Any) -> Any:
            seen.append((event, context))
            event["Records"].clear()  # of no effect on a retry
            return {"batchItemFailures": ()}

        outcome = HandlerInvoker({"*": handler}).invoke(mapping(), BATCH)

        assert outcome == Answered({"batchItemFailures": []}, seen[0][1].aws_request_id)
        context = seen[0][1]
        assert (context.function_name, context.invoked_function_arn) == ("consumer", mapping().function_arn)
        assert 0 < context.get_remaining_time_in_millis() <= 900_000
        assert len(BATCH.event["Records"]) == 2

    def test_what_it_raises_is_a_function_error_as_lambda_tells_it(self) -> None:
        def handler(_: Any, __: Any) -> None:
            raise KeyError("id")

        outcome = HandlerInvoker({"consumer": handler}).invoke(mapping(), BATCH)

        assert isinstance(outcome, FunctionFailed)
        assert (outcome.error["errorType"], outcome.error["errorMessage"]) == ("KeyError", "'id'")
        assert "test_stream_invoke.py" in outcome.error["stackTrace"][0]

    def test_an_answer_that_is_no_json_is_a_function_error(self) -> None:
        outcome = HandlerInvoker({"*": lambda *_: {1, 2}}).invoke(mapping(), BATCH)

        assert isinstance(outcome, FunctionFailed)
        assert outcome.error["errorType"] == "TypeError"

    def test_a_function_without_a_handler_is_not_invoked(self) -> None:
        outcome = HandlerInvoker({"other": lambda *_: None}).invoke(mapping(), BATCH)

        assert outcome == NotInvoked("no handler is given for the function consumer")

    @pytest.mark.parametrize(("reload", "second"), [(True, "new"), (False, "old")])
    def test_a_module_is_imported_anew_when_it_has_changed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, reload: bool, second: str
    ) -> None:
        name = f"changing_app_{reload}".lower()
        file = tmp_path / f"{name}.py"
        file.write_text("def handler(event, context): return 'old'")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        invoker = HandlerInvoker({"*": f"{name}:handler"}, reload=reload)
        first = invoker.invoke(mapping(), BATCH)
        file.write_text("def handler(event, context): return 'new'")
        os.utime(file, (2_000_000_000, 2_000_000_000))

        then = invoker.invoke(mapping(), BATCH)

        assert isinstance(first, Answered)
        assert isinstance(then, Answered)
        assert (first.response, then.response) == ("old", second)
