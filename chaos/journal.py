"""What happened, and when: the faults, and what was measured meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from chaos.wire import KINDS as WIRE_KINDS

FUNCTIONS = "function processes"
POSTGRES = "Postgres"
WIRE = "the wire"
STREAM = "the stream"
REPEATS = "repeats"

KINDS: dict[str, tuple[str, str]] = {
    "killed": (FUNCTIONS, "a function's process killed (SIGKILL)"),
    "restarted": (POSTGRES, "Postgres stopped in order and started again"),
    "crashed": (POSTGRES, "Postgres stopped as by a crash and started again"),
    "sessions_ended": (POSTGRES, "all sessions ended (pg_terminate_backend)"),
    "delayed": (WIRE, "a request held for up to 1.5 s"),
    "refused": (WIRE, "a connection closed before the request had an effect"),
    "unavailable": (WIRE, "status 503 before the request had an effect"),
    "dropped": (WIRE, "a request carried out, its answer never sent"),
    "failed": (WIRE, "a request carried out, its answer replaced by status 500"),
    "late": (WIRE, "a request carried out, its answer 12 s later"),
    "resharded": (STREAM, "shards split or merged (drained, writes held back)"),
    "notification_repeated": (REPEATS, "an S3 notification sent to register again"),
    "jobs_repeated": (REPEATS, "an upload's chunk jobs put on the queue again"),
    "redelivered": (REPEATS, "a batch delivered again after its success"),
}
"""Each kind of fault: where it belongs, and what it is in words."""
assert set(WIRE_KINDS) < KINDS.keys()  # noqa: S101 - a kind that the page does not know would not be on it


@dataclass(frozen=True, slots=True)
class JournalEvent:
    """A fault."""

    seconds: float
    """After the start of the first wave."""
    kind: str
    """A key of ``KINDS``."""
    what: str
    lasted: float = 0.0
    """Seconds; of an outage."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The state at a moment. Numbers of records, but for the time."""

    seconds: float
    sent: int
    """Handed over so far: in files that are in the bucket, accepted by the producer, put on the stream."""
    settled: int
    """Rows and rejected records in Postgres."""
    delivered: int
    """Handed to the consumer so far, repetitions counted."""
    answered: bool
    """Whether Postgres said so; if not, ``settled`` is what it said last."""


class Journal:
    """Takes notes from several threads."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._began = clock()
        self._lock = threading.Lock()
        self._events: list[JournalEvent] = []
        self.on_event: Callable[[JournalEvent], None] = lambda event: None

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._began

    def begin(self) -> None:
        """The first wave begins: all times count from here."""
        self._began = self._clock()

    def note(self, kind: str, what: str, *, at: float | None = None, lasted: float = 0.0) -> None:
        """A fault happened, now or at ``at`` (seconds since the start)."""
        if kind not in KINDS:
            raise ValueError(f"{kind} is no kind of fault")
        event = JournalEvent(round(self.now if at is None else at, 3), kind, what, round(lasted, 3))
        with self._lock:
            self._events.append(event)
        self.on_event(event)

    def note_wire(self, entries: list[dict[str, Any]]) -> int:
        """Take over what the proxy did, and return how many requests it saw (0: it does not say)."""
        requests = 0
        for entry in entries:
            if entry["kind"] == "end":
                requests = int(entry["requests"])
                continue
            held = f", {entry['seconds']:g} s" if entry["seconds"] else ""
            what = f"{entry['operation']}{held}"
            with self._lock:
                self._events.append(JournalEvent(round(entry["time"] - self._began, 3), entry["kind"], what))
        return requests

    @property
    def events(self) -> list[JournalEvent]:
        """All faults so far, in the order of time."""
        with self._lock:
            return sorted(self._events, key=lambda event: event.seconds)

    def counts(self) -> dict[str, int]:
        """How often each kind of fault happened; every kind is there."""
        counts = dict.fromkeys(KINDS, 0)
        for event in self.events:
            counts[event.kind] += 1
        return counts

    def to_json(self) -> list[dict[str, Any]]:
        """All faults as JSON objects."""
        return [asdict(event) for event in self.events]
