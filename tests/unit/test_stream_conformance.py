"""The poller against what was recorded on AWS: every scenario of LocalStack's tests of event source mappings for
Kinesis and DynamoDB streams is a row here, with the facts of its recording, and ours has to come to the same. What a
recording does not hold (a record that was filtered out, say, or the bound in a pattern about time) is made up here.

Source: localstack/localstack at 8b9a79f (Apache-2.0), tests/aws/services/lambda_/event_source_mapping,
test_lambda_integration_kinesis.snapshot.json and test_lambda_integration_dynamodbstreams.snapshot.json, recorded on AWS
from September 2024 to November 2025.

``lambda_esm/conformance.md`` shows the rows: ``python -m tests.unit.test_stream_conformance`` writes it anew.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from lambda_esm.destinations import failure_message
from lambda_esm.filters import Filters, InvalidPatternError
from lambda_esm.mapping import Backoff, EventSourceMapping, InvalidMappingError
from lambda_esm.poller import StreamPoller
from lambda_esm.queue import ShardQueue
from lambda_esm.records import Answered, Batch, Discard, FunctionFailed, Outcome, StreamRecord
from local.machine import REPOSITORY
from tests.unit.fake_streams import world
from tests.unit.stream_records import CONFIGURATION, TABLE_STREAM_ARN

PAGE = REPOSITORY / "lambda_esm" / "conformance.md"
GUIDE = "https://docs.aws.amazon.com/lambda/latest/dg/"
AGE = 1_000_000.0
"""A time at which nothing in these tests is old."""

DOCUMENTED = {
    "batching": GUIDE + "with-kinesis.html",
    "responses": GUIDE + "services-kinesis-batchfailurereporting.html",
    "destination": GUIDE + "kinesis-on-failure-destination.html",
    "filtering": GUIDE + "invocation-eventfiltering.html",
    "age": GUIDE + "services-kinesis-parameters.html",
    "mappings": "https://docs.aws.amazon.com/lambda/latest/api/API_CreateEventSourceMapping.html",
}


@dataclass
class Played:
    """What the function saw, and what was told of what was given up."""

    deliveries: list[list[str]] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)


def kinesis(number: int, *, key: str = "test", data: str = "hello", arrived_at: float = AGE) -> StreamRecord:
    event = {"kinesis": {"partitionKey": key, "data": base64.b64encode(data.encode()).decode()}}
    return StreamRecord.of(str(number), key, arrived_at, event)


def change(number: int, name: str, **attributes: Any) -> StreamRecord:
    image = {"id": {"S": f"id_value_{number}"}} | attributes
    event = {
        "eventName": name,
        "eventSource": "aws:dynamodb",
        "dynamodb": {
            "ApproximateCreationDateTime": int(AGE),
            "NewImage": image,
            "SequenceNumber": str(number),
        },
    }
    return StreamRecord.of(str(number), str(number), AGE, event)


def play(
    mapping: EventSourceMapping,
    records: list[StreamRecord],
    function: Callable[[Batch], Outcome] = lambda _: Answered(None),
    now: Callable[[Played], float] = lambda _: AGE + 5,
) -> Played:
    """Deliver everything. ``now`` says what time it is, given what has happened."""
    queue, played = ShardQueue(mapping.settings, backoff=Backoff(0, 0)), Played()
    queue.feed(records, now(played))
    while work := queue.next_work(now(played)):
        match work:
            case Batch():
                played.deliveries.append(list(work.sequence_numbers))
                queue.settle(work, function(work), now(played))
            case Discard():
                message = failure_message(mapping, "shardId-000000000000", work)
                if message is not None:
                    played.told.append(json.loads(message.body))
                queue.discarded(work)
    return played


def mapping_of(source: str, **settings: Any) -> EventSourceMapping:
    arn = TABLE_STREAM_ARN if source == "dynamodb" else CONFIGURATION["EventSourceArn"]
    return EventSourceMapping.from_configuration(CONFIGURATION | {"EventSourceArn": arn} | settings)


def to(service: str) -> dict[str, Any]:
    arn = "arn:aws:s3:::failed" if service == "s3" else f"arn:aws:{service}:us-east-1:000000000000:failed"
    return {"DestinationConfig": {"OnFailure": {"Destination": arn}}}


# ------------------------------------------------------------------ what was recorded, and ours


def batches(source: str, *, records: int, size: int, expected: list[int]) -> None:
    played = play(mapping_of(source, BatchSize=size), [kinesis(number) for number in range(records)])
    assert [len(delivery) for delivery in played.deliveries] == expected


REPORT = {"FunctionResponseTypes": ["ReportBatchItemFailures"]}
THROWN = FunctionFailed({"errorMessage": "Error raised"})


def success(source: str, response: Any) -> None:
    played = play(mapping_of(source, BatchSize=1, **REPORT), [kinesis(1)], lambda _: Answered(response))
    assert played.deliveries == [["1"]]


def failure(source: str, outcome: Outcome, *, retries: int) -> None:
    mapping = mapping_of(source, BatchSize=1, MaximumRetryAttempts=retries, **REPORT, **to("sqs"))
    played = play(mapping, [kinesis(1)], lambda _: outcome)
    assert played.deliveries == [["1"]] * (retries + 1)
    error = "Unhandled" if isinstance(outcome, FunctionFailed) else None
    told(source, played, count=retries + 1, error=error)


def told(source: str, played: Played, *, count: int, error: str | None, whole: bool = False) -> None:
    [message] = played.told
    info = "KinesisBatchInfo" if source == "kinesis" else "DDBStreamBatchInfo"
    keys = {"requestContext", "responseContext", "version", "timestamp", info}
    assert message.keys() == keys | ({"payload"} if whole else set())
    assert message["version"] == "1.0"
    assert message["requestContext"].keys() == {
        "requestId", "functionArn", "condition", "approximateInvokeCount",
    }  # fmt: skip
    assert message["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert message["requestContext"]["approximateInvokeCount"] == count
    assert message["responseContext"] == {
        "statusCode": 200,
        "executedVersion": "$LATEST",
        "functionError": error,
    }
    assert message[info].keys() == {
        "shardId", "startSequenceNumber", "endSequenceNumber", "approximateArrivalOfFirstRecord",
        "approximateArrivalOfLastRecord", "batchSize", "streamArn",
    }  # fmt: skip
    assert message[info]["batchSize"] == 1
    assert message[info]["approximateArrivalOfFirstRecord"].endswith(
        "000Z" if source == "kinesis" else ":40Z"
    )


def destination(source: str, service: str) -> None:
    mapping = mapping_of(source, BatchSize=1, MaximumRetryAttempts=1, **to(service))
    played = play(mapping, [kinesis(1)], lambda _: THROWN)
    told(source, played, count=2, error="Unhandled", whole=service == "s3")
    if service == "s3":
        assert len(json.loads(played.told[0]["payload"])["Records"]) == 1


def partial(source: str) -> None:
    """Six records, three a batch, and the last of them is reported for ever."""
    mapping = mapping_of(source, BatchSize=3, MaximumRetryAttempts=3, **REPORT, **to("sqs"))

    def function(batch: Batch) -> Outcome:
        failures = [{"itemIdentifier": number} for number in batch.sequence_numbers if number == "5"]
        return Answered({"batchItemFailures": failures})

    played = play(mapping, [kinesis(number) for number in range(6)], function)
    assert played.deliveries == [["0", "1", "2"], ["3", "4", "5"], *[["5"]] * 4]
    told(source, played, count=4, error=None)


def too_old(*, failures: int) -> None:
    """A record that is a minute old after so many failures (none: it never was delivered)."""
    mapping = mapping_of("kinesis", BatchSize=1, MaximumRecordAgeInSeconds=60, **to("sqs"))
    played = play(
        mapping,
        [kinesis(1)],
        lambda _: THROWN,
        lambda played: AGE + (61 if len(played.deliveries) >= failures else 1),
    )
    assert len(played.deliveries) == failures
    [message] = played.told
    assert message.keys() == {"requestContext", "version", "timestamp", "KinesisBatchInfo"}
    assert message["requestContext"]["condition"] == "RecordAgeExceeded"
    assert message["requestContext"]["approximateInvokeCount"] == max(1, failures)


def old_and_young() -> None:
    mapping = mapping_of("kinesis", BatchSize=10, MaximumRecordAgeInSeconds=60, **to("sqs"))
    young = [kinesis(number, arrived_at=AGE) for number in range(1, 6)]
    played = play(mapping, [kinesis(0, arrived_at=AGE - 61), *young])
    assert played.deliveries == [["1", "2", "3", "4", "5"]]
    [message] = played.told
    assert message["KinesisBatchInfo"]["batchSize"] == 1
    assert message["requestContext"]["approximateInvokeCount"] == 1


def filtered(pattern: Any, expected: list[str], *records: StreamRecord, source: str = "dynamodb") -> None:
    criteria = {"Filters": [{"Pattern": json.dumps(pattern)}]}
    played = play(mapping_of(source, BatchSize=1, FilterCriteria=criteria), list(records))
    assert played.deliveries == [[number] for number in expected]


def image(**pattern: Any) -> Any:
    return {"dynamodb": {"NewImage": pattern}}


def refused_pattern(text: str) -> None:
    with pytest.raises(InvalidPatternError):
        Filters.from_criteria({"Filters": [{"Pattern": text}]}, "dynamodb")


def refused_twice(source: str) -> None:
    arn = TABLE_STREAM_ARN if source == "dynamodb" else CONFIGURATION["EventSourceArn"]
    mapping = {"EventSourceArn": arn, "FunctionName": "f", "StartingPosition": "TRIM_HORIZON"}
    with pytest.raises(InvalidMappingError, match="mapped twice"):
        StreamPoller(world(lambda _: None).clients, mappings=[mapping, mapping])


def polled(*configurations: dict[str, Any]) -> list[str]:
    """The functions that get the one record of a stream."""
    given, seen = world(lambda event: event), []
    given.functions.configurations = [CONFIGURATION | {"State": "Enabled"} | each for each in configurations]
    given.kinesis.put("hello")
    quick: dict[str, Any] = {"poll_seconds": 0.001, "refresh_seconds": 0.01}
    with StreamPoller(given.clients, **quick) as poller:
        if any(each.get("State") != "Disabled" for each in configurations):
            assert poller.wait_until_drained(10)
        else:
            assert poller.wait_for(lambda: given.functions.asked > 2, 10)
        [seen] = [[request["FunctionName"] for request in given.functions.invoked]]
    return seen


def two_functions() -> None:
    names = ("a", "b")
    found = polled(
        *(
            {"UUID": name, "FunctionArn": f"arn:aws:lambda:us-east-1:000000000000:function:{name}"}
            for name in names
        )
    )
    assert sorted(found) == ["a", "b"]


def deleted() -> None:
    given = world(lambda _: None)
    with StreamPoller(given.clients, poll_seconds=0.001, refresh_seconds=0.01) as poller:
        assert poller.wait_until_drained(10)
        given.functions.configurations.clear()
        assert poller.wait_for(lambda: poller.mappings == [], 10)


def last_result() -> None:
    given = world(lambda _: {})
    given.kinesis.put("hello")
    with StreamPoller(given.clients, poll_seconds=0.001, refresh_seconds=0.01) as poller:
        assert poller.wait_until_drained(10)
        assert [status["LastProcessingResult"] for status in poller.status()] == ["OK"]


def waits_for_the_stream() -> None:
    given = world(lambda _: None)
    given.kinesis.deleted = True
    with StreamPoller(given.clients, poll_seconds=0.001, refresh_seconds=0.01) as poller:
        assert poller.wait_for(lambda: given.functions.asked > 2, 10)
        assert not poller.drained()


@dataclass(frozen=True)
class Row:
    """One scenario."""

    source: str
    scenario: str
    rule: str
    documented: str | None
    """A key of DOCUMENTED; ``None``: AWS's pages do not say, the recording does."""
    check: Callable[[], None]
    differs: str = ""
    """Why ours does something else, on purpose."""


