"""FilterCriteria: which records of a stream reach the function.

Sources: docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html (the operators, the number of filters),
with-kinesis-filtering.html and with-ddb-filtering.html (what a pattern is held against: of a Kinesis record the
``data`` alone).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from operator import eq, ge, gt, le, lt
from typing import Any, Final

from lambda_esm.records import Event


class InvalidPatternError(ValueError):
    """A filter pattern that Lambda would refuse, or an operator that Lambda does not have. Says which."""


@dataclass(frozen=True, slots=True)
class _Number:
    """A JSON number as it was written: "300, 300.0, and 3.0e2 are not considered equal"."""

    text: str


type _Pattern = dict[str, Any]

MAXIMUM_FILTERS = 10
"""Five, and up to ten for an account whose quota was raised."""

_ABSENT: Final = object()
_UNREADABLE: Final = object()
"""Data that is not JSON, and whatever a pattern looks for in it. Nothing matches it, not even "does not
exist": Lambda drops a record whose data is not JSON if a pattern speaks of the data."""
_COMPARISONS: Final[dict[str, Callable[[Decimal, Decimal], bool]]] = {
    "=": eq,
    "<": lt,
    "<=": le,
    ">": gt,
    ">=": ge,
}


@dataclass(frozen=True)
class Filters:
    """The filters of one mapping. A record passes if any of them matches, or if there is none."""

    patterns: tuple[str, ...] = ()

    @classmethod
    def from_criteria(cls, criteria: Mapping[str, Any] | None, service: str = "kinesis") -> Filters:
        """Read the API's ``{"Filters": [{"Pattern": "<JSON>"}]}`` for a mapping of ``kinesis`` or ``dynamodb``.

        Raises
        ------
        InvalidPatternError
            A pattern is not JSON, has the wrong shape, uses an operator that Lambda does not have or, for Kinesis,
            looks at something else than the data. Or there are more filters than Lambda takes.
        """
        filters = cls(tuple(str(each.get("Pattern", "")) for each in (criteria or {}).get("Filters") or ()))
        if len(filters.patterns) > MAXIMUM_FILTERS:
            raise InvalidPatternError(
                f"FilterCriteria has {len(filters.patterns)} filters: Lambda takes 5, and {MAXIMUM_FILTERS} where the "
                "account's quota was raised. Join some with $or"
            )
        for pattern in filters._compiled:
            _check(pattern)
            if service == "kinesis":
                _check_data_alone(pattern)
        return filters

    @cached_property
    def _compiled(self) -> tuple[_Pattern, ...]:
        return tuple(_parse_pattern(text) for text in self.patterns)

    def accept(self, record: Event) -> bool:
        """Whether a record (an entry of ``event["Records"]``) reaches the function."""
        if not self._compiled:
            return True
        if "kinesis" in record:
            record = {"data": _decoded(record["kinesis"]["data"])}
        return any(_matches(pattern, record) for pattern in self._compiled)


def _loads(text: str | bytes) -> Any:
    return json.loads(text, parse_int=_Number, parse_float=_Number)


def _parse_pattern(text: str) -> _Pattern:
    try:
        pattern = _loads(text)
    except ValueError as error:
        raise InvalidPatternError(f"filter pattern {text!r} is not JSON: {error}") from error
    if not isinstance(pattern, dict):
        raise InvalidPatternError(f"filter pattern {text!r} is not a JSON object")
    return pattern


def _decoded(data: str) -> Any:
    try:
        return _loads(base64.b64decode(data).decode())
    except (
        ValueError,
        RecursionError,
    ):  # not JSON, not UTF-8 (UnicodeDecodeError is a ValueError), nested too deep
        return _UNREADABLE


def _matches(pattern: _Pattern, event: Any) -> bool:
    if isinstance(event, list):
        return any(_matches(pattern, element) for element in event)
    for key, expected in pattern.items():
        if key == "$or":
            if not any(_matches(alternative, event) for alternative in expected):
                return False
            continue
        missing = _UNREADABLE if event is _UNREADABLE else _ABSENT
        actual = event.get(key, missing) if isinstance(event, dict) else missing
        if isinstance(expected, dict):
            if not _matches(expected, actual):
                return False
        elif not any(_satisfies(rule, actual) for rule in expected):
            return False
    return True


