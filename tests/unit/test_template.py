"""template.yaml, the code and the documents name the same things."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from common import observability
from common.settings import (
    ChunksSettings,
    ConsumerSettings,
    DatabaseSettings,
    PlanSettings,
    ProducerSettings,
    RegisterSettings,
    ReportSettings,
    Settings,
)
from local.stack import Stack
from tests.unit.uploads_aws import template

REPOSITORY = Path(__file__).resolve().parents[2]
TEMPLATE = template()
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]
PARAMETERS: dict[str, Any] = TEMPLATE["Parameters"]
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]

SETTINGS: dict[str, type[Settings]] = {
    "ProducerFunction": ProducerSettings,
    "ConsumerFunction": ConsumerSettings,
    "MigrateFunction": DatabaseSettings,
    "RegisterFunction": RegisterSettings,
    "PlanFunction": PlanSettings,
    "ChunksFunction": ChunksSettings,
    "ReportFunction": ReportSettings,
}
METRICS = {value for name, value in vars(observability).items() if name.isupper() and isinstance(value, str)}

# The metrics of AWS that the template may name, by namespace and dimension, from the documentation of each service, all
# at docs.aws.amazon.com: lambda/latest/dg/monitoring-metrics-types.html,
# streams/latest/dg/monitoring-with-cloudwatch.html,
# AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html,
# amazondynamodb/latest/developerguide/metrics-dimensions.html,
# AmazonRDS/latest/AuroraUserGuide/Aurora.AuroraMonitoring.Metrics.html, AmazonRDS/latest/UserGuide/rds-metrics.html.
# As of 2026-11-21.
DOCUMENTED = {
    ("AWS/Lambda", "FunctionName"): {
        *(
            "IteratorAge",
            "Errors",
            "Throttles",
            "Duration",
            "ConcurrentExecutions",
            "DestinationDeliveryFailures",
        ),
    },
    ("AWS/Lambda", "EventSourceMappingUUID"): {"OnFailureDestinationDeliveredEventCount"},
    ("AWS/SQS", "QueueName"): {"ApproximateNumberOfMessagesVisible"},
    ("AWS/Kinesis", "StreamName"): {"WriteProvisionedThroughputExceeded"},
    ("AWS/DynamoDB", "TableName"): {"WriteThrottleEvents"},
    ("AWS/RDS", "DBClusterIdentifier"): {"DatabaseConnections"},
    ("AWS/RDS", "DBInstanceIdentifier"): {"DatabaseConnections"},
}

type Named = tuple[str, str, str, str]
"""A metric: namespace, name, the dimension's name, its value."""


def of_type(kind: str) -> dict[str, Any]:
    return {name: each for name, each in RESOURCES.items() if each["Type"] == kind}


FUNCTIONS = of_type("AWS::Serverless::Function")
ALARMS = of_type("AWS::CloudWatch::Alarm")


def variables(function: str) -> set[str]:
    everywhere: dict[str, Any] = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
    return {*everywhere, *FUNCTIONS[function]["Properties"]["Environment"]["Variables"]}


def service(function: str) -> str:
    name: str = FUNCTIONS[function]["Properties"]["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"]
    return name


def words(document: Path) -> set[str]:
    """What a document sets as code, word by word; without the blocks, which are whole programs."""
    prose = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    return {word for code in re.findall(r"`([^`]+)`", prose) for word in re.findall(r"[A-Za-z_][\w]*", code)}


# --- environment variables


def test_every_function_has_its_settings() -> None:
    assert set(FUNCTIONS) == set(SETTINGS)


@pytest.mark.parametrize("function", sorted(SETTINGS))
def test_a_function_finds_what_it_must_have_and_knows_what_it_is_given(function: str) -> None:
    fields = SETTINGS[function].model_fields
    given = {name for name in variables(function) if not name.startswith("POWERTOOLS_")}
    required = {name.upper() for name, field in fields.items() if field.is_required()}
    assert required <= given
    everyone = {name.upper() for name in DatabaseSettings.model_fields}  # from Globals
    assert given <= {name.upper() for name in fields} | everyone


