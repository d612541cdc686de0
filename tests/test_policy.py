"""From settings to what is not copied of them: one duration, and where this agent is."""

from dataclasses import replace
from pathlib import Path

import pytest

from healthagent.config import Address, PeerSettings, PostgresSettings, Settings
from healthagent.config.settings import TlsSettings
from healthagent.policy import own_url, policy_of


@pytest.mark.parametrize(
    ("drain", "postgres_max_age", "interval", "timeout", "oldest"),
    [
        pytest.param(3.0, 2.0, 0.5, 1.0, 2.5, id="the defaults"),
        pytest.param(30.0, 2.0, 0.5, 1.0, 2.5, id="a long drain"),
        pytest.param(30.0, 2.0, 0.5, 1.8, 4.5, id="slow questions"),
        pytest.param(30.0, 2.0, 1.9, 0.5, 4.75, id="rare questions"),
        pytest.param(
            2.4, 2.0, 0.5, 1.0, 2.5, id="its PostgreSQL's last answer is stale before the drain is over"
        ),
        pytest.param(2.4, 2.001, 0.5, 1.0, 2.0, id="it is not"),
        pytest.param(3.0, 2.6, 1.9, 0.5, 2.5, id="rare questions, and a shorter drain"),
        pytest.param(1.2, 2.0, 0.1, 0.5, 1.0, id="a short drain"),
        pytest.param(1.2, 1.0, 0.1, 0.5, 2.5, id="a short drain, and quick evidence"),
    ],
)
def test_who_sleeps_through_the_drain_knows_it_when_it_wakes_up(
    drain: float, postgres_max_age: float, interval: float, timeout: float, oldest: float
) -> None:
    settings = replace(
        Settings(),
        drain=drain,
        postgres=PostgresSettings(max_age=postgres_max_age),
        peer=PeerSettings(interval=interval, timeout=timeout),
    )
    policy = policy_of(settings)
    assert policy.round_max_age == pytest.approx(oldest)
    assert min(policy.round_max_age, policy.max_age) < drain


ELSEWHERE = Address("db1.example.net", 5433)
CERTIFIED = TlsSettings(cert=Path("/etc/agent.crt"), key=Path("/etc/agent.key"))


@pytest.mark.parametrize(
    ("listen", "address", "tls", "url"),
    [
        pytest.param("10.0.0.1", None, TlsSettings(), "http://10.0.0.1:8018", id="as it listens"),
        pytest.param("10.0.0.1", ELSEWHERE, TlsSettings(), "http://10.0.0.1:8018", id="its own host"),
        pytest.param("0.0.0.0", ELSEWHERE, TlsSettings(), "http://db1.example.net:8018", id="everywhere"),
        pytest.param("::", ELSEWHERE, CERTIFIED, "https://db1.example.net:8018", id="everywhere, with TLS"),
        pytest.param("fd00::1", None, TlsSettings(), "http://[fd00::1]:8018", id="IPv6"),
    ],
)
def test_where_others_reach_this_agent(
    listen: str, address: Address | None, tls: TlsSettings, url: str
) -> None:
    settings = replace(
        Settings(), listen=Address(listen, 8018), postgres=PostgresSettings(address=address), tls=tls
    )
    assert own_url(settings) == url
