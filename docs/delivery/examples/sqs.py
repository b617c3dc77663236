"""SQS: each job is done once, for as long as the idempotency table remembers its id."""

import json
import os

import boto3
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)

kinesis = boto3.client("kinesis")
STREAM = os.environ["STREAM_NAME"]

processor = BatchProcessor(EventType.SQS, raise_on_entire_batch_failure=False)
store = DynamoDBPersistenceLayer(os.environ["IDEMPOTENCY_TABLE"])  # partition key "id", TTL on "expiration"
config = IdempotencyConfig(
    event_key_jmespath="job",  # the job's own id, not the message's: a job that is sent twice has two messages
    raise_on_no_idempotency_key=True,  # without it, a message without an id is processed, each time
    expires_after_seconds=14 * 24 * 3600,  # as long as a queue can keep a message
    hash_function="sha256",
)


@idempotent_function(data_keyword_argument="job", persistence_store=store, config=config, key_prefix="jobs")
def work(*, job):
    """The effect that is to happen once. What it returns is stored, and returned to a duplicate."""
    answer = kinesis.put_record(StreamName=STREAM, PartitionKey=job["job"], Data=json.dumps(job).encode())
    return {"shard": answer["ShardId"]}


def record_handler(record: SQSRecord):
    return work(job=json.loads(record.body))


def handler(event, context):
    config.register_lambda_context(context)  # so that the claim of a killed invocation runs out with its time
    return process_partial_response(event, record_handler, processor, context)
