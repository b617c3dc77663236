"""A history: what is sent, how it is delivered, what breaks. Running it gives its account.

A history is plain data, and its ``repr`` is the script that replays it::

    .venv/bin/python -m tests.faults.replay "History(...)"
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from tests.faults.client_pool import ClientPool
from tests.faults.events import claim_key
from tests.faults.faults import Kind, Plan, Step
from tests.faults.postgres import TestDatabase
from tests.faults.twins import Twins
from tests.faults.world import BlockedError, Mapping, World

type Act = Literal["jump", "sweep", "split", "terminate", "restart", "again", "twins", "cold"]
"""What happens at a delivery: time passes (the argument: seconds); TTL deletes; a shard is split; Postgres ends
its sessions, or is restarted; the poller loses its checkpoint; the batch is delivered to two environments at
once (the argument: a seed for who goes first); Lambda takes the warm environments away."""


@dataclass(frozen=True)
class Sent:
    """A record that somebody sends. ``mark`` tells messages with the same id apart."""

    id: str
    mark: int = 0
    quality: Literal["good", "refused", "poison"] = "good"
    """refused: by a constraint of the table; poison: no record at all."""
    line: int = 0
    """Not 0: it is this line of an upload that others have put on the stream."""

    @property
    def payload(self) -> dict[str, Any]:
        return {"m": self.mark, "of": self.id} | ({"refuse": True} if self.quality == "refused" else {})

    @property
    def value(self) -> dict[str, Any]:
        value = {"id": self.id, "partition_key": self.id, "payload": self.payload}
        return value | ({"upload": {"id": "elsewhere", "chunk": 0, "line": self.line}} if self.line else {})

    @property
    def raw(self) -> bytes:
        """As a foreign producer puts it on the stream."""
        if self.quality == "poison":
            return f"poison {self.id} {self.mark}".encode()
        return json.dumps(self.value, separators=(",", ":")).encode()


@dataclass(frozen=True)
class File:
    """An uploaded file, a record a line; with ``named`` its field ``of`` is the record's id."""

    key: str
    lines: tuple[Sent, ...]
    named: bool = False
    notified: int = 1

    @property
    def data(self) -> bytes:
        if self.key.endswith(".csv"):
            return "".join(["m,of\n", *(f"{each.mark},{each.id}\n" for each in self.lines)]).encode()
        return b"".join(_line(each) + b"\n" for each in self.lines)


@dataclass(frozen=True)
class History:
    """What happens. Faults are (function, its I/O call, kind), acts (delivery, act, argument).

    An I/O call is named by its number or, the first of its kind, by its operation.
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


@dataclass
class Account:
    """What became of a history. ``wrong`` is empty when the account closes."""

    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    wrongly_rejected: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    """Blocked, discarded, a broken rule about claims, an upload's own account that does not close."""
    steps: list[Step] = field(default_factory=list)
    broken: int = 0
    """Steps that met a fault."""
    parked: int = 0

    @property
    def wrong(self) -> list[str]:
        return [
            *(f"lost: {each}" for each in self.lost),
            *(f"duplicated: {each}" for each in self.duplicated),
            *(f"wrongly rejected: {each}" for each in self.wrongly_rejected),
            *self.others,
        ]


