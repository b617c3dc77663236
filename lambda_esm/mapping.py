"""An event source mapping and its settings, read from what the Lambda API says about it.

Sources for names, defaults and ranges:
docs.aws.amazon.com/lambda/latest/api/API_EventSourceMappingConfiguration.html,
lambda/latest/dg/services-kinesis-parameters.html, lambda/latest/dg/services-ddb-params.html; "values less than 60 and
greater than -1 ... are not allowed" for the age: lambda/latest/api/API_CreateEventSourceMapping.html.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lambda_esm.filters import Filters

TRIM_HORIZON = "TRIM_HORIZON"
LATEST = "LATEST"
SHARD_END = "SHARD_END"
AT_TIMESTAMP = "AT_TIMESTAMP"
"""A position in a shard is a string: one of these (the last with ``:<epoch seconds>``), or the sequence
number of the last record that is done. The names are those of the Kinesis Client Library's sentinels."""

STREAM_SERVICES = ("kinesis", "dynamodb")


class InvalidMappingError(ValueError):
    """A mapping that Lambda would refuse or that this poller does not do. Says which setting, and why."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """The wait before a retry: doubled with each failure in a row, up to a bound.

    AWS documents that Lambda backs off exponentially and not by how much. The default suits a laptop:
    short, so that nobody waits for a demonstration of a failure.
    """

    first_seconds: float = 0.1
    maximum_seconds: float = 2.0

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        if failures <= 0:
            return 0.0
        return min(self.maximum_seconds, self.first_seconds * 2.0 ** min(failures - 1, 32))


@dataclass(frozen=True, slots=True)
class MappingSettings:
    """What may be changed while a mapping runs. Each field is the API's setting of that name; ``None``
    means no limit."""

    batch_size: int = 100
    batching_window_seconds: float = 0
    parallelization_factor: int = 1
    report_batch_item_failures: bool = False
    bisect_batch_on_function_error: bool = False
    maximum_retry_attempts: int | None = None
    maximum_record_age_seconds: float | None = None
    on_failure_destination: str | None = None
    tumbling_window_seconds: int = 0
    """Zero: no windows."""
    filters: Filters = field(default_factory=Filters)

    @classmethod
    def from_configuration(
        cls, configuration: Mapping[str, Any], service: str = "kinesis"
    ) -> MappingSettings:
        """Read the API's answer. Numbers may be strings, as CloudFormation parameters are: emulators keep
        them.

        Raises
        ------
        InvalidMappingError, InvalidPatternError
            A setting is out of Lambda's range, or not supported here.
        """

        def number(name: str, default: int, low: int, high: int) -> int:
            value = configuration.get(name)
            try:
                result = default if value is None else int(value)
            except (TypeError, ValueError):
                raise InvalidMappingError(f"{name} is not a whole number: {value!r}") from None
            if not low <= result <= high:
                raise InvalidMappingError(f"{name} is {result}, not between {low} and {high}")
            return result

        window = number("TumblingWindowInSeconds", 0, 0, 900)
        lanes = number("ParallelizationFactor", 1, 1, 10)
        if window and lanes > 1:
            raise InvalidMappingError(
                f"TumblingWindowInSeconds with ParallelizationFactor {lanes}: a shard has one state, and AWS does not "
                "say how it is divided. Set ParallelizationFactor to 1"
            )
        on_failure = (configuration.get("DestinationConfig") or {}).get("OnFailure") or {}
        destination = on_failure.get("Destination") or None
        if destination and destination.startswith("kafka://"):
            raise InvalidMappingError(
                f"on-failure destination {destination}: lambda-esm cannot write to a Kafka topic. Name an S3 bucket, "
                "an SQS queue or an SNS topic by its ARN"
            )
        if destination and destination.split(":")[2:3] not in (["s3"], ["sqs"], ["sns"]):
            raise InvalidMappingError(
                f"on-failure destination {destination}: name an S3 bucket, an SQS queue or an SNS topic by its ARN"
            )
        response_types = configuration.get("FunctionResponseTypes") or ()
        retries = number("MaximumRetryAttempts", -1, -1, 10_000)
        age = number("MaximumRecordAgeInSeconds", -1, -1, 604_800)
        if 0 <= age < 60:
            raise InvalidMappingError(
                f"MaximumRecordAgeInSeconds is {age}: Lambda takes -1 (no limit), or 60 and more"
            )
        return cls(
            batch_size=number("BatchSize", 100, 1, 10_000),
            batching_window_seconds=number("MaximumBatchingWindowInSeconds", 0, 0, 300),
            parallelization_factor=lanes,
            report_batch_item_failures="ReportBatchItemFailures" in response_types,
            bisect_batch_on_function_error=_boolean(configuration.get("BisectBatchOnFunctionError")),
            maximum_retry_attempts=None if retries < 0 else retries,
            maximum_record_age_seconds=None if age < 0 else age,
            on_failure_destination=destination,
            tumbling_window_seconds=window,
            filters=Filters.from_criteria(configuration.get("FilterCriteria"), service),
        )


@dataclass(frozen=True, slots=True)
class EventSourceMapping:
    """One mapping: which stream, which function, from where, how."""

    uuid: str
    source_arn: str
    function_name: str
    """The bare name, whatever form the API gave."""
    qualifier: str | None
    function_arn: str
    starting_position: str
    settings: MappingSettings

    @property
    def service(self) -> str:
        """``kinesis`` or ``dynamodb``."""
        return self.source_arn.split(":")[2]

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> EventSourceMapping:
        """Read an answer of the Lambda API, or the same written by hand (``FunctionName`` will do for the
        ARN, and ``UUID`` may be left out: the same function and stream then get the same one every time).

        Raises
        ------
        InvalidMappingError, InvalidPatternError
            Something that it takes is missing, or wrong, or not supported here.
        """
        source = configuration.get("EventSourceArn") or ""
        function = configuration.get("FunctionArn") or configuration.get("FunctionName") or ""
        if not is_stream(source):
            raise InvalidMappingError(
                f"EventSourceArn is not the ARN of a Kinesis or DynamoDB stream: {source!r}"
            )
        if not function:
            raise InvalidMappingError("FunctionArn or FunctionName is missing")
        name, qualifier = split_function(function)
        arn = function
        if not arn.startswith("arn:"):
            _, partition, _, region, account, _ = source.split(":", 5)
            arn = f"arn:{partition}:lambda:{region}:{account}:function:{function}"
        return cls(
            uuid=configuration.get("UUID") or str(uuid.uuid5(uuid.NAMESPACE_URL, f"{source} {function}")),
            source_arn=source,
            function_name=name,
            qualifier=qualifier,
            function_arn=arn,
            starting_position=_starting_position(configuration, source),
            settings=MappingSettings.from_configuration(configuration, source.split(":")[2]),
        )


def is_stream(arn: str) -> bool:
    """Whether an event source is a stream, which this poller is for (a queue, say, is not)."""
    parts = arn.split(":", 5)
    return len(parts) == 6 and parts[0] == "arn" and parts[2] in STREAM_SERVICES


def split_function(function: str) -> tuple[str, str | None]:
    """(name, qualifier or None) of ``name``, ``name:qualifier``, ``account:function:name`` or an ARN of
    them."""
    _, marker, rest = function.rpartition("function:")
    name, _, qualifier = (rest if marker else function).partition(":")
    return name, qualifier or None


def _starting_position(configuration: Mapping[str, Any], source: str) -> str:
    position = configuration.get("StartingPosition")
    if position in (TRIM_HORIZON, LATEST):
        return str(position)
    if position != AT_TIMESTAMP or ":dynamodb:" in source:  # DynamoDB streams cannot be entered by time
        known = f"{TRIM_HORIZON}, {LATEST} or {AT_TIMESTAMP}"
        raise InvalidMappingError(f"StartingPosition is not {known}: {position!r}")
    timestamp = configuration.get("StartingPositionTimestamp")
    if isinstance(timestamp, datetime):
        timestamp = timestamp.timestamp()
    if not isinstance(timestamp, int | float):
        raise InvalidMappingError("AT_TIMESTAMP needs StartingPositionTimestamp, in epoch seconds")
    return f"{AT_TIMESTAMP}:{timestamp}"


def _boolean(value: Any) -> bool:
    return value.lower() == "true" if isinstance(value, str) else bool(value)
