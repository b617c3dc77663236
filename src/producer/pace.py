"""How fast each shard may be written, learned from PutRecords' answers.

A shard takes 1,000 records and 1 MiB a second; whatever is over fails. An answer names the shard of each
entry, throttled ones included. So the map from partition key to shard and each shard's pace are learned on the
way, without another call or permission, and a reshard is noticed by itself.

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
# What a request may carry before any shard is known, although one shard alone might not take it.
_FIRST_RECORDS = 64
_GROWTH = 0.01
# The first step beyond the documented limit: where that holds, what is more is sent in vain.
_GROWTH_BEYOND = 0.002
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


class ShardPace:
    """What may be sent to one shard now.

    The pace is a sliding window: in any second no more than ``share`` of the shard's limits. Whether the
    service counts calendar seconds or sliding ones, or fills a bucket, is not documented; this fits all
    three, and lets a short job go out in one burst.

    ``share`` starts at 1, the documented limit. Throttled entries mean that others write to the shard too, or
    that it takes less: the share falls to what the shard did take, by half at most. Seconds of full use
    without throttling raise it again, by 1 % of the limit, then 2 %, 4 %... Until the first throttling it
    grows beyond 1 as well, by two records of a thousand first: they are sent twice where the limit is as
    documented, and an emulator that has no limits is left unpaced.

    What a shard did take is reckoned for the time at which the request was sent. Reckoned for the answer's, all
    that ran out of the window on the way is missing: one refused record of a shard that is written in two
    requests a second would halve its share, and cost it seconds.
    """

    def __init__(self, random: Callable[[], float], *, least: int = 1) -> None:
        self.share = 1.0
        self.refusals = 0
        """Answers in which the shard refused entries although it had room, since it last took any."""
        self.paused_until = -math.inf
        self._least = least
        self._ceiling = math.inf
        self._growth = _GROWTH
        self._growth_beyond = _GROWTH_BEYOND
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
        return records <= self._least or (
            records <= self.share * SHARD_RECORDS and size <= self.share * SHARD_BYTES
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

    def went_well(self, now: float, sent: float | None = None) -> None:
        """No entry for this shard failed in the answer to a request that was sent at ``sent`` (None: now)."""
        self._forget(now if sent is None else sent)
        # A share that is not used up has proved nothing, and must not grow.
        if now - self._changed >= WINDOW and self._use() >= 0.8 * self.share:
            if self.share < 1:
                self.share = min(1.0, self.share + self._growth)
                self._growth *= 2
            elif self._ceiling > 1:
                self.share += self._growth_beyond
                self._growth_beyond = max(_GROWTH, 2 * self._growth_beyond)
            self._changed = now

    def throttled(self, now: float, sent: float | None = None) -> None:
        """The shard refused entries although it was thought to have room when they were sent (None: now)."""
        self._forget(now if sent is None else sent)
        self._ceiling = 1.0
        if not self.refusals:  # a refused probe says nothing about how much there is
            self.share = max(_LEAST_SHARE, min(1.0, self.share, max(self._use(), self.share / 2)))
            self._growth = _GROWTH
            self._changed = now
        if self._use() < 0.99 * self.share:  # else the window itself makes us wait
            self.refusals += 1
            self.paused_until = now + wait_after(self.refusals, self._random)

    def _use(self) -> float:
        return max(self._records / SHARD_RECORDS, self._bytes / SHARD_BYTES)

    def _forget(self, now: float) -> None:
        taken = self._taken
        while taken and taken[0][0] <= now:
            _, records, size = taken.popleft()
            self._records -= records
            self._bytes -= size


class StreamPace:
    """The shards of a stream, as far as answers have shown them.

    A shard owns a range of the MD5 hashes of partition keys. The hash space is cut into 1,024 slots, and each
    remembers the shard that was last seen in it; a slot that was never seen is taken for that of the nearest one
    that was. Where a guess is wrong (a slot across two shards, a reshard) an answer corrects it.

    Before the first answer all is taken for one shard, which every stream has: what goes out then is learned
    from, and nothing of it is sent in vain. Few records would show few shards, though, so that a request of
    large ones may be as full as any other.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        unknown = ShardPace(random, least=_FIRST_RECORDS)
        self._seen: list[ShardPace | None] = [None] * _SLOTS
        self._slots = [unknown] * _SLOTS
        self._shards: dict[str, ShardPace] = {}
        self.version = 0
        """Another number whenever a slot is known, or thought, to belong to another shard than before."""

    @staticmethod
    def slot(partition_key: str) -> int:
        """The slot of a partition key."""
        digest = hashlib.md5(partition_key.encode(), usedforsecurity=False).digest()
        return int.from_bytes(digest[:2]) * _SLOTS >> 16

    def shard(self, slot: int) -> ShardPace:
        """The shard that a slot's records go to: seen, or guessed from the neighbours."""
        return self._slots[slot]

    def learn(self, slot: int, name: str | None) -> ShardPace:
        """Note which shard an answer named for a slot (None: it named none), and return that shard."""
        if name is None:
            return self.shard(slot)
        shard = self._shards.get(name)
        if shard is None:
            shard = self._shards[name] = ShardPace(self._random)
        if self._seen[slot] is not shard:
            self._seen[slot] = shard
            self._guess_around(slot, shard)
            self.version += 1
        return shard

    def closed(self, shard: ShardPace) -> None:
        """Forget where a shard was seen: after a reshard others have its place."""
        for slot, seen in enumerate(self._seen):
            if seen is shard:
                self._seen[slot] = None
        for slot, seen in enumerate(self._seen):
            if seen is not None:
                self._guess_around(slot, seen)
        self.version += 1

    def _guess_around(self, slot: int, shard: ShardPace) -> None:
        """Take the unseen slots that are nearer to this one than to any other that was seen for this shard's."""
        for step in (-1, 1):
            reach = [slot]
            while 0 <= (near := reach[-1] + step) < _SLOTS and self._seen[near] is None:
                reach.append(near)
            # The two seen slots share what lies between them; at an end of the hash space there is but one.
            alone = not 0 <= near < _SLOTS
            for mine in reach if alone else reach[: len(reach) // 2 + 1]:
                self._slots[mine] = shard
