"""The record: what travels on the stream, and how it is checked.

On the stream a record is JSON, ``{"id", "partition_key", "payload", "upload"?}``, and its payload is the sender's own
JSON, byte for byte.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Annotated, Self

import msgspec

from common.errors import PermanentError
from records.json_text import WRONG, fault_of, fields_of, kind_of, text_of, value_of
from records.reasons import first_of

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_RECORD_BYTES = 1024 * 1024
"""What Kinesis takes as one record: 1 MiB, the partition key counted in.

Source: docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html
"""

MAX_INTEGER = 2**31 - 1
"""The largest ``integer`` of Postgres, which is the type of the columns for chunk and line."""

MAX_IDENTIFIER = 256
"""Characters of an id or a partition key. A partition key of Kinesis has no more."""

# An id is a primary key and a word in a log line: short, and without control characters (NUL is one of them).
_identifier = re.compile(r"[^\x00-\x1f\x7f]{1,256}")
_control = re.compile(r"[\x00-\x1f\x7f]")
_positional = re.compile(r"[0-9a-f]{32}:[0-9]+")
_PLACE = "the place of a line in an upload (32 hexadecimal digits, a colon, a number)"


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where in an uploaded file a record comes from: the upload, the chunk (from 0), the line in it (from 1).

    The line of the *file* follows from the ledger, which knows how many lines the chunks before have.
    """

    id: str
    chunk: Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
    line: Annotated[int, msgspec.Meta(ge=1, le=MAX_INTEGER)]


