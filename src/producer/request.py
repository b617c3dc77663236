"""Reads a caller's request, checks its records and gives them ids; and the answer that says what became of each."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from typing import Any, TypedDict

import msgspec

from common.errors import PermanentError
from producer.entry import Entry, Published, Unpublished
from producer.uuid7 import uuid7
from records.json_text import BLANKS, BOM, WRONG, fault_of, fields_of, items_of
from records.reasons import first_of
from records.record import Record, check_identifier, check_own_id, faults_of_fields
from tables.check import check_payload

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


class RecordFault(TypedDict, total=False):
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
    rejected: list[RecordFault]
    failed: list[RecordFault]
    error: str


class RecordsRequest:
    """The records of one request, in its order.

    A wrong record is rejected and the others go on. Records of one id are one record: an equal repetition is
    published once, and another content under the same id is rejected.

    Parameters
    ----------
    texts
        Each record as JSON, as its caller wrote it; or the error that says why there is none.
    """

    def __init__(self, texts: Iterable[bytes | PermanentError]) -> None:
        self._ids: list[str | None] = []
        self._rejected: list[RecordFault] = []
        self._entries: dict[str, Entry] = {}
        self._first: dict[str, int] = {}
        for index, text in enumerate(texts):
            try:
                self._ids.append(self._add(index, text))
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

    def _add(self, index: int, text: bytes | PermanentError) -> str:
        if isinstance(text, PermanentError):
            raise text
        entry = Entry.of(_record(text))
        earlier = self._entries.setdefault(entry.id, entry)
        first = self._first.setdefault(entry.id, index)
        if earlier is not entry and not _same(earlier.data, entry.data):
            raise PermanentError(f"the id repeats that of record {first} with another content")
        return entry.id


def unpublished(request: RecordsRequest, reason: str) -> Published:
    """The outcome when none of a request's records is known to be published."""
    entries = request.entries
    return Published(failed=[Unpublished(entry.id, reason) for entry in entries], taken=len(entries))


def records_of_event(event: object) -> list[bytes | PermanentError]:
    """The records of a direct invocation's ``{"records": [...]}``, each as JSON.

    The runtime has parsed the event before we see it: an integer has all its digits still, and a number with a
    fraction or an exponent is what a double holds of it.

    Raises
    ------
    BadRequestError
        It is something else, or has too many records.
    """
    if not isinstance(event, dict):
        raise BadRequestError(_NO_OBJECT)
    values = event.get("records")
    if not isinstance(values, list):
        raise BadRequestError(_no_list("records" in event))
    return [_written(value) for value in _counted(values)]


def records_of_body(body: str, *, is_base64: bool, content_type: str) -> list[bytes | PermanentError]:
    """The records of an HTTP body: JSON as above, or one record a line (``application/x-ndjson``).

    Raises
    ------
    BadRequestError
        The body is too large, not base64 where it should be, not UTF-8, not JSON, or of another type.
    """
    kind = content_type.partition(";")[0].strip().lower() or "application/json"
    if kind not in ("application/json", "application/x-ndjson"):
        raise BadRequestError(f"send application/json or application/x-ndjson, not {kind}", status=415)
    data = _bytes(body, is_base64=is_base64).removeprefix(BOM)
    if kind == "application/x-ndjson":
        return _counted([line for line in data.split(b"\n") if line.strip(BLANKS)])
    try:
        fields = fields_of(data)
    except PermanentError as error:
        records = _records_of_near_json(data.decode())
        if records is None:
            raise BadRequestError(f"the body is {error}") from error
        return _counted(records)
    if fields is None:
        raise BadRequestError(_NO_OBJECT)
    items = items_of(fields["records"]) if "records" in fields else None
    if items is None:
        raise BadRequestError(_no_list("records" in fields))
    return _counted([bytes(item) for item in items])


