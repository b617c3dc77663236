"""The stack under enforced IAM: each function does its job under its own role, and needs all that the role allows;
an update with data in flight loses nothing, and a deleted stack leaves its data.

MiniStack enforces policies with AUTH=true. Every grain of a role's own policies, one action on one resource, is taken
away in turn: the function's job fails without it. What the emulator asks for in another way than AWS, or not at all,
is in ``NOT_CHECKED``, with the reason.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from copy import deepcopy
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lambda_esm import Clients, StreamPoller
from local.sam import Sam
from local.stack import Stack
from tests.integration.roles import CHUNK_BYTES, POLLED, Jobs
from tests.unit.consumer_support import message
from tests.unit.uploads_aws import template
from uploads.upload import upload_id

# Why the code needs each, in AWS's documentation (all under docs.aws.amazon.com), and the test that the code does it:
# - PartiQL: amazondynamodb/latest/developerguide/ql-iam.html. A claim is an INSERT, a release a DELETE:
#   tests/unit/test_transport.py and test_idempotency.py look at the statements.
# - discarded batches: lambda/latest/dg/kinesis-on-failure-destination.html (S3: PutObject on the objects, ListBucket on
#   the bucket). tests/unit/test_template.py: every stream has such a destination.
# - a missing object: AmazonS3/latest/API/API_GetObject.html (Permissions: without s3:ListBucket 403, not 404). What
#   a 404 means to each function: tests/unit/test_uploads_register.py, test_uploads_plan.py, test_chunks.py.
# - SendMessageBatch: AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-api-permissions-reference.html.
#   tests/unit/test_uploads_jobs.py: jobs are sent in batches.
# - lost notifications: lambda/latest/dg/invocation-async-retain-records.html (the function's role sends to the queue).
# - the pollers (Lambda reads streams and queues under the function's role), all under lambda/latest/dg:
#   services-kinesis-create.html, services-dynamodb-eventsourcemapping.html, services-sqs-configure.html. Here the jobs
#   make these calls, with the role's credentials.
# - logs and traces: lambda/latest/dg/monitoring-cloudwatchlogs.html, lambda/latest/dg/services-xray.html.
# - rds-db:connect: AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.IAMPolicy.html. tests/unit/test_database.py:
#   the token is the one that boto3 makes; test_template_variants.py: for one database, and one user.
PARTIQL = "MiniStack asks for dynamodb:BatchExecuteStatement, which is no action of AWS, instead of PartiQL's"
ON_FAILURE = "Lambda writes discarded batches, under the function's role; here the poller does, under its own"
MISSING_OBJECT = "MiniStack says 404 for a missing object, S3 403 to a caller that may not list the bucket"
SEND_BATCH = "MiniStack asks for sqs:SendMessageBatch, AWS for sqs:SendMessage"
NOTE = "a note why it waits that cannot be written is left (tests/unit/test_waiting.py): no job fails without"
LEDGER_STREAM = (
    "MiniStack does not know which stream a call of DynamoDB Streams is for; test_template_security.py looks"
)
BY_LAMBDA = (
    "Lambda writes logs and traces under the function's role; MiniStack writes logs without, and no traces"
)
LOST = "Lambda sends what a function could not handle in three attempts; MiniStack does without the role"

# And rds-db:connect, which the roles have with DatabaseAuthentication=iam: nothing here checks a token for Postgres.
NOT_CHECKED: dict[tuple[str, str, str], str] = {
    ("ConsumerFunction", "dynamodb:PartiQLInsert", "IdempotencyTable"): PARTIQL,
    ("ConsumerFunction", "dynamodb:PartiQLDelete", "IdempotencyTable"): PARTIQL,
    ("ConsumerFunction", "s3:PutObject", "DiscardedBatches"): ON_FAILURE,
    ("ConsumerFunction", "s3:ListBucket", "DiscardedBatches"): ON_FAILURE,
    ("ConsumerFunction", "dynamodb:UpdateItem", "LedgerTable"): NOTE,
    ("ChunksFunction", "dynamodb:UpdateItem", "LedgerTable"): NOTE,
    ("PlanFunction", "dynamodb:DescribeStream", "LedgerTable"): LEDGER_STREAM,
    ("PlanFunction", "dynamodb:ListStreams", "LedgerTable"): LEDGER_STREAM,
    ("PlanFunction", "dynamodb:GetShardIterator", "LedgerTable"): LEDGER_STREAM,
    ("PlanFunction", "dynamodb:GetRecords", "LedgerTable"): LEDGER_STREAM,
    ("PlanFunction", "s3:PutObject", "DiscardedBatches"): ON_FAILURE,
    ("PlanFunction", "s3:ListBucket", "DiscardedBatches"): ON_FAILURE,
    ("PlanFunction", "sqs:SendMessage", "ChunkQueue"): SEND_BATCH,
    ("RegisterFunction", "sqs:SendMessage", "LostNotificationsQueue"): LOST,
    ("RegisterFunction", "s3:ListBucket", "UploadBucket"): MISSING_OBJECT,
    ("PlanFunction", "s3:ListBucket", "UploadBucket"): MISSING_OBJECT,
    ("ChunksFunction", "s3:ListBucket", "UploadBucket"): MISSING_OBJECT,
} | {
    (f"{name}Function", action, of): BY_LAMBDA
    for name in ("Producer", "Consumer", "Migrate", "Register", "Plan", "Chunks", "Report")
    for action, of in (
        ("logs:CreateLogStream", f"{name}Logs"),
        ("logs:PutLogEvents", f"{name}Logs"),
        ("xray:PutTraceSegments", "*"),
        ("xray:PutTelemetryRecords", "*"),
    )
}

# What MiniStack asks for in the place of AWS's actions: granted besides, in a policy that the template does not have.
ASKED_INSTEAD = {
    "ConsumerFunction": "dynamodb:BatchExecuteStatement",
    "PlanFunction": "sqs:SendMessageBatch",
}


class Grain(NamedTuple):
    """One action on one resource, allowed by a role's own policy."""

    function: str
    action: str
    resource: str
    """Its ARN."""
    of: str
    """The logical id of the resource."""

    @property
    def name(self) -> tuple[str, str, str]:
        return self.function, self.action, self.of