class _Message(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A record as it stands on the stream."""

    id: str
    partition_key: str
    payload: msgspec.Raw
    upload: Origin | None = None


class Record(msgspec.Struct, frozen=True):
    """One record: ``{"id", "partition_key", "payload", "upload"?}``.

    The id says which record this is, for ever: two messages with one id are the same record. It is given by
    the caller or derived from the place in a file, never drawn from the stream.

    The constructor checks nothing: a record is read by ``from_bytes``, or made of checked parts
    (:func:`check_identifier`, :func:`tables.check.checked_payload`).
    """

    id: str
    partition_key: str
    payload_json: str
    """The payload as its sender wrote it, JSON text: what Postgres stores."""
    upload: Origin | None = None

    @classmethod
    def from_bytes(cls, data: bytes, check_payload: Callable[[str], None]) -> Self:
        """Read a record from the bytes of a stream record.

        ``check_payload`` raises :class:`PermanentError` for a payload that may not be stored
        (:func:`tables.check.check_payload`).

        Raises
        ------
        PermanentError
            The bytes are empty, not UTF-8, not JSON, or JSON that is not a record; or a place in a file is the id of
            a record that does not come from there. The message is the reason.
        """
        if not data:
            raise PermanentError("empty body")
        try:
            message = _decode_message(data)
            payload = bytes(message.payload).decode()
        except msgspec.ValidationError as error:
            raise PermanentError(first_of(faults_of_fields(data, _FIELDS, check_payload))) from error
        except WRONG as error:
            raise PermanentError(fault_of(data)) from error
        upload = message.upload
        check_identifier("id", message.id)
        if message.partition_key != message.id:
            check_identifier("partition_key", message.partition_key)
        if upload is not None:
            check_identifier("upload.id", upload.id)
        if (upload is None or not is_place_in(upload.id, message.id)) and is_positional(message.id):
            raise PermanentError(f"id: is {_PLACE}, and the record does not come from there")
        check_payload(payload)
        return cls(message.id, message.partition_key, payload, upload)

    def to_bytes(self) -> bytes:
        """The record as the stream carries it: JSON in UTF-8, with the payload as it is."""
        payload = msgspec.Raw(self.payload_json.encode())
        return _encode(_Message(self.id, self.partition_key, payload, self.upload))


class LineFault(msgspec.Struct, frozen=True):
    """What is wrong with a line of a file, and its bytes."""

    reason: str
    raw: bytes


class _FaultMessage(msgspec.Struct, forbid_unknown_fields=True):
    reason: Annotated[str, msgspec.Meta(min_length=1)]
    raw: str


class _RejectedMessage(msgspec.Struct, forbid_unknown_fields=True):
    """A rejected line as it stands on the stream."""

    id: str
    partition_key: str
    rejected: _FaultMessage
    upload: Origin


class RejectedLine(msgspec.Struct, frozen=True):
    """A line of a file that cannot become a record, on its way to the rejected records.

    It takes the stream like the good lines of its file, so that one consumer keeps the whole account:
    ``{"id", "partition_key", "rejected": {"reason", "raw": base64}, "upload"}``. The id is derived from the
    line's place in the file, as a record's would be: published twice, it is one rejected record.
    """

    id: str
    partition_key: str
    rejected: LineFault
    upload: Origin

    @classmethod
    def from_bytes(cls, data: bytes) -> Self | None:
        """Read one from the bytes of a stream record; None when they are something else."""
        try:
            message = _decode_rejected(data)
            raw = base64.b64decode(message.rejected.raw, altchars=b"-_", validate=True)
            check_identifier("id", message.id)
            check_identifier("partition_key", message.partition_key)
            check_identifier("upload.id", message.upload.id)
        except (*WRONG, ValueError, PermanentError):
            return None
        if not is_place_in(message.upload.id, message.id):
            return None
        return cls(message.id, message.partition_key, LineFault(message.rejected.reason, raw), message.upload)

    def to_bytes(self) -> bytes:
        """As the stream carries it: compact JSON in UTF-8."""
        # In the alphabet for URLs, which a release before this one reads, too.
        raw = base64.urlsafe_b64encode(self.rejected.raw).decode()
        fault = _FaultMessage(self.rejected.reason, raw)
        return _encode(_RejectedMessage(self.id, self.partition_key, fault, self.upload))


def is_positional(record_id: str) -> bool:
    """Whether an id has the form of those that Oncestream gives to lines of files: ``<upload id>:<offset>``.

    No caller and no field of the data may give such an id: the line would find its id taken.
    """
    return _positional.fullmatch(record_id) is not None


def is_place_in(upload: str, record_id: str) -> bool:
    """Whether an id is the place of a line in this upload, and so the line's alone."""
    start, _, offset = record_id.rpartition(":")
    return start == upload and offset.isascii() and offset.isdigit()


def check_identifier(name: str, value: str) -> None:
    """Check what is to be an id or a partition key.

    Raises
    ------
    PermanentError
        It is empty, too long, or has a control character. The message begins with ``name``.
    """
    if _identifier.fullmatch(value):
        return
    if not value:
        raise PermanentError(f"{name}: is empty")
    if len(value) > MAX_IDENTIFIER:
        raise PermanentError(f"{name}: has {len(value)} characters; at most {MAX_IDENTIFIER} are allowed")
    found = _control.search(value)
    at = found.start() if found else 0
    raise PermanentError(f"{name}: has a control character (U+{ord(value[at]):04X}) at position {at + 1}")


def check_own_id(record_id: str) -> None:
    """Check an id that a caller or the data gives.

    Raises
    ------
    PermanentError
        It is no identifier, or it is positional.
    """
    check_identifier("id", record_id)
    if is_positional(record_id):
        raise PermanentError(f"id: has the form of {_PLACE}, which is reserved: give another id")


def faults_of_fields(data: bytes, known: dict[str, bool], check_payload: Callable[[str], None]) -> list[str]:
    """What is wrong with the fields of what is no record, given as JSON: at least one fault.

    ``known`` has the names of the fields, and whether they are required.

    Raises
    ------
    PermanentError
        The bytes are not UTF-8, not JSON, or no object.
    """
    fields = fields_of(value_of(data))
    if fields is None:
        names = ", ".join(f'"{name}"' if required else f'"{name}"?' for name, required in known.items())
        raise PermanentError(f"not an object: expected {{{names}}}")
    faults = []
    for name, required in known.items():
        if name not in fields:
            faults += [f"{name}: is missing"] if required else []
            continue
        try:
            if name == "payload":
                check_payload(bytes(fields[name]).decode())
            elif name == "upload":
                _check_place(fields[name])
            else:
                _check_identifier_value(name, fields[name])
        except PermanentError as error:
            faults.append(str(error))
    faults += [f"{name}: is no field of a record" for name in fields if name not in known]
    return faults or ["a field is there twice, and the first one is wrong"]


def _check_place(value: msgspec.Raw) -> None:
    try:
        _decode_place(value)
    except msgspec.ValidationError as error:
        raise PermanentError('upload: is not {"id": a text, "chunk": from 0, "line": from 1}') from error


def _check_identifier_value(name: str, value: msgspec.Raw) -> None:
    kind = kind_of(bytes(value))
    if kind != "a text":
        raise PermanentError(f"{name}: is {kind}, and must be a text")
    check_identifier(name, text_of(value))


_FIELDS = {"id": True, "partition_key": True, "payload": True, "upload": False}
_decode_message = msgspec.json.Decoder(_Message).decode
_decode_place = msgspec.json.Decoder(Origin | None).decode
_decode_rejected = msgspec.json.Decoder(_RejectedMessage).decode
_encode = msgspec.json.Encoder().encode
