"""An execution environment of a function, and the fault layer around its I/O.

The product's code runs unchanged. What is replaced lies around it: the HTTP session of each boto3 client, the
Postgres connection, the clock, and the caches that hold what an environment keeps between invocations, so
that several environments can live in one process.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

import pg8000.native
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError
from pg8000.exceptions import DatabaseError, InterfaceError

from tests.faults.faults import Killed, Kind
from tests.faults.services import error_body
from tests.unit.fake_dynamodb import Trouble

if TYPE_CHECKING:
    from tests.faults.world import World

SECONDS_A_STEP = 0.01
LOST_SECONDS = 10.0
"""What a client waits for an answer that does not come: the read timeout of common.clients."""

_THROTTLES = {
    "dynamodb": "ProvisionedThroughputExceededException",
    "kinesis": "ProvisionedThroughputExceededException",
    "s3": "SlowDown",
    "sqs": "ThrottlingException",
}
_SQLSTATES = {"deadlock": "40P01", "shutdown": "57P01", "locked": "55P03"}
_LOCAL = {"connect", "BEGIN", "PREPARE", "SET"}
"""Steps that nobody else can see: which of two invocations makes them first changes nothing."""
_running = threading.local()


def current() -> Environment:
    """The environment whose handler runs in this thread."""
    environment: Environment = _running.environment
    return environment


class Context:
    """The context of an invocation."""

    memory_limit_in_mb = 1024
    aws_request_id = "request-1"
    log_stream_name = "log-stream-1"

    def __init__(self, environment: Environment, deadline: float) -> None:
        self.function_name = environment.function
        self.invoked_function_arn = f"arn:aws:lambda:us-east-1:123456789012:function:{environment.function}"
        self.deadline = deadline
        self._clock = environment.world.clock

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self.deadline - self._clock.now) * 1000))


class Environment:
    """One execution environment of ``function``; ``skew`` is how far its clock is ahead, in seconds."""

    def __init__(self, world: World, function: str, skew: float = 0.0) -> None:
        self.world = world
        self.function = function
        self.skew = skew
        self.dead = False
        self.busy = False
        self.kept: dict[Any, Any] = {}
        """What the handlers' modules cache."""
        self.connections: list[Connection] = []
        self.owners: set[str] = set()
        """Owners of claims that it has written."""
        self._clients: dict[str, Any] = {}
        self._context: Context | None = None
        self._locked = False

    def now(self) -> float:
        """The time as this environment's clock has it."""
        return self.world.clock.now + self.skew

    def sleep(self, seconds: float) -> None:
        self.world.clock.now += seconds

    def client(self, service: str) -> Any:
        """A boto3 client whose requests end in this world."""
        if service not in self._clients:
            client = self._clients[service] = self.world.pool.take(service)
            client._endpoint.http_session = Transport(self, service)
        return self._clients[service]

    def invoke(self, handler: Callable[..., Any], event: Any, seconds: float) -> Any:
        """Run the handler. Raises what it raises, or Killed."""
        previous = getattr(_running, "environment", None)
        _running.environment, self.busy, self._locked = self, True, False
        self._context = Context(self, self.world.clock.now + seconds)
        try:
            answer = handler(event, self._context)
        except Killed:
            self.kill()
            raise
        finally:
            _running.environment, self.busy = previous, False
        if self.dead:  # somebody caught what may not be caught
            raise AssertionError("the handler went on after its process was killed")
        return json.loads(json.dumps(answer))

    def kill(self) -> None:
        """End the process: its connections break, what it kept is gone."""
        self.dead = True
        for connection in self.connections:
            connection.break_off()

    def retire(self) -> None:
        """Give the clients back; the environment is not used any more."""
        self.kill()
        for connection in self.connections:
            connection.discard()
        for service, client in self._clients.items():
            self.world.pool.give(service, client)
        self._clients.clear()

    def step(self, service: str, operation: str, port: Port) -> Any:
        """One I/O call, with the fault that is planned for it."""
        world = self.world
        if operation not in _LOCAL:
            world.pause(self)
        self._check_alive()
        world.clock.now += SECONDS_A_STEP
        fault = world.plan.next(self.function, service, operation)
        if fault == "locked":
            self._locked = True
        elif fault is None and self._locked and operation == "INSERT records":
            fault = "locked"
        match fault:
            case None:
                answer = port.perform()
            case "crash before":
                self._die()
            case "crash after":
                port.perform()
                self._die()
            case "slow":
                world.clock.now += 5
                answer = port.perform()
            case "late" | "timeout":
                answer = port.perform()
                deadline = self._context.deadline if self._context else world.clock.now
                world.clock.now = max(world.clock.now, deadline - (3 if fault == "late" else 0))
                self._check_alive()
            case "lost":
                port.perform()
                world.clock.now += LOST_SECONDS
                self._check_alive()
                answer = port.lose()
            case "refuse":
                answer = port.refuse()
            case _:
                answer = port.fail(fault)
        return answer

    def _check_alive(self) -> None:
        if self.dead:
            raise Killed
        if self._context and self.world.clock.now >= self._context.deadline:
            self._die()

    def _die(self) -> NoReturn:
        self.dead = True
        raise Killed


