"""A shard's queue: batching, lanes, retries, age, discards, checkpoint. No threads, no clock: time is a
number."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_esm.decisions import decide
from lambda_esm.filters import Filters
from lambda_esm.mapping import Backoff, MappingSettings
from lambda_esm.queue import ShardQueue
from lambda_esm.records import (
    PAYLOAD_LIMIT,
    STATE_LIMIT,
    Answered,
    Batch,
    CheckpointLost,
    Discard,
    FunctionFailed,
    NotInvoked,
    Outcome,
    StreamRecord,
)
from tests.unit.stream_records import numbers, record, records

DONE = Answered(None)
THROWN = FunctionFailed("boom")
THROTTLED = NotInvoked("TooManyRequestsException")
NO_WAIT = Backoff(0, 0)


def make_queue(backoff: Backoff = NO_WAIT, **settings: Any) -> ShardQueue:
    return ShardQueue(MappingSettings(**settings), backoff=backoff)


def next_batch(queue: ShardQueue, now: float = 0.0) -> Batch:
    work = queue.next_work(now)
    assert isinstance(work, Batch)
    return work


def drain(
    queue: ShardQueue, function: Callable[[Batch], Outcome] = lambda _: DONE, now: float = 0.0
) -> list[list[int]]:
    """Deliver until nothing is left; the deliveries (negative numbers: a discard)."""
    log = []
    while work := queue.next_work(now):
        if isinstance(work, Batch):
            log.append(numbers(work))
            queue.settle(work, function(work), now)
        else:
            log.append([-number for number in numbers(work.batch)])
            queue.discarded(work)
    return log


class TestBatching:
    def test_a_batch_holds_at_most_the_batch_size(self) -> None:
        queue = make_queue(batch_size=2)
        queue.feed(records(1, 2, 3, 4, 5), now=0)

        assert drain(queue) == [[1, 2], [3, 4], [5]]

    def test_the_payload_is_the_event_as_json(self) -> None:
        queue = make_queue()
        queue.feed([record(1, size=10), record(2)], now=0)
        batch = next_batch(queue)

        assert json.loads(batch.payload) == batch.event
        assert [each["number"] for each in batch.event["Records"]] == [1, 2]

    @pytest.mark.parametrize(("spare", "together"), [(0, True), (-1, False)])
    def test_a_batch_fills_the_payload_limit_to_the_byte(self, spare: int, together: bool) -> None:
        first = record(1)
        envelope = len(Batch((first, record(2))).payload) - len(first.body) - len(record(2).body)
        second = record(2, size=PAYLOAD_LIMIT - envelope - len(first.body) - len(record(2).body) - spare)
        queue = make_queue()
        queue.feed([first, second], now=0)

        assert drain(queue) == ([[1, 2]] if together else [[1], [2]])

    def test_every_payload_is_within_the_limit(self) -> None:
        queue = make_queue(batch_size=10_000)
        queue.feed([record(number, size=1_400_000) for number in range(10)], now=0)
        sizes: list[int] = []

        def function(batch: Batch) -> Outcome:
            sizes.append(len(batch.payload))
            return DONE

        drain(queue, function)

        assert max(sizes) <= PAYLOAD_LIMIT
        assert len(sizes) == 3

    def test_a_record_that_fills_an_invocation_goes_alone(self) -> None:
        queue = make_queue()
        queue.feed([record(1), record(2, size=PAYLOAD_LIMIT - 50), record(3)], now=0)

        assert drain(queue) == [[1], [2], [3]]

    def test_a_record_that_no_invocation_can_hold_is_given_up_and_the_lane_goes_on(self) -> None:
        queue = make_queue(parallelization_factor=1)
        queue.feed([record(1), record(2, size=PAYLOAD_LIMIT), record(3)], now=0)

        queue.settle(next_batch(queue, 0), Answered(None), 0)
        discard = queue.next_work(0)
        assert isinstance(discard, Discard)
        assert (discard.condition, numbers(discard.batch)) == ("RecordTooLarge", [2])
        queue.discarded(discard)

        assert drain(queue) == [[3]]
        assert queue.checkpoint == "3"

    def test_the_window_is_waited_for(self) -> None:
        queue = make_queue(batch_size=3, batching_window_seconds=5)
        queue.feed(records(1), now=100)
        queue.feed(records(2), now=103)

        assert queue.next_work(104.9) is None
        assert queue.wake_at == 105
        assert numbers(next_batch(queue, 105)) == [1, 2]

    def test_a_full_batch_does_not_wait_for_the_window(self) -> None:
        queue = make_queue(batch_size=2, batching_window_seconds=300)
        queue.feed(records(1, 2, 3), now=0)

        assert drain(queue) == [[1, 2]]

    def test_a_batch_full_in_bytes_does_not_wait_for_the_window(self) -> None:
        queue = make_queue(batching_window_seconds=300)
        queue.feed([record(1, size=4_000_000), record(2, size=4_000_000)], now=0)

        assert drain(queue) == [[1]]

    def test_the_end_of_the_shard_does_not_wait_for_the_window(self) -> None:
        queue = make_queue(batching_window_seconds=300)
        queue.feed(records(1), now=0)
        queue.close()

        assert drain(queue) == [[1]]
        assert queue.finished

    def test_half_a_surrogate_pair_does_not_stop_the_shard(self) -> None:
        key = "\ud83d"
        queue = make_queue(parallelization_factor=2)
        queue.feed([StreamRecord.of("1", key, 0.0, {"key": key}), record(2)], now=0)
        payloads: list[Any] = []

        def function(batch: Batch) -> Outcome:
            payloads.extend(json.loads(batch.payload)["Records"])
            return DONE

        drain(queue, function)
        assert {"key": key} in payloads
        assert queue.checkpoint == "2"


class TestFilters:
    FILTERS = Filters(('{"number": [{"numeric": [">", 2]}]}',))

    def test_what_is_filtered_out_is_not_delivered_and_counts_as_processed(self) -> None:
        queue = make_queue(filters=self.FILTERS)
        queue.feed(records(1, 2), now=0)

        assert queue.next_work(0) is None
        assert queue.checkpoint == "2"
        assert queue.idle

    def test_filtered_records_do_not_fill_a_batch(self) -> None:
        queue = make_queue(filters=self.FILTERS, batch_size=2)
        queue.feed(records(1, 3, 2, 4, 5), now=0)

        assert drain(queue) == [[3, 4], [5]]

    def test_the_checkpoint_does_not_pass_a_record_in_flight_for_a_filtered_one_behind_it(self) -> None:
        queue = make_queue(filters=self.FILTERS)
        queue.feed(records(1, 3, 2), now=0)
        batch = next_batch(queue)

        assert queue.checkpoint == "1"
        queue.settle(batch, DONE, 0)
        assert queue.checkpoint == "2"


class TestRetries:
    def test_a_partial_failure_moves_the_checkpoint_and_comes_again_from_there(self) -> None:
        queue = make_queue(report_batch_item_failures=True)
        queue.feed(records(1, 2, 3), now=0)
        queue.settle(next_batch(queue), Answered({"batchItemFailures": [{"itemIdentifier": "2"}]}), 0)

        assert queue.checkpoint == "1"
        assert numbers(next_batch(queue)) == [2, 3]

    def test_a_retry_comes_before_newer_records_and_without_them(self) -> None:
        queue = make_queue(batch_size=2)
        queue.feed(records(1, 2), now=0)
        batch = next_batch(queue)
        queue.feed(records(3, 4), now=0)
        queue.settle(batch, THROWN, 0)

        assert drain(queue) == [[1, 2], [3, 4]]

    def test_bisecting_isolates_a_poison_record_in_order(self) -> None:
        queue = make_queue(bisect_batch_on_function_error=True, maximum_retry_attempts=1)
        queue.feed(records(1, 2, 3, 4), now=0)

        log = drain(queue, lambda batch: THROWN if 3 in numbers(batch) else DONE)

        assert log == [[1, 2, 3, 4], [1, 2], [3, 4], [3], [3], [-3], [4]]
        assert queue.checkpoint == "4"

    def test_with_the_failures_reported_one_retry_each_is_enough(self) -> None:
        queue = make_queue(
            report_batch_item_failures=True, bisect_batch_on_function_error=True, maximum_retry_attempts=0
        )
        queue.feed(records(1, 2, 3, 4, 5), now=0)
        poison = {"2", "4"}

        def function(batch: Batch) -> Outcome:
            failed = [number for number in batch.sequence_numbers if number in poison]
            poison.difference_update(failed[:1])  # each fails once
            return Answered({"batchItemFailures": [{"itemIdentifier": number} for number in failed]})

        assert drain(queue, function) == [[1, 2, 3, 4, 5], [2, 3, 4, 5], [4, 5]]

    def test_retries_are_counted_and_end(self) -> None:
        queue = make_queue(maximum_retry_attempts=2)
        queue.feed(records(1, 2), now=0)

        assert drain(queue, lambda _: THROWN) == [[1, 2]] * 3 + [[-1, -2]]

    def test_throttling_uses_up_no_retries(self) -> None:
        queue = make_queue(maximum_retry_attempts=0)
        queue.feed(records(1), now=0)
        outcomes = iter([THROTTLED] * 50 + [DONE])

        assert drain(queue, lambda _: next(outcomes)) == [[1]] * 51

    def test_a_lost_checkpoint_brings_the_batch_again_at_once(self) -> None:
        queue = make_queue(Backoff(60, 60), maximum_retry_attempts=0)
        queue.feed(records(1, 2), now=0)
        queue.settle(next_batch(queue), CheckpointLost(), 0)

        assert queue.checkpoint is None
        again = next_batch(queue)
        assert (numbers(again), again.invocations) == ([1, 2], 1)
        queue.settle(again, DONE, 0)
        assert queue.checkpoint == "2"

    def test_the_pace_is_the_backoffs(self) -> None:
        queue = make_queue(Backoff(1, 60))
        queue.feed(records(1), now=100)
        queue.settle(next_batch(queue, 100), THROWN, 100)

        assert queue.next_work(100.9) is None
        assert queue.wake_at == 101
        queue.settle(next_batch(queue, 101), THROTTLED, 101)
        assert queue.next_work(102.9) is None
        assert numbers(next_batch(queue, 103)) == [1]


class TestAge:
    def test_a_record_too_old_is_discarded_before_its_first_delivery(self) -> None:
        queue = make_queue(maximum_record_age_seconds=60)
        queue.feed([record(1, arrived_at=0), record(2, arrived_at=50)], now=100)
        discard = queue.next_work(100)

        assert isinstance(discard, Discard)
        assert (discard.condition, discard.batch.invocations) == ("RecordAgeExceeded", 0)
        queue.discarded(discard)
        assert queue.checkpoint == "1"
        assert numbers(next_batch(queue, 100)) == [2]

    def test_a_record_exactly_of_the_maximum_age_is_delivered(self) -> None:
        queue = make_queue(maximum_record_age_seconds=60)
        queue.feed([record(1, arrived_at=40)], now=100)

        assert drain(queue, now=100) == [[1]]

    def test_the_part_of_a_failing_batch_that_grew_too_old_is_discarded(self) -> None:
        queue = make_queue(maximum_record_age_seconds=60)
        queue.feed([record(1, arrived_at=40), record(2, arrived_at=90)], now=100)
        queue.settle(next_batch(queue, 100), THROWN, 100)

        assert drain(queue, lambda _: THROWN if queue.checkpoint is None else DONE, now=101) == [[-1], [2]]

    def test_throttling_does_not_keep_a_record_beyond_its_age(self) -> None:
        queue = make_queue(maximum_record_age_seconds=60)
        queue.feed(records(1), now=0)
        queue.settle(next_batch(queue, 0), THROTTLED, 0)

        assert drain(queue, now=61) == [[-1]]

    def test_a_failing_batch_need_not_be_due_to_grow_too_old(self) -> None:
        queue = make_queue(Backoff(1_000, 1_000), maximum_record_age_seconds=60)
        queue.feed(records(1), now=0)
        queue.settle(next_batch(queue, 0), THROWN, 0)

        assert drain(queue, now=61) == [[-1]]


class TestDiscards:
    def test_the_checkpoint_waits_for_the_destination(self) -> None:
        queue = make_queue(maximum_retry_attempts=0)
        queue.feed(records(1), now=0)
        queue.settle(next_batch(queue), THROWN, 7)
        discard = queue.next_work(7)

        assert isinstance(discard, Discard)
        assert (discard.condition, discard.at) == ("RetryAttemptsExhausted", 7)
        assert (discard.batch.invocations, discard.batch.last_outcome) == (1, THROWN)
        assert queue.checkpoint is None
        queue.discarded(discard)
        assert queue.checkpoint == "1"

    def test_a_discard_that_could_not_be_sent_is_offered_again(self) -> None:
        queue = make_queue(maximum_retry_attempts=0)
        queue.feed(records(1), now=0)
        queue.settle(next_batch(queue), THROWN, 0)
        discard = queue.next_work(0)
        assert isinstance(discard, Discard)
        queue.postpone(discard)

        assert not queue.idle
        assert queue.next_work(0) is discard

    def test_newer_records_wait_until_a_discard_is_sent(self) -> None:
        queue = make_queue(batch_size=1, maximum_retry_attempts=0)
        queue.feed(records(1, 2), now=0)

        assert drain(queue, lambda batch: THROWN if numbers(batch) == [1] else DONE) == [[1], [-1], [2]]

    def test_work_is_settled_once(self) -> None:
        queue = make_queue()
        queue.feed(records(1), now=0)
        batch = next_batch(queue)
        queue.settle(batch, DONE, 0)

        with pytest.raises(ValueError, match="not out"):
            queue.settle(batch, DONE, 0)


class TestLanes:
    KEYS = ("a", "b", "c", "d", "e", "f", "g", "h")

    def feed(self, queue: ShardQueue, count: int, start: int = 0) -> None:
        queue.feed([record(n, key=self.KEYS[n % len(self.KEYS)]) for n in range(start, start + count)], now=0)

    def test_without_a_factor_one_batch_is_out_at_a_time(self) -> None:
        queue = make_queue(batch_size=1)
        self.feed(queue, 8)

        assert queue.next_work(0) is not None
        assert queue.next_work(0) is None

    def test_several_batches_are_out_at_once_and_share_no_key(self) -> None:
        queue = make_queue(batch_size=100, parallelization_factor=4)
        self.feed(queue, 80)
        batches = []
        while work := queue.next_work(0):
            assert isinstance(work, Batch)
            batches.append(work)
        keys = [{each.key for each in batch.records} for batch in batches]

        assert 1 < len(batches) <= 4
        assert sum(map(len, keys)) == len(set().union(*keys)) == len(self.KEYS)

    def test_the_checkpoint_covers_a_contiguous_prefix_only(self) -> None:
        queue = make_queue(parallelization_factor=2)
        queue.feed([record(1, key="a"), record(2, key="d"), record(3, key="a")], now=0)
        first, second = sorted((next_batch(queue), next_batch(queue)), key=numbers)
        assert (numbers(first), numbers(second)) == ([1, 3], [2]), "the keys a and d are in different lanes"

        queue.settle(second, DONE, 0)
        assert queue.checkpoint is None
        queue.settle(first, DONE, 0)
        assert queue.checkpoint == "3"

    def test_a_failing_lane_does_not_hold_up_the_others(self) -> None:
        queue = make_queue(Backoff(60, 60), parallelization_factor=2, batch_size=1)
        queue.feed([record(1, key="a"), record(2, key="d"), record(3, key="d")], now=0)

        log = drain(queue, lambda batch: THROWN if numbers(batch) == [1] else DONE)

        assert sorted(log) == [[1], [2], [3]]
        assert queue.checkpoint is None
        assert not queue.idle

    def test_a_new_factor_applies_when_no_key_can_be_in_two_lanes(self) -> None:
        queue = make_queue(parallelization_factor=1)
        self.feed(queue, 8)
        batch = next_batch(queue)
        queue.settings = replace(queue.settings, parallelization_factor=4)

        assert queue.room == 0
        queue.settle(batch, DONE, 0)
        assert queue.room > 0
        self.feed(queue, 80, start=8)
        assert len({next_batch(queue).lane for _ in range(2)}) == 2


class TestSettings:
    def test_a_new_batch_size_applies_to_the_next_batch(self) -> None:
        queue = make_queue(batch_size=1)
        queue.feed(records(1, 2, 3), now=0)
        queue.settle(next_batch(queue), DONE, 0)
        queue.settings = replace(queue.settings, batch_size=100)

        assert drain(queue) == [[2, 3]]

    def test_a_new_limit_applies_to_a_batch_that_is_being_retried(self) -> None:
        queue = make_queue()
        queue.feed(records(1), now=0)
        queue.settle(next_batch(queue), THROWN, 0)
        queue.settings = replace(queue.settings, maximum_retry_attempts=1)

        assert drain(queue, lambda _: THROWN) == [[1], [-1]]


class TestRoom:
    def test_reading_pauses_while_enough_is_held(self) -> None:
        queue = make_queue(batch_size=100)
        assert queue.room == 10_000
        queue.feed(records(*range(6_000)), now=0)
        assert queue.room == 0
        for _ in range(10):
            assert queue.room == 0
            queue.settle(next_batch(queue), DONE, 0)
        assert queue.room == 5_000

    def test_it_is_room_for_two_batches_a_lane_at_least(self) -> None:
        assert make_queue(batch_size=10_000, parallelization_factor=10).room == 200_000

    def test_reading_pauses_while_two_payloads_a_lane_are_held(self) -> None:
        queue = make_queue()
        queue.feed([record(number, size=1_000_000) for number in range(13)], now=0)

        assert queue.room == 0

    def test_a_record_read_twice_is_delivered_once(self) -> None:
        queue = make_queue()
        queue.feed(records(1, 2), now=0)
        queue.feed(records(1, 2, 3), now=0)

        assert drain(queue) == [[1, 2, 3]]


@given(st.data())
def test_whatever_happens_each_record_is_finished_once_and_each_key_in_order(
    data: st.DataObject,
) -> None:
    """The queue's promise, whatever the function does, for all settings."""
    mapping_settings = MappingSettings(
        batch_size=data.draw(st.integers(1, 5)),
        parallelization_factor=data.draw(st.integers(1, 3)),
        report_batch_item_failures=data.draw(st.booleans()),
        bisect_batch_on_function_error=data.draw(st.booleans()),
        maximum_retry_attempts=data.draw(st.sampled_from([0, 1, 3])),
    )
    queue = ShardQueue(mapping_settings, backoff=NO_WAIT)
    fed = [record(n, key=data.draw(st.sampled_from("abc"))) for n in range(data.draw(st.integers(0, 12)))]
    queue.feed(fed, now=0)
    queue.close()
    finished: list[int] = []
    out: list[Batch | Discard] = []
    faults = data.draw(st.integers(0, 12))
    while not queue.finished:
        while work := queue.next_work(0):
            out.append(work)
        work = out.pop(data.draw(st.integers(0, len(out) - 1)))
        if isinstance(work, Discard):
            queue.discarded(work)
            finished += numbers(work.batch)
        else:
            some = data.draw(st.sampled_from(work.sequence_numbers))
            faulty: list[Outcome] = [
                Answered({"batchItemFailures": [{"itemIdentifier": some}]}),
                THROWN,
                THROTTLED,
                CheckpointLost(),
            ]
            outcome = data.draw(st.sampled_from(faulty)) if faults > 0 else DONE
            faults -= 1
            finished += numbers(decide(work, outcome, mapping_settings).done)
            queue.settle(work, outcome, 0)
        assert set(range(int(queue.checkpoint or -1) + 1)) <= set(finished)

    assert sorted(finished) == list(range(len(fed)))
    for key in "abc":
        of_key = [number for number in finished if fed[number].key == key]
        assert of_key == sorted(of_key)


