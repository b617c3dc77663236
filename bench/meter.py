"""Stands between every boto3 client of this process and DynamoDB, and keeps the requests for their cost.

It is a handler of botocore's ``before-send`` event, given to each session as it is made, so it is in all
clients whoever makes them, and no contestant is changed for it. The latency is added at the other end
(bench/standin.py), which counts as well: a client that goes around the handler is noticed.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import botocore

from bench.units import cost


class Meter:
    """The DynamoDB calls of this process."""

    def __init__(self) -> None:
        self._requests: list[tuple[str, bytes | str]] = []

    def install(self) -> None:
        """Have every botocore session that is made from now on pass through here."""
        botocore.register_initializer(
            lambda session: session.register("before-send.dynamodb", self._before_send)
        )

    def reset(self) -> None:
        """Forget what was counted."""
        self._requests = []

    def counts(self) -> dict[str, Any]:
        """Calls, units, and calls by operation since the last reset.

        The requests are only kept while the clock runs; they are read here.
        """
        costs = [cost(operation, body) for operation, body in self._requests]
        return {
            "calls": len(self._requests),
            "write_units": sum(one.write_units for one in costs),
            "read_units": sum(one.read_units for one in costs),
            "operations": dict(Counter(operation for operation, _ in self._requests)),
        }

    def _before_send(self, **event: Any) -> None:
        request = event["request"]
        target = request.headers["X-Amz-Target"]
        # Prepared requests carry header values as bytes or text, depending on who set them.
        operation = (target.decode() if isinstance(target, bytes) else target).partition(".")[2]
        self._requests.append((operation, request.body))