def test_what_the_parameters_allow_is_what_the_settings_allow() -> None:
    for name, parameter in (
        ("database_authentication", "DatabaseAuthentication"),
        ("database_tls", "DatabaseTls"),
    ):
        annotation = DatabaseSettings.model_fields[name].annotation
        assert set(get_args(annotation)) == set(PARAMETERS[parameter]["AllowedValues"])


def test_the_default_of_an_expiry_is_the_same_in_code_and_template() -> None:
    for settings in (ConsumerSettings, ChunksSettings):
        default = settings.model_fields["idempotency_expiry_seconds"].default
        assert default == PARAMETERS["IdempotencyExpirySeconds"]["Default"]


# --- times that hang together


def test_no_choice_of_parameters_lets_a_record_expire_unseen_or_be_forgotten_too_soon() -> None:
    # CloudFormation's rules cannot compare numbers, so the ranges make it impossible.
    retention = PARAMETERS["StreamRetentionHours"]
    assert PARAMETERS["MaximumRecordAgeSeconds"]["MaxValue"] <= retention["MinValue"] * 3600 - 3600
    assert PARAMETERS["IdempotencyExpirySeconds"]["MinValue"] >= retention["MaxValue"] * 3600


def test_a_chunk_job_stays_hidden_longer_than_its_function_may_run() -> None:
    hidden = RESOURCES["ChunkQueue"]["Properties"]["VisibilityTimeout"]
    assert hidden >= FUNCTIONS["ChunksFunction"]["Properties"]["Timeout"]


# --- parameters, conditions, rules


def test_every_parameter_is_described_grouped_once_and_used() -> None:
    groups = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    grouped = [name for group in groups for name in group["Parameters"]]
    assert sorted(grouped) == sorted(PARAMETERS)
    text = (REPOSITORY / "template.yaml").read_text().split("\nGlobals:", 1)
    for name, parameter in PARAMETERS.items():
        assert parameter["Description"].endswith("."), name
        used = re.search(rf"!Ref {name}\b|\$\{{{name}\}}", text[1])
        in_condition = re.search(rf"!Ref {name}\b", text[0].split("\nConditions:")[1])
        assert used or in_condition, name


def test_every_message_of_a_rule_names_the_parameters_that_its_assertion_is_about() -> None:
    for rule in TEMPLATE["Rules"].values():
        for assertion in rule["Assertions"]:
            about = {
                word for word in re.findall(r"\w+", json.dumps(assertion["Assert"])) if word in PARAMETERS
            }
            assert about
            assert all(name in assertion["AssertDescription"] for name in about)


def test_the_local_stack_sets_parameters_that_exist() -> None:
    source = (REPOSITORY / "local" / "stack.py").read_text()
    assert Stack
    assert set(re.findall(r'"(Database[A-Za-z]+)":', source)) <= set(PARAMETERS)


# --- outputs


def test_every_output_that_the_code_asks_for_exists() -> None:
    asked = set()
    for path in [*(REPOSITORY / "cli").glob("*.py"), *(REPOSITORY / "local").glob("*.py")]:
        asked |= set(re.findall(r'(?:\.output\(|outputs\[)"(\w+)"', path.read_text()))
    assert asked
    assert asked <= set(TEMPLATE["Outputs"])
    assert all(output["Description"].endswith(".") for output in TEMPLATE["Outputs"].values())


# --- metrics


def alarm_metrics() -> Iterator[Named]:
    for alarm in ALARMS.values():
        properties = alarm["Properties"]
        [dimension] = properties["Dimensions"]
        yield properties["Namespace"], properties["MetricName"], dimension["Name"], str(dimension["Value"])


def dashboard() -> dict[str, Any]:
    body: dict[str, Any] = json.loads(RESOURCES["Dashboard"]["Properties"]["DashboardBody"])
    return body


