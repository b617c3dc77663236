"""The loop of one shard: read, deliver, settle, checkpoint."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from lambda_esm.checkpoints import CheckpointStore
from lambda_esm.clients import (
    Clients,
    GoneError,
    IteratorExpiredError,
    RecordsTrimmedError,
    UnavailableError,
)
from lambda_esm.control import Control
from lambda_esm.decisions import Decision, decide
from lambda_esm.destinations import failure_message, send
from lambda_esm.invoke import Invoker
from lambda_esm.mapping import SHARD_END, TRIM_HORIZON, Backoff, EventSourceMapping
from lambda_esm.metrics import MappingMetrics
from lambda_esm.observer import Delivery, Observer, Progress, Redeliver
from lambda_esm.queue import ShardQueue
from lambda_esm.records import Answered, Batch, CheckpointLost, Discard, FunctionFailed, NotInvoked
from lambda_esm.sources import Page, StreamSource

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tools:
    """What all workers of a poller use."""

    control: Control
    clients: Clients
    invoker: Invoker
    checkpoints: CheckpointStore
    observer: Observer
    redeliver: Redeliver
    backoff: Backoff
    poll_seconds: float


class ShardWorker:
    """Reads one shard and delivers its records, one thread for the loop and one for each batch in flight."""

    def __init__(
        self,
        tools: Tools,
        mapping: EventSourceMapping,
        source: StreamSource,
        shard_id: str,
        position: str,
        *,
        metrics: MappingMetrics,
    ) -> None:
        self.mapping = mapping
        self.shard_id = shard_id
        self.ended = False
        """The shard holds nothing more, and everything in it is processed."""
        self.vanished_at: float | None = None
        """When the shard was found to be gone, with what was not read of it. Nothing is checkpointed from then on."""
        self._tools = tools
        self._condition = tools.control.condition
        self._source = source
        self._metrics = metrics
        self._queue = ShardQueue(
            mapping.settings, backoff=tools.backoff, shard_id=shard_id, source_arn=mapping.source_arn
        )
        self._position = position  # of the last record read, or where to start
        self._iterator: str | None = None
        self._reading = True
        self._stopped = False
        self._saved: str | None = None
        self._read_at = 0.0
        self._read_failures = 0
        self._tip_seen_at = -1.0
        self._at_tip = False

    def start(self) -> None:
        self._tools.control.spawn(f"{self.mapping.function_name} {self.shard_id}", self._run)

    def stop(self, *, abandon: bool = False) -> None:
        """End soon. What was read and not delivered is read again another time. ``abandon``: there is no stream any
        more, so nothing is checkpointed.
        """
        with self._condition:
            self._stopped = True
            if abandon and self.vanished_at is None:
                self.vanished_at = time.time()
            self._condition.notify_all()

    def update(self, mapping: EventSourceMapping) -> None:
        """Go on with other settings."""
        with self._condition:
            self.mapping = mapping
            self._queue.settings = mapping.settings
            self._condition.notify_all()

    def drained(self, since: float) -> bool:
        """Everything that was in the shard at ``since`` is processed."""
        if self.vanished_at is not None:
            return not self.lost(since)
        return self.ended or self._settled(since)

    def lost(self, since: float) -> bool:
        """The shard was there at ``since`` and is not any more, and nobody knows what it held."""
        return self.vanished_at is not None and since <= self.vanished_at and not self._settled(since)

    def _settled(self, since: float) -> bool:
        return self._queue.idle and self._tip_seen_at >= since

    def status(self, now: float) -> dict[str, Any]:
        """How it stands with the shard. The lag is in milliseconds, ``None`` before the first read; zero at the tip."""
        lag = 0.0 if self._tip_seen_at >= 0 and self._queue.idle else None
        if (oldest := self._queue.oldest_arrival) is not None:
            lag = max(0.0, (now - oldest) * 1_000)
        return {
            "shard": self.shard_id,
            "checkpoint": self._queue.checkpoint,
            "waiting": self._queue.unprocessed,
            "lag": None if lag is None else round(lag),
        }

    @property
    def progress(self) -> Progress:
        """What was read of the shard, and what of it waits."""
        # A full queue reads nothing: what came since the last look is not known then.
        all_read = self.ended or (self._at_tip and (self._queue.room > 0 or not self._reading))
        return Progress(self._queue.taken, self._queue.unprocessed, all_read)

    # ------------------------------------------------------------- the loop

    def _run(self) -> None:
        while step := self._next_step():
            step()
        with self._condition:
            self.ended = self._queue.finished
            self._condition.notify_all()
        if self.ended and self.vanished_at is None:
            # Not for a shard that vanished: a stream of the same name may have one of the same name some day.
            self._tools.checkpoints.save(self.mapping.uuid, self.shard_id, SHARD_END)

    def _next_step(self) -> Callable[[], None] | None:
        """Wait for the next thing to do; ``None``: nothing is left to do."""
        with self._condition:
            while not (self._stops() or self._queue.finished):
                now = time.time()
                if work := self._queue.next_work(now):
                    return partial(self._send_off, work)
                reads = self._reading and self._queue.room > 0
                if reads and now >= self._read_at:
                    return self._read
                times = [self._queue.wake_at, self._read_at if reads else None]
                wake_at = min((moment for moment in times if moment is not None), default=None)
                self._condition.wait(None if wake_at is None else max(0.0, wake_at - now))
        return None

    def _stops(self) -> bool:
        """Whether to end. What is in flight settles itself; the poller's ``join`` waits for that."""
        return self._stopped or self._tools.control.stopping

    def _send_off(self, work: Batch | Discard) -> None:
        task = partial(self._deliver, work) if isinstance(work, Batch) else partial(self._discard, work)
        self._tools.control.spawn(f"{self.mapping.function_name} {self.shard_id} in flight", task)

    # ------------------------------------------------------------ the reads

    def _read(self) -> None:
        started = time.time()
        try:
            if self._iterator is None:
                self._iterator = self._source.open(self.shard_id, self._position)
                self._position = self._source.pin(self._position, started)
            page = self._source.read(self.shard_id, self._iterator, self._queue.room)
        except UnavailableError as error:
            self._retry_read(str(error))
        except IteratorExpiredError as error:
            self._iterator = None
            self._retry_read(str(error))
        except RecordsTrimmedError as error:
            self._iterator, self._position = None, TRIM_HORIZON
            self._retry_read(f"records expired before they were read; going on with the oldest: {error}")
        except GoneError as error:
            self._gone(error)
        else:
            self._read_failures = 0
            if page.last is not None:
                self._position = page.last
            self._iterator = page.iterator
            self._change(partial(self._take, page, started))

    def _gone(self, error: GoneError) -> None:
        """The endpoint does not know the shard. A stream that goes on naming it is not believed."""
        try:
            listed = any(shard.id == self.shard_id for shard in self._source.shards())
        except GoneError:
            listed = False
        except UnavailableError as unavailable:
            self._retry_read(str(unavailable))
            return
        if listed:
            self._iterator = None
            self._retry_read(f"the stream names the shard, but it cannot be read: {error}")
            return
        logger.error("%s: the shard is gone, with what was not read of it: %s", self.shard_id, error)
        with self._condition:
            self._reading, self.vanished_at = False, time.time()
            self._queue.close()
            self._condition.notify_all()

    def _take(self, page: Page, started: float) -> None:
        now = time.time()
        filtered = self._queue.filtered
        self._queue.feed(page.records, now)
        self._metrics.polled += len(page.records)
        self._metrics.filtered += self._queue.filtered - filtered
        if page.iterator is None:
            self._reading = False
            self._queue.close()
        self._at_tip = page.at_tip
        if page.at_tip:
            self._tip_seen_at = started
            self._read_at = now + self._tools.poll_seconds

    def _retry_read(self, problem: str) -> None:
        self._read_failures += 1
        self._read_at = time.time() + self._tools.backoff.delay(self._read_failures)
        logger.warning("%s %s: %s", self.mapping.function_name, self.shard_id, problem)

    # ------------------------------------------------------- the deliveries

    def _deliver(self, batch: Batch) -> None:
        mapping, tools = self.mapping, self._tools
        started = time.perf_counter()
        outcome = tools.invoker.invoke(mapping, batch)
        seconds = time.perf_counter() - started
        decision = decide(batch, outcome, mapping.settings)
        delivery = Delivery(mapping, self.shard_id, batch, outcome, decision, seconds)
        _log_delivery(delivery)
        tools.observer.on_delivery(delivery)
        lost = delivery.succeeded and tools.redeliver(delivery)
        if lost:
            logger.info("%s %s: delivering it again, on purpose", mapping.function_name, self.shard_id)

        def settle() -> None:
            now = time.time()
            self._metrics.count_delivery(batch, outcome, Decision() if lost else decision, now)
            self._queue.settle(batch, CheckpointLost() if lost else outcome, now)

        self._change(settle)

    def _discard(self, discard: Discard) -> None:
        mapping = self.mapping
        message = failure_message(mapping, self.shard_id, discard)
        logger.error(
            "%s %s: giving up %s (%s): %s",
            mapping.function_name,
            self.shard_id,
            _count(discard.batch),
            discard.condition,
            f"kept in {message.destination}" if message else "there is no on-failure destination",
        )
        failures = 0
        while message is not None:
            try:
                send(self._tools.clients, message)
                break
            except UnavailableError as error:
                failures += 1
                logger.warning("%s %s: %s", mapping.function_name, self.shard_id, error)
                if not self._pause(self._tools.backoff.delay(failures)):
                    # Stopped. It is not checkpointed, so the next run comes to the same end.
                    self._change(partial(self._queue.postpone, discard))
                    return
        self._tools.observer.on_discard(mapping, self.shard_id, discard)

        def discarded() -> None:
            self._metrics.count_discard(discard, kept=message is not None)
            self._queue.discarded(discard)

        self._change(discarded)

    def _change(self, change: Callable[[], None]) -> None:
        """Change the queue, and keep the checkpoint if it moved."""
        with self._condition:
            change()
            checkpoint = self._queue.checkpoint
            if checkpoint is not None and checkpoint != self._saved and self.vanished_at is None:
                self._saved = checkpoint
                self._tools.checkpoints.save(self.mapping.uuid, self.shard_id, checkpoint)
                self._tools.observer.on_checkpoint(self.mapping, self.shard_id, checkpoint)
            self._condition.notify_all()

    def _pause(self, seconds: float) -> bool:
        """Wait; ``False`` if the worker is to stop."""
        with self._condition:
            return not self._condition.wait_for(self._stops, seconds)


