"""How an environment's requests get to AWS: in memory, or over sockets of their own."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from pydantic_core import to_json

from common import clients
from oncestream.transport.answers import HttpAnswer
from oncestream.transport.boto3 import Boto3Transport
from oncestream.transport.crt import CrtTransport
from tests.faults.ports import Port
from tests.faults.transport import HttpCall, Transport, operation_of, touches_of
from tests.faults.wire import Door, Held, Network, Pending

if TYPE_CHECKING:
    from collections.abc import Callable

    from oncestream.transport import Transport as AnyTransport
    from tests.faults.environment import Environment
    from tests.faults.faults import Kind
    from tests.faults.turns import Touches

type Way = Literal["memory", "boto3", "crt"]
"""In memory; or over sockets, and the consumer's claims by boto3 in threads, or by AWS's C runtime."""

PATIENT_SECONDS = 20.0
IMPATIENT_SECONDS = 0.3
"""How long a client on sockets really waits for an answer. Where it is to wait in vain, less."""
MOST_IN_FLIGHT = 4


class MemoryLink:
    """Requests that never get to a socket."""

    def __init__(self, environment: Environment, links: Links) -> None:
        self._environment = environment
        self._links = links
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """A boto3 client."""
        if service not in self._clients:
            client = self._clients[service] = self._links.take(service)
            client._endpoint.http_session = Transport(self._environment, service)
        return self._clients[service]

    def call(self, operation: str, request: dict[str, Any]) -> Port:
        """A request to DynamoDB, for a transport."""
        return _MemoryCall(self._environment, operation, request)

    def break_off(self) -> None:
        """The environment's process has ended."""

    def close(self) -> None:
        """Nobody uses it any more."""
        for service, client in self._clients.items():
            self._links.give(service, client)
        self._clients.clear()


class _MemoryCall(Port):
    """What CrtTransport does with a request and its answer, without awscrt in between."""

    def __init__(self, environment: Environment, operation: str, request: dict[str, Any]) -> None:
        self._operation = operation
        headers: Any = {"X-Amz-Target": f"DynamoDB_20120810.{operation}"}
        prepared = AWSPreparedRequest("POST", "https://dynamodb.test/", headers, to_json(request), False)
        self._call = HttpCall(environment, "dynamodb", operation, prepared)

    def touches(self) -> Touches:
        return self._call.touches()

    def perform(self) -> dict[str, Any]:
        return self._read(self._call.perform())

    def happen(self) -> None:
        self._call.perform()

    def give_up(self) -> Any:
        return self._call.give_up()

    def refuse(self) -> Any:
        return self._call.refuse()

    def fail(self, fault: Kind) -> dict[str, Any]:
        return self._read(self._call.fail(fault))

    def _read(self, answer: AWSResponse) -> dict[str, Any]:
        return HttpAnswer(answer.status_code, dict(answer.headers), answer.content).read(self._operation)


class WireLink:
    """Requests over sockets, to a door of their own."""

    def __init__(self, environment: Environment, links: Links, way: Way, seconds: float) -> None:
        self._environment = environment
        self._links = links
        self._seconds = seconds
        self._kit = links.take_kit(seconds)
        self._kit.door.clients_watch = way == "crt" and environment.function == "consumer"
        self._sessions: dict[str, Any] = {}
        self._carrier: AnyTransport | None = None
        self._way = way

    def client(self, service: str) -> Any:
        """A boto3 client."""
        client = self._kit.client(service)
        if service not in self._sessions:
            session = self._sessions[service] = client._endpoint.http_session
            client._endpoint.http_session = _WireSession(self._environment, service, self._kit.door, session)
        return client

    def call(self, operation: str, request: dict[str, Any]) -> Port:
        """A request to DynamoDB, for a transport."""
        if self._carrier is None:
            self._carrier = self._kit.transport(self._way)
        carrier = self._carrier
        return WireCall(
            self._environment,
            "dynamodb",
            operation,
            door=self._kit.door,
            send=lambda: carrier.send(operation, request),
            touches=lambda: touches_of(request),
        )

    def break_off(self) -> None:
        """The environment's process has ended, and its connections with it."""
        self._kit.door.hang_up()

    def close(self) -> None:
        """Nobody uses it any more."""
        for service, session in self._sessions.items():
            self._kit.client(service)._endpoint.http_session = session
        self._kit.door.hang_up()
        self._links.give_kit(self._seconds, self._kit)


class _WireSession:
    """Before a boto3 client's own HTTP session."""

    def __init__(self, environment: Environment, service: str, door: Door, session: Any) -> None:
        self._environment = environment
        self._service = service
        self._door = door
        self._session = session

    def close(self) -> None:
        """The real one stays open."""

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        operation = operation_of(self._service, request)

        def send() -> Future[AWSResponse]:
            return _threads.submit(self._session.send, request)

        call = WireCall(self._environment, self._service, operation, door=self._door, send=send)
        answer: AWSResponse = self._environment.step(self._service, operation, call)
        return answer


