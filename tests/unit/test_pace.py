"""What a publisher knows about its shards."""

from __future__ import annotations

import hashlib

import pytest

from producer.pace import SHARD_BYTES, SHARD_RECORDS, WINDOW, ShardPace, StreamPace, wait_after


def shard() -> ShardPace:
    return ShardPace(lambda: 1.0)


class TestWait:
    @pytest.mark.parametrize(
        ("failures", "bound"), [(1, 0.1), (2, 0.2), (3, 0.4), (6, 3.2), (7, 5.0), (12, 5.0), (9_999, 5.0)]
    )
    def test_is_a_random_part_of_a_bound_that_doubles(self, failures: int, bound: float) -> None:
        assert wait_after(failures, lambda: 1.0) == pytest.approx(bound)
        assert wait_after(failures, lambda: 0.25) == pytest.approx(bound / 4)
        assert wait_after(failures, lambda: 0.0) == 0


class TestShard:
    def test_takes_its_limit_at_once_and_then_nothing_for_a_second(self) -> None:
        ours = shard()
        assert ours.allows(SHARD_RECORDS, 0, now=0.0)
        assert not ours.allows(SHARD_RECORDS + 1, 0, now=0.0)
        ours.took(SHARD_RECORDS, 0, now=0.5)
        assert not ours.allows(1, 0, now=1.49)
        assert ours.next_change(1.0) == 0.5 + WINDOW
        assert ours.allows(SHARD_RECORDS, 0, now=1.5)

    def test_counts_bytes_as_well(self) -> None:
        ours = shard()
        ours.took(1, SHARD_BYTES - 100, now=0.0)
        assert ours.allows(1, 100, now=0.0)
        assert not ours.allows(1, 101, now=0.0)

    def test_takes_one_record_of_any_size_when_idle(self) -> None:
        ours = shard()
        ours.took(1, 1, now=0.0)
        ours.throttled(now=0.0)
        assert ours.share < 1
        assert ours.allows(1, SHARD_BYTES, now=5.0)
        assert not ours.allows(2, SHARD_BYTES, now=5.0)

    def test_that_refuses_gets_a_pause_and_then_a_probe(self) -> None:
        ours = shard()
        ours.throttled(now=0.0)
        assert not ours.allows(1, 1, now=0.09)
        assert ours.next_change(0.0) == ours.paused_until == pytest.approx(0.1)
        assert ours.allows(10, 1, now=0.1)
        assert not ours.allows(11, 1, now=0.1)
        ours.throttled(now=0.1)
        assert ours.paused_until == pytest.approx(0.3)
        ours.took(10, 1, now=0.4)
        assert ours.allows(11, 1, now=0.4)

    def test_falls_to_what_it_did_take_but_by_half_at_most(self) -> None:
        ours = shard()
        ours.took(700, 0, now=0.0)
        ours.throttled(now=0.0)
        assert ours.share == pytest.approx(0.7)
        assert ours.next_change(0.0) == WINDOW, "what it has taken makes it wait: no pause beside that"
        ours.took(100, 0, now=2.0)
        ours.throttled(now=2.0)
        assert ours.share == pytest.approx(0.35)

    def test_keeps_what_it_took_in_the_second_before_the_request_was_sent(self) -> None:
        ours = shard()
        ours.took(500, 0, now=0.05)
        ours.took(499, 0, now=1.0)
        ours.throttled(now=1.07, sent=1.04)
        assert ours.share == pytest.approx(0.999), "the first 500 were still in the window"
        assert ours.refusals == 0

    def test_keeps_its_share_when_a_probe_is_refused(self) -> None:
        ours = shard()
        for now in range(5):
            ours.throttled(now=now)
        assert ours.share == pytest.approx(0.5)

    def test_grows_again_with_each_second_of_full_use(self) -> None:
        ours = shard()
        ours.took(500, 0, now=0.0)
        ours.throttled(now=0.0)
        shares = []
        for now in range(1, 9):
            ours.took(int(ours.share * SHARD_RECORDS), 0, now=now)
            ours.went_well(now)
            ours.went_well(now + 0.1)
            shares.append(ours.share)
        assert shares == pytest.approx([0.51, 0.53, 0.57, 0.65, 0.81, 1, 1, 1])

    def test_grows_beyond_the_documented_limit_until_it_is_throttled(self) -> None:
        ours = shard()
        for now in range(3):
            ours.took(int(ours.share * SHARD_RECORDS), 0, now=now)
            ours.went_well(now)
        assert ours.share == pytest.approx(1.012), "0.2 % first, then 1 %"
        ours.throttled(now=2.0)
        assert ours.share == 1
        for now in range(4, 9):
            ours.took(SHARD_RECORDS, 0, now=now)
            ours.went_well(now)
        assert ours.share == 1

    def test_does_not_grow_without_use(self) -> None:
        ours = shard()
        for now in range(9):
            ours.took(700, 0, now=now)
            ours.went_well(now)
        assert ours.share == 1


class TestStream:
    def test_has_1024_slots_in_the_order_of_the_hashes(self) -> None:
        for key in ("a", "b", "ü", "x" * 256):
            md5 = int.from_bytes(hashlib.md5(key.encode()).digest())
            assert StreamPace.slot(key) == md5 >> 118

    def test_is_taken_for_one_shard_before_the_first_answer(self) -> None:
        unknown = StreamPace(lambda: 0.0).shard(3)
        assert unknown.allows(500, SHARD_BYTES, now=0.0)
        assert not unknown.allows(500, SHARD_BYTES + 1, now=0.0)
        assert unknown.allows(64, 64 * SHARD_BYTES, now=0.0), "a few large ones, to see the shards"

    @pytest.mark.parametrize("order", [("left", "right"), ("right", "left")])
    def test_takes_an_unseen_slot_for_the_nearest_one_that_was_seen(self, order: tuple[str, str]) -> None:
        stream = StreamPace(lambda: 0.0)
        found = {name: stream.learn({"left": 100, "right": 500}[name], name) for name in order}
        left, right = found["left"], found["right"]
        assert stream.shard(0) is stream.shard(100) is stream.shard(299) is left
        assert stream.shard(301) is stream.shard(500) is stream.shard(1023) is right

    def test_says_when_a_slot_has_changed(self) -> None:
        stream = StreamPace(lambda: 0.0)
        before = stream.version
        stream.learn(7, "a")
        changed = stream.version
        stream.learn(7, "a")
        assert before != changed == stream.version

    def test_forgets_where_a_closed_shard_was(self) -> None:
        stream = StreamPace(lambda: 0.0)
        parent = stream.learn(100, "parent")
        stream.learn(900, "parent")
        child = stream.learn(300, "child")
        stream.closed(parent)
        assert stream.shard(0) is stream.shard(100) is stream.shard(900) is child

    def test_follows_a_reshard(self) -> None:
        stream = StreamPace(lambda: 0.0)
        parent = stream.learn(7, "parent")
        child = stream.learn(7, "child")
        assert stream.shard(7) is child is not parent
        assert stream.learn(8, "child") is child

    def test_keeps_what_it_knows_when_an_answer_names_no_shard(self) -> None:
        stream = StreamPace(lambda: 0.0)
        known = stream.learn(7, "known")
        assert stream.learn(7, None) is known
