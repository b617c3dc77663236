"""The lean calls send what botocore sends, and answer alike. These tests fail when botocore changes."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.auth
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError
from moto import mock_aws

from common.lean import LeanDynamoDB

BODIES: dict[str, dict[str, Any]] = {
    "BatchExecuteStatement": {
        "Statements": [{"Statement": "DELETE FROM x", "Parameters": [{"S": "é\x00'"}]}]
    },
    "BatchWriteItem": {
        "RequestItems": {"t": [{"PutRequest": {"Item": {"id": {"S": "a"}, "n": {"N": "1"}}}}]}
    },
    "BatchGetItem": {"RequestItems": {"t": {"Keys": [{"id": {"S": "a"}}], "ConsistentRead": True}}},
    "PutItem": {"TableName": "t", "Item": {"id": {"S": "a"}}, "ExpressionAttributeNames": {"#i": "id"}},
}
NOON = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
METHODS = {
    "BatchExecuteStatement": "batch_execute_statement",
    "BatchWriteItem": "batch_write_item",
    "BatchGetItem": "batch_get_item",
    "PutItem": "put_item",
}


class Recorder:
    """Stands where the network begins: keeps requests, gives one answer."""

    def __init__(self, status: int = 200, content: bytes = b"{}") -> None:
        self.requests: list[AWSPreparedRequest] = []
        self.status = status
        self.content = content

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        self.requests.append(request)
        return AWSResponse(request.url, self.status, {"x-amzn-requestid": "r-1"}, self)

    def stream(self) -> list[bytes]:
        return [self.content]


def client(**options: Any) -> Any:
    settings = {
        "region_name": "eu-central-1",
        "aws_access_key_id": "AKID",
        "aws_secret_access_key": "secret",
        "config": Config(retries={"total_max_attempts": 1}),
    }
    made = boto3.client("dynamodb", **(settings | options))
    made._endpoint.http_session = Recorder()
    return made


def headers(request: AWSPreparedRequest) -> dict[str, str]:
    return {
        name: value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()
    }


@pytest.fixture
def _noon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: NOON)


@pytest.mark.usefixtures("_noon")
@pytest.mark.parametrize("token", [None, "session-token"])
@pytest.mark.parametrize("endpoint", [None, "http://127.0.0.1:4566", "http://127.0.0.1:4566/behind/a/path"])
@pytest.mark.parametrize("operation", BODIES)
def test_the_request_is_the_one_that_the_client_makes(
    operation: str, endpoint: str | None, token: str | None
) -> None:
    made = client(endpoint_url=endpoint, aws_session_token=token)
    getattr(made, METHODS[operation])(**BODIES[operation])
    LeanDynamoDB(made, clock=NOON.timestamp).call(operation, BODIES[operation])
    theirs, ours = made._endpoint.http_session.requests
    assert (ours.method, ours.url, ours.stream_output) == (theirs.method, theirs.url, theirs.stream_output)
    assert json.loads(ours.body) == json.loads(theirs.body)
    differing = {"Authorization", "User-Agent", "Content-Length"}
    retries = {"amz-sdk-invocation-id", "amz-sdk-request"}
    assert set(headers(ours)) == set(headers(theirs)) - retries
    for name in set(headers(ours)) - differing:
        assert headers(ours)[name] == headers(theirs)[name]
    assert "Boto3/" in headers(ours)["User-Agent"]


def sign(request: AWSPreparedRequest, signed: list[str], region: str) -> str:
    """Signature version 4, from docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html"""
    values = {name.lower(): value for name, value in headers(request).items()}
    values["host"] = urlsplit(request.url).netloc
    canonical = "\n".join(
        [
            request.method,
            urlsplit(request.url).path,
            "",
            *[f"{name}:{values[name]}" for name in signed],
            "",
            ";".join(signed),
            hashlib.sha256(request.body).hexdigest(),
        ]
    )
    stamp = values["x-amz-date"]
    scope = f"{stamp[:8]}/{region}/dynamodb/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = b"AWS4secret"
    for part in [*scope.split("/"), text]:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key.hex()


@pytest.mark.usefixtures("_noon")
@pytest.mark.parametrize("operation", BODIES)
def test_the_signature_covers_target_and_body(operation: str) -> None:
    made = client(aws_session_token="session-token")
    LeanDynamoDB(made, clock=NOON.timestamp).call(operation, BODIES[operation])
    (request,) = made._endpoint.http_session.requests
    authorization = headers(request)["Authorization"]
    fields = dict(part.split("=", 1) for part in authorization.removeprefix("AWS4-HMAC-SHA256 ").split(", "))
    signed = fields["SignedHeaders"].split(";")
    assert {"host", "x-amz-date", "x-amz-target", "x-amz-security-token"} <= set(signed)
    assert fields["Credential"] == "AKID/20261121/eu-central-1/dynamodb/aws4_request"
    assert fields["Signature"] == sign(request, signed, "eu-central-1")


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({}, "https://dynamodb.eu-central-1.amazonaws.com/"),
        ({"region_name": "cn-north-1"}, "https://dynamodb.cn-north-1.amazonaws.com.cn/"),
        (
            {"aws_account_id": "123456789012"},
            "https://123456789012.ddb.eu-central-1.amazonaws.com/",
        ),
        (
            {"config": Config(use_fips_endpoint=True), "region_name": "us-east-1"},
            "https://dynamodb-fips.us-east-1.amazonaws.com/",
        ),
    ],
    ids=["region", "partition", "account", "fips"],
)
def test_the_endpoint_is_the_one_that_the_client_would_use(options: dict[str, Any], url: str) -> None:
    made = client(**options)
    made.batch_write_item(**BODIES["BatchWriteItem"])
    LeanDynamoDB(made).call("BatchWriteItem", BODIES["BatchWriteItem"])
    assert [request.url for request in made._endpoint.http_session.requests] == [url, url]


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (
            400,
            b'{"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException","message":"gone"}',
        ),
        (400, b'{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"not you"}'),
        (400, b'{"__type":"a#ConditionalCheckFailedException","message":"m","Item":{"id":{"S":"x"}}}'),
        (500, b'{"__type":"a#InternalServerError"}'),
        (503, b"<html>try later</html>"),
        (413, b""),
    ],
)
def test_an_error_is_the_one_that_the_client_raises(status: int, content: bytes) -> None:
    made = client()
    made._endpoint.http_session = Recorder(status, content)
    with pytest.raises(ClientError) as theirs:
        made.put_item(**BODIES["PutItem"])
    with pytest.raises(ClientError) as ours:
        LeanDynamoDB(made).call("PutItem", BODIES["PutItem"])
    assert ours.value.response["Error"]["Code"] == theirs.value.response["Error"]["Code"]
    assert ours.value.response.get("Item") == theirs.value.response.get("Item")
    assert ours.value.operation_name == theirs.value.operation_name
    metadata = ours.value.response["ResponseMetadata"]
    assert metadata["HTTPStatusCode"] == status
    assert metadata["RequestId"] == "r-1"
    said = theirs.value.response["Error"].get("Message")
    if said and content.startswith(b"{"):
        assert ours.value.response["Error"]["Message"] == said


@pytest.mark.parametrize("content", [b'{"Responses": [', b"", b"<html>"])
def test_an_answer_that_cannot_be_read_is_an_error_of_the_transport(content: bytes) -> None:
    made = client()
    made._endpoint.http_session = Recorder(200, content)
    with pytest.raises(HTTPClientError, match="BatchWriteItem"):
        LeanDynamoDB(made).call("BatchWriteItem", BODIES["BatchWriteItem"])


def test_errors_of_the_transport_pass_through() -> None:
    made = client(endpoint_url="http://127.0.0.1:1")
    made._endpoint.http_session = boto3.client(
        "dynamodb", region_name="eu-central-1", endpoint_url="http://127.0.0.1:1"
    )._endpoint.http_session
    with pytest.raises(BotoCoreError, match=r"127\.0\.0\.1:1"):
        LeanDynamoDB(made).call("PutItem", BODIES["PutItem"])


def test_there_is_no_call_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    made = boto3.Session().client("dynamodb", region_name="eu-central-1")
    made._endpoint.http_session = Recorder()
    with pytest.raises(NoCredentialsError):
        LeanDynamoDB(made).call("PutItem", BODIES["PutItem"])
    assert made._endpoint.http_session.requests == []


def test_who_answers_before_the_request_is_sent_is_heard() -> None:
    made = client()
    seen: list[AWSPreparedRequest] = []

    def answer(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        seen.append(request)
        return AWSResponse(request.url, 200, {}, Recorder(content=b'{"UnprocessedItems": {}}'))

    made.meta.events.register("before-send.dynamodb.BatchWriteItem", answer)
    assert LeanDynamoDB(made).call("BatchWriteItem", BODIES["BatchWriteItem"]) == {"UnprocessedItems": {}}
    assert made._endpoint.http_session.requests == []
    assert len(seen) == 1


@pytest.fixture
def table() -> Iterator[Any]:
    with mock_aws():
        made = boto3.client("dynamodb", region_name="eu-central-1")
        made.create_table(
            TableName="t",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        )
        yield made


def test_moto_takes_the_calls_for_the_clients_own(table: Any) -> None:
    lean = LeanDynamoDB(table)
    lean.call("BatchWriteItem", BODIES["BatchWriteItem"])
    answer = lean.call("BatchGetItem", BODIES["BatchGetItem"])
    assert answer["Responses"] == {"t": [{"id": {"S": "a"}, "n": {"N": "1"}}]}
    with pytest.raises(ClientError) as caught:
        lean.call("PutItem", {"TableName": "u", "Item": {"id": {"S": "a"}}})
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"