INSERT, MODIFY = change(1, "INSERT"), change(2, "MODIFY")
ONE, OTHER = change(1, "INSERT", presentKey={"S": "presentValue"}), change(2, "INSERT", other={"S": "x"})
NO_STREAM = "it waits until the stream is there: what makes the stream may come after the poller"
RESPONSES = {
    "empty_list_success": [],
    "null_success": None,
    "empty_dict_success": {},
    "empty_batch_item_failure_success": {"batchItemFailures": []},
    "null_batch_item_failure_success": {"batchItemFailures": None},
}
FAILURES: dict[str, Outcome] = {
    "empty_string_item_identifier_failure": Answered({"batchItemFailures": [{"itemIdentifier": ""}]}),
    "null_item_identifier_failure": Answered({"batchItemFailures": [{"itemIdentifier": None}]}),
    "invalid_key_foo_failure": Answered({"batchItemFailures": [{"foo": "1"}]}),
    "invalid_key_foo_null_value_failure": Answered({"batchItemFailures": [{"foo": None}]}),
    "unhandled_exception_in_function": THROWN,
    "item_identifier_not_present_failure": Answered({"batchItemFailures": [{"itemIdentifier": "no-such"}]}),
}

KINESIS = [
    ("test_create_kinesis_event_source_mapping", "ten records of ten keys come in one event", "batching",
     lambda: batches("kinesis", records=10, size=100, expected=[10])),
    ("test_kinesis_event_source_mapping_with_async_invocation", "a batch is full at BatchSize", "batching",
     lambda: batches("kinesis", records=20, size=10, expected=[10, 10])),
    ("test_kinesis_event_source_trim_horizon", "TRIM_HORIZON begins with the oldest record", "batching",
     lambda: batches("kinesis", records=30, size=10, expected=[10, 10, 10])),
    ("test_disable_kinesis_event_source_mapping", "a Disabled mapping is not polled", "mappings",
     lambda: _equal(polled({"State": "Disabled"}), [])),
    ("test_create_kinesis_event_source_mapping_multiple_lambdas_single_kinesis_event_stream",
     "two functions on a stream: each gets every record", "mappings", two_functions),
    ("test_kinesis_event_filtering_json_pattern", "a filter looks at the JSON in the data", "filtering",
     lambda: filtered({"data": {"event_type": ["function_1"]}}, ["1"],
                      kinesis(1, data='{"event_type": "function_1", "message": "foo"}'),
                      kinesis(2, data='{"event_type": "function_2", "message": "bar"}'), source="kinesis")),
    ("test_kinesis_report_batch_item_failures",
     "after a partial success the count of retries and of invocations starts anew", None, lambda: partial("kinesis")),
    ("test_kinesis_empty_provided", "LastProcessingResult is OK after a success", "mappings", last_result),
    ("test_kinesis_maximum_record_age_exceeded[expire-while-retrying]",
     "a record that became too old: RecordAgeExceeded, its count, no responseContext", None,
     lambda: too_old(failures=8)),
    ("test_kinesis_maximum_record_age_exceeded[expire-before-ingestion]",
     "a record that is too old before any delivery: a count of 1", None, lambda: too_old(failures=0)),
    ("test_kinesis_maximum_record_age_exceeded_discard_records",
     "only the record that is too old is given up, and those behind it are delivered", "age", old_and_young),
]  # fmt: skip
DYNAMODB = [
    ("test_dynamodb_event_source_mapping", "a change comes as an event", "batching",
     lambda: batches("dynamodb", records=1, size=1, expected=[1])),
    ("test_disabled_dynamodb_event_source_mapping", "a Disabled mapping is not polled", "mappings",
     lambda: _equal(polled({"State": "Disabled"}), [])),
    ("test_deletion_event_source_mapping_with_dynamodb", "a deleted mapping is not polled", "mappings", deleted),
    ("test_dynamodb_invalid_event_filter[single-string]", "a pattern that is no object is refused", "filtering",
     lambda: refused_pattern('"single-string"')),
    ('test_dynamodb_invalid_event_filter[[{"eventName": ["INSERT"=123}]]', "a pattern that is not JSON is refused",
     "filtering", lambda: refused_pattern('[{"eventName": ["INSERT"=123}]')),
    ("test_dynamodb_event_filter[insert_same_entry_twice]", "a value", "filtering",
     lambda: filtered({"eventName": ["INSERT"]}, ["1"], INSERT, MODIFY)),
    ("test_dynamodb_event_filter[content_or_filter]", "one of two values", "filtering",
     lambda: filtered({"eventName": ["INSERT", "MODIFY"]}, ["1", "2"], INSERT, MODIFY)),
    ("test_dynamodb_event_filter[content_multiple_filters]", "two fields, both have to match", "filtering",
     lambda: filtered({"eventName": ["INSERT"], "eventSource": ["aws:dynamodb"]}, ["1"], INSERT, MODIFY)),
    ("test_dynamodb_event_filter[content_filter_type]", "a value of the new image", "filtering",
     lambda: filtered(image(presentKey={"S": ["presentValue"]}), ["1"], ONE, OTHER)),
    ("test_dynamodb_event_filter[exists_filter_type]", "a leaf that is there", "filtering",
     lambda: filtered(image(presentKey={"S": [{"exists": True}]}), ["1"], ONE, OTHER)),
    ("test_dynamodb_event_filter[exists_false_filter]", "an object is no leaf, so it counts as absent", "filtering",
     lambda: filtered(image(presentKey=[{"exists": False}]), ["1", "2"], ONE, OTHER)),
    ("test_dynamodb_event_filter[numeric_filter]", "a number is a text in DynamoDB: numeric matches none", "filtering",
     lambda: filtered(image(numericFilter={"N": [{"numeric": [">", 100]}, {"anything-but": "101"}]}), ["1"],
                      change(1, "INSERT", numericFilter={"N": "42"}), change(2, "INSERT", numericFilter={"N": "101"}))),
    ("test_dynamodb_event_filter[prefix_filter]", "a prefix", "filtering",
     lambda: filtered(image(prefix={"S": [{"prefix": "us-1"}]}), ["1"],
                      change(1, "INSERT", prefix={"S": "us-1-other-suffix"}),
                      change(2, "INSERT", prefix={"S": "other-suffix"}))),
    ("test_dynamodb_event_filter[date_time_conversion]", "the time of a change is a number", None,
     lambda: filtered({"dynamodb": {"ApproximateCreationDateTime": [{"numeric": [">", 0]}]}}, ["1", "2"],
                      INSERT, MODIFY)),
    ("test_dynamodb_report_batch_item_failures",
     "after a partial success the count of retries and of invocations starts anew", None, lambda: partial("dynamodb")),
    ("test_dynamodb_report_batch_item_failures_with_on_failure_destination_config",
     "the invocation record says functionError: null after a partial failure", None, lambda: partial("dynamodb")),
]  # fmt: skip


