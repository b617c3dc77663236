"""What happens to a request on the wire: decided by a seed, the request's number and the rates. Pure.

The proxy runs in mitmproxy's environment and imports this module: the standard library only.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

LATE_SECONDS = 12.0
"""The functions' clients wait 10 seconds for an answer (src/common/clients.py)."""
LONGEST_DELAY = 1.5


@dataclass(frozen=True, slots=True)
class Rates:
    """Of all requests, the share that meets each fault. Together at most 1."""

    delayed: float = 0.0
    """Held for up to ``LONGEST_DELAY`` seconds, then passed on."""
    refused: float = 0.0
    """The connection is closed before MiniStack sees the request."""
    unavailable: float = 0.0
    """Answered with status 503 before MiniStack sees the request."""
    dropped: float = 0.0
    """MiniStack carries the request out, and the connection is closed without an answer."""
    failed: float = 0.0
    """MiniStack carries the request out, and the answer is replaced by a status 500."""
    late: float = 0.0
    """MiniStack carries the request out, and the answer comes when nobody waits for it any more."""

    def __post_init__(self) -> None:
        shares = asdict(self).values()
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError(f"rates are shares of all requests, together at most 1: {self}")

    def times(self, factor: float) -> Rates:
        """All of them, so much more often."""
        return Rates(**{name: share * factor for name, share in asdict(self).items()})

    def to_json(self) -> str:
        """The text of the control file."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Rates:
        """Read the control file."""
        return cls(**json.loads(text))


CALM = Rates()
STORM = Rates(delayed=0.006, refused=0.002, unavailable=0.002, dropped=0.003, failed=0.002, late=0.0002)
KINDS: tuple[str, ...] = tuple(field.name for field in fields(Rates))
BEFORE_EFFECT = frozenset({"refused", "unavailable"})
"""MiniStack does not see these requests."""


@dataclass(frozen=True, slots=True)
class WireFault:
    """What is to happen to one request."""

    kind: str
    seconds: float = 0.0
    """How long it, or its answer, is held."""


def decide(seed: int, number: int, rates: Rates) -> WireFault | None:
    """What happens to the request ``number``; None: nothing. The same arguments give the same answer."""
    draw = random.Random(f"{seed}:{number}")  # noqa: S311 - chance that can be repeated, not cryptography
    share = draw.random()
    for kind, rate in asdict(rates).items():
        if share < rate:
            seconds = {"delayed": draw.uniform(0.05, LONGEST_DELAY), "late": LATE_SECONDS}.get(kind, 0.0)
            return WireFault(kind, round(seconds, 3))
        share -= rate
    return None


def operation(method: str, headers: Mapping[str, str]) -> str:
    """The name of an AWS call, as far as the request says it: ``DynamoDB.PutItem``, ``S3 GET``.

    The JSON protocols name it in a header (``DynamoDB_20120810.PutItem``); S3's requests have only their method.
    """
    target = headers.get("x-amz-target", "")
    if not target:
        return f"S3 {method}"
    service, _, name = target.rpartition(".")
    return f"{service.partition('_')[0].removeprefix('Amazon')}.{name}"
