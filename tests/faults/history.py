"""A history: what is sent, how it is delivered, what breaks. Running it gives its account.

A history is plain data, and its ``repr`` is the script that replays it::

    .venv/bin/python -m tests.faults.replay "History(...)"
"""

from __future__ import annotations

import gzip
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest

import oncestream.claim_run
import oncestream.idempotency
import tables.check
from tests.faults import types
from tests.faults.account import Account, look
from tests.faults.events import Via, claim_key
from tests.faults.faults import IN_VAIN, Kind, Plan
from tests.faults.links import IMPATIENT_SECONDS, PATIENT_SECONDS, Links, Way
from tests.faults.postgres import TestDatabase
from tests.faults.turns import at_random
from tests.faults.twins import Twins
from tests.faults.world import BlockedError, Mapping, World

type Act = Literal[
    "jump", "sweep", "split", "merge", "terminate", "restart", "immediate", "again", "twins", "cold", "deploy"
]
"""What happens at a delivery: time passes (the argument: seconds); TTL deletes; a shard is split, or two are
merged; Postgres ends its sessions; the server is stopped, or crashes ("immediate"), and is back so many
deliveries later; the poller loses its checkpoint; the batch is delivered to two environments at once (the
argument: a seed for who goes first); Lambda takes the warm environments away; payloads have another type from
now on (the argument: its place in ``types.TYPES``)."""


_WRITTEN = {
    "plain": '{{"m": {mark}, "of": "{id}"{more}}}',
    "digits": '{{"m": {mark}, "of": "{id}", "n": {number}{more}}}',
    "spaced": '{{ "of" :"{id}",\t"m":{mark}  {more} }}',
    "csv": '{{"m": "{mark}", "of": "{id}"{more}}}',
    "escaped": '{{"m": {mark}, "of": "{id}", "t": "\\u00e9\\ud83d\\ude00 é\\/\\n"{more}}}',
}
_NUMBERS = (
    "1.50",
    "12345678901234567.8900",
    "1e-400",
    "9007199254740993.0",
    "0.1234567890123456789",
    "-1E+300",
)
"""No double holds the most of them."""


@dataclass(frozen=True)
class Sent:
    """A record that somebody sends. ``mark`` tells messages with the same id apart."""

    id: str
    mark: int = 0
    quality: Literal["good", "refused", "swallowed", "unfit", "poison"] = "good"
    """refused: by a constraint of the table; swallowed: a trigger of the table takes it and says nothing; unfit: the
    strict ones of the payload's types refuse it; poison: no record at all."""
    line: int = 0
    """Not 0: it is this line of an upload that others have put on the stream."""
    written: Literal["plain", "digits", "spaced", "escaped", "csv"] = "plain"
    """How its sender writes its JSON."""

    @property
    def payload(self) -> str:
        """The payload, as its sender writes it."""
        more = "" if self.quality == "good" else f', "{self.quality}": true'
        number = _NUMBERS[(self.mark + len(self.id)) % len(_NUMBERS)]
        return _WRITTEN[self.written].format(mark=self.mark, id=self.id, number=number, more=more)

    @property
    def text(self) -> str:
        """The record, as its sender writes it."""
        upload = f', "upload": {{"id": "elsewhere", "chunk": 0, "line": {self.line}}}' if self.line else ""
        return f'{{"id": "{self.id}", "partition_key": "{self.id}", "payload": {self.payload}{upload}}}'

    @property
    def raw(self) -> bytes:
        """As a foreign producer puts it on the stream."""
        if self.quality == "poison":
            return f"poison {self.id} {self.mark}".encode()
        return self.text.encode()

    @property
    def in_a_file(self) -> bytes:
        """As a line of a file."""
        return self.raw if self.quality == "poison" else self.payload.encode()


