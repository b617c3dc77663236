"""Requests by way of a boto3 client, in threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.parsers import ResponseParserError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class Boto3Transport:
    """Calls ``client``, with as many requests under way as there are threads.

    Whatever the client can do works: proxies, certificates, endpoints, event hooks, X-Ray subsegments. The price is
    processor time: botocore walks the service model for every value, and threads of one interpreter take turns.

    Parameters
    ----------
    client
        Best one that does not retry (``Config(retries={"total_max_attempts": 1})``). A client that does is slower to
        give up. It is never wrong: a request that it has repeated counts as one that may have had its effect.
    threads
        At most so many, and no more than the client keeps connections (``max_pool_connections``, 10 by default).
        With one, requests are sent by the thread that calls :meth:`send`, which then waits for the answer.
    """

    def __init__(self, client: DynamoDBClient, threads: int = 10) -> None:
        self._client = client
        config: Any = client.meta.config
        threads = min(threads, config.max_pool_connections)
        self._pool = ThreadPoolExecutor(threads, "oncestream-dynamodb") if threads > 1 else None

    def send(self, operation: str, request: dict[str, Any]) -> Future[dict[str, Any]]:
        """Send one request: :meth:`oncestream.transport.Transport.send`."""
        method = getattr(self._client, xform_name(operation))
        if self._pool is not None:
            return self._pool.submit(_call, operation, method, request)
        future: Future[dict[str, Any]] = Future()
        try:
            future.set_result(_call(operation, method, request))
        except (BotoCoreError, ClientError) as error:
            future.set_exception(error)
        return future


def _call(operation: str, method: Callable[..., dict[str, Any]], request: dict[str, Any]) -> dict[str, Any]:
    try:
        answer = method(**request)
    except (ResponseParserError, AttributeError, KeyError, TypeError, ValueError) as error:
        # botocore stumbles like this over an answer whose JSON is something else than an object.
        raise HTTPClientError(error=f"the answer to {operation} cannot be read: {error!r}") from error
    # botocore takes what is not JSON for an empty answer, and to some requests an empty answer means success.
    # DynamoDB puts its request id on each of its own.
    if not answer.pop("ResponseMetadata", {}).get("RequestId"):
        raise HTTPClientError(error=f"the answer to {operation} has no request id: it is not DynamoDB's")
    return answer
