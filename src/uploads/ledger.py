"""The ledger: what is known of every upload, in DynamoDB.

One partition an upload (``upload``, its id), one item (``item``) a fact:

- ``upload``: what it is (:class:`~uploads.upload.Upload`), written by register; plan adds the number of
  chunks.
- ``plan``: the size of its chunks and, for a CSV file, the cuts found so far (:class:`ChunkPlan`).
- ``chunk#000000``...: what each chunk held (:class:`~uploads.chunk_job.ChunkCount`), written by
  uploads/chunks.
- ``failure#000000``...: why a chunk cannot be published (:class:`~uploads.chunk_job.ChunkFailure`), and
  ``progress#000000``...: how far a chunk has come that takes longer than an invocation; by uploads/chunks too.

The partition ``waiting`` is no upload's: there each function notes why it cannot go on (:mod:`common.waiting`).

Every write here may be repeated: it is conditional, or puts the same again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from pydantic import BaseModel, ConfigDict, PositiveInt

from common.errors import TransientError
from common.waiting import WAITING, Note
from uploads.chunk_job import ChunkCount, ChunkFailure
from uploads.formats.csv_cuts import Place
from uploads.upload import UPLOAD_ITEM, Upload

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

PLAN_ITEM = "plan"
UPLOADS_INDEX = "uploads"
"""Uploads by the time they were registered. Sparse: the other items have no ``registered_at``."""


class ChunkPlan(BaseModel):
    """How an upload is cut."""

    model_config = ConfigDict(frozen=True)

    chunk_bytes: PositiveInt
    """Fixed by the first attempt, so that every further one cuts in the same places."""
    cuts: tuple[PositiveInt, ...] = ()
    """Of a CSV file: where chunks but the first begin, as far as the search has come."""
    complete: bool = False
    """Whether it has come to the end."""
    searched: Place | None = None
    """How far it has come. None: it has not begun, or a release that did not note it has come to the last cut."""

    @property
    def place(self) -> Place:
        """Where the search goes on."""
        last = self.cuts[-1] if self.cuts else 0
        return self.searched or Place(position=last, cut=last)

    def to_item(self, upload: str) -> dict[str, AttributeValueTypeDef]:
        """The ledger's item."""
        serialize = TypeSerializer().serialize
        fields = self.model_dump(exclude={"searched"}) | {"upload": upload, "item": PLAN_ITEM}
        fields["cuts"] = list(self.cuts)
        if self.searched:
            fields["searched"] = list(self.searched)
        return {name: serialize(value) for name, value in fields.items()}

    @classmethod
    def from_item(cls, item: Mapping[str, AttributeValueTypeDef]) -> Self:
        """Read the ledger's item back."""
        deserialize = TypeDeserializer().deserialize
        return cls.model_validate({name: deserialize(value) for name, value in item.items()})


@dataclass(frozen=True, slots=True)
class UploadEntry:
    """All that the ledger knows of one upload."""

    upload: Upload
    counts: tuple[ChunkCount, ...]
    """Of the chunks published so far, in order."""
    failures: tuple[ChunkFailure, ...] = ()
    """Of the chunks that cannot be published, in order; one that was published after all is among them too."""


