"""boto3 clients, made on first use and kept for the life of the execution environment."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

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


@cache
def dynamodb() -> DynamoDBClient:
    """A DynamoDB client. Its parameters are not validated: nobody's own code but ours builds them."""
    return boto3.client("dynamodb", config=_config(parameter_validation=False))


@cache
def dynamodb_for_notes() -> DynamoDBClient:
    """A DynamoDB client for what may be left undone: it gives up soon, and does not repeat."""
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
    return boto3.client("kinesis", config=_config(retries=retries, parameter_validation=False))


@cache
def s3() -> S3Client:
    """An S3 client. Its retries cover requests, not bodies: who reads a body repeats the read."""
    return boto3.client("s3", config=_config())


@cache
def sqs() -> SQSClient:
    """An SQS client."""
    return boto3.client("sqs", config=_config())