@dataclass(frozen=True)
class File:
    """An uploaded file, a record a line; with ``named`` its field ``of`` is the record's id."""

    key: str
    lines: tuple[Sent, ...]
    named: bool = False
    notified: int = 1

    @property
    def sent(self) -> tuple[Sent, ...]:
        """The lines. A CSV file has nothing but text."""
        if ".csv" not in self.key:
            return self.lines
        return tuple(replace(each, written="csv") for each in self.lines)

    @property
    def data(self) -> bytes:
        if ".csv" in self.key:
            data = "".join(["m,of\n", *(f"{each.mark},{each.id}\n" for each in self.lines)]).encode()
        else:
            data = b"".join(each.in_a_file + b"\n" for each in self.lines)
        return gzip.compress(data, mtime=0) if self.key.endswith(".gz") else data

    def drop(self, world: World) -> None:
        """Put it into the bucket."""
        metadata = {"id-field": "of"} if self.named else {}
        world.upload(self.key, self.data, times=self.notified, **metadata)


@dataclass(frozen=True)
class History:
    """What happens. Faults are (function, its I/O call, kind), acts (delivery, act, argument).

    An I/O call is named by its number, or by its operation and which of these it is: "COMMIT" (the first),
    "COMMIT 2".
    """

    posts: tuple[tuple[Sent, ...], ...] = ()
    stream: tuple[Sent, ...] = ()
    files: tuple[File, ...] = ()
    claims: tuple[tuple[str, Literal["held", "stale", "expired"]], ...] = ()
    faults: tuple[tuple[str, int | str, Kind], ...] = ()
    acts: tuple[tuple[int, Act, int], ...] = ()
    shards: int = 1
    batch_size: int = 100
    factor: int = 1
    skews: tuple[float, ...] = (0.0,)
    payload_type: str = "any"
    """The type of payloads at the beginning (``types``)."""
    via: Via = "direct"
    """How the posts are sent."""
    slice_records: int = 1_000
    """Records that the consumer claims, stores and completes together."""
    a_call: int = 25
    """Keys in one request to the idempotency table, at most."""
    in_flight: int = 1
    """Requests to the idempotency table at once, at most."""
    order: int = 0
    """A seed: which of those in flight is answered next."""
    way: Way = "memory"
    """How requests get to AWS."""

    @property
    def patience(self) -> float:
        """How many seconds a client on sockets really waits: little where some answer does not come."""
        return IMPATIENT_SECONDS if self.waits_in_vain else PATIENT_SECONDS

    @property
    def waits_in_vain(self) -> bool:
        """Whether some answer does not come."""
        return any(kind in IN_VAIN for _, _, kind in self.faults)

    def sending(self, *stream: Sent) -> History:
        """The same, with these records on the stream."""
        return replace(self, stream=stream)


class Harness:
    """Runs histories, one after the other, on one database."""

    def __init__(self, database: TestDatabase) -> None:
        self.database = database
        self.links = Links()

    @contextmanager
    def beginning(self, history: History) -> Iterator[World]:
        """The world of a history, in which nothing has happened yet."""
        self.database.reset()
        world = World(
            self.links,
            self.database,
            Plan({(function, number): kind for function, number, kind in history.faults}),
            shards=history.shards,
            mapping=Mapping(history.batch_size, history.factor),
            skews=history.skews,
            slice_records=history.slice_records,
            way=history.way,
            patience=history.patience,
            order=history.order,
        )
        with _settings(history):
            try:
                yield world
            finally:
                world.close()

    def run(self, history: History) -> Account:
        """Run a history until nothing is left to deliver, and look at the account."""
        met: Counter[str] = Counter()
        account = Account()
        with self.beginning(history) as world:
            try:
                self._play(history, world, met)
                account = look(history, world)
            except BlockedError as blocked:
                account.others.append(f"blocked: {blocked}")
        account.others += dict.fromkeys(world.violations)
        account.steps, account.parked = world.plan.steps, world.parked
        met.update(step.fault for step in account.steps if step.fault)
        account.broken = sum(step.fault is not None for step in account.steps)
        account.met = met
        return account

    def begin(self, history: History, world: World) -> None:
        """Put in place what is there at the beginning: claims, files, records on the stream."""
        for record_id, state in history.claims:
            world.claims.put(_claim(record_id, state, world.clock.now))
        for file in history.files:
            file.drop(world)
        for sent in history.stream:
            world.kinesis.put(sent.raw, sent.id)

    def _play(self, history: History, world: World, met: Counter[str]) -> None:
        stage = _Stage(history, world, met)
        self.begin(history, world)
        for post in history.posts:
            world.post([sent.text for sent in post], history.via)
            world.deliver_something()
        world.drain()
        stage.come_back()


