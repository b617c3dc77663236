"""The record: what the stream takes, and what it refuses with a reason."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import PermanentError
from common.payload import Payload
from common.record import Line, Record

GOOD: dict[str, Any] = {"id": "a", "partition_key": "k", "payload": {"n": 1}}


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def reason(data: bytes) -> str:
    with pytest.raises(PermanentError) as refused:
        Record.from_bytes(data)
    return str(refused.value)


class TestBytes:
    def test_are_compact_json(self) -> None:
        record = Record(id="ä", partition_key="k", payload=Payload({"b": [1.5, None], "a": "ü"}))
        assert (
            record.to_bytes() == '{"id":"ä","partition_key":"k","payload":{"b":[1.5,null],"a":"ü"}}'.encode()
        )
        assert record.payload_json == '{"b":[1.5,null],"a":"ü"}'

    def test_say_where_in_a_file_the_record_comes_from(self) -> None:
        record = Record(**GOOD | {"payload": Payload({})}, upload=Line(id="u", chunk=0, line=1))
        assert json.loads(record.to_bytes())["upload"] == {"id": "u", "chunk": 0, "line": 1}
        assert Record.from_bytes(record.to_bytes()) == record

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (b"", "empty body"),
            (b"\xff\xfe", "not UTF-8: byte 0xff at offset 0"),
            (b'{"id": "a\xc3"}', "not UTF-8: byte 0xc3 at offset 9"),
            (b"nonsense", "not JSON: expected ident at line 1 column 2"),
            (b'{"id": "a"', "not JSON: EOF while parsing an object at line 1 column 10"),
            (b"[]", "Input should be an object"),
            (b"null", "Input should be an object"),
            (b"{}", "id: Field required; partition_key: Field required; payload: Field required"),
        ],
    )
    def test_that_are_no_record_are_refused_with_the_reason(self, data: bytes, expected: str) -> None:
        assert reason(data) == expected


WRONG = [
    ({"id": ""}, "id: String should have at least 1 character"),
    ({"id": "x" * 10_000}, "id: String should have at most 256 characters"),
    ({"id": 7}, "id: Input should be a valid string"),
    ({"id": None}, "id: Input should be a valid string"),
    ({"id": "a\nb"}, r"id: String should match pattern '^[^\x00-\x1f\x7f]+$'"),
    ({"id": "a\x00"}, r"id: String should match pattern '^[^\x00-\x1f\x7f]+$'"),
    ({"partition_key": "k" * 257}, "partition_key: String should have at most 256 characters"),
    ({"payload": []}, "payload: Input should be an object"),
    ({"payload": None}, "payload: Input should be an object"),
    ({"payload": "{}"}, "payload: Input should be an object"),
    ({"payload": {"a": ["x\x00y"]}}, "payload holds a NUL (U+0000), which Postgres cannot store"),
    ({"payload": {"x\x00y": 1}}, "payload holds a NUL (U+0000), which Postgres cannot store"),
    ({"payload": {"a": math.nan}}, "payload holds a number that is not finite or too large"),
    ({"payload": {"a": [-math.inf]}}, "payload holds a number that is not finite or too large"),
    ({"payload": nested(300)}, "not JSON: recursion limit exceeded at line 1 column 1246"),
    ({"extra": 1}, "extra: Extra inputs are not permitted"),
    (
        {"upload": {"id": "u", "chunk": -1, "line": 1}},
        "upload.chunk: Input should be greater than or equal to 0",
    ),
    (
        {"upload": {"id": "u", "chunk": 0, "line": 0}},
        "upload.line: Input should be greater than or equal to 1",
    ),
    ({"upload": {"id": "u", "chunk": 0, "line": "1"}}, "upload.line: Input should be a valid integer"),
]


class TestObject:
    @pytest.mark.parametrize(("change", "expected"), WRONG, ids=[expected[:40] for _, expected in WRONG])
    def test_that_is_no_record_is_refused_as_its_bytes_are(
        self, change: dict[str, Any], expected: str
    ) -> None:
        value = GOOD | change
        with pytest.raises(PermanentError) as refused:
            Record.from_object(value)
        assert str(refused.value) == expected == reason(json.dumps(value).encode())

    @pytest.mark.parametrize("value", [None, 1, "text", [], [GOOD]])
    def test_must_be_an_object(self, value: Any) -> None:
        with pytest.raises(PermanentError, match="Input should be an object"):
            Record.from_object(value)

    @pytest.mark.parametrize(
        "value",
        [
            GOOD | {"payload": {"\ud800": 1}},
            GOOD | {"payload": {"a": "\udfff"}},
            GOOD | {"id": "\ud800"},
            GOOD | {"payload": {"a": 10**5_000}},
            GOOD | {"payload": {"a": {1, 2}}},
            GOOD | {"payload": nested(100_000)},
        ],
        ids=["surrogate in a key", "in a text", "in the id", "huge integer", "no JSON value", "too deep"],
    )
    def test_that_json_cannot_say_is_refused(self, value: dict[str, Any]) -> None:
        with pytest.raises(PermanentError, match=r"^not JSON: "):
            Record.from_object(value)

    def test_takes_limits(self) -> None:
        value = GOOD | {"id": "x" * 256, "partition_key": "ü" * 256, "payload": nested(190)}
        assert Record.from_object(value).id == "x" * 256

    def test_takes_a_backslash_u0000_that_is_text(self) -> None:
        value = GOOD | {"payload": {"a": "\\u0000 and NaN and Infinity"}}
        assert Record.from_object(value).payload.root == value["payload"]


class TestReason:
    def test_names_three_faults_and_counts_the_rest(self) -> None:
        data = b'{"id": 1, "partition_key": 2, "payload": 3, "more": 4, "still": 5}'
        assert reason(data) == (
            "id: Input should be a valid string; partition_key: Input should be a valid string; "
            "payload: Input should be an object; and 2 more"
        )

    def test_is_short_and_printable_whatever_the_sender_calls_his_fields(self) -> None:
        told = reason(json.dumps(GOOD | {"\x00\n\x1b[31m" + "y" * 9_000: 1}).encode())
        assert told.startswith("\\u0000\\u000a\\u001b[31myyy")
        assert told.endswith("y...")
        assert len(told) < 600
        assert told.isprintable()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(
    value=st.fixed_dictionaries(
        {
            "id": st.text(min_size=1, max_size=256),
            "partition_key": st.text(min_size=1, max_size=256),
            "payload": st.dictionaries(st.text(), JSON_VALUES, max_size=4),
        }
    )
)
def test_what_is_taken_comes_back_the_same_and_can_be_stored(value: dict[str, Any]) -> None:
    try:
        record = Record.from_object(value)
    except PermanentError:
        return
    again = Record.from_bytes(record.to_bytes())
    assert again == record
    assert again.model_dump() == value | {"upload": None}
    stored = again.payload_json
    assert json.loads(stored) == value["payload"]
    assert "\\u0000" not in stored.replace("\\\\", "")
