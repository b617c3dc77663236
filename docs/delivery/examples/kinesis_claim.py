"""Off a Kinesis stream, with an effect that no unique key protects: the whole batch is claimed first.

Needs the library of this repository: `make dist`, then `pip install dist/oncestream-*.whl`.
"""

import base64
import json
import os
from collections import defaultdict
from hashlib import sha256

import boto3
from aws_lambda_powertools.utilities.idempotency import IdempotencyConfig

from oncestream import BulkIdempotency

sqs = boto3.client("sqs")
MAIL_QUEUE_URL = os.environ["MAIL_QUEUE_URL"]
store = BulkIdempotency(
    os.environ["IDEMPOTENCY_TABLE"],  # partition key "id", TTL on "expiration"
    config=IdempotencyConfig(expires_after_seconds=14 * 24 * 3600, hash_function="sha256"),
    key_prefix="mails",
    boto3_client=boto3.client("dynamodb"),
)


def handler(event, context):
    payloads, digests, sequence_numbers = {}, {}, defaultdict(list)
    for record in event["Records"]:
        order = json.loads(base64.b64decode(record["kinesis"]["data"]))
        payload = payloads.setdefault(order["id"], order["payload"])
        digests[order["id"]] = sha256(json.dumps(payload).encode()).hexdigest()
        sequence_numbers[order["id"]].append(record["kinesis"]["sequenceNumber"])

    claims = store.claim(digests.items(), context.get_remaining_time_in_millis())
    waiting = set(claims.in_progress | claims.undecided)  # somebody else's, or nobody's yet: again later
    # claims.completed was done before, and claims.suspect with another payload: neither is done again.
    done = set()
    try:
        for each in claims.claimed:
            sqs.send_message(QueueUrl=MAIL_QUEUE_URL, MessageBody=json.dumps(payloads[each]))
            done.add(each)
    finally:
        # An error goes on to Lambda, which delivers the batch again. What was done before it is not done again.
        store.complete((each, digests[each]) for each in done)
        store.release(claims.claimed - done)
    # Lambda delivers everything again from the lowest of these on. What is completed is a duplicate then.
    failed = [number for each in waiting for number in sequence_numbers[each]]
    return {"batchItemFailures": [{"itemIdentifier": number} for number in failed]}
