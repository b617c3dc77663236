"""Stands between every boto3 client of this process and DynamoDB: adds the latency, and counts.

It is a handler of botocore's ``before-send`` event, given to each session as it is made, so it is in all
clients whoever makes them, and no contestant is changed for it. The handler runs in the thread that makes
the call, just before the request goes out. A sleep there does what a distant server does: calls in flight
at once wait at the same time, and a retry waits again. The latency comes on top of the emulator's own time.

A proxy between client and emulator would have done the same for a client that is not botocore's, at the
price of a third process on a machine with two cores. Instead the number of requests is checked against the
server's own count where the server keeps one (bench/standin.py), so that a client which goes around the
handler is noticed.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import botocore

from bench.units import cost


class Meter:
    """Latency and counts of the DynamoDB calls of this process."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        self.latency = 0.0
        """Seconds that each request takes longer."""
        self._sleep = sleep
        self._requests: list[tuple[str, bytes | str]] = []
        self._most = 0
        self._in_flight = 0
        self._lock = threading.Lock()

    def install(self) -> None:
        """Have every botocore session that is made from now on pass through here."""
        botocore.register_initializer(
            lambda session: session.register("before-send.dynamodb", self._before_send)
        )

    def reset(self) -> None:
        """Forget what was counted."""
        self._requests = []
        self._most = 0

    def counts(self) -> dict[str, Any]:
        """Calls, the most that waited at once, units, and calls by operation since the last reset.

        The requests are only kept while the clock runs; they are read here.
        """
        costs = [cost(operation, body) for operation, body in self._requests]
        return {
            "calls": len(self._requests),
            "at_once": self._most,
            "write_units": sum(one.write_units for one in costs),
            "read_units": sum(one.read_units for one in costs),
            "operations": dict(Counter(operation for operation, _ in self._requests)),
        }

    def _before_send(self, **event: Any) -> None:
        request = event["request"]
        target = request.headers["X-Amz-Target"]
        # Prepared requests carry header values as bytes or text, depending on who set them.
        operation = (target.decode() if isinstance(target, bytes) else target).partition(".")[2]
        with self._lock:
            self._requests.append((operation, request.body))
            self._in_flight += 1
            self._most = max(self._most, self._in_flight)
        if self.latency:
            self._sleep(self.latency)
        with self._lock:
            self._in_flight -= 1
