"""DynamoDB calls at a fraction of botocore's CPU time.

botocore walks the service model for every value that it sends and receives. For a call that carries 25 small
items this is most of the work, and with a DynamoDB that answers in milliseconds the consumer waits for its
own processor. DynamoDB speaks plain JSON: a body, the operation in ``X-Amz-Target``, a signature
(docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.LowLevelAPI.html). So the model is left
out here, and a request need not be waited for before the next one is sent. Endpoint, credentials, sockets,
timeouts and TLS are the given client's own.

What differs from a call of the client: a single attempt (the caller repeats, and knows better what), no
CRC-32 check of the answer (TLS has its own), no X-Ray subsegment, and of the events only ``before-send``.

Whoever wants to stand in between, a test or a fault layer, registers for ``before-send.dynamodb``, as with any
call, or replaces ``client._endpoint.http_session``, which is looked up at each call. A session that is not
botocore's, and one that has to go through a proxy, is given one request after the other.

Some of the names used are botocore's private ones. botocore is pinned and ships with this code, and
tests/unit/test_lean.py compares what is sent with what the client itself sends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import urlsplit

from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import ClientError, HTTPClientError, NoCredentialsError
from botocore.hooks import first_non_none_response
from pydantic_core import from_json, to_json

from common.connections import Connections, Pending, host_of
from common.signature import Signature

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_TARGET = "DynamoDB_20120810."
_CONTENT_TYPE = "application/x-amz-json-1.0"


class _Destination(NamedTuple):
    url: str
    headers: dict[str, str]
    """The same for every request, and not signed."""
    signature: Signature


class LeanDynamoDB:
    """Calls DynamoDB through ``client``; bodies and answers are DynamoDB's own JSON. Threads may share it."""

    def __init__(self, client: DynamoDBClient, *, clock: Callable[[], float] = time.time) -> None:
        self._client: Any = client
        self._clock = clock
        self._kept: tuple[Any, Connections] | None = None
        self._known: _Destination | None = None

    def call(self, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send one request and return the answer: :meth:`begin` and :meth:`Call.answer`."""
        return self.begin(operation, body).answer()

    def begin(self, operation: str, body: dict[str, Any]) -> Call:
        """Send one request.

        Parameters
        ----------
        operation
            Its name in the API, such as ``BatchWriteItem``.
        body
            The request as the API reference shows it.

        Raises
        ------
        botocore.exceptions.BotoCoreError
            It could not be sent. Unless it is a failure to connect, it may have had its effect.
        """
        url, headers, signature = self._destination()
        data = to_json(body)
        headers = headers | signature.headers(_TARGET + operation, data) | {"Content-Length": str(len(data))}
        request = AWSPreparedRequest("POST", url, cast("Any", headers), data, stream_output=False)
        answers = self._client.meta.events.emit(f"before-send.dynamodb.{operation}", request=request)
        response = first_non_none_response(answers)
        if response is None:
            session = self._client._endpoint.http_session
            connections = self._connections(session, url)
            if connections is None:
                response = session.send(request)
            else:
                response = connections.send(cast("Any", request.headers), data)
        return Call(operation, response)

    def _connections(self, session: Any, url: str) -> Connections | None:
        if self._kept is None or self._kept[0] is not session:
            if not Connections.serve(session, url):
                return None
            self._kept = (session, Connections(session, url))
        return self._kept[1]

    def _destination(self) -> _Destination:
        """Where requests go and how they are signed: found out once."""
        if self._known is None:
            client = self._client
            operation = client.meta.service_model.operation_model("BatchExecuteStatement")
            context: dict[str, Any] = {
                "client_region": client.meta.region_name,
                "client_config": client.meta.config,
                "auth_type": operation.resolved_auth_type,
            }
            url, extra, _ = client._resolve_endpoint_ruleset(operation, {}, context)
            path = urlsplit(url).path
            url, path = (url, path) if path else (url + "/", "/")
            credentials = client._request_signer._credentials
            if credentials is None:
                raise NoCredentialsError
            signature = Signature(
                credentials,
                region=context.get("signing", {}).get("region", client.meta.region_name),
                service=client.meta.service_model.signing_name,
                host=host_of(url),
                path=path,
                content_type=_CONTENT_TYPE,
                clock=self._clock,
            )
            headers = {
                **{name: ",".join(values) for name, values in extra.items()},
                "User-Agent": client.meta.config.user_agent,
            }
            self._known = _Destination(url, headers, signature)
        return self._known


class Call:
    """A request that was sent."""

    def __init__(self, operation: str, response: Any) -> None:
        self._operation = operation
        self._response = response

    @property
    def is_here(self) -> bool:
        """Whether there is something to read, so that :meth:`answer` will hardly wait."""
        return not isinstance(self._response, Pending) or self._response.is_here

    def answer(self) -> dict[str, Any]:
        """Wait for the answer and return it. To be called once.

        Raises
        ------
        botocore.exceptions.ClientError
            DynamoDB answered with an error. What it tells beside code and message is at the top of
            ``response``, where botocore puts it: ``Item`` for a condition that failed.
        botocore.exceptions.BotoCoreError
            No answer, or none that can be read. The request may have had its effect.
        """
        response = self._response.result() if isinstance(self._response, Pending) else self._response
        if response.status_code >= 300:
            raise _client_error(self._operation, response)
        try:
            answer: dict[str, Any] = from_json(response.content)
        except ValueError as error:
            raise HTTPClientError(error=f"the answer to {self._operation} is not JSON: {error}") from error
        return answer


def _client_error(operation: str, response: Any) -> ClientError:
    try:
        body = from_json(response.content)
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
