"""What an upload is: its id, its format, the fields its metadata names."""

from __future__ import annotations

import base64
import hashlib
import json
from email.errors import HeaderParseError
from email.header import decode_header
from typing import TYPE_CHECKING, Self

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from pydantic import AwareDatetime, BaseModel, ConfigDict, NonNegativeInt

from common.chunk_job import Format
from common.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

UPLOAD_ITEM = "upload"
"""The ledger's sort key for the upload itself."""

_EXTENSIONS: dict[str, Format] = {".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "ndjson", ".csv": "csv"}
_CONTENT_TYPES: dict[str, Format] = {
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "application/x-jsonlines": "ndjson",
    "application/json": "ndjson",
    "text/csv": "csv",
}


class Upload(BaseModel):
    """One version of one object, as the ledger keeps it."""

    model_config = ConfigDict(frozen=True)

    upload: str
    bucket: str
    key: str
    version_id: str | None = None
    etag: str
    """With its quotation marks."""
    size: NonNegativeInt
    """Bytes, as stored."""
    format: Format | None = None
    """None only for an upload that failed because of it."""
    gzip: bool = False
    id_field: str | None = None
    key_field: str | None = None
    registered_at: AwareDatetime
    chunks: NonNegativeInt | None = None
    """How many chunks there are, once every chunk job has been sent."""
    planned_at: AwareDatetime | None = None
    failed: str | None = None
    """Why nothing of it is ever loaded. The same object put again is then registered anew."""

    def to_item(self) -> dict[str, AttributeValueTypeDef]:
        """The ledger's item."""
        fields = self.model_dump(mode="json", exclude_none=True) | {"item": UPLOAD_ITEM}
        serialize = TypeSerializer().serialize
        return {name: serialize(value) for name, value in fields.items()}

    @classmethod
    def from_item(cls, item: Mapping[str, AttributeValueTypeDef]) -> Self:
        """Read the ledger's item back. Unknown attributes are ignored."""
        deserialize = TypeDeserializer().deserialize
        return cls.model_validate({name: deserialize(value) for name, value in item.items()})


def upload_id(bucket: str, key: str, etag: str) -> str:
    """The id of an upload: 32 hexadecimal digits, derived from the place and the content.

    The same content put again under the same key has the same id, also where the bucket keeps versions: a
    version id would be drawn anew for it. (The ETag follows from the content for objects encrypted by S3
    itself or not at all, put in parts of the same size; see
    docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html. Under SSE-KMS it is another one each time, and
    so is then the upload.)
    """
    # JSON keeps apart what joining with any character could mix up: a key may hold every character.
    name = json.dumps([bucket, key, etag.strip('"')])
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def format_of(key: str, content_type: str = "", content_encoding: str = "") -> tuple[Format, bool]:
    """The format of a file and whether it is gzipped: by the key's extension, or else by the content type.

    Raises
    ------
    PermanentError
        Neither is known. The message names both.
    """
    encodings = {word.strip().lower() for word in content_encoding.split(",")}
    encodings -= {"", "identity", "aws-chunked"}
    if encodings - {"gzip"}:
        raise PermanentError(f"content encoding {content_encoding!r} is not known: plain or gzip")
    name = key.rpartition("/")[2].lower()
    stem = name.removesuffix(".gz")
    media_type = content_type.partition(";")[0].strip().lower()
    known = _EXTENSIONS.get(stem[stem.rfind(".") :]) if "." in stem else None
    known = known or _CONTENT_TYPES.get(media_type)
    if known is None:
        raise PermanentError(
            f"format not known: neither by the extension ({', '.join(_EXTENSIONS)}, each also with .gz)"
            f" nor by the content type {content_type!r}"
        )
    return known, stem != name or "gzip" in encodings


def field_metadata(id_field: str | None, key_field: str | None) -> dict[str, str]:
    """The S3 object metadata that names an upload's fields; ``named_field`` reads it."""
    named = {"id-field": id_field, "key-field": key_field}
    return {name: _encoded(field) for name, field in named.items() if field is not None}


def named_field(metadata: Mapping[str, str], name: str) -> str | None:
    """The field that the metadata entry ``name`` names, or None.

    S3 metadata is ASCII; anything else is written as RFC 2047 has it (``=?UTF-8?B?...?=``), which is also
    how S3 returns what it was given in another form
    (docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html).

    Raises
    ------
    PermanentError
        The entry cannot be decoded.
    """
    value = metadata.get(name, "")
    try:
        words = decode_header(value)
        text = "".join(
            word if isinstance(word, str) else word.decode(charset or "ascii") for word, charset in words
        )
    except (HeaderParseError, LookupError, UnicodeDecodeError) as error:
        raise PermanentError(f"the object's metadata {name} cannot be decoded: {value!r}") from error
    if value.strip() and not text.strip():  # decode_header passes over what is no base64
        raise PermanentError(f"the object's metadata {name} cannot be decoded: {value!r}")
    return text or None


def _encoded(field: str) -> str:
    # A header's value loses the blanks at its ends, and "=?" announces an encoded word.
    if field.isascii() and field.isprintable() and field == field.strip() and "=?" not in field:
        return field
    return f"=?UTF-8?B?{base64.b64encode(field.encode()).decode()}?="
