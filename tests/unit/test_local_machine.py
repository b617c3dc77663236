"""What a person reads when the machine is not as the local stack needs it."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import machine
from local.errors import StackError
from local.ministack import MiniStack, client
from local.stack import Stack, lock


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture
def no_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tools = tmp_path / "tools"
    monkeypatch.setattr(machine, "TOOLS", tools)
    return tools


@pytest.fixture
def tools(no_tools: Path) -> Path:
    for name, program in (("ministack", "python"), ("sam", "sam")):
        (no_tools / name / "bin").mkdir(parents=True)
        (no_tools / name / ".ready").touch()
        (no_tools / name / "bin" / program).touch(mode=0o755)
    return no_tools


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=12_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def test_a_free_port_can_be_listened_on() -> None:
    port = machine.free_port()
    machine.require_free_port(port, "Postgres")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        assert listener.getsockname() == ("127.0.0.1", port)


def test_a_port_in_use_is_named_with_who_wants_it_and_how_to_find_who_has_it(taken_port: int) -> None:
    with pytest.raises(StackError) as raised:
        machine.require_free_port(taken_port, "MiniStack")
    message = str(raised.value)
    assert f"Port {taken_port} is in use, so MiniStack cannot listen on 127.0.0.1:{taken_port}" in message
    assert f"ss -ltnp 'sport = :{taken_port}'" in message


@pytest.mark.parametrize("port", [0, -1, 65536, 4566000])
def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(StackError, match=f"port {port}: ports go from 1 to 65535"):
        machine.require_free_port(port, "Postgres")


def test_an_address_that_this_machine_does_not_have_is_refused() -> None:
    with pytest.raises(StackError, match=r"Postgres cannot listen on 192\.0\.2\.1:5432"):
        machine.require_free_port(5432, "Postgres", "192.0.2.1")


def test_too_little_space_is_said_with_both_figures(tmp_path: Path, full_disk: None) -> None:
    with pytest.raises(StackError, match=r"disk is full: .* needs about 1,000 MB, and 12 MB are free"):
        machine.require_space(tmp_path / "not" / "made" / "yet", 1_000_000_000)


def test_enough_space_passes(tmp_path: Path) -> None:
    machine.require_space(tmp_path / "not" / "made" / "yet", 1)
    assert list(tmp_path.iterdir()) == [], "asking makes no directory"


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "The disk is full"),
        (errno.EDQUOT, "The disk is full"),
        (errno.EACCES, "Make it writable"),
    ],
)
def test_an_error_of_the_file_system_becomes_a_sentence(number: int, sentence: str, tmp_path: Path) -> None:
    error = machine.directory_error(OSError(number, os.strerror(number), "/some/file"), tmp_path)
    assert sentence in str(error)
    assert "/some/file" in str(error)


def test_a_failed_program_shows_the_end_of_its_log_and_where_it_is(tmp_path: Path) -> None:
    log = tmp_path / "sam.log"
    log.write_text("".join(f"line {number}\n" for number in range(1, 100)))
    message = str(machine.failure("`sam build` failed.", log, lines=2))
    assert message == f"`sam build` failed. The end of its log, {log}:\n  line 98\n  line 99"


def test_a_program_that_ran_out_of_space_is_called_by_that_name(tmp_path: Path) -> None:
    log = tmp_path / "sam.log"
    log.write_text("OSError: [Errno 28] No space left on device\n" + "a line of the traceback\n" * 50)
    assert str(machine.failure("`sam build` failed.", log)).startswith(
        "The disk is full: `sam build` failed."
    )


@pytest.mark.parametrize(("text", "shown"), [(None, "no log"), ("", "the log is empty")])
def test_a_log_without_anything_in_it_is_said_to_be_so(text: str | None, shown: str, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    if text is not None:
        log.write_text(text)
    assert shown in machine.tail(log)


def test_a_tool_that_is_installed_is_found(tools: Path) -> None:
    assert machine.require_tool("sam", "sam") == tools / "sam" / "bin" / "sam"


@pytest.mark.parametrize("missing", ["sam/.ready", "sam/bin/sam"])
def test_a_tool_that_is_missing_or_half_installed_is_said_to_need_make_setup(
    missing: str, tools: Path
) -> None:
    (tools / missing).unlink()
    with pytest.raises(
        StackError, match=r"sam is not installed: .*Run `make setup` \(it needs Python 3\.13\)"
    ):
        machine.require_tool("sam", "sam")


def test_a_tool_whose_python_was_removed_is_said_to_need_make_setup(tools: Path) -> None:
    python = tools / "ministack" / "bin" / "python"
    python.unlink()
    python.symlink_to("/no/such/python3.13")
    with pytest.raises(StackError, match="ministack is not installed"):
        MiniStack(tools / "data").start()


def test_servers_get_nothing_of_the_users_aws_or_python_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    monkeypatch.setenv("LANG", "C.UTF-8")
    environment = machine.clean_environment(tmp_path, GATEWAY_PORT="1")
    assert environment.keys() <= {
        "PATH",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "TZ",
        "HOME",
        "TMPDIR",
        "GATEWAY_PORT",
    }
    assert environment["HOME"] == environment["TMPDIR"] == str(tmp_path)
    assert environment["LANG"] == "C.UTF-8"


def test_programs_that_fetch_packages_keep_the_users_proxy_but_not_the_aws_profile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    environment = machine.user_environment(PYTHON="/python")
    assert environment["HTTPS_PROXY"] == "http://proxy"
    assert environment["PYTHON"] == "/python"
    assert not {"AWS_PROFILE", "PYTHONDONTWRITEBYTECODE"} & environment.keys()


def test_clients_of_the_stack_ignore_a_profile_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    assert client("http://127.0.0.1:9", "sqs").meta.region_name == "us-east-1"


def test_a_directory_is_one_stacks_at_a_time(tmp_path: Path) -> None:
    held = lock(tmp_path)
    with pytest.raises(StackError, match=f"Another stack uses {tmp_path}"):
        lock(tmp_path)
    held.close()
    lock(tmp_path).close()


def test_a_stack_does_not_touch_the_directory_of_another(tmp_path: Path, tools: Path) -> None:
    kept = tmp_path / "postgres" / "data" / "PG_VERSION"
    kept.parent.mkdir(parents=True)
    kept.touch()
    with lock(tmp_path), pytest.raises(StackError, match="Another stack uses"):
        Stack(tmp_path).start()
    assert kept.exists()


def test_a_stack_says_that_its_tools_are_missing_before_it_makes_anything(
    tmp_path: Path, no_tools: Path
) -> None:
    with pytest.raises(StackError, match="Run `make setup`"):
        Stack(tmp_path / "stack").start()
    assert not (tmp_path / "stack").exists()


def test_a_stack_says_that_the_disk_is_full_before_it_makes_anything(
    tmp_path: Path, tools: Path, full_disk: None
) -> None:
    with pytest.raises(StackError, match="The disk is full"):
        Stack(tmp_path / "stack").start()
    assert not (tmp_path / "stack").exists()


@pytest.mark.parametrize(
    ("option", "server"), [("postgres_port", "Postgres"), ("ministack_port", "MiniStack")]
)
def test_a_stack_whose_port_is_in_use_starts_nothing_and_frees_its_directory(
    option: str, server: str, tmp_path: Path, tools: Path, taken_port: int
) -> None:
    steps: list[str] = []
    stack = Stack(
        tmp_path / "stack", progress=lambda step, seconds: steps.append(step), **{option: taken_port}
    )
    with pytest.raises(StackError, match=f"Port {taken_port} is in use, so {server} cannot listen"):
        stack.deploy()
    assert steps == []
    lock(tmp_path / "stack").close()
