"""The events that the contestants get, and what is said about what they made of them."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from bench.consumer import fate_of_duplicates, fate_of_poison
from bench.records import POISON, SYNTHETIC_BYTES, event, poison_in
from consumer.decode import Arrived, Rejection, decode


@pytest.mark.parametrize("dataset", ["flights", "1 KB"])
def test_records_are_records_of_the_product(dataset: Any) -> None:
    decoded = [decode(record) for record in event(dataset, 3, "tag")["Records"]]

    assert [one.record.id for one in decoded if isinstance(one, Arrived)] == ["tag-0", "tag-1", "tag-2"]


def test_the_same_arguments_give_the_same_event() -> None:
    assert event("1 KB", 5, "a") == event("1 KB", 5, "a")


def test_synthetic_records_have_their_size() -> None:
    sizes = {
        len(base64.b64decode(record["kinesis"]["data"])) for record in event("1 KB", 120, "t")["Records"]
    }

    assert sizes == {SYNTHETIC_BYTES}


def test_sequence_numbers_rise() -> None:
    numbers = [int(record["kinesis"]["sequenceNumber"]) for record in event("1 KB", 20, "t")["Records"]]

    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(("size", "poison"), [(10, 1), (100, 1), (1000, 10)])
def test_one_in_a_hundred_is_poison_and_at_least_one(size: int, poison: int) -> None:
    records = event("1 KB", size, "t", poisoned=True)["Records"]

    bad = [decoded for decoded in map(decode, records) if isinstance(decoded, Rejection)]
    assert len(bad) == len({rejection.id for rejection in bad}) == poison_in(size) == poison
    assert all(rejection.raw.startswith(POISON) for rejection in bad)


@pytest.mark.parametrize(
    ("row", "fate"),
    [
        ({"rows": 10, "ids": 10}, "exactly once"),
        ({"rows": 20, "ids": 10}, "2.00 rows a record"),
        ({"rows": 9, "ids": 9}, "0.90 rows a record"),
        ({"rows": 10, "ids": 10, "error": "DatabaseError"}, "the batch fails"),
        ({"rows": 10, "ids": 10, "failures": 10}, "the batch fails"),
    ],
)
def test_fate_of_a_batch_delivered_again(row: dict[str, Any], fate: str) -> None:
    assert fate_of_duplicates({"size": 10, "error": None, "failures": 0} | row) == fate


@pytest.mark.parametrize(
    ("row", "fate"),
    [
        ({"rows": 990, "rejected": 10}, "kept, with the reason"),
        ({"rows": 990}, "logged and dropped"),
        ({"rows": 990, "failures": 10}, "retried until it expires"),
        ({"rows": 900}, "90 good records missing"),
        ({"rows": 0, "error": "ValueError"}, "the batch fails"),
    ],
)
def test_fate_of_poison_records(row: dict[str, Any], fate: str) -> None:
    assert fate_of_poison({"size": 1000, "error": None, "failures": 0, "rejected": 0} | row) == fate