class Harness:
    """Runs histories, one after the other, on one database."""

    def __init__(self, database: TestDatabase) -> None:
        self.database = database
        self.pool = ClientPool()

    def run(self, history: History) -> Account:
        """Run a history until nothing is left to deliver, and look at the account."""
        self.database.reset()
        plan = Plan({(function, number): kind for function, number, kind in history.faults})
        world = World(
            self.pool,
            plan,
            shards=history.shards,
            mapping=Mapping(history.batch_size, history.factor),
            skews=history.skews,
        )
        account = Account()
        try:
            self._play(history, world)
            account = self.account(history, world)
        except BlockedError as blocked:
            account.others.append(f"blocked: {blocked}")
        finally:
            world.close()
        account.others += dict.fromkeys(world.violations)
        account.steps, account.broken, account.parked = plan.steps, plan.fired, world.parked
        return account

    def _play(self, history: History, world: World) -> None:
        for record_id, state in history.claims:
            world.claims.put(_claim(record_id, state, world.clock.now))
        self._stage(history, world)
        for file in history.files:
            metadata = {"id-field": "of"} if file.named else {}
            world.upload(file.key, file.data, times=file.notified, **metadata)
        for sent in history.stream:
            world.kinesis.put(sent.raw, sent.id)
        for post in history.posts:
            world.post([sent.value for sent in post])
            world.deliver_something()
        world.drain()

    def _stage(self, history: History, world: World) -> None:
        """Let the acts happen."""
        acts: defaultdict[int, list[tuple[Act, int]]] = defaultdict(list)
        for number, act, argument in history.acts:
            acts[number].append((act, argument))

        def before(number: int) -> None:
            world.deliver = world.invoke
            for act, argument in acts[number]:
                match act:
                    case "jump":
                        world.clock.now += argument
                    case "sweep":
                        world.sweep()
                    case "split":
                        world.kinesis.split(argument)
                    case "terminate":
                        self.database.terminate()
                    case "restart":
                        self.database.restart()
                    case "cold":
                        world.cool_down("consumer")
                    case "twins":
                        choose = Random(argument).randrange
                        world.deliver = Twins(world, self.database, choose).deliver

        world.before_delivery = before
        world.after_delivery = lambda number: any(act == "again" for act, _ in acts[number])

    def account(self, history: History, world: World) -> Account:
        """Look at what has become of everything that was sent."""
        account = Account()
        wanted: defaultdict[str, set[str]] = defaultdict(set)
        for name, sent in _everything(history):
            if sent.quality == "good":
                wanted[name].add(_canonical(sent.payload))
        rows = self.database.run("SELECT id, payload, upload_id FROM records")
        found: defaultdict[str, list[str]] = defaultdict(list)
        for record_id, payload, upload in rows:
            derived = upload is not None and record_id.startswith(f"{upload}:")
            name = f"line {payload.get('m')}" if derived else record_id
            found[name].append(_canonical({key: _number(value) for key, value in payload.items()}))
        for name, payloads in wanted.items():
            if not found[name]:
                account.lost.append(name)
            elif len(found[name]) > 1:
                account.duplicated.append(name)
            elif found[name][0] not in payloads:
                account.others.append(f"changed: {name} became {found[name][0]}")
        account.others += [f"invented: {name}" for name in found.keys() - wanted.keys() if found[name]]
        self._rejections(history, set(wanted), account)
        account.others += self._uploads(history, world)
        return account

    def _rejections(self, history: History, good: set[str], account: Account) -> None:
        bad: set[bytes] = set()
        rejected = Counter(row[0] for row in self.database.run("SELECT raw FROM rejected_records"))
        for name, sent in _everything(history):
            if sent.quality == "poison" or (sent.quality == "refused" and name not in good):
                bad.add(sent.raw if not name.startswith("line ") else _line(sent))
        known = Counter(_identity(raw) for raw in rejected.elements())
        for raw in bad:
            if not known[_identity(raw)]:
                account.lost.append(f"rejection of {raw!r}")
            elif known[_identity(raw)] > 1:
                account.duplicated.append(f"rejection of {raw!r}")
        for raw in rejected:
            if b"poison" not in raw and b"refuse" not in raw:
                account.wrongly_rejected.append(repr(raw))

    def _uploads(self, history: History, world: World) -> Iterator[str]:
        """The account that the ledger and Postgres give of each upload, as `once status` shows it."""
        for file in history.files:
            entries = [
                item
                for key, item in world.ledger.items.items()
                if key[1] == "upload" and item["key"]["S"] == file.key
            ]
            if len(entries) != 1 or "chunks" not in entries[0]:
                yield f"upload {file.key}: registered {len(entries)} times, or not planned"
                continue
            upload = entries[0]["upload"]["S"]
            counts = [
                item
                for key, item in world.ledger.items.items()
                if key[0] == upload and key[1].startswith("chunk#")
            ]
            if len(counts) != int(entries[0]["chunks"]["N"]):
                yield f"upload {file.key}: {len(counts)} of {entries[0]['chunks']['N']} chunks counted"
            lines = sum(int(item["lines"]["N"]) for item in counts)
            settled = self.database.run(
                "SELECT (SELECT count(*) FROM records WHERE upload_id = :upload)"
                " + (SELECT count(*) FROM rejected_records WHERE upload_id = :upload)"
                " + (SELECT count(*) FROM repeated_records WHERE upload_id = :upload)",
                upload=upload,
            )[0][0]
            if not lines == len(file.lines) == settled:
                yield f"upload {file.key}: {len(file.lines)} lines, {lines} counted, {settled} settled"


def _everything(history: History) -> Iterator[tuple[str, Sent]]:
    """Each message and the name under which its row is found."""
    for post in history.posts:
        for sent in post:
            yield sent.id, sent
    for sent in history.stream:
        yield sent.id, sent
    for file in history.files:
        for sent in file.lines:
            yield (sent.id if file.named and sent.quality != "poison" else f"line {sent.mark}"), sent


def _line(sent: Sent) -> bytes:
    if sent.quality == "poison":
        return sent.raw
    return json.dumps(sent.payload).encode()


def _identity(raw: bytes) -> str:
    """The same for the same bad record, whichever way it came."""
    try:
        value = json.loads(raw)
    except ValueError:
        return raw.decode()
    return _canonical(value.get("payload", value))


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _number(value: Any) -> Any:
    # A CSV file has nothing but text.
    return int(value) if isinstance(value, str) and value.isdigit() else value


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