_threads = ThreadPoolExecutor(16, "faults-wire")
"""Where boto3's clients wait for their answers, while the invocation's own thread says what the answers are."""


class WireCall(Port):
    """A request over the wire and the ways in which it can go wrong there."""

    def __init__(
        self,
        environment: Environment,
        service: str,
        operation: str,
        *,
        door: Door,
        send: Callable[[], Pending],
        touches: Callable[[], Touches] = lambda: None,
    ) -> None:
        self._environment = environment
        self._service = service
        self._operation = operation
        self._door = door
        self._send = send
        self._touches = touches
        self._pending: Pending | None = None
        self._held: Held | None = None

    def touches(self) -> Touches:
        return self._touches()

    def send(self) -> None:
        """Send it, if it is not sent yet."""
        if self._pending is None:
            self._pending, self._held = self._door.ask(self._send)

    def perform(self) -> Any:
        return self._answered(lambda call: call.perform())

    def happen(self) -> None:
        self._at_aws().perform()

    def give_up(self) -> Any:
        self.send()
        assert self._pending
        return self._pending.result()

    def refuse(self) -> Any:
        with self._door.closed():
            self._pending, self._held = self._door.ask(self._send)
            return self._pending.result()

    def fail(self, fault: Kind) -> Any:
        return self._answered(lambda call: call.answer(fault), cut=fault == "garbage")

    def _at_aws(self) -> HttpCall:
        """The request as it arrived."""
        self.send()
        assert self._held, f"{self._operation} did not get to AWS"
        return HttpCall(self._environment, self._service, self._operation, self._held.request)

    def _answered(self, answer: Callable[[HttpCall], AWSResponse | None], *, cut: bool = False) -> Any:
        answered = answer(self._at_aws())
        assert self._held
        assert self._pending
        if answered is None:
            self._held.reset()
        else:
            self._held.answer(answered, cut=cut)
        return self._pending.result()


class Kit:
    """A door, and clients that go there. They are used by one environment after the other."""

    def __init__(self, network: Network, seconds: float) -> None:
        self.door = Door(network)
        self._seconds = seconds
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """A boto3 client, as the product makes it."""
        if service not in self._clients:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("AWS_ENDPOINT_URL", self.door.url)
                patch.setattr(clients, "_config", partial(clients._config, read_timeout=self._seconds))
                self._clients[service] = _make(service)
        return self._clients[service]

    def transport(self, way: Way) -> AnyTransport:
        """A transport with connections of its own."""
        if "transport" not in self._clients:
            config = Config(
                connect_timeout=2,
                read_timeout=self._seconds,
                retries={"mode": "standard", "total_max_attempts": 1},
                parameter_validation=False,
            )
            self._clients["transport"] = boto3.client("dynamodb", endpoint_url=self.door.url, config=config)
        client = self._clients["transport"]
        return CrtTransport(client) if way == "crt" else Boto3Transport(client, MOST_IN_FLIGHT)


class Links:
    """Boto3 clients and doors to be used again: making a client takes 15 ms."""

    def __init__(self) -> None:
        self._free: dict[str, list[Any]] = {}
        self._kits: dict[float, list[Kit]] = {}
        self._made: list[Kit] = []
        self._network: Network | None = None

    def to_aws(
        self, environment: Environment, way: Way, seconds: float = PATIENT_SECONDS
    ) -> MemoryLink | WireLink:
        """A link for one environment."""
        return MemoryLink(environment, self) if way == "memory" else WireLink(environment, self, way, seconds)

    def take(self, service: str) -> Any:
        """A client whose session is to be replaced."""
        free = self._free.setdefault(service, [])
        return free.pop() if free else _make(service)

    def give(self, service: str, client: Any) -> None:
        """Take it back."""
        self._free[service].append(client)

    def take_kit(self, seconds: float) -> Kit:
        """A door that nobody uses."""
        if self._network is None:
            self._network = Network()
        free = self._kits.setdefault(seconds, [])
        if free:
            return free.pop()
        self._made.append(Kit(self._network, seconds))
        return self._made[-1]

    def give_kit(self, seconds: float, kit: Kit) -> None:
        """Take it back."""
        self._kits[seconds].append(kit)

    def close(self) -> None:
        """Close the doors."""
        for kit in self._made:
            kit.door.close()
        if self._network:
            self._network.close()


def _make(service: str) -> Any:
    make: Any = getattr(clients, service)
    return getattr(make, "original", make).__wrapped__()
