"""The account: what was sent against what is in Postgres, record by record, by id and content."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from chaos.inputs import NUMBER, Expected, digest

if TYPE_CHECKING:
    import pg8000.native


@dataclass(frozen=True, slots=True)
class ChaosAccount:
    """How many of each. All but the first four have to be 0, and of those two pairs have to be equal."""

    records: int
    """Good records sent."""
    rows: int
    poison: int
    """Bad records sent."""
    rejected: int
    """Rows of rejected_records."""
    lost: int
    """Sent, and no row (a good one that was rejected counts here as well)."""
    duplicated: int
    """Rows more than records, by the number in the payload: also under another id."""
    altered: int
    """Rows whose payload is not what was sent under their id."""
    unexpected: int
    """Rows under an id that nobody sent."""
    wrongly_rejected: int
    """Rejected records that are no bad record, or once more than it was sent."""
    poison_missing: int
    """Bad records that are not among the rejected ones."""
    repeated: int
    """Lines said to repeat the id of another line; the input has none."""

    @property
    def closes(self) -> bool:
        """Whether every record is there exactly once, and as it was sent."""
        wrong = (
            self.lost
            + self.duplicated
            + self.altered
            + self.unexpected
            + self.wrongly_rejected
            + self.poison_missing
            + self.repeated
        )
        return wrong == 0 and self.rows == self.records and self.rejected == self.poison

    def to_json(self) -> dict[str, int]:
        """For the result line."""
        return asdict(self)


def compare(
    expected: Expected, rows: Iterable[tuple[str, str]], rejected: Iterable[bytes], repeated: int
) -> ChaosAccount:
    """The account of ``rows`` (id, payload as JSON text) and rejected records (their bytes). Pure."""
    numbers: Counter[Any] = Counter()
    found: set[str] = set()
    count = altered = unexpected = 0
    for record_id, text in rows:
        payload = json.loads(text)
        count += 1
        found.add(record_id)
        numbers[payload.get(NUMBER)] += 1
        wanted = expected.digests.get(record_id)
        unexpected += wanted is None
        altered += wanted is not None and wanted != digest(payload)
    raws = Counter(rejected)
    return ChaosAccount(
        records=len(expected.digests),
        rows=count,
        poison=expected.rejected.total(),
        rejected=raws.total(),
        lost=len(expected.digests.keys() - found),
        duplicated=sum(each - 1 for each in numbers.values()),
        altered=altered,
        unexpected=unexpected,
        wrongly_rejected=(raws - expected.rejected).total(),
        poison_missing=(expected.rejected - raws).total(),
        repeated=repeated,
    )


def take(connection: pg8000.native.Connection, expected: Expected) -> ChaosAccount:
    """The account of what is in Postgres now."""
    rows = connection.run("SELECT id, payload::text FROM records")
    rejected = [bytes(raw) for (raw,) in connection.run("SELECT raw FROM rejected_records")]
    (repeated,) = connection.run("SELECT count(*) FROM repeated_records")[0]
    return compare(expected, ((row[0], row[1]) for row in rows), rejected, repeated)
