"""Every event of ``events/``, handed to its function in this process: answer and effect, also when it comes twice."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from common.errors import OncestreamError
from tests.event_expectations import EXPECTED, NOTHING
from tests.recorded_events import FUNCTIONS, World, files, read
from tests.unit.uploads_aws import Context, template

if TYPE_CHECKING:
    from local.ministack import MiniStack

MODULES = (
    "common.clients",
    "producer.api",
    "uploads.chunks",
    "consumer.handler",
    "postgres.migrate",
    "uploads.register",
    "uploads.plan",
    "uploads.report",
)

Deliver = Callable[[str, Any], Any]


def forget() -> None:
    """Start the functions anew: drop what they keep from one invocation to the next."""
    for module in MODULES:
        for value in vars(importlib.import_module(module)).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()
    gc.collect()  # and with it the connections to Postgres


@pytest.fixture
def world(ministack: MiniStack, database: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(ministack, database)
    monkeypatch.setenv("AWS_ENDPOINT_URL", ministack.endpoint)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    forget()
    yield made
    forget()
    made.remove()


@pytest.fixture
def deliver(world: World) -> Deliver:
    """Hands an event to the handler that the template names; an error is answered as its type's name."""
    functions = template()["Resources"]

    def call(function: str, event: Any) -> Any:
        module, _, handler = functions[function]["Properties"]["Handler"].rpartition(".")
        try:
            return getattr(importlib.import_module(module), handler)(event, Context())
        except OncestreamError as error:
            return type(error).__name__

    return call


def test_every_event_is_expected_to_lead_to_something() -> None:
    assert set(EXPECTED) == set(FUNCTIONS)


def test_every_function_of_the_template_has_events() -> None:
    resources = template()["Resources"]
    assert set(FUNCTIONS.values()) == {
        name for name, resource in resources.items() if resource["Type"] == "AWS::Serverless::Function"
    }


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_an_event_leads_to_what_is_expected_and_changes_nothing_the_second_time(
    name: str, world: World, deliver: Deliver
) -> None:
    expected = EXPECTED[name]
    if expected.before:
        expected.before(world)
    answers = [deliver(FUNCTIONS[name], world.event(name)), deliver(FUNCTIONS[name], world.event(name))]
    parts = [answer if isinstance(answer, str) else expected.part(answer) for answer in answers]
    assert parts == [expected.answer, expected.again or expected.answer]
    assert world.effect() == expected.effect


@pytest.mark.parametrize("name", [name for name, expected in sorted(EXPECTED.items()) if expected.consumed])
def test_what_an_event_puts_onto_the_stream_ends_in_one_row_each(
    name: str, world: World, deliver: Deliver
) -> None:
    consumed = EXPECTED[name].consumed
    assert consumed is not None
    for _ in range(2):  # published twice, consumed twice
        deliver(FUNCTIONS[name], world.event(name))
    for _ in range(2):
        assert deliver("ConsumerFunction", world.consumer_event()) == {"batchItemFailures": []}
    effect = world.effect()
    assert (len(effect.rows), effect.rejected) == consumed


def test_a_file_that_is_put_again_is_the_same_upload(world: World, deliver: Deliver) -> None:
    first = deliver("RegisterFunction", world.event("register-normal"))
    second = deliver("RegisterFunction", world.event("register-duplicates"))
    assert first["inserted"] == second["duplicates"]
    assert second["inserted"] == []
    assert list(world.effect().uploads) == ["flights.ndjson"]


def test_a_job_in_a_second_message_publishes_nothing_more(world: World, deliver: Deliver) -> None:
    deliver("ChunksFunction", world.event("chunks-normal"))
    on_the_stream = world.stream()
    deliver("ChunksFunction", world.event("chunks-duplicates"))
    assert world.stream() == on_the_stream


def test_a_notification_as_it_was_recorded_names_a_version_that_is_gone(
    world: World, deliver: Deliver
) -> None:
    answer = deliver("RegisterFunction", read("register-normal"))
    assert answer["inserted"] == answer["failed"]
    assert "gone" in str(world.effect().uploads["flights.ndjson"])


def test_the_files_are_those_of_the_recording(world: World) -> None:
    etags = {
        read(name)["Records"][0]["s3"]["object"]["eTag"]
        for name in ("register-normal", "register-encoded-key")
    }
    s3 = world.ministack.client("s3")
    here = {s3.head_object(Bucket=world.bucket, Key=key)["ETag"].strip('"') for key in files()}
    assert etags <= here


def test_nothing_is_there_before_an_event(world: World) -> None:
    assert world.effect() == NOTHING