class Roles:
    """The functions' roles, and what they allow."""

    def __init__(self, stack: Stack, jobs: Jobs) -> None:
        self._iam = stack.client("iam")
        self._jobs = jobs

    def role(self, function: str) -> str:
        return self._jobs.physical[f"{function}Role"]

    def policies(self, function: str) -> dict[str, list[dict[str, Any]]]:
        """Name → statements of each policy that the template gives the function."""
        role = self.role(function)
        found = {}
        for name in self._iam.list_role_policies(RoleName=role)["PolicyNames"]:
            if name != "asked-instead":
                document = self._iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
                found[name] = [
                    statement
                    | {"Action": _list(statement["Action"]), "Resource": _list(statement["Resource"])}
                    for statement in document["Statement"]
                ]
        return found

    def grains(self, function: str) -> list[Grain]:
        return [
            Grain(function, action, resource, self._logical(resource))
            for statements in self.policies(function).values()
            for statement in statements
            for action in statement["Action"]
            for resource in statement["Resource"]
        ]

    def attached(self, function: str) -> list[str]:
        """The managed policies of a function's role."""
        found = self._iam.list_attached_role_policies(RoleName=self.role(function))["AttachedPolicies"]
        return [each["PolicyName"] for each in found]

    def let_tests_assume(self, function: str) -> None:
        """Let the account's root, which the tests are, take the role on, as Lambda does."""
        role = self._iam.get_role(RoleName=self.role(function))["Role"]
        trust = deepcopy(role["AssumeRolePolicyDocument"])
        root = {"AWS": f"arn:aws:iam::{role['Arn'].split(':')[4]}:root"}
        trust["Statement"].append({"Effect": "Allow", "Principal": root, "Action": "sts:AssumeRole"})
        self._iam.update_assume_role_policy(RoleName=self.role(function), PolicyDocument=json.dumps(trust))

    def put(self, function: str, policies: dict[str, list[dict[str, Any]]]) -> None:
        for name, statements in policies.items():
            document = {"Version": "2012-10-17", "Statement": statements}
            self._iam.put_role_policy(
                RoleName=self.role(function), PolicyName=name, PolicyDocument=json.dumps(document)
            )

    def _logical(self, arn: str) -> str:
        if ":log-group:" in arn:
            physical = arn.split(":log-group:")[1].removesuffix(":*").rpartition("/")[2]
        else:
            physical = arn.split(":", 5)[-1].removeprefix("table/").removeprefix("stream/").split("/")[0]
        names = {value.rpartition("/")[2]: name for name, value in self._jobs.physical.items()}
        return names.get(physical, physical)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def without(policies: dict[str, list[dict[str, Any]]], grain: Grain) -> dict[str, list[dict[str, Any]]]:
    """The policies, but for one action on one resource."""
    left = deepcopy(policies)
    for statements in left.values():
        for statement in list(statements):
            if grain.action in statement["Action"] and grain.resource in statement["Resource"]:
                statements.remove(statement)
                actions = [action for action in statement["Action"] if action != grain.action]
                resources = [resource for resource in statement["Resource"] if resource != grain.resource]
                if actions:
                    statements.append(statement | {"Action": actions, "Resource": [grain.resource]})
                if resources:
                    statements.append(statement | {"Resource": resources})
        # A policy needs a statement; this one allows nothing that anybody here asks for.
        statements.append(
            {"Effect": "Allow", "Action": ["sts:DecodeAuthorizationMessage"], "Resource": ["*"]}
        )
    return left


