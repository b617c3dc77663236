"""The poller as a whole, its threads included, against stand-ins for AWS. Waits are on conditions, never on
a clock."""

from __future__ import annotations

import base64
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from lambda_esm.checkpoints import FileCheckpoints, MemoryCheckpoints
from lambda_esm.decisions import decide
from lambda_esm.mapping import Backoff, EventSourceMapping, InvalidMappingError
from lambda_esm.metrics import Totals
from lambda_esm.observer import Delivery, Observer, Progress, every
from lambda_esm.poller import StreamPoller
from lambda_esm.records import Batch, Discard, FunctionFailed, NotInvoked, Window
from tests.unit.fake_streams import World, client_error, world
from tests.unit.stream_records import CONFIGURATION, STREAM_ARN

PATIENCE = 60.0
"""Seconds after which a wait is a failure. No test gets near it."""
UUID = CONFIGURATION["UUID"]
UNREACHABLE = EndpointConnectionError(endpoint_url="http://127.0.0.1:1")


class Log(Observer):
    """What the function was given, in order."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.checkpoints: list[tuple[str, str]] = []
        self.discards: list[Discard] = []

    def on_delivery(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    def on_checkpoint(self, mapping: EventSourceMapping, shard_id: str, sequence_number: str) -> None:
        self.checkpoints.append((shard_id, sequence_number))

    def on_discard(self, mapping: EventSourceMapping, shard_id: str, discard: Discard) -> None:
        self.discards.append(discard)

    @property
    def data(self) -> list[str]:
        """The data of all records delivered, in order."""
        return [text for delivery in self.deliveries for text in texts(delivery.event)]


def texts(event: dict[str, Any]) -> list[str]:
    return [base64.b64decode(record["kinesis"]["data"]).decode() for record in event["Records"]]


def accept(_: dict[str, Any]) -> None:
    """A function that does its work."""


def refuse(event: dict[str, Any]) -> None:
    """A function that fails for data that begins with ``bad``."""
    if any(text.startswith("bad") for text in texts(event)):
        raise ArithmeticError("bad record")


@contextmanager
def polling(given: World, **options: Any) -> Iterator[StreamPoller]:
    quick: dict[str, Any] = {"backoff": Backoff(0, 0), "poll_seconds": 0.001, "refresh_seconds": 0.01}
    with StreamPoller(given.clients, **(quick | options)) as poller:
        yield poller


def wait(poller: StreamPoller, predicate: Callable[[], bool]) -> None:
    assert poller.wait_for(predicate, PATIENCE), "it never came to that"


def drain(poller: StreamPoller) -> None:
    assert poller.wait_until_drained(PATIENCE), "it was never drained"


def test_it_delivers_what_is_in_the_stream_as_lambda_would() -> None:
    given, log = world(accept, BatchSize=2), Log()
    given.kinesis.put("a", "b", "c")

    with polling(given, observer=log) as poller:
        drain(poller)
        assert [each.uuid for each in poller.mappings] == [UUID]

    assert [texts(delivery.event) for delivery in log.deliveries] == [["a", "b"], ["c"]]
    assert log.checkpoints[-1] == ("s0", "3")
    assert given.functions.invoked[0] == {"FunctionName": "consumer", "InvocationType": "RequestResponse"}
    assert log.deliveries[0].event["Records"][0] == {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": "k",
            "sequenceNumber": "1",
            "data": base64.b64encode(b"a").decode(),
            "approximateArrivalTimestamp": 1_700_000_000.25,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": "s0:1",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::000000000000:role/consumer-role",
        "awsRegion": "us-east-1",
        "eventSourceARN": STREAM_ARN,
    }


def test_it_knows_what_it_has_read_and_what_of_it_waits() -> None:
    mended = threading.Event()
    given = world(lambda event: None if mended.is_set() else refuse(event), BatchSize=1)
    given.kinesis.put("a", "bad", "c")

    with polling(given) as poller:
        wait(poller, lambda: poller.progress() == {"consumer": Progress(read=3, waiting=2)})
        mended.set()
        drain(poller)
        assert poller.progress() == {"consumer": Progress(read=3)}


def test_what_was_read_of_a_shard_that_ended_stays_counted() -> None:
    given = world(accept)
    given.kinesis.put("p1", "p2")
    given.kinesis.split("s0", "s1")
    given.kinesis.put("c1", shard="s1")

    with polling(given) as poller:
        drain(poller)
        assert poller.progress() == {"consumer": Progress(read=3)}


def state(given: World) -> str:
    return str(given.functions.configurations[0]["State"])


def test_the_endpoints_own_poller_is_disabled_once_and_put_back_at_the_end() -> None:
    given = world(accept)

    with polling(given) as poller:
        drain(poller)
        drain(poller)
        assert state(given) == "Disabled"

    assert given.functions.disabled == [UUID]
    assert state(given) == "Enabled"


def test_the_endpoints_own_poller_stays_disabled_after_a_take_over() -> None:
    given = world(accept)

    with polling(given, take_over=True) as poller:
        drain(poller)

    assert state(given) == "Disabled"


def test_what_a_killed_run_left_disabled_is_run_and_put_back(tmp_path: Path) -> None:
    given, log, path = world(accept), Log(), tmp_path / "checkpoints.json"
    killed = StreamPoller(given.clients, checkpoints=FileCheckpoints(path), refresh_seconds=0.01)
    killed.start()
    wait(killed, lambda: state(given) == "Disabled")
    killed.stop()  # and never joined: it puts nothing back
    given.kinesis.put("a")

    with polling(given, checkpoints=FileCheckpoints(path), observer=log) as poller:
        drain(poller)

    assert log.data == ["a"]
    assert state(given) == "Enabled"


def test_a_mapping_that_its_owner_disabled_is_not_polled(caplog: pytest.LogCaptureFixture) -> None:
    given, log = world(accept, State="Disabled"), Log()
    given.kinesis.put("a")

    with caplog.at_level(logging.ERROR), polling(given, observer=log) as poller:
        wait(poller, lambda: given.functions.asked > 2)
        assert poller.mappings == []
        assert not poller.drained()

    assert log.data == []
    assert (state(given), given.functions.enabled) == ("Disabled", [])
    [message] = caplog.messages
    assert "is Disabled. Enable it (aws lambda update-event-source-mapping" in message


def test_a_poller_that_cannot_be_put_back_is_named(caplog: pytest.LogCaptureFixture) -> None:
    given = world(accept)

    with caplog.at_level(logging.ERROR), polling(given) as poller:
        drain(poller)
        given.functions.update_faults = [UNREACHABLE]

    assert f"mapping {UUID} stays Disabled: Lambda UpdateEventSourceMapping" in caplog.text


def test_a_poller_enabled_again_by_a_stack_update_is_disabled_again() -> None:
    given = world(accept)

    with polling(given) as poller:
        drain(poller)
        given.functions.configurations[0]["State"] = "Enabled"
        wait(poller, lambda: len(given.functions.disabled) == 2)
        assert state(given) == "Disabled"

    assert given.functions.disabled == [UUID, UUID]


def test_a_mapping_that_an_earlier_run_disabled_is_run_by_a_take_over() -> None:
    given, log = world(accept, State="Disabled"), Log()
    given.kinesis.put("a")

    with polling(given, observer=log, take_over=True) as poller:
        drain(poller)

    assert log.data == ["a"]
    assert given.functions.disabled == []


def test_nothing_is_drained_before_the_mapping_is_known() -> None:
    given = world(accept)
    del given.functions.configurations[:]

    with polling(given) as poller:
        wait(poller, lambda: given.functions.asked > 1)
        assert not poller.drained()


@pytest.mark.parametrize(
    "fault",
    [
        UNREACHABLE,
        client_error("ProvisionedThroughputExceededException"),
        client_error("InternalFailure"),
        client_error("AccessDeniedException"),
    ],
)
def test_failing_reads_lose_and_double_nothing(fault: Exception) -> None:
    given, log = world(accept, BatchSize=1), Log()
    given.kinesis.put("a", "b")

    with polling(given, observer=log) as poller:
        drain(poller)
        given.kinesis.faults += [fault] * 5
        given.kinesis.put("c", "d")
        drain(poller)

    assert log.data == ["a", "b", "c", "d"]


def test_an_expired_iterator_is_replaced_by_one_behind_the_last_record_read() -> None:
    given, log = world(accept), Log()
    given.kinesis.put("a")

    with polling(given, observer=log) as poller:
        drain(poller)
        given.kinesis.expire_iterators()
        given.kinesis.put("b")
        drain(poller)

    assert log.data == ["a", "b"]
    assert given.kinesis.opened == [("s0", "TRIM_HORIZON"), ("s0", "AFTER_SEQUENCE_NUMBER")]


def test_latest_loses_nothing_when_its_iterator_expires_before_the_first_record() -> None:
    given, log = world(accept, StartingPosition="LATEST"), Log()
    given.kinesis.put("old")

    with polling(given, observer=log) as poller:
        drain(poller)
        given.kinesis.put("new", at=4_000_000_000)
        given.kinesis.expire_iterators()
        drain(poller)

    assert log.data == ["new"]


def test_latest_loses_nothing_when_the_poller_is_started_again_before_the_first_record() -> None:
    given, log, store = world(accept, StartingPosition="LATEST"), Log(), MemoryCheckpoints()
    given.kinesis.put("old")
    with polling(given, checkpoints=store) as poller:
        drain(poller)
    given.kinesis.put("new", at=4_000_000_000)

    with polling(given, checkpoints=store, observer=log) as poller:
        drain(poller)

    assert log.data == ["new"]


@pytest.mark.parametrize("fault", [UNREACHABLE, client_error("TooManyRequestsException")])
def test_an_unreachable_lambda_api_is_asked_again(fault: Exception) -> None:
    given, log = world(accept), Log()
    given.functions.faults += [fault] * 3
    given.kinesis.put("a")

    with polling(given, observer=log) as poller:
        drain(poller)

    assert log.data == ["a"]


def test_a_function_that_does_not_exist_yet_is_waited_for() -> None:
    given, log = world(accept), Log()
    given.functions.faults += [client_error("ResourceNotFoundException")] * 3
    given.kinesis.put("a")

    with polling(given, functions=["consumer"], observer=log) as poller:
        drain(poller)

    assert log.data == ["a"]


def test_only_the_mappings_asked_for_are_run() -> None:
    given = world(accept)
    given.functions.configurations.append(
        CONFIGURATION | {"UUID": "other", "FunctionArn": "arn:::::function:other"}
    )

    with polling(given, functions=["consumer"]) as poller:
        drain(poller)
        assert [each.uuid for each in poller.mappings] == [UUID]


def test_a_mapping_of_a_queue_is_not_ours() -> None:
    given = world(accept)
    queue = {"UUID": "queue", "EventSourceArn": "arn:aws:sqs:us-east-1:000000000000:jobs", "State": "Enabled"}
    given.functions.configurations.append(CONFIGURATION | queue)

    with polling(given) as poller:
        drain(poller)

    assert given.functions.disabled == [UUID]


def test_a_mapping_that_cannot_be_run_is_named_once_and_left_to_the_endpoint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    given = world(accept)
    given.functions.configurations.insert(
        0, CONFIGURATION | {"UUID": "windowed", "TumblingWindowInSeconds": 901, "State": "Enabled"}
    )

    with polling(given) as poller, caplog.at_level(logging.ERROR):
        drain(poller)
        drain(poller)

    assert given.functions.disabled == [UUID]
    assert [message for message in caplog.messages if "Tumbling" in message] == [
        "not running mapping windowed: TumblingWindowInSeconds is 901, not between 0 and 900"
    ]


def test_mappings_given_by_hand_need_no_lambda_api() -> None:
    given, log = world(accept), Log()
    given.functions.faults += [AssertionError("asked")]
    given.kinesis.put("a")
    written = {"EventSourceArn": STREAM_ARN, "FunctionName": "consumer", "StartingPosition": "TRIM_HORIZON"}

    with polling(
        given, mappings=[written], invoke_as={"consumer": "ConsumerFunction"}, observer=log
    ) as poller:
        drain(poller)

    assert log.data == ["a"]
    assert given.functions.invoked[0]["FunctionName"] == "ConsumerFunction"


def test_an_alias_is_invoked_by_its_qualifier() -> None:
    given = world(accept, FunctionArn=f"{CONFIGURATION['FunctionArn']}:live")
    given.kinesis.put("a")

    with polling(given) as poller:
        drain(poller)

    assert given.functions.invoked[0]["Qualifier"] == "live"


def test_settings_changed_while_running_are_picked_up() -> None:
    given, log = world(accept, BatchSize=1), Log()
    given.kinesis.put("a", "b")

    with polling(given, observer=log) as poller:
        drain(poller)
        given.functions.configurations[0]["BatchSize"] = 100
        wait(poller, lambda: poller.mappings[0].settings.batch_size == 100)
        given.kinesis.put("c", "d")
        drain(poller)

    assert log.deliveries[0].mapping.settings.batch_size == 1
    assert max(len(delivery.batch.records) for delivery in log.deliveries[2:]) <= 2
    assert log.data == ["a", "b", "c", "d"]


def test_parents_are_drained_before_their_children_are_read() -> None:
    given, log = world(refuse, MaximumRetryAttempts=3), Log()
    given.kinesis.put("p1", "bad p2")
    given.kinesis.split("s0", "s1", "s2")
    given.kinesis.put("c1", shard="s1")
    given.kinesis.put("c2", shard="s2")

    with polling(given, observer=log) as poller:
        drain(poller)

    assert [delivery.shard_id for delivery in log.deliveries[:4]] == ["s0"] * 4, (
        "retries of the parent come first"
    )
    assert sorted(log.data[8:]) == ["c1", "c2"]


def test_a_shard_born_while_running_is_read_from_its_start_even_at_latest() -> None:
    given, log = world(accept, StartingPosition="LATEST"), Log()
    given.kinesis.put("old")

    with polling(given, observer=log) as poller:
        drain(poller)
        given.kinesis.split("s0", "s1")
        given.kinesis.put("c1", shard="s1")
        drain(poller)

    assert log.data == ["c1"]


def test_a_deleted_mapping_ends() -> None:
    given, log = world(accept), Log()

    with polling(given, observer=log) as poller:
        drain(poller)
        del given.functions.configurations[:]
        wait(poller, lambda: poller.mappings == [])
        given.kinesis.put("late")

    assert log.data == []


def test_a_deleted_stream_ends_its_shards_and_a_new_one_is_read() -> None:
    given, log = world(accept), Log()
    given.kinesis.put("a")

    with polling(given, observer=log) as poller:
        drain(poller)
        given.kinesis.deleted = True
        wait(poller, lambda: threads("s0") == 0)
        drain(poller)
        given.kinesis.put("b")
        given.kinesis.deleted = False
        wait(poller, lambda: log.data == ["a", "b"])

    assert log.data == ["a", "b"]


def test_a_stream_that_is_deleted_with_records_that_nobody_read_is_not_drained() -> None:
    entered, proceed = threading.Event(), threading.Event()

    def slow(_: dict[str, Any]) -> None:
        entered.set()
        assert proceed.wait(PATIENCE)

    given = world(slow, BatchSize=1)
    given.kinesis.put("a", "b")
    since = time.time()
    with polling(given) as poller:
        assert entered.wait(PATIENCE)
        given.kinesis.deleted = True
        wait(poller, lambda: threads("s0 in flight") == 1 and threads("s0") == 1)
        proceed.set()
        wait(poller, lambda: threads("s0") == 0)
        assert not poller.drained(since)

    assert poller.lost(since) == ["s0"]


def test_a_shard_that_is_named_and_cannot_be_read_is_not_drained_and_tried_again() -> None:
    """As moto answers who does not name the stream in GetRecords."""
    given, log = world(accept), Log()
    given.kinesis.put("a")
    given.kinesis.read_faults = [client_error("ResourceNotFoundException", "GetRecords")] * 3

    with polling(given, observer=log) as poller:
        drain(poller)

    assert log.data == ["a"]


def test_a_shard_that_vanishes_unread_is_lost_and_its_child_is_read() -> None:
    given, log = world(accept), Log()
    given.kinesis.put("a")
    given.kinesis.split("s0", "s1")
    given.kinesis.put("b", shard="s1")
    given.kinesis.read_faults = [client_error("ResourceNotFoundException", "GetRecords")] * 1_000
    since = time.time()

    with polling(given, observer=log) as poller:
        wait(poller, lambda: len(given.kinesis.read_faults) < 1_000)
        del given.kinesis.shards["s0"]
        wait(poller, lambda: poller.lost(since) == ["s0"])
        given.kinesis.read_faults = []
        wait(poller, lambda: log.data == ["b"])
        assert not poller.drained(since)


@pytest.mark.parametrize("position", ["TRIM_HORIZON", "LATEST"])
def test_a_stream_that_is_made_again_while_it_is_polled_is_read_anew(position: str) -> None:
    given, log = world(accept, StartingPosition=position), Log()

    with polling(given, observer=log) as poller:
        drain(poller)
        given.kinesis.put("a", "b")
        drain(poller)
        given.kinesis.make_again()
        given.kinesis.put("c")
        wait(poller, lambda: log.data == ["a", "b", "c"])
        drain(poller)


def test_a_stream_that_was_made_again_between_two_runs_is_read_anew(tmp_path: Path) -> None:
    given, log, path = world(accept), Log(), tmp_path / "checkpoints.json"
    given.kinesis.put("a", "b", "c")
    with polling(given, checkpoints=FileCheckpoints(path), observer=log) as poller:
        drain(poller)
    given.kinesis.make_again()
    given.kinesis.put("d")

    with polling(given, checkpoints=FileCheckpoints(path), observer=log) as poller:
        drain(poller)

    assert log.data == ["a", "b", "c", "d"]


def test_what_is_in_flight_for_a_deleted_stream_leaves_no_checkpoint_in_the_new_one() -> None:
    entered, proceed, store = threading.Event(), threading.Event(), MemoryCheckpoints()

    def slow(event: dict[str, Any]) -> None:
        if texts(event) == ["old"]:
            entered.set()
            assert proceed.wait(PATIENCE)

    given, log = world(slow), Log()
    given.kinesis.put("filler", "old")
    given.functions.configurations[0]["BatchSize"] = 1
    with polling(given, checkpoints=store, observer=log) as poller:
        assert entered.wait(PATIENCE)
        given.kinesis.make_again()
        given.kinesis.put("new")
        wait(poller, lambda: "new" in log.data)
        proceed.set()
        wait(poller, lambda: "old" in log.data)
        drain(poller)

    assert store.load(UUID) == {"s0": "1"}


def test_the_same_stream_and_function_twice_is_refused() -> None:
    mapping = {"EventSourceArn": STREAM_ARN, "FunctionName": "f", "StartingPosition": "LATEST"}

    with pytest.raises(InvalidMappingError, match="mapped twice"):
        StreamPoller(world(accept).clients, mappings=[mapping, mapping])


def test_the_status_has_aws_names_and_the_totals_add_up() -> None:
    given = world(
        refuse,
        FilterCriteria={"Filters": [{"Pattern": '{"data": {"wanted": [true]}}'}]},
        BatchSize=1,
        MaximumRetryAttempts=1,
    )

    def fail_once(event: dict[str, Any]) -> None:
        if "poison" in texts(event)[0]:
            raise ArithmeticError("poison")

    given.functions.handler = fail_once
    given.kinesis.put('{"wanted": true}', '{"wanted": false}', '{"wanted": true, "poison": 1}')

    with polling(given) as poller:
        drain(poller)
        [status] = poller.status()

    assert status["LastProcessingResult"] == "PROBLEM: Function call failed"
    age = status["Metrics"].pop("IteratorAge")
    assert age > 0
    assert status["Metrics"] == {
        "PolledEventCount": 3,
        "FilteredOutEventCount": 1,
        "InvokedEventCount": 3,
        "FailedInvokeEventCount": 2,
        "DroppedEventCount": 1,
        "OnFailureDestinationDeliveredEventCount": 0,
    }
    assert [shard["shard"] for shard in status["Shards"]] == ["s0"]
    assert (status["Shards"][0]["waiting"], status["Shards"][0]["lag"]) == (0, 0)
    assert poller.totals == Totals(delivered=1, retried=1, discarded=1, filtered=1)


def test_a_stream_that_does_not_exist_yet_is_waited_for() -> None:
    given, log = world(accept), Log()
    given.kinesis.deleted = True

    with polling(given, observer=log) as poller:
        wait(poller, lambda: given.functions.asked > 2)
        assert not poller.drained()
        given.kinesis.put("a")
        given.kinesis.deleted = False
        drain(poller)

    assert log.data == ["a"]


def threads(word: str) -> int:
    return sum(word in thread.name for thread in threading.enumerate())


def test_a_started_again_poller_goes_on_from_its_file(tmp_path: Path) -> None:
    given, first, second = world(accept), Log(), Log()
    path = tmp_path / "checkpoints.json"
    given.kinesis.put("a", "b")
    with polling(given, checkpoints=FileCheckpoints(path), observer=first) as poller:
        drain(poller)
    given.kinesis.split("s0", "s1")
    given.kinesis.put("c", shard="s1")

    with polling(given, checkpoints=FileCheckpoints(path), observer=second) as poller:
        drain(poller)
    with polling(given, checkpoints=FileCheckpoints(path), observer=second) as poller:
        drain(poller)

    assert (first.data, second.data) == (["a", "b"], ["c"])
    assert FileCheckpoints(path).load(UUID) == {"s0": "SHARD_END", "s1": "3"}


def test_stopping_brings_home_what_is_in_flight() -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(_: dict[str, Any]) -> None:
        entered.set()
        leave.wait(PATIENCE)

    given, log = world(slow, BatchSize=1), Log()
    given.kinesis.put("a", "b")
    poller = StreamPoller(given.clients, observer=log)
    poller.start()
    assert entered.wait(PATIENCE)

    poller.stop()
    assert not poller.join(0), "the invocation is still running"
    leave.set()
    assert poller.join(PATIENCE)
    assert log.checkpoints == [("s0", "1")]
    assert log.data == ["a"]


def test_stopping_is_prompt_however_long_the_waits_are() -> None:
    given = world(accept, MaximumBatchingWindowInSeconds=300)
    given.kinesis.put("a")

    with polling(given, poll_seconds=3600, refresh_seconds=3600) as poller:
        wait(poller, lambda: threads("s0") == 1)
        poller.stop()
        assert poller.join(PATIENCE / 2)


def test_a_defect_in_an_observer_stops_the_poller_and_is_shown() -> None:
    class Broken(Observer):
        def on_delivery(self, delivery: Delivery) -> None:
            raise LookupError("a defect")

    given = world(accept)
    given.kinesis.put("a")
    poller = StreamPoller(given.clients, observer=Broken())
    poller.start()

    with pytest.raises(RuntimeError, match="defect") as caught:
        poller.wait_until_drained(PATIENCE)
    assert isinstance(caught.value.__cause__, LookupError)
    with pytest.raises(RuntimeError):
        poller.join(PATIENCE)


def test_an_error_of_the_function_is_told_with_what_follows() -> None:
    given, log = world(refuse, MaximumRetryAttempts=1, BisectBatchOnFunctionError=True), Log()
    given.kinesis.put("good", "bad")

    with polling(given, observer=log) as poller:
        drain(poller)

    assert [texts(delivery.event) for delivery in log.deliveries] == [
        ["good", "bad"],
        ["good"],
        ["bad"],
        ["bad"],
    ]
    failed = log.deliveries[0].outcome
    assert isinstance(failed, FunctionFailed)
    assert failed.error == {"errorType": "ArithmeticError", "errorMessage": "bad record"}
    assert [delivery.succeeded for delivery in log.deliveries] == [False, True, False, False]


def test_a_throttled_function_loses_nothing_although_no_retry_is_allowed() -> None:
    given, log = world(accept, MaximumRetryAttempts=0), Log()
    given.kinesis.put("a")
    attempts = iter([client_error("TooManyRequestsException"), UNREACHABLE, client_error("ServiceException")])

    def throttled(_: dict[str, Any]) -> None:
        if error := next(attempts, None):
            raise error

    given.functions.handler = throttled
    with polling(given, observer=log) as poller:
        drain(poller)

    assert [isinstance(delivery.outcome, NotInvoked) for delivery in log.deliveries] == [
        True,
        True,
        True,
        False,
    ]
    assert log.discards == []


def test_a_discarded_batch_is_kept_whole_even_if_the_bucket_comes_late() -> None:
    given, log = world(
        refuse,
        MaximumRetryAttempts=0,
        DestinationConfig={"OnFailure": {"Destination": "arn:aws:s3:::discarded"}},
    ), Log()  # fmt: skip
    given.s3.faults += [client_error("NoSuchBucket"), UNREACHABLE]
    given.kinesis.put("bad")

    with polling(given, observer=log) as poller:
        drain(poller)

    [(key, kept)] = given.s3.objects.items()
    assert key.startswith(f"discarded/aws/lambda/{UUID}/s0/")
    assert kept["payload"].encode() == log.deliveries[0].batch.payload
    assert [discard.condition for discard in log.discards] == ["RetryAttemptsExhausted"]
    assert log.checkpoints == [("s0", "1")]


def test_stopping_while_a_discard_cannot_be_sent_does_not_skip_it() -> None:
    given, store = world(
        refuse,
        MaximumRetryAttempts=0,
        DestinationConfig={"OnFailure": {"Destination": "arn:aws:s3:::discarded"}},
    ), MemoryCheckpoints()  # fmt: skip
    given.s3.faults += [UNREACHABLE] * 1_000_000
    given.kinesis.put("bad")

    with polling(given, checkpoints=store, backoff=Backoff(3600, 3600)) as poller:
        wait(poller, lambda: given.s3.attempts > 0)
    assert store.load(UUID) == {"s0": "TRIM_HORIZON"}

    given.s3.faults.clear()
    with polling(given, checkpoints=store) as poller:
        drain(poller)
    assert len(given.s3.objects) == 1


def test_batches_are_redelivered_on_purpose() -> None:
    given, log = world(accept, BatchSize=1), Log()
    given.kinesis.put("a", "b", "c", "d")

    with polling(given, observer=log, redeliver=every(2)) as poller:
        drain(poller)

    assert log.data == ["a", "a", "b", "c", "c", "d"]


def test_lanes_deliver_at_once_and_checkpoint_in_order() -> None:
    both = threading.Barrier(2, timeout=PATIENCE)

    def together(_: dict[str, Any]) -> None:
        both.wait()  # breaks unless two invocations run at once

    given, log = world(together, ParallelizationFactor=2), Log()
    given.kinesis.put("1", key="a")
    given.kinesis.put("2", key="d")

    with polling(given, observer=log) as poller:
        drain(poller)

    assert sorted(log.data) == ["1", "2"]
    assert log.checkpoints[-1] == ("s0", "2")


def test_a_window_that_cannot_be_ended_is_no_success() -> None:
    """Its last batch has no records, so none is left of it whatever happens."""
    batch = Batch((), window=Window(0, 10, final=True))
    mapping, outcome = EventSourceMapping.from_configuration(CONFIGURATION), FunctionFailed("boom")
    decision = decide(batch, outcome, mapping.settings)

    assert not Delivery(mapping, "s0", batch, outcome, decision, 0.1).succeeded
