"""A pytest plugin: the fixture ``event_source_mapping``, which puts a handler behind a stream.

    def test_orders_are_counted(event_source_mapping):
        kinesis.put_records(...)
        mapping = event_source_mapping("orders", handler, BatchSize=10, MaximumRetryAttempts=2)
        mapping.drain()
        assert ...

The stream may be anywhere: at ``AWS_ENDPOINT_URL``, or in moto's ``mock_aws``. Nothing sleeps: ``drain`` returns when
the last record that was there is settled, and says why if that cannot be.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lambda_esm.clients import Clients
from lambda_esm.invoke import HandlerInvoker
from lambda_esm.lookup import stream_arn
from lambda_esm.mapping import Backoff, EventSourceMapping
from lambda_esm.metrics import Totals
from lambda_esm.observer import Delivery, Observer
from lambda_esm.poller import StreamPoller
from lambda_esm.records import Discard

type Handler = Callable[[Any, Any], Any] | str


class _Log(Observer):
    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.discards: list[Discard] = []

    def on_delivery(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    def on_discard(self, mapping: EventSourceMapping, shard_id: str, discard: Discard) -> None:
        self.discards.append(discard)


class RunningMapping:
    """A stream that is polled, for the time of a test."""

    def __init__(self, poller: StreamPoller, log: _Log) -> None:
        self._poller = poller
        self._log = log

    @property
    def deliveries(self) -> list[Delivery]:
        """Every invocation so far, with the event, the outcome and what followed from it."""
        return list(self._log.deliveries)

    @property
    def discards(self) -> list[Discard]:
        """What was given up so far."""
        return list(self._log.discards)

    @property
    def totals(self) -> Totals:
        """How many records were delivered, retried, discarded, filtered out."""
        return self._poller.totals

    def drain(self, timeout: float = 60.0) -> Totals:
        """Wait until every record that is in the stream now is settled: taken by the handler, filtered out or given up.

        Raises
        ------
        AssertionError
            That did not come within ``timeout`` seconds, or a shard vanished. The message names the last failure.
        """
        since = time.time()
        done = self._poller.wait_for(
            lambda: self._poller.drained(since) or bool(self._poller.lost(since)), timeout
        )
        if lost := self._poller.lost(since):
            raise AssertionError(f"{', '.join(lost)} vanished with records that may never have been read")
        if not done:
            failed = [delivery for delivery in self._log.deliveries if not delivery.succeeded]
            last = f"; the last failure: {failed[-1].outcome}" if failed else "; nothing failed so far"
            raise AssertionError(f"not drained within {timeout:g} seconds{last}")
        return self.totals


@pytest.fixture
def event_source_mapping_clients() -> Clients:
    """Where the streams are. Override it to say so; by default boto3's own configuration decides (``AWS_ENDPOINT_URL``,
    moto's ``mock_aws``).
    """
    return Clients()


@pytest.fixture
def event_source_mapping(event_source_mapping_clients: Clients) -> Iterator[Callable[..., RunningMapping]]:
    """``event_source_mapping(stream, handler, **settings)``: polls until the test ends.

    ``stream`` is the ARN of a stream, or the name of a Kinesis stream. ``handler`` takes an event and a context, or is
    named as ``module:function``. ``settings`` are the Lambda API's: ``BatchSize``, ``MaximumRetryAttempts``, ...;
    ``StartingPosition`` is TRIM_HORIZON unless you say LATEST. Retries follow at once.
    """
    running: list[StreamPoller] = []

    def start(stream: str, handler: Handler, **settings: Any) -> RunningMapping:
        log = _Log()
        mapping = {
            "EventSourceArn": stream_arn(event_source_mapping_clients, stream),
            "FunctionName": getattr(handler, "__name__", "handler"),
            "StartingPosition": "TRIM_HORIZON",
        } | settings
        poller = StreamPoller(
            event_source_mapping_clients,
            mappings=[mapping],
            invoker=HandlerInvoker({"*": handler}),
            observer=log,
            backoff=Backoff(0, 0),
            poll_seconds=0.02,
            refresh_seconds=0.1,
        )
        poller.start()
        running.append(poller)
        return RunningMapping(poller, log)

    yield start
    for poller in running:
        poller.stop()
    for poller in running:
        poller.join(10.0)
