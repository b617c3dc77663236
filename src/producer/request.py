"""A caller's request: its records checked and given ids, and the answer that tells what became of each."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from typing import Any, TypedDict

from common.errors import PermanentError
from common.record import Record
from producer.entry import Entry, Published, Unpublished
from producer.uuid7 import uuid7

MAX_RECORDS = 10_000
"""Records in one request: what can be published in the time of one call, and listed in its answer."""
MAX_BODY_BYTES = 6 * 1024 * 1024
"""What Lambda takes and returns in one synchronous call.

Source: docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
"""


class BadRequestError(PermanentError):
    """The request is wrong as a whole; nothing of it was published."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Fault(TypedDict, total=False):
    """A record of the request (by its place in it, from 0) that is not on the stream, and why."""

    index: int
    id: str
    reason: str


class Answer(TypedDict, total=False):
    """What the caller gets.

    ``accepted`` counts the request's records that are on the stream. ``ids`` has one id for each record, in
    the order of the request, and null for a rejected one. ``rejected`` can never be accepted as they are;
    ``failed`` were not published this time, and are safe to send again with the ids given here. ``error`` is
    there only when the request is wrong as a whole.
    """

    accepted: int
    ids: list[str | None]
    rejected: list[Fault]
    failed: list[Fault]
    error: str


class Request:
    """The records of one request, in its order.

    A wrong record is rejected and the others go on. Records of one id are one record: an equal repetition is
    published once, and another content under the same id is rejected.

    Parameters
    ----------
    values
        Decoded JSON values; or, for what is not JSON, the error that says so.
    """

    def __init__(self, values: Iterable[Any]) -> None:
        self._ids: list[str | None] = []
        self._rejected: list[Fault] = []
        self._entries: dict[str, Entry] = {}
        self._first: dict[str, int] = {}
        for index, value in enumerate(values):
            try:
                self._ids.append(self._add(index, value))
            except PermanentError as error:
                self._ids.append(None)
                self._rejected.append({"index": index, "reason": str(error)})

    @property
    def entries(self) -> list[Entry]:
        """What is to be published: one entry for each id."""
        return list(self._entries.values())

    def answer(self, published: Published) -> Answer:
        """What became of each record of the request, given what became of ``entries``."""
        failed = dict(published.failed)
        for entry in self.entries[published.taken :]:
            failed[entry.id] = "the time ran out before it was sent"
        refused = dict(published.rejected)
        answer: Answer = {"accepted": 0, "ids": [], "rejected": list(self._rejected), "failed": []}
        for index, record_id in enumerate(self._ids):
            if record_id is None:
                pass
            elif record_id in refused:
                answer["rejected"].append({"index": index, "id": record_id, "reason": refused[record_id]})
            elif record_id in failed:
                answer["failed"].append({"index": index, "id": record_id, "reason": failed[record_id]})
            else:
                answer["accepted"] += 1
            answer["ids"].append(None if record_id in refused else record_id)
        answer["rejected"].sort(key=lambda fault: fault["index"])
        return answer

    def _add(self, index: int, value: Any) -> str:
        entry = Entry.of(_record(value))
        earlier = self._entries.setdefault(entry.id, entry)
        first = self._first.setdefault(entry.id, index)
        if earlier is not entry and not _same(earlier.data, entry.data):
            raise PermanentError(f"the id repeats that of record {first} with another content")
        return entry.id


def unpublished(request: Request, reason: str) -> Published:
    """The outcome when none of a request's records is known to be published."""
    entries = request.entries
    return Published(failed=[Unpublished(entry.id, reason) for entry in entries], taken=len(entries))


def values_of_object(event: object) -> list[Any]:
    """The records of ``{"records": [...]}``.

    Raises
    ------
    BadRequestError
        It is something else, or has too many records.
    """
    if not isinstance(event, dict):
        raise BadRequestError('not a JSON object: expected {"records": [...]}')
    values = event.get("records")
    if not isinstance(values, list):
        problem = "is not a list" if "records" in event else "is missing"
        raise BadRequestError(f'"records" {problem}: expected {{"records": [...]}}')
    return _counted(values)


def values_of_body(body: str, *, is_base64: bool, content_type: str) -> list[Any]:
    """The records of an HTTP body: JSON as above, or one record a line (``application/x-ndjson``).

    Raises
    ------
    BadRequestError
        The body is too large, not base64 where it should be, not UTF-8, not JSON, or of another type.
    """
    kind = content_type.partition(";")[0].strip().lower() or "application/json"
    if kind not in ("application/json", "application/x-ndjson"):
        raise BadRequestError(f"send application/json or application/x-ndjson, not {kind}", status=415)
    text = _text(body, is_base64=is_base64)
    if kind == "application/x-ndjson":
        return _counted([_line(line) for line in text.split("\n") if line.strip()])
    try:
        return values_of_object(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"the body is not JSON: {error}") from error


def _text(body: str, *, is_base64: bool) -> str:
    try:
        data = base64.b64decode(body, validate=True) if is_base64 else body.encode()
        # Counted in bytes, after decoding: base64 alone makes a body a third larger.
        if len(data) > MAX_BODY_BYTES:
            raise BadRequestError(f"the body has {len(data)} bytes; {MAX_BODY_BYTES} (6 MB) are allowed")
        return data.decode()
    except binascii.Error as error:
        raise BadRequestError(f"the body is not base64: {error}") from error
    except UnicodeError as error:
        raise BadRequestError("the body is not UTF-8") from error


def _line(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return PermanentError(f"not JSON: {error}")


def _counted(values: list[Any]) -> list[Any]:
    if len(values) > MAX_RECORDS:
        raise BadRequestError(f"{len(values)} records; {MAX_RECORDS} are allowed in one request")
    return values


def _record(value: Any) -> Record:
    if isinstance(value, PermanentError):
        raise value
    if not isinstance(value, dict):
        raise PermanentError('not an object: expected {"id"?, "partition_key"?, "payload"}')
    if "upload" in value:
        raise PermanentError("upload: is for records that come from a file")
    # An id that is null is a wrong id, not a missing one. The key is checked only if the caller gave one.
    record = Record.from_object({"id": str(uuid7()), "partition_key": "-"} | value)
    return record if "partition_key" in value else record.model_copy(update={"partition_key": record.id})


def _same(one: bytes, other: bytes) -> bool:
    """Whether two serialised records say the same, whatever the order of their fields."""
    return one == other or _canonical(one) == _canonical(other)


def _canonical(data: bytes) -> str:
    # Compared as text: in Python true equals 1, and they are not the same.
    return json.dumps(json.loads(data), sort_keys=True)
