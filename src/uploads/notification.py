"""Reads S3 event notifications. Pure.

S3 sends them itself (docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html) or by
EventBridge (docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html), where keys are not URL-encoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import unquote_plus

from pydantic import BaseModel, Field, NonNegativeInt, ValidationError

from records.reasons import faults_of, first_of


@dataclass(frozen=True, slots=True)
class ObjectCreated:
    """An object has been put into the bucket of the uploads."""

    bucket: str
    key: str
    etag: str
    """With quotation marks, as in a response of S3's API; in the notification it comes without."""
    version_id: str | None
    size: int


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A record that leads to nothing. Refused: it should not have been sent, and another attempt changes
    nothing."""

    reason: str
    refused: bool
    key: str | None = None


class _Bucket(BaseModel):
    name: Annotated[str, Field(min_length=1)]


class _Object(BaseModel):
    key: Annotated[str, Field(min_length=1)]
    etag: Annotated[str, Field(min_length=1, alias="eTag")]
    version_id: Annotated[str | None, Field(alias="versionId")] = None
    size: NonNegativeInt = 0


class _Entity(BaseModel):
    bucket: _Bucket
    object: _Object


class _EventBridgeObject(BaseModel):
    key: Annotated[str, Field(min_length=1)]
    etag: Annotated[str, Field(min_length=1)]
    version_id: Annotated[str | None, Field(alias="version-id")] = None
    size: NonNegativeInt = 0


class _EventBridgeDetail(BaseModel):
    bucket: _Bucket
    object: _EventBridgeObject


class _EventBridge(BaseModel):
    detail: _EventBridgeDetail


class _Source(BaseModel):
    event_source: Annotated[Literal["aws:s3"], Field(alias="eventSource")]
    event_name: Annotated[str, Field(alias="eventName")]


class _Created(BaseModel):
    s3: _Entity


def read(event: Any, bucket: str) -> list[ObjectCreated | PassedOver]:
    """What the event's records say about the objects of ``bucket``, in their order. Never raises."""
    if isinstance(event, dict) and event.get("Event") == "s3:TestEvent":
        return [PassedOver("S3 only tests whether it may notify", refused=False)]
    if isinstance(event, dict) and "detail-type" in event:
        return [_read_eventbridge(event, bucket)]
    records = event.get("Records") if isinstance(event, dict) else None
    if not isinstance(records, list) or not records:
        return [PassedOver("not an S3 notification: no records", refused=True)]
    return [_read(record, bucket) for record in records]


def _read(record: Any, bucket: str) -> ObjectCreated | PassedOver:
    try:
        # The source first: a notification of another kind is told so, and not that it lacks an ETag.
        source = _Source.model_validate(record)
        if not source.event_name.startswith("ObjectCreated:"):
            return PassedOver(f"event {source.event_name!r}, not ObjectCreated", refused=True)
        entity = _Created.model_validate(record).s3
    except ValidationError as error:
        return _not_understood(error)
    try:
        key = unquote_plus(entity.object.key, errors="strict")
    except UnicodeDecodeError:
        return PassedOver("the key is not UTF-8", refused=True, key=entity.object.key)
    return _created(entity.bucket.name, key, entity.object, bucket)


def _read_eventbridge(event: dict[str, Any], bucket: str) -> ObjectCreated | PassedOver:
    kind, source = event["detail-type"], event.get("source")
    if (kind, source) != ("Object Created", "aws.s3"):
        return PassedOver(
            f"{kind!r} of {source!r} by EventBridge, not 'Object Created' of 'aws.s3'", refused=True
        )
    try:
        detail = _EventBridge.model_validate(event).detail
    except ValidationError as error:
        return _not_understood(error)
    return _created(detail.bucket.name, detail.object.key, detail.object, bucket)


def _created(
    found: str, key: str, described: _Object | _EventBridgeObject, bucket: str
) -> ObjectCreated | PassedOver:
    if found != bucket:
        return PassedOver(f"bucket {found!r}, not {bucket!r}", refused=True, key=key)
    if key.endswith("/") and described.size == 0:
        return PassedOver("a folder marker", refused=False, key=key)
    etag = described.etag.strip('"')
    return ObjectCreated(bucket, key, f'"{etag}"', described.version_id or None, described.size)


def _not_understood(error: ValidationError) -> PassedOver:
    return PassedOver(f"not an S3 notification: {first_of(faults_of(error))}", refused=True)