def _count(batch: Batch) -> str:
    return f"{len(batch.records):,} record{'s' if len(batch.records) != 1 else ''}"


def _log_delivery(delivery: Delivery) -> None:
    """One line that a person can read."""
    decision, outcome = delivery.decision, delivery.outcome
    if delivery.succeeded:
        result = "done"
    else:
        problem = {
            Answered: "partial failure",
            FunctionFailed: f"function failed ({_brief(outcome)})",
            NotInvoked: f"not invoked ({_brief(outcome)})",
        }[type(outcome)]
        next_steps = [f"{len(decision.done):,} done"] if decision.done else []
        next_steps += [f"retrying {_count(batch)}" for batch in decision.retry]
        next_steps += [f"giving up {_count(decision.discard)}"] if decision.discard else []
        result = f"{problem}: {', '.join(next_steps)}"
    logger.log(
        logging.INFO if delivery.succeeded else logging.WARNING,
        "%s %s: %s in %.0f ms: %s",
        delivery.mapping.function_name,
        delivery.shard_id,
        _count(delivery.batch),
        delivery.seconds * 1_000,
        result,
    )


def _brief(outcome: Answered | FunctionFailed | NotInvoked) -> str:
    match outcome:
        case FunctionFailed(error={"errorType": kind, "errorMessage": message}):
            return f"{kind}: {message}"[:200]
        case FunctionFailed(error):
            return str(error)[:200]
        case NotInvoked(reason):
            return reason[:200]
        case Answered():
            return ""
