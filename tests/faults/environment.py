"""An execution environment of a function, and the fault layer around its I/O.

The product's code runs unchanged. What is replaced lies around it: the HTTP session of each boto3 client, the
Postgres connection, the clock, and the caches that hold what an environment keeps between invocations, so
that several environments can live in one process.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, NoReturn

from common.observability import metrics
from tests.faults.connection import Connection, here
from tests.faults.faults import Killed, Kind
from tests.faults.in_flight import InFlight
from tests.faults.ports import Port

if TYPE_CHECKING:
    from tests.faults.world import World

SECONDS_A_STEP = 0.01
LOST_SECONDS = 10.0
"""What a client waits for an answer that does not come: the read timeout of common.clients."""


class Context:
    """The context of an invocation."""

    memory_limit_in_mb = 1024
    aws_request_id = "request-1"
    log_stream_name = "log-stream-1"

    def __init__(self, environment: Environment, deadline: float) -> None:
        self.function_name = environment.function
        self.invoked_function_arn = f"arn:aws:lambda:us-east-1:123456789012:function:{environment.function}"
        self.deadline = deadline
        self._clock = environment.world.clock

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self.deadline - self._clock.now) * 1000))


class Environment:
    """One execution environment of ``function``; ``skew`` is how far its clock is ahead, in seconds."""

    def __init__(self, world: World, function: str, skew: float = 0.0) -> None:
        self.world = world
        self.function = function
        self.skew = skew
        self.dead = False
        self.busy = False
        self.kept: dict[Any, Any] = {}
        """What the handlers' modules cache."""
        self.connections: list[Connection] = []
        self.owners: set[str] = set()
        """Owners of claims that it has written."""
        self.late_owners: set[str] = set()
        """Of these: owners of claims that were written when it had given them up."""
        self.link = world.links.to_aws(self, world.way, world.patience)
        self.transport = InFlight(self, Random(f"{world.order} {function} {len(list(world.environments()))}"))
        """Where the consumer sends its claims."""
        self._context: Context | None = None
        self._locked = False

    def now(self) -> float:
        """The time as this environment's clock has it."""
        return self.world.clock.now + self.skew

    def sleep(self, seconds: float) -> None:
        self.world.clock.now += seconds

    def client(self, service: str) -> Any:
        """A boto3 client whose requests end in this world."""
        return self.link.client(service)

    def invoke(self, handler: Callable[..., Any], event: Any, seconds: float) -> Any:
        """Run the handler. Raises what it raises, or Killed."""
        previous = getattr(here, "environment", None)
        here.environment, self.busy, self._locked = self, True, False
        self._context = Context(self, self.world.clock.now + seconds)
        try:
            answer = handler(event, self._context)
        except Killed:
            self.kill()
            raise
        finally:
            here.environment, self.busy = previous, False
            metrics.clear_metrics()  # with metrics off nobody writes them, and the 100th of a kind fails
        if self.dead:  # somebody caught what may not be caught
            raise AssertionError("the handler went on after its process was killed")
        return json.loads(json.dumps(answer))

    def kill(self) -> None:
        """End the process: its connections break, what it kept is gone."""
        self.dead = True
        self.transport.break_off()
        self.link.break_off()
        for connection in self.connections:
            connection.break_off()
            if self.world.turns and connection.pid:
                # The server finds out in its own time, and others may wait for a lock until then.
                self.world.database.terminate(connection.pid)

    def retire(self) -> None:
        """Give the clients back; the environment is not used any more."""
        self.kill()
        for connection in self.connections:
            connection.discard()
        self.link.close()

    def step(self, service: str, operation: str, port: Port, *, alone: bool = False) -> Any:
        """One I/O call, with the fault that is planned for it. ``alone``: nobody else can see it."""
        if not alone:
            self._take_turns(operation, port)
        return self._carry_out(self.announce(service, operation), port)

    def announce(self, service: str, operation: str) -> Kind | None:
        """An I/O call is about to be made. Returns the fault that is planned for it."""
        world = self.world
        self._check_alive()
        world.clock.now += SECONDS_A_STEP
        world.let_arrive()
        fault = world.plan.next(self.function, service, operation)
        if fault == "crash before":
            self._die()
        if fault == "locked":
            self._locked = True
        elif fault is None and self._locked and operation == "INSERT records":
            fault = "locked"
        return fault

    def carry_out(self, operation: str, fault: Kind | None, port: Port) -> Any:
        """What is under way happens now."""
        self._take_turns(operation, port)
        self._check_alive()
        return self._carry_out(fault, port)

    def _take_turns(self, operation: str, port: Port) -> None:
        if self.world.turns:
            self.world.turns.pause(self, operation, port.touches)

    def _carry_out(self, fault: Kind | None, port: Port) -> Any:
        world = self.world
        match fault:
            case None:
                answer = port.perform()
            case "crash after":
                port.happen()
                self._die()
            case "slow":
                world.clock.now += 5
                answer = port.perform()
            case "late" | "timeout":
                answer = port.perform()
                deadline = self._context.deadline if self._context else world.clock.now
                world.clock.now = max(world.clock.now, deadline - (3 if fault == "late" else 0))
                self._check_alive()
            case "lost" | "overdue":
                if fault == "lost":
                    port.happen()
                else:
                    world.postpone(self, port.happen)
                world.clock.now += LOST_SECONDS
                self._check_alive()
                answer = port.give_up()
            case "refuse":
                answer = port.refuse()
            case _:
                answer = port.fail(fault)
        return answer

    def _check_alive(self) -> None:
        if self.dead:
            raise Killed
        if self._context and self.world.clock.now >= self._context.deadline:
            self._die()

    def _die(self) -> NoReturn:
        self.dead = True
        raise Killed
