"""DynamoDB calls at a fraction of botocore's CPU time.

botocore walks the service model for every value that it sends and receives. For a call that carries 25 small
items this is most of the work, and with a DynamoDB that answers in milliseconds the consumer waits for its
own processor. DynamoDB speaks plain JSON: a body, the operation in ``X-Amz-Target``, a signature
(docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.LowLevelAPI.html). So only the model is
left out here. Endpoint, credentials, signature, connections, timeouts, TLS and proxies are the given client's
own.

What differs from a call of the client: a single attempt (the caller repeats, and knows better what), no
CRC-32 check of the answer (TLS has its own), no X-Ray subsegment, and of the events only ``choose-signer``,
``before-sign`` and ``before-send``.

Every request goes through ``client._endpoint.http_session.send``, looked up at each call. Whoever wants to
stand in between, a test or a fault layer, replaces that or registers for ``before-send.dynamodb``, as with
any call.

Some of the names used are botocore's private ones. botocore is pinned and ships with this code, and
tests/unit/test_lean.py compares what is sent with what the client itself sends.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError, HTTPClientError
from botocore.hooks import first_non_none_response

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_TARGET = "DynamoDB_20120810."


class LeanDynamoDB:
    """Calls DynamoDB through ``client``; bodies and answers are DynamoDB's own JSON. Threads may share it."""

    def __init__(self, client: DynamoDBClient) -> None:
        self._client: Any = client

    def call(self, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send one request and return the answer.

        Parameters
        ----------
        operation
            Its name in the API, such as ``BatchWriteItem``.
        body
            The request as the API reference shows it.

        Raises
        ------
        botocore.exceptions.ClientError
            DynamoDB answered with an error. What it tells beside code and message is at the top of
            ``response``, where botocore puts it: ``Item`` for a condition that failed.
        botocore.exceptions.BotoCoreError
            No answer, or none that can be read. Unless it is a failure to connect, the request may have had
            its effect.
        """
        url, headers, context = self._destination
        data = json.dumps(body, separators=(",", ":")).encode()
        request = AWSRequest("POST", url, headers | {"X-Amz-Target": _TARGET + operation}, data)
        request.context.update(context)
        self._client._request_signer.sign(operation, request)
        prepared = request.prepare()
        answers = self._client.meta.events.emit(f"before-send.dynamodb.{operation}", request=prepared)
        response = first_non_none_response(answers)
        if response is None:
            response = self._client._endpoint.http_session.send(prepared)
        if response.status_code >= 300:
            raise _client_error(operation, response)
        try:
            answer: dict[str, Any] = json.loads(response.content)
        except ValueError as error:
            raise HTTPClientError(error=f"the answer to {operation} is not JSON: {error}") from error
        return answer

    @cached_property
    def _destination(self) -> tuple[str, dict[str, str], dict[str, Any]]:
        """URL, constant headers and signing context: the same for every call, so found out once."""
        client = self._client
        operation = client.meta.service_model.operation_model("BatchExecuteStatement")
        context = {
            "client_region": client.meta.region_name,
            "client_config": client.meta.config,
            "auth_type": operation.resolved_auth_type,
        }
        url, extra, _ = client._resolve_endpoint_ruleset(operation, {}, context)
        headers = {
            **{name: ",".join(values) for name, values in extra.items()},
            "Content-Type": "application/x-amz-json-1.0",
            "User-Agent": client.meta.config.user_agent,
        }
        return url if urlsplit(url).path else url + "/", headers, context


def _client_error(operation: str, response: Any) -> ClientError:
    try:
        body = json.loads(response.content)
    except ValueError:
        body = {}  # not from DynamoDB but from something on the way, which speaks HTML
    # {"__type": "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException", "message": "..."}
    code = body.pop("__type", str(response.status_code)).rsplit("#", 1)[-1]
    message = body.pop("message", None) or body.pop("Message", None) or "no explanation given"
    details: Any = {
        **body,
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {
            "RequestId": response.headers.get("x-amzn-requestid", ""),
            "HTTPStatusCode": response.status_code,
            "HTTPHeaders": dict(response.headers),
            "RetryAttempts": 0,
        },
    }
    return ClientError(details, operation)
