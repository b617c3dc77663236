"""The embedded Postgres: what it is set up as, and what survives its ends."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pg8000.exceptions import DatabaseError, InterfaceError

from local.errors import StackError
from local.machine import LOOPBACK, free_port
from local.postgres import Postgres, end_leftover
from tests.ended import all_end


@pytest.fixture
def server(server_directory: Path) -> Iterator[Postgres]:
    """A server that the test may stop and crash. The data is that of the test before, without its table."""
    with Postgres(server_directory / "crashed", durable=False) as server:
        connection = server.connect()
        connection.run("DROP TABLE IF EXISTS kept")
        connection.close()
        yield server


def write(server: Postgres, number: int) -> None:
    connection = server.connect()
    connection.run("CREATE TABLE kept (number integer)")
    connection.run("INSERT INTO kept VALUES (:number)", number=number)
    connection.close()


def read(server: Postgres) -> list[int]:
    connection = server.connect()
    rows = connection.run("SELECT number FROM kept ORDER BY number")
    connection.close()
    return [row[0] for row in rows]


def test_the_role_is_no_superuser_and_owns_its_database(postgres: Postgres) -> None:
    connection = postgres.connect()
    rows = connection.run(
        "SELECT current_user, current_database(), rolsuper, pg_get_userbyid(datdba) "
        "FROM pg_roles, pg_database WHERE rolname = current_user AND datname = current_database()"
    )
    connection.close()
    assert rows == [["oncestream", "oncestream", False, "oncestream"]]


def test_text_is_unicode_and_sorts_by_code_point_on_every_machine(postgres: Postgres) -> None:
    connection = postgres.connect()
    assert connection.run("SHOW server_encoding") == [["UTF8"]]
    assert connection.run("SELECT 'ä' > 'z', 'Z' < 'a'") == [[True, True]]
    connection.close()


def test_it_listens_on_the_loopback_address_only(postgres: Postgres) -> None:
    listening = {
        connection.laddr.ip
        for connection in psutil.Process(postgres.pid).net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {LOOPBACK}


def test_each_database_is_empty_and_its_own(postgres: Postgres) -> None:
    postgres.create_database("one of its own")
    try:
        connection = postgres.connect("one of its own")
        assert connection.run("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [[0]]
    finally:
        postgres.drop_database("one of its own")  # ends the session in it
    with pytest.raises((DatabaseError, InterfaceError)):
        connection.run("SELECT 1")


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_committed_rows_survive_a_restart_on_the_same_port(server: Postgres, mode: str) -> None:
    write(server, 1)
    port = server.port
    server.restart(mode)  # type: ignore[arg-type]
    assert server.port == port
    assert read(server) == [1]


def test_committed_rows_survive_sigkill_of_the_server(server: Postgres) -> None:
    write(server, 1)
    workers = [process.pid for process in psutil.Process(server.pid).children()]
    with all_end([server.pid, *workers]):
        os.kill(server.pid, signal.SIGKILL)
    assert not server.is_running
    server.start()
    assert read(server) == [1]


def test_a_server_that_is_stopped_refuses_connections_until_it_is_started(server: Postgres) -> None:
    server.stop()
    with pytest.raises(InterfaceError):
        server.connect()
    server.start()
    server.connect().close()


def test_a_leftover_server_on_the_same_data_is_ended_first(server: Postgres) -> None:
    write(server, 1)
    with all_end([server.pid]), Postgres(server.directory, durable=False) as second:
        assert read(second) == [1]


def test_a_process_that_only_has_the_number_of_a_leftover_server_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "postmaster.pid").write_text(f"{os.getpid()}\n{tmp_path}\n")
    end_leftover(tmp_path)  # or this test run ends here
    assert psutil.pid_exists(os.getpid())
    assert psutil.Process().status() != psutil.STATUS_ZOMBIE


def test_remove_deletes_the_data_of_a_leftover_server_too(server: Postgres) -> None:
    write(server, 1)
    with all_end([server.pid]):
        Postgres(server.directory).remove()
    assert not server.data.exists()


def test_a_port_that_is_given_and_in_use_is_an_error(server_directory: Path) -> None:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        port = listener.getsockname()[1]
        server = Postgres(server_directory / "port-in-use", port=port)
        with pytest.raises(StackError, match=f"Port {port} is in use, so Postgres cannot listen"):
            server.start()
    assert not server.is_running


def test_a_free_port_that_is_taken_in_the_last_moment_is_replaced_by_another(
    server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.stop()
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        taken = listener.getsockname()[1]
        ports = [taken, free_port()]
        monkeypatch.setattr("local.postgres.free_port", lambda host: ports.pop(0))
        with Postgres(server.directory, durable=False) as second:
            assert second.port != taken
            second.connect().close()


def test_a_server_that_does_not_come_up_shows_the_end_of_its_log(server: Postgres) -> None:
    server.stop()
    settings = server.data / "postgresql.conf"
    good = settings.read_text()
    settings.write_text("work_mem = 'no size'\n")
    with pytest.raises(StackError, match=r"did not start in (?s:.*)parameter \"work_mem\""):
        server.start()
    assert not server.is_running
    settings.write_text(good)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match=f"Could not work in {tmp_path}/file/postgres"):
        Postgres(tmp_path / "file" / "postgres").start()
