"""S3 notifications: each object is entered once, by a conditional put."""

import hashlib
import json
import os
from urllib.parse import unquote_plus

import boto3
from aws_lambda_powertools import Logger

logger = Logger()
dynamodb = boto3.client("dynamodb")
TABLE = os.environ["UPLOADS_TABLE"]  # partition key: "id", a string


def handler(event, context):
    for record in event["Records"]:
        bucket = record["s3"]["bucket"]["name"]
        key = unquote_plus(record["s3"]["object"]["key"])  # it arrives URL-encoded
        etag = record["s3"]["object"]["eTag"]
        # Derived, not drawn: every notification about this object leads to this id. A JSON list keeps the
        # parts apart, whatever characters the key holds.
        upload = hashlib.sha256(json.dumps([bucket, key, etag]).encode()).hexdigest()
        try:
            dynamodb.put_item(
                TableName=TABLE,
                Item={"id": {"S": upload}, "bucket": {"S": bucket}, "key": {"S": key}, "etag": {"S": etag}},
                ConditionExpression="attribute_not_exists(id)",
            )
        except dynamodb.exceptions.ConditionalCheckFailedException:
            logger.info("Duplicate skipped", upload=upload, key=key)
        else:
            logger.info("Inserted", upload=upload, key=key)
