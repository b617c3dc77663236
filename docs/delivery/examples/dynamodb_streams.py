"""DynamoDB streams: each new item leads to jobs, once in effect: INSERT only, and ids that follow from the item."""

import json
import os

import boto3
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import (
    DynamoDBRecord,
    DynamoDBRecordEventName,
)

sqs = boto3.client("sqs")
QUEUE_URL = os.environ["JOBS_QUEUE_URL"]
PARTS = 4

# A batch in which everything failed is answered with its records too, and not with an error: for an error
# BisectBatchOnFunctionError would cut the batch in half, which helps nobody when a service is away.
processor = BatchProcessor(EventType.DynamoDBStreams, raise_on_entire_batch_failure=False)


def record_handler(record: DynamoDBRecord):
    if record.event_name != DynamoDBRecordEventName.INSERT:
        return  # the template filters as well; the code does not rely on it
    upload = record.dynamodb.keys["id"]
    # The ids of the jobs follow from the item's key: planned again, they are the same jobs.
    jobs = [{"job": f"{upload}:{part}", "upload": upload, "part": part} for part in range(PARTS)]
    entries = [{"Id": str(job["part"]), "MessageBody": json.dumps(job)} for job in jobs]
    answer = sqs.send_message_batch(QueueUrl=QUEUE_URL, Entries=entries)
    if answer.get("Failed"):  # the call succeeded, these entries did not
        raise RuntimeError(f"{len(answer['Failed'])} of {PARTS} jobs of {upload} were not sent")


def handler(event, context):
    return process_partial_response(event, record_handler, processor, context)
