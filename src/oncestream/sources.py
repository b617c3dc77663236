"""What Lambda's events hold: the body of each source's records, and their key."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.batch import EventType
from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecord
from aws_lambda_powertools.utilities.idempotency.exceptions import IdempotencyKeyError

from oncestream.errors import PermanentError
from oncestream.handling import Delivery, RejectedRecord

if TYPE_CHECKING:
    from oncestream.idempotency import BulkIdempotency


class Reader:
    """Makes deliveries of an event's records. :class:`oncestream.BulkProcessor` documents the parameters."""

    def __init__(
        self,
        event_type: EventType,
        store: BulkIdempotency,
        model: type[Any] | None,
        decode: Callable[[bytes], Any],
    ) -> None:
        if event_type not in _BYTES and event_type is not EventType.DynamoDBStreams:
            raise ValueError(f"{event_type} is no source that BulkProcessor knows")
        self._event_type = event_type
        self._store = store
        self._model = model
        self._decode = decode

    def read(self, record: dict[str, Any]) -> Delivery | RejectedRecord:
        """Decode a record, and find its key. It is rejected if that cannot be done.

        Raises
        ------
        KeyError
            It is not a record of the source that the processor was made for.
        """
        raw = b""
        try:
            if self._event_type is EventType.DynamoDBStreams:
                raw = json.dumps(record, sort_keys=True).encode()
                body = _change(record)
                body = self._model.model_validate(body) if self._model else body
            else:
                raw = _BYTES[self._event_type](record)
                body = self._body(raw)
            return Delivery(body, raw, record, self._store.key(body), self._store.digest(body))
        except IdempotencyKeyError as error:
            reason = f"it has no key: {error}"
        except RecursionError:
            reason = "it is nested too deeply"
        except (
            ValueError,
            PermanentError,
        ) as error:  # json's, pydantic's and JMESPath's errors are ValueErrors
            reason = f"it cannot be decoded: {error}"
        raw = raw or json.dumps(record, sort_keys=True).encode()
        return RejectedRecord(sha256(raw).hexdigest(), reason, raw, record)

    def _body(self, raw: bytes) -> Any:
        if self._model is None:
            return self._decode(raw)
        if self._decode is json.loads:
            return self._model.model_validate_json(raw)
        return self._model.model_validate(self._decode(raw))


def fifo_groups(records: Sequence[dict[str, Any]]) -> Mapping[int, str]:
    """The message group of each message of a FIFO queue, by position. Others have groups only to be fair: no order.

    docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html
    """
    return {
        at: record["attributes"]["MessageGroupId"]
        for at, record in enumerate(records)
        if record.get("eventSourceARN", "").endswith(".fifo")
    }


def _kinesis(record: dict[str, Any]) -> bytes:
    return base64.b64decode(record["kinesis"]["data"])


def _sqs(record: dict[str, Any]) -> bytes:
    body: str = record["body"]
    return body.encode()


def _kafka(record: dict[str, Any]) -> bytes:
    if record.get("value") is None:
        raise PermanentError("its value is null (a tombstone)")
    return base64.b64decode(record["value"])


_BYTES: dict[EventType, Callable[[dict[str, Any]], bytes]] = {
    EventType.KinesisDataStreams: _kinesis,
    EventType.SQS: _sqs,
    EventType.Kafka: _kafka,
}


def _change(record: dict[str, Any]) -> dict[str, Any]:
    """A change as plain values. Numbers are Decimals; an image that the stream does not carry is None."""
    change = DynamoDBRecord(record)
    view = change.dynamodb
    return {
        "eventID": record["eventID"],
        "eventName": record["eventName"],
        "Keys": view.keys if view else None,
        "NewImage": view.new_image if view and "NewImage" in record["dynamodb"] else None,
        "OldImage": view.old_image if view and "OldImage" in record["dynamodb"] else None,
    }
