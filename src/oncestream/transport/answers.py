"""DynamoDB's answers, as they come by HTTP."""

from __future__ import annotations

from typing import Any, NamedTuple

from botocore.exceptions import ClientError, HTTPClientError
from pydantic_core import from_json


class HttpAnswer(NamedTuple):
    """What came back, whatever it is."""

    status: int
    headers: dict[str, str]
    """By name, in lower case."""
    body: bytes | bytearray

    def read(self, operation: str) -> dict[str, Any]:
        """The answer to ``operation``.

        Raises
        ------
        botocore.exceptions.ClientError
            It is an error, of DynamoDB or of something on the way.
        botocore.exceptions.HTTPClientError
            It is no answer: not a JSON object.
        """
        try:
            answer = from_json(self.body)
        except ValueError:
            answer = None
        if self.status >= 300:
            # What is not an object is not from DynamoDB but from something on the way, which speaks HTML.
            raise self._error(operation, answer if isinstance(answer, dict) else {})
        if not isinstance(answer, dict):
            start = bytes(self.body[:80])
            raise HTTPClientError(
                error=f"the answer to {operation} is not a JSON object, but begins with {start!r}"
            )
        return answer

    def _error(self, operation: str, body: dict[str, Any]) -> ClientError:
        # {"__type": "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException", "message": "..."}
        code = str(body.pop("__type", self.status)).rsplit("#", 1)[-1]
        message = body.pop("message", None) or body.pop("Message", None) or "no explanation given"
        details: Any = {
            **body,
            "Error": {"Code": code, "Message": str(message)},
            "ResponseMetadata": {
                "RequestId": self.headers.get("x-amzn-requestid", ""),
                "HTTPStatusCode": self.status,
                "HTTPHeaders": self.headers,
                "RetryAttempts": 0,
            },
        }
        return ClientError(details, operation)
