"""A payload's type of the user's own, from what a caller sends or a file holds to what Postgres is given."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, JsonValue, RootModel, computed_field, field_validator

from common.errors import PermanentError
from consumer.decode import Arrived, Rejection, decode
from producer.entry import Entry, Published
from producer.request import RecordsRequest, records_of_body, records_of_event
from records.record import Record
from tables import check
from tables.model import Model, judge_of
from tests.unit.chunk_files import job_of
from tests.unit.consumer_support import stream_record
from uploads.formats.csv_rows import csv_rows
from uploads.formats.entries import LineEntries
from uploads.formats.lines import split_lines


class Aliased(Model):
    order_id: int = Field(alias="orderId")


class Computed(Model):
    price: float
    count: int

    @computed_field
    def total(self) -> float:
        return self.price * self.count


class Cents(Model):
    amount: int

    @field_validator("amount", mode="before")
    @classmethod
    def in_cents(cls, value: Any) -> int:
        return round(float(value) * 100)


class Optional(Model):
    n: float | None = None


class Strict(Model, strict=True):
    n: int
    when: str


class Money(Model):
    amount: Decimal


class Limited(Model):
    amount: Annotated[Decimal, Field(max_digits=5, decimal_places=2)]


class Several(RootModel[dict[str, JsonValue]]):
    pass


GOOD: list[tuple[type[BaseModel], str]] = [
    (Aliased, '{"orderId": 7}'),
    (Computed, '{"price": 2.50, "count": 2}'),
    (Cents, '{"amount": 1.50}'),
    (Cents, '{"amount": "1.50"}'),
    (Optional, '{"n": 1e999}'),
    (Optional, '{"n":-1E+999}'),
    (Optional, "{}"),
    (Strict, '{"n": 1, "when": "2026-11-24"}'),
    (Money, '{"amount": 12345678901234567.89}'),
    (Money, '{"amount": "12345678901234567.89"}'),
    (Money, '{"amount": 0.1234567890123456789012345}'),
    (Limited, '{"amount": 123.40}'),
    (Several, '{"a": 9007199254740993.0, "b": [1e-400]}'),
]
BAD: list[tuple[type[BaseModel], str, str]] = [
    (
        Aliased,
        '{"order_id": 7}',
        "payload.orderId: is missing; payload.order_id: is no field of the payload's type",
    ),
    (Computed, '{"price": 2.5, "count": 2, "total": 5}', "payload.total: is no field of the payload's type"),
    (Strict, '{"n": "1", "when": "x"}', "payload.n: Input should be a valid integer"),
    (Money, '{"amount": "much"}', "payload.amount: Input should be a valid decimal"),
    (
        Limited,
        '{"amount": 1.234}',
        "payload.amount: Decimal input should have no more than 2 decimal places",
    ),
    (Limited, "[1]", "payload: must be an object"),
    (Several, "[1]", "payload: must be an object"),
    (
        Several,
        '{"a": %s}' % ("9" * 5_000),
        "payload: its type cannot be checked: an integer of more than 4,300 digits",
    ),
    (
        Several,
        '{"a":' + "[" * 300 + "]" * 300 + "}",
        "payload: its type cannot be checked: nested too deeply",
    ),
]
NAMES = [model.__name__ + " " + text[:30] for model, text in GOOD]


@pytest.fixture
def payload_type(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put another type in the place of the payload's."""
    return lambda model: monkeypatch.setattr(check, "judge", judge_of(model))


def over_http(payload: str) -> RecordsRequest:
    body = f'{{"records": [{{"id": "a", "payload": {payload} }}]}}'
    return RecordsRequest(records_of_body(body, is_base64=False, content_type="application/json"))


def over_http_lines(payload: str) -> RecordsRequest:
    body = f'{{"id": "a", "payload":{payload}}}\n'
    return RecordsRequest(records_of_body(body, is_base64=False, content_type="application/x-ndjson"))


def stored(entry: Entry) -> str:
    decoded = decode(stream_record(entry.data))
    assert isinstance(decoded, Arrived), decoded
    return decoded.record.payload_json


@pytest.mark.parametrize("post", [over_http, over_http_lines])
@pytest.mark.parametrize(("model", "payload"), GOOD, ids=NAMES)
def test_what_is_posted_and_fits_is_stored_as_it_was_written(
    payload_type: Any, model: type[BaseModel], payload: str, post: Any
) -> None:
    payload_type(model)
    (entry,) = post(payload).entries
    assert stored(entry) == payload


@pytest.mark.parametrize(("model", "payload"), GOOD, ids=NAMES)
def test_a_line_that_fits_is_stored_as_it_was_written(
    payload_type: Any, model: type[BaseModel], payload: str
) -> None:
    payload_type(model)
    data = f" {payload} \r\n".encode()
    (entry,) = LineEntries(job_of(data)).ndjson(split_lines([data]))
    assert stored(entry) == payload


