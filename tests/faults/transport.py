"""In the place of the network between boto3 and AWS: each HTTP request is a step."""

from __future__ import annotations

import io
import json
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
        body = json.loads(self._request.body)
        if statements := body.get("Statements"):
            keys = [statement["Parameters"][0] for statement in statements]
        elif requests := body.get("RequestItems"):
            ((_, asked),) = requests.items()
            reads = asked["Keys"] if "Keys" in asked else [write["PutRequest"]["Item"] for write in asked]
            keys = [item["id"] for item in reads]
        elif body["TableName"] == "claims":
            keys = [body.get("Item", body.get("Key"))["id"]]
        else:
            return None
        return frozenset(("claim", key["S"]) for key in keys)

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


class _Raw(io.BytesIO):
    def stream(self) -> list[bytes]:
        return [self.getvalue()]


def response(status: int, headers: dict[str, str], body: bytes) -> AWSResponse:
    """An answer as botocore's HTTP session gives it."""
    return AWSResponse("https://aws.test/", status, {"x-amzn-requestid": "r"} | headers, _Raw(body))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