def _equal(found: object, expected: object) -> None:
    assert found == expected


def rows() -> list[Row]:
    made = [Row("kinesis", *each) for each in KINESIS] + [Row("dynamodb", *each) for each in DYNAMODB]
    for source, short in (("kinesis", "kinesis"), ("dynamodb", "dynamodb")):
        for name, response in (
            RESPONSES | ({"empty_string_success": ""} if source == "kinesis" else {})
        ).items():
            made.append(
                Row(
                    source,
                    f"test_{short}_report_batch_item_success_scenarios[{name}]",
                    f"the response `{json.dumps(response)}` is a success",
                    None if response == [] else "responses",
                    lambda source=source, response=response: success(source, response),  # type: ignore[misc]
                )
            )
        for name, outcome in FAILURES.items():
            response = (
                "an exception" if outcome is THROWN else f"the response `{json.dumps(outcome.response)}`"
            )  # type: ignore[union-attr]
            made.append(
                Row(
                    source,
                    f"test_{short}_report_batch_item_failure_scenarios[{name}]",
                    f"{response} is a failure of the whole batch",
                    "responses",
                    lambda source=source, outcome=outcome: failure(  # type: ignore[misc]
                        source, outcome, retries=2 if source == "kinesis" else 3
                    ),
                )
            )
        for service, suffix in (("sqs", "_config"), ("sns", "_config"), ("s3", "")):
            infix = {"sqs": "", "sns": "sns_", "s3": "s3_"}[service]
            made.append(
                Row(
                    source,
                    f"test_{short}_event_source_mapping_with_{infix}on_failure_destination{suffix}",
                    f"what the invocation record at {service.upper()} holds",
                    "destination",
                    lambda source=source, service=service: destination(source, service),  # type: ignore[misc]
                )
            )
        made.append(
            Row(
                source,
                "test_duplicate_event_source_mappings",
                "a second mapping of a function to a stream is refused",
                "mappings",
                lambda source=source: refused_twice(source),  # type: ignore[misc]
            )
        )
        made.append(
            Row(
                source,
                f"test_esm_with_not_existing_{short}_stream",
                "a mapping of a stream that does not exist is refused",
                "mappings",
                waits_for_the_stream,
                differs=NO_STREAM,
            )
        )
    return sorted(made, key=lambda row: (row.source, row.scenario), reverse=False)


