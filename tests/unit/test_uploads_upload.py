"""Uploads: ids, formats, metadata, and the ledger's item."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import PermanentError
from uploads.upload import Upload, field_metadata, format_of, named_field, upload_id

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)


def test_an_id_is_32_hexadecimal_digits_and_always_the_same() -> None:
    assert upload_id("bucket", "a.csv", '"e"') == "0915b26c9d8d7903aa777b68aef32b05"


def test_an_id_does_not_depend_on_the_quotation_marks_of_the_etag() -> None:
    assert upload_id("b", "k", '"e"') == upload_id("b", "k", "e")


@pytest.mark.parametrize(
    "other",
    [
        ("c", "k", "e"),
        ("b", "l", "e"),
        ("b", "k", "f"),
        ("bk", "", "e"),
        ("b", "ke", ""),
        ("b", 'k", "e', ""),
    ],
)
def test_another_bucket_key_or_content_is_another_upload(other: tuple[str, str, str]) -> None:
    assert upload_id(*other) != upload_id("b", "k", "e")


@pytest.mark.parametrize(
    ("key", "content_type", "content_encoding", "known"),
    [
        ("a.ndjson", "", "", ("ndjson", False)),
        ("a.jsonl", "", "", ("ndjson", False)),
        ("a.json", "", "", ("json", False)),
        ("a.tsv.gz", "", "", ("csv", True)),
        ("a.csv", "", "", ("csv", False)),
        ("A.CSV", "", "", ("csv", False)),
        ("a.csv.gz", "", "", ("csv", True)),
        ("a.ndjson.GZ", "application/gzip", "", ("ndjson", True)),
        ("dir.csv/a.b.jsonl.gz", "", "", ("ndjson", True)),
        ("a.csv", "application/json", "", ("csv", False)),  # the extension first
        ("a", "text/csv; charset=utf-8", "", ("csv", False)),
        ("a.gz", "application/x-ndjson", "", ("ndjson", True)),
        ("a.txt", "Application/JSON", "", ("json", False)),
        ("a", "text/tab-separated-values", "", ("csv", False)),
        ("a.csv", "", "gzip", ("csv", True)),
        ("a.csv.gz", "", "gzip", ("csv", True)),
        ("a.csv", "", "aws-chunked", ("csv", False)),
        ("a.csv", "", "aws-chunked,gzip", ("csv", True)),
    ],
)
def test_the_format(key: str, content_type: str, content_encoding: str, known: tuple[str, bool]) -> None:
    assert format_of(key, content_type, content_encoding) == known


@pytest.mark.parametrize(
    ("key", "content_type", "content_encoding", "named"),
    [
        ("a.parquet", "binary/octet-stream", "", "'binary/octet-stream'"),
        ("csv", "", "", "content type ''"),
        ("dir.csv/a", "", "", "extension"),
        ("a.csv", "", "br", "content encoding 'br'"),
        ("a.zip", "application/zip", "", "'application/zip'"),
    ],
)
def test_an_unknown_format_says_what_was_looked_at(
    key: str, content_type: str, content_encoding: str, named: str
) -> None:
    with pytest.raises(PermanentError, match=named):
        format_of(key, content_type, content_encoding)


@given(st.text(min_size=1).filter(lambda name: name.strip() and name.isprintable()))
def test_any_field_name_survives_the_metadata(name: str) -> None:
    metadata = field_metadata(name, None)
    assert metadata["id-field"].isascii()
    assert named_field(metadata, "id-field") == name


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("order_id", "order_id"),
        ("order id", "order id"),
        ("100%", "100%"),
        ("=?UTF-8?Q?caf=C3=A9?=", "café"),  # as other clients, and S3 itself, encode it
        ("=?iso-8859-1?q?caf=E9?=", "café"),
    ],
)
def test_a_field_named_by_another_client(value: str, name: str | None) -> None:
    assert named_field({"id-field": value}, "id-field") == name


def test_no_metadata_names_no_field() -> None:
    assert named_field({}, "key-field") is None
    assert field_metadata(None, None) == {}


@pytest.mark.parametrize("value", ["=?UTF-8?B?!!!?=", "=?UTF-8?B?/w==?=", "=?nope?B?YQ==?="])
def test_metadata_that_cannot_be_decoded_is_said_so(value: str) -> None:
    with pytest.raises(PermanentError, match="id-field cannot be decoded"):
        named_field({"id-field": value}, "id-field")


@pytest.mark.parametrize(
    "upload",
    [
        Upload(upload="u", bucket="b", key="k", etag='"e"', size=0, registered_at=NOW, failed="gone"),
        Upload(
            upload="u",
            bucket="b",
            key="ü/日本 +\n",
            version_id="v",
            etag='"e-7"',
            size=5 * 2**40,
            format="csv",
            gzip=True,
            id_field="id",
            key_field="kunde",
            registered_at=NOW,
            chunks=0,
            planned_at=NOW,
        ),
    ],
)
def test_an_upload_survives_the_ledger(upload: Upload) -> None:
    assert Upload.from_item(upload.to_item()) == upload