@pytest.fixture(scope="module")
def stack(server_directory: Path) -> Iterator[Stack]:
    """The stack under enforced IAM, with a password for Postgres in Secrets Manager."""
    with Stack(server_directory / "iam", durable=False, environment={"AUTH": "true"}) as made:
        made.start()
        secret = made.client("secretsmanager").create_secret(
            Name="database", SecretString=json.dumps({"password": "not asked for here"})
        )
        made.deploy(
            {
                "DatabaseAuthentication": "secret",
                "DatabaseSecretArn": secret["ARN"],
                "ChunkBytes": CHUNK_BYTES,
                "BatchWindowSeconds": 0,
            }
        )
        yield made


@pytest.fixture(scope="module")
def jobs(stack: Stack) -> Jobs:
    """The functions' jobs. Nothing but the jobs invokes a function, until the jobs let events through."""
    found = Jobs(stack)
    found.hold_events_back()
    return found


@pytest.fixture(scope="module")
def roles(stack: Stack, jobs: Jobs) -> Roles:
    found = Roles(stack, jobs)
    for function, action in ASKED_INSTEAD.items():
        found.put(function, {"asked-instead": [{"Effect": "Allow", "Action": action, "Resource": "*"}]})
    for function in POLLED:
        found.let_tests_assume(function)
    return found


FUNCTIONS = sorted(
    name for name, each in template()["Resources"].items() if each["Type"] == "AWS::Serverless::Function"
)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_does_all_of_its_job_under_its_own_role(function: str, jobs: Jobs, roles: Roles) -> None:
    assert jobs.of[function]()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_role_has_no_policy_that_aws_or_sam_wrote(function: str, roles: Roles) -> None:
    assert roles.attached(function) == []


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_permission_is_there_for_nothing(function: str, jobs: Jobs, roles: Roles) -> None:
    policies = roles.policies(function)
    done_without = set()
    for grain in roles.grains(function):
        roles.put(function, without(policies, grain))
        if grain.action.startswith("secretsmanager:"):
            jobs.start_anew(function)
        if jobs.of[function]():
            done_without.add(grain.name)
    roles.put(function, policies)
    jobs.start_anew(function)  # one may have been taken for broken, or hold a password still
    assert done_without == {name for name in NOT_CHECKED if name[0] == function}
    assert jobs.of[function](), "the role is as it was"


