"""Mappings from SAM and CloudFormation templates."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from lambda_esm.clients import Clients
from lambda_esm.lookup import TemplateNames
from lambda_esm.mapping import EventSourceMapping
from lambda_esm.template import TemplateError, read_mappings
from local.machine import REPOSITORY

TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Parameters:
  Batch: {Type: Number, Default: 25}
  Retries: {Type: Number}
Resources:
  Orders: {Type: AWS::Kinesis::Stream, Properties: {Name: !Sub "${Prefix}-orders"}}
  Ledger: {Type: AWS::DynamoDB::Table, Properties: {TableName: ledger}}
  Failed: {Type: AWS::S3::Bucket, Properties: {BucketName: failed}}
  Consumer:
    Type: AWS::Serverless::Function
    Properties:
      Events:
        Stream:
          Type: Kinesis
          Properties:
            Stream: !GetAtt Orders.Arn
            StartingPosition: TRIM_HORIZON
            BatchSize: !Ref Batch
            MaximumRetryAttempts: !Ref Retries
            FunctionResponseTypes: [ReportBatchItemFailures]
            DestinationConfig: {OnFailure: {Destination: !GetAtt Failed.Arn}}
        Off:
          Type: Kinesis
          Properties: {Stream: !GetAtt Orders.Arn, StartingPosition: LATEST, Enabled: false}
        Api: {Type: HttpApi}
  Planner: {Type: AWS::Lambda::Function}
  Mapping:
    Type: AWS::Lambda::EventSourceMapping
    Properties: {EventSourceArn: !GetAtt Ledger.StreamArn, FunctionName: !Ref Planner, StartingPosition: LATEST}
  Queue:
    Type: AWS::Lambda::EventSourceMapping
    Properties: {EventSourceArn: !GetAtt Jobs.Arn, FunctionName: !Ref Planner}
"""


def resolve(logical: str, kind: str, name: str | None) -> str:
    if kind == "AWS::S3::Bucket":
        return f"arn:aws:s3:::{name}"
    service = "kinesis" if kind == "AWS::Kinesis::Stream" else "dynamodb"
    return f"arn:aws:{service}:us-east-1:000000000000:{logical}/{name}"


def read(tmp_path: Path, text: str, **parameters: str) -> list[dict[str, Any]]:
    path = tmp_path / "template.yaml"
    path.write_text(text)
    return read_mappings(path, resolve, parameters)


def test_the_streams_of_functions_and_of_mappings_are_found(tmp_path: Path) -> None:
    found = read(tmp_path, TEMPLATE, Prefix="test", Retries="3")

    assert found == [
        {
            "EventSourceArn": "arn:aws:kinesis:us-east-1:000000000000:Orders/test-orders",
            "FunctionName": "Consumer",
            "StartingPosition": "TRIM_HORIZON",
            "BatchSize": 25,
            "MaximumRetryAttempts": "3",
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
            "DestinationConfig": {"OnFailure": {"Destination": "arn:aws:s3:::failed"}},
        },
        {
            "EventSourceArn": "arn:aws:dynamodb:us-east-1:000000000000:Ledger/ledger",
            "FunctionName": "Planner",
            "StartingPosition": "LATEST",
        },
    ]
    assert EventSourceMapping.from_configuration(found[0]).settings.maximum_retry_attempts == 3


def test_a_value_that_is_not_known_is_named_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(
        TemplateError, match=r"Consumer.Stream.MaximumRetryAttempts: .*--parameter NAME=VALUE"
    ):
        read(tmp_path, TEMPLATE, Prefix="test")


@pytest.mark.parametrize("text", ["", "[]", "a: b", "{", "Resources:"])
def test_a_file_of_something_else_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(TemplateError, match=r"template.yaml is not a SAM or CloudFormation template"):
        read(tmp_path, text)


def test_the_template_of_this_project_is_read() -> None:
    parameters = {"RecordStreamName": "x"}
    functions = {
        each["FunctionName"] for each in read_mappings(REPOSITORY / "template.yaml", resolve, parameters)
    }

    assert "ConsumerFunction" in functions


def test_streams_and_tables_are_looked_up_by_name_and_by_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with mock_aws():
        boto3.client("sqs", region_name="us-east-1").create_queue(QueueName="failed")
        boto3.client("sns", region_name="us-east-1").create_topic(Name="told")
        boto3.client("kinesis", region_name="us-east-1").create_stream(
            StreamName="app-Orders-1A2B", ShardCount=1
        )
        boto3.client("dynamodb", region_name="us-east-1").create_table(
            TableName="ledger",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
        )
        clients = Clients()
        streams = TemplateNames(clients, "app")
        with Stubber(clients.cloudformation) as stub:
            detail = {
                "LogicalResourceId": "Orders",
                "PhysicalResourceId": "app-Orders-1A2B",
                "ResourceType": "AWS::Kinesis::Stream",
                "LastUpdatedTimestamp": datetime(2026, 11, 25, tzinfo=UTC),
                "ResourceStatus": "CREATE_COMPLETE",
            }
            stub.add_response(
                "describe_stack_resource",
                {"StackResourceDetail": detail},
                {"StackName": "app", "LogicalResourceId": "Orders"},
            )
            assert streams("Orders", "AWS::Kinesis::Stream", None).endswith(":stream/app-Orders-1A2B")
        assert streams("F", "AWS::S3::Bucket", "failed") == "arn:aws:s3:::failed"
        queue = streams("Q", "AWS::SQS::Queue", "https://queues/failed")
        assert queue == "arn:aws:sqs:us-east-1:123456789012:failed"
        assert streams("T", "AWS::SNS::Topic", "told") == "arn:aws:sns:us-east-1:123456789012:told"
        assert ":table/ledger/stream/" in streams("Ledger", "AWS::DynamoDB::Table", "ledger")
        assert TemplateNames(Clients(), known={"O": "arn:aws:kinesis:a:b:c"})(
            "O", "AWS::Kinesis::Stream", None
        )
        with pytest.raises(TemplateError, match=r"--name-of Orders=NAME or ARN.*--stack NAME"):
            TemplateNames(Clients())("Orders", "AWS::Kinesis::Stream", None)