class Port:
    """One I/O call and the ways in which it can go wrong."""

    def perform(self) -> Any:
        raise NotImplementedError

    def lose(self) -> Any:
        raise NotImplementedError

    def refuse(self) -> Any:
        raise NotImplementedError

    def fail(self, fault: Kind) -> Any:
        raise NotImplementedError


class Transport:
    """In the place of a boto3 client's HTTP session."""

    def __init__(self, environment: Environment, service: str) -> None:
        self._environment = environment
        self._service = service

    def close(self) -> None:
        """Nothing is open."""

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        if self._service == "s3":
            operation = "HeadObject" if request.method == "HEAD" else "GetObject"
        else:
            target = request.headers["X-Amz-Target"]
            operation = (target.decode() if isinstance(target, bytes) else target).rpartition(".")[2]
        call = _HttpCall(self._environment, self._service, operation, request)
        answer: AWSResponse = self._environment.step(self._service, operation, call)
        return answer


class _HttpCall(Port):
    def __init__(
        self, environment: Environment, service: str, operation: str, request: AWSPreparedRequest
    ) -> None:
        self._environment = environment
        self._service = service
        self._operation = operation
        self._request = request

    def perform(self, part: Kind | None = None) -> AWSResponse:
        world = self._environment.world
        request = self._request
        if self._service == "s3":
            headers = {name.lower(): _text(value) for name, value in request.headers.items()}
            return response(*world.bucket.answer(request.method, request.url, headers))
        body = json.loads(request.body)
        if self._service == "dynamodb":
            return self._dynamodb(body, part)
        service = world.kinesis if self._service == "kinesis" else world.queue
        return response(200, {}, json.dumps(service.answer(self._operation, body, part)).encode())

    def _dynamodb(self, body: dict[str, Any], part: Kind | None) -> AWSResponse:
        world = self._environment.world
        ledger = body.get("TableName") == "ledger"
        table = world.ledger if ledger else world.claims
        trouble = None
        if part == "part":
            trouble = Trouble("items", "ThrottlingError", spare=lambda place: place % 2 == 1)
        elif part == "part after":
            trouble = Trouble("items after", "InternalServerError", spare=lambda place: place % 2 == 0)
        table.trouble = lambda number, operation, asked: trouble
        if ledger:
            return table.send(self._request)
        with world.watch(self._environment, self._operation, body):
            return table.send(self._request)

    def lose(self) -> AWSResponse:
        raise ReadTimeoutError(endpoint_url=self._request.url)

    def refuse(self) -> AWSResponse:
        raise EndpointConnectionError(endpoint_url=self._request.url)

    def fail(self, fault: Kind) -> AWSResponse:
        match fault:
            case "part" | "part after":
                return self.perform(fault)
            case "error" | "error after":
                if fault == "error after":
                    self.perform()
                code = "InternalError" if self._service == "s3" else "InternalServerError"
                return response(500, {}, error_body(self._service, code))
            case "throttle":
                code = _THROTTLES[self._service]
                return response(503 if self._service == "s3" else 400, {}, error_body(self._service, code))
            case "denied":
                code = "AccessDenied" if self._service == "s3" else "AccessDeniedException"
                return response(403 if self._service == "s3" else 400, {}, error_body(self._service, code))
            case "garbage":
                whole = self.perform()
                if self._service == "s3":  # the body breaks off
                    return response(whole.status_code, dict(whole.headers), whole.content[:-3])
                raise ConnectionClosedError(endpoint_url=self._request.url)
        raise AssertionError(fault)


