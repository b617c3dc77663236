"""What a run was, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from chaos.account import ChaosAccount
from chaos.journal import Journal, Sample
from chaos.plan import SMALL, Plan


@dataclass(slots=True)
class WaveTimes:
    """When a wave was sent and settled, in seconds after the first began."""

    number: int
    records: int
    calm: bool
    began: float
    settled: float = 0.0
    """All of its records are rows or rejected records."""
    drained: float = 0.0
    """And nothing of it is on the way any more: no chunk job, no batch."""


@dataclass(slots=True)
class ChaosOutcome:
    """What a run was, and what came of it."""

    plan: Plan
    journal: Journal
    account: ChaosAccount | None = None
    samples: list[Sample] = field(default_factory=list)
    waves: list[WaveTimes] = field(default_factory=list)
    seconds: float = 0.0
    """From the start of the first wave until the last one was drained."""
    requests: int = 0
    """HTTP requests of functions to AWS, those refused included."""
    delivered: int = 0
    batches: int = 0
    batches_failed: int = 0
    """Of which records were reported as failed, or that ended with an error."""
    duplicates_skipped: int = 0
    """By the consumer's own metric; a process that was killed did not report."""
    sent_again: int = 0
    """Records that the caller of the producer function had to send again."""
    left: dict[str, int] = field(default_factory=dict)
    """What was given up or never closed; all of it has to be 0."""
    problem: str = ""
    """Why the run did not come to its end."""
    calm_seconds: float | None = None
    """How long the same number of records took on this machine in a run without faults, if there was one."""

    @property
    def closes(self) -> bool:
        """Whether every record is there exactly once, and nothing was given up on the way."""
        nothing_left = not any(self.left.values())
        return self.account is not None and self.account.closes and nothing_left and not self.problem

    @property
    def calm_rate(self) -> float | None:
        """Records a second in the wave in which nothing was broken; None if there was none."""
        calm = next((wave for wave in self.waves if wave.calm and wave.drained > wave.began), None)
        return calm.records / (calm.drained - calm.began) if calm else None

    @property
    def lost_seconds(self) -> float | None:
        """How much longer it took than without faults: than a whole run without, or than at the calm wave's rate."""
        rate, broken = self.calm_rate, [wave for wave in self.waves if not wave.calm and wave.drained]
        if not broken:
            return None
        if self.calm_seconds is not None:
            return self.seconds - self.calm_seconds
        if rate is None or self.plan.records < SMALL:  # a short wave is mostly the functions' cold starts
            return None
        return sum(wave.drained - wave.began - wave.records / rate for wave in broken)

    def to_json(self) -> dict[str, Any]:
        """The result line."""
        found = self.account.to_json() if self.account else {}
        first = ("records", "rows", "rejected", "lost", "duplicated")
        return {
            **{name: found.get(name) for name in first},
            "delivered": self.delivered,
            "faults": self.journal.counts(),
            "seconds": round(self.seconds, 1),
            "exact": self.closes,
            "seed": self.plan.seed,
            "calm_seconds": self.calm_seconds,
            "seconds_lost": None if self.lost_seconds is None else round(self.lost_seconds, 1),
            "duplicates_skipped": self.duplicates_skipped,
            "batches_failed": self.batches_failed,
            "sent_again": self.sent_again,
            "requests": self.requests,
            **{name: number for name, number in found.items() if name not in first},
            "left": self.left,
            "problem": self.problem,
        }
