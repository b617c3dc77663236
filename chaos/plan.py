"""What is to be done to the stack, and when: drawn from a seed, so that it can be done again. Pure.

The records come in waves. A fault is due when a share of its wave's records is settled (a row, or a rejected record),
not at a time: the same plan fits a fast machine and a slow one. Between waves, when nothing is on the way, the stream
is resharded. The first wave is left alone: it shows how fast the stack is when nothing is broken.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

SMALL = 20_000
"""Records; below, a plan has fewer waves and fewer faults in each."""
FILES_A_WAVE = 3
POISON_A_FILE = 1
GARBAGE_A_WAVE = 1
"""Bad records that are put on the stream directly, as a producer other than ours would."""
API_SHARE = 10
"""One record in so many comes through the producer function instead of in a file."""

type Reshard = Literal["split", "merge"]


@dataclass(frozen=True, slots=True, order=True)
class PlannedFault:
    """One thing to be done to the stack."""

    at: float
    """Due when this share of the wave's records is settled."""
    kind: Literal["kill", "postgres", "sessions", "notification", "jobs"]
    target: str = ""
    """kill: the function; postgres: ``fast`` or ``immediate``, how it is stopped."""
    seconds: float = 0.0
    """postgres: how long it is away."""


@dataclass(frozen=True, slots=True)
class Wave:
    """A part of the records, sent and settled before the next one begins."""

    number: int
    in_files: tuple[int, ...]
    """Good records of each file."""
    through_api: int
    faults: tuple[PlannedFault, ...] = ()
    """In the order in which they are due. Empty: a calm wave, also on the wire."""
    reshard: Reshard | None = None
    """What is done to the stream once the wave is settled."""

    @property
    def records(self) -> int:
        """Good records."""
        return sum(self.in_files) + self.through_api

    @property
    def poison(self) -> int:
        """Bad ones, each to become one rejected record."""
        return len(self.in_files) * POISON_A_FILE + GARBAGE_A_WAVE


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it."""

    seed: int
    records: int
    waves: tuple[Wave, ...]

    @property
    def poison(self) -> int:
        """Bad records of all waves."""
        return sum(wave.poison for wave in self.waves)


def make(seed: int, records: int, *, calm: bool = False) -> Plan:
    """The plan for a seed and a number of good records.

    Parameters
    ----------
    calm
        The same records in the same waves, and nothing is broken: what a run costs by itself.
    """
    draw = random.Random(seed)  # noqa: S311 - chance that can be repeated, not cryptography
    small = records < SMALL
    shares = _shares(records, 2 if small else 5)
    reshards = _reshards(draw, len(shares) - 1)
    waves = []
    for number, share in enumerate(shares):
        through_api = share // API_SHARE
        faults = () if number == 0 else _faults(draw, number, small=small)
        waves.append(
            Wave(
                number,
                _shares(share - through_api, FILES_A_WAVE),
                through_api,
                () if calm else faults,
                None if calm else reshards[number],
            )
        )
    return Plan(seed, records, tuple(waves))


def _shares(records: int, parts: int) -> tuple[int, ...]:
    """``records`` in so many parts, as equal as they can be."""
    base, more = divmod(records, parts)
    return tuple(base + (number < more) for number in range(parts))


def _reshards(draw: random.Random, gaps: int) -> list[Reshard | None]:
    """One for each gap between two waves, splits and merges in turn, and none after the last wave."""
    first: Reshard = draw.choice(("split", "merge"))
    second: Reshard = "merge" if first == "split" else "split"
    return [*(first if gap % 2 == 0 else second for gap in range(gaps)), None]


def _faults(draw: random.Random, number: int, *, small: bool) -> tuple[PlannedFault, ...]:
    mode, away = ("fast", "immediate")[number % 2], round(draw.uniform(1, 2 if small else 4), 1)
    faults = [
        PlannedFault(_any(draw), "postgres", mode, away),
        PlannedFault(_any(draw), "sessions"),
        PlannedFault(_any(draw), "notification"),
        PlannedFault(_any(draw), "jobs"),
    ]
    if small:  # its functions are at work for seconds only: they are met at the beginning, or not at all
        return tuple(
            sorted([PlannedFault(0.0, "kill", "chunks"), PlannedFault(0.02, "kill", "consumer"), *faults])
        )
    # Functions that only work while a wave begins can only be met there: the kill waits for them to work.
    others = ["register", "plan", "producer"]
    faults += [
        PlannedFault(0.0, "kill", others[number % len(others)]),
        PlannedFault(_early(draw), "kill", "chunks"),
        *(PlannedFault(_any(draw), "kill", "consumer") for _ in range(2)),
        PlannedFault(_any(draw), "sessions"),
        PlannedFault(_any(draw), "notification"),
        PlannedFault(_any(draw), "jobs"),
    ]
    return tuple(sorted(faults))


def _early(draw: random.Random) -> float:
    # A job whose worker was killed comes back after the visibility timeout: late in a wave, all would wait for it.
    return round(draw.uniform(0.02, 0.3), 3)


def _any(draw: random.Random) -> float:
    return round(draw.uniform(0.05, 0.9), 3)
