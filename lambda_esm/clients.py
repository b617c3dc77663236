"""boto3 clients for the endpoints, and what their errors mean to a poller and to the one who runs it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

if TYPE_CHECKING:
    from mypy_boto3_dynamodbstreams import DynamoDBStreamsClient
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

FUNCTION_SECONDS = 15 * 60
"""What a function may take at most; docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"""


class UnavailableError(Exception):
    """A call failed for now (throttled, no connection, refused, an error of the service): try it again
    later."""


class GoneError(Exception):
    """What the call was about does not exist, or no longer."""


class IteratorExpiredError(Exception):
    """A shard iterator is too old: ask for another one."""


class RecordsTrimmedError(Exception):
    """The stream no longer keeps the records that were asked for."""


_MEANING: dict[str, type[Exception]] = {
    "ResourceNotFoundException": GoneError,
    "ExpiredIteratorException": IteratorExpiredError,
    "TrimmedDataAccessException": RecordsTrimmedError,
}

TRANSPORT_ERRORS = (BotoCoreError, ResponseParserError)
"""botocore's errors other than an answer that says so: no connection, time-out, a broken answer."""


_CURES: dict[str, str] = {
    "EndpointConnectionError": "start what should answer there, or correct --endpoint",
    "ConnectTimeoutError": "start what should answer there, or correct --endpoint",
    "NoCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (an emulator takes any)",
    "UnrecognizedClientException": "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "InvalidClientTokenId": "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "InvalidSignatureException": "check AWS_SECRET_ACCESS_KEY and the clock of this machine",
    "ExpiredTokenException": "sign in again: the session's credentials have expired",
    "AccessDeniedException": "allow this call to the identity that lambda-esm runs as",
    "ResourceNotFoundException": "create it, or correct its name: region and account are a part of an ARN",
    "UnknownOperationException": "this endpoint does not offer the call: name another with --endpoint SERVICE=URL",
}


def explain(error: Exception) -> str:
    """An error as one line: ``Code: message`` for an answer of the service, and what to do, if that is known."""
    if isinstance(error, ClientError):
        detail = error.response.get("Error", {})
        code = detail.get("Code", "Unknown")
        text = f"{code}: {detail.get('Message', '')}".removesuffix(": ")
    else:
        code = type(error).__name__
        text = f"{code}: {error}"
    cure = _CURES.get(code)
    return f"{text} ({cure})" if cure else text


@contextmanager
def calling(what: str) -> Iterator[None]:
    """Raise botocore's errors as one of this module's, prefixed with ``what``: the service and its call."""
    try:
        yield
    except ClientError as error:
        meaning = _MEANING.get(error.response.get("Error", {}).get("Code", ""), UnavailableError)
        raise meaning(f"{what}: {explain(error)}") from error
    except TRANSPORT_ERRORS as error:
        raise UnavailableError(f"{what}: {explain(error)}") from error


class Clients:
    """The clients that a poller needs.

    Parameters
    ----------
    endpoint_url
        Where Kinesis, DynamoDB Streams, Lambda, S3, SQS and SNS answer; ``None``: where boto3's configuration says
        (``AWS_ENDPOINT_URL``), or AWS itself.
    lambda_endpoint_url
        Where functions are invoked, if not there: ``sam local start-lambda`` has an endpoint of its own.
    endpoints
        Services that answer elsewhere, by boto3's names: ``{"kinesis": "http://127.0.0.1:4567"}``.
    region
        The default is the environment's, or us-east-1.
    credentials
        (access key id, secret access key); the default is what boto3 finds. An endpoint on this machine is
        an emulator, and gets ``test``, ``test`` if the environment names none: real ones are not looked
        for.
    """

    def __init__(
        self,
        endpoint_url: str | None = None,
        *,
        lambda_endpoint_url: str | None = None,
        endpoints: Mapping[str, str] | None = None,
        region: str | None = None,
        credentials: tuple[str, str] | None = None,
    ) -> None:
        environment_region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        urls = dict(endpoints or {})
        if (
            any(map(_is_loopback, (endpoint_url, *urls.values())))
            and not {"AWS_ACCESS_KEY_ID", "AWS_PROFILE"} & os.environ.keys()
        ):
            credentials = credentials or ("test", "test")
        key_id, secret = credentials or (None, None)
        session = boto3.Session(key_id, secret, region_name=region or environment_region or "us-east-1")

        def make(service: str, url: str | None = None, **changes: Any) -> Any:
            url = url or urls.get(service, endpoint_url)
            return session.client(service, endpoint_url=url, config=_config(**changes))  # type: ignore[call-overload]

        self.kinesis: KinesisClient = make("kinesis")
        self.streams: DynamoDBStreamsClient = make("dynamodbstreams")
        self.mappings: LambdaClient = make("lambda")
        """The Lambda API, for what it knows about mappings and functions."""
        self.functions: LambdaClient = make("lambda", lambda_endpoint_url, read_timeout=FUNCTION_SECONDS + 20)
        """The Lambda API, for invocations only. A call waits for as long as a function may run."""
        path_style = {"addressing_style": "path"} if urls.get("s3", endpoint_url) else None
        self.s3: S3Client = make("s3", s3=path_style)
        self.sqs: SQSClient = make("sqs")
        self.sns: Any = make("sns")
        self.cloudformation: Any = make("cloudformation")


def _config(**changes: Any) -> Config:
    # No retries inside: the poller retries by its own rules, and a second invocation that it does not know
    # of would be a delivery that nobody accounts for.
    settings: dict[str, Any] = {
        "connect_timeout": 2,
        "read_timeout": 30,
        "retries": {"mode": "standard", "total_max_attempts": 1},
        "max_pool_connections": 64,
        "tcp_keepalive": True,
    }
    return Config(**(settings | changes))


def _is_loopback(url: str | None) -> bool:
    host = urlsplit(url).hostname if url else None
    return host is not None and (host in ("localhost", "::1") or host.startswith("127."))
