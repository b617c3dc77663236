"""What a caller sends is what Postgres holds: producer, the stream's bytes, consumer, and a real jsonb."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from pg8000.native import Connection

from consumer.decode import Arrived, Rejection, decode
from consumer.sink import PostgresSink
from oncestream.engine import Stored
from postgres.database import Database
from producer.entry import Entry
from producer.request import RecordsRequest, records_of_body
from records.record import Record
from tables import check
from tables.check import check_payload
from tables.model import Model, judge_of
from tests.unit.chunk_files import UPLOAD, job_of
from tests.unit.consumer_support import message, stream_record
from uploads.formats.entries import LineEntries
from uploads.formats.lines import split_lines

NUMBERS = {
    "many digits": "0.1234567890123456789012345",
    "large with a fraction": "12345678901234567890.12345",
    "below a double": "1e-400",
    "above a double": "1e999",
    "odd and above 2 to the 53": "9007199254740993.0",
    "a scale": "1.50",
    "an integer of 5,000 digits": "9" * 5_000,
    "money": "12345678901234567.89",
    "the smallest": "-1E-16000",
    "the largest": "1e131071",
}


class Store:
    """A sink on a fresh database, and a second connection to look at it."""

    def __init__(self, settings: Any) -> None:
        self.database = Database(settings)
        self.sink = PostgresSink(self.database)
        self.admin: Connection = settings.connect()

    def store(self, *messages: bytes) -> Stored:
        """Store messages of the stream in one batch."""
        decoded = [decode(stream_record(data)) for data in messages]
        return self.sink.store(
            [each for each in decoded if isinstance(each, Arrived)],
            [each for each in decoded if isinstance(each, Rejection)],
        )

    def column(self, sql: str) -> list[Any]:
        return [row[0] for row in self.admin.run(sql)]


@pytest.fixture
def store(database: Any) -> Iterator[Store]:
    made = Store(database)
    yield made
    made.database.close()
    made.admin.close()


def posted(*payloads: str) -> list[Entry]:
    """The entries of an HTTP request, with the ids 0, 1, 2 and so on."""
    records = [f'{{"id":"{n}","payload":{payload}}}' for n, payload in enumerate(payloads)]
    body = f'{{"records":[{",".join(records)}]}}'
    return RecordsRequest(records_of_body(body, is_base64=False, content_type="")).entries


def test_a_number_keeps_its_digits_and_its_scale(store: Store) -> None:
    entries = posted(*(f'{{"n": {number}}}' for number in NUMBERS.values()))
    assert len(store.store(*(entry.data for entry in entries)).processed) == len(NUMBERS)
    found = store.column("SELECT payload->>'n' FROM records ORDER BY id::integer")
    for sent, stored in zip(NUMBERS.values(), found, strict=True):
        assert Decimal(stored) == Decimal(sent)
        assert "e" in sent.lower() or stored == sent


def test_a_line_s_number_does_too_also_with_a_type_that_reads_it_as_a_double(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Order(Model):
        amount: Decimal
        share: float

    monkeypatch.setattr(check, "judge", judge_of(Order))
    data = b'{"amount": 12345678901234567.89, "share": 0.1234567890123456789}\n'
    (entry,) = LineEntries(job_of(data)).ndjson(split_lines([data]))
    store.store(entry.data)
    assert store.column("SELECT payload::text FROM records") == [
        '{"share": 0.1234567890123456789, "amount": 12345678901234567.89}'
    ]


@pytest.mark.parametrize(
    "text",
    [
        "\\\\u0000",
        "\\\\\\\\u0000",
        "\\ud83d\\ude00",
        "\\uD83D\\uDE00\\uFFFF\\u0001\\u001f",
        "\\\\ud800",
        '\\b\\f\\n\\r\\t\\/\\"\x7f\u2028\ufeff',
    ],
)
def test_text_that_is_let_through_is_text_that_jsonb_takes(store: Store, text: str) -> None:
    (entry,) = posted(f'{{"t{text}": ["{text}"]}}')
    assert store.store(entry.data).processed == {"0"}


def test_what_only_postgres_finds_is_rejected_with_its_reason_and_its_neighbours_land(store: Store) -> None:
    entries = posted('{"n": 1}', '{"n": 1e131072}', '{"n": 1e-16384}', '{"n": "x", "n": 2}')
    stored = store.store(*(entry.data for entry in entries))
    assert stored.processed == {"0", "3"}
    reasons = {key: rejection.reason for key, rejection in stored.refused.items()}
    assert reasons.keys() == {"1", "2"}
    assert all("overflow" in reason for reason in reasons.values())
    assert store.column("SELECT payload->>'n' FROM records ORDER BY id") == ["1", "2"]


def test_a_message_with_a_line_s_id_does_not_take_the_line_s_place(store: Store) -> None:
    data = b'{"n": 1}\n'
    (line,) = LineEntries(job_of(data)).ndjson(split_lines([data]))
    forged = message(f"{UPLOAD}:0", {"n": 2})
    store.store(forged)
    assert store.store(line.data).processed == {f"{UPLOAD}:0"}
    assert store.column("SELECT payload->>'n' FROM records") == ["1"]
    assert store.column("SELECT raw FROM rejected_records") == [forged]
    assert Record.from_bytes(line.data, check_payload).id == f"{UPLOAD}:0"
