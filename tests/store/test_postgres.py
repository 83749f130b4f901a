"""The tests' own PostgreSQL: what happens where there is none."""

from __future__ import annotations

import pytest

from tests.postgres import Server, missing


def test_without_postgresql_tests_are_reported_as_not_run() -> None:
    with pytest.raises(pytest.skip.Exception, match="install postgresql"):
        missing({})


def test_without_postgresql_tests_fail_where_everything_has_to_run() -> None:
    with pytest.raises(pytest.fail.Exception, match="install postgresql"):
        missing({"CI": "true"})


@pytest.mark.postgres
def test_the_server_listens_on_the_loopback_alone_and_asks_for_a_password(postgres: Server) -> None:
    with postgres.connect() as connection:
        listens = connection.execute("SHOW listen_addresses").fetchone()
        sockets = connection.execute("SHOW unix_socket_directories").fetchone()
        ways = connection.execute("SELECT DISTINCT auth_method FROM pg_hba_file_rules").fetchall()
    assert (listens, sockets, ways) == (("127.0.0.1",), ("",), [("scram-sha-256",)])
