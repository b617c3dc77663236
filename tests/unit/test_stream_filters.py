"""FilterCriteria, held against records of both kinds of stream."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from lambda_esm.filters import Filters, InvalidPatternError


def filters(*patterns: object, service: str = "dynamodb") -> Filters:
    texts = [pattern if isinstance(pattern, str) else json.dumps(pattern) for pattern in patterns]
    return Filters.from_criteria({"Filters": [{"Pattern": text} for text in texts]}, service)


def kinesis(data: bytes | object) -> dict[str, Any]:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return {
        "eventName": "aws:kinesis:record",
        "kinesis": {"partitionKey": "p", "data": base64.b64encode(raw).decode()},
    }


INSERT = {
    "eventName": "INSERT",
    "dynamodb": {
        "Keys": {"id": {"S": "upload#1"}},
        "NewImage": {"id": {"S": "upload#1"}, "size": {"N": "101"}, "tags": {"SS": ["a", "b"]}},
    },
}
DATA = {"type": "buy", "price": 20, "ratio": 3.0, "open": True, "note": None, "name": "", "tags": ["x", "y"],
        "lines": [{"sku": "1"}, {"sku": "2"}], "place": {"city": "Kyiv"}}  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "accepted"),
    [
        ({"eventName": ["INSERT"]}, True),
        ({"eventName": ["MODIFY", "REMOVE"]}, False),
        ({"eventName": ["MODIFY", "INSERT"]}, True),
        ({"eventName": ["insert"]}, False),
        ({"dynamodb": {"Keys": {"id": {"S": [{"prefix": "upload#"}]}}}}, True),
        ({"dynamodb": {"Keys": {"id": {"S": [{"prefix": "chunk#"}]}}}}, False),
        ({"dynamodb": {"NewImage": {"size": {"N": ["101"]}}}}, True),
        ({"dynamodb": {"NewImage": {"size": {"N": [101]}}}}, False),
        ({"dynamodb": {"NewImage": {"size": {"N": [{"numeric": [">", 1]}]}}}}, False),
        ({"dynamodb": {"NewImage": {"tags": {"SS": ["b"]}}}}, True),
        ({"dynamodb": {"NewImage": {"state": {"S": [{"exists": False}]}}}}, True),
        ({"dynamodb": {"OldImage": {"id": {"S": [{"exists": True}]}}}}, False),
        ({"eventName": ["INSERT"], "dynamodb": {"Keys": {"id": {"S": ["other"]}}}}, False),
    ],
)
def test_a_pattern_is_held_against_a_dynamodb_record(pattern: object, accepted: bool) -> None:
    assert filters(pattern).accept(INSERT) is accepted


@pytest.mark.parametrize(
    ("rule", "accepted"),
    [
        ({"type": ["buy"]}, True),
        ({"type": ["sell"]}, False),
        ({"type": [{"anything-but": ["sell"]}]}, True),
        ({"type": [{"anything-but": ["sell", "buy"]}]}, False),
        ({"type": [{"anything-but": "buy"}]}, False),
        ({"absent": [{"anything-but": ["buy"]}]}, False),
        ({"type": [{"prefix": "b"}]}, True),
        ({"type": [{"suffix": "uy"}]}, True),
        ({"type": [{"equals-ignore-case": "BUY"}]}, True),
        ({"price": [{"prefix": "2"}]}, False),
        ({"price": [20]}, True),
        ({"price": ["20"]}, False),
        ({"ratio": [3.0]}, True),
        ({"ratio": [3]}, False),
        ({"open": [True]}, True),
        ({"open": [1]}, False),
        ({"note": [None]}, True),
        ({"note": [{"exists": True}]}, True),
        ({"name": [""]}, True),
        ({"absent": [None]}, False),
        ({"absent": [{"exists": False}]}, True),
        ({"type": [{"exists": False}]}, False),
        ({"place": [{"exists": True}]}, False),
        ({"place": {"city": [{"exists": True}]}}, True),
        ({"price": [{"numeric": ["=", 20]}]}, True),
        ({"price": [{"numeric": [">", 10, "<=", 20]}]}, True),
        ({"price": [{"numeric": [">", 10, "<", 20]}]}, False),
        ({"ratio": [{"numeric": ["=", 3]}]}, True),
        ({"type": [{"numeric": [">", 0]}]}, False),
        ({"tags": ["y"]}, True),
        ({"lines": {"sku": ["2"]}}, True),
        ({"lines": {"sku": ["3"]}}, False),
        ({"$or": [{"type": ["sell"]}, {"price": [20]}]}, True),
        ({"$or": [{"type": ["sell"]}, {"price": [21]}]}, False),
        ({"type": ["buy"], "price": [21]}, False),
    ],
)
def test_an_operator_is_held_against_the_data_of_a_kinesis_record(rule: object, accepted: bool) -> None:
    assert filters({"data": rule}).accept(kinesis(DATA)) is accepted


@pytest.mark.parametrize("data", [b"plain text", b"\xff\xfe", b"", b"[" * 100_000])
@pytest.mark.parametrize("rule", [{"type": ["buy"]}, {"type": [{"exists": False}]}])
def test_data_that_is_not_json_passes_no_filter_about_data(data: bytes, rule: object) -> None:
    assert filters({"data": rule}).accept(kinesis(data)) is False


@pytest.mark.parametrize(
    "pattern",
    [
        {"partitionKey": ["p"]},
        {"kinesis": {"partitionKey": ["p"]}},
        {"$or": [{"data": {"type": ["buy"]}}, {"partitionKey": ["p"]}]},
    ],
)
def test_a_filter_of_kinesis_looks_at_the_data_alone(pattern: object) -> None:
    with pytest.raises(InvalidPatternError, match='"data" only'):
        filters(pattern, service="kinesis")


def test_ten_filters_are_taken_and_not_eleven() -> None:
    assert filters(*[{"a": ["x"]}] * 10).patterns
    with pytest.raises(InvalidPatternError, match="11 filters: Lambda takes 5, and 10"):
        filters(*[{"a": ["x"]}] * 11)


def test_one_matching_filter_of_several_is_enough() -> None:
    assert filters({"eventName": ["REMOVE"]}, {"eventName": ["INSERT"]}).accept(INSERT) is True


@pytest.mark.parametrize("criteria", [None, {}, {"Filters": []}, {"Filters": None}])
def test_without_filters_everything_passes(criteria: dict[str, Any] | None) -> None:
    assert Filters.from_criteria(criteria).accept(INSERT) is True


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("not json", "is not JSON"),
        ("[]", "is not a JSON object"),
        ({"a": "value"}, "expected an object"),
        ({"a": [["nested"]]}, "cannot be a list"),
        ({"a": [{"prefix": "x", "suffix": "y"}]}, "exactly one operator"),
        ({"a": [{"wildcard": "*"}]}, "unknown operator 'wildcard'"),
        ({"a": [{"prefix": 1}]}, "prefix takes a string"),
        ({"a": [{"exists": "yes"}]}, "exists takes true or false"),
        ({"a": [{"numeric": [">"]}]}, "one or two comparisons"),
        ({"a": [{"numeric": ["~", 1]}]}, "a sign"),
        ({"a": [{"numeric": [">", "1"]}]}, "a number"),
        ({"a": [{"anything-but": {"prefix": "x"}}]}, "anything-but takes values"),
        ({"$or": [{"a": ["x"]}]}, "two or more"),
        ({"$or": [{"a": ["x"]}, {"a": [{"wildcard": "*"}]}]}, "unknown operator"),
    ],
)
def test_a_pattern_that_lambda_would_refuse_is_refused(pattern: object, complaint: str) -> None:
    with pytest.raises(InvalidPatternError, match=complaint):
        filters(pattern)


def test_a_filter_without_a_pattern_is_refused() -> None:
    with pytest.raises(InvalidPatternError, match="not JSON"):
        Filters.from_criteria({"Filters": [{}]})
