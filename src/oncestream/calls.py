"""Many DynamoDB requests at once, each answered or failed on its own, and the pace of asking again.

A request that fails does not take the others with it: :meth:`Calls.send` gives back a :class:`Fault` in its
place. It says what a caller has to know: whether to ask again, and whether the request may have had its
effect.
"""

from __future__ import annotations

import random
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Self

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ProxyConnectionError,
    SSLError,
)

from oncestream.transport import Pending, Transport

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
_CLOCK_IS_OFF = re.compile(
    r"RequestTimeTooSkewed|RequestExpired|Signature (expired|not yet current)", re.IGNORECASE
)
"""Of a code or a message: docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html"""
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
    def no_answer(cls, operation: str, answer: Any) -> Fault:
        """What came back, with status 200, is not what DynamoDB answers to ``operation``."""
        start = repr(answer)[:200]
        return cls("", f"this is no answer to {operation}: {start}", again=True, ambiguous=True)

    @classmethod
    def of_request(cls, error: BotoCoreError | ClientError) -> Fault:
        """What botocore raised for a whole request."""
        if not isinstance(error, ClientError):
            return cls("", str(error), again=True, ambiguous=not isinstance(error, _NOT_SENT), error=error)
        response: Any = error.response
        code = response["Error"]["Code"]
        # A server error may come after the work is done; Programming.Errors says so of TransactWriteItems.
        metadata = response["ResponseMetadata"]
        broken = metadata["HTTPStatusCode"] >= 500
        reason = f"{code}: {response['Error']['Message']}"
        if _CLOCK_IS_OFF.search(reason):
            theirs = metadata.get("HTTPHeaders", {}).get("date", "another time")
            reason += f" (the clock of this machine is off: set it; DynamoDB's says {theirs})"
        return cls(
            code,
            reason,
            again=broken or code in _PASSING,
            throttled=code in _THROTTLED,
            # A client that has repeated the request tells of its last attempt only.
            ambiguous=broken or metadata.get("RetryAttempts", 0) > 0,
            item=response.get("Item"),
            error=error,
        )


_TOO_LATE = Fault("", "no time left to send the request", again=False, throttled=True)


class Request(NamedTuple):
    """A request about some keys."""

    operation: str
    keys: tuple[str, ...]
    body: dict[str, Any]


Outcome = tuple[Request, dict[str, Any] | Fault]
"""A request, and its answer or its fault."""


def in_groups(keys: Iterable[str], size: int) -> Iterator[tuple[str, ...]]:
    """``keys`` in groups of ``size``; the last may be smaller. (``itertools.batched`` is of Python 3.12.)"""
    left = iter(keys)
    while group := tuple(islice(left, size)):
        yield group


class Calls:
    """Sends requests about groups of keys by ``transport``, ``in_flight`` at once, and knows when to stop.

    ``clock``, ``sleep`` and ``jitter`` (0 to 1) are the world outside; a test brings its own.
    """

    attempts = 8
    base_seconds = 0.05
    cap_seconds = 2.0

    def __init__(
        self,
        transport: Transport,
        in_flight: int,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.clock = clock
        self._transport = transport
        self._in_flight = in_flight
        self._sleep = sleep
        self._jitter = jitter

    def exchange(self, deadline: float) -> Exchange:
        """A go of requests. None is begun after ``deadline`` (in the clock's seconds)."""
        return Exchange(self._transport, self._in_flight, self.clock, deadline)

    def send(self, requests: Iterable[Request], deadline: float) -> Iterator[Outcome]:
        """Send requests, and hand out each outcome as soon as it is there, in the order of the requests.

        A request is asked for when it can be sent: what it takes to make the one and to deal with the outcome of
        the other is done while requests are under way.
        """
        with self.exchange(deadline) as exchange:
            for request in requests:
                yield from exchange.room()
                exchange.send(request)
            yield from exchange.rest()

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


class Exchange:
    """Requests of one go, ``in_flight`` of them at once. Outcomes are handed out in the order of the requests.

    It is a context: whoever breaks off, because of a defect, leaves no request behind that may have its effect later.
    """

    def __init__(
        self, transport: Transport, in_flight: int, clock: Callable[[], float], deadline: float
    ) -> None:
        self._transport = transport
        self._in_flight = in_flight
        self._clock = clock
        self._deadline = deadline
        self._under_way: deque[tuple[Request, Pending | Fault]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for _, pending in self._under_way:
            if not isinstance(pending, Fault):
                with suppress(Exception):
                    pending.result()
        self._under_way.clear()

    def room(self) -> Iterator[Outcome]:
        """What has come back, and what has to come back before another request can be sent."""
        yield from self.here()
        while len(self._under_way) >= self._in_flight:
            yield self._next()

    def here(self) -> Iterator[Outcome]:
        """What has come back, without waiting."""
        while self._under_way and _is_here(self._under_way[0][1]):
            yield self._next()

    def send(self, request: Request) -> None:
        """Send a request; ask for :meth:`room` first."""
        self._under_way.append((request, self._begin(request)))

    def rest(self) -> Iterator[Outcome]:
        """Wait for all that is under way."""
        while self._under_way:
            yield self._next()

    def _next(self) -> Outcome:
        return _outcome(*self._under_way.popleft())

    def _begin(self, request: Request) -> Pending | Fault:
        if self._clock() > self._deadline:
            return _TOO_LATE
        try:
            return self._transport.send(request.operation, request.body)
        except (BotoCoreError, ClientError) as error:
            return Fault.of_request(error)


def _is_here(pending: Pending | Fault) -> bool:
    return isinstance(pending, Fault) or pending.done()


def _outcome(request: Request, pending: Pending | Fault) -> Outcome:
    if isinstance(pending, Fault):
        return request, pending
    try:
        answer = pending.result()
    except (BotoCoreError, ClientError) as error:
        return request, Fault.of_request(error)
    return request, answer if _is_answer(request, answer) else Fault.no_answer(request.operation, answer)


def _is_answer(request: Request, answer: Any) -> bool:
    """Whether it has what DynamoDB's answers to the operation have always: the API reference, Response Syntax."""
    if not isinstance(answer, dict):
        return False
    match request.operation:
        case "BatchExecuteStatement":  # one response for each statement, in their order
            responses = answer.get("Responses")
            return (
                isinstance(responses, list)
                and len(responses) == len(request.keys)
                and all(map(_is_response, responses))
            )
        case "BatchGetItem":
            found, unread = answer.get("Responses"), answer.get("UnprocessedKeys", {})
            return (
                isinstance(found, dict)
                and all(isinstance(items, list) and all(map(_is_item, items)) for items in found.values())
                and isinstance(unread, dict)
                and all(isinstance(table, dict) and "Keys" in table for table in unread.values())
            )
        case "BatchWriteItem":
            return isinstance(answer.get("UnprocessedItems"), dict)
        case _:  # PutItem answers nothing
            return True


def _is_response(response: Any) -> bool:
    if not isinstance(response, dict):
        return False
    error = response.get("Error")
    return error is None or (
        isinstance(error, dict) and "Code" in error and ("Item" not in error or _is_item(error["Item"]))
    )


def _is_item(item: Any) -> bool:
    return isinstance(item, dict) and all(isinstance(value, dict) for value in item.values())
