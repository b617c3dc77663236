"""Who may do what in the deployed stack, how much, and with which key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.cloudformation import Variant, long_form

PLAIN = {"DatabaseHost": "db", "DatabaseResourceId": "db-A"}
KEY, UPLOAD_KEY = (f"arn:aws:kms:us-east-1:000000000000:key/{each}" for each in ("all", "uploads"))
UNKEYED, KEYED = Variant(**PLAIN), Variant(**PLAIN, KmsKeyArn=KEY, UploadKmsKeyArn=UPLOAD_KEY)
IN_VPC = Variant(**PLAIN, DatabaseSubnetIds="subnet-1", DatabaseSecurityGroupIds="sg-1")


def of_type(variant: Variant, kind: str) -> dict[str, Any]:
    return {name: each["Properties"] for name, each in variant.resources.items() if each["Type"] == kind}


def statements(variant: Variant, role: str) -> Iterator[dict[str, Any]]:
    for policy in variant.resources[role]["Properties"]["Policies"]:
        yield from policy["PolicyDocument"]["Statement"]


def actions(statement: dict[str, Any]) -> set[str]:
    found = statement["Action"]
    return {found} if isinstance(found, str) else set(found)


FUNCTIONS = sorted(of_type(UNKEYED, "AWS::Serverless::Function"))


# --- roles


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_function_has_a_role_of_its_own_that_lambda_alone_takes_on(function: str) -> None:
    properties = UNKEYED.resources[function]["Properties"]
    assert properties["Role"] == {"Fn::GetAtt": [f"{function}Role", "Arn"]}
    assert "Policies" not in properties  # SAM does not read them beside a role
    role = UNKEYED.resources[f"{function}Role"]["Properties"]
    assert "ManagedPolicyArns" not in role
    assert role["AssumeRolePolicyDocument"]["Statement"] == [
        {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_writes_to_its_own_log_group_only(function: str) -> None:
    [group] = [
        each["Resource"]
        for each in statements(UNKEYED, f"{function}Role")
        if any(action.startswith("logs:") for action in actions(each))
    ]
    assert group == {
        "Fn::GetAtt": [UNKEYED.resources[function]["Properties"]["LoggingConfig"]["LogGroup"]["Ref"], "Arn"]
    }


def test_what_lambda_reads_for_a_function_is_one_stream_or_queue() -> None:
    sources = {
        "ConsumerFunction": ("kinesis:GetRecords", {"Fn::GetAtt": ["RecordStream", "Arn"]}),
        "PlanFunction": ("dynamodb:GetRecords", {"Fn::GetAtt": ["LedgerTable", "StreamArn"]}),
        "ChunksFunction": ("sqs:ReceiveMessage", {"Fn::GetAtt": ["ChunkQueue", "Arn"]}),
    }
    for function in FUNCTIONS:
        for each in statements(UNKEYED, f"{function}Role"):
            if actions(each) & {"kinesis:GetRecords", "dynamodb:GetRecords", "sqs:ReceiveMessage"}:
                action, source = sources.pop(function)
                assert action in actions(each)
                assert each["Resource"] == source
    assert sources == {}


def test_network_interfaces_are_for_functions_in_a_vpc_and_not_for_their_code() -> None:
    beside = {"ConsumerFunction", "MigrateFunction", "ReportFunction"}
    for function in FUNCTIONS:
        role = f"{function}Role"
        assert not any("ec2:" in json.dumps(each) for each in statements(UNKEYED, role))
        network = [each for each in statements(IN_VPC, role) if "ec2:" in json.dumps(each)]
        assert bool(network) == (function in beside)
        if network:
            allowed, denied = network
            assert (allowed["Effect"], denied["Effect"], denied["Action"]) == ("Allow", "Deny", "ec2:*")
            assert "lambda:SourceFunctionArn" in denied["Condition"]["ArnLike"]


# --- keys


def test_without_a_key_of_yours_everything_is_encrypted_with_one_of_aws() -> None:
    assert "arn:aws:kms" not in json.dumps(UNKEYED.resources)
    assert not any(
        "kms:" in json.dumps(each["Properties"])
        for each in UNKEYED.resources.values()
        if "Role" in each["Type"]
    )
    for queue in of_type(UNKEYED, "AWS::SQS::Queue").values():
        assert (queue["SqsManagedSseEnabled"], "KmsMasterKeyId" in queue) == (True, False)
    for bucket in of_type(UNKEYED, "AWS::S3::Bucket").values():
        [rule] = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    stream = UNKEYED.resources["RecordStream"]["Properties"]["StreamEncryption"]
    assert stream == {"EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"}


def test_a_key_of_yours_encrypts_everything_that_holds_records() -> None:
    key = {"Ref": "KmsKeyArn"}
    assert KEYED.resources["RecordStream"]["Properties"]["StreamEncryption"]["KeyId"] == key
    for table in of_type(KEYED, "AWS::DynamoDB::Table").values():
        assert table["SSESpecification"] == {"SSEEnabled": True, "SSEType": "KMS", "KMSMasterKeyId": key}
    for queue in of_type(KEYED, "AWS::SQS::Queue").values():
        assert (queue["KmsMasterKeyId"], queue["SqsManagedSseEnabled"]) == (key, False)
    for group in of_type(KEYED, "AWS::Logs::LogGroup").values():
        assert group["KmsKeyId"] == key
    for name, expected in (("DiscardedBatches", key), ("UploadBucket", {"Ref": "UploadKmsKeyArn"})):
        encryption = KEYED.resources[name]["Properties"]["BucketEncryption"]
        [rule] = encryption["ServerSideEncryptionConfiguration"]
        assert rule["ServerSideEncryptionByDefault"] == {
            "SSEAlgorithm": "aws:kms",
            "KMSMasterKeyID": expected,
        }


TABLE = {
    *("Decrypt", "DescribeKey", "Encrypt", "ReEncryptFrom", "ReEncryptTo"),
    *("GenerateDataKey", "GenerateDataKeyWithoutPlaintext"),
}
# What each service asks of its caller. Streams: streams/latest/dg/permissions-user-key-KMS.html. Tables:
# amazondynamodb/latest/developerguide/encryption.usagenotes.html. Queues:
# AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html. Objects:
# AmazonS3/latest/userguide/UsingKMSEncryption.html. All at docs.aws.amazon.com.
GRANTS = {
    "ProducerFunction": {"kinesis": {"GenerateDataKey"}},
    "ConsumerFunction": {"kinesis": {"Decrypt"}, "dynamodb": TABLE, "s3": {"GenerateDataKey"}},
    "MigrateFunction": {},
    "RegisterFunction": {"dynamodb": TABLE, "sqs": {"GenerateDataKey", "Decrypt"}, "s3 uploads": {"Decrypt"}},
    "PlanFunction": {
        "dynamodb": TABLE,
        "sqs": {"GenerateDataKey", "Decrypt"},
        "s3": {"GenerateDataKey"},
        "s3 uploads": {"Decrypt"},
    },
    "ChunksFunction": {
        "kinesis": {"GenerateDataKey"},
        "dynamodb": TABLE,
        "sqs": {"GenerateDataKey", "Decrypt"},
        "s3 uploads": {"Decrypt"},
    },
    "ReportFunction": {"dynamodb": {"Decrypt", "DescribeKey"}},
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_may_use_the_key_for_what_it_does_and_through_that_service(function: str) -> None:
    found = {}
    for each in statements(KEYED, f"{function}Role"):
        if any(action.startswith("kms:") for action in actions(each)):
            via = each["Condition"]["StringEquals"]["kms:ViaService"]["Fn::Sub"].partition(".")[0]
            suffix = {"KmsKeyArn": "", "UploadKmsKeyArn": " uploads"}[each["Resource"]["Ref"]]
            found[via + suffix] = {action.removeprefix("kms:") for action in actions(each)}
    assert found == GRANTS[function]


# --- TLS


def test_buckets_and_queues_speak_tls_only_wherever_a_database_can_be_reached() -> None:
    policies = {"AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy"}
    conditions = {
        each.get("Condition") for each in long_form()["Resources"].values() if each["Type"] in policies
    }
    assert conditions == {"InTheCloud"}
    # A function in AWS reaches no database at its own loopback address: a deploy with it fails at the migrations.
    assert long_form()["Conditions"]["InTheCloud"] == {
        "Fn::Not": [{"Fn::Equals": [{"Ref": "DatabaseHost"}, "127.0.0.1"]}]
    }
    clear = Variant(**PLAIN, DatabaseTls="disable")
    assert of_type(clear, "AWS::S3::BucketPolicy") == of_type(UNKEYED, "AWS::S3::BucketPolicy") != {}


# --- queues


def test_every_queue_speaks_tls_only() -> None:
    policies = {
        queue["Ref"]: each
        for each in of_type(UNKEYED, "AWS::SQS::QueuePolicy").values()
        for queue in each["Queues"]
    }
    assert set(policies) == set(of_type(UNKEYED, "AWS::SQS::Queue"))
    for queue, policy in policies.items():
        assert policy["PolicyDocument"]["Statement"] == [
            {
                "Sid": "TlsOnly",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "sqs:*",
                "Resource": {"Fn::GetAtt": [queue, "Arn"]},
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ]


def test_a_queue_takes_dead_letters_of_the_chunk_queue_or_of_none() -> None:
    queues = of_type(UNKEYED, "AWS::SQS::Queue")
    allowed = {name: queue["RedriveAllowPolicy"] for name, queue in queues.items()}
    [source] = allowed["ChunkDeadLetterQueue"].pop("sourceQueueArns")
    assert allowed == {
        "ChunkDeadLetterQueue": {"redrivePermission": "byQueue"},
        "ChunkQueue": {"redrivePermission": "denyAll"},
        "LostNotificationsQueue": {"redrivePermission": "denyAll"},
    }
    text, values = source["Fn::Sub"]
    assert [text.rpartition(":")[2], values] == queues["ChunkQueue"]["QueueName"]["Fn::Sub"]


# --- senders over HTTP


def test_the_api_is_bounded_and_says_who_asked_for_what() -> None:
    stage = UNKEYED.resources["RecordsApiStage"]["Properties"]
    assert stage["DefaultRouteSettings"] == {
        "ThrottlingRateLimit": {"Ref": "ApiRequestsPerSecond"},
        "ThrottlingBurstLimit": {"Ref": "ApiBurst"},
    }
    logged = set(json.loads(stage["AccessLogSettings"]["Format"]).values())
    needed = ("identity.sourceIp", "httpMethod", "routeKey", "status", "requestId", "identity.userArn")
    assert {f"$context.{name}" for name in needed} <= logged


def test_a_bound_on_invocations_is_there_when_it_is_asked_for() -> None:
    # Not by default: a new account has 10 in all, must keep 10 unreserved, and so can reserve none.
    bound = Variant(**PLAIN, ProducerConcurrency=7, ConsumerConcurrency=8)
    for function, parameter in (("Producer", "ProducerConcurrency"), ("Consumer", "ConsumerConcurrency")):
        assert long_form()["Parameters"][parameter]["Default"] == 0
        name = f"{function}Function"
        assert "ReservedConcurrentExecutions" not in UNKEYED.resources[name]["Properties"]
        assert bound.resources[name]["Properties"]["ReservedConcurrentExecutions"] == {"Ref": parameter}
