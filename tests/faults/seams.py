"""Puts the fault layer around the product, for as long as a block lasts.

Nothing of the product is changed. Where it asks the world (clock, pause, chance, HTTP, Postgres) the world of
the history answers, and where a module caches what an execution environment keeps, each environment of the
history has its own.
"""

from __future__ import annotations

import datetime
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import botocore.endpoint
import botocore.retries.quota
import pytest
from aws_lambda_powertools.utilities.idempotency import base as idempotency_base
from aws_lambda_powertools.utilities.idempotency.persistence import base, datarecord, dynamodb

import common.clients
import consumer.handler
import postgres.database
import producer.api
import uploads.chunks
import uploads.plan
import uploads.register
from common.observability import logger
from common.waiting import Waiting
from tests.faults.connection import Connection, current

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "POWERTOOLS_TRACE_DISABLED": "true",
    "POWERTOOLS_METRICS_DISABLED": "true",
    "POWERTOOLS_METRICS_NAMESPACE": "Oncestream",
    "IDEMPOTENCY_TABLE": "claims",
    "IDEMPOTENCY_REQUESTS_IN_FLIGHT": "1",
    "LEDGER_TABLE": "ledger",
    "STREAM_NAME": "records",
    "UPLOAD_BUCKET": "uploads",
    "CHUNK_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/123456789012/chunks",
    "CHUNK_DEAD_LETTER_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/123456789012/dead-chunks",
}

_CACHED: list[tuple[Any, str]] = [
    (consumer.handler, "_processor"),
    (producer.api, "_settings"),
    (producer.api, "_publisher"),
    (uploads.chunks, "_settings"),
    (uploads.chunks, "_idempotency"),
    (uploads.chunks, "_publish_once"),
    (uploads.register, "_register"),
    (uploads.plan, "_settings"),
    (uploads.plan, "_planner"),
]


def _now() -> float:
    return current().now()


def _sleep(seconds: float) -> None:
    current().sleep(seconds)


def _half() -> float:
    return 0.5


def _utc() -> datetime.datetime:
    return datetime.datetime.fromtimestamp(_now(), datetime.UTC)


class _DateTime(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> _DateTime:
        return cls.fromtimestamp(_now(), tz)


@contextmanager
def installed(**variables: str) -> Iterator[pytest.MonkeyPatch]:
    """The fault layer is in place; ``variables`` are the functions' further environment variables."""
    patch = pytest.MonkeyPatch()
    levels = {each: each.level for each in (logging.getLogger("common"), logging.getLogger("consumer"))}
    level = logger.log_level
    try:
        for name, value in (ENVIRONMENT | variables).items():
            patch.setenv(name, value)
        _clients(patch)
        for module, name in _CACHED:
            patch.setattr(module, name, _kept(f"{module.__name__}.{name}", getattr(module, name).__wrapped__))
        # Why a function waits is noted for people; nothing is promised of it (tests/unit/test_waiting.py).
        for module in (consumer.handler, uploads.chunks, uploads.plan):
            patch.setattr(module, "_waiting", lambda: Waiting(common.clients.dynamodb, None, "a history"))
        _clocks(patch)
        patch.setattr(postgres.database, "Connection", Connection)
        logger.setLevel("CRITICAL")
        for each in levels:
            each.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No application metrics to publish")
            yield patch
    finally:
        patch.undo()
        logger.setLevel(level)
        for each, before in levels.items():
            each.setLevel(before)


def _kept(name: str, make: Callable[[], Any]) -> Callable[[], Any]:
    def kept() -> Any:
        kept_there = current().kept
        if name not in kept_there:
            kept_there[name] = make()
        return kept_there[name]

    return kept


def _clients(patch: pytest.MonkeyPatch) -> None:
    for service in ("dynamodb", "kinesis", "s3", "sqs"):

        def client(*_: Any, service: str = service) -> Any:
            return current().client(service)

        client.original = getattr(common.clients, service)  # type: ignore[attr-defined]
        patch.setattr(common.clients, service, client)
    patch.setattr(common.clients, "dynamodb_transport", lambda: current().transport)
    # A client is used by many environments, one after the other; each would have had its own quota.
    patch.setattr(botocore.retries.quota.RetryQuota, "acquire", lambda self, amount: True)


def _clocks(patch: pytest.MonkeyPatch) -> None:
    def told(module: Any, name: str, **world: Any) -> None:
        original = getattr(module, name)

        def made(*given: Any, **named: Any) -> Any:
            return original(*given, **(world | named))

        patch.setattr(module, name, made)

    told(consumer.handler, "BulkIdempotency", clock=_now, sleep=_sleep, jitter=_half)
    told(consumer.handler, "PostgresSink", monotonic=_now)
    told(producer.api, "Publisher", clock=_now, sleep=_sleep, random=_half)
    told(uploads.chunks, "Publisher", clock=_now, sleep=_sleep, random=_half)
    told(uploads.chunks, "ChunkWorker", now=_utc)
    told(uploads.plan, "ChunkQueue", sleep=_sleep, jitter=_half)
    told(uploads.plan, "Planner", now=_utc)
    told(uploads.register, "Register", now=_utc)
    processor = consumer.handler.SinkProcessor
    patch.setattr(
        consumer.handler,
        "SinkProcessor",
        lambda *given, **named: processor(*given, slice_records=current().world.slice_records, **named),
    )
    # botocore draws its pauses; here each is the same.
    patch.setattr(
        botocore.endpoint, "time", SimpleNamespace(**vars(time) | {"sleep": lambda seconds: _sleep(0.1)})
    )
    for module in (idempotency_base, base, datarecord, dynamodb):
        patch.setattr(module, "dt", SimpleNamespace(**vars(datetime) | {"datetime": _DateTime}))
