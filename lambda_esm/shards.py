"""Which shards of a stream may be read now, and from where. Pure, like the queue.

A shard that was split or merged is read to its end, and everything in it is processed, before its children
start: "processing a parent shard before its child shards"
(docs.aws.amazon.com/amazondynamodb/latest/developerguide/ Streams.html), and for Kinesis
docs.aws.amazon.com/streams/latest/dev/kinesis-using-sdk-java-after-resharding.html.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lambda_esm.mapping import LATEST, SHARD_END, TRIM_HORIZON


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard as the stream describes it."""

    id: str
    parents: tuple[str, ...] = ()
    closed: bool = False


class Lineage:
    """The shards of one stream, for one mapping.

    Parameters
    ----------
    starting_position
        The mapping's: TRIM_HORIZON, LATEST or AT_TIMESTAMP:<epoch seconds>.
    positions
        Where an earlier run got to, by shard id; empty for a mapping that was never run.
    """

    def __init__(self, starting_position: str, positions: Mapping[str, str] | None = None) -> None:
        self._starting_position = starting_position
        self._positions = dict(positions or {})
        self._parents: dict[str, tuple[str, ...]] = {}
        self._started: set[str] = set()

    def update(self, listed: Iterable[Shard]) -> dict[str, str]:
        """Take a listing of the stream's shards; answer with the new ones and where each starts.

        LATEST is about the shards that are open when the mapping is first run. A shard that appears later
        holds nothing that was there before, so it is read from its start: otherwise the records between its
        birth and its discovery would be lost.
        """
        shards = list(listed)
        first_run = not self._positions
        new = {
            shard.id: self._first_position(shard) if first_run else TRIM_HORIZON
            for shard in shards
            if shard.id not in self._positions
        }
        self._positions |= new
        self._parents = {shard.id: shard.parents for shard in shards}
        # A shard that is known, not being read and no longer listed is past the stream's retention: nothing
        # is in it.
        for shard_id in self._positions.keys() - self._parents.keys() - self._started:
            self._positions[shard_id] = SHARD_END
        return new

    def start(self) -> dict[str, str]:
        """The shards to start reading now, with their positions. Each is handed out once."""
        ready = {
            shard_id: self._positions[shard_id]
            for shard_id, parents in self._parents.items()
            if shard_id not in self._started
            and self._positions[shard_id] != SHARD_END
            and all(self._positions.get(parent, SHARD_END) == SHARD_END for parent in parents)
        }
        self._started |= ready.keys()
        return ready

    def finish(self, shard_id: str) -> None:
        """A shard was read to its end and everything in it is processed."""
        self._positions[shard_id] = SHARD_END

    @property
    def waiting(self) -> list[str]:
        """The listed shards that have not been started yet."""
        return [
            shard_id
            for shard_id in self._parents
            if shard_id not in self._started and self._positions[shard_id] != SHARD_END
        ]

    def _first_position(self, shard: Shard) -> str:
        if self._starting_position == LATEST and shard.closed:
            return SHARD_END
        return self._starting_position
