"""What the upload functions need of AWS, in moto: bucket, ledger (as the template has it), queue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import boto3
import yaml  # type: ignore[import-untyped]
from moto import mock_aws

from common.clients import _config
from uploads.ledger import Ledger

BUCKET = "oncestream-uploads-test"
LEDGER = "ledger"
TEMPLATE = Path(__file__).resolve().parents[2] / "template.yaml"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads CloudFormation's short forms (!Ref, !Sub ...) as their bare values."""


def _bare(loader: yaml.SafeLoader, _tag: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.MappingNode)
    return loader.construct_mapping(node, deep=True)


_Loader.add_multi_constructor("!", _bare)


def template() -> Any:
    """template.yaml, its short forms as bare values."""
    return yaml.load(TEMPLATE.read_text(), _Loader)


def ledger_properties() -> dict[str, Any]:
    """The template's ledger table, as CreateTable takes it."""
    properties = template()["Resources"]["LedgerTable"]["Properties"]
    taken = ("BillingMode", "AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes")
    stream = properties["StreamSpecification"] | {"StreamEnabled": True}
    return {name: properties[name] for name in taken} | {"StreamSpecification": stream}


@dataclass
class Aws:
    """The clients and the names."""

    s3: Any
    dynamodb: Any
    sqs: Any
    bucket: str
    table: str
    queue_url: str

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.dynamodb, self.table)

    def put(self, key: str, body: bytes = b'{"a": 1}\n', **options: Any) -> dict[str, Any]:
        """Put an object and return its notification's record."""
        answer = self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, **options)
        return s3_record(key, answer["ETag"], len(body), answer.get("VersionId"), bucket=self.bucket)

    def jobs(self) -> list[dict[str, Any]]:
        """Take the chunk jobs from the queue, in the order of their chunks."""
        found: list[dict[str, Any]] = []
        while messages := self.sqs.receive_message(
            QueueUrl=self.queue_url, MaxNumberOfMessages=10, VisibilityTimeout=600
        ).get("Messages"):
            found += [json.loads(message["Body"]) for message in messages]
        return sorted(found, key=lambda job: job["chunk"])

    def item(self, upload: str, item: str = "upload") -> dict[str, Any] | None:
        key = {"upload": {"S": upload}, "item": {"S": item}}
        found: dict[str, Any] | None = self.dynamodb.get_item(TableName=self.table, Key=key).get("Item")
        return found


@contextmanager
def moto_aws(*, versioned: bool = False) -> Iterator[Aws]:
    """The resources in moto; every client made inside reaches it."""
    with mock_aws():
        # As the functions' own clients are, but for retries: a fault that a test makes shall not take time.
        config = _config(retries={"total_max_attempts": 1})
        s3 = boto3.client("s3", config=config)
        dynamodb = boto3.client("dynamodb", config=config)
        sqs = boto3.client("sqs", config=config)
        s3.create_bucket(Bucket=BUCKET)
        if versioned:
            s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        dynamodb.create_table(TableName=LEDGER, **ledger_properties())
        queue_url = sqs.create_queue(QueueName="chunks")["QueueUrl"]
        yield Aws(s3, dynamodb, sqs, BUCKET, LEDGER, queue_url)


def s3_record(
    key: str,
    etag: str,
    size: int,
    version_id: str | None = None,
    *,
    bucket: str = BUCKET,
    event: str = "ObjectCreated:Put",
) -> dict[str, Any]:
    """One record of a notification, with the key and the ETag as S3 writes them there."""
    described = {"key": quote_plus(key, safe="/"), "size": size, "eTag": etag.strip('"'), "sequencer": "0A"}
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2026-11-21T08:00:00.000Z",
        "eventName": event,
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
            "object": described | ({"versionId": version_id} if version_id else {}),
        },
    }


def stream_record(
    upload: str, item: str = "upload", event: str = "INSERT", number: int = 1, **image: Any
) -> dict[str, Any]:
    """One record of the ledger's stream."""
    keys = {"upload": {"S": upload}, "item": {"S": item}}
    images = {} if event == "REMOVE" else {"NewImage": keys | image}
    if event != "INSERT":
        images["OldImage"] = keys | image
    return {
        "eventID": f"{number:032x}",
        "eventName": event,
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1",
        "dynamodb": {
            "Keys": keys,
            "SequenceNumber": str(number),
            "StreamViewType": "NEW_AND_OLD_IMAGES",
            **images,
        },
    }


@dataclass
class Context:
    """Lambda's context object, as far as the functions look at it."""

    remaining: list[int] = field(default_factory=lambda: [60_000])
    """Milliseconds, one answer a question; the last one stays."""
    function_name: str = "test"
    memory_limit_in_mb: int = 128
    invoked_function_arn: str = "arn:aws:lambda:us-east-1:000000000000:function:test"
    aws_request_id: str = "00000000-0000-0000-0000-000000000000"

    def get_remaining_time_in_millis(self) -> int:
        return self.remaining.pop(0) if len(self.remaining) > 1 else self.remaining[0]
