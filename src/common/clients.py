"""boto3 clients, made on first use and kept for the life of the execution environment."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import IncompleteReadError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

    from oncestream.transport import Transport


def _config(**changes: Any) -> Config:
    # Short timeouts: a call that hangs must not eat the invocation's time, and every caller here can repeat.
    settings: dict[str, Any] = {
        "connect_timeout": 2,
        "read_timeout": 10,
        "retries": {"mode": "standard", "total_max_attempts": 3},
        "tcp_keepalive": True,
    }
    return Config(**(settings | changes))


def _make(service: Any, config: Config) -> Any:
    client: Any = boto3.client(service, config=config)
    client.meta.events.register("before-parse", _require_all_of_it)
    return client


def _require_all_of_it(operation_model: Any, response_dict: dict[str, Any], **_: Any) -> None:
    """Refuse the answer of a connection that broke while it came.

    botocore takes what has come for all of it (``enforce_content_length=False`` in its httpsession), and half of a JSON
    document for an empty one: an item would not be there, or nothing have failed. A body that is streamed is checked
    where it is read.

    Raises
    ------
    IncompleteReadError
        A part of it is missing. The request may have had its effect.
    """
    body, headers = response_dict["body"], response_dict["headers"]
    if not isinstance(body, bytes):
        return
    length = headers.get("content-length")
    if length is None:
        # AWS says how long an answer is, or sends it in chunks: this is the head, without its end.
        complete = bool(body) or "transfer-encoding" in headers
    else:
        complete = len(body) >= int(length) or operation_model.http["method"] == "HEAD"
    if not complete:
        expected: Any = length or "unknown, its head broke off"
        raise IncompleteReadError(actual_bytes=len(body), expected_bytes=expected)


@cache
def dynamodb() -> DynamoDBClient:
    """A DynamoDB client. Its parameters are not validated, because only our own code builds them."""
    client: DynamoDBClient = _make("dynamodb", _config(parameter_validation=False))
    return client


@cache
def dynamodb_for_notes() -> DynamoDBClient:
    """A DynamoDB client for optional writes: it gives up soon and does not retry."""
    changes = {"connect_timeout": 1, "read_timeout": 1, "retries": {"total_max_attempts": 1}}
    return boto3.client("dynamodb", config=_config(parameter_validation=False, **changes))


@cache
def dynamodb_transport() -> Transport:
    """How the consumer's many requests get to DynamoDB: endpoint, timeouts and proxies are the client's."""
    # Only who needs it loads it. The other functions' packages are without awscrt (src/Makefile).
    from oncestream.transport.crt import CrtTransport  # noqa: PLC0415

    return CrtTransport(dynamodb())


@cache
def kinesis() -> KinesisClient:
    """A Kinesis client that does not retry by itself: PutRecords' caller knows better which entries to resend.

    Its parameters are not validated: 500 records that our own code has packed take a millisecond of it.
    """
    retries = {"mode": "standard", "total_max_attempts": 1}
    client: KinesisClient = _make("kinesis", _config(retries=retries, parameter_validation=False))
    return client


@cache
def s3() -> S3Client:
    """An S3 client. Its retries cover requests, not bodies: a reader of a body has to repeat the read."""
    client: S3Client = _make("s3", _config())
    return client


@cache
def sqs() -> SQSClient:
    """An SQS client."""
    client: SQSClient = _make("sqs", _config())
    return client
