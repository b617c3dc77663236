"""How fast each shard may be written, learned from PutRecords' answers.

A shard takes 1,000 records and 1 MiB a second; whatever is over fails. An answer names the shard of each
entry, also of the throttled ones, so the map from partition key to shard and the pace of each shard are
learned on the way: no further call, no further permission, and a reshard is noticed by itself.

Source: docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable

WINDOW = 1.0
"""Seconds over which a shard's limits count."""
SHARD_RECORDS = 1_000
SHARD_BYTES = 1024 * 1024
"""What a shard takes in that time."""

_SLOTS = 1024
_GROWTH = 0.01
_LEAST_SHARE = 0.01
# Records sent to a shard that has just refused some although it had room, to see whether it takes any.
_PROBE = 10


_FIRST_WAIT = 0.1
_LONGEST_WAIT = 5.0


def wait_after(failures: int, random: Callable[[], float]) -> float:
    """Seconds to wait after so many failures in a row, with full jitter: anything up to a bound that doubles.

    Source: aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter
    """
    return random() * min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(failures - 1, 30))


class Shard:
    """What may be sent to one shard now.

    The pace is a sliding window: in any second no more than ``share`` of the shard's limits. Whether the
    service counts calendar seconds or sliding ones, or fills a bucket, is not documented; this fits all
    three, and lets a short job go out in one burst.

    ``share`` starts at 1, the documented limit. Throttled entries mean that others write to the shard too, or
    that it takes less: the share falls to what the shard did take, by half at most. Seconds of full use
    without throttling raise it again, by 1 % of the limit, then 2 %, 4 %... Until the first throttling it
    grows beyond 1 as well: that costs about ten records sent twice where the limit is as documented, and
    leaves an emulator that has no limits unpaced.
    """

    def __init__(
        self, random: Callable[[], float], *, records: float = SHARD_RECORDS, size: float = SHARD_BYTES
    ) -> None:
        self.share = 1.0
        self.refusals = 0
        """Answers in which the shard refused entries although it had room, since it last took any."""
        self.paused_until = -math.inf
        self._records_limit = records
        self._bytes_limit = size
        self._ceiling = math.inf
        self._growth = _GROWTH
        self._changed = math.inf
        self._random = random
        self._taken: deque[tuple[float, int, int]] = deque()
        self._records = 0
        self._bytes = 0

    def allows(self, records: int, size: int, now: float) -> bool:
        """Whether a request may carry so many records, so many bytes together, to this shard at ``now``."""
        if now < self.paused_until or (self.refusals and records > _PROBE):
            return False
        self._forget(now)
        records += self._records
        size += self._bytes
        # One record always fits an idle shard, however small the share has become.
        return records == 1 or (
            records <= self.share * self._records_limit and size <= self.share * self._bytes_limit
        )

    def next_change(self, now: float) -> float:
        """The time at which more may be allowed than now; infinite when only an answer can change it."""
        if now < self.paused_until:
            return self.paused_until
        self._forget(now)
        return self._taken[0][0] if self._taken else math.inf

    def took(self, records: int, size: int, now: float) -> None:
        """Note what the shard accepted, when the answer has come.

        Kinesis counted it a little earlier. To reckon from the answer costs 3 % of the pace at a round trip
        of 30 ms; to reckon from anything earlier would send a burst in vain whenever a request travels faster
        than the one before.
        """
        self.refusals = 0
        self._changed = min(self._changed, now)
        self._taken.append((now + WINDOW, records, size))
        self._records += records
        self._bytes += size

    def went_well(self, now: float) -> None:
        """No entry for this shard failed in an answer."""
        self._forget(now)
        # A share that is not used up has proved nothing, and must not grow.
        if now - self._changed >= WINDOW and self._use() >= 0.8 * self.share:
            self.share = min(self._ceiling, self.share + self._growth)
            self._growth *= 2
            self._changed = now

    def throttled(self, now: float) -> None:
        """The shard refused entries although it was thought to have room."""
        self._forget(now)
        self._ceiling = 1.0
        if not self.refusals:  # a refused probe says nothing about how much there is
            self.share = max(_LEAST_SHARE, min(1.0, self.share, max(self._use(), self.share / 2)))
            self._growth = _GROWTH
            self._changed = now
        if self._use() < 0.99 * self.share:  # else the window itself makes us wait
            self.refusals += 1
            self.paused_until = now + wait_after(self.refusals, self._random)

    def _use(self) -> float:
        return max(self._records / self._records_limit, self._bytes / self._bytes_limit)

    def _forget(self, now: float) -> None:
        taken = self._taken
        while taken and taken[0][0] <= now:
            _, records, size = taken.popleft()
            self._records -= records
            self._bytes -= size


class Stream:
    """The shards of a stream, as far as answers have shown them.

    A shard owns a range of the MD5 hashes of partition keys. The hash space is cut into 1,024 slots, and each
    remembers the shard that was last seen in it; a slot that was never seen is taken for its neighbour's.
    Where a guess is wrong (a slot across two shards, a reshard) an answer corrects it.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        # Before the first answer nothing is known, so nothing is held back.
        self._unknown = Shard(random, records=math.inf, size=math.inf)
        self._slots = [self._unknown] * _SLOTS
        self._shards: dict[str, Shard] = {}

    @staticmethod
    def slot(partition_key: str) -> int:
        """The slot of a partition key."""
        digest = hashlib.md5(partition_key.encode(), usedforsecurity=False).digest()
        return int.from_bytes(digest[:2]) * _SLOTS >> 16

    def shard(self, slot: int) -> Shard:
        """The shard that a slot's records go to: seen, or guessed from the neighbours."""
        shard = self._slots[slot]
        if shard is self._unknown and self._shards:
            near = (*range(slot, -1, -1), *range(slot, _SLOTS))
            shard = next(self._slots[other] for other in near if self._slots[other] is not self._unknown)
            self._slots[slot] = shard
        return shard

    def learn(self, slot: int, name: str | None) -> Shard:
        """Note which shard an answer named for a slot (None: it named none), and return that shard."""
        if name is None:
            return self.shard(slot)
        shard = self._shards.get(name)
        if shard is None:
            shard = self._shards[name] = Shard(self._random)
        self._slots[slot] = shard
        return shard
