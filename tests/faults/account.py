"""The account of a history: what has become of everything that was sent."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from tests.faults import types
from tests.faults.faults import Step

if TYPE_CHECKING:
    from tests.faults.history import History, Sent
    from tests.faults.world import World


@dataclass
class Account:
    """What became of a history. ``wrong`` is empty when the account closes."""

    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    """Rows and rejected records that say something else than was sent."""
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
            *(f"altered: {each}" for each in self.altered),
            *(f"wrongly rejected: {each}" for each in self.wrongly_rejected),
            *self.others,
        ]


def look(history: History, world: World) -> Account:
    """Look at what has become of everything that was sent, when nothing is left to deliver."""
    account = _settled(history, world)
    account.others += _uploads(history, world)
    return account


def wrong_so_far(history: History, world: World) -> list[str]:
    """What may not be, however much is still to be delivered."""
    account = _settled(history, world)
    account.lost.clear()
    return [*account.wrong, *world.violations]


class _Tables:
    """What the tables hold, and what JSON texts are to Postgres."""

    def __init__(self, history: History, world: World) -> None:
        self.told = world.told
        self._possible = {"good", "unfit"} if types.may_be_lax(history) else {"good"}
        self.sent: defaultdict[str, list[Sent]] = defaultdict(list)
        """By the name under which a row is found: what was sent."""
        for name, sent in _everything(history):
            if sent not in self.sent[name]:
                self.sent[name].append(sent)
        rows = world.database.run("SELECT id, payload::text, payload->>'m', upload_id FROM records")
        self.rows: defaultdict[str, list[str]] = defaultdict(list)
        """The payloads of rows, as Postgres writes them."""
        for record_id, text, mark, upload in rows:
            derived = upload is not None and record_id.startswith(f"{upload}:")
            self.rows[f"line {mark}" if derived else record_id].append(text)
        found = world.database.run(
            "SELECT kind, raw, concat_ws(' ', upload_id, upload_chunk, upload_line) FROM rejected_records"
        )
        self.rejections = [_Rejection.of(*row) for row in found]
        texts = {sent.payload for each in self.sent.values() for sent in each if sent.quality != "poison"}
        texts |= {each.payload for each in self.rejections if each.payload}
        ask = "SELECT json_agg(json_build_array(t, t::jsonb::text)) FROM json_array_elements_text(:texts ::json) AS t"
        [[pairs]] = world.database.run(ask, texts=json.dumps(sorted(texts)))
        self._forms = dict[str, str](pairs or ())

    def form(self, sent: Sent) -> str:
        """Its payload, as Postgres writes it."""
        return self._forms[sent.payload]

    def forms(self) -> set[str]:
        """The payloads of all that was sent, as Postgres writes them."""
        return {self.form(sent) for each in self.sent.values() for sent in each if sent.quality != "poison"}

    def form_of(self, rejection: _Rejection) -> str:
        """The payload in it, as Postgres writes it."""
        return self._forms[rejection.payload]

    def altered(self, name: str) -> bool:
        """Whether its row says what nobody sent, or what is refused."""
        possible = {self.form(each) for each in self.sent[name] if each.quality in self._possible}
        return not possible.issuperset(self.rows[name][:1])

    def kept(self, name: str, sent: Sent) -> list[str]:
        """The kinds of the rejected records that are this one."""
        if sent.quality == "poison":
            return [each.kind for each in self.rejections if each.raw == sent.raw]
        form = self.form(sent)
        return [
            each.kind
            for each in self.rejections
            if each.payload and self.form_of(each) == form and each.name in {None, sent.id}
        ]


@dataclass(frozen=True)
class _Rejection:
    """A row of rejected_records: its bytes, and what can be read of them."""

    kind: str
    raw: bytes
    name: str | None
    """The record's id. None: it is the line of a file as it stood there."""
    payload: str
    place: str
    """The line of a file that it is, if it is one."""

    @classmethod
    def of(cls, kind: str, raw: bytes, place: str) -> _Rejection:
        try:
            fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        except msgspec.DecodeError:
            return cls(kind, raw, None, "", place)
        if "payload" not in fields:
            return cls(kind, raw, None, raw.decode(), place)
        record_id = msgspec.json.decode(fields["id"])
        derived = place and record_id.startswith(f"{place.partition(' ')[0]}:")
        return cls(kind, raw, None if derived else record_id, bytes(fields["payload"]).decode(), place)


def _settled(history: History, world: World) -> Account:
    """What the tables say."""
    account = Account()
    tables = _Tables(history, world)
    for name, each in tables.sent.items():
        _row(name, each, tables, account)
        for sent in each:
            _rejections(name, sent, tables, account)
    account.others += [
        f"invented: {name}" for name in tables.rows.keys() - tables.sent.keys() if tables.rows[name]
    ]
    forms = tables.forms()
    poison = {sent.raw for each in tables.sent.values() for sent in each if sent.quality == "poison"}
    for rejection, times in Counter(tables.rejections).items():
        if times > 1:
            account.duplicated.append(f"rejection of {rejection.raw!r}")
        if rejection.raw not in poison and not (rejection.payload and tables.form_of(rejection) in forms):
            account.altered.append(f"kept {rejection.raw!r}, which nobody sent")
    return account


def _row(name: str, sent: list[Sent], tables: _Tables, account: Account) -> None:
    """A record that can be a row is one row, and says what was sent."""
    rows = tables.rows[name]
    if len(rows) > 1:
        account.duplicated.append(name)
    if not rows and any(each.quality == "good" and each.text not in tables.told for each in sent):
        account.lost.append(name)
    if tables.altered(name):
        account.altered.append(f"{name} became {rows[0]}")


def _rejections(name: str, sent: Sent, tables: _Tables, account: Account) -> None:
    """What is no row is kept, once, and for a reason."""
    if sent.quality == "good" and tables.altered(name):
        return  # which is told
    kept = tables.kept(name, sent)
    is_row = sent.quality != "poison" and tables.form(sent) in tables.rows[name]
    if is_row:
        if kept:
            account.wrongly_rejected.append(f"{name} is a row, and kept as {kept[0]}: {sent.raw!r}")
    elif sent.text in tables.told:
        pass
    elif not kept:
        account.lost.append(
            f"rejection of {sent.raw!r}" if sent.quality != "good" else f"{sent.raw!r}, not kept"
        )
    elif sent.quality == "good" and set(kept) != {"conflict"}:
        account.wrongly_rejected.append(repr(sent.raw))


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
        for sent in file.sent:
            yield (sent.id if file.named and sent.quality != "poison" else f"line {sent.mark}"), sent