def dashboard_metrics() -> Iterator[Named]:
    for widget in dashboard()["widgets"]:
        for metric in widget["properties"].get("metrics", []):
            namespace, name, dimension, value, *_ = metric
            yield namespace, name, dimension, value


@pytest.mark.parametrize("named", sorted({*alarm_metrics(), *dashboard_metrics()}), ids=" ".join)
def test_every_metric_that_is_watched_is_emitted(named: Named) -> None:
    namespace, name, dimension, value = named
    if namespace.startswith("AWS/"):
        assert name in DOCUMENTED[namespace, dimension]
        assert re.sub(r"[${}]|\.QueueName", "", value) in {
            *RESOURCES,
            *mappings(),
            "DatabaseInstanceIdentifier",
        }
        return
    assert (
        namespace
        == TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]["POWERTOOLS_METRICS_NAMESPACE"]
    )
    assert dimension == "service"
    assert name in emitted(value)


def mappings() -> set[str]:
    """The logical ids of the event source mappings that SAM makes: the function's and the event's."""
    return {
        function + event
        for function, each in FUNCTIONS.items()
        for event, source in each["Properties"].get("Events", {}).items()
        if source["Type"] in ("Kinesis", "DynamoDB", "SQS")
    }


def test_mappings_whose_events_are_counted_say_so() -> None:
    counted = {value for _, _, dimension, value in alarm_metrics() if dimension == "EventSourceMappingUUID"}
    assert counted
    for function, each in FUNCTIONS.items():
        for event, source in each["Properties"].get("Events", {}).items():
            if function + event in counted:
                assert "EventCount" in source["Properties"]["MetricsConfig"]["Metrics"]


def emitted(name: str) -> set[str]:
    """The metrics that the modules of a function emit: its handler's package names them."""
    [function] = [each for each in FUNCTIONS if service(each) == name]
    module = FUNCTIONS[function]["Properties"]["Handler"].rpartition(".")[0]
    constants = {
        each: value
        for each, value in vars(observability).items()
        if each.isupper() and isinstance(value, str)
    }
    seen: set[str] = set()
    # The consumer's are in the module that reports; the others' are in the handler's own.
    for source in {module, "consumer.report"} if name == "consumer" else {module}:
        tree = ast.parse((REPOSITORY / "src" / (source.replace(".", "/") + ".py")).read_text())
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        seen |= {constants[each] for each in names & set(constants)}
    return seen


def test_every_metric_that_is_emitted_is_on_the_dashboard_or_told_why_not() -> None:
    shown = {name for _, name, _, _ in dashboard_metrics()}
    # Duplicates of uploads and of chunk jobs are ordinary and lose nothing; the records' are shown.
    assert METRICS - shown == {"DuplicateUploadsSkipped", "DuplicateChunksSkipped"}


RINGS = {
    *("RecordsRetried", "RecordsRejected", "RecordsConflicting"),
    *("UploadsFailed", "ChunksFailed", "NotificationsRefused"),
}
"""What a person has to hear of."""
DOES_NOT_RING = {
    # What goes well.
    *("RecordsReceived", "RecordsInserted", "RecordsPublished"),
    *("UploadsRegistered", "ChunkJobsSent", "ChunksPublished"),
    # What comes twice, and loses nothing.
    *("DuplicatesSkipped", "DuplicateUploadsSkipped", "DuplicateChunksSkipped"),
    # The caller is told in the answer.
    *("RecordsNotPublished", "RequestsRefused"),
    # What goes on for long ends at an alarm: the dead-letter queue's.
    "ChunksRetried",
    # Lines of files end in the table of rejected records, as the account of the upload says.
    "LinesRejected",
}


