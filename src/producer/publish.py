"""Puts records on the stream: full requests, only failed entries sent again, each shard at its own pace."""

from __future__ import annotations

import random as random_module
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

from common.errors import TransientError
from producer.entry import Entry, Published, Unpublished
from producer.pace import StreamPace, wait_after
from producer.packing import THROTTLED, Packing, Unsent
from records.record import Record

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_kinesis.type_defs import PutRecordsResultEntryTypeDef

__all__ = ["Entry", "Published", "Publisher", "Unpublished"]

# Beside every status 5xx and 429: Kinesis answers most errors with 400, these among them.
_PASSING_ERRORS = {
    THROTTLED,
    "InternalFailure",
    "InternalFailureException",
    "KMSThrottlingException",
    "LimitExceededException",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "Throttling",
    "ThrottlingException",
}


class Publisher:
    """Publishes records to one stream.

    It may be kept and used again (by one thread at a time): what it has learned about the shards stays.

    Requests are as full as the limits allow. Only entries that failed are sent again, together with fresh
    ones, and a throttled shard holds back its own entries, not those of others. Requests go out one at a
    time: at 50 ms each that is 10,000 records a second, enough for ten shards.

    **A record may be on the stream twice.** When a request fails without an answer (a timeout, a broken
    connection, a 5xx) Kinesis may have stored some of it, and all of it is sent again. The record's id is the
    same, so the consumer sees a duplicate.

    **Order is not a promise**, also not among records of one partition key: PutRecords does not guarantee it,
    and an entry that is sent again may arrive after a later one.

    Parameters
    ----------
    client
        A boto3 Kinesis client that does not retry by itself (``common.clients.kinesis``).
    stream_name
        The stream.
    attempts
        How often one record is sent before it is reported as failed. Throttling alone does not use them up
        while its shard takes anything: then only the time limit ends it.
    clock, sleep, random
        Seconds that never go back; a wait; a number from 0 up to 1. For tests.

    Example
    -------
    >>> publisher = Publisher(clients.kinesis(), "orders")
    >>> result = publisher.publish(records, time_limit=20.0)
    >>> if not result.complete:
    ...     raise TransientError(f"{len(result.failed)} records were not published")
    """

    def __init__(
        self,
        client: KinesisClient,
        stream_name: str,
        *,
        attempts: int = 12,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._client = client
        self._stream_name = stream_name
        self._attempts = attempts
        self._clock = clock
        self._sleep = sleep
        self._stream = StreamPace(random)
        self._random = random
        self._failures = 0
        self._paused_until = clock()

    def publish(self, source: Iterable[Record | Entry], time_limit: float | None = None) -> Published:
        """Publish all records of ``source``, which is read as a stream: memory stays flat.

        Parameters
        ----------
        source
            Records, or entries that are serialised already.
        time_limit
            Seconds from now after which no request is begun. One that is under way is waited for, so leave
            room for the client's timeouts. What was taken and not sent by then is reported as failed; the
            rest of the source is left untouched (``exhausted`` is false).

        Raises
        ------
        TransientError
            The stream cannot be written to at all: it is missing, access is denied, its key is disabled, ...
            Some records may have been published before.
        """
        deadline = None if time_limit is None else self._clock() + time_limit
        packing = Packing(self._stream, iter(source), self._attempts, self._random)
        while packing.fill(self._clock()):
            now = self._clock()
            start = max(packing.start(now), self._paused_until)
            if deadline is not None and max(start, now) >= deadline:
                packing.give_up("the time ran out before it was sent")
                break
            if start > now:
                self._sleep(start - now)
            else:
                self._send(packing)
        return packing.result

    def _send(self, packing: Packing) -> None:
        batch = packing.take()
        sent = self._clock()
        try:
            answers = self._put(batch)
        except _RequestError as error:
            self._failures += 1
            self._paused_until = self._clock() + wait_after(self._failures, self._random)
            packing.lost(batch, str(error))
        else:
            self._failures = 0
            packing.answered(batch, answers, self._clock(), sent)

    def _put(self, batch: list[Unsent]) -> list[PutRecordsResultEntryTypeDef]:
        entries: list[Any] = [
            {"Data": pending.entry.data, "PartitionKey": pending.entry.partition_key} for pending in batch
        ]
        try:
            answers = self._client.put_records(StreamName=self._stream_name, Records=entries)["Records"]
        except ClientError as error:
            fault = error.response.get("Error", {})
            reason = f"{fault.get('Code', 'unknown error')}: {fault.get('Message', '')}"
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if fault.get("Code") in _PASSING_ERRORS or status == 429 or status >= 500:
                raise _RequestError(reason) from error
            raise TransientError(f"stream {self._stream_name} cannot be written: {reason}") from error
        except (ConnectionError, HTTPClientError) as error:
            raise _RequestError(str(error)) from error
        except BotoCoreError as error:
            raise TransientError(f"stream {self._stream_name} cannot be written: {error}") from error
        if len(answers) != len(batch):
            # An answer belongs to its entry by its place alone: a list of another length tells nothing.
            raise _RequestError(f"PutRecords answered {len(answers)} of {len(batch)} entries")
        return answers


class _RequestError(Exception):
    """A request failed as a whole, and may succeed when it is sent again."""