@pytest.mark.parametrize(("model", "payload", "reason"), BAD, ids=[reason for _, _, reason in BAD])
def test_what_does_not_fit_is_refused_with_one_reason_by_producer_and_consumer(
    payload_type: Any, model: type[BaseModel], payload: str, reason: str
) -> None:
    message = Record("a", "a", payload).to_bytes()
    payload_type(model)
    request = over_http(payload)
    assert request.entries == []
    (fault,) = request.answer(Published())["rejected"]
    assert fault["reason"].startswith(reason)
    rejection = decode(stream_record(message))
    assert isinstance(rejection, Rejection)
    assert rejection.reason == fault["reason"]
    assert (rejection.raw, rejection.record_id) == (message, "a")


def test_a_row_of_texts_fits_a_type_of_numbers_and_stays_texts(payload_type: Any) -> None:
    class Order(Model):
        order_id: int
        amount: Decimal

    payload_type(Order)
    data = b"order_id,amount\n17,2.50\nx,1\n"
    rows = LineEntries(job_of(data, format="csv")).csv(
        split_lines([data]), next(csv_rows(split_lines([data])))
    )
    good, bad = filter(None, rows)
    assert stored(good) == '{"order_id":"17","amount":"2.50"}'
    rejection = decode(stream_record(bad.data))
    assert isinstance(rejection, Rejection)
    assert rejection.reason.startswith("payload.order_id: Input should be a valid integer")


def test_what_the_runtime_has_parsed_is_written_as_python_writes_it() -> None:
    event = json.loads('{"records":[{"id":"a","payload":{"i":12345678901234567890123,"f":1.50,"ü":0.1}}]}')
    (entry,) = RecordsRequest(records_of_event(event)).entries
    assert stored(entry) == '{"i":12345678901234567890123,"f":1.5,"ü":0.1}'


class TestUnknownFields:
    def test_are_refused_by_a_model_that_does_not_say_otherwise(self) -> None:
        with pytest.raises(PermanentError, match=r"payload\.b: is no field of the payload's type"):
            judge_of(Optional)('{"n": 1, "b": 2}')

    @pytest.mark.parametrize("extra", ["ignore", "allow"])
    def test_are_taken_by_one_that_does(self, extra: Any) -> None:
        class Tolerant(Model):
            model_config = ConfigDict(extra=extra)
            n: int

        judge_of(Tolerant)('{"n": 1, "b": 2}')

    def test_are_no_matter_of_chance(self) -> None:
        class Plain(BaseModel):
            n: int

        class Said(BaseModel, extra="ignore"):
            n: int

        class Outer(Model):
            inner: dict[str, list[Plain | None]]

        class Alternatives(RootModel[Said | Plain]):
            pass

        judge_of(Said)('{"n": 1, "b": 2}')
        for model in (Plain, Outer, Alternatives):
            with pytest.raises(
                TypeError, match="Plain does not say what becomes of fields that it does not name"
            ):
                judge_of(model)

    def test_are_asked_about_by_a_model_whose_field_is_called_root(self) -> None:
        class Plant(BaseModel):
            root: str

        with pytest.raises(TypeError, match="Plant does not say"):
            judge_of(Plant)

    def test_are_no_question_for_what_is_no_model(self) -> None:
        with pytest.raises(
            TypeError, match=r"dict is no pydantic model: derive it from tables\.model\.Model"
        ):
            judge_of(dict)  # type: ignore[arg-type]

    def test_may_be_those_of_a_model_that_holds_itself(self) -> None:
        judge_of(Tree)('{"children": [{"children": []}]}')
        with pytest.raises(PermanentError, match=r"payload\.children\.0\.leaf: is no field"):
            judge_of(Tree)('{"children": [{"leaf": 1}]}')


class Tree(Model):
    children: list[Tree] = Field(default_factory=list)


class TestSurprises:
    @pytest.mark.parametrize(
        "raised",
        [ZeroDivisionError("by zero"), KeyError("x"), TypeError("no"), AttributeError("gone")],
        ids=repr,
    )
    def test_of_a_validator_reject_the_record(self, raised: Exception) -> None:
        with pytest.raises(PermanentError) as refused:
            judge_of(failing(raised))('{"n": 1}')
        assert str(refused.value) == f"payload: its type fails on it with {type(raised).__name__}"

    @pytest.mark.parametrize("raised", [MemoryError(), OSError("network is down")], ids=repr)
    def test_of_the_world_do_not(self, raised: Exception) -> None:
        with pytest.raises(type(raised)):
            judge_of(failing(raised))('{"n": 1}')


def failing(raised: Exception) -> type[BaseModel]:
    class Failing(Model):
        n: int

        @field_validator("n")
        @classmethod
        def fail(cls, value: int) -> int:
            raise raised

    return Failing
