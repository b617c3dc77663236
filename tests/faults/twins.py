"""Two invocations of one batch at once: one goes from one I/O call to the next, then a scheduler chooses again.

The same choices are the same history. A step that waits for a lock in Postgres does not hold the scheduler up:
the other invocation goes on, and the lock ends with its transaction.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from local.streams.records import Answered, FunctionFailed

if TYPE_CHECKING:
    from tests.faults.environment import Environment
    from tests.faults.postgres import TestDatabase
    from tests.faults.world import World

_LOOK_SECONDS = 0.005
"""How long a step runs before Postgres is asked whether it waits for a lock."""


class _Actor:
    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.go = threading.Semaphore(0)
        self.stopped = threading.Event()
        self.done = False
        self.waits = False
        """For a lock, inside a step."""


class Twins:
    """Delivers a batch to two environments at once. ``choose(n)`` says which of n goes next."""

    def __init__(self, world: World, database: TestDatabase, choose: Callable[[int], int]) -> None:
        self._world = world
        self._database = database
        self._choose = choose
        self._actors: dict[Environment, _Actor] = {}

    def deliver(self, function: str, event: Any) -> Answered | FunctionFailed:
        """The poller counts the outcome of the first; the second is one that it does not know of any more."""
        return self.both(function, event, event)[0]

    def both(self, function: str, *events: Any) -> list[Answered | FunctionFailed]:
        """Invoke the function with each event, all at once."""
        environments = []
        for _ in events:
            environments.append(self._world.environment(function))
            environments[-1].busy = True
        self._actors = {each: _Actor(each) for each in environments}
        self._world.pause = self._pause
        try:
            with ThreadPoolExecutor(len(events)) as pool:
                runs = [
                    pool.submit(self._run, self._actors[environment], event)
                    for environment, event in zip(environments, events, strict=True)
                ]
                self._schedule()
            return [run.result() for run in runs]
        finally:
            self._world.pause = lambda environment: None

    def _run(self, actor: _Actor, event: Any) -> Answered | FunctionFailed:
        actor.go.acquire()
        try:
            return self._world.invoke_in(actor.environment, event)
        finally:
            actor.done = True
            actor.stopped.set()

    def _pause(self, environment: Environment) -> None:
        actor = self._actors[environment]
        actor.stopped.set()
        actor.go.acquire()

    def _schedule(self) -> None:
        actors = list(self._actors.values())
        while not all(actor.done for actor in actors):
            ready = [actor for actor in actors if not actor.done and not actor.waits]
            if not ready:
                for actor in actors:  # the one that held the lock is gone
                    actor.stopped.wait()
                    actor.waits = False
                continue
            chosen = ready[self._choose(len(ready)) if len(ready) > 1 else 0]
            chosen.stopped.clear()
            chosen.go.release()
            self._wait(chosen)
            for actor in actors:
                if actor.waits:
                    actor.waits = False
                    self._wait(actor)

    def _wait(self, actor: _Actor) -> None:
        """Until the actor is at its next step, or waits for a lock."""
        while not actor.stopped.wait(_LOOK_SECONDS):
            if self._is_locked(actor):
                actor.waits = True
                return

    def _is_locked(self, actor: _Actor) -> bool:
        pids = [connection.pid for connection in actor.environment.connections if connection.pid]
        return any(
            self._database.run("SELECT cardinality(pg_blocking_pids(:pid ::integer))", pid=pid)[0][0]
            for pid in pids
        )
