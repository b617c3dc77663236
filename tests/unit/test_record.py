"""The record: what the stream takes, and what it refuses with a reason."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import PermanentError
from records.record import LineFault, Origin, Record, RejectedLine
from tables.check import check_payload

GOOD: dict[str, Any] = {"id": "a", "partition_key": "k", "payload": {"n": 1}}
UPLOAD = "0123456789abcdef" * 2


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def reason(data: bytes) -> str:
    with pytest.raises(PermanentError) as refused:
        Record.from_bytes(data, check_payload)
    return str(refused.value)


def with_payload(text: str) -> bytes:
    return b'{"id":"a","partition_key":"k","payload":%b}' % text.encode()


class TestBytes:
    def test_hold_the_payload_as_it_is(self) -> None:
        payload = '{ "b":[1.50, null],\n"a" :"\\u00fc ü"}'
        record = Record(id="ä", partition_key="k", payload_json=payload)
        assert record.to_bytes() == f'{{"id":"ä","partition_key":"k","payload":{payload}}}'.encode()
        assert Record.from_bytes(record.to_bytes(), check_payload) == record

    def test_say_where_in_a_file_the_record_comes_from(self) -> None:
        record = Record("a", "k", "{}", Origin(id="u", chunk=0, line=1))
        assert json.loads(record.to_bytes())["upload"] == {"id": "u", "chunk": 0, "line": 1}
        assert Record.from_bytes(record.to_bytes(), check_payload) == record

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (b"", "empty body"),
            (b" \n", "not JSON: empty"),
            (b"\xff\xfe", "not UTF-8: byte 0xff at offset 0"),
            (b'{"id": "a\xc3"}', "not UTF-8: byte 0xc3 at offset 9"),
            (b"nonsense", "not JSON: invalid character at line 1 column 2"),
            (b'{"id": "a",\n  oops}', "not JSON: expected '\"' at line 2 column 3"),
            (b'{"id": "a"', "not JSON: it ends too early"),
            (b"\xef\xbb\xbf{}", "not JSON: it begins with a byte order mark (U+FEFF)"),
            (b"[]", 'not an object: expected {"id", "partition_key", "payload", "upload"?}'),
            (b"null", 'not an object: expected {"id", "partition_key", "payload", "upload"?}'),
            (
                b'{"id":1,"id":"a","partition_key":"k","payload":{}}',
                "a field is there twice, and the first one is wrong",
            ),
            (b"{}", "id: is missing; partition_key: is missing; payload: is missing"),
        ],
    )
    def test_that_are_no_record_are_refused_with_the_reason(self, data: bytes, expected: str) -> None:
        assert reason(data) == expected

    def test_of_a_release_that_wrote_them_anew_are_read(self) -> None:
        data = b'{"id":"a","partition_key":"k","payload":{"n":1},"upload":{"id":"u","chunk":0,"line":1}}'
        assert Record.from_bytes(data, check_payload) == Record("a", "k", '{"n":1}', Origin("u", 0, 1))

    def test_may_name_a_field_twice_and_the_last_one_counts(self) -> None:
        data = b'{"id":"b","id":"a","payload":[],"payload":{"x":1,"x":2},"partition_key":"k"}'
        assert Record.from_bytes(data, check_payload) == Record("a", "k", '{"x":1,"x":2}')


WRONG = [
    ({"id": ""}, "id: is empty"),
    ({"id": "x" * 10_000}, "id: has 10000 characters; at most 256 are allowed"),
    ({"id": 7}, "id: is a number, and must be a text"),
    ({"id": None}, "id: is null, and must be a text"),
    ({"id": ["a"]}, "id: is a list, and must be a text"),
    ({"id": "a\nb"}, "id: has a control character (U+000A) at position 2"),
    ({"id": "a\x00"}, "id: has a control character (U+0000) at position 2"),
    ({"id": "ab\x7f"}, "id: has a control character (U+007F) at position 3"),
    ({"partition_key": "k" * 257}, "partition_key: has 257 characters; at most 256 are allowed"),
    ({"partition_key": "\x1f"}, "partition_key: has a control character (U+001F) at position 1"),
    ({"payload": []}, "payload: is a list, and must be an object"),
    ({"payload": None}, "payload: is null, and must be an object"),
    ({"payload": "{}"}, "payload: is a text, and must be an object"),
    ({"payload": -1}, "payload: is a number, and must be an object"),
    ({"payload": True}, "payload: is a boolean, and must be an object"),
    ({"payload": {"a": ["x\x00y"]}}, "payload holds a NUL (U+0000), which Postgres cannot store"),
    ({"payload": {"x\x00y": 1}}, "payload holds a NUL (U+0000), which Postgres cannot store"),
    ({"payload": {"a": math.nan}}, "not JSON: NaN is no number in JSON, at line 1 column 52"),
    ({"payload": {"a": [-math.inf]}}, "not JSON: -Infinity is no number in JSON, at line 1 column 53"),
    ({"payload": {"\ud800": 1}}, "not JSON: \\ud800 is half of a surrogate pair, and no character"),
    ({"payload": {"a": "\udfff"}}, "not JSON: \\udfff is half of a surrogate pair, and no character"),
    (
        {"payload": {"a": "\ud83d\ud83d\ude00"}},
        "not JSON: \\ud83d is half of a surrogate pair, and no character",
    ),
    ({"id": "\ud800"}, "not JSON: \\ud800 is half of a surrogate pair, and no character"),
    ({"extra": 1}, "extra: is no field of a record"),
    (
        {"upload": {"id": "u", "chunk": -1, "line": 1}},
        'upload: is not {"id": a text, "chunk": from 0, "line": from 1}',
    ),
    (
        {"upload": {"id": "u", "chunk": 0, "line": 0}},
        'upload: is not {"id": a text, "chunk": from 0, "line": from 1}',
    ),
    (
        {"upload": {"id": "u", "chunk": 0, "line": "1"}},
        'upload: is not {"id": a text, "chunk": from 0, "line": from 1}',
    ),
    (
        {"upload": {"id": "u\x1f", "chunk": 0, "line": 1}},
        "upload.id: has a control character (U+001F) at position 2",
    ),
]


class TestReason:
    @pytest.mark.parametrize(("change", "expected"), WRONG, ids=[expected[:40] for _, expected in WRONG])
    def test_says_what_is_wrong(self, change: dict[str, Any], expected: str) -> None:
        assert reason(json.dumps(GOOD | change).encode()) == expected

    def test_names_three_faults_and_counts_the_rest(self) -> None:
        data = b'{"id": 1, "partition_key": 2, "payload": 3, "more": 4, "still": 5}'
        assert reason(data) == (
            "id: is a number, and must be a text; partition_key: is a number, and must be a text; "
            "payload: is a number, and must be an object; and 2 more"
        )

    def test_is_short_and_printable_whatever_the_sender_calls_his_fields(self) -> None:
        told = reason(json.dumps(GOOD | {"\x00\n\x1b[31m" + "y" * 9_000: 1}).encode())
        assert told.startswith("\\u0000\\u000a\\u001b[31myyy")
        assert told.endswith("y...")
        assert len(told) < 600
        assert told.isprintable()

    @pytest.mark.parametrize("opening", [b"[", b'{"a":'])
    def test_is_given_for_what_is_nested_beyond_any_stack(self, opening: bytes) -> None:
        assert reason(b'{"payload":' + opening * 1_000_000).startswith("not JSON: nested too deeply")


class TestPayload:
    @pytest.mark.parametrize(
        "number",
        [
            "0.1234567890123456789012345",
            "12345678901234567890.12345",
            "1e-400",
            "1e999",
            "9007199254740993.0",
            "1.50",
            "-0",
            "9" * 5_000,
        ],
        ids=lambda number: str(number)[:30],
    )
    def test_keeps_every_digit(self, number: str) -> None:
        assert (
            Record.from_bytes(with_payload(f'{{"n": {number}}}'), check_payload).payload_json
            == f'{{"n": {number}}}'
        )

    @pytest.mark.parametrize("backslashes", range(1, 7))
    def test_holds_a_nul_where_an_odd_number_of_backslashes_stands_before_it(self, backslashes: int) -> None:
        payload = '{"a":"x%su0000"}' % ("\\" * backslashes)
        if backslashes % 2:
            assert (
                reason(with_payload(payload)) == "payload holds a NUL (U+0000), which Postgres cannot store"
            )
        else:
            assert Record.from_bytes(with_payload(payload), check_payload).payload_json == payload

    @pytest.mark.parametrize(
        "payload",
        ['{"a":"NaN and Infinity"}', '{"a":"\\ud83d\\ude00"}', '{"a":"\\\\ud800"}', '{"a":"\\uFFFF"}'],
    )
    def test_may_hold_what_only_looks_wrong(self, payload: str) -> None:
        assert Record.from_bytes(with_payload(payload), check_payload).payload_json == payload

    def test_takes_limits(self) -> None:
        value = GOOD | {"id": "x" * 256, "partition_key": "ü" * 256, "payload": nested(5_000)}
        assert Record.from_bytes(json.dumps(value).encode(), check_payload).id == "x" * 256


class TestPositionalId:
    @pytest.mark.parametrize(
        "upload", [None, {"id": "fedcba98" * 4, "chunk": 0, "line": 1}, {"id": "u", "chunk": 0, "line": 1}]
    )
    def test_is_refused_to_a_record_that_does_not_come_from_there(self, upload: Any) -> None:
        data = json.dumps(GOOD | {"id": f"{UPLOAD}:17", "upload": upload}).encode()
        assert reason(data) == (
            "id: is the place of a line in an upload (32 hexadecimal digits, a colon, a number), "
            "and the record does not come from there"
        )

    def test_is_that_of_a_line(self) -> None:
        record = Record(f"{UPLOAD}:17", "k", "{}", Origin(UPLOAD, 0, 1))
        assert Record.from_bytes(record.to_bytes(), check_payload) == record

    @pytest.mark.parametrize(
        "record_id",
        [
            f"{UPLOAD}:",
            f"{UPLOAD}:x",
            f"{UPLOAD.upper()}:1",
            f"{UPLOAD}0:1",
            f"{UPLOAD}:1:2",
            f"x{UPLOAD}:1",
            UPLOAD,
        ],
    )
    def test_is_no_other_one(self, record_id: str) -> None:
        assert Record.from_bytes(json.dumps(GOOD | {"id": record_id}).encode(), check_payload).id == record_id

    def test_is_what_a_rejected_line_has(self) -> None:
        place = Origin(UPLOAD, 0, 1)
        fault = LineFault("not JSON", bytes(range(256)))
        line = RejectedLine(f"{UPLOAD}:5", "k", fault, place)
        assert RejectedLine.from_bytes(line.to_bytes()) == line
        for other in ("fedcba98" * 4 + ":5", "order-5", f"{UPLOAD}:x"):
            assert RejectedLine.from_bytes(RejectedLine(other, "k", fault, place).to_bytes()) is None


def test_a_rejected_line_of_the_release_before_is_read() -> None:
    data = (
        b'{"id":"u:1","partition_key":"b","rejected":{"reason":"r","raw":"__79-_r__v37-g=="},'
        b'"upload":{"id":"u","chunk":0,"line":1}}'
    )
    line = RejectedLine("u:1", "b", LineFault("r", b"\xff\xfe\xfd\xfb\xfa" * 2), Origin("u", 0, 1))
    assert RejectedLine.from_bytes(data) == line
    assert line.to_bytes() == data


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(
    value=st.fixed_dictionaries(
        {
            "id": st.text(min_size=1, max_size=256),
            "partition_key": st.text(min_size=1, max_size=256),
            "payload": st.dictionaries(st.text(), JSON_VALUES, max_size=4),
        }
    ),
    indent=st.none() | st.just(1),
    ascii_only=st.booleans(),
)
def test_what_is_taken_comes_back_the_same_and_can_be_stored(
    value: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    payload = json.dumps(value["payload"], indent=indent, ensure_ascii=ascii_only)
    data = json.dumps(value | {"payload": 0}, ensure_ascii=ascii_only).replace(
        '"payload": 0', f'"payload": {payload}'
    )
    try:
        record = Record.from_bytes(data.encode(errors="surrogatepass"), check_payload)
    except PermanentError:
        return
    assert (record.id, record.partition_key, record.payload_json) == (
        value["id"],
        value["partition_key"],
        payload,
    )
    assert Record.from_bytes(record.to_bytes(), check_payload) == record
    assert "\\u0000" not in record.payload_json.replace("\\\\", "")
