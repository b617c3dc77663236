"""Runs in an environment that has the wheel and nothing else of this repository: the examples of its README.

Usage: python installed.py DIRECTORY NAME. The directory has the examples and shop.py, tables are named NAME-... AWS is
what the environment says. Writes JSON.
"""

import base64
import importlib
import json
import os
import sys
import time
from types import SimpleNamespace

sys.path.insert(0, sys.argv[1])

import boto3
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)

RECORDS = 1_000
ONE_BY_ONE = 200
"""What the decorator does one after the other takes a fifth of the time for a fifth of the records."""
LATENCY_SECONDS = 0.005
"""An emulator on this machine has no network in between; DynamoDB answers in some 5 ms."""

context = SimpleNamespace(get_remaining_time_in_millis=lambda: 300_000)


def body(number):
    return json.dumps({"order_id": number, "amount": 1}).encode()


def coded(number):
    return base64.b64encode(body(number)).decode()


def image(number):
    return {"order_id": {"N": str(number)}, "amount": {"N": "1"}}


def sqs(numbers):
    return {
        "Records": [
            {"messageId": str(n), "eventSource": "aws:sqs", "body": body(n).decode()} for n in numbers
        ]
    }


def kinesis(numbers):
    return {"Records": [{"kinesis": {"sequenceNumber": str(n), "data": coded(n)}} for n in numbers]}


def dynamodb_streams(numbers):
    change = [
        {
            "eventID": f"event-{n}",
            "eventName": "INSERT",
            "dynamodb": {"Keys": {}, "NewImage": image(n), "SequenceNumber": str(n)},
        }
        for n in numbers
    ]
    return {"Records": change}


def kafka(numbers):
    return {
        "records": {
            "orders-0": [{"topic": "orders", "partition": 0, "offset": n, "value": coded(n)} for n in numbers]
        }
    }


def counted(client):
    """Count what a client asks, and have each request take LATENCY_SECONDS longer."""
    requests = []

    def on_the_way(request, **_):
        requests.append(request.url)
        time.sleep(LATENCY_SECONDS)

    client.meta.events.register("before-send.dynamodb", on_the_way)
    return requests


def order_ids(saved):
    return [int(each["order_id"] if isinstance(each, dict) else each.order_id) for each in saved]


def run(name, make):
    os.environ["IDEMPOTENCY_TABLE"] = f"{sys.argv[2]}-{name.replace('_', '-')}"
    boto3.client("dynamodb").create_table(
        TableName=os.environ["IDEMPOTENCY_TABLE"],
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    )
    shop = importlib.import_module("shop")
    example = importlib.import_module(f"example_{name}")
    requests = counted(example.store.client)
    shop.saved.clear()
    began = time.perf_counter()
    answer = example.lambda_handler(make(range(RECORDS)), context)
    seconds = time.perf_counter() - began
    asked = len(requests)
    again = example.lambda_handler(make(range(RECORDS)), context)
    return {
        "answers": [answer, again],
        "saved": sorted(order_ids(shop.saved)) == list(range(RECORDS)),
        "seconds": seconds,
        "requests": asked,
    }


def one_by_one():
    layer = DynamoDBPersistenceLayer(os.environ["IDEMPOTENCY_TABLE"])
    config = IdempotencyConfig(event_key_jmespath="order_id", lambda_context=context)
    requests = counted(layer.client)

    @idempotent_function(data_keyword_argument="order", persistence_store=layer, config=config)
    def process_order(order):
        return None

    began = time.perf_counter()
    for number in range(ONE_BY_ONE):
        process_order(order={"order_id": f"other-{number}"})
    factor = RECORDS / ONE_BY_ONE
    return {"seconds": (time.perf_counter() - began) * factor, "requests": len(requests) * factor}


sources = {"sqs": sqs, "kinesis": kinesis, "dynamodb_streams": dynamodb_streams, "kafka": kafka}
found = {name: run(name, make) for name, make in sources.items()}
report = {"python": sys.version_info[:2], "sources": found, "one by one": one_by_one()}
sys.stdout.write(json.dumps(report))
