"""Who takes part. Each contestant is a module with a Lambda handler, written as its user would write it.

They differ in how they keep a record from being stored twice, and in nothing else: the same records, the
same columns, the same Postgres driver (one has another, to show what the driver does), invalid messages
logged and passed over or reported, as each style does it.
"""

from __future__ import annotations

from typing import NamedTuple


class Contestant(NamedTuple):
    """One way to write the consumer."""

    name: str
    """Its module in this package."""
    label: str
    table: str = "records"
    """Where its rows go: ``records`` has the id as its key, ``plain_records`` a serial number and no other index."""
    per_record: bool = False
    """Whether it makes DynamoDB calls for each record: seconds a batch, where the others take milliseconds."""


CONTESTANTS = (
    Contestant("ours", "Oncestream"),
    Contestant("question", "the question's consumer", table="plain_records"),
    Contestant("question_psycopg", "the question's, with psycopg", table="plain_records"),
    Contestant("powertools", "Powertools as documented", table="plain_records", per_record=True),
    Contestant("powertools_threads", "Powertools, thread pool", table="plain_records", per_record=True),
    Contestant("powertools_async", "Powertools, AsyncBatchProcessor", table="plain_records", per_record=True),
    Contestant("conditional_put", "conditional put a record", table="plain_records", per_record=True),
    Contestant("postgres_alone", "Postgres alone, ON CONFLICT"),
    Contestant("copy_floor", "the floor: COPY"),
)

OURS = CONTESTANTS[0]
# bench/crash.py reaches into pg8000 only; and COPY is no consumer.
CRASHED = tuple(one for one in CONTESTANTS if one.name not in {"question_psycopg", "copy_floor"})
BY_NAME = {contestant.name: contestant for contestant in CONTESTANTS}