def test_every_metric_rings_or_has_a_reason_not_to() -> None:
    assert RINGS | DOES_NOT_RING == METRICS
    watched = {(name, value) for namespace, name, _, value in alarm_metrics() if "Oncestream" in namespace}
    assert {name for name, _ in watched} == RINGS
    # Each from every function that puts it out; of the records, the producer tells its caller.
    putting_out = {(name, service(each)) for each in FUNCTIONS for name in emitted(service(each)) & RINGS}
    assert watched == putting_out - {("RecordsRejected", "producer")}


def test_every_function_that_fails_as_a_whole_rings() -> None:
    watched = {value for _, name, dimension, value in alarm_metrics() if name == "Errors"}
    assert watched == set(FUNCTIONS)


def test_every_alarm_tells_both_the_topic_and_the_address_and_has_its_section() -> None:
    sections = set(
        re.findall(r"^## (\w+Alarm)$", (REPOSITORY / "docs" / "operate.md").read_text(), re.MULTILINE)
    )
    assert sections == set(ALARMS)
    for name, alarm in ALARMS.items():
        properties = alarm["Properties"]
        assert (
            properties["AlarmActions"]
            == properties["OKActions"]
            == ALARMS["RecordsLateAlarm"]["Properties"]["AlarmActions"]
        )
        assert f"docs/operate.md, {name}." in properties["AlarmDescription"]


# --- what holds data