class Load:
    """Records that go into the stack one way and the other, and what has become of them."""

    def __init__(self, stack: Stack, jobs: Jobs) -> None:
        self._stack = stack
        self._jobs = jobs
        self.ids: set[str] = set()

    def put_records(self, count: int) -> None:
        ids = [uuid.uuid4().hex for _ in range(count)]
        self.ids.update(ids)
        self._stack.client("kinesis").put_records(
            StreamName=self._stack.outputs["RecordStreamName"],
            Records=[{"Data": message(each), "PartitionKey": each} for each in ids],
        )

    def put_file(self, lines: int) -> None:
        key, bucket = f"{uuid.uuid4().hex}.ndjson", self._stack.outputs["UploadBucketName"]
        body = b"".join(b'{"line": %d, "text": "%b"}\n' % (line, b"x" * 50) for line in range(lines))
        etag = self._stack.client("s3").put_object(Bucket=bucket, Key=key, Body=body)["ETag"]
        upload = upload_id(bucket, key, etag)
        offsets = accumulate((len(line) for line in body.splitlines(keepends=True)), initial=0)
        self.ids.update(f"{upload}:{offset}" for offset, _ in zip(offsets, range(lines), strict=False))

    def stored(self) -> list[str]:
        connection = self._stack.postgres.connect()
        try:
            rows = connection.run("SELECT id FROM records WHERE id = ANY(:ids)", ids=list(self.ids))
        finally:
            connection.close()
        return [row[0] for row in rows]

    def all_stored(self) -> bool:
        return set(self.stored()) == self.ids


def test_an_update_with_data_in_flight_loses_nothing(stack: Stack, roles: Roles, jobs: Jobs) -> None:
    load = Load(stack, jobs)
    jobs.let_events_through()
    with StreamPoller(Clients(stack.ministack.endpoint), take_over=True) as poller:
        load.put_records(200)
        load.put_file(300)
        with ThreadPoolExecutor() as executor:
            changes = {"BatchSize": 50, "IdempotencyExpirySeconds": 2_000_000}
            update = executor.submit(stack.deploy, changes)
            while not update.done():
                load.put_records(20)
                wait([update], timeout=2)
            update.result()
        load.put_file(300)
        # MiniStack's update ends the functions that run: what they had taken comes back after the queue's 330 seconds.
        assert poller.wait_for(load.all_stored, 600), f"{len(load.ids - set(load.stored()))} are missing"
    mapping = stack.client("lambda").list_event_source_mappings(
        FunctionName=jobs.physical["ConsumerFunction"]
    )
    assert [each["BatchSize"] for each in mapping["EventSourceMappings"]] == [50]


def test_a_deleted_stack_leaves_what_is_to_be_kept(stack: Stack, jobs: Jobs) -> None:
    kept = [
        (name, each["Type"])
        for name, each in template()["Resources"].items()
        if each.get("DeletionPolicy", "").startswith("Retain") and name in jobs.physical
    ]
    assert ("LedgerTable", "AWS::DynamoDB::Table") in kept
    with Sam(stack.directory) as sam:
        sam.delete(stack.ministack.endpoint, stack.name)
    exists: dict[str, Callable[[str], Any]] = {
        "AWS::S3::Bucket": lambda name: stack.client("s3").head_bucket(Bucket=name),
        "AWS::DynamoDB::Table": lambda name: stack.client("dynamodb").describe_table(TableName=name),
        "AWS::Kinesis::Stream": lambda name: stack.client("kinesis").describe_stream_summary(StreamName=name),
    }
    for name, kind in kept:
        if kind in exists:
            exists[kind](jobs.physical[name])  # raises if it is gone
    connection = stack.postgres.connect()
    assert connection.run("SELECT count(*) > 0 FROM records") == [[True]]
    connection.close()
    left = stack.client("lambda").list_functions()["Functions"]
    assert left == [], "what is not to be kept is gone"


def test_the_template_has_no_wildcard_where_a_name_could_be() -> None:
    statements = list(_statements(template()["Resources"]))
    assert len(statements) > 10
    for statement in statements:
        assert not [action for action in _list(statement["Action"]) if "*" in action], statement
        for resource in _list(statement["Resource"]):
            if resource == "*":
                # X-Ray and network interfaces: the service knows no resource that could be named.
                assert {action.split(":")[0] for action in _list(statement["Action"])} <= {"xray", "ec2"}
                continue
            # The objects of a bucket; anything else is named whole.
            arn = resource[0] if isinstance(resource, list) else resource
            assert "*" not in str(arn).removesuffix("/*"), statement


def _statements(part: Any) -> Iterator[dict[str, Any]]:
    """The statements of the functions' own policies, wherever conditions have put them."""
    if isinstance(part, dict):
        if part.get("Effect") == "Allow" and "Principal" not in part:
            yield part
        for value in part.values():
            yield from _statements(value)
    elif isinstance(part, list):
        for value in part:
            yield from _statements(value)