def _records_of_near_json(text: str) -> list[bytes | PermanentError] | None:
    """The records of a body that is JSON but for what Python's parser takes as well: NaN, half of a surrogate pair.

    Many a program writes such things, and a record that has none should not be refused for one that has. Returns
    None when that is not what is wrong with the body.
    """
    # Numbers stay texts: nothing of what is parsed is used, and a long integer would be an error.
    parser = json.JSONDecoder(parse_int=str, parse_float=str)
    records: list[bytes | PermanentError] | None = None
    try:
        at = _skip(text, 0, "{")
        while True:
            at = _skip(text, at)
            if text[at] != '"':
                return None
            name, at = parser.raw_decode(text, at)
            at = _skip(text, at, ":")
            if name == "records" and text[at] == "[":
                records = []
                end = at
                while text[end] != "]":
                    begin = _skip(text, end + 1)
                    _, end = parser.raw_decode(text, begin)
                    records.append(text[begin:end].encode())
                    end = _skip(text, end)
                    if text[end] not in ",]":
                        return None
                at = end + 1
            else:
                _, at = parser.raw_decode(text, at)
            at = _skip(text, at)
            if text[at] == "}":
                return records if not text[at + 1 :].strip(" \t\r\n") else None
            at = _skip(text, at, ",")
    except (ValueError, IndexError, RecursionError):
        return None


def _skip(text: str, at: int, expected: str = "") -> int:
    """The place behind blanks, and behind ``expected`` and more blanks."""
    while text[at] in " \t\r\n":
        at += 1
    if not expected:
        return at
    if text[at] != expected:
        raise ValueError(expected)
    return _skip(text, at + 1)


def _bytes(body: str, *, is_base64: bool) -> bytes:
    try:
        data = base64.b64decode(body, validate=True) if is_base64 else body.encode()
        # Counted in bytes, after decoding: base64 alone makes a body a third larger.
        if len(data) > MAX_BODY_BYTES:
            raise BadRequestError(f"the body has {len(data)} bytes; {MAX_BODY_BYTES} (6 MB) are allowed")
        data.decode()
    except binascii.Error as error:
        raise BadRequestError(f"the body is not base64: {error}") from error
    except UnicodeError as error:
        raise BadRequestError("the body is not UTF-8") from error
    return data


def _written(value: Any) -> bytes | PermanentError:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        return PermanentError(f"not JSON: {half} is half of a surrogate pair, and no character")
    except RecursionError:
        return PermanentError("not JSON: nested too deeply to be read")
    except TypeError as error:
        return PermanentError(f"not JSON: {error}")
    except ValueError:  # the one that json.dumps has for what a JSON parser has made
        return PermanentError("not JSON: an integer of more than 4,300 digits, which Python does not write")


def _counted[Items: list[Any]](records: Items) -> Items:
    if len(records) > MAX_RECORDS:
        raise BadRequestError(f"{len(records)} records; {MAX_RECORDS} are allowed in one request")
    return records


_NO_OBJECT = 'not a JSON object: expected {"records": [...]}'


def _no_list(there: bool) -> str:
    return f'"records" {"is not a list" if there else "is missing"}: expected {{"records": [...]}}'


class _Given(msgspec.Struct, forbid_unknown_fields=True):
    """A record as a caller gives it."""

    payload: msgspec.Raw
    id: str | msgspec.UnsetType = msgspec.UNSET
    partition_key: str | msgspec.UnsetType = msgspec.UNSET


_FIELDS = {"id": False, "partition_key": False, "payload": True}
_decode_given = msgspec.json.Decoder(_Given).decode


def _record(text: bytes) -> Record:
    try:
        given = _decode_given(text)
        payload = bytes(given.payload).decode()
    except msgspec.ValidationError as error:
        if "upload" in (fields_of(text) or {}):
            raise PermanentError("upload: is for records that come from a file") from error
        raise PermanentError(first_of(faults_of_fields(text, _FIELDS, check_payload))) from error
    except WRONG as error:
        raise PermanentError(fault_of(text)) from error
    # An id that is null is a wrong id, not a missing one.
    record_id = str(uuid7()) if given.id is msgspec.UNSET else given.id
    check_own_id(record_id)
    key = record_id if given.partition_key is msgspec.UNSET else given.partition_key
    check_identifier("partition_key", key)
    check_payload(payload)
    return Record(record_id, key, payload)


def _same(one: bytes, other: bytes) -> bool:
    """Whether two records on the stream say the same, whatever the order of their fields and their white space."""
    try:
        return one == other or _meaning(one) == _meaning(other)
    except RecursionError:
        return False  # Postgres takes deeper nesting than Python: not known to be the same


def _meaning(data: bytes) -> Any:
    # A number is its digits, in a tuple: as a Python value it would lose some, and true would be equal to 1.
    return json.loads(data, parse_int=lambda digits: (digits,), parse_float=lambda digits: (digits,))
