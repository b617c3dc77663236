"""Delivering a batch: one synchronous invocation, of whatever answers like a Lambda function."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from botocore.exceptions import ClientError

from lambda_esm.clients import TRANSPORT_ERRORS, explain
from lambda_esm.mapping import EventSourceMapping
from lambda_esm.records import Answered, Batch, FunctionFailed, NotInvoked

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient


class Invoker(Protocol):
    """Invokes the function of a mapping. It is called by several threads at once."""

    def invoke(self, mapping: EventSourceMapping, batch: Batch) -> Answered | FunctionFailed | NotInvoked:
        """Deliver a batch and say what became of it. Raises nothing: every failure is an outcome.

        An invocation whose answer is lost on the way counts as not invoked. The function may have run, so
        the batch may be processed twice; it is not lost.
        """


class LambdaInvoker:
    """Invokes functions through the Lambda API, or through what speaks it (``sam local start-lambda`` does).

    Parameters
    ----------
    client
        A client that does not retry by itself.
    names
        Functions that are to be invoked under another name: ``{"deployed name": "name there"}``.
    """

    def __init__(self, client: LambdaClient, names: Mapping[str, str] | None = None) -> None:
        self._client = client
        self._names = dict(names or {})

    def invoke(self, mapping: EventSourceMapping, batch: Batch) -> Answered | FunctionFailed | NotInvoked:
        name = self._names.get(mapping.function_name, mapping.function_name)
        request: dict[str, Any] = {"FunctionName": name}
        if mapping.qualifier and mapping.function_name not in self._names:
            request["Qualifier"] = mapping.qualifier
        try:
            answer = self._client.invoke(InvocationType="RequestResponse", Payload=batch.payload, **request)
            body = answer["Payload"].read()
        except (ClientError, *TRANSPORT_ERRORS) as error:
            return NotInvoked(f"Lambda Invoke of {name}: {explain(error)}")
        request_id = answer["ResponseMetadata"].get("RequestId", "")
        version = answer.get("ExecutedVersion", "$LATEST")
        if kind := answer.get("FunctionError"):
            return FunctionFailed(_decode(body), kind, request_id, version)
        return Answered(_decode(body), request_id, version)


def _decode(body: bytes) -> Any:
    """A function's answer. What is not JSON (Lambda never sends such, a stand-in might) stays text."""
    try:
        return json.loads(body) if body.strip() else None
    except ValueError:
        return body.decode(errors="replace")
