"""What a chunk leaves in the ledger: its count when it is published, its failure, or how far it has come."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from common.errors import TransientError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

    from uploads.chunk_job import ChunkCount, ChunkFailure, ChunkJob


class ChunkProgress(NamedTuple):
    """How far a chunk has been published: every line before ``offset`` is on the stream."""

    offset: int
    """In the (decompressed) file: where a line begins, or behind its last byte."""
    file_lines: int
    """Lines of the chunk before it, as an editor counts them."""
    published: int
    rejected: int

    @classmethod
    def beginning(cls, job: ChunkJob) -> ChunkProgress:
        """Nothing is published yet."""
        return cls(job.start, 0, 0, 0)


class ChunkLedger:
    """The ledger table, as uploads/chunks uses it. Every write may be repeated.

    Every method raises ``TransientError`` when DynamoDB does not do what it is asked.
    """

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table

    def progress(self, job: ChunkJob) -> ChunkProgress:
        """How far earlier deliveries of the job have come."""
        try:
            answer = self._client.get_item(TableName=self._table, Key=_progress_key(job), ConsistentRead=True)
        except (BotoCoreError, ClientError) as error:
            raise TransientError(f"the ledger cannot be read: {error}") from error
        item = answer.get("Item")
        if item is None:
            return ChunkProgress.beginning(job)
        return ChunkProgress(*(int(item[name]["N"]) for name in ChunkProgress._fields))

    def save(self, job: ChunkJob, progress: ChunkProgress) -> None:
        """Note how far the chunk has come, for its next delivery."""
        self._put(
            _progress_key(job) | {name: {"N": str(value)} for name, value in progress._asdict().items()}
        )

    def count(self, job: ChunkJob, count: ChunkCount) -> None:
        """Enter the chunk as published."""
        self._put(count.to_item(job.upload))

    def failure(self, job: ChunkJob, failure: ChunkFailure) -> None:
        """Enter why the chunk cannot be published."""
        self._put(failure.to_item(job.upload))

    def _put(self, item: dict[str, AttributeValueTypeDef]) -> None:
        try:
            self._client.put_item(TableName=self._table, Item=item)
        except (BotoCoreError, ClientError) as error:
            raise TransientError(f"the ledger cannot be written: {error}") from error


def _progress_key(job: ChunkJob) -> dict[str, AttributeValueTypeDef]:
    return {"upload": {"S": job.upload}, "item": {"S": f"progress#{job.chunk:06d}"}}
