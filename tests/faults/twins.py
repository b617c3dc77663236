"""Several invocations at once, from one I/O call to the next in an order that somebody chooses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from lambda_esm import Answered, FunctionFailed
from tests.faults.turns import Choose, Turns

if TYPE_CHECKING:
    from tests.faults.environment import Environment
    from tests.faults.postgres import TestDatabase
    from tests.faults.world import World


class Twins:
    """Delivers a batch to two environments at once. The same choices are the same history."""

    def __init__(self, world: World, database: TestDatabase, choose: Choose) -> None:
        self._world = world
        self._database = database
        self._choose = choose

    def deliver(self, function: str, event: Any) -> Answered | FunctionFailed:
        """The poller counts the outcome of the first; the second is one that it does not know of any more."""
        return self.both(function, event, event)[0]

    def both(self, function: str, *events: Any) -> list[Answered | FunctionFailed]:
        """Invoke the function with each event, all at once."""
        world = self._world
        environments = []
        for _ in events:
            environments.append(world.environment(function))
            environments[-1].busy = True
        turns = world.turns = Turns(self._choose, self._is_locked)
        for environment in environments:
            turns.add(environment)

        def invoke(environment: Environment, event: Any) -> Answered | FunctionFailed:
            with turns.taking_part(environment):
                return world.invoke_in(environment, event)

        try:
            with ThreadPoolExecutor(len(events)) as pool:
                runs = [pool.submit(invoke, *each) for each in zip(environments, events, strict=True)]
                turns.go_on()
                while not all(run.done() for run in runs):
                    turns.look()
            if turns.failure:
                raise turns.failure
            return [run.result() for run in runs]
        finally:
            world.turns = None

    def _is_locked(self, environment: Environment) -> bool:
        if self._database.is_away:
            return False
        pids = [connection.pid for connection in environment.connections if connection.pid]
        return any(
            self._database.run("SELECT cardinality(pg_blocking_pids(:pid ::integer))", pid=pid)[0][0]
            for pid in pids
        )
