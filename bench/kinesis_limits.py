"""PutRecords as Kinesis does it, with the limits that no emulator has, on a clock that only the test moves.

Request limits (500 records, 5 MiB, 1 MiB a record), the shard of each key by its MD5, what a shard takes in a
second, answers in the order of the request.
Source: docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html
How the service counts a second is not documented, so there are three ways of counting (``LIMITERS``).
"""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from botocore.exceptions import ClientError

HASHES = 1 << 128
THROTTLED = "ProvisionedThroughputExceededException"


class VirtualClock:
    """Seconds that pass only when somebody waits."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now
        self.slept = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds
        self.slept += seconds


class SlidingWindow:
    """No more than the limit in any second: the strictest way."""

    def __init__(self, records: int, size: int) -> None:
        self.records, self.size = records, size
        self._taken: deque[tuple[float, int]] = deque()
        self._bytes = 0

    def take(self, now: float, size: int, share: float) -> bool:
        while self._taken and self._taken[0][0] <= now - 1:
            self._bytes -= self._taken.popleft()[1]
        if len(self._taken) + 1 > self.records * share or self._bytes + size > self.size * share:
            return False
        self._taken.append((now, size))
        self._bytes += size
        return True


class CalendarSecond:
    """Counters that start again with each whole second."""

    def __init__(self, records: int, size: int) -> None:
        self.records, self.size = records, size
        self._second = -1
        self._taken = (0, 0)

    def take(self, now: float, size: int, share: float) -> bool:
        if int(now) != self._second:
            self._second, self._taken = int(now), (0, 0)
        records, total = self._taken[0] + 1, self._taken[1] + size
        if records > self.records * share or total > self.size * share:
            return False
        self._taken = records, total
        return True


class TokenBucket:
    """A bucket that holds a second's worth and is filled at the limit's pace."""

    def __init__(self, records: int, size: int) -> None:
        self.records, self.size = records, size
        self._level = (float(records), float(size))
        self._filled = 0.0

    def take(self, now: float, size: int, share: float) -> bool:
        passed = (now - self._filled) * share
        records = min(self.records, self._level[0] + passed * self.records)
        total = min(self.size, self._level[1] + passed * self.size)
        self._filled, self._level = now, (records, total)
        if records < 1 or total < size:
            return False
        self._level = records - 1, total - size
        return True


LIMITERS: dict[str, type[SlidingWindow | CalendarSecond | TokenBucket]] = {
    "sliding": SlidingWindow,
    "calendar": CalendarSecond,
    "bucket": TokenBucket,
}


class LimitedKinesis:
    """A Kinesis client with ``put_records`` and nothing else.

    Parameters
    ----------
    clock
        Moved by each request, by its latency.
    shards
        How many, of equal hash ranges; or the first hash of each but the first.
    limiter
        One of LIMITERS; None takes everything.
    latency
        The least and the most seconds of a request.
    counted
        At which part of its latency a request is counted: 0 at its start, 1 at its answer.
    others
        What is left of a shard's limit beside other producers: (seconds since the start, shard) -> 0..1.
    fault
        (number of the request, number of the entry, entry) -> the error code of an entry, or None.
    """

    def __init__(
        self,
        clock: VirtualClock,
        *,
        shards: int | Sequence[int] = 1,
        limiter: str | None = "sliding",
        latency: tuple[float, float] = (0.01, 0.05),
        counted: tuple[float, float] = (0.3, 0.7),
        others: Callable[[float, int], float] = lambda seconds, shard: 1.0,
        fault: Callable[[int, int, dict[str, Any]], str | None] = lambda request, index, entry: None,
        records_per_second: int = 1_000,
        bytes_per_second: int = 1024 * 1024,
        seed: int = 7,
    ) -> None:
        inner = [HASHES * n // shards for n in range(1, shards)] if isinstance(shards, int) else list(shards)
        self.starts = [0, *inner]
        self.names = [f"shardId-{n:012d}" for n in range(len(self.starts))]
        self.clock = clock
        self.began = clock()
        self.requests: list[list[dict[str, Any]]] = []
        self.stored: list[dict[str, Any]] = []
        self.stored_at: list[float] = []
        self.stored_by_shard: Counter[str] = Counter()
        self.throttled = 0
        self._limits = limiter and [
            LIMITERS[limiter](records_per_second, bytes_per_second) for _ in self.names
        ]
        self._latency = latency
        self._counted = counted
        self._others = others
        self._fault = fault
        self._random = random.Random(seed)

    @property
    def sent(self) -> int:
        """Entries in all requests together."""
        return sum(map(len, self.requests))

    def shard(self, partition_key: str) -> int:
        digest = hashlib.md5(partition_key.encode()).digest()
        return bisect_right(self.starts, int.from_bytes(digest)) - 1

    def split(self, shard: int) -> None:
        """Reshard: two children in place of one shard, each with a limit of its own."""
        end = self.starts[shard + 1] if shard + 1 < len(self.starts) else HASHES
        self.starts.insert(shard + 1, (self.starts[shard] + end) // 2)
        fresh = 1 + max(int(name.removeprefix("shardId-")) for name in self.names)
        self.names[shard : shard + 1] = [f"shardId-{fresh:012d}", f"shardId-{fresh + 1:012d}"]
        if self._limits:
            old = self._limits[shard]
            self._limits[shard : shard + 1] = [type(old)(old.records, old.size) for _ in range(2)]

    def put_records(self, *, StreamName: str, Records: list[dict[str, Any]]) -> dict[str, Any]:
        check_request(Records)
        self.requests.append(Records)
        latency = self._random.uniform(*self._latency)
        before = latency * self._random.uniform(*self._counted)
        self.clock.now += before
        answers = [self._answer(StreamName, index, entry) for index, entry in enumerate(Records)]
        self.clock.now += latency - before
        return {"FailedRecordCount": sum("ErrorCode" in answer for answer in answers), "Records": answers}

    def _answer(self, stream: str, index: int, entry: dict[str, Any]) -> dict[str, Any]:
        shard = self.shard(entry["PartitionKey"])
        code = self._fault(len(self.requests) - 1, index, entry)
        if code is None and self._limits:
            share = self._others(self.clock() - self.began, shard)
            if not self._limits[shard].take(self.clock(), entry_size(entry), share):
                code = THROTTLED
        if code == THROTTLED:
            self.throttled += 1
            message = (
                f"Rate exceeded for shard {self.names[shard]} in stream {stream} under account 123456789012."
            )
            return {"ErrorCode": code, "ErrorMessage": message}
        if code is not None:
            return {"ErrorCode": code, "ErrorMessage": "Internal Service Failure"}
        self.stored.append(entry)
        self.stored_at.append(self.clock() - self.began)
        self.stored_by_shard[self.names[shard]] += 1
        return {"SequenceNumber": str(len(self.stored)), "ShardId": self.names[shard]}


def entry_size(entry: dict[str, Any]) -> int:
    """What an entry counts for: its data and its partition key."""
    return len(entry["Data"]) + len(entry["PartitionKey"].encode())


def check_request(entries: list[dict[str, Any]]) -> None:
    """Refuse what Kinesis refuses as a whole."""
    sizes = [entry_size(entry) for entry in entries]
    keys = [len(entry["PartitionKey"]) for entry in entries]
    if not 1 <= len(entries) <= 500 or not all(1 <= length <= 256 for length in keys):
        raise client_error("ValidationException", "1 validation error detected")
    if sum(sizes) > 5 * 1024 * 1024 or max(sizes) > 1024 * 1024:
        raise client_error("InvalidArgumentException", "Records size exceeds the limit")


def client_error(code: str, message: str = "as told", status: int = 400) -> ClientError:
    """A botocore error as PutRecords raises it."""
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "PutRecords",
    )
