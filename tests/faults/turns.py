"""Who goes next: of several invocations at once, one goes at a time, from one I/O call to the next.

So a history with several invocations at once is the same each time: ``choose`` makes up the order. An
invocation that is alone notices nothing of it. A call that waits for a lock in Postgres does not hold the
others up: the lock ends with somebody's transaction, and they go on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.environment import Environment

_LOOK_SECONDS = 0.0005
"""How long a call runs before Postgres is asked whether it waits for a lock."""

type Touches = frozenset[tuple[str, ...]] | None
"""What a call looks at or changes: items and rows. None: nobody knows, so perhaps everything."""


@dataclass(eq=False)
class Call:
    """What an invocation is going to do when it is its turn."""

    actor: int
    operation: str
    find_touches: Callable[[], Touches]

    @cached_property
    def touches(self) -> Touches:
        return self.find_touches()

    def commutes(self, other: Call) -> bool:
        """Whether it makes no difference which of the two comes first."""
        if self.actor == other.actor or self.touches is None or other.touches is None:
            return False
        return self.touches.isdisjoint(other.touches)


type Choose = Callable[[list[Call]], int]
"""Which of these calls is next. They are in the order in which the invocations began."""


def at_random(seed: int) -> Choose:
    """The same order for the same seed."""
    random = Random(seed)
    return lambda calls: random.randrange(len(calls))


def _nothing() -> Touches:
    return frozenset()


@dataclass(eq=False)
class Actor:
    """An invocation that takes turns with others."""

    environment: Environment
    call: Call
    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    stopped: threading.Event = field(default_factory=threading.Event)
    """It waits for its turn, or has come to its end."""
    locked: bool = False
    """It waits for a lock, in the middle of a call."""
    done: bool = False


class Turns:
    """The invocations that are at work at once. ``is_locked`` asks Postgres about an environment's sessions."""

    def __init__(self, choose: Choose, is_locked: Callable[[Environment], bool]) -> None:
        self._choose = choose
        self._is_locked = is_locked
        self._actors: list[Actor] = []
        self._running: Actor | None = None
        self._number = 0
        self._guard = threading.RLock()
        self.failure: AssertionError | None = None
        """Of ``choose``: the calls were not those that it had expected."""

    def add(self, environment: Environment) -> None:
        """One that is about to begin."""
        actor = Actor(environment, Call(len(self._actors), "begin", _nothing))
        actor.stopped.set()
        self._actors.append(actor)

    @contextmanager
    def taking_part(self, environment: Environment) -> Iterator[None]:
        """This thread runs the invocation. It waits for its first turn."""
        actor = self._of(environment)
        actor.turn.acquire()
        try:
            yield
        finally:
            actor.done = True
            self._stop(actor)

    def pause(self, environment: Environment, operation: str, touches: Callable[[], Touches]) -> None:
        """Before an I/O call: the others may go first."""
        actor = self._of(environment)
        actor.call = Call(actor.call.actor, operation, touches)
        self._stop(actor)
        actor.turn.acquire()

    def go_on(self) -> None:
        """Give the first turn. From then on, each gives it to the next."""
        with self._guard:
            for actor in self._actors:
                while actor.locked and not actor.stopped.wait(_LOOK_SECONDS):
                    if self._is_locked(actor.environment):
                        break
                else:
                    actor.locked = False
            self._number += 1
            ready = [each for each in self._actors if each.stopped.is_set() and not each.done]
            self._running = None
            if ready:
                chosen = ready[self._chosen([each.call for each in ready])]
                self._running = chosen
                chosen.stopped.clear()
                chosen.turn.release()

    def _chosen(self, calls: list[Call]) -> int:
        try:
            return self._choose(calls)
        except AssertionError as error:
            # Raised in one invocation's thread it would leave the others waiting for their turn for ever.
            self.failure = self.failure or error
            return 0

    def look(self) -> None:
        """From outside: see whether the one whose turn it is waits for a lock, and let another go."""
        running, number = self._running, self._number
        if running is None:
            threading.Event().wait(_LOOK_SECONDS)
        elif not running.stopped.wait(_LOOK_SECONDS):
            with self._guard:
                if self._number == number and self._is_locked(running.environment):
                    running.locked = True
                    self.go_on()

    def _of(self, environment: Environment) -> Actor:
        return next(each for each in self._actors if each.environment is environment)

    def _stop(self, actor: Actor) -> None:
        actor.stopped.set()
        with self._guard:
            # One that waited for a lock may have gone on beside the one whose turn it is. And another may have given
            # it the next turn before it has come here.
            if actor.stopped.is_set() and (self._running is actor or self._running is None):
                self.go_on()
