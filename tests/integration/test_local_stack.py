"""The whole local stack: what is there after a deploy, how failures read, and the stack in the background."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local import background, sam
from local.errors import StackError
from local.machine import LOOPBACK
from local.ministack import REGION
from local.sam import Sam
from local.stack import STATE, STEPS, Stack, lock
from tests.ended import all_end


def test_the_template_is_deployed_with_its_outputs(deployed: Stack) -> None:
    assert deployed.outputs["RecordStreamName"] in deployed.client("kinesis").list_streams()["StreamNames"]
    assert deployed.outputs["IdempotencyTableName"] in deployed.client("dynamodb").list_tables()["TableNames"]


def test_the_database_is_migrated_by_the_deploy(deployed: Stack) -> None:
    connection = deployed.postgres.connect()
    tables = connection.run("SELECT tablename, tableowner FROM pg_tables WHERE schemaname = 'public'")
    connection.close()
    assert {("records", "oncestream"), ("rejected_records", "oncestream")} <= set(map(tuple, tables))


def test_the_functions_reach_the_database_as_the_stack_says(deployed: Stack) -> None:
    name = deployed.outputs["ConsumerFunctionName"]
    configuration = deployed.client("lambda").get_function_configuration(FunctionName=name)
    variables = configuration["Environment"]["Variables"]
    settings = deployed.database
    assert settings.database_host == variables["DATABASE_HOST"] == LOOPBACK
    assert settings.database_port == int(variables["DATABASE_PORT"]) == deployed.postgres.port
    assert settings.database_name == variables["DATABASE_NAME"]
    assert settings.database_user == variables["DATABASE_USER"]
    assert settings.database_authentication == variables["DATABASE_AUTHENTICATION"] == "trust"
    assert settings.database_tls == variables["DATABASE_TLS"] == "disable"


def post(url: str, body: bytes, *, signed: bool) -> tuple[int, str]:
    request = AWSRequest("POST", url, data=body, headers={"content-type": "application/json"})
    if signed:
        SigV4Auth(Credentials("test", "test"), "execute-api", REGION).add_auth(request)
    try:
        prepared = urllib.request.Request(url, body, dict(request.headers))
        with urllib.request.urlopen(prepared, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_api_answers_at_the_url_of_the_stack_to_those_who_sign(deployed: Stack) -> None:
    status, body = post(deployed.api_url, b"not JSON", signed=True)
    assert (status, "not JSON" in body) == (400, True)
    assert post(deployed.api_url, b"not JSON", signed=False)[0] == 403


def test_a_directory_in_use_is_refused_to_a_second_stack(deployed: Stack) -> None:
    with pytest.raises(StackError, match=f"Another stack uses {deployed.directory}"):
        Stack(deployed.directory).deploy()
    assert deployed.is_running


def test_nothing_is_left_of_sams_temporary_files(deployed: Stack) -> None:
    names = {entry.name for entry in deployed.directory.iterdir()}
    assert names == {"build", "build.toml", "lock", "ministack", "postgres", "sam.log"}


def test_a_build_that_fails_shows_the_end_of_its_output_and_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = (
        "Transform: AWS::Serverless-2016-10-31\nResources:\n  Nothing: {Type: AWS::Serverless::Function}\n"
    )
    (tmp_path / "template.yaml").write_text(template)
    monkeypatch.setattr(sam, "REPOSITORY", tmp_path)
    with Sam(tmp_path) as program:
        program.start_build()
        with pytest.raises(StackError) as raised:
            program.finish_build()
    message = str(raised.value)
    assert message.startswith("`sam build` failed (exit status 1). The end of its log, ")
    assert str(tmp_path / "sam.log") in message
    assert "Could not find handler for function: Nothing" in message


def test_a_deploy_that_fails_shows_the_end_of_its_output(deployed: Stack, tmp_path: Path) -> None:
    (tmp_path / "build").symlink_to(deployed.build)
    with Sam(tmp_path) as program, pytest.raises(StackError, match=r"`sam deploy` failed \(exit status 1\)"):
        program.deploy("http://127.0.0.1:9", "oncestream", {"DatabaseHost": LOOPBACK})


def test_a_stack_in_the_background_runs_until_it_is_stopped(server_directory: Path) -> None:
    directory = server_directory / "background"
    assert background.running(directory) is None
    steps: list[str] = []
    state = background.start(
        directory, durable=False, progress=lambda step, seconds: steps.append(step) if seconds else None
    )
    assert set(steps) == set(STEPS)
    assert background.running(directory) == state
    assert background.start(directory) == state  # at once: nothing is started again

    mappings = state.client("lambda").list_event_source_mappings(
        FunctionName=state.outputs["ConsumerFunctionName"]
    )
    assert [mapping["BatchSize"] for mapping in mappings["EventSourceMappings"]] == [1000]

    supervisor = psutil.Process(state.pid)
    with all_end([state.pid, *(process.pid for process in supervisor.children(recursive=True))]):
        assert background.stop(directory)
    assert background.running(directory) is None
    assert not background.stop(directory)


def test_a_stack_that_cannot_be_started_in_the_background_says_why(server_directory: Path) -> None:
    directory = server_directory / "not-started"
    with pytest.raises(StackError, match="MiniStack cannot listen on port 0"):
        background.start(directory, ministack_port=0)
    assert background.running(directory) is None


def test_the_state_of_a_killed_supervisor_counts_for_nothing(tmp_path: Path) -> None:
    state = background.StackState(1, "http://127.0.0.1:9", {}, {}, "")
    with lock(tmp_path):
        (tmp_path / STATE).write_text(background.dump(state))
        assert background.running(tmp_path) == state
    assert background.running(tmp_path) is None
    assert not background.stop(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_a_state_file_that_cannot_be_read_counts_for_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / STATE).write_text(text)
    assert background.running(tmp_path) is None
