"""Settings as the Lambda API gives them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from lambda_esm.filters import InvalidPatternError
from lambda_esm.mapping import (
    Backoff,
    EventSourceMapping,
    InvalidMappingError,
    MappingSettings,
    split_function,
)
from tests.unit.stream_records import CONFIGURATION, TABLE_STREAM_ARN, mapping


def test_the_defaults_are_lambdas() -> None:
    assert mapping().settings == MappingSettings(
        batch_size=100,
        batching_window_seconds=0,
        parallelization_factor=1,
        report_batch_item_failures=False,
        bisect_batch_on_function_error=False,
        maximum_retry_attempts=None,
        maximum_record_age_seconds=None,
        on_failure_destination=None,
    )


def test_every_setting_is_read() -> None:
    settings = mapping(
        BatchSize=1000,
        MaximumBatchingWindowInSeconds=5,
        ParallelizationFactor=10,
        FunctionResponseTypes=["ReportBatchItemFailures"],
        BisectBatchOnFunctionError=True,
        MaximumRetryAttempts=0,
        MaximumRecordAgeInSeconds=60,
        DestinationConfig={"OnFailure": {"Destination": "arn:aws:s3:::discarded"}},
        FilterCriteria={"Filters": [{"Pattern": '{"data": {"type": ["buy"]}}'}]},
    ).settings

    assert settings.batch_size == 1000
    assert settings.batching_window_seconds == 5
    assert settings.parallelization_factor == 10
    assert settings.report_batch_item_failures
    assert settings.bisect_batch_on_function_error
    assert settings.maximum_retry_attempts == 0
    assert settings.maximum_record_age_seconds == 60
    assert settings.on_failure_destination == "arn:aws:s3:::discarded"
    assert settings.filters.patterns == ('{"data": {"type": ["buy"]}}',)
    assert mapping(TumblingWindowInSeconds=30).settings.tumbling_window_seconds == 30


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"MaximumRetryAttempts": -1}, "maximum_retry_attempts", None),
        ({"MaximumRecordAgeInSeconds": -1}, "maximum_record_age_seconds", None),
        ({"DestinationConfig": {}}, "on_failure_destination", None),
        ({"DestinationConfig": {"OnFailure": {"Destination": ""}}}, "on_failure_destination", None),
        ({"BatchSize": "250"}, "batch_size", 250),
        ({"BisectBatchOnFunctionError": "false"}, "bisect_batch_on_function_error", False),
        ({"BisectBatchOnFunctionError": "true"}, "bisect_batch_on_function_error", True),
        ({"BisectBatchOnFunctionError": None}, "bisect_batch_on_function_error", False),
        ({"FunctionResponseTypes": None}, "report_batch_item_failures", False),
    ],
)
def test_a_setting_may_be_infinite_absent_or_text(given: dict[str, Any], field: str, value: object) -> None:
    assert getattr(mapping(**given).settings, field) == value


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"BatchSize": 0}, "BatchSize is 0, not between 1 and 10000"),
        ({"BatchSize": "many"}, "BatchSize is not a whole number: 'many'"),
        ({"ParallelizationFactor": 11}, "ParallelizationFactor is 11"),
        ({"MaximumRetryAttempts": -2}, "MaximumRetryAttempts is -2"),
        ({"TumblingWindowInSeconds": 901}, "TumblingWindowInSeconds is 901"),
        ({"TumblingWindowInSeconds": 30, "ParallelizationFactor": 2}, "Set ParallelizationFactor to 1"),
        ({"MaximumRecordAgeInSeconds": 59}, "-1 .no limit., or 60 and more"),
        (
            {"DestinationConfig": {"OnFailure": {"Destination": "kafka://topic"}}},
            "cannot write to a Kafka topic",
        ),
        ({"DestinationConfig": {"OnFailure": {"Destination": "queue"}}}, "by its ARN"),
        ({"StartingPosition": None}, "StartingPosition is not"),
        ({"StartingPosition": "AT_TIMESTAMP"}, "StartingPositionTimestamp"),
        (
            {
                "StartingPosition": "AT_TIMESTAMP",
                "StartingPositionTimestamp": 1,
                "EventSourceArn": TABLE_STREAM_ARN,
            },
            "StartingPosition is not",
        ),
        ({"EventSourceArn": "arn:aws:sqs:us-east-1:000000000000:jobs"}, "EventSourceArn"),
        ({"EventSourceArn": None}, "EventSourceArn"),
        ({"FunctionArn": None}, "FunctionArn or FunctionName is missing"),
    ],
)
def test_a_mapping_that_cannot_be_run_is_refused(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidMappingError, match=complaint):
        mapping(**given)


def test_a_mapping_with_a_wrong_filter_is_refused() -> None:
    with pytest.raises(InvalidPatternError):
        mapping(FilterCriteria={"Filters": [{"Pattern": "{"}]})


@pytest.mark.parametrize("moment", [1_700_000_000.5, datetime.fromtimestamp(1_700_000_000.5, UTC)])
def test_a_starting_time_is_kept_in_epoch_seconds(moment: object) -> None:
    given = mapping(StartingPosition="AT_TIMESTAMP", StartingPositionTimestamp=moment)

    assert given.starting_position == "AT_TIMESTAMP:1700000000.5"


def test_a_mapping_written_by_hand_needs_no_arn_of_its_function_and_no_uuid() -> None:
    written = {"EventSourceArn": TABLE_STREAM_ARN, "FunctionName": "plan", "StartingPosition": "LATEST"}
    one, same = EventSourceMapping.from_configuration(written), EventSourceMapping.from_configuration(written)

    assert one.function_name == "plan"
    assert one.function_arn == "arn:aws:lambda:us-east-1:000000000000:function:plan"
    assert one.service == "dynamodb"
    assert one.uuid == same.uuid
    assert one.uuid != EventSourceMapping.from_configuration(written | {"FunctionName": "other"}).uuid


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("consumer", ("consumer", None)),
        ("consumer:live", ("consumer", "live")),
        ("000000000000:function:consumer", ("consumer", None)),
        ("arn:aws:lambda:us-east-1:000000000000:function:consumer", ("consumer", None)),
        ("arn:aws:lambda:us-east-1:000000000000:function:consumer:7", ("consumer", "7")),
    ],
)
def test_a_function_is_named_in_any_of_lambdas_forms(function: str, expected: tuple[str, str | None]) -> None:
    assert split_function(function) == expected


def test_the_alias_of_a_function_is_kept() -> None:
    assert mapping(FunctionArn=f"{CONFIGURATION['FunctionArn']}:live").qualifier == "live"


def test_backoff_doubles_up_to_its_bound() -> None:
    backoff = Backoff(first_seconds=1, maximum_seconds=60)

    assert [backoff.delay(failures) for failures in (0, 1, 2, 3, 7, 8, 10_000)] == [0, 1, 2, 4, 60, 60, 60]
