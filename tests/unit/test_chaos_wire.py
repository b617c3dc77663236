"""What the proxy of `make chaos` decides about a request."""

from __future__ import annotations

from collections import Counter

import pytest

from chaos.journal import Journal
from chaos.wire import CALM, KINDS, LONGEST_DELAY, STORM, Rates, decide, operation


def _decisions(seed: int, rates: Rates, count: int = 3_000) -> list[object]:
    return [decide(seed, number, rates) for number in range(count)]


def test_the_same_seed_breaks_the_same_requests() -> None:
    assert _decisions(1, STORM) == _decisions(1, STORM)
    assert _decisions(1, STORM) != _decisions(2, STORM)


def test_nothing_is_broken_in_a_calm() -> None:
    assert set(_decisions(1, CALM)) == {None}


@pytest.mark.parametrize("kind", KINDS)
def test_a_rate_of_one_breaks_every_request_that_way(kind: str) -> None:
    assert {fault and fault.kind for fault in (decide(1, n, Rates(**{kind: 1.0})) for n in range(50))} == {
        kind
    }


def test_faults_are_as_frequent_as_the_rates_say() -> None:
    rates = Rates(delayed=0.2, refused=0.1, dropped=0.3)
    met = Counter(fault.kind if fault else "" for fault in (decide(1, n, rates) for n in range(10_000)))
    # The decisions are fixed by the seed, so this holds or it does not; 0.01 is two standard deviations.
    assert met["delayed"] / 10_000 == pytest.approx(0.2, abs=0.01)
    assert met["refused"] / 10_000 == pytest.approx(0.1, abs=0.01)
    assert met["dropped"] / 10_000 == pytest.approx(0.3, abs=0.01)
    assert met["failed"] == met["late"] == met["unavailable"] == 0


def test_a_delay_is_short_of_the_clients_patience() -> None:
    held = [fault.seconds for n in range(200) if (fault := decide(1, n, Rates(delayed=1.0)))]
    assert 0 < min(held) < max(held) <= LONGEST_DELAY


@pytest.mark.parametrize("rates", [{"delayed": -0.1}, {"delayed": 0.6, "late": 0.6}])
def test_rates_are_shares(rates: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="together at most 1"):
        Rates(**rates)


def test_rates_are_told_to_the_proxy_unchanged() -> None:
    assert Rates.from_json(STORM.to_json()) == STORM


@pytest.mark.parametrize(
    ("method", "target", "name"),
    [
        ("POST", "DynamoDB_20120810.BatchExecuteStatement", "DynamoDB.BatchExecuteStatement"),
        ("POST", "Kinesis_20131202.PutRecords", "Kinesis.PutRecords"),
        ("POST", "AmazonSQS.SendMessageBatch", "SQS.SendMessageBatch"),
        ("GET", "", "S3 GET"),
    ],
)
def test_calls_have_names(method: str, target: str, name: str) -> None:
    assert operation(method, {"x-amz-target": target} if target else {}) == name


def test_the_journal_takes_the_wires_faults_at_their_times() -> None:
    clock = iter([1000.0, 1010.0])
    journal = Journal(lambda: next(clock))
    journal.begin()
    entry = {
        "time": 1012.5,
        "kind": "dropped",
        "operation": "S3 GET",
        "number": 3,
        "seconds": 0.0,
        "status": 200,
    }
    assert journal.note_wire([entry, {"time": 1020.0, "kind": "end", "requests": 77}]) == 77
    (event,) = journal.events
    assert (event.seconds, event.kind, event.what) == (2.5, "dropped", "S3 GET")
    assert journal.counts()["dropped"] == 1


def test_the_journal_knows_its_kinds_of_faults() -> None:
    with pytest.raises(ValueError, match="no kind of fault"):
        Journal().note("mischief", "")
