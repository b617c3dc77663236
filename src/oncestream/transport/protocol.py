"""What a transport is."""

from __future__ import annotations

from typing import Any, Protocol


class Pending(Protocol):
    """A request that is under way. A :class:`concurrent.futures.Future` is one."""

    def done(self) -> bool:
        """Whether :meth:`result` will return, or raise, without waiting."""

    def result(self) -> dict[str, Any]:
        """Wait for the answer and return it, as the API reference shows it.

        Raises
        ------
        botocore.exceptions.ClientError
            DynamoDB answered with an error. What it says beside code and message is at the top of ``response``:
            ``Item`` for a condition that failed.
        botocore.exceptions.BotoCoreError
            There is no answer, or none that can be read. Unless the error says that there was no connection
            (``EndpointConnectionError``, ``ConnectTimeoutError``, ``ProxyConnectionError``, ``SSLError``) or nothing to
            sign with (``NoCredentialsError``), the request may have had its effect.
        """


class Transport(Protocol):
    """Carries requests to DynamoDB. Threads may share it."""

    def send(self, operation: str, request: dict[str, Any]) -> Pending:
        """Send one request, once: who calls knows better what to repeat.

        Parameters
        ----------
        operation
            Its name in the API, such as ``BatchWriteItem``.
        request
            The request, as the API reference shows it. Binary values (``B``) are not supported: boto3 takes bytes
            where DynamoDB's JSON has base64.

        Raises
        ------
        botocore.exceptions.BotoCoreError
            It could not be sent, as :meth:`Pending.result` says. An implementation raises here or there.
        """
