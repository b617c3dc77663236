"""Packs entries into PutRecords requests and sorts them by the answers."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import chain
from typing import TYPE_CHECKING

from producer.entry import Entry, Published, Unpublished
from producer.pace import ShardPace, StreamPace, wait_after
from records.record import MAX_RECORD_BYTES, Record

if TYPE_CHECKING:
    from mypy_boto3_kinesis.type_defs import PutRecordsResultEntryTypeDef

MAX_REQUEST_RECORDS = 500
MAX_REQUEST_BYTES = 5 * 1024 * 1024
"""What one PutRecords request takes, partition keys counted in.

Source: docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html. Since October 2025 a request may
have 10 MiB, and a stream may be set to take records of up to 10 MiB. We stay below, because the consumer's
invocation takes no more than 6 MB.
"""

THROTTLED = "ProvisionedThroughputExceededException"

_MAX_WAITING_RECORDS = 4_000
_MAX_WAITING_BYTES = 16 * 1024 * 1024
# How long a request that is not full waits for room on a busy shard: once cut into pieces they would stay so.
_LINGER = 0.05
# So many refused records, if they are most of a shard's in the request, are more than an inexact window explains.
_FEW = 50
_SHARD_ID = re.compile(r"shardId-\d+")


@dataclass(slots=True)
class Unsent:
    """An entry that is not on the stream yet."""

    entry: Entry
    size: int
    slot: int
    attempts: int = 0
    reason: str = ""


class Packing:
    """One call of publish: the source, what waits for its shard, and the request that is being filled."""

    def __init__(
        self,
        stream: StreamPace,
        source: Iterator[Record | Entry],
        attempts: int,
        random: Callable[[], float],
    ) -> None:
        self.result = Published()
        self._stream = stream
        self._version = stream.version
        self._source = source
        self._attempts = attempts
        self._random = random
        self._waiting: dict[ShardPace, deque[Unsent]] = {}
        self._waiting_records = 0
        self._waiting_bytes = 0
        # What failed by itself, not for its shard's pace: (when to send it again, a number, the entry).
        self._delayed: list[tuple[float, int, Unsent]] = []
        self._delays = 0
        self._open()

    def _open(self) -> None:
        self._batch: list[Unsent] = []
        self._batch_bytes = 0
        self._batch_shards: dict[ShardPace, tuple[int, int]] = {}
        self._full = False
        self._opened = 0.0

    def fill(self, now: float) -> bool:
        """Fill the request with what the shards take now: first what waits, then fresh records.

        Returns whether anything is left to send.
        """
        if not self._batch:
            self._opened = now
        due = []
        while self._delayed and self._delayed[0][0] <= now:
            due.append(heappop(self._delayed)[2])
            self._count(due[-1], -1)
        for late in reversed(due):
            self._first(late, self._stream.shard(late.slot))
        if self._version != self._stream.version:
            self._sort_again()
        for shard in sorted(self._waiting, key=lambda shard: len(self._waiting[shard]), reverse=True):
            self._fill_from(shard, now)
        while (
            not self._full
            and self._waiting_records < _MAX_WAITING_RECORDS
            and self._waiting_bytes < _MAX_WAITING_BYTES
            and (pending := self._next()) is not None
        ):
            shard = self._stream.shard(pending.slot)
            # Behind those that wait already: a shard's records leave in their order.
            if shard in self._waiting or not self._add(pending, shard, now):
                self._wait(pending, shard)
        return bool(self._batch or self._waiting or self._delayed)

    def start(self, now: float) -> float:
        """When to send the request: now, or when more of what waits will fit."""
        if self._full:
            return now
        changes = [shard.next_change(now) for shard in self._waiting]
        if self._delayed:
            changes.append(self._delayed[0][0])
        more = min(changes, default=now)
        return more if not self._batch or more <= self._opened + _LINGER else now

    def take(self) -> list[Unsent]:
        """Take the request out, to be sent, and open the next one."""
        batch = self._batch
        self._open()
        for pending in batch:
            self.result.resent += pending.attempts > 0
            pending.attempts += 1
        self.result.requests += 1
        return batch

    def lost(self, batch: list[Unsent], reason: str) -> None:
        """No answer, or none that helps: all of the request is to be sent again."""
        again = [pending for pending in batch if not self._gave_up(pending, reason)]
        for pending in reversed(again):
            self._first(pending, self._stream.shard(pending.slot))

    def answered(
        self, batch: list[Unsent], answers: list[PutRecordsResultEntryTypeDef], now: float, sent: float
    ) -> None:
        """Sort a request's entries by their answers, which are in the same order.

        The request was sent at ``sent``, the answers came at ``now``.
        """
        expected: dict[ShardPace, set[int]] = {}
        for pending in batch:
            expected.setdefault(self._stream.shard(pending.slot), set()).add(pending.slot)
        took: dict[ShardPace, list[int]] = {}
        throttled: list[tuple[Unsent, ShardPace, str]] = []
        for pending, answer in zip(batch, answers, strict=True):
            code = answer.get("ErrorCode")
            message = answer.get("ErrorMessage", "")
            if code is None and answer.get("SequenceNumber"):
                sums = took.setdefault(self._stream.learn(pending.slot, answer.get("ShardId")), [0, 0])
                sums[0] += 1
                sums[1] += pending.size
            elif code == THROTTLED:
                found = _SHARD_ID.search(message)
                shard = self._stream.learn(pending.slot, found.group() if found else None)
                throttled.append((pending, shard, f"{code}: {message}"))
            elif not self._gave_up(pending, f"{code or 'no sequence number'}: {message}"):
                self._delay(pending, now)
        named = took.keys() | {shard for _, shard, _ in throttled}
        for shard, slots in expected.items():
            # All of its entries went elsewhere: it was split or merged. One or two slots at its edges prove nothing.
            if named and shard not in named and len(slots) > 2:
                self._stream.closed(shard)
        for shard, (records, size) in took.items():
            shard.took(records, size, now)
            self.result.published += records
        refused = Counter(shard for _, shard, _ in throttled)
        for shard, records in refused.items():
            # A few too many: the window was full when the request was sent. Most: it takes less than was thought,
            # and what ran out of the window on the way has not made room either.
            shard.throttled(now, sent if records < max(_FEW, took.get(shard, [0])[0]) else now)
        for shard in took.keys() - refused.keys():
            shard.went_well(now, sent)
        # A busy shard is a matter of pace, and time will tell, as long as it takes anything at all.
        again = [
            (pending, shard)
            for pending, shard, reason in throttled
            if not self._gave_up(pending, reason, stuck=shard.refusals >= self._attempts)
        ]
        for pending, shard in reversed(again):
            self._first(pending, shard)

    def give_up(self, reason: str) -> None:
        """Report everything that is left as failed."""
        delayed = [pending for _, _, pending in sorted(self._delayed)]
        for pending in chain(self._batch, *self._waiting.values(), delayed):
            last = f" again, after {pending.reason}" if pending.reason else ""
            self.result.failed.append(Unpublished(pending.entry.id, reason + last))
        self._waiting.clear()
        self._delayed.clear()
        self._open()

    def _next(self) -> Unsent | None:
        """The next record of the source that the stream can take; None at its end."""
        while not self.result.exhausted:
            record = next(self._source, None)
            if record is None:
                self.result.exhausted = True
                break
            self.result.taken += 1
            entry = record if isinstance(record, Entry) else Entry.of(record)
            size = len(entry.data) + len(entry.partition_key.encode())
            if size > MAX_RECORD_BYTES:
                reason = f"{size} bytes with its partition key; a record has {MAX_RECORD_BYTES} at most"
            elif not 1 <= len(entry.partition_key) <= 256:
                reason = f"a partition key of {len(entry.partition_key)} characters; it has 1 to 256"
            else:
                return Unsent(entry, size, self._stream.slot(entry.partition_key))
            self.result.rejected.append(Unpublished(entry.id, reason))
        return None

    def _fill_from(self, shard: ShardPace, now: float) -> None:
        queue = self._waiting[shard]
        while queue and not self._full and self._add(queue[0], shard, now):
            self._count(queue.popleft(), -1)
        if not queue:
            del self._waiting[shard]

    def _sort_again(self) -> None:
        """Let what waits wait for the shards that are known by now."""
        self._version = self._stream.version
        queues, self._waiting = self._waiting, {}
        for pending in chain(*queues.values()):
            self._waiting.setdefault(self._stream.shard(pending.slot), deque()).append(pending)

    def _add(self, pending: Unsent, shard: ShardPace, now: float) -> bool:
        """Put an entry into the request, if the request and the shard have room."""
        size = self._batch_bytes + pending.size
        if size > MAX_REQUEST_BYTES:
            self._full = True
            return False
        records, shard_bytes = self._batch_shards.get(shard, (0, 0))
        if not shard.allows(records + 1, shard_bytes + pending.size, now):
            return False
        self._batch.append(pending)
        self._batch_bytes = size
        self._batch_shards[shard] = (records + 1, shard_bytes + pending.size)
        self._full = len(self._batch) == MAX_REQUEST_RECORDS
        return True

    def _wait(self, pending: Unsent, shard: ShardPace) -> None:
        self._waiting.setdefault(shard, deque()).append(pending)
        self._count(pending, 1)

    def _first(self, pending: Unsent, shard: ShardPace) -> None:
        """Let an entry wait before all others of its shard."""
        self._waiting.setdefault(shard, deque()).appendleft(pending)
        self._count(pending, 1)

    def _count(self, pending: Unsent, change: int) -> None:
        self._waiting_records += change
        self._waiting_bytes += change * pending.size

    def _delay(self, pending: Unsent, now: float) -> None:
        self._count(pending, 1)
        self._delays += 1
        heappush(self._delayed, (now + wait_after(pending.attempts, self._random), self._delays, pending))

    def _gave_up(self, pending: Unsent, reason: str, *, stuck: bool = True) -> bool:
        """Report an entry as failed, if it was sent often enough."""
        pending.reason = reason
        if not stuck or pending.attempts < self._attempts:
            return False
        times = "once" if pending.attempts == 1 else f"{pending.attempts} times"
        self.result.failed.append(Unpublished(pending.entry.id, f"{reason} (sent {times})"))
        return True
