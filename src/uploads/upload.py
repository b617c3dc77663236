"""What an upload is: its id, its format, and what its metadata names."""

from __future__ import annotations

import base64
import hashlib
import json
from email.errors import HeaderParseError
from email.header import decode_header
from typing import TYPE_CHECKING, Self

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from pydantic import AwareDatetime, BaseModel, ConfigDict, NonNegativeInt

from common.errors import PermanentError
from uploads.chunk_job import Delimiter, Format

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

UPLOAD_ITEM = "upload"
"""The ledger's sort key for the upload itself."""

_EXTENSIONS: dict[str, Format] = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
}
_CONTENT_TYPES: dict[str, Format] = {
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "application/x-jsonlines": "ndjson",
    "application/json": "json",
    "text/csv": "csv",
    "text/tab-separated-values": "csv",
}
DELIMITERS: dict[str, Delimiter] = {",": ",", ";": ";", "tab": "\t", "|": "|"}
"""What the metadata ``delimiter`` may say. A tab has a name: a header loses the blanks at its ends."""


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
    delimiter: Delimiter | None = None
    """Of a CSV file; None: a comma."""
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

    ``json`` may turn out to be NDJSON: :func:`uploads.formats.contents.look` decides.

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
    known = _EXTENSIONS.get(_extension(key)) or _CONTENT_TYPES.get(_media_type(content_type))
    if known is None:
        raise PermanentError(
            f"format not known: neither by the extension ({', '.join(_EXTENSIONS)}, each also with .gz)"
            f" nor by the content type {content_type!r}"
        )
    return known, name.endswith(".gz") or "gzip" in encodings


def delimiter_of(
    known: Format, key: str, content_type: str, metadata: Mapping[str, str]
) -> tuple[Delimiter | None, bool]:
    """What separates the fields of a CSV file (None: a comma), and whether the metadata says so.

    Without the metadata ``delimiter`` it is a tab for ``.tsv`` (or ``text/tab-separated-values``), or else a comma.

    Raises
    ------
    PermanentError
        The metadata names none that is known, or the file is no CSV.
    """
    named = metadata.get("delimiter")
    if named is None:
        of_tabs = _extension(key) == ".tsv" or (
            _extension(key) not in _EXTENSIONS and _media_type(content_type) == "text/tab-separated-values"
        )
        return ("\t" if of_tabs else None), False
    if known != "csv":
        raise PermanentError(
            f"the object's metadata names a delimiter, {named!r}, and only a CSV file has one"
        )
    if named not in DELIMITERS:
        raise PermanentError(
            f"the object's metadata names {named!r} as the delimiter; it may be {' '.join(map(repr, DELIMITERS))}"
        )
    delimiter = DELIMITERS[named]
    return (None if delimiter == "," else delimiter), True


def field_metadata(
    id_field: str | None, key_field: str | None, delimiter: str | None = None
) -> dict[str, str]:
    """The S3 object metadata that names an upload's fields; ``named_field`` and ``delimiter_of`` read it."""
    named = {"id-field": id_field, "key-field": key_field, "delimiter": delimiter}
    return {name: _encoded(field) for name, field in named.items() if field is not None}


def named_field(metadata: Mapping[str, str], name: str) -> str | None:
    """The field that the metadata entry ``name`` names, or None.

    S3 metadata is ASCII; anything else is written as RFC 2047 has it (``=?UTF-8?B?...?=``), which is also
    how S3 returns what it was given in another form
    (docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html).

    Raises
    ------
    PermanentError
        The entry is empty, or cannot be decoded.
    """
    value = metadata.get(name)
    if value is None:
        return None
    try:
        words = decode_header(value)
        text = "".join(
            word if isinstance(word, str) else word.decode(charset or "ascii") for word, charset in words
        )
    except (HeaderParseError, LookupError, UnicodeDecodeError) as error:
        raise PermanentError(f"the object's metadata {name} cannot be decoded: {value!r}") from error
    if value.strip() and not text.strip():  # decode_header passes over what is no base64
        raise PermanentError(f"the object's metadata {name} cannot be decoded: {value!r}")
    if not text:
        raise PermanentError(f"the object's metadata {name} is empty: name a field, or leave it out")
    return text


def _extension(key: str) -> str:
    """The extension of the unpacked file, with its dot and in small letters; empty without one."""
    stem = key.rpartition("/")[2].lower().removesuffix(".gz")
    return stem[stem.rfind(".") :] if "." in stem else ""


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _encoded(field: str) -> str:
    # A header's value loses the blanks at its ends, and "=?" announces an encoded word.
    if field.isascii() and field.isprintable() and field == field.strip() and "=?" not in field:
        return field
    return f"=?UTF-8?B?{base64.b64encode(field.encode()).decode()}?="