def test_what_holds_data_outlives_the_stack_and_is_encrypted() -> None:
    for name in ("UploadBucket", "DiscardedBatches", "LedgerTable"):
        assert RESOURCES[name]["DeletionPolicy"] == RESOURCES[name]["UpdateReplacePolicy"] == "Retain"
    assert RESOURCES["DatabaseCluster"]["DeletionPolicy"] == "Snapshot"
    for table in of_type("AWS::DynamoDB::Table").values():
        assert table["Properties"]["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
        assert table["Properties"]["SSESpecification"]["SSEEnabled"] is True
        assert table["Properties"]["DeletionProtectionEnabled"] == "TableDeletionProtection"
    assert RESOURCES["RecordStream"]["Properties"]["StreamEncryption"]["EncryptionType"] == "KMS"
    assert RESOURCES["DatabaseCluster"]["Properties"]["StorageEncrypted"] is True


def test_every_bucket_is_private_encrypted_and_speaks_tls_only() -> None:
    policies = {
        each["Properties"]["Bucket"]: each["Properties"] for each in of_type("AWS::S3::BucketPolicy").values()
    }
    for name, bucket in of_type("AWS::S3::Bucket").items():
        assert all(bucket["Properties"]["PublicAccessBlockConfiguration"].values())
        assert bucket["Properties"]["BucketEncryption"]
        [statement] = policies[name]["PolicyDocument"]["Statement"]
        assert (statement["Effect"], statement["Condition"]) == (
            "Deny",
            {"Bool": {"aws:SecureTransport": "false"}},
        )


def test_every_function_has_a_log_group_that_forgets() -> None:
    groups = of_type("AWS::Logs::LogGroup")
    for function, each in FUNCTIONS.items():
        group = groups[each["Properties"]["LoggingConfig"]["LogGroup"]]["Properties"]
        assert group["LogGroupName"] == f"/aws/lambda/${{AWS::StackName}}/{service(function)}"
    assert all(each["Properties"]["RetentionInDays"] == "LogRetentionDays" for each in groups.values())


def test_every_stream_keeps_what_it_gives_up() -> None:
    for function in FUNCTIONS.values():
        for source in function["Properties"].get("Events", {}).values():
            if source["Type"] in ("Kinesis", "DynamoDB"):
                assert source["Properties"]["DestinationConfig"]["OnFailure"]["Type"] == "S3"
                assert source["Properties"]["MaximumRetryAttempts"] == -1


# --- the database


def test_the_authorities_of_rds_are_shipped_and_readable_as_python_reads_them() -> None:
    import ssl

    path = REPOSITORY / "src" / PARAMETERS["DatabaseCaFile"]["Default"]
    context = ssl.create_default_context(cafile=path)
    assert context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.cert_store_stats()["x509_ca"] >= 81
    assert "us-east-1 Root CA RSA2048 G1" in path.read_text()


def test_only_functions_that_use_the_database_are_put_beside_it() -> None:
    beside = {name for name, each in FUNCTIONS.items() if "VpcConfig" in each["Properties"]}
    assert beside == {name for name, settings in SETTINGS.items() if issubclass(settings, DatabaseSettings)}


def test_the_network_that_the_stack_makes_exists_only_with_its_database() -> None:
    for name, each in RESOURCES.items():
        if each["Type"].startswith(("AWS::EC2::", "AWS::RDS::")):
            assert each["Condition"] == "MakesDatabase", name


# --- documents


def test_what_the_documents_name_exists() -> None:
    known = {
        *PARAMETERS,
        *TEMPLATE["Outputs"],
        *RESOURCES,
        *METRICS,
        *TEMPLATE["Conditions"],
        *TEMPLATE["Rules"],
    }
    known |= {name for function in FUNCTIONS for name in variables(function)}
    known |= {name.upper() for settings in SETTINGS.values() for name in settings.model_fields}
    known |= set().union(*DOCUMENTED.values())
    known |= classes()
    # Only words that are formed like a name of one of these kinds can be wrong ones.
    ours = re.compile(
        r"(Database|Aurora|Stream|Chunk|Alarm|Log|Stuck|Maximum|Idempotency|Batch|Parallelization|Consumer|Records)[A-Z]\w+"
        r"|(DATABASE|IDEMPOTENCY|CHUNK|LEDGER|STREAM|UPLOAD|STUCK)_[A-Z_]+"
    )
    strange = {
        (document.name, word)
        for document in DOCUMENTS
        for word in words(document)
        if ours.fullmatch(word) and word not in known and word not in SAID_OF_OTHERS
    }
    assert not strange


def classes() -> set[str]:
    """The names of classes in the code."""
    found: set[str] = set()
    for directory in ("src", "local", "cli", "bench"):
        for path in (REPOSITORY / directory).rglob("*.py"):
            found |= set(re.findall(r"^ *class (\w+)", path.read_text(), re.MULTILINE))
    return found


SAID_OF_OTHERS = {
    "BatchExecuteStatement", "BatchGetItem", "BatchWriteItem", "MaximumRetryAttempts", "MaximumConcurrency",
    "MaximumRecordAgeInSeconds", "BatchProcessor", "StreamPoller",
}  # fmt: skip
"""Names of AWS and of Powertools that look like ours."""


def test_every_parameter_is_in_the_deployment_guide() -> None:
    described = words(REPOSITORY / "docs" / "deploy.md")
    assert set(PARAMETERS) <= described


def test_samconfig_has_the_environments_default_and_local() -> None:
    import tomllib

    config = tomllib.loads((REPOSITORY / "samconfig.toml").read_text())
    assert set(config) == {"version", "default", "local"}


def test_the_table_of_costs_is_what_the_script_computes() -> None:
    from bench.cost import table

    assert table() in (REPOSITORY / "docs" / "deploy.md").read_text()


def test_the_costs_count_what_the_stack_has() -> None:
    from bench import cost

    assert len([alarm for alarm in ALARMS.values() if "Condition" not in alarm]) == cost.ALARMS
    shown = {
        (name, value)
        for namespace, name, _, value in dashboard_metrics()
        if namespace.startswith("Oncestream")
    }
    assert len(shown) == cost.METRICS
    measured = re.search(
        r"^\| write units a new record \| (\d+) \|", (REPOSITORY / "docs/performance.md").read_text(), re.M
    )
    assert measured
    assert int(measured[1]) == cost.WRITE_UNITS
    assert PARAMETERS["ChunkBytes"]["Default"] == cost.CHUNK_BYTES
    assert PARAMETERS["IdempotencyExpirySeconds"]["Default"] == cost.REMEMBERED_DAYS * 86400