class Ledger:
    """The ledger table. Errors of DynamoDB are botocore's own; a caller repeats."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table

    def register(self, upload: Upload) -> Upload | None:
        """Enter an upload, once. Returns None if it was inserted, or else the entry that was there before.

        An entry that failed makes way for one that has not: its object was gone or its format unknown, and
        now the object is there again. It is deleted first, since plan acts on nothing but an INSERT.

        Raises
        ------
        TransientError
            Somebody else is writing the same entry at this moment.
        """
        for _ in range(3):
            if self._put_new(upload.to_item()):
                return None
            there = self.upload(upload.upload)
            if there is None:
                continue  # it made way in between
            if there.failed is None or upload.failed is not None:
                return there
            self._delete_failed(upload.upload)
        raise TransientError(f"the ledger's entry of upload {upload.upload} keeps changing")

    def upload(self, upload: str) -> Upload | None:
        """The upload of this id, as it is now."""
        item = self._get(upload, UPLOAD_ITEM)
        return Upload.from_item(item) if item else None

    def open_plan(self, upload: str, chunk_bytes: int) -> ChunkPlan:
        """The plan of this upload; if there is none, a new one with chunks of ``chunk_bytes``."""
        new = ChunkPlan(chunk_bytes=chunk_bytes)
        if self._put_new(new.to_item(upload)):
            return new
        item = self._get(upload, PLAN_ITEM)
        if item is None:
            raise TransientError(f"the plan of upload {upload} has been removed")
        return ChunkPlan.from_item(item)

    def save_plan(self, upload: str, plan: ChunkPlan) -> None:
        """Keep what the search for cuts has found. A complete plan stays as it is."""
        self._conditionally(
            "put_item",
            Item=plan.to_item(upload),
            ConditionExpression="attribute_not_exists(complete) OR complete = :no",
            ExpressionAttributeValues={":no": {"BOOL": False}},
        )

    def mark_planned(self, upload: Upload, chunks: int, at: datetime) -> None:
        """Note that all jobs of its ``chunks`` chunks have been sent. The first time stays."""
        self._mark(
            upload,
            "SET chunks = :chunks, planned_at = :at",
            {":chunks": {"N": str(chunks)}, ":at": {"S": at.isoformat()}},
        )

    def mark_failed(self, upload: Upload, reason: str) -> None:
        """Note why nothing of it can be loaded. An upload that has been planned stays as it is."""
        self._mark(upload, "SET failed = :reason", {":reason": {"S": reason}})

    def entry(self, upload: str) -> UploadEntry | None:
        """All items of an upload, or None if there is no such upload."""
        found: Upload | None = None
        counts = []
        failures = []
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="upload = :upload",
            ExpressionAttributeValues={":upload": {"S": upload}},
            ConsistentRead=True,
        )
        for page in pages:
            for item in page["Items"]:
                match item["item"]["S"]:
                    case name if name == UPLOAD_ITEM:
                        found = Upload.from_item(item)
                    case name if name.startswith("chunk#"):
                        counts.append(ChunkCount.from_item(item))
                    case name if name.startswith("failure#"):
                        failures.append(ChunkFailure.from_item(item))
        return UploadEntry(found, tuple(counts), tuple(failures)) if found else None

    def latest(self, limit: int) -> list[str]:
        """The ids of the uploads registered last, the newest first. A brand-new one may be missing for a
        moment."""
        answer = self._client.query(
            TableName=self._table,
            IndexName=UPLOADS_INDEX,
            KeyConditionExpression="#item = :item",
            ExpressionAttributeNames={"#item": "item"},
            ExpressionAttributeValues={":item": {"S": UPLOAD_ITEM}},
            ScanIndexForward=False,
            Limit=limit,
        )
        return [item["upload"]["S"] for item in answer["Items"]]

    def waiting(self) -> list[Note]:
        """Why functions cannot go on, as they noted it; see :mod:`common.waiting`."""
        answer = self._client.query(
            TableName=self._table,
            KeyConditionExpression="upload = :waiting",
            ExpressionAttributeValues={":waiting": {"S": WAITING}},
        )
        notes = (Note.from_item(item) for item in answer["Items"])
        return [note for note in notes if note is not None]

    def _mark(self, upload: Upload, update: str, values: dict[str, AttributeValueTypeDef]) -> None:
        # Not another entry, registered anew since the caller looked.
        entered = upload.to_item()["registered_at"]
        self._conditionally(
            "update_item",
            Key=_key(upload.upload, UPLOAD_ITEM),
            UpdateExpression=update,
            ConditionExpression="registered_at = :entered AND attribute_not_exists(chunks)",
            ExpressionAttributeValues=values | {":entered": entered},
        )

    def _get(self, upload: str, item: str) -> dict[str, AttributeValueTypeDef] | None:
        answer = self._client.get_item(TableName=self._table, Key=_key(upload, item), ConsistentRead=True)
        return answer.get("Item")

    def _put_new(self, item: dict[str, AttributeValueTypeDef]) -> bool:
        return self._conditionally("put_item", Item=item, ConditionExpression="attribute_not_exists(upload)")

    def _delete_failed(self, upload: str) -> None:
        self._conditionally(
            "delete_item",
            Key=_key(upload, UPLOAD_ITEM),
            ConditionExpression="attribute_exists(failed)",
        )

    def _conditionally(self, operation: str, **parameters: Any) -> bool:
        """Write, and say whether the condition held."""
        try:
            getattr(self._client, operation)(TableName=self._table, **parameters)
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True


def _key(upload: str, item: str) -> dict[str, AttributeValueTypeDef]:
    return {"upload": {"S": upload}, "item": {"S": item}}
