"""Whose fault an error of Postgres is, and what of it may be logged."""

from __future__ import annotations

import pytest
from pg8000.exceptions import DatabaseError

from consumer.verdicts import advice, verdict
from postgres.database import describe, explain


def error(code: str, **fields: str) -> DatabaseError:
    return DatabaseError({"S": "ERROR", "C": code, "M": "said", **fields})


RECORD = [
    *(
        "22000",
        "22001",
        "22003",
        "22004",
        "22007",
        "22008",
        "22012",
        "22021",
        "22023",
        "22026",
        "2202E",
        "22P01",
    ),
    *("22P02", "22P05", "22P06", "2200M", "22030", "22032", "22033", "2203F"),
    *("23000", "23001", "23502", "23503", "23505", "23514", "23P01"),
    *("54000", "54001"),
]
WORLD = [
    *("2200H", "22P03", "22P04", "54011", "54023"),
    *(
        "08006",
        "0A000",
        "25006",
        "28P01",
        "42501",
        "42703",
        "42P01",
        "53100",
        "53200",
        "53300",
        "55P03",
        "57014",
    ),
    *("57P01", "57P03", "58030", "P0001", "XX000", "XX001", ""),
]


@pytest.mark.parametrize("code", RECORD)
def test_what_judges_a_value_is_the_records_fault(code: str) -> None:
    assert (verdict(error(code)), advice(error(code))) == ("record", "")


@pytest.mark.parametrize("code", WORLD)
def test_everything_else_is_the_worlds_fault(code: str) -> None:
    assert verdict(error(code)) == "world"


@pytest.mark.parametrize("code", ["40001", "40P01", "40003"])
def test_a_deadlock_is_chance(code: str) -> None:
    assert verdict(error(code)) == "chance"


@pytest.mark.parametrize("code", ["2200H", "22P03", "22P04", "54011", "54023"])
def test_the_worlds_faults_among_the_codes_about_values_say_what_to_do(code: str) -> None:
    assert advice(error(code))


@pytest.mark.parametrize(
    ("fields", "judged"),
    [
        ({"t": "records", "s": "public"}, "world"),  # no partition for the row
        ({"t": "records", "s": "public", "n": "positive"}, "record"),  # a CHECK
        ({"d": "percent", "n": "percent_check"}, "record"),  # a domain's
        ({}, "record"),  # RAISE ... USING ERRCODE = 'check_violation'
    ],
    ids=["no partition", "check", "domain", "trigger"],
)
def test_a_check_is_told_from_a_missing_partition(fields: dict[str, str], judged: str) -> None:
    assert verdict(error("23514", **fields)) == judged


@pytest.mark.parametrize("code", ["22P05", "22021"])
def test_a_character_that_a_server_does_not_have_is_the_servers_fault(code: str) -> None:
    assert verdict(error(code), "LATIN1") == "world"
    assert "LATIN1" in advice(error(code), "LATIN1")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"M": 'relation "records" does not exist'}, 'relation "records" does not exist (SQLSTATE 42P01)'),
        ({"C": "22012", "M": "division by zero"}, "division by zero (SQLSTATE 22012)"),
        (
            {"C": "2200H", "M": 'nextval: reached maximum value of sequence "small" (5)'},
            'nextval: reached maximum value of sequence "small" (5) (SQLSTATE 2200H)',
        ),
        (
            {"C": "22P02", "M": 'invalid input syntax for type integer: "secret"'},
            "a value is not what its type or an expression wants (SQLSTATE 22P02)",
        ),
        (
            {
                "C": "23514",
                "M": 'violates "x"',
                "D": "Failing row contains (secret).",
                "n": "x",
                "t": "records",
            },
            'a constraint is violated, constraint "x", table "records" (SQLSTATE 23514)',
        ),
        (
            {
                "C": "P0001",
                "M": "secret",
                "W": "PL/pgSQL function judge() line 3 at RAISE\nSQL statement secret",
            },
            "a function raised an exception, in PL/pgSQL function judge() line 3 (SQLSTATE P0001)",
        ),
        (
            {"C": "42601", "M": 'syntax error at or near "secret"', "W": "SQL statement secret"},
            "an error in a function (SQLSTATE 42601)",
        ),
    ],
)
def test_what_is_logged_names_things_and_quotes_no_value(fields: dict[str, str], said: str) -> None:
    assert describe(DatabaseError({"C": "42P01", **fields})) == said


def test_what_is_kept_beside_the_bytes_may_quote_them_but_not_the_whole_row() -> None:
    assert explain(error("22P02", M='invalid: "7x"')) == 'invalid: "7x" (SQLSTATE 22P02)'
    missing = error("23503", M="violates", D='Key (carrier)=(dhl) is not present in table "carriers".')
    assert explain(missing).startswith("violates: Key (carrier)=(dhl)")
    assert explain(error("23514", D="Failing row contains (1, 2).")) == "said (SQLSTATE 23514)"


def test_an_error_without_fields_is_said_as_it_is() -> None:
    assert describe(DatabaseError("odd")) == explain(DatabaseError("odd")) == "odd"
