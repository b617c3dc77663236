"""Turns one record of a Kinesis event into a :class:`Record`, or into the reason why it is not one. Pure."""

from __future__ import annotations

import binascii
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, NamedTuple

import msgspec

from common.errors import PermanentError
from oncestream.engine import Refusal
from records.record import Origin, Record, RejectedLine, check_identifier, is_place_in
from tables.check import check_payload

REASON_LENGTH = 2_000
RECORD_ID_LENGTH = 256

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Arrived(NamedTuple):
    """A record off the stream: what it says, its exact bytes, and where and when it was on the stream."""

    record: Record
    raw: bytes
    shard_id: str
    sequence_number: str
    arrived_at: float
    """Seconds since the epoch, as Kinesis took it."""
    redriven: bool = False
    """Whether `once redrive` has sent it: then a row of rejected_records awaits it."""

    @property
    def key(self) -> str:
        """What it is known by: the record's id."""
        return self.record.id

    def content_digest(self) -> str:
        """The SHA-256 of the payload's bytes."""
        return sha256(self.record.payload_json.encode()).hexdigest()

    @property
    def has_own_id(self) -> bool:
        """Whether it is a line of a file whose data carries its own id.

        Another line may then carry the same id. An id derived from the place in the file is the line's alone.
        """
        upload = self.record.upload
        return upload is not None and not is_place_in(upload.id, self.record.id)

    @property
    def may_repeat(self) -> bool:
        """Whether it says something new though its id is known: the line that repeats it, or that it is back."""
        return self.redriven or (self.record.upload is not None and self.has_own_id)


@dataclass(frozen=True, slots=True)
class Rejection(Refusal):
    """What cannot be a row of ``records``: the reason, the exact bytes, and what is known of its origin."""

    shard_id: str
    sequence_number: str
    arrived_at: float
    record_id: str | None = None
    upload: Origin | None = None
    kind: Literal["rejected", "conflict"] = "rejected"
    """conflict: a record with this id and another content is stored. Nothing else is wrong with it."""
    loggable: str | None = None
    """The reason without anything that may quote the record, where that is another text."""

    @property
    def is_conflict(self) -> bool:
        """Whether its kind is conflict."""
        return self.kind == "conflict"

    @property
    def is_line(self) -> bool:
        """Whether it is a line of a file that never was a message: uploads/chunks rejected it."""
        return self.upload is not None and is_place_in(self.upload.id, self.id)


def decode(record: dict[str, Any], now: Callable[[], float] = time.time) -> Arrived | Rejection:
    """Decode and check one entry of ``event["Records"]``.

    The fields of the entry are documented at docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html.
    ``eventID`` is ``<shard id>:<sequence number>``. A stream with ``RecordDistributionStrategy`` AUTO has records
    without a partition key, and the API promises no arrival time either
    (docs.aws.amazon.com/kinesis/latest/APIReference/API_Record.html): such a record has arrived now. Whatever the
    fields hold, one record never stops those behind it.

    Raises
    ------
    KeyError
        It is not an entry of a Kinesis event.
    """
    kinesis = record["kinesis"]
    sequence_number = kinesis["sequenceNumber"]
    shard_id = str(record.get("eventID") or "").partition(":")[0]
    time_given = kinesis.get("approximateArrivalTimestamp")
    arrived_at = float(time_given) if isinstance(time_given, int | float) else now()
    data = kinesis.get("data")
    if data is None:
        data = ""
    try:
        raw = binascii.a2b_base64(data)
    except (ValueError, TypeError) as error:
        raw = str(data).encode(errors="backslashreplace")
        return Rejection(digest(raw), f"not base64: {error}", raw, shard_id, sequence_number, arrived_at)
    try:
        redriven = is_redriven(kinesis.get("partitionKey"), raw)
        return Arrived(
            Record.from_bytes(raw, check_payload), raw, shard_id, sequence_number, arrived_at, redriven
        )
    except PermanentError as error:
        reason = str(error)
    line = RejectedLine.from_bytes(raw)
    if line:
        return Rejection(
            id=line.id,
            reason=storable(line.rejected.reason, REASON_LENGTH),
            raw=line.rejected.raw,
            shard_id=shard_id,
            sequence_number=sequence_number,
            arrived_at=arrived_at,
            upload=line.upload,
        )
    record_id, upload = _origin(raw)
    return Rejection(
        id=digest(raw),
        reason=storable(reason, REASON_LENGTH),
        raw=raw,
        shard_id=shard_id,
        sequence_number=sequence_number,
        arrived_at=arrived_at,
        record_id=record_id,
        upload=upload,
    )


def reject(
    arrived: Arrived,
    reason: str,
    *,
    kind: Literal["rejected", "conflict"] = "rejected",
    loggable: str | None = None,
) -> Rejection:
    """The rejection of a record that is well formed: Postgres refuses it, or its id is another's."""
    return Rejection(
        id=digest(arrived.raw),
        reason=storable(reason, REASON_LENGTH),
        raw=arrived.raw,
        shard_id=arrived.shard_id,
        sequence_number=arrived.sequence_number,
        arrived_at=arrived.arrived_at,
        record_id=arrived.record.id,
        upload=arrived.record.upload,
        kind=kind,
        loggable=loggable,
    )


def storable(text: str, length: int) -> str:
    """``text`` as one line that Postgres can store; what cannot be stored is shown as an escape.

    Reasons quote the record, and a record may say anything.
    """
    encodable = text[:length].encode(errors="backslashreplace").decode()
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", encodable)[:length]


def is_redriven(partition_key: str | None, raw: bytes) -> bool:
    """Whether a message of the stream was put there by `once redrive`: its key is the rejected record's id."""
    # The length first: nearly no record pays for the digest.
    return partition_key is not None and len(partition_key) == 64 and partition_key == digest(raw)


def digest(raw: bytes) -> str:
    """The id of a rejected record that is not a line of a file: the SHA-256 of its bytes."""
    # A bad record has no id, or none to be trusted: its bytes are what it is. Delivered again, or sent twice
    # by a producer's retry, the same bytes are the same bad record.
    return sha256(raw).hexdigest()


def _origin(raw: bytes) -> tuple[str | None, Origin | None]:
    """Id and upload of a broken record, as far as they can be read."""
    try:
        # Python's parser, because it takes what no JSON has (NaN, half of a surrogate pair).
        value = json.loads(raw, parse_int=_integer)
    except (ValueError, RecursionError):
        return None, None
    if not isinstance(value, dict):
        return None, None
    record_id = value.get("id")
    try:
        upload = msgspec.convert(value.get("upload"), Origin)
        check_identifier("upload.id", upload.id)
        upload.id.encode()
    except (msgspec.ValidationError, PermanentError, UnicodeError):
        upload = None
    return storable(record_id, RECORD_ID_LENGTH) if isinstance(record_id, str) else None, upload


def _integer(digits: str) -> int | None:
    # Python refuses to read more than 4,300 digits, and no integer that is looked at here has so many.
    return int(digits) if len(digits) <= 20 else None
