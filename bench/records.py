"""The records of the benchmark, as the Kinesis events that every contestant gets."""

from __future__ import annotations

import base64
import itertools
import json
import random
from functools import cache
from typing import Any, Literal

from local.records import flights

type Dataset = Literal["flights", "1 KB"]

SYNTHETIC_BYTES = 1024
"""Length of a whole synthetic record on the stream."""
POISON = b'{"id": "cut short at '
"""How a poison record begins: it is not JSON. One in a hundred of a poisoned batch is, at least one, each its own."""
ARRIVED_AT = 1_785_542_400.0
"""When the records arrived (seconds since the epoch): the same in every run, so that runs write the same bytes."""

_SHARD = "shardId-000000000000"
_STREAM_ARN = "arn:aws:kinesis:us-east-1:000000000000:stream/bench"


def event(dataset: Dataset, size: int, tag: str, *, poisoned: bool = False) -> dict[str, Any]:
    """A Kinesis event of ``size`` records whose ids begin with ``tag``: the same arguments give the same event."""
    messages = [message(dataset, number, f"{tag}-{number}", size) for number in range(size)]
    if poisoned:
        for number in range(min(50, size // 2), size, 100):
            messages[number] = POISON + str(number).encode()
    return {"Records": [_stream_record(number, data) for number, data in enumerate(messages)]}


def poison_in(size: int) -> int:
    """How many records of a poisoned event of ``size`` records are poison."""
    return len(range(min(50, size // 2), size, 100))


def message(dataset: Dataset, number: int, record_id: str, size: int) -> bytes:
    """The bytes of one record as they lie on the stream. ``size`` is how many records will be asked for."""
    head = f'{{"id":"{record_id}","partition_key":"{number % 97}","payload":'
    if dataset == "flights":
        return f"{head}{_flights(size)[number]}}}".encode()
    frame = f'{head}{{"number":{number},"text":""}}}}'
    # Text that no compression on the way could shrink, drawn from the number.
    text = random.Random(number).randbytes(SYNTHETIC_BYTES).hex()[: SYNTHETIC_BYTES - len(frame)]
    return f'{head}{{"number":{number},"text":"{text}"}}}}'.encode()


@cache
def _flights(count: int) -> tuple[str, ...]:
    return tuple(json.dumps(flight, separators=(",", ":")) for flight in itertools.islice(flights(), count))


def _stream_record(number: int, data: bytes) -> dict[str, Any]:
    # As Lambda hands it over: docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html
    sequence_number = f"4966{number:052d}"
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": str(number % 97),
            "sequenceNumber": sequence_number,
            "data": base64.b64encode(data).decode(),
            "approximateArrivalTimestamp": ARRIVED_AT,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{_SHARD}:{sequence_number}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::000000000000:role/bench",
        "awsRegion": "us-east-1",
        "eventSourceARN": _STREAM_ARN,
    }
