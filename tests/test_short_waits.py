"""A cluster whose waits are all of a second, as in a test bed: still never two at 200."""

from dataclasses import replace

import pytest

from healthagent.config import PeerSettings, PostgresSettings, Settings
from healthagent.core.model import Role
from healthagent.core.view import Policy
from healthagent.policy import policy_of
from tests.world import World

SECOND = replace(
    Settings(),
    drain=1.0,
    isolation_after=1.0,
    start_alone_after=1.0,
    takeover_after=1.0,
    postgres=PostgresSettings(interval=0.2, timeout=0.5, max_age=1.0),
    peer=PeerSettings(interval=0.2, timeout=0.5, max_age=1.0),
)
EVIDENCE_OF_TWO_SECONDS = replace(SECOND, postgres=PostgresSettings())
TWO_SECONDS = replace(EVIDENCE_OF_TWO_SECONDS, drain=2.0, peer=PeerSettings(max_age=1.6))


def seconds_of_two(policy: Policy, frozen: float) -> float:
    """How long two say 200 after a failover during which the old primary's agent was frozen."""
    world = World(policy)
    for name in ("pg1", "pg2", "pg3"):
        world.add(name)
        others = {"pg1", "pg2", "pg3"} - {name}
        world.agents[name].settings.entries = {other: other for other in sorted(others)}
    world.postgres["pg1"].role = Role.PRIMARY
    world.postgres["pg2"].follows = world.postgres["pg3"].follows = "pg1"
    for agent in world.agents.values():
        agent.start()
    world.run(3)
    old, new = world.agents["pg1"], world.agents["pg2"]
    assert old.board.primary(old.now).ok
    old.freeze()
    world.promote("pg2")
    world.follow("pg3", "pg2")
    two = 0.0
    # the new one is slow to answer, so that the old one learns of it late
    world.network.delay = lambda source, _target: 0.9 * policy.peer_timeout if source == "pg2" else 0.002
    woken = False
    for _ in range(round((frozen + 2) / 0.01)):
        world.run(0.01)
        if world.now >= 3 + frozen:  # a client asks before the agent has done anything else
            two += 0.01 if new.board.primary(new.now).ok and old.board.primary(old.now).ok else 0.0
            if not woken:
                woken = True
                old.thaw()
    return two


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(SECOND, id="all of a second"),
        pytest.param(EVIDENCE_OF_TWO_SECONDS, id="all but the age of PostgreSQL's answers"),
        pytest.param(TWO_SECONDS, id="a drain of two seconds"),
        pytest.param(Settings(), id="the defaults"),
    ],
)
@pytest.mark.parametrize("frozen", [0.9, 1.1, 1.3, 1.6, 1.9, 2.1, 2.4, 2.6, 3.1, 3.6, 5.0])
def test_an_agent_that_wakes_up_after_the_drain_knows_it(settings: Settings, frozen: float) -> None:
    assert seconds_of_two(policy_of(settings), frozen) == 0.0


def test_that_can_be_seen() -> None:
    """Without the rule the old primary would answer what was true before the drain."""
    policy = replace(policy_of(EVIDENCE_OF_TWO_SECONDS), round_max_age=2.5)
    assert seconds_of_two(policy, 1.6) > 0.1
