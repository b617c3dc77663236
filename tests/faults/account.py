"""The account of a history: what has become of everything that was sent."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.faults.faults import Step

if TYPE_CHECKING:
    from tests.faults.history import History, Sent
    from tests.faults.postgres import TestDatabase
    from tests.faults.world import World


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
    """Notifications that went to the queue of lost ones, and were sent again from there."""
    met: Counter[str] = field(default_factory=Counter)
    """Faults and acts that happened, by kind."""

    @property
    def wrong(self) -> list[str]:
        return [
            *(f"lost: {each}" for each in self.lost),
            *(f"duplicated: {each}" for each in self.duplicated),
            *(f"wrongly rejected: {each}" for each in self.wrongly_rejected),
            *self.others,
        ]


def look(history: History, world: World) -> Account:
    """Look at what has become of everything that was sent, when nothing is left to deliver."""
    account = _settled(history, world.database)
    account.others += _uploads(history, world)
    return account


def wrong_so_far(history: History, world: World) -> list[str]:
    """What may not be, however much is still to be delivered."""
    account = _settled(history, world.database)
    account.lost.clear()
    return [*account.wrong, *world.violations]


def _settled(history: History, database: TestDatabase) -> Account:
    """What the tables say."""
    account = Account()
    wanted: defaultdict[str, set[str]] = defaultdict(set)
    for name, sent in _everything(history):
        if sent.quality == "good":
            wanted[name].add(_canonical(sent.payload))
    rows = database.run("SELECT id, payload, upload_id FROM records")
    found: defaultdict[str, list[str]] = defaultdict(list)
    for record_id, payload, upload in rows:
        derived = upload is not None and record_id.startswith(f"{upload}:")
        name = f"line {payload.get('m')}" if derived else record_id
        found[name].append(_content(payload))
    for name, payloads in wanted.items():
        if not found[name]:
            account.lost.append(name)
        elif len(found[name]) > 1:
            account.duplicated.append(name)
        elif found[name][0] not in payloads:
            account.others.append(f"changed: {name} became {found[name][0]}")
    account.others += [f"invented: {name}" for name in found.keys() - wanted.keys() if found[name]]
    _rejections(history, wanted, account, database)
    _conflicts(
        history, {name: contents[0] for name, contents in found.items() if contents}, account, database
    )
    return account


def _conflicts(history: History, stored: Mapping[str, str], account: Account, database: TestDatabase) -> None:
    """What was sent under the id of a row and says something else is kept, and nothing else is called a conflict."""
    kept: set[tuple[str, str]] = set()
    for raw, kind in database.run("SELECT raw, kind FROM rejected_records WHERE record_id IS NOT NULL"):
        message = json.loads(raw)
        name, content = message["id"], _content(message["payload"])
        kept.add((name, content))
        if kind == "conflict" and stored.get(name, content) == content:
            account.others.append(f"no conflict: {name} says what the row says, or there is none")
    for name, sent in _everything(history):
        if sent.quality == "poison" or name not in stored:
            continue
        content = _content(sent.payload)
        if content != stored[name] and (name, content) not in kept:
            account.lost.append(f"conflict of {name}: {content}")


def _rejections(
    history: History, wanted: Mapping[str, set[str]], account: Account, database: TestDatabase
) -> None:
    bad: set[bytes] = set()
    rejected = Counter(
        row[0] for row in database.run("SELECT raw FROM rejected_records WHERE kind = 'rejected'")
    )
    for name, sent in _everything(history):
        if sent.quality in {"poison", "swallowed"} or (sent.quality == "refused" and name not in wanted):
            bad.add(sent.raw if not name.startswith("line ") else sent.in_a_file)
    known = Counter(_identity(raw) for raw in rejected.elements())
    for raw in bad:
        if not known[_identity(raw)]:
            account.lost.append(f"rejection of {raw!r}")
        elif known[_identity(raw)] > 1:
            account.duplicated.append(f"rejection of {raw!r}")
    for raw in rejected:
        if not any(word in raw for word in (b"poison", b"refuse", b"swallow")):
            account.wrongly_rejected.append(repr(raw))


def _uploads(history: History, world: World) -> Iterator[str]:
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
        settled = world.database.run(
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


def _identity(raw: bytes) -> str:
    """The same for the same bad record, whichever way it came."""
    try:
        value = json.loads(raw)
    except ValueError:
        return raw.decode()
    return _canonical(value.get("payload", value))


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _content(payload: Mapping[str, Any]) -> str:
    return _canonical({key: _number(value) for key, value in payload.items()})


def _number(value: Any) -> Any:
    # A CSV file has nothing but text.
    return int(value) if isinstance(value, str) and value.isdigit() else value