def _satisfies(rule: Any, actual: Any) -> bool:
    if actual is _UNREADABLE:
        return False
    # "Exists" works on leaf nodes only: an object counts as absent.
    absent = actual is _ABSENT or isinstance(actual, dict)
    values = [] if absent else actual if isinstance(actual, list) else [actual]
    if not isinstance(rule, dict):
        return any(_scalar(value) == _scalar(rule) for value in values)
    [(operator, operand)] = rule.items()
    if operator == "exists":
        return bool(values) is operand
    return any(_OPERATORS[operator](_scalar(value), operand) for value in values)


def _scalar(value: Any) -> tuple[type, Any]:
    """A value that equals another only if both are of one JSON type (in Python, ``True == 1``)."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = _Number(json.dumps(value))
    return type(value), value


def _numeric(actual: tuple[type, Any], conditions: Sequence[Any]) -> bool:
    _, value = actual
    if not isinstance(value, _Number):  # as is every number of DynamoDB: on its stream they are strings
        return False
    number = Decimal(value.text)
    pairs = zip(conditions[::2], conditions[1::2], strict=True)
    return all(_COMPARISONS[sign](number, Decimal(limit.text)) for sign, limit in pairs)


def _text(test: Callable[[str, str], bool]) -> Callable[[tuple[type, Any], Any], bool]:
    return lambda actual, operand: isinstance(actual[1], str) and test(actual[1], operand)


_OPERATORS: Final[dict[str, Callable[[tuple[type, Any], Any], bool]]] = {
    "prefix": _text(str.startswith),
    "suffix": _text(str.endswith),
    "equals-ignore-case": _text(lambda actual, operand: actual.casefold() == operand.casefold()),
    "anything-but": lambda actual, operand: (
        actual not in [_scalar(each) for each in (operand if isinstance(operand, list) else [operand])]
    ),
    "numeric": _numeric,
}


def _check(pattern: Any) -> None:
    if not isinstance(pattern, dict):
        raise InvalidPatternError(f"filter pattern: expected an object, found {pattern!r}")
    for key, expected in pattern.items():
        if key == "$or":
            if not isinstance(expected, list) or len(expected) < 2:
                raise InvalidPatternError("filter pattern: $or takes a list of two or more patterns")
            for alternative in expected:
                _check(alternative)
        elif isinstance(expected, list):
            for rule in expected:
                _check_rule(key, rule)
        else:
            _check(expected)


def _check_data_alone(pattern: _Pattern) -> None:
    for key, expected in pattern.items():
        if key == "$or":
            for alternative in expected:
                _check_data_alone(alternative)
        elif key != "data":
            raise InvalidPatternError(
                f'filter pattern: {key}: of a Kinesis record Lambda filters "data" only; write {{"data": ...}}'
            )


def _check_rule(key: str, rule: Any) -> None:
    def require(valid: bool, what: str) -> None:
        if not valid:
            raise InvalidPatternError(f"filter pattern: {key}: {what}")

    require(not isinstance(rule, list), "a rule cannot be a list")
    if not isinstance(rule, dict):
        return
    require(len(rule) == 1, "a rule has exactly one operator")
    [(operator, operand)] = rule.items()
    if operator == "exists":
        require(isinstance(operand, bool), "exists takes true or false")
    elif operator == "numeric":
        require(isinstance(operand, list) and len(operand) in (2, 4), "numeric takes one or two comparisons")
        pairs = zip(operand[::2], operand[1::2], strict=True)
        require(
            all(sign in _COMPARISONS and isinstance(limit, _Number) for sign, limit in pairs),
            f"numeric takes pairs of a sign ({' '.join(_COMPARISONS)}) and a number",
        )
    elif operator == "anything-but":
        require(not isinstance(operand, dict), "anything-but takes values")
    else:
        require(operator in _OPERATORS, f"unknown operator {operator!r}")
        require(isinstance(operand, str), f"{operator} takes a string")
