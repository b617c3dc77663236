"""Between the product and AWS: each HTTP request is a step.

There are two ways to AWS. In memory, a request never gets to a socket. Over the wire it does (``wire``), and whatever
goes wrong with it happens there.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError

from tests.faults.faults import Kind
from tests.faults.ports import Port
from tests.faults.services import error_body
from tests.faults.turns import Touches
from tests.unit.fake_dynamodb import Trouble

if TYPE_CHECKING:
    from tests.faults.environment import Environment

_THROTTLES = {
    "dynamodb": "ProvisionedThroughputExceededException",
    "kinesis": "ProvisionedThroughputExceededException",
    "s3": "SlowDown",
    "sqs": "ThrottlingException",
}

_ERRORS: dict[Kind, Callable[[str], tuple[int, str]]] = {
    "error": lambda service: (500, "InternalError" if service == "s3" else "InternalServerError"),
    "error after": lambda service: (500, "InternalError" if service == "s3" else "InternalServerError"),
    "throttle": lambda service: (503 if service == "s3" else 400, _THROTTLES[service]),
    "denied": lambda service: (403, "AccessDenied") if service == "s3" else (400, "AccessDeniedException"),
}
"""What AWS answers, by service."""


class Transport:
    """In the place of a boto3 client's HTTP session."""

    def __init__(self, environment: Environment, service: str) -> None:
        self._environment = environment
        self._service = service

    def close(self) -> None:
        """Nothing is open."""

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        operation = operation_of(self._service, request)
        call = HttpCall(self._environment, self._service, operation, request)
        answer: AWSResponse = self._environment.step(self._service, operation, call)
        return answer


def operation_of(service: str, request: AWSPreparedRequest) -> str:
    """The API's name of what is asked for."""
    if service == "s3":
        return "HeadObject" if request.method == "HEAD" else "GetObject"
    return _text(request.headers["X-Amz-Target"]).rpartition(".")[2]


def touches_of(request: dict[str, Any]) -> Touches:
    """The claims that a request to DynamoDB is about."""
    if statements := request.get("Statements"):
        keys = [statement["Parameters"][0] for statement in statements]
    elif requests := request.get("RequestItems"):
        ((_, asked),) = requests.items()
        reads = asked["Keys"] if "Keys" in asked else [write["PutRequest"]["Item"] for write in asked]
        keys = [item["id"] for item in reads]
    elif request["TableName"] == "claims":
        keys = [request.get("Item", request.get("Key"))["id"]]
    else:
        return None
    return frozenset(("claim", key["S"]) for key in keys)


class HttpCall(Port):
    """A request and the ways in which it can go wrong."""

    def __init__(
        self, environment: Environment, service: str, operation: str, request: AWSPreparedRequest
    ) -> None:
        self._environment = environment
        self._service = service
        self._operation = operation
        self._request = request

    def touches(self) -> Touches:
        if self._service != "dynamodb":
            return None
        return touches_of(json.loads(self._request.body))

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
            return table.answer(self._request)
        with world.rules.asking(self._environment, self._operation):
            return table.answer(self._request)

    def give_up(self) -> AWSResponse:
        raise ReadTimeoutError(endpoint_url=self._request.url)

    def refuse(self) -> AWSResponse:
        raise EndpointConnectionError(endpoint_url=self._request.url)

    def fail(self, fault: Kind) -> AWSResponse:
        answer = self.answer(fault)
        if answer and fault == "garbage" and self._service == "s3":  # the body breaks off
            return response(answer.status_code, dict(answer.headers), answer.content[:-3])
        if answer is None or fault == "garbage":
            raise ConnectionClosedError(endpoint_url=self._request.url)
        return answer

    def answer(self, fault: Kind) -> AWSResponse | None:
        """What AWS answers under this fault. None: it hangs up. Of ``garbage`` the end does not arrive."""
        if fault in {"part", "part after"}:
            return self.perform(fault)
        answer = self.perform() if fault in {"garbage", "reset after", "error after"} else None
        if fault in _ERRORS:
            status, code = _ERRORS[fault](self._service)
            answer = response(status, {}, error_body(self._service, code))
        elif fault == "reset after":
            answer = None
        return answer


class _Raw(io.BytesIO):
    def stream(self) -> list[bytes]:
        return [self.getvalue()]


def response(status: int, headers: dict[str, str], body: bytes) -> AWSResponse:
    """An answer as botocore's HTTP session gives it."""
    return AWSResponse("https://aws.test/", status, {"x-amzn-requestid": "r"} | headers, _Raw(body))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
