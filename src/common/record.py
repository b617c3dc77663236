"""The record: what travels on the stream, and how it is checked."""

from __future__ import annotations

import json
import math
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from common.errors import PermanentError
from common.payload import Payload

MAX_RECORD_BYTES = 1024 * 1024
"""What Kinesis takes as one record: 1 MiB, the partition key counted in.

Source: docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html
"""

MAX_INTEGER = 2**31 - 1
"""The largest ``integer`` of Postgres, which is the type of the columns for chunk and line."""

_MAX_REASON = 500


# An id is a primary key and a word in a log line: short, and without control characters (NUL is one of them).
Identifier = Annotated[
    str,
    StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$"),
]


class Line(BaseModel):
    """Where in an uploaded file a record comes from: the upload, the chunk (from 0), the line in it (from 1).

    The line of the *file* follows from the ledger, which knows how many lines the chunks before have.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    id: Identifier
    chunk: Annotated[int, Field(ge=0, le=MAX_INTEGER)]
    line: Annotated[int, Field(ge=1, le=MAX_INTEGER)]


class Record(BaseModel):
    """One record: ``{"id", "partition_key", "payload", "upload"?}``.

    The id says which record this is, for ever: two messages with one id are the same record. It is given by
    the caller or derived from the place in a file, never drawn from the stream.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    id: Identifier
    partition_key: Identifier
    payload: Payload
    upload: Line | None = None

    @cached_property
    def payload_json(self) -> str:
        """The payload as JSON text: what Postgres stores."""
        # As model_dump_json does, without its dozen options: the thousands of a batch make it worth a line.
        return self.payload.__pydantic_serializer__.to_json(self.payload).decode()

    @model_validator(mode="after")
    def _storable(self) -> Self:
        # What jsonb cannot hold (postgresql.org/docs/current/datatype-json.html): U+0000, NaN, infinities.
        # The text is needed anyway, and searching it is cheap; only where a suspect word turns up are the
        # values walked.
        text = self.payload_json
        if "\\u0000" in text or "Infinity" in text or "NaN" in text:
            _check_storable(self.payload.model_dump(mode="python"))
        return self

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a record from the bytes of a stream record.

        Raises
        ------
        PermanentError
            The bytes are empty, not UTF-8, not JSON, or JSON that is not a record. The message is the reason.
        """
        if not data:
            raise PermanentError("empty body")
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise PermanentError(reason_of(error, data)) from error

    @classmethod
    def from_object(cls, value: Any) -> Self:
        """Read a record from a decoded JSON value.

        Raises
        ------
        PermanentError
            The value is not a record. The message is the reason.
        """
        # By way of JSON, so that what is taken here is what the stream takes: pydantic judges Python values
        # by other rules (a key with a lone surrogate passes, and becomes another key when it is written).
        try:
            data = json.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise PermanentError(f"not JSON: {error}") from error
        return cls.from_bytes(data.encode())

    def to_bytes(self) -> bytes:
        """The record as the stream carries it: compact JSON in UTF-8."""
        return self.model_dump_json(exclude=None if self.upload else {"upload"}).encode()


class Fault(BaseModel):
    """What is wrong with a line of a file, and its bytes."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, ser_json_bytes="base64", val_json_bytes="base64"
    )

    reason: str = Field(min_length=1)
    raw: bytes


class RejectedLine(BaseModel):
    """A line of a file that cannot become a record, on its way to the rejected records.

    It takes the stream like the good lines of its file, so that one consumer keeps the whole account:
    ``{"id", "partition_key", "rejected": {"reason", "raw": base64}, "upload"}``. The id is derived from the
    line's place in the file, as a record's would be: published twice, it is one rejected record.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    id: Identifier
    partition_key: Identifier
    rejected: Fault
    upload: Line

    @classmethod
    def from_bytes(cls, data: bytes) -> Self | None:
        """Read one from the bytes of a stream record; None when they are something else."""
        try:
            return cls.model_validate_json(data)
        except ValidationError:
            return None

    def to_bytes(self) -> bytes:
        """As the stream carries it: compact JSON in UTF-8."""
        return self.model_dump_json().encode()


def _check_storable(value: Any) -> None:
    if isinstance(value, str) and "\x00" in value:
        raise ValueError("payload holds a NUL (U+0000), which Postgres cannot store")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("payload holds a number that is not finite or too large")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_storable(key)
            _check_storable(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_storable(inner)


def reason_of(error: ValidationError, data: bytes = b"") -> str:
    """What is wrong, in one line: the first three faults, each with the field it is about."""
    try:
        data.decode()
    except UnicodeDecodeError as undecodable:
        return f"not UTF-8: byte 0x{data[undecodable.start]:02x} at offset {undecodable.start}"
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    if faults[0]["type"] == "json_invalid":
        return f"not JSON: {faults[0]['msg'].removeprefix('Invalid JSON: ')}"
    shown = [
        ": ".join(
            filter(None, [".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")])
        )
        for fault in faults[:3]
    ]
    if len(faults) > len(shown):
        shown.append(f"and {len(faults) - len(shown)} more")
    return _plain("; ".join(shown))


def _plain(reason: str) -> str:
    """A reason that a log line and a text column can hold: names in it are the sender's."""
    start = reason[:_MAX_REASON]
    escaped = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in start)
    return escaped if start == reason else f"{escaped}..."
