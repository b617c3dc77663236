"""Lines into records and rejected lines: ids, keys, limits, reasons, raw bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from producer.entry import Entry
from records.json_text import BOM
from records.record import MAX_RECORD_BYTES, Origin, Record, RejectedLine
from tables.check import check_payload
from tests.unit.chunk_files import UPLOAD, job_of
from uploads.chunk_job import ChunkJob
from uploads.formats.csv_rows import csv_rows
from uploads.formats.entries import MAX_RAW_BYTES, LineEntries
from uploads.formats.lines import KEPT_BYTES, MAX_LINE_BYTES, split_lines


def entries_of(data: bytes, job: ChunkJob | None = None, **changes: Any) -> list[Entry]:
    job = job or job_of(data, **changes)
    rows = LineEntries(job)
    lines = split_lines([data])
    header = next(csv_rows(split_lines([data]))) if job.format == "csv" else None
    found = rows.csv(lines, header) if header else rows.ndjson(lines)
    entries = [entry for entry in found if entry]
    assert len(entries) == rows.published + rows.rejected
    return entries


def records_of(data: bytes, **changes: Any) -> list[Record]:
    return [Record.from_bytes(entry.data, check_payload) for entry in entries_of(data, **changes)]


def rejected(entry: Entry) -> RejectedLine:
    line = RejectedLine.from_bytes(entry.data)
    assert line is not None, entry.data
    assert (line.id, line.partition_key) == (entry.id, entry.partition_key)
    assert len(entry.data) + len(entry.partition_key.encode()) <= MAX_RECORD_BYTES
    return line


def test_a_line_is_a_record_whose_id_is_its_place_in_the_file() -> None:
    data = b'{"n": 1}\n\n  \t\r\n {"n": 2}\r\n{"n": 3}'
    first, second, third = records_of(data, chunk=7)
    assert [json.loads(record.payload_json)["n"] for record in (first, second, third)] == [1, 2, 3]
    assert [record.id for record in (first, second, third)] == [
        f"{UPLOAD}:{data.index(text)}" for text in (b'{"n": 1', b' {"n": 2', b'{"n": 3')
    ]
    assert first.partition_key == first.id
    assert first.upload == Origin(id=UPLOAD, chunk=7, line=1)
    assert third.upload == Origin(id=UPLOAD, chunk=7, line=5)


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    (record,) = records_of(BOM + b'{"n": 1}\n' + b"\n")
    assert (record.id, json.loads(record.payload_json)) == (f"{UPLOAD}:0", {"n": 1})
    assert records_of(BOM) == []


def test_a_csv_row_is_an_object_of_texts() -> None:
    data = b'id,name,\n1,"Smith, J.",x\n\n2,"two\nlines",y\n3,,\n'
    records = records_of(data, format="csv")
    assert [json.loads(record.payload_json) for record in records] == [
        {"id": "1", "name": "Smith, J.", "column_3": "x"},
        {"id": "2", "name": "two\nlines", "column_3": "y"},
        {"id": "3", "name": "", "column_3": ""},
    ]
    assert [record.id for record in records] == [
        f"{UPLOAD}:{data.index(text)}" for text in (b"1,", b'2,"', b"3,,")
    ]
    assert [record.upload.line for record in records if record.upload] == [2, 4, 6]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b'"A-1"', "A-1"),
        (b"17", "17"),
        (b"-3", "-3"),
        (b"-0", "0"),
        (b'"\\u0041"', "A"),
        (b"9" * 40, "9" * 40),
    ],
)
def test_named_fields_give_the_id_and_the_key(value: bytes, text: str) -> None:
    line = b'{"order": %b, "customer": "c"}' % value
    (record,) = records_of(line, id_field="order")
    assert (record.id, record.partition_key) == (text, text)
    (record,) = records_of(line, id_field="order", key_field="customer")
    assert (record.id, record.partition_key) == (text, "c")
    (record,) = records_of(line, key_field="order")
    assert (record.id, record.partition_key) == (f"{UPLOAD}:0", text)


def test_named_fields_of_a_csv_file_are_columns() -> None:
    good, empty = entries_of(
        b"order,customer\n17,c\n,d\n", format="csv", id_field="order", key_field="customer"
    )
    assert (good.id, good.partition_key) == ("17", "c")
    assert (
        rejected(empty).rejected.reason == "the id-field 'order' is empty, and must be a text or an integer"
    )
    (missing,) = entries_of(b"order,customer\n17,c\n", format="csv", id_field="nr")
    assert (
        rejected(missing).rejected.reason
        == "the field 'nr', which the upload names as its id-field, is missing"
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"b": 1}', "the field 'a', which the upload names as its {role}, is missing"),
        (b'{"a": null}', "the {role} 'a' is null, and must be a text or an integer"),
        (b'{"a": true}', "the {role} 'a' is a boolean, and must be a text or an integer"),
        (b'{"a": 1.5}', "the {role} 'a' is a number with a fraction, and must be a text or an integer"),
        (b'{"a": 1e3}', "the {role} 'a' is a number with a fraction, and must be a text or an integer"),
        (b'{"a": {"b": 1}}', "the {role} 'a' is an object, and must be a text or an integer"),
        (b'{"a": [1]}', "the {role} 'a' is a list, and must be a text or an integer"),
        (b'{"a": ""}', "the {role} 'a' is empty, and must be a text or an integer"),
    ],
)
@pytest.mark.parametrize(("field", "role"), [("id_field", "id-field"), ("key_field", "key-field")])
def test_a_line_without_a_usable_named_field_is_rejected(
    line: bytes, reason: str, field: str, role: str
) -> None:
    (entry,) = entries_of(line, **{field: "a"})
    assert rejected(entry).id == f"{UPLOAD}:0"
    assert rejected(entry).rejected.reason == reason.format(role=role)
    assert rejected(entry).rejected.raw == line


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"nonsense", "not JSON: invalid character at line 1 column"),
        (b"[1]", "payload: is a list, and must be an object"),
        (b'"text"', "payload: is a text, and must be an object"),
        (b'{"a": 1', "not JSON: it ends too early"),
        (b'{"a": 1} {"a": 2}', "not JSON: trailing characters"),
        (b'{"a": "\xff"}', "not UTF-8: byte 0xff at offset 7"),
        (b'{"a": "\\ud800"}', "not JSON: "),
        (b'{"a": "\\u0000"}', "payload holds a NUL"),
        (b'{"a": NaN}', "not JSON: NaN is no number in JSON, at line 1 column 7"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not JSON: nested too deeply"),
        (b"\0", "not JSON: invalid character at line 1 column 1"),
        (b'{"a":1}\r{"a":2}', "not JSON: trailing characters"),
    ],
)
def test_a_bad_line_is_rejected_with_its_reason_and_its_bytes_and_its_neighbours_land(
    line: bytes, reason: str
) -> None:
    before, entry, after = entries_of(b'{"n": 1}\n' + line + b'\r\n{"n": 2}\n')
    assert [
        json.loads(Record.from_bytes(good.data, check_payload).payload_json) for good in (before, after)
    ] == [
        {"n": 1},
        {"n": 2},
    ]
    fault = rejected(entry)
    assert fault.rejected.reason.startswith(reason)
    assert fault.rejected.raw == line
    assert (fault.id, fault.upload.chunk, fault.upload.line) == (f"{UPLOAD}:9", 0, 2)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"1", "1 fields, and the header has 2"),
        (b"1,2,3", "3 fields, and the header has 2"),
        (b"1,\xe9", "not UTF-8: byte 0xe9 at offset 2"),
        (b'1,"2"3', "text after the closing quotation mark of a field"),
        (b"1,\0", "payload holds a NUL (U+0000), which Postgres cannot store"),
    ],
)
def test_a_bad_csv_row_is_rejected_and_its_neighbours_land(row: bytes, reason: str) -> None:
    before, entry, after = entries_of(b"a,b\n1,1\n" + row + b"\n3,3\n", format="csv")
    assert [
        json.loads(Record.from_bytes(good.data, check_payload).payload_json)["a"] for good in (before, after)
    ] == [
        "1",
        "3",
    ]
    assert (rejected(entry).rejected.reason, rejected(entry).rejected.raw) == (reason, row)
    assert (rejected(entry).id, rejected(entry).upload.line) == (f"{UPLOAD}:8", 3)


def test_an_id_of_the_data_is_checked_like_any_other() -> None:
    entries = entries_of(b'{"a": "%b"}\n{"a": "x\\ny"}\n' % (b"x" * 257), id_field="a")
    assert [rejected(entry).rejected.reason.partition(":")[0] for entry in entries] == ["id", "id"]


@pytest.mark.parametrize("upload", [UPLOAD, "f" * 32])
@pytest.mark.parametrize("file_format", ["ndjson", "csv"])
def test_no_field_of_the_data_gives_the_id_of_a_line(upload: str, file_format: str) -> None:
    line = b'{"a":"%b:0"}' if file_format == "ndjson" else b"a\n%b:0"
    (entry,) = entries_of(line % upload.encode(), id_field="a", format=file_format)
    fault = rejected(entry).rejected
    assert fault.reason == (
        "id: has the form of the place of a line in an upload (32 hexadecimal digits, a colon, a number), "
        "which is reserved: give another id"
    )
    # It spreads records as well as any other text.
    (record,) = records_of(line % upload.encode(), key_field="a", format=file_format)
    assert record.partition_key == f"{upload}:0"


@pytest.mark.parametrize(
    "payload",
    [
        b'{"n": 0.1234567890123456789012345,"m" : 1e999}',
        b'{"n":%b}' % (b"9" * 5_000),
        b'{"u":"\\u00fc\\/\xc3\xbc","u":1}',
        b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    ],
    ids=lambda payload: str(payload[:20]),
)
def test_a_line_goes_onto_the_stream_as_it_is(payload: bytes) -> None:
    (entry,) = entries_of(b" \t" + payload + b" \r\n")
    assert b'"payload":' + payload + b',"upload":' in entry.data
    assert Record.from_bytes(entry.data, check_payload).payload_json.encode() == payload


@pytest.mark.parametrize("length", [MAX_LINE_BYTES + 1, 3 * MAX_LINE_BYTES])
def test_a_line_that_is_too_long_names_its_length_and_keeps_its_beginning(length: int) -> None:
    line = b'{"a": "' + b"x" * (length - 9) + b'"}'
    long, good = entries_of(line + b'\n{"n": 1}\n')
    assert Record.from_bytes(good.data, check_payload).id == f"{UPLOAD}:{length + 1}"
    fault = rejected(long).rejected
    assert fault.reason == f"{length} bytes, and a line has at most 1048576 (the first 65536 are kept)"
    assert fault.raw == line[:KEPT_BYTES]


def test_a_csv_row_that_is_too_long_is_rejected_as_a_line_is() -> None:
    row = b'"' + b"x\n" * MAX_LINE_BYTES + b'",b'
    long, good = entries_of(b"a,b\n" + row + b"\n1,2\n", format="csv")
    fault = rejected(long).rejected
    assert fault.reason == f"{len(row)} bytes, and a line has at most 1048576 (the first 65536 are kept)"
    assert fault.raw == row[:KEPT_BYTES]
    assert json.loads(Record.from_bytes(good.data, check_payload).payload_json) == {"a": "1", "b": "2"}


def test_a_line_that_fits_and_whose_record_does_not_is_rejected() -> None:
    (entry,) = entries_of(b'{"a":"' + b"x" * (MAX_LINE_BYTES - 8) + b'"}')
    fault = rejected(entry).rejected
    assert (
        "bytes as a record, and it has at most 1048576 (of its 1048576 bytes the first 65536 are kept)"
        in fault.reason
    )


@pytest.mark.parametrize(
    ("length", "kept"), [(MAX_RAW_BYTES, MAX_RAW_BYTES), (MAX_RAW_BYTES + 1, KEPT_BYTES)]
)
def test_a_bad_line_is_kept_whole_as_long_as_the_stream_takes_it(length: int, kept: int) -> None:
    (entry,) = entries_of(b"x" * length)
    assert len(rejected(entry).rejected.raw) == kept


def test_a_reason_is_cut_where_it_would_not_fit() -> None:
    name = "\\u0001" * 3000
    (entry,) = entries_of(b'{"b": 1}' + b" " * MAX_RAW_BYTES, id_field=json.loads(f'"{name}"'))
    assert len(rejected(entry).rejected.reason) < 2100
