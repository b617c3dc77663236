"""Which shards are read, from where, and in which order."""

from __future__ import annotations

from lambda_esm.mapping import LATEST, SHARD_END, TRIM_HORIZON
from lambda_esm.shards import Lineage, Shard

A, B = Shard("a"), Shard("b")


def closed(shard: Shard) -> Shard:
    return Shard(shard.id, shard.parents, closed=True)


def test_all_shards_are_read_from_the_start_at_trim_horizon() -> None:
    lineage = Lineage(TRIM_HORIZON)

    assert lineage.update([A, B]) == {"a": TRIM_HORIZON, "b": TRIM_HORIZON}
    assert lineage.start() == {"a": TRIM_HORIZON, "b": TRIM_HORIZON}
    assert lineage.start() == {}


def test_the_children_of_a_split_wait_for_their_parent() -> None:
    lineage = Lineage(TRIM_HORIZON)
    lineage.update([closed(A), Shard("a1", ("a",)), Shard("a2", ("a",))])

    assert lineage.start() == {"a": TRIM_HORIZON}
    assert lineage.waiting
    lineage.finish("a")
    assert lineage.start() == {"a1": TRIM_HORIZON, "a2": TRIM_HORIZON}
    assert not lineage.waiting


def test_the_child_of_a_merge_waits_for_both_parents() -> None:
    lineage = Lineage(TRIM_HORIZON)
    lineage.update([closed(A), closed(B), Shard("ab", ("a", "b"))])
    lineage.start()

    lineage.finish("b")
    assert lineage.start() == {}
    lineage.finish("a")
    assert lineage.start() == {"ab": TRIM_HORIZON}


def test_grandchildren_wait_for_children() -> None:
    lineage = Lineage(TRIM_HORIZON)
    lineage.update([closed(A), Shard("a1", ("a",), closed=True), Shard("a11", ("a1",))])
    lineage.start()

    lineage.finish("a")
    assert lineage.start() == {"a1": TRIM_HORIZON}
    lineage.finish("a1")
    assert lineage.start() == {"a11": TRIM_HORIZON}


def test_latest_is_about_the_shards_open_at_the_start() -> None:
    lineage = Lineage(LATEST)

    assert lineage.update([closed(A), Shard("a1", ("a",)), B]) == {"a": SHARD_END, "a1": LATEST, "b": LATEST}
    assert lineage.start() == {"a1": LATEST, "b": LATEST}


def test_a_shard_found_later_is_read_from_its_start_although_the_mapping_says_latest() -> None:
    lineage = Lineage(LATEST)
    lineage.update([A])
    lineage.start()

    assert lineage.update([closed(A), Shard("a1", ("a",))]) == {"a1": TRIM_HORIZON}
    lineage.finish("a")
    assert lineage.start() == {"a1": TRIM_HORIZON}


def test_a_child_whose_parent_expired_starts_at_once() -> None:
    lineage = Lineage(TRIM_HORIZON)
    lineage.update([Shard("a1", ("a",))])

    assert lineage.start() == {"a1": TRIM_HORIZON}


def test_a_child_waits_for_a_parent_that_is_still_being_read_but_no_longer_listed() -> None:
    lineage = Lineage(TRIM_HORIZON)
    lineage.update([A])
    lineage.start()
    lineage.update([Shard("a1", ("a",))])

    assert lineage.start() == {}
    lineage.finish("a")
    assert lineage.start() == {"a1": TRIM_HORIZON}


def test_a_restarted_mapping_goes_on_from_its_checkpoints() -> None:
    lineage = Lineage(LATEST, {"a": "17", "b": SHARD_END})

    assert lineage.update([A, closed(B), Shard("b1", ("b",))]) == {"b1": TRIM_HORIZON}
    assert lineage.start() == {"a": "17", "b1": TRIM_HORIZON}


def test_a_checkpoint_of_a_shard_that_expired_does_not_hold_its_child_back() -> None:
    lineage = Lineage(TRIM_HORIZON, {"a": "17"})
    lineage.update([Shard("a1", ("a",))])

    assert lineage.start() == {"a1": TRIM_HORIZON}


def test_latest_holds_until_the_stream_has_shards() -> None:
    lineage = Lineage(LATEST)
    lineage.update([])

    assert lineage.update([A]) == {"a": LATEST}