ROWS = rows()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.source}-{row.scenario}")
def test_ours_comes_to_what_was_recorded_on_aws(row: Row) -> None:
    row.check()


def test_every_recorded_scenario_is_a_row() -> None:
    """28 of Kinesis and 32 of DynamoDB, each once."""
    count = {
        source: len({row.scenario for row in ROWS if row.source == source})
        for source in ("kinesis", "dynamodb")
    }

    assert count == {"kinesis": 28, "dynamodb": 32}
    assert len(ROWS) == 60


def test_the_page_shows_the_rows() -> None:
    assert PAGE.read_text() == page(), "write it anew: python -m tests.unit.test_stream_conformance"


def page() -> str:
    same = sum(not row.differs for row in ROWS)
    lines = [
        "# Recorded on AWS, and here",
        "",
        f"LocalStack's tests recorded {len(ROWS)} scenarios of event source mappings on AWS, from September 2024 to",
        "November 2025 (localstack/localstack at 8b9a79f, Apache-2.0,",
        f"`tests/aws/services/lambda_/event_source_mapping`). Ours does the same in {same} of them. The other",
        f"{len(ROWS) - same} say why not. `tests/unit/test_stream_conformance.py` plays each one at every change.",
        "",
        "| recorded | rule | AWS's pages say so | ours |",
        "|---|---|---|---|",
    ]
    for row in ROWS:
        page_name = (
            DOCUMENTED[row.documented].rpartition("/")[2].removesuffix(".html") if row.documented else ""
        )
        documented = f"[{page_name}]({DOCUMENTED[row.documented]})" if row.documented else "no"
        ours = f"differs: {row.differs}" if row.differs else "the same"
        scenario = row.scenario.replace("|", "\\|")
        lines.append(f"| {row.source}: `{scenario}` | {row.rule} | {documented} | {ours} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
