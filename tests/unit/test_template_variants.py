"""The template's two ways for the database: in each, all that is referred to exists, and nothing of the other does."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.cloudformation import PSEUDO, Variant, long_form, references

GIVEN: dict[str, dict[str, object]] = {
    "aurora": {"Database": "aurora", "AlarmEmail": "a@example.com"},
    "iam": {
        "DatabaseHost": "db",
        "DatabaseResourceId": "db-A",
        "DatabaseInstanceIdentifier": "writer",
        "ConsumerConcurrency": 5,
        "ProducerConcurrency": 5,
        "KmsKeyArn": "arn:aws:kms:us-east-1:000000000000:key/1",
        "UploadKmsKeyArn": "arn:aws:kms:us-east-1:000000000000:key/2",
    },
    "iam in a VPC": {
        "DatabaseHost": "db",
        "DatabaseResourceId": "db-A",
        "DatabaseSubnetIds": "subnet-1,subnet-2",
        "DatabaseSecurityGroupIds": "sg-1",
        "AlarmTopicArn": "arn:aws:sns:us-east-1:000000000000:alarms",
    },
    "secret": {"DatabaseHost": "db", "DatabaseAuthentication": "secret", "DatabaseSecretArn": "arn"},
    "this machine": {
        "DatabaseHost": "127.0.0.1",
        "DatabaseAuthentication": "trust",
        "DatabaseTls": "disable",
    },
}
ATTRIBUTES = {
    "AWS::DynamoDB::Table": {"Arn", "StreamArn"},
    "AWS::EC2::SecurityGroup": {"GroupId"},
    "AWS::IAM::Role": {"Arn"},
    "AWS::Kinesis::Stream": {"Arn"},
    "AWS::Logs::LogGroup": {"Arn"},
    "AWS::RDS::DBCluster": {"Endpoint.Address", "DBClusterResourceId"},
    "AWS::S3::Bucket": {"Arn"},
    "AWS::SQS::Queue": {"Arn", "QueueName"},
    "AWS::Serverless::Function": {"Arn"},
}
"""Of each type: what it returns, as far as the template asks (AWS CloudFormation Template Reference)."""

VARIANTS = {name: Variant(**given) for name, given in GIVEN.items()}


@pytest.fixture(params=sorted(VARIANTS))
def variant(request: pytest.FixtureRequest) -> Variant:
    return VARIANTS[request.param]


def test_whatever_is_referred_to_exists(variant: Variant) -> None:
    resources = variant.resources
    mappings = {
        function + event
        for function, each in resources.items()
        for event in each["Properties"].get("Events", {})
    }
    versions = {
        f"{name}.Version" for name, each in resources.items() if "AutoPublishAlias" in each["Properties"]
    }
    for name, attribute in references([variant.globals, resources, variant.outputs]):
        if attribute is None:
            assert name in {*resources, *variant.parameters, *PSEUDO, *mappings, *versions}, name
        else:
            assert attribute in ATTRIBUTES[resources[name]["Type"]], (name, attribute)
    for name, each in resources.items():
        after = each.get("DependsOn", [])
        assert {after} if isinstance(after, str) else set(after) <= set(resources), name


def test_every_condition_is_true_in_one_of_them_and_false_in_another() -> None:
    for name in long_form()["Conditions"]:
        assert {variant.conditions[name] for variant in VARIANTS.values()} == {True, False}, name


def test_the_connections_of_a_database_that_is_known_to_aws_are_watched() -> None:
    alarms = {"DatabaseConnectionsAlarm", "InstanceConnectionsAlarm"}
    watched = {name: alarms & set(variant.resources) for name, variant in VARIANTS.items()}
    assert {name: found for name, found in watched.items() if found} == {
        "aurora": {"DatabaseConnectionsAlarm"},
        "iam": {"InstanceConnectionsAlarm"},
    }


def beside_the_database(variant: Variant) -> dict[str, Any]:
    return {
        name: each["Properties"]["VpcConfig"]
        for name, each in variant.resources.items()
        if "VpcConfig" in each["Properties"]
    }


FUNCTIONS = {"ConsumerFunction", "MigrateFunction", "ReportFunction"}


def test_the_functions_that_use_the_database_are_where_it_is() -> None:
    assert beside_the_database(VARIANTS["iam"]) == {}
    given = {
        "SubnetIds": {"Ref": "DatabaseSubnetIds"},
        "SecurityGroupIds": {"Ref": "DatabaseSecurityGroupIds"},
    }
    assert beside_the_database(VARIANTS["iam in a VPC"]) == dict.fromkeys(FUNCTIONS, given)
    made = {
        "SubnetIds": [{"Ref": "SubnetA"}, {"Ref": "SubnetB"}],
        "SecurityGroupIds": [{"Ref": "FunctionSecurityGroup"}],
    }
    assert beside_the_database(VARIANTS["aurora"]) == dict.fromkeys(FUNCTIONS, made)


def test_what_the_functions_may_connect_to_is_one_database() -> None:
    def allowed(name: str) -> list[Any]:
        policies = VARIANTS[name].resources["ConsumerFunctionRole"]["Properties"]["Policies"]
        return [
            statement["Resource"]
            for policy in policies
            for statement in policy["PolicyDocument"]["Statement"]
            if statement["Action"] in ("rds-db:connect", "secretsmanager:GetSecretValue")
        ]

    [aurora], [iam] = allowed("aurora"), allowed("iam")
    assert aurora["Fn::Sub"][1] == {"Id": {"Fn::GetAtt": ["DatabaseCluster", "DBClusterResourceId"]}}
    assert iam["Fn::Sub"][1] == {"Id": {"Ref": "DatabaseResourceId"}}
    assert allowed("secret") == [{"Ref": "DatabaseSecretArn"}]
    assert allowed("this machine") == []


def test_only_one_of_them_makes_a_network_and_it_leads_to_three_places() -> None:
    def of(prefix: str, name: str = "aurora") -> dict[str, Any]:
        return {
            each: made for each, made in VARIANTS[name].resources.items() if made["Type"].startswith(prefix)
        }

    assert not any(
        of(prefix, name) for prefix in ("AWS::EC2::", "AWS::RDS::") for name in GIVEN if name != "aurora"
    )
    kinds = {made["Type"] for made in of("AWS::EC2::").values()}
    assert not kinds & {"AWS::EC2::NatGateway", "AWS::EC2::InternetGateway", "AWS::EC2::Route"}
    services = {
        made["Properties"]["ServiceName"]["Fn::Sub"].rpartition(".")[2]: made["Properties"]["VpcEndpointType"]
        for made in of("AWS::EC2::VPCEndpoint").values()
    }
    assert services == {"dynamodb": "Gateway", "s3": "Gateway"}
    cluster = VARIANTS["aurora"].resources["DatabaseCluster"]
    assert cluster["Properties"]["EnableIAMDatabaseAuthentication"] is True
    assert cluster["Properties"]["MasterUserAuthenticationType"] == "iam-db-auth"
    assert not {"MasterUserPassword", "ManageMasterUserPassword"} & set(cluster["Properties"])


def test_the_functions_send_to_the_database_and_to_the_endpoints_and_the_database_to_nobody() -> None:
    resources = VARIANTS["aurora"].resources
    rules = {
        name: each["Properties"]
        for name, each in resources.items()
        if each["Type"] in ("AWS::EC2::SecurityGroupIngress", "AWS::EC2::SecurityGroupEgress")
    }
    functions, database = (
        {"Fn::GetAtt": [f"{each}SecurityGroup", "GroupId"]} for each in ("Function", "Database")
    )
    assert {
        name: (
            rule["GroupId"],
            rule.get("SourceSecurityGroupId") or rule.get("DestinationSecurityGroupId") or rule["CidrIp"],
            rule["FromPort"],
            rule["ToPort"],
        )
        for name, rule in rules.items()
    } == {
        "DatabaseIngress": (database, functions, 5432, 5432),
        "FunctionEgressDatabase": (functions, database, 5432, 5432),
        "FunctionEgressServices": (functions, "0.0.0.0/0", 443, 443),
    }
    for name in ("FunctionSecurityGroup", "DatabaseSecurityGroup"):
        group = resources[name]["Properties"]
        assert [each["CidrIp"] for each in group["SecurityGroupEgress"]] == ["127.0.0.1/32"]
        assert "SecurityGroupIngress" not in group
