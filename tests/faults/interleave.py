"""Every interleaving of several invocations, depth first through the choices of the scheduler.

Not each order is run. Where two calls touch different items and rows (``Call.commutes``), the order of the two
makes no difference, and of the orders that differ in nothing else one is run: sleep sets, as in P. Godefroid,
Partial-Order Methods for the Verification of Concurrent Systems (1996), chapter 5. What is left out ends as
something that is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.faults.turns import Call, Choose


@dataclass
class _Node:
    """A place where a choice is made."""

    calls: list[Call]
    asleep: dict[int, Call]
    """By invocation: who need not go next, because that has been tried, here or where it makes no difference."""
    chosen: int

    @property
    def call(self) -> Call:
        return self.calls[self.chosen]

    def first_awake(self) -> int | None:
        return next((at for at, call in enumerate(self.calls) if call.actor not in self.asleep), None)


class _Orders:
    def __init__(self) -> None:
        self.path: list[_Node] = []
        self.depth = 0
        self.redundant = False
        """This run is one of those that need not be run: no choice is left that makes a difference."""

    def choose(self, calls: list[Call]) -> int:
        depth, self.depth = self.depth, self.depth + 1
        if depth < len(self.path):
            node = self.path[depth]
            known = [(call.actor, call.operation) for call in node.calls]
            now = [(call.actor, call.operation) for call in calls]
            assert known == now, (
                f"not the same history: {known} has become {now} after {self._order()[:depth]}"
            )
            node.calls = calls
            return node.chosen
        if self.redundant:
            return 0
        node = _Node(calls, self._inherited(), 0)
        awake = node.first_awake()
        if awake is None:
            self.redundant = True
            return 0
        node.chosen = awake
        self.path.append(node)
        return awake

    def _inherited(self) -> dict[int, Call]:
        if not self.path:
            return {}
        above = self.path[-1]
        return {actor: call for actor, call in above.asleep.items() if call.commutes(above.call)}

    def _order(self) -> list[str]:
        return [f"{node.call.actor}: {node.call.operation}" for node in self.path]

    def go_back(self) -> bool:
        """To the last place where another choice is left. False: there is none."""
        while self.path:
            node = self.path[-1]
            node.asleep[node.call.actor] = node.call
            awake = node.first_awake()
            if awake is not None:
                node.chosen = awake
                self.depth, self.redundant = 0, False
                return True
            self.path.pop()
        return False


def every_order[Result](run: Callable[[Choose], Result]) -> Iterator[tuple[list[str], Result]]:
    """Run once for each order that makes a difference; gives the order and what came of it."""
    orders = _Orders()
    again = True
    while again:
        result = run(orders.choose)
        if not orders.redundant:
            yield [f"{node.call.actor}: {node.call.operation}" for node in orders.path], result
        again = orders.go_back()
