"""Onto a Kinesis stream: every record has its id before it is sent, and only what failed is sent again."""

import json
import os
import time
from itertools import batched

import boto3

kinesis = boto3.client("kinesis")
STREAM = os.environ["STREAM_NAME"]
ATTEMPTS = 8


def publish(orders):
    """Put orders on the stream. Called again with the same orders, it sends the same records."""
    # PutRecords takes 500 records at most. It also limits their bytes, which are not counted here.
    for part in batched(orders, 500, strict=False):
        send(
            [
                {
                    # The id is the data's own. One that is drawn here would be another one in the next attempt.
                    "Data": json.dumps({"id": f"order-{order['order_id']}", "payload": order}).encode(),
                    "PartitionKey": str(order["customer"]),
                }
                for order in part
            ]
        )


def send(entries):
    for attempt in range(ATTEMPTS):
        results = kinesis.put_records(StreamName=STREAM, Records=entries)["Records"]
        # The call succeeds although entries fail. The results are in the order of the entries.
        pairs = zip(entries, results, strict=True)
        entries = [entry for entry, result in pairs if result.get("ErrorCode") is not None]
        if not entries:
            return
        time.sleep(0.1 * 2**attempt)
    raise RuntimeError(f"{len(entries)} records were not published")
