"""A run of `make chaos` that never took place, for tests of its page."""

from __future__ import annotations

import math

from chaos import plan
from chaos.account import ChaosAccount
from chaos.journal import KINDS, Journal, JournalEvent, Sample
from chaos.outcome import ChaosOutcome, WaveTimes

CLOSED = {"altered": 0, "unexpected": 0, "wrongly_rejected": 0, "poison_missing": 0, "repeated": 0}


def outcome(*, lost: int = 0, problem: str = "") -> ChaosOutcome:
    """Two minutes of 100,000 records: every kind of fault, one outage, a calm wave and a broken one."""
    wanted = plan.make(1, 100_000)
    journal = Journal(lambda: 0.0)
    for number, kind in enumerate(KINDS):
        for time in range(1 + number % 3):
            lasted = 3.5 if kind == "crashed" else 0.0
            journal.note(kind, f"<{kind}> & number {time}", at=60 + 4.0 * number + time, lasted=lasted)
    samples = [
        Sample(
            seconds=half / 2,
            sent=50_000 if half < 120 else 100_000,
            settled=min(100_000 - lost, int(half * 420 + 2_000 * math.sin(half / 9))) if half else 0,
            delivered=half * 500,
            answered=True,
        )
        for half in range(241)
    ]
    return ChaosOutcome(
        wanted,
        journal,
        ChaosAccount(100_000, 100_000 - lost, 20, 20, lost, 0, **CLOSED),
        samples,
        [WaveTimes(0, 50_000, True, 0.0, 55.0, 56.0), WaveTimes(1, 50_000, False, 57.0, 118.0, 120.0)],
        seconds=120.0,
        requests=15_000,
        delivered=120_000,
        batches=300,
        batches_failed=21,
        duplicates_skipped=12_345,
        left={"discarded_batches": 0, "dead_letters": 0},
        problem=problem,
    )


def events() -> list[JournalEvent]:
    """Its faults."""
    return outcome().journal.events
