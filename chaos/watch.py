"""Watching the stack at work: what the poller delivers, and how many records are settled in Postgres."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator

import pg8000.native
from pg8000.exceptions import DatabaseError, InterfaceError

from chaos.journal import Journal, Sample
from lambda_esm import Answered, Delivery, FunctionFailed, NotInvoked, Observer, Redeliver

SAMPLE_SECONDS = 0.5
_AWAY = (OSError, DatabaseError, InterfaceError)
"""What pg8000 raises when Postgres is away, or has ended the session."""
_SETTLED = "SELECT (SELECT count(*) FROM records) + (SELECT count(*) FROM rejected_records)"


class Deliveries(Observer):
    """Counts what the consumer was handed, and what became of it."""

    def __init__(self, consumer: str) -> None:
        self._consumer = consumer
        self._lock = threading.Lock()
        self.records = 0
        """Handed to the consumer, repetitions counted."""
        self.batches = 0
        self.partly_failed = 0
        """Batches of which the consumer reported records as failed."""
        self.crashed = 0
        """Invocations that ended with an error: the process was killed, for one."""
        self.not_invoked = 0
        self.discarded = 0
        """Records that were given up: there have to be none."""

    def on_delivery(self, delivery: Delivery) -> None:
        if delivery.mapping.function_name != self._consumer:
            return
        with self._lock:
            self.batches += 1
            match delivery.outcome:
                case NotInvoked():
                    self.not_invoked += 1
                    return
                case FunctionFailed():
                    self.crashed += 1
                case Answered():
                    self.partly_failed += not delivery.succeeded
            self.records += len(delivery.batch.records)

    def on_discard(self, mapping: object, shard_id: str, discard: object) -> None:
        with self._lock:
            self.discarded += 1


def redeliver(draw: random.Random, share: Callable[[], float], journal: Journal) -> Redeliver:
    """Deliver a share of all batches once more after their success, and note it. The share may change."""
    lock = threading.Lock()

    def again(delivery: Delivery) -> bool:
        with lock:
            wanted = delivery.batch.invocations == 0 and draw.random() < share()
        if wanted:
            count = len(delivery.batch.records)
            function = delivery.mapping.function_name.split("-")[1]
            journal.note("redelivered", f"{count:,} records to {function}")
        return wanted

    return again


class Watch:
    """Looks every half second how far the records are, and keeps what it saw."""

    def __init__(
        self, connect: Callable[[], pg8000.native.Connection], journal: Journal, deliveries: Deliveries
    ) -> None:
        self._connect = connect
        self._journal = journal
        self._deliveries = deliveries
        self._connection: pg8000.native.Connection | None = None
        self._condition = threading.Condition()
        self._ending = False
        self._sent = 0
        self._settled = 0
        self.samples: list[Sample] = []
        self.on_sample: Callable[[Sample], None] = lambda sample: None

    def sent(self, records: int) -> None:
        """So many more records are handed over."""
        with self._condition:
            self._sent += records

    @property
    def settled(self) -> int:
        """Rows and rejected records, as of the last look."""
        return self._settled

    def wait(self, until: Callable[[], bool], seconds: float | None = None) -> bool:
        """Wait until something holds, which is looked at with every sample. False if it took too long."""
        with self._condition:
            self._condition.wait_for(lambda: self._ending or until(), seconds)
            return until()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Look, in a thread of its own, for as long as the block lasts."""
        thread = threading.Thread(target=self._run, name="watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            with self._condition:
                self._ending = True
                self._condition.notify_all()
            thread.join()
            self._disconnect()

    def _run(self) -> None:
        while True:
            answered = self._look()
            with self._condition:
                sample = Sample(
                    round(self._journal.now, 2), self._sent, self._settled, self._deliveries.records, answered
                )
                self.samples.append(sample)
                self._condition.notify_all()
                if self._ending:
                    return
            self.on_sample(sample)
            with self._condition:
                self._condition.wait_for(lambda: self._ending, SAMPLE_SECONDS)

    def _look(self) -> bool:
        try:
            if self._connection is None:
                self._connection = self._connect()
            (self._settled,) = self._connection.run(_SETTLED)[0]
        except _AWAY:
            self._disconnect()
            return False
        return True

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(*_AWAY):  # nobody is at the other end
                self._connection.close()
            self._connection = None
