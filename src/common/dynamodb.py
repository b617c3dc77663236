"""Many DynamoDB requests at once, each answered or failed on its own, and the pace of asking again.

A request that fails does not take the others with it: :meth:`Calls.send` gives back a :class:`Fault` in its
place. It says what a caller has to know: whether to ask again, and whether the request may have had its
effect.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ProxyConnectionError,
    SSLError,
)

from common.lean import Call, LeanDynamoDB

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_THROTTLED = {
    # of a request: docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
    # of a statement: docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchStatementError.html
    "ProvisionedThroughputExceeded",
    "ThrottlingError",
}
_PASSING = _THROTTLED | {
    "InternalServerError",
    "TransactionConflict",
    "TransactionConflictException",
    "UnrecognizedClientException",
}
_NOT_SENT = (
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ProxyConnectionError,
    SSLError,
)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a request, or one statement of it, was not carried out."""

    code: str
    """DynamoDB's name for it; empty if DynamoDB has not answered."""
    reason: str
    """For a person, code included."""
    again: bool
    """Asking again soon may help. If not: no permission, no such table, a request that is wrong."""
    throttled: bool = False
    """DynamoDB works; it only wants fewer requests."""
    ambiguous: bool = False
    """The request may have had its effect."""
    item: dict[str, Any] | None = None
    """The item that stood in the way of a conditional write, if DynamoDB sent it."""
    error: BotoCoreError | ClientError | None = None
    is_here: ClassVar[bool] = True
    """As of :class:`common.lean.Call`: there is nothing to wait for."""

    @classmethod
    def of_statement(cls, error: dict[str, Any]) -> Fault:
        """What the answer to a BatchExecuteStatement says about one of the statements."""
        code = error["Code"]
        return cls(
            code,
            f"{code}: {error.get('Message', '')}",
            again=code in _PASSING,
            throttled=code in _THROTTLED,
            ambiguous=code == "InternalServerError",
            item=error.get("Item"),
        )

    @classmethod
    def of_request(cls, error: BotoCoreError | ClientError) -> Fault:
        """What botocore raised for a whole request."""
        if not isinstance(error, ClientError):
            return cls("", str(error), again=True, ambiguous=not isinstance(error, _NOT_SENT), error=error)
        response: Any = error.response
        code = response["Error"]["Code"]
        # A server error may come after the work is done; Programming.Errors says so of TransactWriteItems.
        broken = response["ResponseMetadata"]["HTTPStatusCode"] >= 500
        return cls(
            code,
            f"{code}: {response['Error']['Message']}",
            again=broken or code in _PASSING,
            throttled=code in _THROTTLED,
            ambiguous=broken,
            item=response.get("Item"),
            error=error,
        )


_TOO_LATE = Fault("", "no time left to send the request", again=False, throttled=True)


class Request(NamedTuple):
    """A request about some keys."""

    operation: str
    keys: tuple[str, ...]
    body: dict[str, Any]


type Outcome = tuple[Request, dict[str, Any] | Fault]
"""A request, and its answer or its fault."""


class Calls:
    """Sends requests about groups of keys, ``in_flight`` at once, and knows when to stop.

    ``clock``, ``sleep`` and ``jitter`` (0 to 1) are the world outside; a test brings its own.
    """

    attempts = 8
    base_seconds = 0.05
    cap_seconds = 2.0

    def __init__(
        self,
        client: DynamoDBClient,
        in_flight: int,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.clock = clock
        self._dynamodb = LeanDynamoDB(client, clock=clock)
        self._in_flight = in_flight
        self._sleep = sleep
        self._jitter = jitter

    def send(self, requests: Iterable[Request | None], deadline: float) -> Iterator[Outcome]:
        """Send requests. None is begun after ``deadline`` (in the clock's seconds).

        The outcomes are in the order of the requests. A request is asked for when it can be sent, and an
        outcome handed out as soon as it is there: what it takes to make the one and to deal with the other is
        done while requests are under way. A ``None`` among the requests is a moment to look for outcomes.
        """
        under_way: deque[tuple[Request, Call | Fault]] = deque()
        for request in requests:
            while under_way and (len(under_way) >= self._in_flight or under_way[0][1].is_here):
                yield _outcome(*under_way.popleft())
            if request is not None:
                under_way.append((request, self._begin(request, deadline)))
        while under_way:
            yield _outcome(*under_way.popleft())

    def _begin(self, request: Request, deadline: float) -> Call | Fault:
        if self.clock() > deadline:
            return _TOO_LATE
        try:
            return self._dynamodb.begin(request.operation, request.body)
        except (BotoCoreError, ClientError) as error:
            return Fault.of_request(error)

    def rounds(self, deadline: float) -> Iterator[int]:
        """Count attempts, sleeping before each but the first; end with the last one, or at ``deadline``.

        Full jitter: aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter
        """
        yield 0
        for attempt in range(1, self.attempts):
            pause = self._jitter() * min(self.cap_seconds, self.base_seconds * 2**attempt)
            if self.clock() + pause > deadline:
                return
            self._sleep(pause)
            yield attempt


def _outcome(request: Request, call: Call | Fault) -> Outcome:
    if isinstance(call, Fault):
        return request, call
    try:
        return request, call.answer()
    except (BotoCoreError, ClientError) as error:
        return request, Fault.of_request(error)
