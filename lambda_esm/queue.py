"""One shard between the stream and the function: records go in; batches, discards and a checkpoint come out.

A state machine without threads, clock or I/O: it is told the time. The poller drives it, and a test or a
fault-injection harness can drive it as well::

    queue = ShardQueue(settings)
    queue.feed(records, now)
    while work := queue.next_work(now):
        match work:
            case Batch():
                queue.settle(work, invoke(work.event), now)
            case Discard():
                queue.discarded(work)
    queue.checkpoint  # the last sequence number of the processed prefix
    queue.wake_at  # when a retry or a batching window falls due

Sources: docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html (batching, ParallelizationFactor: "Lambda
still ensures in-order processing at the partition-key level"), with-ddb.html ("at the item (partition and
sort key) level"); services-kinesis-windows.html (tumbling windows).
"""

from __future__ import annotations

import json
import zlib
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from lambda_esm.decisions import Decision, decide, state_of
from lambda_esm.mapping import Backoff, MappingSettings
from lambda_esm.records import (
    ENVELOPE_BYTES,
    PAYLOAD_LIMIT,
    SEPARATOR_BYTES,
    STATE_LIMIT,
    Answered,
    Batch,
    Discard,
    Outcome,
    StreamRecord,
    Window,
)

_CAPACITY = 10_000
"""Records held at most, unless two batches a lane are more: what one GetRecords of Kinesis may return."""


@dataclass(slots=True)
class _Lane:
    """One of ParallelizationFactor: its records are delivered in order, one batch at a time."""

    waiting: deque[tuple[StreamRecord, float]] = field(default_factory=deque)
    """Not delivered yet, each with the time it was read."""
    retries: deque[tuple[Batch, float]] = field(default_factory=deque)
    """To deliver again before anything that waits, each with the time from which on."""
    discard: Discard | None = None
    busy: Batch | Discard | None = None


@dataclass(slots=True)
class _OpenWindow:
    """The tumbling window that is being gone through."""

    window: Window
    processed: list[StreamRecord] = field(default_factory=list)
    """Finished only with the window: a poller that is started again has lost the state and begins the window anew."""

    def holds(self, record: StreamRecord) -> bool:
        """A record that is older than the window's start (arrival times are approximate) is taken along."""
        return record.arrived_at < self.window.end


_LATE_SECONDS = 1.0
"""How long after its end a window waits for records that are still on their way. Lambda waits two minutes at most:
docs.aws.amazon.com/lambda/latest/dg/services-kinesis-windows.html"""


