"""The chunk job and the chunk count: what uploads/plan and uploads/chunks say to each other.

plan sends a ``ChunkJob`` for every byte range of an upload; chunks publishes the range's lines and answers
with a ``ChunkCount`` in the ledger. Both sides use these classes and know nothing else about each other.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    ValidationError,
    model_validator,
)

from common.errors import PermanentError
from records.reasons import faults_of, first_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

Format = Literal["ndjson", "csv", "json"]
"""ndjson: a JSON object a line. csv: a row an object, after a header. json: one array, or documents one after the
other, each element or document a record, wherever its lines end."""

Delimiter = Literal[",", ";", "\t", "|"]
"""What separates the fields of a CSV file."""

MAX_OPEN_BYTES = 64 * 1024 * 1024
"""A row or an element that is not over after so many bytes lacks a closing mark, as far as anybody can tell. It is
the fault of the file from there on: nobody reads the rest of it again and again for one record."""

_Text = Annotated[str, Field(min_length=1)]


def job_id(upload: str, chunk: int) -> str:
    """The id of a chunk job: derived, so that planning twice asks for the same job twice."""
    return f"{upload}:{chunk}"


def chunk_item(chunk: int) -> str:
    """The ledger's sort key for a chunk's count. As text they sort as chunks do (10,000 at most)."""
    return f"chunk#{chunk:06d}"


def failure_item(chunk: int) -> str:
    """The ledger's sort key for a chunk's failure. Not the count's: what has once been published stays so."""
    return f"failure#{chunk:06d}"


class ChunkJob(BaseModel):
    """One byte range of an upload, to be read line by line and published.

    Bytes ``start`` to ``end`` (exclusive) of the object. ``end`` is absent only for a gzip file, which is one
    chunk and is read to its end.

    - ndjson: a cut may fall inside a line. A line belongs to the chunk in which its first byte lies; look at
      the byte before ``start`` to tell whether a line begins there, and read past ``end`` to finish the last
      one.
    - csv: every cut is the beginning of a record (``uploads.formats.csv_cuts`` says how they are found), so a chunk
      is complete in itself, but for the header: the file's first record, which lies in chunk 0.
    - json: one chunk.
    - read the object with ``IfMatch: etag``, and with its version where there is one: what is read is then
      what was planned.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    job: _Text
    upload: _Text
    bucket: _Text
    key: _Text
    version_id: str | None = None
    etag: _Text
    """As S3's API gives it in a response: with its quotation marks."""
    chunk: NonNegativeInt
    start: NonNegativeInt
    end: NonNegativeInt | None = None
    size: NonNegativeInt
    """Bytes of the whole object, as stored."""
    format: Format
    gzip: bool = False
    id_field: _Text | None = None
    key_field: _Text | None = None
    delimiter: Delimiter | None = None
    """Of a CSV file; None: a comma. (So that a job of most files is one that the release before reads, too.)"""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.job != job_id(self.upload, self.chunk):
            raise ValueError("job is not upload:chunk")
        if self.gzip != (self.end is None):
            raise ValueError("end must be absent for a gzip file and present for any other")
        if self.end is not None and not self.start < self.end <= self.size:
            raise ValueError("start, end and size do not make a byte range")
        return self

    def to_json(self) -> str:
        """The message's body. In ASCII: SQS refuses some characters that a key may hold, JSON escapes."""
        return json.dumps(self.model_dump(exclude_none=True))

    @classmethod
    def from_json(cls, body: str) -> Self:
        """Read a message's body.

        Raises
        ------
        PermanentError
            The body is no chunk job; the message says why.
        """
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            raise PermanentError(f"not a chunk job: {first_of(faults_of(error))}") from error


class ChunkCount(BaseModel):
    """What one chunk held, written into the ledger once it is published whole: put twice, it counts once."""

    model_config = ConfigDict(frozen=True)

    chunk: NonNegativeInt
    start: NonNegativeInt
    end: NonNegativeInt | None = None
    lines: NonNegativeInt
    """Lines that ask for a row: neither blank ones nor the header. ``lines == published + rejected``."""
    published: NonNegativeInt
    """Lines that went onto the stream as records."""
    rejected: NonNegativeInt
    """Lines that went onto the stream as rejected lines."""
    file_lines: NonNegativeInt
    """Lines that begin in this chunk, as an editor numbers them: with the blank ones, the header, and each
    line of a CSV record that spans several. The sum over the chunks before turns a chunk's line number (which
    counts in the same way, from 1) into the file's. Of a json file, whose elements need not be lines: its elements."""
    published_at: AwareDatetime

    @model_validator(mode="after")
    def _closed(self) -> Self:
        if self.lines != self.published + self.rejected:
            raise ValueError("lines is not published + rejected")
        return self

    def to_item(self, upload: str) -> dict[str, AttributeValueTypeDef]:
        """The ledger's item, for DynamoDB's PutItem."""
        item: dict[str, AttributeValueTypeDef] = {
            name: {"N": str(getattr(self, name))}
            for name in ("chunk", "start", "end", "lines", "published", "rejected", "file_lines")
            if getattr(self, name) is not None
        }
        return item | {
            "upload": {"S": upload},
            "item": {"S": chunk_item(self.chunk)},
            "published_at": {"S": self.published_at.isoformat()},
        }

    @classmethod
    def from_item(cls, item: Mapping[str, AttributeValueTypeDef]) -> Self:
        """Read the ledger's item back. Unknown attributes are ignored."""
        return cls.model_validate({name: value.get("N", value.get("S")) for name, value in item.items()})


class ChunkFailure(BaseModel):
    """Why a chunk cannot be published, written into the ledger by uploads/chunks: trying again gives the
    same.

    The job is in the dead-letter queue then. If it is redriven and succeeds after all (the object was
    restored), the chunk has a ``ChunkCount`` as well, and that one is the truth.
    """

    model_config = ConfigDict(frozen=True)

    chunk: NonNegativeInt
    failed: _Text
    """The reason, for a person."""
    failed_at: AwareDatetime

    def to_item(self, upload: str) -> dict[str, AttributeValueTypeDef]:
        """The ledger's item, for DynamoDB's PutItem."""
        return {
            "upload": {"S": upload},
            "item": {"S": failure_item(self.chunk)},
            "chunk": {"N": str(self.chunk)},
            "failed": {"S": self.failed},
            "failed_at": {"S": self.failed_at.isoformat()},
        }

    @classmethod
    def from_item(cls, item: Mapping[str, AttributeValueTypeDef]) -> Self:
        """Read the ledger's item back. Unknown attributes are ignored."""
        return cls.model_validate({name: value.get("N", value.get("S")) for name, value in item.items()})
