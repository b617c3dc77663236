"""A function in a process of its own, which is really killed (SIGKILL) before or after one of its calls.

What the process asks of AWS is answered by the world that started it, and Postgres is real. Before and after
each call it waits for a word from there, so it dies exactly where it is meant to.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from types import SimpleNamespace
from typing import Any, Literal

from botocore.awsrequest import AWSPreparedRequest, AWSResponse

from lambda_esm import Answered, FunctionFailed
from oncestream.transport.boto3 import Boto3Transport
from tests.faults.environment import Environment
from tests.faults.faults import names_of
from tests.faults.links import Links
from tests.faults.ports import Port
from tests.faults.seams import installed
from tests.faults.transport import HttpCall, Transport, operation_of, response
from tests.faults.world import HANDLERS, TIMEOUTS, World
from tests.unit.fake_dynamodb import Clock


@dataclass
class Doomed:
    """Runs one invocation in a process and kills it ``when`` it makes the call of this name ("COMMIT 2")."""

    world: World
    variables: dict[str, str]
    call: str
    when: Literal["before", "after"]
    killed: bool = False

    def invoke(self, function: str, event: Any) -> Answered | FunctionFailed:
        """Invoke the function; see ``killed``."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, self.variables, function, event, self.world.clock.now), daemon=True
        )
        process.start()
        theirs.close()
        try:
            self._attend(ours, self.world.environment(function), process.pid or 0)
        except EOFError:
            return FunctionFailed({"errorType": "Runtime.ExitError"})
        finally:
            process.join()
            self.killed = process.exitcode == -signal.SIGKILL
        return Answered({"batchItemFailures": []})

    def _attend(self, pipe: Pipe, environment: Environment, pid: int) -> None:
        """Answer the process's questions until it ends."""
        counts: Counter[tuple[str, str]] = Counter()
        while True:
            match pipe.recv():
                case ("before" | "after" as when, operation):
                    counts[when, operation] += 1
                    if when == self.when and self.call in names_of(operation, counts[when, operation]):
                        os.kill(pid, signal.SIGKILL)
                        environment.dead = True
                    else:
                        pipe.send(None)
                case (service, operation, method, url, headers, body):
                    request = AWSPreparedRequest(method, url, headers, body, stream_output=False)
                    answer = HttpCall(environment, service, operation, request).perform()
                    pipe.send((answer.status_code, dict(answer.headers), answer.content))
                case None:
                    return


def _serve(pipe: Pipe, variables: dict[str, str], function: str, event: Any, now: float) -> None:
    with installed(**variables):
        world: Any = SimpleNamespace(
            clock=Clock(now),
            links=Links(),
            way="memory",
            patience=0.0,
            order=0,
            environments=lambda: (),
            turns=None,
            slice_records=1_000,
            rules=SimpleNamespace(storing=lambda environment, ids: None),
        )
        _Remote(world, function, pipe).invoke(HANDLERS[function], event, TIMEOUTS[function])
        pipe.send(None)


class _Remote(Environment):
    """The environment in the process."""

    def __init__(self, world: World, function: str, pipe: Pipe) -> None:
        super().__init__(world, function)
        self.pipe = pipe
        self.transport = Boto3Transport(self.client("dynamodb"), threads=1)  # type: ignore[assignment]

    def client(self, service: str) -> Any:
        client = super().client(service)
        client._endpoint.http_session = _RemoteTransport(self, service)
        return client

    def step(self, service: str, operation: str, port: Port, *, alone: bool = False) -> Any:
        self._ask("before", operation)
        answer = port.perform()
        self._ask("after", operation)
        return answer

    def _ask(self, when: str, operation: str) -> None:
        self.pipe.send((when, operation))
        self.pipe.recv()


class _RemoteTransport(Transport):
    def __init__(self, environment: _Remote, service: str) -> None:
        super().__init__(environment, service)
        self._pipe = environment.pipe

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        operation = operation_of(self._service, request)
        headers = dict(request.headers.items())
        asked = (self._service, operation, request.method, request.url, headers, request.body)

        def ask() -> AWSResponse:
            self._pipe.send(asked)
            return response(*self._pipe.recv())

        answer: AWSResponse = self._environment.step(self._service, operation, _Call(ask))
        return answer


class _Call(Port):
    def __init__(self, perform: Callable[[], AWSResponse]) -> None:
        self._perform = perform

    def perform(self) -> AWSResponse:
        return self._perform()
