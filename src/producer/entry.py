"""What goes into a publisher and what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from records.record import Record


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as it goes onto the stream: its id, its partition key and its bytes."""

    id: str
    partition_key: str
    data: bytes

    @classmethod
    def of(cls, record: Record) -> Entry:
        """The entry of a record."""
        return cls(record.id, record.partition_key, record.to_bytes())


class Unpublished(NamedTuple):
    """A record that is not known to be on the stream, and why."""

    id: str
    reason: str


@dataclass(slots=True)
class Published:
    """What became of the records. Each one taken from the source is in exactly one of the first three."""

    published: int = 0
    failed: list[Unpublished] = field(default_factory=list)
    """Good records that the stream did not take, or did not say so, in time: to be sent again, same ids."""
    rejected: list[Unpublished] = field(default_factory=list)
    """Records that the stream can never take."""
    taken: int = 0
    """Records taken from the source. When the time ran out the rest of the source was not touched."""
    exhausted: bool = False
    """Whether the source was read to its end; false when the time ran out before that was seen."""
    requests: int = 0
    resent: int = 0
    """Entries sent a second time or more often."""

    @property
    def complete(self) -> bool:
        """Whether every record of the source is on the stream or rejected."""
        return self.exhausted and not self.failed