class _Stage:
    """Where the acts of a history happen."""

    def __init__(self, history: History, world: World, met: Counter[str]) -> None:
        self._world = world
        self._met = met
        self._acts: defaultdict[int, list[tuple[Act, int]]] = defaultdict(list)
        for number, act, argument in history.acts:
            self._acts[number].append((act, argument))
        self._back = 0
        """The delivery before which a server that is away comes back."""
        world.before_delivery = self._before
        world.after_delivery = self._after

    def come_back(self) -> None:
        """Start the Postgres server, if it is away."""
        if self._world.database.is_away:
            self._world.database.come_back()

    def _before(self, number: int) -> None:
        world = self._world
        world.deliver = world.invoke
        if number >= self._back:
            self.come_back()
        for act, argument in self._acts[number]:
            self._met[act] += 1
            self._do(act, argument, number)

    def _after(self, number: int) -> bool:
        return any(act == "again" for act, _ in self._acts[number])

    def _do(self, act: Act, argument: int, number: int) -> None:
        world, database = self._world, self._world.database
        match act:
            case "jump":
                world.clock.now += argument
            case "sweep":
                world.sweep()
            case "split":
                world.kinesis.split(argument)
            case "merge":
                world.kinesis.merge(argument)
            case "terminate":
                if not database.is_away:
                    database.terminate()
            case "restart" | "immediate":
                if not database.is_away:
                    database.go_away("fast" if act == "restart" else "immediate")
                self._back = number + argument
                if not argument:
                    self.come_back()
            case "deploy":
                types.deploy(list(types.TYPES)[argument])
            case "cold":
                world.cool_down("consumer")
            case "twins":
                choose = at_random(argument)
                world.deliver = Twins(world, database, choose).deliver


@contextmanager
def _settings(history: History) -> Iterator[None]:
    """The requests to the idempotency table, and the payload's type."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IDEMPOTENCY_REQUESTS_IN_FLIGHT", str(history.in_flight))
        patch.setattr(tables.check, "judge", tables.check.judge)  # put back at the end, whatever is deployed
        types.deploy(history.payload_type)
        if history.a_call != oncestream.claim_run.STATEMENTS_A_CALL:
            patch.setattr(oncestream.claim_run, "STATEMENTS_A_CALL", history.a_call)
            patch.setattr(oncestream.claim_run, "READS_A_CALL", history.a_call)
            patch.setattr(oncestream.idempotency, "STATEMENTS_A_CALL", history.a_call)
            patch.setattr(oncestream.idempotency, "WRITES_A_CALL", history.a_call)
        yield


def _claim(record_id: str, state: str, now: float) -> dict[str, dict[str, Any]]:
    """An item that an invocation which is dead by now has left behind."""
    status, expires, until = {
        "held": ("INPROGRESS", now + 1_000_000, now + 20),
        "stale": ("INPROGRESS", now + 1_000_000, now - 1),
        "expired": ("COMPLETED", now - 100, None),
    }[state]
    item = {
        "id": {"S": claim_key(record_id)},
        "status": {"S": status},
        "expiration": {"N": str(int(expires))},
    }
    if until is not None:
        item |= {"in_progress_expiration": {"N": str(int(until * 1000))}, "owner": {"S": "a dead one"}}
    return item