def test_it_counts_what_it_took_and_what_of_it_is_not_processed() -> None:
    queue = make_queue(batch_size=2)
    queue.feed(records(1, 2, 3), 0)
    queue.feed(records(3), 0)  # read twice
    assert (queue.taken, queue.unprocessed) == (3, 3)
    queue.settle(next_batch(queue), DONE, 0)
    assert (queue.taken, queue.unprocessed) == (3, 1)


class TestTumblingWindows:
    """Windows of ten seconds. The function counts what it sees, and answers with the count as its state."""

    @staticmethod
    def count(batch: Batch) -> Outcome:
        assert batch.window is not None
        seen = batch.window.state.get("seen", 0) + len(batch.records)
        return Answered({"state": {"seen": seen}})

    def windows(self, queue: ShardQueue, now: float) -> list[tuple[float, list[int], Any, bool]]:
        log = []
        while work := queue.next_work(now):
            assert isinstance(work, Batch)
            assert work.window is not None
            log.append((work.window.start, numbers(work), work.window.state, work.window.final))
            queue.settle(work, self.count(work), now)
        return log

    @staticmethod
    def queue(**settings: Any) -> ShardQueue:
        return ShardQueue(
            MappingSettings(tumbling_window_seconds=10, **settings),
            backoff=NO_WAIT,
            shard_id="s0",
            source_arn="arn",
        )

    def test_the_state_goes_from_one_invocation_to_the_next_and_ends_with_the_window(self) -> None:
        queue = self.queue(batch_size=2)
        queue.feed([*records(1, 2, 3, arrived_at=1001), *records(4, arrived_at=1012)], now=1012)

        assert self.windows(queue, 1012) == [
            (1000, [1, 2], {}, False),
            (1000, [3], {"seen": 2}, False),
            (1000, [], {"seen": 3}, True),
            (1010, [4], {}, False),
        ]

    def test_the_event_is_as_documented(self) -> None:
        queue = self.queue()
        queue.feed(records(1, arrived_at=1_607_497_475), now=1_607_497_475)
        event = next_batch(queue, 1_607_497_475).event

        assert {key: value for key, value in event.items() if key != "Records"} == {
            "window": {"start": "2020-12-09T07:04:30Z", "end": "2020-12-09T07:04:40Z"},
            "state": {},
            "shardId": "s0",
            "eventSourceARN": "arn",
            "isFinalInvokeForWindow": False,
            "isWindowTerminatedEarly": False,
        }

    def test_the_payload_is_the_event_with_records_and_without(self) -> None:
        queue = self.queue()
        queue.feed(records(1, arrived_at=1001), now=1001)
        first = next_batch(queue, 1001)
        queue.settle(first, self.count(first), 1001)
        last = next_batch(queue, 1011)

        assert json.loads(first.payload) == first.event
        assert json.loads(last.payload) == last.event

    def test_a_window_ends_by_the_clock_where_nothing_follows(self) -> None:
        queue = self.queue()
        queue.feed(records(1, arrived_at=1001), now=1002)
        assert self.windows(queue, 1002) == [(1000, [1], {}, False)]
        assert queue.wake_at == 1011

        assert self.windows(queue, 1010.9) == []
        assert self.windows(queue, 1011) == [(1000, [], {"seen": 1}, True)]

    def test_nothing_is_checkpointed_before_the_window_is_done(self) -> None:
        """Who starts again has lost the state, so the window has to begin anew."""
        queue = self.queue()
        queue.feed(records(1, 2, arrived_at=1001), now=1002)
        self.windows(queue, 1002)
        assert queue.checkpoint is None
        assert not queue.idle

        self.windows(queue, 1011)
        assert queue.checkpoint == "2"
        assert queue.idle

    def test_the_end_of_the_shard_ends_the_window(self) -> None:
        queue = self.queue()
        queue.feed(records(1, arrived_at=1001), now=1002)
        queue.close()

        assert [final for *_, final in self.windows(queue, 1002)] == [False, True]
        assert queue.finished

    def test_a_response_without_state_is_a_failure(self) -> None:
        queue = self.queue(maximum_retry_attempts=0)
        queue.feed(records(1, arrived_at=1001), now=1002)
        queue.settle(next_batch(queue, 1002), DONE, 1002)

        discard = queue.next_work(1002)
        assert isinstance(discard, Discard)
        queue.discarded(discard)
        assert self.windows(queue, 1011) == [(1000, [], {}, True)]
        assert queue.checkpoint == "1"

    def test_a_partial_failure_keeps_the_state_of_what_is_done(self) -> None:
        queue = self.queue(report_batch_item_failures=True)
        queue.feed(records(1, 2, arrived_at=1001), now=1002)
        answer = {"state": {"seen": 1}, "batchItemFailures": [{"itemIdentifier": "2"}]}
        queue.settle(next_batch(queue, 1002), Answered(answer), 1002)

        assert self.windows(queue, 1011) == [
            (1000, [2], {"seen": 1}, False),
            (1000, [], {"seen": 2}, True),
        ]

    def test_the_last_invocation_is_tried_until_it_succeeds(self) -> None:
        queue = self.queue(maximum_retry_attempts=0)
        queue.feed(records(1, arrived_at=1001), now=1002)
        self.windows(queue, 1002)
        for _ in range(3):
            queue.settle(next_batch(queue, 1011), THROWN, 1011)
            assert queue.checkpoint is None

        assert self.windows(queue, 1011) == [(1000, [], {"seen": 1}, True)]
        assert queue.checkpoint == "1"

    def test_a_state_that_is_too_large_ends_the_window_early(self) -> None:
        queue = self.queue(batch_size=1)
        queue.feed(records(1, 2, arrived_at=1001), now=1002)
        queue.settle(next_batch(queue, 1002), Answered({"state": {"x": "x" * STATE_LIMIT}}), 1002)
        last = next_batch(queue, 1002)
        assert last.window is not None
        assert (numbers(last), last.window.early, last.window.final) == ([], True, True)

        queue.settle(last, DONE, 1002)
        assert self.windows(queue, 1002) == [(1000, [2], {}, False)]