class ShardQueue:
    """The records of one shard, from the read to the checkpoint.

    Parameters
    ----------
    settings
        The mapping's settings. They may be replaced at any time and apply from the next decision on; a new
        ParallelizationFactor once everything read so far is processed, so that no key is in two lanes at
        once.
    backoff
        The pace of retries.
    checkpoint
        Where an earlier run got to, if it did.
    shard_id, source_arn
        Only the events of tumbling windows name them.
    """

    def __init__(
        self,
        settings: MappingSettings,
        *,
        backoff: Backoff | None = None,
        checkpoint: str | None = None,
        shard_id: str = "",
        source_arn: str = "",
    ) -> None:
        self.settings = settings
        self._shard_id, self._source_arn = shard_id, source_arn
        self._window: _OpenWindow | None = None
        self.checkpoint = checkpoint
        """Sequence number of the last record before which, and including which, all are processed."""
        self.filtered = 0
        """How many records did not pass the filters."""
        self._backoff = backoff or Backoff()
        self._lanes = [_Lane() for _ in range(settings.parallelization_factor)]
        # Since the checkpoint: sequence number -> processed. Not a dict, whose front is slow to find after
        # deletions.
        self._unfinished: OrderedDict[str, bool] = OrderedDict()
        self._waiting_bytes = 0
        self._closed = False
        self.taken = 0
        """Records that were read, those that are filtered out as well."""

    # ------------------------------------------------------------------ in

    @property
    def room(self) -> int:
        """How many more records to read. Zero while enough is held, or while the lanes are about to
        change."""
        lanes = self.settings.parallelization_factor
        if len(self._lanes) != lanes and self._unfinished:
            return 0
        capacity = max(_CAPACITY, 2 * lanes * self.settings.batch_size)
        # Half of it has to be free, so that reads are few and large rather than one for each batch that
        # gets done.
        if len(self._unfinished) > capacity // 2 or self._waiting_bytes >= 2 * lanes * PAYLOAD_LIMIT:
            return 0
        return capacity - len(self._unfinished)

    def feed(self, records: Iterable[StreamRecord], now: float) -> None:
        """Take records that were read, in the shard's order. What is filtered out counts as processed."""
        if len(self._lanes) != self.settings.parallelization_factor and not self._unfinished:
            self._lanes = [_Lane() for _ in range(self.settings.parallelization_factor)]
        for record in records:
            if record.sequence_number in self._unfinished:  # read twice, after an iterator was lost
                continue
            self.taken += 1
            wanted = self.settings.filters.accept(record.event)
            self._unfinished[record.sequence_number] = not wanted
            self.filtered += not wanted
            if wanted:
                hashed = zlib.crc32(record.key.encode(errors="surrogatepass"))
                self._lanes[hashed % len(self._lanes)].waiting.append((record, now))
                self._waiting_bytes += len(record.body)
        self._advance()

    def close(self) -> None:
        """The shard ended: no more records will come, so none waits for the batching window."""
        self._closed = True

    # ----------------------------------------------------------------- out

    def next_work(self, now: float) -> Batch | Discard | None:
        """What to do next: a batch to deliver (then ``settle``), a discard to send off (then ``discarded``).

        ``None``: nothing now. Up to ParallelizationFactor pieces of work may be out at once.
        """
        for number, lane in enumerate(self._lanes):
            if lane.busy is None:
                lane.busy = self._work_of(number, lane, now)
                if lane.busy is not None:
                    return lane.busy
        return None

    def settle(self, batch: Batch, outcome: Outcome, now: float) -> None:
        """Say what became of a batch."""
        lane = self._release(batch)
        decision = decide(batch, outcome, self.settings)
        for part in reversed(decision.retry):
            lane.retries.appendleft((part, now + self._backoff.delay(part.failures)))
        if decision.discard is not None:
            lane.discard = Discard(decision.discard, "RetryAttemptsExhausted", now)
        if self._window is None or batch.window is None:
            self._finish(decision.done)
        else:
            self._settle_in_window(self._window, batch, decision, outcome)

    def discarded(self, discard: Discard) -> None:
        """The on-failure destination has it (or there is none)."""
        self._release(discard)
        if self._window is None:
            self._finish(discard.batch.records)
        else:
            self._window.processed += discard.batch.records

    def postpone(self, discard: Discard) -> None:
        """It could not be sent off now: ``next_work`` will offer it again."""
        self._release(discard).discard = discard

    # --------------------------------------------------------------- state

    @property
    def idle(self) -> bool:
        """Everything that was read is processed."""
        return not self._unfinished

    @property
    def unprocessed(self) -> int:
        """How many of the records that were read are not processed."""
        return sum(not processed for processed in self._unfinished.values())

    @property
    def oldest_arrival(self) -> float | None:
        """When the oldest record arrived that waits for its first delivery; ``None``: none waits."""
        return min((lane.waiting[0][0].arrived_at for lane in self._lanes if lane.waiting), default=None)

    @property
    def busy(self) -> bool:
        """Some work is out."""
        return any(lane.busy is not None for lane in self._lanes)

    @property
    def finished(self) -> bool:
        """The shard ended and everything in it is processed: its children may start."""
        return self._closed and not self._unfinished

    @property
    def wake_at(self) -> float | None:
        """When a lane that is not busy will have work without anything else happening; ``None``: never."""
        times = [self._due(lane) for lane in self._lanes if lane.busy is None]
        return min((time for time in times if time is not None), default=None)

    # ------------------------------------------------------------- private

    def _work_of(self, number: int, lane: _Lane, now: float) -> Batch | Discard | None:
        if lane.discard is not None:
            work, lane.discard = lane.discard, None
            return work
        if lane.retries:
            batch, due = lane.retries[0]
            if aged := self._count_aged(batch.records, now):
                lane.retries.popleft()
                if rest := batch.records[aged:]:
                    lane.retries.appendleft((replace(batch, records=rest), due))
                return Discard(replace(batch, records=batch.records[:aged]), "RecordAgeExceeded", now)
            if now < due:
                return None
            lane.retries.popleft()
            return batch
        return self._new_work(number, lane, now)

    def _new_work(self, number: int, lane: _Lane, now: float) -> Batch | Discard | None:
        """What to do with records that were never delivered."""
        if self._window is None and lane.waiting and (length := self.settings.tumbling_window_seconds):
            start = lane.waiting[0][0].arrived_at // length * length
            self._window = _OpenWindow(Window(start, start + length, self._shard_id, self._source_arn))
        if self._window is not None and (last := self._last_of_window(self._window, number, lane, now)):
            return last
        if (
            lane.waiting
            and ENVELOPE_BYTES + self._extra_bytes() + len(lane.waiting[0][0].body) > PAYLOAD_LIMIT
        ):
            # Not documented what Lambda does with it. To try for ever would block the shard.
            record, _ = lane.waiting.popleft()
            self._waiting_bytes -= len(record.body)
            return Discard(Batch((record,), lane=number), "RecordTooLarge", now)
        size = self._ready(lane, now)
        # A record may be too old before its first delivery: "The maximum age of a record that Lambda sends
        # to your function". Only those are given up, not the younger ones that would have shared the batch
        # with them.
        aged = self._count_aged((record for record, _ in lane.waiting), now, size)
        records = tuple(lane.waiting.popleft()[0] for _ in range(aged or size))
        self._waiting_bytes -= sum(len(record.body) for record in records)
        if not records:
            return None
        batch = Batch(records, lane=number, window=self._window.window if self._window else None)
        return Discard(batch, "RecordAgeExceeded", now) if aged else batch

    def _ready(self, lane: _Lane, now: float) -> int:
        """How many waiting records make a batch now: it is full (in number or bytes), or has waited long
        enough."""
        count, size = 0, ENVELOPE_BYTES + self._extra_bytes() - SEPARATOR_BYTES
        for record, _ in lane.waiting:
            size += SEPARATOR_BYTES + len(record.body)
            if count == self.settings.batch_size or (count and size > PAYLOAD_LIMIT):
                return count
            if self._window and not self._window.holds(record):
                return count
            count += 1
        if count in (0, self.settings.batch_size) or self._closed:
            return count
        waited = now >= lane.waiting[0][1] + self.settings.batching_window_seconds
        return count if waited or (self._window and now >= self._window.window.end + _LATE_SECONDS) else 0

    def _extra_bytes(self) -> int:
        return len(Batch((), window=self._window.window).payload) - ENVELOPE_BYTES if self._window else 0

    def _last_of_window(self, open_window: _OpenWindow, number: int, lane: _Lane, now: float) -> Batch | None:
        """The last batch of the window, which holds no records, once nothing more can belong to it."""
        if lane.waiting:
            over = not open_window.holds(lane.waiting[0][0])
        else:
            over = self._closed or now >= open_window.window.end + _LATE_SECONDS
        if not (over or open_window.window.early):
            return None
        return Batch((), lane=number, window=replace(open_window.window, final=True))

    def _settle_in_window(
        self, open_window: _OpenWindow, batch: Batch, decision: Decision, outcome: Outcome
    ) -> None:
        if not batch.records:
            if not decision.retry:
                self._window = None
                self._finish(open_window.processed)
            return
        open_window.processed += decision.done
        state = state_of(outcome.response) if isinstance(outcome, Answered) else None
        if not decision.done or state is None:
            return
        large = len(json.dumps(state)) > STATE_LIMIT
        open_window.window = replace(open_window.window, state=state, early=large)
        lane = self._lanes[batch.lane]
        lane.retries = deque(
            (replace(part, window=open_window.window), due) if part.window else (part, due)
            for part, due in lane.retries
        )

    def _count_aged(self, records: Iterable[StreamRecord], now: float, limit: int | None = None) -> int:
        """How many of the first records are too old."""
        age = self.settings.maximum_record_age_seconds
        if age is None:
            return 0
        count = 0
        for record in records:
            if count == limit or now - record.arrived_at <= age:
                break
            count += 1
        return count

    def _due(self, lane: _Lane) -> float | None:
        if lane.discard is not None:
            return 0.0
        if lane.retries:
            return lane.retries[0][1]
        if self._window and (not lane.waiting or not self._window.holds(lane.waiting[0][0])):
            return 0.0 if lane.waiting or self._closed else self._window.window.end + _LATE_SECONDS
        if lane.waiting:
            due = lane.waiting[0][1] + self.settings.batching_window_seconds
            return min(due, self._window.window.end + _LATE_SECONDS) if self._window else due
        return None

    def _release(self, work: Batch | Discard) -> _Lane:
        for lane in self._lanes:
            if lane.busy is work:
                lane.busy = None
                return lane
        raise ValueError("that work is not out: it was settled before, or belongs to another queue")

    def _finish(self, records: Iterable[StreamRecord]) -> None:
        for record in records:
            self._unfinished[record.sequence_number] = True
        self._advance()

    def _advance(self) -> None:
        while self._unfinished:
            number = next(iter(self._unfinished))
            if not self._unfinished[number]:
                break
            del self._unfinished[number]
            self.checkpoint = number
