"""Records ``events/``: what each function is really handed, taken from the running stack. ``make events`` runs it.

Every function is told to log its events (``POWERTOOLS_LOGGER_LOG_EVENT``, Powertools' own switch); then records are
sent, files uploaded and jobs queued, good ones and bad ones, and the events are read back from the logs. Nothing in
``events/`` is typed by hand.
"""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.httpsession import URLLib3Session

from lambda_esm import Clients, MemoryCheckpoints, StreamPoller
from local.errors import StackError
from local.machine import REPOSITORY
from local.metrics import messages
from local.ministack import CREDENTIALS, REGION
from local.records import flights
from local.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable

EVENTS = REPOSITORY / "events"
LOG_SECONDS = 30.0
"""How long an event may take to appear in a log."""


class Recorder:
    """Runs scenes on a stack and writes down what the functions were handed."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self._stack = stack
        self._directory = directory
        self._checkpoints = MemoryCheckpoints()
        self._seen: dict[str, int] = {}
        for name in ("Producer", "Consumer", "Register", "Plan", "Chunks", "Report", "Migrate"):
            self._log_events(self._function(name))

    def scene(
        self,
        title: str,
        function: str,
        act: Callable[[], object],
        *,
        wanted: Callable[[dict[str, Any]], bool] = lambda event: True,
    ) -> dict[str, Any]:
        """Do ``act``, let the streams drain, and save the last event that ``function`` got and that is wanted."""
        self._new_events(function)
        act()
        event = self._wait_for_event(function, wanted)
        path = self._directory / f"{title}.json"
        path.write_text(json.dumps(event, indent=2, ensure_ascii=False) + "\n")
        print(f"  {path.relative_to(REPOSITORY)}")
        return event

    def invoke(self, function: str, payload: object) -> None:
        """Invoke a function directly."""
        self._stack.client("lambda").invoke(
            FunctionName=self._function(function), Payload=json.dumps(payload).encode()
        )

    def post(self, body: bytes) -> None:
        """POST to the HTTP API, signed."""
        request = AWSRequest(
            "POST", self._stack.api_url, data=body, headers={"Content-Type": "application/json"}
        )
        keys = Credentials(CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"])
        SigV4Auth(keys, "execute-api", REGION).add_auth(request)
        URLLib3Session().send(request.prepare())

    def put_records(self, *bodies: bytes) -> None:
        """Put bodies on the stream, all of one partition key, so that they come in one batch."""
        self._stack.client("kinesis").put_records(
            StreamName=self._stack.outputs["RecordStreamName"],
            Records=[{"Data": body, "PartitionKey": "JFK"} for body in bodies],
        )

    def put_object(self, key: str, body: bytes, **metadata: str) -> None:
        """Put a file into the upload bucket."""
        self._stack.client("s3").put_object(
            Bucket=self._stack.outputs["UploadBucketName"], Key=key, Body=body, Metadata=metadata
        )

    def send_job(self, body: str) -> None:
        """Put a message on the queue of chunk jobs."""
        self._stack.client("sqs").send_message(
            QueueUrl=self._stack.outputs["ChunkQueueUrl"], MessageBody=body
        )

    def without_filter(self, function: str) -> None:
        """Have the stream mapping of ``function`` deliver everything, so that what the code ignores is seen."""
        client = self._stack.client("lambda")
        for mapping in client.list_event_source_mappings(FunctionName=self._function(function))[
            "EventSourceMappings"
        ]:
            client.update_event_source_mapping(UUID=mapping["UUID"], FilterCriteria={"Filters": []})

    def delete_upload(self, upload: str) -> None:
        """Remove an upload's entry from the ledger."""
        self._stack.client("dynamodb").delete_item(
            TableName=self._stack.outputs["LedgerTableName"],
            Key={"upload": {"S": upload}, "item": {"S": "upload"}},
        )

    def _function(self, name: str) -> str:
        resources = self._stack.client("cloudformation").describe_stack_resource(
            StackName=self._stack.name, LogicalResourceId=f"{name}Function"
        )
        return str(resources["StackResourceDetail"]["PhysicalResourceId"])

    def _log_events(self, function: str) -> None:
        client = self._stack.client("lambda")
        variables = client.get_function_configuration(FunctionName=function)["Environment"]["Variables"]
        client.update_function_configuration(
            FunctionName=function,
            Environment={"Variables": variables | {"POWERTOOLS_LOGGER_LOG_EVENT": "true"}},
        )

    def _wait_for_event(self, function: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        give_up = time.monotonic() + LOG_SECONDS
        while time.monotonic() < give_up:
            with StreamPoller(
                Clients(self._stack.ministack.endpoint), checkpoints=self._checkpoints, take_over=True
            ) as poller:
                poller.wait_until_drained(LOG_SECONDS)
            if found := [event for event in self._new_events(function) if wanted(event)]:
                return found[-1]
            time.sleep(0.2)
        raise StackError(f"The {function} function logged no such event in {LOG_SECONDS:.0f} seconds.")

    def _new_events(self, function: str) -> list[dict[str, Any]]:
        """The events logged since the last call."""
        found = []
        for line in messages(self._stack.client("logs"), function.lower()):
            try:
                logged = json.loads(line)
            except ValueError:
                continue
            # The event is the message itself; every other message is a text.
            if isinstance(logged, dict) and isinstance(logged.get("message"), dict):
                found.append(logged["message"])
        before, self._seen[function] = self._seen.get(function, 0), len(found)
        return found[before:]


def record(directory: Path = EVENTS) -> None:
    """Record all events into ``directory``."""
    directory.mkdir(exist_ok=True)
    rows = list(itertools.islice(flights(), 20))
    records = [
        {"id": f"flight-{number}", "partition_key": "JFK", "payload": row} for number, row in enumerate(rows)
    ]
    bodies = [json.dumps(each).encode() for each in records]
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)

    with Stack(REPOSITORY / ".local" / "events", durable=False) as stack:
        stack.deploy({"BatchWindowSeconds": 0})
        on = Recorder(stack, directory)

        on.scene("producer-normal", "Producer", lambda: on.invoke("Producer", {"records": records[:3]}))
        on.scene(
            "producer-duplicates", "Producer", lambda: on.invoke("Producer", {"records": records[:3] * 2})
        )
        on.scene(
            "producer-poison",
            "Producer",
            lambda: on.invoke("Producer", {"records": _poison_objects(records)}),
        )
        on.scene(
            "producer-http-normal",
            "Producer",
            lambda: on.post(json.dumps({"records": records[3:5]}).encode()),
        )
        on.scene("producer-http-not-json", "Producer", lambda: on.post(b'{"records": ['))

        on.scene("consumer-normal", "Consumer", lambda: on.put_records(*bodies[5:10]))
        on.scene("consumer-duplicates", "Consumer", lambda: on.put_records(*bodies[10:13], *bodies[10:13]))
        on.scene(
            "consumer-poison", "Consumer", lambda: on.put_records(bodies[13], *_poison_bodies(), bodies[14])
        )

        on.scene("register-normal", "Register", lambda: on.put_object("flights.ndjson", lines))
        on.scene("register-duplicates", "Register", lambda: on.put_object("flights.ndjson", lines))
        on.scene("register-poison", "Register", lambda: on.put_object("a folder/", b""))
        on.scene(
            "register-encoded-key",
            "Register",
            lambda: on.put_object("Flüge 2013 + more.csv", b"a,b\r\n1,2\r\n"),
        )

        insert = on.scene("plan-normal", "Plan", lambda: on.put_object("planned.ndjson", lines))
        upload = insert["Records"][0]["dynamodb"]["Keys"]["upload"]["S"]
        on.without_filter("Plan")
        on.scene(
            "plan-modify",
            "Plan",
            lambda: on.put_object("modified.ndjson", lines),
            # Planning an upload makes an INSERT (of the plan) and a MODIFY (of the upload).
            wanted=lambda event: event["Records"][-1]["eventName"] == "MODIFY",
        )
        on.scene("plan-remove", "Plan", lambda: on.delete_upload(upload))

        job = on.scene("chunks-normal", "Chunks", lambda: on.put_object("chunked.ndjson", lines))
        on.scene("chunks-duplicates", "Chunks", lambda: on.send_job(job["Records"][0]["body"]))
        bad_lines = lines[:1000] + b'\nnot JSON\n{"text": "\\u0000"}\n\xff\xfe\n'
        on.scene("chunks-poison-lines", "Chunks", lambda: on.put_object("poison.ndjson", bad_lines))
        on.scene("chunks-poison", "Chunks", lambda: on.send_job("not a chunk job"))

        on.scene("report-normal", "Report", lambda: on.invoke("Report", {"account": upload}))
        on.scene("report-poison", "Report", lambda: on.invoke("Report", {"question": "none that it knows"}))
        on.scene("migrate-normal", "Migrate", lambda: on.invoke("Migrate", {}))


def _poison_objects(records: list[dict[str, Any]]) -> list[object]:
    good = records[0]
    return [
        good,
        "not an object",
        {"id": "no-payload"},
        good | {"id": 5},
        good | {"id": "nul", "payload": {"text": "\x00"}},
        good | {"id": "x" * 10_000},
        good | {"id": "unknown-field", "colour": "green"},
        good | {"id": "oversized", "payload": {"text": "x" * 1_100_000}},
        records[1],
    ]


def _poison_bodies() -> list[bytes]:
    return [
        b"not JSON",
        b"\xff\xfe not UTF-8",
        b'{"valid": "JSON", "of": "the wrong shape"}',
        b'{"id": "nul", "partition_key": "JFK", "payload": {"text": "\\u0000"}}',
        b"",
        json.dumps({"id": "x" * 10_000, "partition_key": "JFK", "payload": {}}).encode(),
    ]


if __name__ == "__main__":
    record()
