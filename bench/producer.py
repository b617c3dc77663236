"""The producers side by side, against a simulated stream with the limits of its shards, on a clock of its
own.

The clock makes it exact and quick: 20,000 records through one shard take 20 simulated seconds and a
fraction of a real one. A request takes 10 to 50 ms; a shard takes 1,000 records and 1 MiB in any second
(bench/kinesis_limits.py).
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import batched
from typing import Any

from bench.kinesis_limits import LimitedKinesis, VirtualClock
from bench.records import message
from producer.pace import SHARD_BYTES, SHARD_RECORDS
from producer.publish import Entry, Publisher

RECORDS = 20_000
SHARDS = (1, 2, 4, 8)
LATENCY = (0.010, 0.050)
SEED = 20_000

AT_ONCE = 50
"""Requests in flight of a producer that sends one record a request: the sockets that Node's SDK opens by default."""
SDK_ATTEMPTS = 3
"""How often an SDK in its standard retry mode sends a request (docs.aws.amazon.com/sdkref, "Retry behavior")."""
WHOLE_ATTEMPTS = 10
"""How often a request is sent by who sends it again whole. At some point a function's time is up."""
LONGEST_PAUSE = 20.0

type Produce = Callable[[Sequence[Entry], int], LimitedKinesis]


def put_record_each(entries: Sequence[Entry], shards: int) -> LimitedKinesis:
    """The question's producer: PutRecord for each record, as many at once as the SDK allows, its retries, no more."""
    clock = VirtualClock()
    kinesis = LimitedKinesis(clock, shards=shards, latency=(0.0, 0.0), seed=SEED)
    chance = random.Random(SEED)
    waiting = iter(entries)
    # (when the request is counted, a number that keeps the order, the attempt, the record)
    requests: list[tuple[float, int, int, Entry]] = []
    numbers = iter(range(len(entries) * SDK_ATTEMPTS))
    last = clock()

    def send(now: float, attempt: int, entry: Entry) -> None:
        heapq.heappush(requests, (now + chance.uniform(*LATENCY) / 2, next(numbers), attempt, entry))

    for _, entry in zip(range(AT_ONCE), waiting, strict=False):
        send(clock(), 1, entry)
    while requests:
        clock.now, _, attempt, entry = heapq.heappop(requests)
        (answer,) = kinesis.put_records(StreamName="bench", Records=[_request(entry)])["Records"]
        answered = last = clock() + chance.uniform(*LATENCY) / 2
        if "ErrorCode" in answer and attempt < SDK_ATTEMPTS:
            send(answered + chance.uniform(0, min(LONGEST_PAUSE, 2.0**attempt)), attempt + 1, entry)
        elif (following := next(waiting, None)) is not None:
            send(answered, 1, following)
    clock.now = max(clock(), last)
    return kinesis


def put_records_whole(entries: Sequence[Entry], shards: int) -> LimitedKinesis:
    """PutRecords, 500 a request; when any entry of a request failed, all of it is sent again after a pause."""
    clock = VirtualClock()
    kinesis = LimitedKinesis(clock, shards=shards, latency=LATENCY, seed=SEED)
    chance = random.Random(SEED)
    for batch in batched(map(_request, entries), 500, strict=False):
        for attempt in range(WHOLE_ATTEMPTS):
            if not kinesis.put_records(StreamName="bench", Records=list(batch))["FailedRecordCount"]:
                break
            clock.sleep(chance.uniform(0, min(LONGEST_PAUSE, 0.1 * 2.0**attempt)))
    return kinesis


def ours(entries: Sequence[Entry], shards: int) -> LimitedKinesis:
    """Oncestream's Publisher."""
    clock = VirtualClock()
    kinesis: Any = LimitedKinesis(clock, shards=shards, latency=LATENCY, seed=SEED)
    chance = random.Random(SEED)
    Publisher(kinesis, "bench", clock=clock, sleep=clock.sleep, random=chance.random).publish(entries)
    return kinesis  # type: ignore[no-any-return]  # Any above, because it is no boto3 client


PRODUCERS: dict[str, tuple[str, Produce]] = {
    "ours": ("Oncestream", ours),
    "put_records_whole": ("PutRecords, whole batches resent", put_records_whole),
    "put_record_each": ("the question's PutRecord each", put_record_each),
}


def measure(done: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Every producer, with small and with large records, on each number of shards."""
    for dataset, entries in {"flights": _flights(), "4 KB": _large()}.items():
        for shards in SHARDS:
            for name, (label, produce) in PRODUCERS.items():
                yield {
                    "producer": name,
                    "dataset": dataset,
                    "shards": shards,
                    **_account(entries, produce(entries, shards)),
                }
                done(f"{label}: {dataset}, {shards} shards")


def _account(entries: Sequence[Entry], kinesis: LimitedKinesis) -> dict[str, Any]:
    seconds = kinesis.clock() - kinesis.began
    stored = {entry["Data"] for entry in kinesis.stored}
    limit = seconds_at_limit(entries, kinesis)
    return {
        "seconds": round(seconds, 3),
        "seconds_at_limit": round(limit, 3),
        "share_of_limit": round(limit / seconds * len(stored) / len(entries), 3),
        "records_per_second": round(len(stored) / seconds),
        "requests": len(kinesis.requests),
        "sent": kinesis.sent,
        "lost": len(entries) - len(stored),
        "stored_twice": len(kinesis.stored) - len(stored),
    }


def seconds_at_limit(entries: Sequence[Entry], kinesis: LimitedKinesis) -> float:
    """How long the fullest shard takes for its part at 1,000 records and 1 MiB a second.

    A short job can be a little quicker: what a shard takes in its first second it takes at once.
    """
    records: Counter[int] = Counter()
    sizes: Counter[int] = Counter()
    for entry in entries:
        shard = kinesis.shard(entry.partition_key)
        records[shard] += 1
        sizes[shard] += len(entry.data) + len(entry.partition_key)
    return max(max(records[shard] / SHARD_RECORDS, sizes[shard] / SHARD_BYTES) for shard in records)


def _request(entry: Entry) -> dict[str, Any]:
    return {"Data": entry.data, "PartitionKey": entry.partition_key}


def _flights() -> list[Entry]:
    return [
        Entry(f"flight-{number}", f"flight-{number}", message("flights", number, f"flight-{number}", RECORDS))
        for number in range(RECORDS)
    ]


def _large() -> list[Entry]:
    return [
        Entry(f"large-{number}", f"large-{number}", f"large-{number}".ljust(4096).encode())
        for number in range(RECORDS)
    ]
