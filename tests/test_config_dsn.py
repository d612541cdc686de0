"""DSNs in both of libpq's forms: what asyncpg makes of them, and what is never shown."""

import inspect
import re
from typing import Any

import pytest
from asyncpg import connect_utils

from healthagent.config import parse_dsn

NO_VARIABLES = (
    "PGHOST",
    "PGPORT",
    "PGUSER",
    "PGPASSWORD",
    "PGDATABASE",
    "PGSSLMODE",
    "PGPASSFILE",
    "PGSERVICE",
)


@pytest.fixture(autouse=True)
def _without_libpq_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NO_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def understood(text: str) -> tuple[list[Any], Any]:
    """Return the addresses and parameters that asyncpg itself reads out of our arguments."""
    # asyncpg's own parser has no public name; what it makes of our URL is the question here.
    parse = connect_utils._parse_connect_dsn_and_args  # type: ignore[attr-defined] # not in its stubs
    nothing: dict[str, Any] = dict.fromkeys(inspect.signature(parse).parameters)
    addresses, parameters = parse(**(nothing | parse_dsn(text).asyncpg_arguments()))
    return list(addresses), parameters


@pytest.mark.parametrize(
    ("text", "address", "user", "password", "database"),
    [
        pytest.param("postgresql://me:pw@db:5433/app", ("db", 5433), "me", "pw", "app", id="URL"),
        pytest.param("postgres://me@db/app", ("db", 5432), "me", None, "app", id="short scheme"),
        pytest.param("postgresql://me@[fd00::1]:5433/app", ("fd00::1", 5433), "me", None, "app", id="IPv6"),
        pytest.param(
            "host=fd00::1 user=me dbname=app", ("fd00::1", 5432), "me", None, "app", id="IPv6 keyword"
        ),
        pytest.param(
            "postgresql://m%40e:p%2Fw%3A@db/a%20b", ("db", 5432), "m@e", "p/w:", "a b", id="percent signs"
        ),
        pytest.param(
            "postgresql:///app?host=/run/pg&port=5433&user=me",
            "/run/pg/.s.PGSQL.5433",
            "me",
            None,
            "app",
            id="socket as parameter",
        ),
        pytest.param(
            "postgresql://me@%2Frun%2Fpg:5433/app",
            "/run/pg/.s.PGSQL.5433",
            "me",
            None,
            "app",
            id="socket as host",
        ),
        pytest.param(
            "host=/run/pg dbname=app user=me", "/run/pg/.s.PGSQL.5432", "me", None, "app", id="keywords"
        ),
        pytest.param(
            r"host = db password = 'it\'s \\ one' user= me dbname =app",
            ("db", 5432),
            "me",
            r"it's \ one",
            "app",
            id="blanks and quotes",
        ),
        pytest.param(
            r"host=db user=me password=a\ b dbname=''", ("db", 5432), "me", "a b", "me", id="escapes"
        ),
    ],
)
def test_asyncpg_reads_the_same(
    text: str, address: object, user: str, password: str | None, database: str
) -> None:
    addresses, parameters = understood(text)
    assert addresses == [address]
    assert (parameters.user, parameters.password, parameters.database) == (user, password, database)


def test_without_a_host_asyncpg_looks_where_libpq_does(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "/run/postgresql/.s.PGSQL.5432" in understood("postgresql:///postgres")[0]
    monkeypatch.setenv("PGHOST", "db")
    monkeypatch.setenv("PGPORT", "5433")
    monkeypatch.setenv("PGUSER", "me")
    monkeypatch.setenv("PGPASSWORD", "pw")
    addresses, parameters = understood("postgresql:///postgres")
    assert addresses == [("db", 5433)]
    assert (parameters.user, parameters.password, parameters.database) == ("me", "pw", "postgres")


def test_parameters_of_libpq_never_reach_the_server_as_settings() -> None:
    _, parameters = understood(
        "postgresql://db/app?connect_timeout=3&keepalives=1&gssencmode=disable&target_session_attrs=any"
        "&application_name=probe&options=-c%20search_path%3Dx"
    )
    assert parameters.server_settings == {"application_name": "probe", "options": "-c search_path=x"}


def test_sslmode_is_asyncpgs() -> None:
    assert understood("host=db sslmode=disable")[1].ssl is False
    required = understood("host=db sslmode=require")[1]
    assert required.sslmode == connect_utils.SSLMode.require


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:hunter2@db:5433/app", "postgresql://me:***@db:5433/app"),
        ("postgresql://:hunter2@db", "postgresql://:***@db/"),
        ("host=/run/pg password=hunter2 user=me", "postgresql://me:***@/?host=/run/pg"),
        (
            "postgresql://db/?sslkey=/k&sslpassword=hunter2&sslmode=require",
            "postgresql://db/?sslkey=/k&sslmode=require&sslpassword=***",
        ),
        ("postgresql:///app", "postgresql:///app"),
        ("host=fd00::1 port=5433", "postgresql://[fd00::1]:5433/"),
    ],
)
def test_no_password_is_shown(text: str, shown: str) -> None:
    dsn = parse_dsn(text)
    assert dsn.redacted == str(dsn) == shown
    assert "hunter2" not in repr(dsn)


def test_what_is_shown_without_passwords_is_read_back_the_same() -> None:
    dsn = parse_dsn("postgresql://m%2Fe@%2Frun%2Fpg:5433/a%3Fb?sslmode=require&options=-c%20a%3Db")
    assert parse_dsn(dsn.redacted) == dsn


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mysql://me:hunter2@db", "not mysql://"),
        ("hunter2", "want postgresql://"),
        ("postgresql://me:hunter2@x@db/app", "an @ in a user name or password must be written as %40"),
        ("postgresql://me:hunter2%zz@db", "a % must be followed by two hexadecimal digits"),
        ("postgresql://me:hunter2@db:x/app", "want HOST or HOST:PORT"),
        ("postgresql://me:hunter2@db:70000/app", "port must be 1 to 65535"),
        ("postgresql://db?hunter2", "must be written as name=value"),
        ("postgresql://a,b/app", "must name one host"),
        ("host=a,b", "must name one host"),
        ("host=not/absolute", "host must be a name, an address"),
        ("postgresql://me:hunter2%00@db", "must hold printable characters only"),
        ("postgresql://me:hunter2\udcff@db", "must hold printable characters only"),
        ("password=my hunter2=x", "what follows a blank is not a connection parameter"),
        ("host=db hostname=x", "hostname is not a connection parameter that is supported here"),
        ("host=db gssencmode=require", "gssencmode must be disable or prefer"),
        ("host=db password='hunter2", "with ' around a value"),
        ("host=db target_session_attrs=read-write", "target_session_attrs must be any"),
    ],
)
def test_a_refusal_never_repeats_the_dsn(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        parse_dsn(text)
    assert "hunter2" not in str(caught.value)
