"""The template with a database of its own (Database=aurora), deployed into MiniStack: what is made, and how.

Not all of it can be seen here:

- MiniStack makes the record of a cluster, and no server: the migrations, which need one, are taken out of the template.
- It knows no AWS::EC2::SecurityGroupIngress and ...Egress: who may send to whom is checked in the template
  (tests/unit/test_template_variants.py).
- It does not keep a cluster's MasterUserAuthenticationType, nor a function's VpcConfig when CloudFormation makes the
  function: both are checked in the template, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from local.ministack import MiniStack
from local.sam import Sam

NAME = "with-aurora"
GIVEN = {"Database": "aurora", "AuroraMaxCapacity": "8", "AlarmEmail": "you@example.com"}
LEFT_OUT = {"AWS::EC2::SecurityGroupIngress", "AWS::EC2::SecurityGroupEgress"}


class Deployed:
    """The stack's resources by logical id, and clients to look at them."""

    def __init__(self, server: MiniStack) -> None:
        self.client = server.client
        described = server.client("cloudformation").describe_stack_resources(StackName=NAME)
        self.physical = {
            each["LogicalResourceId"]: each["PhysicalResourceId"] for each in described["StackResources"]
        }

    def configuration(self, function: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client("lambda").get_function_configuration(
            FunctionName=self.physical[function]
        )
        return found


@pytest.fixture(scope="module")
def deployed(server_directory: Path) -> Iterator[Deployed]:
    directory = server_directory / "aurora"
    directory.mkdir()
    with MiniStack(directory / "ministack") as server, Sam(directory) as sam:
        sam.start_build()
        sam.finish_build()
        path = sam.build / "template.yaml"
        template = yaml.safe_load(path.read_text())
        resources = template["Resources"]
        resources["Migrations"] = {"Type": "AWS::CloudFormation::WaitConditionHandle"}
        template["Resources"] = {
            name: each for name, each in resources.items() if each["Type"] not in LEFT_OUT
        }
        path.write_text(yaml.safe_dump(template, sort_keys=False))
        sam.deploy(server.endpoint, NAME, GIVEN)
        yield Deployed(server)


def test_the_cluster_scales_from_nothing_and_knows_no_password(deployed: Deployed) -> None:
    [cluster] = deployed.client("rds").describe_db_clusters()["DBClusters"]
    assert (cluster["Engine"], cluster["EngineVersion"]) == ("aurora-postgresql", "17.7")
    scaling = cluster["ServerlessV2ScalingConfiguration"]
    assert (float(scaling["MinCapacity"]), float(scaling["MaxCapacity"])) == (0, 8)
    assert cluster["IAMDatabaseAuthenticationEnabled"] is True
    assert cluster["StorageEncrypted"] is True
    assert cluster["DeletionProtection"] is True
    assert "MasterUserSecret" not in cluster
    [instance] = deployed.client("rds").describe_db_instances()["DBInstances"]
    assert (instance["DBInstanceClass"], instance["DBClusterIdentifier"], instance["PubliclyAccessible"]) == (
        "db.serverless",
        cluster["DBClusterIdentifier"],
        False,
    )


def test_the_functions_know_where_it_is(deployed: Deployed) -> None:
    [cluster] = deployed.client("rds").describe_db_clusters()["DBClusters"]
    for function in ("ConsumerFunction", "MigrateFunction", "ReportFunction"):
        variables = deployed.configuration(function)["Environment"]["Variables"]
        assert variables["DATABASE_HOST"] == cluster["Endpoint"]
        assert (variables["DATABASE_AUTHENTICATION"], variables["DATABASE_TLS"]) == ("iam", "verify-full")


def test_its_subnets_and_groups_are_those_of_the_stack(deployed: Deployed) -> None:
    rds = deployed.client("rds")
    [group] = rds.describe_db_subnet_groups(DBSubnetGroupName=deployed.physical["DatabaseSubnets"])[
        "DBSubnetGroups"
    ]
    assert {each["SubnetIdentifier"] for each in group["Subnets"]} == {
        deployed.physical["SubnetA"],
        deployed.physical["SubnetB"],
    }
    [cluster] = rds.describe_db_clusters()["DBClusters"]
    assert [each["VpcSecurityGroupId"] for each in cluster["VpcSecurityGroups"]] == [
        deployed.physical["DatabaseSecurityGroup"]
    ]


def test_the_network_leads_to_two_services_and_nowhere_else(deployed: Deployed) -> None:
    ec2, vpc = deployed.client("ec2"), deployed.physical["Vpc"]
    here = [{"Name": "vpc-id", "Values": [vpc]}]
    endpoints = ec2.describe_vpc_endpoints(Filters=here)["VpcEndpoints"]
    assert {(each["ServiceName"], each["VpcEndpointType"]) for each in endpoints} == {
        ("com.amazonaws.us-east-1.dynamodb", "Gateway"),
        ("com.amazonaws.us-east-1.s3", "Gateway"),
    }
    routes = deployed.physical["Routes"]
    assert all(each["RouteTableIds"] == [routes] for each in endpoints)
    [table] = ec2.describe_route_tables(RouteTableIds=[routes])["RouteTables"]
    assert {each["SubnetId"] for each in table["Associations"] if "SubnetId" in each} == {
        deployed.physical["SubnetA"],
        deployed.physical["SubnetB"],
    }
    assert all(each.get("GatewayId") == "local" for each in table["Routes"])
    assert ec2.describe_nat_gateways(Filter=here)["NatGateways"] == []
    attached = [{"Name": "attachment.vpc-id", "Values": [vpc]}]
    assert ec2.describe_internet_gateways(Filters=attached)["InternetGateways"] == []


def test_the_role_may_connect_to_this_cluster_as_this_user(deployed: Deployed) -> None:
    [cluster] = deployed.client("rds").describe_db_clusters()["DBClusters"]
    iam, role = deployed.client("iam"), deployed.physical["ConsumerFunctionRole"]
    statements = [
        statement
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
        for statement in iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]["Statement"]
    ]
    [allowed] = [each["Resource"] for each in statements if each["Action"] == "rds-db:connect"]
    assert allowed.endswith(f":dbuser:{cluster['DbClusterResourceId']}/oncestream")
