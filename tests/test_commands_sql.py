"""The printed role is one that PostgreSQL accepts under any name; tests/live/test_postgres.py runs it."""

import pytest

from healthagent.commands.sql import statements


@pytest.mark.parametrize(
    ("role", "spelled"),
    [
        pytest.param("healthagent", "CREATE ROLE healthagent LOGIN;", id="the default needs no quotes"),
        pytest.param("Monitor", 'CREATE ROLE "Monitor" LOGIN;', id="capitals are kept"),
        pytest.param('a"; DROP', 'CREATE ROLE "a""; DROP" LOGIN;', id="quotes stay inside the name"),
    ],
)
def test_the_role_is_quoted(role: str, spelled: str) -> None:
    assert spelled in statements(role).splitlines()


def test_what_only_newer_servers_know_is_a_comment() -> None:
    told = [line for line in statements("healthagent").splitlines() if "pg_use_reserved" in line]
    assert [line.startswith("-- ") for line in told] == [True]
