"""From settings to the rules' durations: the one that is not copied."""

from dataclasses import replace

import pytest

from healthagent.config import PeerSettings, PostgresSettings, Settings
from healthagent.policy import policy_of


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