class Connection(pg8000.native.Connection):  # type: ignore[misc]  # pg8000 has no types
    """A connection to the real Postgres; each message with its answer is a step."""

    def __init__(self, *arguments: Any, sock: Any, **options: Any) -> None:
        self._environment = current()
        self._socket = sock
        self._sock: Any = None
        self.pid: int | None = None
        """The server's process; None while it is not connected."""
        self.broken = False
        self._environment.connections.append(self)

        def connect() -> None:
            super(Connection, self).__init__(*arguments, sock=sock, **options)
            self.pid = int.from_bytes(self._backend_key_data[:4])

        self._step("connect", connect)

    def execute_simple(self, statement: str) -> Any:
        return self._step(_word(statement), lambda: super(Connection, self).execute_simple(statement))

    def execute_unnamed(self, statement: str, *arguments: Any, **options: Any) -> Any:
        return self._step(
            _word(statement),
            lambda: super(Connection, self).execute_unnamed(statement, *arguments, **options),
        )

    def prepare_statement(self, statement: str, *arguments: Any) -> Any:
        return self._step("PREPARE", lambda: super(Connection, self).prepare_statement(statement, *arguments))

    def execute_named(self, name: bytes, parameters: Any, *arguments: Any) -> Any:
        environment = self._environment
        environment.world.watch_insert(environment, parameters[0].split("\x1f"))
        arguments = (name, parameters, *arguments)
        return self._step("INSERT records", lambda: super(Connection, self).execute_named(*arguments))

    def close(self) -> None:
        if self._environment.dead:
            return
        super().close()

    def break_off(self) -> None:
        """The connection is gone, without a word to the server."""
        if not self.broken:
            self.broken = True
            with suppress(OSError):
                self._socket.shutdown(2)

    def discard(self) -> None:
        """Free what is left of it; what it had not sent yet is of no use to anybody."""
        for file in (self._sock, self._socket):
            with suppress(OSError, ValueError):
                if file is not None:
                    file.close()

    def raise_in_server(self, sqlstate: str) -> None:
        """Have the server refuse with this SQLSTATE, in the transaction that is open."""
        super().execute_simple(f"DO $$BEGIN RAISE EXCEPTION 'trouble' USING ERRCODE='{sqlstate}'; END$$")

    def _step(self, operation: str, call: Callable[[], Any]) -> Any:
        return self._environment.step("postgres", operation, _Query(self, call))


class _Query(Port):
    def __init__(self, connection: Connection, call: Callable[[], Any]) -> None:
        self._connection = connection
        self._call = call

    def perform(self) -> Any:
        return self._call()

    def lose(self) -> Any:
        self._connection.break_off()
        raise InterfaceError("network error") from TimeoutError("timed out")

    def refuse(self) -> Any:
        self._connection.break_off()
        raise InterfaceError("network error") from ConnectionResetError(104, "Connection reset by peer")

    def fail(self, fault: Kind) -> Any:
        try:
            self._connection.raise_in_server(_SQLSTATES[fault])
        except DatabaseError:
            if fault == "shutdown":
                self._connection.break_off()
            raise
        raise AssertionError("the server did not refuse")


class _Raw(io.BytesIO):
    def stream(self) -> list[bytes]:
        return [self.getvalue()]


def response(status: int, headers: dict[str, str], body: bytes) -> AWSResponse:
    """An answer as botocore's HTTP session gives it."""
    return AWSResponse("https://aws.test/", status, {"x-amzn-requestid": "r"} | headers, _Raw(body))


def _word(statement: str) -> str:
    words = statement.split(None, 3)
    return " ".join(words[: 3 if words[0] == "INSERT" else 1]).rstrip(";")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
