"""Each form of a DSN logs in to a real PostgreSQL."""

import asyncpg
import pytest

from healthagent.config import parse_dsn
from healthagent.demo.postgres import Node

pytestmark = pytest.mark.live


@pytest.mark.parametrize(
    "form",
    [
        pytest.param("postgresql://postgres@{host}:{port}/postgres?{parameters}", id="URL"),
        pytest.param("host={host} port={port} user=postgres dbname=postgres {keywords}", id="keywords"),
        pytest.param("host={socket} port={port} user=postgres dbname=postgres {keywords}", id="socket"),
        pytest.param(
            "postgresql:///postgres?host={socket}&port={port}&user=postgres&{parameters}",
            id="socket in a URL",
        ),
        pytest.param(
            "postgresql://postgres@{host}:{port}/postgres?connect_timeout=3&keepalives=1&sslmode=prefer"
            "&channel_binding=prefer&target_session_attrs=any&{parameters}",
            id="what libpq knows and a server does not",
        ),
    ],
)
async def test_it_logs_in(postgres: Node, form: str) -> None:
    text = form.format(
        host=postgres.host,
        port=postgres.port,
        socket=postgres.socket_dir,
        keywords="application_name=probe options='-c work_mem=5MB'",
        parameters="application_name=probe&options=-c%20work_mem%3D5MB",
    )
    connection = await asyncpg.connect(**parse_dsn(text).asyncpg_arguments(), timeout=10)
    try:
        row = await connection.fetchrow(
            "SELECT current_user::text, current_setting('application_name'), current_setting('work_mem')"
        )
    finally:
        await connection.close(timeout=10)
    assert row is not None
    assert tuple(row) == ("postgres", "probe", "5MB")
