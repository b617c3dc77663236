"""decode: from the bytes on the stream to a record, or to the reason why they are none."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.decode import REASON_LENGTH, Arrived, Rejection, decode, reject, storable
from records.record import MAX_INTEGER, LineFault, Origin, RejectedLine
from tests.unit.consumer_support import POISON, message, stream_record

U_2_3 = Origin(id="u", chunk=2, line=3)


def decode_rejection(data: bytes) -> Rejection:
    rejection = decode(stream_record(data))
    assert isinstance(rejection, Rejection)
    return rejection


def decode_record(data: bytes) -> Arrived:
    arrived = decode(stream_record(data))
    assert isinstance(arrived, Arrived)
    return arrived


def test_a_record_arrives_with_its_bytes_and_its_place_on_the_stream() -> None:
    data = message("a", {"n": 1}, upload=("u", 0, 7))
    arrived = decode(stream_record(data, 42))
    assert isinstance(arrived, Arrived)
    assert (arrived.record.id, arrived.record.payload_json) == ("a", '{"n": 1}')
    assert arrived.record.upload == Origin(id="u", chunk=0, line=7)
    assert (arrived.raw, arrived.shard_id, arrived.sequence_number, arrived.arrived_at) == (
        data,
        "shardId-000000000006",
        "42",
        1545084650.987,
    )


@pytest.mark.parametrize(("data", "reason"), POISON.values(), ids=POISON)
def test_a_poison_record_is_a_rejection_with_reason_and_exact_bytes(data: bytes, reason: str) -> None:
    rejection = decode(stream_record(data, 42))
    assert isinstance(rejection, Rejection)
    assert rejection.reason == reason
    assert rejection.raw == data
    assert rejection.id == hashlib.sha256(data).hexdigest()
    assert (rejection.shard_id, rejection.sequence_number) == ("shardId-000000000006", "42")


@pytest.mark.parametrize("data", [b" x", b"x ", b"x\n", b"\t{}\r\n", b"", b" "])
def test_a_rejected_record_is_known_by_its_exact_bytes_spaces_included(data: bytes) -> None:
    assert decode_rejection(data).id == hashlib.sha256(data).hexdigest()
    padded = b" " + message("a") + b"\n"
    assert reject(decode_record(padded), "refused").id == hashlib.sha256(padded).hexdigest()
    entry = stream_record(padded)
    for sent, redriven in ((padded, True), (padded.strip(), False)):
        entry["kinesis"]["partitionKey"] = hashlib.sha256(sent).hexdigest()
        arrived = decode(entry)
        assert isinstance(arrived, Arrived)
        assert arrived.redriven is redriven


def test_data_that_is_not_base64_is_a_rejection_of_its_text() -> None:
    entry = stream_record(b"")
    entry["kinesis"]["data"] = "a"
    rejection = decode(entry)
    assert isinstance(rejection, Rejection)
    assert rejection.reason.startswith("not base64: ")
    assert rejection.raw == b"a"


@pytest.mark.parametrize("given", [{}, {"partitionKey": None}, {"partitionKey": ""}])
def test_a_record_without_a_partition_key_of_the_stream_is_an_ordinary_one(given: dict[str, Any]) -> None:
    entry = stream_record(message("a"))
    del entry["kinesis"]["partitionKey"]
    entry["kinesis"] |= given
    arrived = decode(entry)
    assert isinstance(arrived, Arrived)
    assert (arrived.record.id, arrived.record.partition_key, arrived.redriven) == ("a", "p", False)


@pytest.mark.parametrize(
    "given", [{}, {"approximateArrivalTimestamp": None}, {"approximateArrivalTimestamp": "?"}]
)
def test_a_record_without_an_arrival_time_has_arrived_now(given: dict[str, Any]) -> None:
    entry = stream_record(message("a"))
    del entry["kinesis"]["approximateArrivalTimestamp"]
    entry["kinesis"] |= given
    assert decode(entry, now=lambda: 17.5).arrived_at == 17.5


@pytest.mark.parametrize(
    ("given", "reason", "raw"),
    [
        ({}, "empty body", b""),
        ({"data": None}, "empty body", b""),
        ({"data": ""}, "empty body", b""),
        ({"data": 5}, "not base64: ", b"5"),
        ({"data": {"a": "\ud800"}}, "not base64: ", b"{'a': '\\ud800'}"),
        ({"data": "\ud800"}, "not base64: ", b"\\ud800"),
    ],
)
def test_an_entry_without_data_that_can_be_read_is_a_rejection(
    given: dict[str, Any], reason: str, raw: bytes
) -> None:
    entry = stream_record(b"")
    del entry["kinesis"]["data"], entry["eventID"]
    entry["kinesis"] |= given
    rejection = decode(entry)
    assert isinstance(rejection, Rejection)
    assert rejection.reason.startswith(reason)
    assert (rejection.raw, rejection.shard_id) == (raw, "")


def test_an_id_that_is_another_line_s_place_is_a_rejection_that_takes_nothing_from_the_line() -> None:
    upload = "0123456789abcdef" * 2
    for forged in (message(f"{upload}:0"), message(f"{upload}:0", upload=("f" * 32, 0, 1))):
        rejection = decode_rejection(forged)
        assert rejection.reason.startswith("id: is the place of a line in an upload")
        assert (rejection.id, rejection.record_id) == (hashlib.sha256(forged).hexdigest(), f"{upload}:0")
        assert not rejection.is_line
    assert not decode_record(message(f"{upload}:0", upload=(upload, 0, 1))).has_own_id


def test_a_rejected_line_that_does_not_come_from_its_place_is_a_poison_record() -> None:
    data = RejectedLine("f" * 32 + ":1", "p", LineFault("r", b"x"), Origin("0" * 32, 0, 1)).to_bytes()
    rejection = decode_rejection(data)
    assert (rejection.id, rejection.raw) == (hashlib.sha256(data).hexdigest(), data)


def test_the_same_bytes_are_the_same_rejection_wherever_they_are_on_the_stream() -> None:
    one, other = decode(stream_record(b"x", 1)), decode(stream_record(b"x", 2))
    assert isinstance(one, Rejection)
    assert isinstance(other, Rejection)
    assert one.id == other.id
    assert one.id != decode_rejection(b"y").id


@pytest.mark.parametrize(
    ("value", "record_id", "upload"),
    [
        ({"id": "a"}, "a", None),
        ({"id": "a", "upload": {"id": "u", "chunk": 2, "line": 3}}, "a", Origin(id="u", chunk=2, line=3)),
        ({"upload": {"id": "u", "chunk": 2, "line": 0}}, None, None),
        ({"upload": {"id": "u", "chunk": 2, "line": MAX_INTEGER + 1}}, None, None),
        ({"upload": {"id": "u", "chunk": 2}}, None, None),
        ({"id": 5, "upload": "u"}, None, None),
        ({"id": "i" * 300}, "i" * 256, None),
        ({"id": "a", "upload": {"id": "u\n", "chunk": 2, "line": 3}}, "a", None),
        ({"id": "a", "upload": {"id": "\ud800", "chunk": 2, "line": 3}}, "a", None),
        ({"id": "a", "payload": float("nan"), "upload": {"id": "u", "chunk": 2, "line": 3}}, "a", U_2_3),
        ({"id": "a\x00b\ud800"}, "a\\u0000b\\ud800", None),
        ([1], None, None),
    ],
    ids=str,
)
def test_a_broken_record_keeps_what_can_be_read_of_its_origin(
    value: object, record_id: str | None, upload: Origin | None
) -> None:
    rejection = decode_rejection(json.dumps(value).encode())
    assert (rejection.record_id, rejection.upload) == (record_id, upload)


def test_json_that_is_nested_too_deeply_to_be_read_again_is_a_rejection() -> None:
    rejection = decode_rejection(b'{"id":"deep","payload":' + b"[" * 100_000)
    assert rejection.reason.startswith("not JSON")
    assert rejection.record_id is None


def test_a_rejected_line_keeps_its_own_id_reason_and_bytes() -> None:
    upload = Origin(id="u", chunk=1, line=9)
    raw = bytes(range(256))
    line = RejectedLine(
        id="u:512", partition_key="u", rejected=LineFault(reason="no id\x00", raw=raw), upload=upload
    )
    rejection = decode_rejection(line.to_bytes())
    assert (rejection.id, rejection.raw, rejection.upload) == ("u:512", raw, upload)
    assert rejection.reason == "no id\\u0000"


def test_what_only_resembles_a_rejected_line_is_a_poison_record() -> None:
    data = b'{"id":"u:1","partition_key":"u","rejected":{"reason":"r","raw":"?"},"upload":{}}'
    rejection = decode_rejection(data)
    assert rejection.id == hashlib.sha256(data).hexdigest()
    assert rejection.raw == data


def test_a_reason_is_one_storable_line_of_bounded_length() -> None:
    upload = Origin(id="u", chunk=0, line=1)
    fault = LineFault(reason="k\x00\n" * 5_000, raw=b"")
    line = RejectedLine(id="u:0", partition_key="u", rejected=fault, upload=upload)
    reason = decode_rejection(line.to_bytes()).reason
    assert reason.startswith("k\\u0000\\u000ak")
    assert len(reason) == REASON_LENGTH


def test_a_record_with_a_hostile_field_name_is_rejected_with_a_storable_reason() -> None:
    data = json.dumps({"id": "a", "partition_key": "p", "payload": {}, "k\x00\n" * 5_000: 1}).encode()
    reason = decode_rejection(data).reason
    assert "\x00" not in reason
    assert "\n" not in reason
    assert len(reason) <= REASON_LENGTH


@given(st.binary(max_size=200) | st.text().map(lambda text: text.encode(errors="surrogatepass")))
def test_no_bytes_make_decode_fail(data: bytes) -> None:
    decoded = decode(stream_record(data))
    assert decoded.raw == data or isinstance(decoded, Rejection)
    if isinstance(decoded, Rejection):
        assert decoded.reason == storable(decoded.reason, REASON_LENGTH)


@given(st.text(), st.integers(1, 20))
def test_storable_text_is_short_printable_on_a_line_and_valid_utf_8(text: str, length: int) -> None:
    stored = storable(text, length)
    assert len(stored) <= length
    assert not any(ord(character) < 32 or ord(character) == 127 for character in stored)
    stored.encode()


@pytest.mark.parametrize(
    ("record_id", "upload", "expected"),
    [
        ("order-1", ("u", 0, 1), True),
        ("u:17", ("u", 0, 1), False),
        ("u:17", ("other", 0, 1), True),
        ("u:17b", ("u", 0, 1), True),
        ("u:", ("u", 0, 1), True),
        ("order-1", None, False),
    ],
)
def test_only_a_line_with_an_id_of_its_own_may_repeat(
    record_id: str, upload: tuple[str, int, int] | None, expected: bool
) -> None:
    assert decode_record(message(record_id, upload=upload)).may_repeat is expected


def test_a_refused_record_is_rejected_under_its_bytes_with_its_origin() -> None:
    data = message("a", upload=("u", 0, 1))
    rejection = reject(decode_record(data), "Postgres: no\n")
    assert rejection.id == hashlib.sha256(data).hexdigest()
    assert (rejection.reason, rejection.raw, rejection.record_id) == ("Postgres: no\\u000a", data, "a")
    assert rejection.upload == Origin(id="u", chunk=0, line=1)


def test_an_entry_of_another_event_is_not_decoded() -> None:
    with pytest.raises(KeyError):
        decode({"eventSource": "aws:sqs", "body": base64.b64encode(b"{}").decode()})
