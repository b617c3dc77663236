"""Requests in flight: how many, in which order, and when the next one is made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError

from oncestream.calls import Calls, Fault, Request

KEYS = [str(number) for number in range(10)]


class Wire:
    """A transport that writes down what happens, in order."""

    def __init__(self, *, here: bool = False) -> None:
        self.log: list[str] = []
        self.under_way = 0
        self.most = 0
        self.here = here

    def send(self, operation: str, body: dict[str, Any]) -> Call:
        if body["key"] == "unsendable":
            raise EndpointConnectionError(endpoint_url="http://x")
        self.log.append(f"sent {body['key']}")
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        return Call(self, body["key"])


class Call:
    def __init__(self, wire: Wire, key: str) -> None:
        self._wire = wire
        self._key = key

    def done(self) -> bool:
        return self._wire.here

    def result(self) -> dict[str, Any]:
        self._wire.under_way -= 1
        self._wire.log.append(f"answered {self._key}")
        if self._key == "unanswered":
            raise ReadTimeoutError(endpoint_url="http://x")
        return {"key": self._key}


def calls(wire: Wire, in_flight: int, clock: Any = lambda: 0.0) -> Calls:
    return Calls(wire, in_flight, clock=clock)


def request(key: str) -> Request:
    return Request("PutItem", (key,), {"key": key})


def test_no_more_are_in_flight_than_were_asked_for() -> None:
    wire = Wire()
    outcomes = list(calls(wire, 3).send(map(request, KEYS), 1.0))
    assert wire.most == 3
    assert outcomes == [(request(key), {"key": key}) for key in KEYS]


def test_an_answer_that_has_come_is_dealt_with_before_the_next_request() -> None:
    wire = Wire(here=True)
    for (_, (key,), _), _ in calls(wire, 3).send(map(request, "ab"), 1.0):
        wire.log.append(f"dealt with {key}")
    assert wire.log == ["sent a", "answered a", "dealt with a", "sent b", "answered b", "dealt with b"]


def test_a_request_is_made_while_requests_before_it_are_under_way() -> None:
    wire = Wire()

    def requests() -> Iterator[Request]:
        for key in "abc":
            wire.log.append(f"made {key}")
            yield request(key)

    list(calls(wire, 2).send(requests(), 1.0))
    made = ["made a", "sent a", "made b", "sent b", "made c", "answered a", "sent c"]
    assert wire.log == [*made, "answered b", "answered c"]


def test_outcomes_are_looked_for_where_there_is_nothing_to_send_yet() -> None:
    wire = Wire()
    with calls(wire, 3).exchange(1.0) as exchange:
        exchange.send(request("a"))
        assert list(exchange.here()) == []
        wire.here = True
        for (_, (key,), _), _ in exchange.here():
            wire.log.append(f"dealt with {key}")
        exchange.send(request("b"))
        for (_, (key,), _), _ in exchange.rest():
            wire.log.append(f"dealt with {key}")
    assert wire.log == ["sent a", "answered a", "dealt with a", "sent b", "answered b", "dealt with b"]


def test_whoever_breaks_off_leaves_no_request_under_way() -> None:
    wire = Wire()

    def break_off() -> None:
        with calls(wire, 3).exchange(1.0) as exchange:
            exchange.send(request("a"))
            exchange.send(request("unanswered"))
            raise LookupError

    with pytest.raises(LookupError):
        break_off()
    assert wire.under_way == 0


def test_none_is_begun_after_the_deadline() -> None:
    wire, times = Wire(), iter([0.0, 1.0, 1.1])
    outcomes = list(calls(wire, 3, lambda: next(times)).send(map(request, "abc"), 1.0))
    assert [sent.keys for sent, _ in outcomes] == [("a",), ("b",), ("c",)]
    assert [isinstance(outcome, Fault) for _, outcome in outcomes] == [False, False, True]
    assert [line for line in wire.log if line.startswith("sent")] == ["sent a", "sent b"]


@pytest.mark.parametrize(("key", "ambiguous"), [("unsendable", False), ("unanswered", True)])
def test_a_request_that_fails_does_not_take_the_others_with_it(key: str, ambiguous: bool) -> None:
    outcomes = {
        sent.keys[0]: answer for sent, answer in calls(Wire(), 3).send(map(request, ["a", key, "b"]), 1.0)
    }
    assert (outcomes["a"], outcomes["b"]) == ({"key": "a"}, {"key": "b"})
    fault = outcomes[key]
    assert isinstance(fault, Fault)
    assert (fault.again, fault.ambiguous) == (True, ambiguous)
