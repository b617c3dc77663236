"""Keeping positions."""

from __future__ import annotations

from pathlib import Path

import pytest

from lambda_esm.checkpoints import CheckpointStore, FileCheckpoints, MemoryCheckpoints


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> CheckpointStore:
    return (
        MemoryCheckpoints() if request.param == "memory" else FileCheckpoints(tmp_path / "checkpoints.json")
    )


def test_a_mapping_that_was_never_run_has_no_positions(store: CheckpointStore) -> None:
    assert store.load("m") == {}


def test_the_last_position_of_each_shard_of_each_mapping_is_kept(store: CheckpointStore) -> None:
    store.save("m", "s0", "1")
    store.save("m", "s0", "2")
    store.save("m", "s1", "LATEST")
    store.save("n", "s0", "3")

    assert store.load("m") == {"s0": "2", "s1": "LATEST"}
    assert store.load("n") == {"s0": "3"}


def test_what_was_loaded_does_not_change_afterwards(store: CheckpointStore) -> None:
    store.save("m", "s0", "1")
    loaded = store.load("m")
    store.save("m", "s0", "2")

    assert loaded == {"s0": "1"}


def test_a_file_is_read_again_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.json"
    FileCheckpoints(path).save("m", "s0", "1")

    assert FileCheckpoints(path).load("m") == {"s0": "1"}
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoints.json"]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"m": "s0"}'])
def test_a_file_of_something_else_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "checkpoints.json"
    path.write_text(content)

    with pytest.raises(ValueError, match=r"checkpoints\.json does not hold checkpoints"):
        FileCheckpoints(path)
