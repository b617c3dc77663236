"""A course of events: what happens, one move after the other. A Hypothesis state machine makes it up.

Unlike a history, in which everything is sent first, anything may happen at any time. It is plain data as well,
and its ``repr`` replays it::

    .venv/bin/python -m tests.faults.replay "Course(...)"
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from tests.faults import types
from tests.faults.account import look, wrong_so_far
from tests.faults.faults import Armed, Kind
from tests.faults.history import Act, File, Harness, History, Sent
from tests.faults.turns import at_random
from tests.faults.twins import Twins
from tests.faults.world import BlockedError

type Fault = tuple[int, Kind] | None
"""A fault for the step that can meet it, after so many others that could."""
type Move = tuple[Any, ...]
"""The name of a method of ``Player``, and its arguments."""


@dataclass(frozen=True)
class Course:
    """Settings (and claims that are there at the beginning), and what happens then."""

    settings: History
    moves: tuple[Move, ...] = ()


class Player:
    """Makes moves in a world. ``course`` is what has been played, ``history`` what was sent in it.

    ``ignored``: what is wrong and begins like this is not told.
    """

    def __init__(self, harness: Harness, settings: History, ignored: str = "") -> None:
        self.course = Course(settings)
        self.history = settings
        self._ignored = ignored
        self._database = harness.database
        self._stack = ExitStack()
        self.world = self._stack.enter_context(harness.beginning(settings))
        harness.begin(settings, self.world)

    def make(self, *move: Any) -> None:
        """Make one move."""
        self.course = replace(self.course, moves=(*self.course.moves, move))
        name, *arguments = move
        getattr(self, name)(*arguments)

    def wrong(self) -> list[str]:
        """What is wrong by now. A server that is away is not asked."""
        if self.away:
            return self._told(self.world.violations)
        return self._told(wrong_so_far(self.history, self.world))

    def finish(self) -> list[str]:
        """Deliver what is left. Returns what is wrong."""
        if self.away:
            self.start()
        try:
            self.world.drain()
        except BlockedError as blocked:
            return [f"blocked: {blocked}"]
        return self._told([*look(self.history, self.world).wrong, *self.world.violations])

    def _told(self, wrong: list[str]) -> list[str]:
        return [each for each in wrong if not (self._ignored and each.startswith(self._ignored))]

    def close(self) -> None:
        """Leave the world."""
        if self.away:
            self.start()
        self._stack.close()

    @property
    def away(self) -> bool:
        """Whether the Postgres server is stopped."""
        return self._database.is_away

    # --------------------------------------------------------------- sending

    def post(self, records: tuple[Sent, ...], fault: Fault = None) -> None:
        """A caller of the producer, until all of it is taken."""
        self.history = replace(self.history, posts=(*self.history.posts, records))
        with self._armed("api", fault):
            self.world.post([each.text for each in records], self.history.via)

    def put(self, sent: Sent) -> None:
        """A foreign producer puts a message on the stream."""
        self.history = replace(self.history, stream=(*self.history.stream, sent))
        self.world.kinesis.put(sent.raw, sent.id)

    def drop(self, file: File) -> None:
        """A file comes into the bucket."""
        self.history = replace(self.history, files=(*self.history.files, file))
        file.drop(self.world)

    def notify(self, key: str) -> None:
        """S3 notifies of a file once more."""
        self.world.notify(key)

    # -------------------------------------------------------------- delivery

    def deliver(self, function: str, fault: Fault = None, *, forgetful: bool = False) -> None:
        """What is due to the function; if nothing is, when something is due to it, or to another.

        ``forgetful``: the poller of the stream loses its checkpoint afterwards.
        """
        self.world.after_delivery = lambda number: forgetful
        with self._armed(function, fault):
            if not self.world.sources[function]() and (wake := self.world.next_wake()) is not None:
                self.world.clock.now = max(self.world.clock.now, wake)
                self.world.sources[function]()
        self.world.after_delivery = lambda number: False

    def consume(self, fault: Fault, forgetful: bool) -> None:
        """A batch of each shard of the stream."""
        self.deliver("consumer", fault, forgetful=forgetful)

    def deliver_twice(self, seed: int, fault: Fault = None) -> None:
        """A batch of the stream to two environments at once; ``seed`` is for who goes first."""
        self.world.deliver = Twins(self.world, self._database, at_random(seed)).deliver
        try:
            self.deliver("consumer", fault)
        finally:
            self.world.deliver = self.world.invoke

    # ------------------------------------------------------ what else happens

    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.world.clock.now += seconds

    def sweep(self) -> None:
        """TTL deletes."""
        self.world.sweep()

    def split(self, choice: int) -> None:
        """A shard is split."""
        self.world.kinesis.split(choice)

    def merge(self, choice: int) -> None:
        """Two shards are merged."""
        self.world.kinesis.merge(choice)

    def cool(self, function: str) -> None:
        """Lambda takes the warm environments of a function away."""
        self.world.cool_down(function)

    def skew(self, function: str, seconds: int) -> None:
        """The clock of an environment of the function is put forward, or back."""
        self.world.skew(function, seconds)

    def deploy(self, payload_type: str) -> None:
        """Payloads have another type from now on."""
        types.deploy(payload_type)
        deployed: Act = "deploy"
        now = (0, deployed, list(types.TYPES).index(payload_type))
        self.history = replace(self.history, acts=(*self.history.acts, now))

    def terminate(self) -> None:
        """Postgres ends its sessions."""
        self._database.terminate()

    def stop(self, mode: Literal["fast", "immediate"]) -> None:
        """The Postgres server stops, or crashes."""
        self._database.go_away(mode)

    def start(self) -> None:
        """The Postgres server is started again."""
        self._database.come_back()

    @contextmanager
    def _armed(self, function: str, fault: Fault) -> Iterator[None]:
        plan = self.world.plan
        plan.armed = Armed(function, *fault) if fault else None
        try:
            yield
        finally:
            plan.armed = None


def play(
    harness: Harness, course: Course, told: Callable[[Move], None] = lambda move: None, *, ignored: str = ""
) -> list[str]:
    """Play a course to its end. Returns what is wrong, as soon as something is.

    ``ignored``: not what begins like this.
    """
    player = Player(harness, course.settings, ignored)
    try:
        for move in course.moves:
            told(move)
            player.make(*move)
            if wrong := player.wrong():
                return wrong
        return player.finish()
    finally:
        player.close()
