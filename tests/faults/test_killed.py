"""A consumer process is killed (SIGKILL) at several of its I/O calls, and another one takes over."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import Any

from tests.faults.client_pool import ClientPool
from tests.faults.faults import Killed, Plan
from tests.faults.history import Harness
from tests.faults.laboratory import EXPIRY_SECONDS
from tests.faults.scenarios import CHUNK_BYTES
from tests.faults.seams import installed
from tests.faults.world import World
from tests.unit.consumer_support import message

RECORDS = [message("a"), message("b"), b"poison"]


def _consume(variables: dict[str, str], kill_at: int, claims: Any) -> None:
    """In a process of its own: deliver one batch; at one step, the process kills itself."""
    with installed(**variables):
        world = World(ClientPool(), Plan())
        for data in RECORDS:
            world.kinesis.put(data, "k")

        def pause(_: Any) -> None:
            if len(world.plan.steps) == kill_at:
                claims.send(world.claims.items)
                os.kill(os.getpid(), signal.SIGKILL)

        world.pause = pause
        world.deliver_stream()
        claims.send(None)


def test_a_process_that_is_really_killed_leaves_nothing_that_another_cannot_finish(harness: Harness) -> None:
    context = multiprocessing.get_context("spawn")
    variables = harness.database.variables | {
        "CHUNK_BYTES": str(CHUNK_BYTES),
        "IDEMPOTENCY_EXPIRY_SECONDS": str(EXPIRY_SECONDS),
    }
    killed_at = []
    for step in (0, 4, 5, 6, 7):  # before the claim, the insert, the rejection, the commit, the completion
        harness.database.reset()
        ours, theirs = context.Pipe()
        process = context.Process(target=_consume, args=(variables, step, theirs))
        process.start()
        claims = ours.recv()
        process.join()
        assert claims is not None, f"there is no step {step}"
        assert process.exitcode == -signal.SIGKILL
        killed_at.append(step)
        world = World(harness.pool, Plan())
        world.claims.items.update(claims)
        for data in RECORDS:
            world.kinesis.put(data, "k")
        world.drain()
        world.close()
        assert harness.database.run("SELECT id FROM records ORDER BY id") == [["a"], ["b"]]
        assert harness.database.run("SELECT count(*) FROM rejected_records") == [[1]]
        assert world.violations == []
    assert len(killed_at) == 5


def test_nothing_catches_the_end_of_a_process() -> None:
    assert not issubclass(Killed, Exception)
