"""Several requests in flight at once, answered in an order that is the history's own."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from tests.faults.faults import IN_VAIN, Killed, Kind

if TYPE_CHECKING:
    from tests.faults.environment import Environment
    from tests.faults.ports import Port


class InFlight:
    """A transport. Its requests are sent at once, and carried out when somebody waits for one or asks whether it is
    done: whichever of them ``order`` draws.
    """

    def __init__(self, environment: Environment, order: Random) -> None:
        self._environment = environment
        self._order = order
        self._under_way: list[_Asked] = []

    def send(self, operation: str, request: dict[str, Any]) -> _Asked:
        """Send a request."""
        environment = self._environment
        fault = environment.announce("dynamodb", operation)
        asked = _Asked(self, operation, environment.link.call(operation, request), fault)
        if fault == "refuse":
            asked.carry_out(environment)
        else:
            asked.port.send()
            self._under_way.append(asked)
        return asked

    def answer_one(self) -> None:
        """Carry out one of those under way."""
        if self._environment.dead:
            raise Killed
        # Over sockets, who waits in vain waits really, and would keep the others waiting for as long.
        ready = [each for each in self._under_way if not each.in_vain] or self._under_way
        asked = self._order.choice(ready)
        self._under_way.remove(asked)
        asked.carry_out(self._environment)

    def coin(self) -> bool:
        return self._order.random() < 0.5

    def break_off(self) -> None:
        """The process has ended. Of what it had sent, some gets to DynamoDB all the same, and later."""
        for asked in self._under_way:
            if self.coin():
                self._environment.world.postpone(self._environment, asked.port.happen)
        self._under_way.clear()


class _Asked:
    """A request under way, and its outcome when there is one."""

    def __init__(self, all_of_them: InFlight, operation: str, port: Port, fault: Kind | None) -> None:
        self.port = port
        self._all = all_of_them
        self._operation = operation
        self._fault = fault
        self._answer: dict[str, Any] | None = None
        self._error: BotoCoreError | ClientError | None = None

    def done(self) -> bool:
        """Whether it has been answered by now. It may be answered at this moment."""
        if not self._decided and self._all.coin():
            self._all.answer_one()
        return self._decided

    def result(self) -> dict[str, Any]:
        """The answer: those under way are carried out until this one is."""
        while not self._decided:
            self._all.answer_one()
        if self._error:
            raise self._error
        assert self._answer is not None
        return self._answer

    @property
    def in_vain(self) -> bool:
        """Whether its answer will not come."""
        return self._fault in IN_VAIN

    def carry_out(self, environment: Environment) -> None:
        """Its turn has come."""
        try:
            self._answer = environment.carry_out(self._operation, self._fault, self.port)
        except (BotoCoreError, ClientError) as error:
            self._error = error

    @property
    def _decided(self) -> bool:
        return self._answer is not None or self._error is not None
