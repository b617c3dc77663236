"""The producer's handler: what a caller sends, directly or over HTTP, and what it is told."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ConnectTimeoutError
from moto import mock_aws

from bench.kinesis_limits import LimitedKinesis, VirtualClock, client_error
from common import clients
from producer import api, request
from producer.publish import Publisher
from producer.request import MAX_BODY_BYTES, MAX_RECORDS
from records.record import Record
from tables.check import check_payload


class Context(SimpleNamespace):
    """What Lambda tells of an invocation."""

    def __init__(self, seconds: float = 60.0) -> None:
        super().__init__(
            function_name="producer",
            memory_limit_in_mb=1024,
            invoked_function_arn="arn:aws:lambda:us-east-1:123456789012:function:producer",
            aws_request_id="request",
            get_remaining_time_in_millis=lambda: int(seconds * 1000),
        )


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("STREAM_NAME", "the-stream")
    cached = api._settings, api._publisher
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@pytest.fixture
def kinesis(monkeypatch: pytest.MonkeyPatch) -> LimitedKinesis:
    """The stream behind the handler."""
    fake = LimitedKinesis(VirtualClock(), shards=4)
    ours = Publisher(fake, "the-stream", clock=fake.clock, sleep=fake.clock.sleep, random=lambda: 0.5)  # type: ignore[arg-type]
    monkeypatch.setattr(api, "_publisher", lambda: ours)
    return fake


def direct(event: Any, seconds: float = 60.0) -> Any:
    return api.handler(event, Context(seconds))


def http_event(
    body: Any = None, *, content_type: str | None = "application/json", **changes: Any
) -> dict[str, Any]:
    """An event of an HTTP API, payload format 2.0."""
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "POST /records",
        "rawPath": "/records",
        "rawQueryString": "",
        "headers": {"content-type": content_type} if content_type else {},
        "requestContext": {
            "http": {"method": "POST", "path": "/records", "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1"},
            "requestId": "JKJaXmPLvHcESHA=",
            "stage": "$default",
        },
        "isBase64Encoded": False,
    }
    if body is not None:
        event["body"] = body if isinstance(body, str) else json.dumps(body)
    return event | changes


def post(body: Any = None, *, seconds: float = 60.0, **options: Any) -> tuple[int, dict[str, Any]]:
    response = api.handler(http_event(body, **options), Context(seconds))
    assert response["headers"]["Content-Type"] == "application/json"
    return response["statusCode"], json.loads(response["body"])


def stored(kinesis: LimitedKinesis) -> list[Record]:
    return [Record.from_bytes(entry["Data"], check_payload) for entry in kinesis.stored]


GOOD = {"id": "a", "partition_key": "k", "payload": {"n": 1}}


class TestDirect:
    def test_records_are_published_as_they_are(self, kinesis: LimitedKinesis) -> None:
        answer = direct({"records": [GOOD, GOOD | {"id": "b", "payload": {"ü": [None]}}]})
        assert answer == {"accepted": 2, "ids": ["a", "b"], "rejected": [], "failed": []}
        assert [entry["PartitionKey"] for entry in kinesis.stored] == ["k", "k"]
        assert [json.loads(entry["Data"]) for entry in kinesis.stored] == [
            {"id": "a", "partition_key": "k", "payload": {"n": 1}},
            {"id": "b", "partition_key": "k", "payload": {"ü": [None]}},
        ]

    def test_a_record_without_id_gets_a_uuid7_and_the_caller_learns_it(self, kinesis: LimitedKinesis) -> None:
        answer = direct({"records": [{"payload": {}}, GOOD, {"payload": {}}]})
        assert [record.id for record in stored(kinesis)] == answer["ids"]
        assert uuid.UUID(answer["ids"][0]).version == 7
        assert answer["ids"][0] < answer["ids"][2]

    def test_the_partition_key_is_the_id_unless_it_is_given(self, kinesis: LimitedKinesis) -> None:
        direct({"records": [{"id": "own", "payload": {}}, {"partition_key": "k", "payload": {}}]})
        assert [record.partition_key for record in stored(kinesis)] == ["own", "k"]
        assert [entry["PartitionKey"] for entry in kinesis.stored] == ["own", "k"]

    def test_no_records_are_nothing_to_do(self, kinesis: LimitedKinesis) -> None:
        assert direct({"records": []}) == {"accepted": 0, "ids": [], "rejected": [], "failed": []}
        assert not kinesis.requests

    @pytest.mark.parametrize(
        ("event", "error"),
        [
            (None, 'not a JSON object: expected {"records": [...]}'),
            ("records", 'not a JSON object: expected {"records": [...]}'),
            ([GOOD], 'not a JSON object: expected {"records": [...]}'),
            ({}, '"records" is missing: expected {"records": [...]}'),
            ({"records": GOOD}, '"records" is not a list: expected {"records": [...]}'),
            ({"records": None}, '"records" is not a list: expected {"records": [...]}'),
            ({"records": [GOOD] * (MAX_RECORDS + 1)}, "10001 records; 10000 are allowed in one request"),
        ],
        ids=lambda value: str(value)[:30],
    )
    def test_a_wrong_request_is_an_answer_not_an_exception(
        self, kinesis: LimitedKinesis, event: Any, error: str
    ) -> None:
        answer = direct(event)
        assert answer == {"accepted": 0, "ids": [], "rejected": [], "failed": [], "error": error}
        assert not kinesis.requests


NESTED: dict[str, Any] = {}
for _ in range(100_000):
    NESTED = {"a": NESTED}
WRONG = [
    (None, 'not an object: expected {"id"?, "partition_key"?, "payload"}'),
    ([GOOD], 'not an object: expected {"id"?, "partition_key"?, "payload"}'),
    ({}, "payload: is missing"),
    ({"id": "a"}, "payload: is missing"),
    (GOOD | {"id": None}, "id: is null, and must be a text"),
    (GOOD | {"id": 5}, "id: is a number, and must be a text"),
    (GOOD | {"id": ""}, "id: is empty"),
    ({"id": "x" * 10_000, "payload": {}}, "id: has 10000 characters; at most 256 are allowed"),
    (GOOD | {"partition_key": None}, "partition_key: is null, and must be a text"),
    (GOOD | {"payload": [1]}, "payload: is a list, and must be an object"),
    (GOOD | {"payload": {"a": "\x00"}}, "payload holds a NUL (U+0000), which Postgres cannot store"),
    (GOOD | {"payload": {"a": 1e999}}, "not JSON: Infinity is no number in JSON, at line 1 column 46"),
    (
        GOOD | {"payload": {"a": 10**5_000}},
        "not JSON: an integer of more than 4,300 digits, which Python does not write",
    ),
    (GOOD | {"payload": {"a": "\udfff"}}, "not JSON: \\udfff is half of a surrogate pair, and no character"),
    (GOOD | {"payload": NESTED}, "not JSON: nested too deeply to be read"),
    (GOOD | {"payload": {"a": {1, 2}}}, "not JSON: Object of type set is not JSON serializable"),
    (GOOD | {"id": "a\x07"}, "id: has a control character (U+0007) at position 2"),
    (GOOD | {"key": 1}, "key: is no field of a record"),
    (GOOD | {"upload": {"id": "u", "chunk": 0, "line": 1}}, "upload: is for records that come from a file"),
]


class TestRejected:
    @pytest.mark.parametrize(("wrong", "reason"), WRONG, ids=[reason[:40] for _, reason in WRONG])
    def test_a_wrong_record_is_named_and_the_good_ones_go_on(
        self, kinesis: LimitedKinesis, wrong: Any, reason: str
    ) -> None:
        good = [GOOD | {"id": "first"}, GOOD | {"id": "last"}]
        answer = direct({"records": [good[0], wrong, good[1]]})
        assert answer == {
            "accepted": 2,
            "ids": ["first", None, "last"],
            "rejected": [{"index": 1, "reason": reason}],
            "failed": [],
        }
        assert [record.id for record in stored(kinesis)] == ["first", "last"]

    def test_an_oversized_record_too(self, kinesis: LimitedKinesis) -> None:
        large = {"id": "large", "partition_key": "k", "payload": {"a": "x" * 1024 * 1024}}
        answer = direct({"records": [GOOD, large, {"id": 1}, GOOD | {"id": "b"}]})
        assert answer["accepted"] == 2
        assert answer["ids"] == ["a", None, None, "b"]
        assert [fault["index"] for fault in answer["rejected"]] == [1, 2]
        assert answer["rejected"][0]["id"] == "large"
        assert answer["rejected"][0]["reason"].endswith(
            "bytes with its partition key; a record has 1048576 at most"
        )

    def test_an_equal_repetition_is_published_once_and_accepted(self, kinesis: LimitedKinesis) -> None:
        other_order = {"payload": {"y": 1, "x": {"b": 1, "a": 2}}, "id": "b"}
        same = {"id": "b", "payload": {"x": {"a": 2, "b": 1}, "y": 1}}
        answer = direct({"records": [GOOD, other_order, GOOD, same]})
        assert answer == {"accepted": 4, "ids": ["a", "b", "a", "b"], "rejected": [], "failed": []}
        assert [record.id for record in stored(kinesis)] == ["a", "b"]

    @pytest.mark.parametrize(
        "change",
        [{"payload": {"n": 2}}, {"payload": {"n": True}}, {"payload": {"n": 1.0}}, {"partition_key": "l"}],
    )
    def test_another_content_under_the_same_id_is_not(
        self, kinesis: LimitedKinesis, change: dict[str, Any]
    ) -> None:
        answer = direct({"records": [{"id": "z", "payload": {}}, GOOD, GOOD | change]})
        assert answer["ids"] == ["z", "a", None]
        assert answer["rejected"] == [
            {"index": 2, "reason": "the id repeats that of record 1 with another content"}
        ]
        assert json.loads(stored(kinesis)[1].payload_json) == {"n": 1}

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ('{"n":0.12345678901234567890}', '{"n":0.12345678901234567891}'),
            ('{"n":12345678901234567890.1}', '{"n":12345678901234567890.2}'),
            ('{"n":1.50}', '{"n":1.5}'),
            ('{"n":1e999}', '{"n":2e999}'),
            ('{"n":"1"}', '{"n":1}'),
            ('{"n":[1]}', '{"n":1}'),
            ('{"n":%s1}' % ("9" * 5_000), '{"n":%s2}' % ("9" * 5_000)),
        ],
        ids=lambda text: str(text)[:40],
    )
    def test_a_content_that_differs_in_a_digit_is_another_one(
        self, kinesis: LimitedKinesis, one: str, other: str
    ) -> None:
        records = [f'{{"id":"a","payload":{payload}}}' for payload in (one, other, one.replace(":", " : "))]
        status, answer = post(f'{{"records":[{",".join(records)}]}}')
        assert (status, answer["ids"]) == (207, ["a", None, "a"])
        assert [record.payload_json for record in stored(kinesis)] == [one]

    def test_a_content_may_be_nested_deeply(self, kinesis: LimitedKinesis) -> None:
        def record(depth: int, blank: str = "") -> str:
            return f'{{"id":"a","payload":{{"a":{"[" * depth}{blank}{"]" * depth}}}}}'

        body = f"{record(9_000)}\n{record(9_000, ' ')}"
        assert post(body, content_type="application/x-ndjson")[1]["ids"] == ["a", "a"]
        assert not request._same(record(50_000).encode(), record(50_000, " ").encode())

    @pytest.mark.parametrize("upload", ["0123456789abcdef" * 2, "f" * 32])
    @pytest.mark.parametrize("offset", ["0", "17", "9" * 20])
    def test_an_id_of_the_form_of_a_line_s_is_reserved(
        self, kinesis: LimitedKinesis, upload: str, offset: str
    ) -> None:
        wrong = GOOD | {"id": f"{upload}:{offset}"}
        reason = (
            "id: has the form of the place of a line in an upload (32 hexadecimal digits, a colon, a number), "
            "which is reserved: give another id"
        )
        for answer in (direct({"records": [wrong, GOOD]}), post({"records": [wrong, GOOD]})[1]):
            assert answer["ids"] == [None, "a"]
            assert answer["rejected"] == [{"index": 0, "reason": reason}]
        assert {record.id for record in stored(kinesis)} == {"a"}

    def test_one_that_only_resembles_it_is_not(self, kinesis: LimitedKinesis) -> None:
        for record_id in ("F" * 32 + ":1", "f" * 32, "f" * 31 + ":1", "f" * 32 + ":x", "f" * 32 + ":1 "):
            assert direct({"records": [GOOD | {"id": record_id}]})["ids"] == [record_id]


class TestNotPublished:
    def test_records_are_named_with_their_ids_to_be_sent_again(self, kinesis: LimitedKinesis) -> None:
        kinesis._fault = lambda _, __, entry: "InternalFailure" if b'"bad"' in entry["Data"] else None
        status, answer = post(
            {"records": [GOOD, GOOD | {"id": "bad"}, GOOD | {"id": 1}, GOOD | {"id": "bad"}]}
        )
        assert status == 503
        reason = "InternalFailure: Internal Service Failure (sent 12 times)"
        assert answer == {
            "accepted": 1,
            "ids": ["a", "bad", None, "bad"],
            "rejected": [{"index": 2, "reason": "id: is a number, and must be a text"}],
            "failed": [
                {"index": 1, "id": "bad", "reason": reason},
                {"index": 3, "id": "bad", "reason": reason},
            ],
        }

    @pytest.mark.parametrize(
        "error", [client_error("ResourceNotFoundException", "Stream the-stream not found"), None]
    )
    def test_none_when_the_stream_is_away(
        self, kinesis: LimitedKinesis, monkeypatch: pytest.MonkeyPatch, error: Exception | None
    ) -> None:
        def fail(**_: Any) -> None:
            raise error or ConnectTimeoutError(endpoint_url="https://kinesis")

        monkeypatch.setattr(kinesis, "put_records", fail)
        status, answer = post({"records": [{"payload": {}}, GOOD]})
        assert status == 503
        assert answer["accepted"] == 0
        assert [(fault["index"], fault["id"]) for fault in answer["failed"]] == list(enumerate(answer["ids"]))
        assert "Stream the-stream not found" in answer["failed"][0]["reason"] or error is None

    def test_the_answer_says_when_to_come_again(self, kinesis: LimitedKinesis) -> None:
        kinesis._fault = lambda *_: "InternalFailure"
        response = api.handler(http_event({"records": [GOOD]}), Context())
        assert response["statusCode"] == 503
        assert response["headers"]["Retry-After"] == "5"

    def test_it_leaves_before_the_time_is_up(self, kinesis: LimitedKinesis) -> None:
        # 13 of the seconds are kept in reserve; four shards take 4,000 records a second.
        records = [{"id": str(n), "payload": {}} for n in range(MAX_RECORDS)]
        answer = direct({"records": records}, seconds=13.1)
        assert kinesis.clock() - kinesis.began < 0.15
        assert 500 <= answer["accepted"] == len(kinesis.stored) <= 4_000
        assert answer["accepted"] + len(answer["failed"]) == MAX_RECORDS
        assert all(
            fault["reason"].startswith("the time ran out before it was sent") for fault in answer["failed"]
        )

    def test_it_leaves_before_the_http_api_gives_up(self, kinesis: LimitedKinesis) -> None:
        # One record a second passes. A function with 15 minutes still answers within 29 seconds.
        kinesis._fault = lambda *_: "InternalFailure"
        kinesis._latency = (5.0, 5.0)
        status, answer = post({"records": [GOOD]}, seconds=900)
        assert status == 503
        assert answer["failed"][0]["reason"].startswith("the time ran out before it was sent again")
        assert 16 <= kinesis.clock() - kinesis.began < 29


class TestHttp:
    def test_all_accepted_is_200(self, kinesis: LimitedKinesis) -> None:
        assert post({"records": [GOOD]}) == (
            200,
            {"accepted": 1, "ids": ["a"], "rejected": [], "failed": []},
        )
        assert [record.id for record in stored(kinesis)] == ["a"]

    def test_some_rejected_is_207(self, kinesis: LimitedKinesis) -> None:
        status, answer = post({"records": [GOOD, 1]})
        assert (status, answer["accepted"], len(answer["rejected"])) == (207, 1, 1)

    def test_all_rejected_is_400(self, kinesis: LimitedKinesis) -> None:
        status, answer = post({"records": [1, 2]})
        assert (status, answer["accepted"], len(answer["rejected"])) == (400, 0, 2)

    def test_a_base64_body_is_decoded(self, kinesis: LimitedKinesis) -> None:
        body = base64.b64encode(json.dumps({"records": [GOOD | {"id": "ü"}]}, ensure_ascii=False).encode())
        status, answer = post(body.decode(), isBase64Encoded=True)
        assert (status, answer["ids"]) == (200, ["ü"])

    def test_ndjson_has_a_record_a_line(self, kinesis: LimitedKinesis) -> None:
        lines = [json.dumps(GOOD), "", "{not json", '{"payload":{"a":"\u2028"}}\r', "  "]
        status, answer = post("\n".join(lines), content_type="application/x-ndjson")
        assert status == 207
        assert answer["accepted"] == 2
        assert answer["ids"][:2] == ["a", None]
        assert answer["rejected"] == [
            {
                "index": 1,
                "reason": "not JSON: expected '\"' at line 1 column 2",
            }
        ]
        assert json.loads(stored(kinesis)[1].payload_json) == {"a": "\u2028"}

    PAYLOADS = (
        '{"n": 0.1234567890123456789012345, "b" : 1.50}',
        '{"n":%s}' % ("9" * 5_000),
        '{ "ü":"\\u00fc\\/", "x":1,\t"x":1e999 }',
    )

    def test_the_payload_goes_onto_the_stream_as_it_was_written(self, kinesis: LimitedKinesis) -> None:
        records = [f'{{"payload": {payload} , "id": "{n}"}}' for n, payload in enumerate(self.PAYLOADS)]
        assert post(f'{{"more": 1, "records" : [ {" , ".join(records)} ]}}\n')[0] == 200
        assert post("\r\n".join(records), content_type="application/x-ndjson")[0] == 200
        assert [entry["Data"].decode() for entry in kinesis.stored] == 2 * [
            f'{{"id":"{n}","partition_key":"{n}","payload":{payload}}}'
            for n, payload in enumerate(self.PAYLOADS)
        ]

    @pytest.mark.parametrize(
        ("wrong", "reason"),
        [
            ('{"payload":{"n":NaN}}', "not JSON: NaN is no number in JSON, at line 1 column 17"),
            ('{"payload":{"n":-Infinity}}', "not JSON: -Infinity is no number in JSON, at line 1 column 17"),
            (
                '{"payload":{"n":"\\ud83d"}}',
                "not JSON: \\ud83d is half of a surrogate pair, and no character",
            ),
            ("NaN", "not JSON: NaN is no number in JSON, at line 1 column 1"),
        ],
    )
    def test_what_many_programs_take_for_json_costs_that_record_alone(
        self, kinesis: LimitedKinesis, wrong: str, reason: str
    ) -> None:
        good = [f'{{"id":"{n}","payload":{payload}}}' for n, payload in enumerate(self.PAYLOADS)]
        body = f' {{"a": [1], "records": [ {good[0]}, {wrong} , {good[1]},{good[2]}] , "b": {{}} }} '
        status, answer = post(body)
        assert (status, answer["ids"]) == (207, ["0", None, "1", "2"])
        assert answer["rejected"] == [{"index": 1, "reason": reason}]
        assert [record.payload_json for record in stored(kinesis)] == list(self.PAYLOADS)

    @pytest.mark.parametrize(
        "body",
        [
            '{"records": [NaN,]}',
            '{"records": [NaN 1]}',
            '{"records": [NaN], }',
            '{"records": [NaN]} 1',
            '{"records": [NaN]',
            '{"records": NaN}',
            '{1: 2, "records": [NaN]}',
            '{"records": [], "x": NaN, }',
            '{"records" [NaN]}',
            "[NaN]",
        ],
    )
    def test_that_does_not_make_good_what_nobody_takes(self, kinesis: LimitedKinesis, body: str) -> None:
        status, answer = post(body)
        assert (status, answer["accepted"]) == (400, 0)
        assert "error" in answer
        assert not kinesis.requests

    def test_a_byte_order_mark_is_passed_over(self, kinesis: LimitedKinesis) -> None:
        for content_type, body in (
            ("application/json", {"records": [GOOD]}),
            ("application/x-ndjson", GOOD),
        ):
            assert post("\ufeff" + json.dumps(body), content_type=content_type)[0] == 200

    @pytest.mark.parametrize("content_type", [None, "", "Application/JSON; charset=utf-8"])
    def test_json_is_the_usual_type(self, kinesis: LimitedKinesis, content_type: str | None) -> None:
        assert post({"records": [GOOD]}, content_type=content_type)[0] == 200

    @pytest.mark.parametrize(
        ("body", "options", "status", "error"),
        [
            (None, {}, 400, "the body is not JSON: empty"),
            ("", {}, 400, "the body is not JSON: empty"),
            ("records=1", {}, 400, "the body is not JSON: invalid character at line 1 column 1"),
            ('{"records": null}', {}, 400, '"records" is not a list: expected {"records": [...]}'),
            ("[1]", {}, 400, 'not a JSON object: expected {"records": [...]}'),
            ("{}", {}, 400, '"records" is missing: expected {"records": [...]}'),
            ('{"a":' * 200_000, {}, 400, "the body is not JSON: nested too deeply to be read"),
            ('{"records": [1],', {}, 400, "the body is not JSON: it ends too early"),
            ("*", {"isBase64Encoded": True}, 400, "the body is not base64: "),
            ("/w==", {"isBase64Encoded": True}, 400, "the body is not UTF-8"),
            ("\ud800", {}, 400, "the body is not UTF-8"),
            ("x" * (MAX_BODY_BYTES + 1), {}, 400, "the body has 6291457 bytes; 6291456 (6 MB) are allowed"),
            (
                "ü" * (MAX_BODY_BYTES // 2 + 1),
                {},
                400,
                "the body has 6291458 bytes; 6291456 (6 MB) are allowed",
            ),
            (
                "a,b",
                {"content_type": "text/csv"},
                415,
                "send application/json or application/x-ndjson, not text/csv",
            ),
            (
                "1\n" * 10_001,
                {"content_type": "application/x-ndjson"},
                400,
                "10001 records; 10000 are allowed",
            ),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_a_wrong_request_is_refused_with_the_problem(
        self, kinesis: LimitedKinesis, body: str | None, options: dict[str, Any], status: int, error: str
    ) -> None:
        got, answer = post(body, **options)
        assert got == status
        assert answer["error"].startswith(error)
        assert answer["accepted"] == 0
        assert not kinesis.requests

    def test_a_body_of_6_mb_is_taken(self, kinesis: LimitedKinesis) -> None:
        body = json.dumps(
            {"records": [GOOD | {"id": str(n), "payload": {"a": "x" * 1_000_000}} for n in range(6)]}
        )
        assert post(body.ljust(MAX_BODY_BYTES))[0] == 200

    @pytest.mark.parametrize(
        ("method", "path", "status"), [("GET", "/records", 405), ("PUT", "/records", 405), ("POST", "/", 404)]
    )
    def test_other_routes_are_refused(
        self, kinesis: LimitedKinesis, method: str, path: str, status: int
    ) -> None:
        event = http_event({"records": [GOOD]}, rawPath=path)
        event["requestContext"]["http"] |= {"method": method, "path": path}
        response = api.handler(event, Context())
        assert response["statusCode"] == status
        assert "error" in json.loads(response["body"])
        assert response["headers"].get("Allow") == ("POST" if status == 405 else None)
        assert not kinesis.requests


class TestObservability:
    def test_counts_what_became_of_the_records(
        self, kinesis: LimitedKinesis, capsys: pytest.CaptureFixture[str]
    ) -> None:
        kinesis._fault = lambda _, __, entry: "InternalFailure" if b'"bad"' in entry["Data"] else None
        direct({"records": [GOOD, GOOD, GOOD | {"id": "bad"}, 1, 2, GOOD | {"id": "b"}]})
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
        metrics = next(line for line in lines if "_aws" in line)
        assert metrics["RecordsPublished"] == [2.0]
        assert metrics["RecordsNotPublished"] == [1.0]
        assert metrics["RecordsRejected"] == [2.0]

    def test_counts_refused_requests(
        self, kinesis: LimitedKinesis, capsys: pytest.CaptureFixture[str]
    ) -> None:
        direct([])
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
        assert next(line for line in lines if "_aws" in line)["RequestsRefused"] == [1.0]


class TestWithBoto3:
    def test_the_handler_makes_its_own_client_and_publisher(self) -> None:
        with mock_aws():
            clients.kinesis.cache_clear()
            client = boto3.client("kinesis")
            client.create_stream(StreamName="the-stream", ShardCount=1)
            assert direct({"records": [GOOD]})["accepted"] == 1
            iterator = client.get_shard_iterator(
                StreamName="the-stream", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            (record,) = client.get_records(ShardIterator=iterator)["Records"]
            assert Record.from_bytes(record["Data"], check_payload) == Record("a", "k", '{"n":1}')
        clients.kinesis.cache_clear()
