"""The rules of /replica in their order, each on both sides of its boundary."""

from dataclasses import replace
from typing import Any

import pytest

from healthagent.core.model import Follower, LagLimit, Reason, Receiver
from healthagent.core.peer import Alarm, Peer
from healthagent.core.replica import (
    Ask,
    current_primary,
    decide_replica,
    decide_sync,
    lag_bytes,
    lag_seconds,
    spelled,
)
from healthagent.core.view import Memory, Policy, View
from tests.builders import (
    NOW,
    OTHER_SYSTEM,
    SYSTEM,
    failure,
    follower,
    following,
    local,
    memory,
    peer,
    policy,
    rival,
    silent,
    snap,
    statement,
    view,
)

DEFAULT = policy()
PRIMARY_HERE = rival("pg1", 1, serving=True)  # the primary that this node, pg3, belongs to
NO_MORE_THAN_100 = policy(lag_limit=LagLimit(100))


def good(**more: Any) -> Memory:
    """Of a replica that was all right a moment ago."""
    values: dict[str, Any] = {
        "term": None,
        "served": None,
        "serving": False,
        "streamed_at": NOW - 0.1,
        "followed_at": NOW - 0.1,
        "on_timeline_at": NOW - 0.1,
        "replayed_lsn": 1000,
    }
    return memory(**values | more)


def node(snapshot: Any = None, peers: Any = None, remembered: Memory | None = None, **more: Any) -> View:
    """pg3, a replica of pg1, which serves; pg2 is the other replica."""
    members = [PRIMARY_HERE, following("pg2")] if peers is None else peers
    values: dict[str, Any] = {"name": "pg3"} | more
    return view(snapshot or follower("pg1"), members, remembered or good(), **values)


def behind(by: int, **more: Any) -> Any:
    """A replica that has replayed all but so many bytes of what the primary flushed."""
    return follower("pg1", replayed_lsn=1000 - by, **more)


def paused(received: int | None, sent: int | None, status: str = "streaming") -> Any:
    """A replica that replays nothing since 144 s, but goes on receiving."""
    receiver = Receiver(status, latest_end_lsn=sent)
    return follower(
        "pg1", received_lsn=received, replayed_lsn=500, replay_age_seconds=144.0, receiver=receiver
    )


def detached(**more: Any) -> Any:
    return follower(None, **more)


LOST = rival("pg1", 1, reason="lost_conflict")
STALE = rival("pg1", 1, reason="stale_timeline")
NEWER = rival("pg2", 2, serving=True)

PERMITTED = [
    pytest.param(node(), DEFAULT, Reason.REPLICA, id="it streams from the serving primary"),
    pytest.param(
        node(peers=[rival("pg1", 1)]),
        DEFAULT,
        Reason.REPLICA,
        id="the only primary in sight does not serve yet",
    ),
    pytest.param(
        node(peers=[silent("pg1"), silent("pg2")]),
        DEFAULT,
        Reason.REPLICA,
        id="no agent answers, but it streams from somebody",
    ),
    pytest.param(
        node(detached(), [following("pg2")], good(streamed_at=NOW - 3600)),
        DEFAULT,
        Reason.REPLICA_NO_PRIMARY,
        id="the primary is dead for an hour: reads survive",
    ),
    pytest.param(
        node(detached(), remembered=good(streamed_at=NOW - 10.0)),
        DEFAULT,
        Reason.REPLICA,
        id="it last streamed 10.0 s ago",
    ),
    pytest.param(
        node(peers=[STALE, NEWER], remembered=good(followed_at=NOW - 10.0)),
        DEFAULT,
        Reason.REPLICA,
        id="it has followed a stale node for 10.0 s",
    ),
    pytest.param(
        node(peers=[rival("pg1", 1, reason="diverged"), rival("pg2", 2, reason="diverged")]),
        DEFAULT,
        Reason.REPLICA,
        id="nobody won: whom it follows is not known to be wrong",
    ),
    pytest.param(
        node(follower("pg2", 1), [following("pg1"), NEWER], good(on_timeline_at=NOW - 10.0)),
        DEFAULT,
        Reason.REPLICA,
        id="on another timeline than the primary for 10.0 s",
    ),
    pytest.param(node(behind(100)), NO_MORE_THAN_100, Reason.REPLICA, id="100 bytes behind, the limit"),
    pytest.param(
        node(behind(100), remembered=good(lagged_at=NOW - 5.0)),
        NO_MORE_THAN_100,
        Reason.REPLICA,
        id="within the limit for 5.0 s again",
    ),
    pytest.param(
        node(behind(999, replay_age_seconds=3.0, age=0.0)),
        policy(lag_limit=LagLimit(None, 3.0)),
        Reason.REPLICA,
        id="3.0 s behind, the limit",
    ),
    pytest.param(
        node(follower("pg1", replay_age_seconds=3600.0)),
        policy(lag_limit=LagLimit(None, 3.0)),
        Reason.REPLICA,
        id="an idle primary: all that was received is replayed",
    ),
    pytest.param(
        node(detached(received_lsn=950, replayed_lsn=900), [following("pg2")]),
        NO_MORE_THAN_100,
        Reason.REPLICA_NO_PRIMARY,
        id="no primary: the last WAL that arrived is the measure",
    ),
    pytest.param(
        node(remembered=good()),
        policy(require_primary=True),
        Reason.REPLICA,
        id="a primary is required, and there",
    ),
]


@pytest.mark.parametrize(("evidence", "chosen", "reason"), PERMITTED)
def test_permission(evidence: View, chosen: Policy, reason: Reason) -> None:
    verdict = decide_replica(evidence, chosen)
    assert (verdict.ok, verdict.reason) == (True, reason), verdict.detail


REFUSED = [
    # rules 1 and 2
    pytest.param(node(stopping=True), DEFAULT, Reason.STOPPING, "shutting down", id="stopping"),
    pytest.param(node(), policy(witness=True), Reason.WITNESS, "no PostgreSQL", id="a witness"),
    pytest.param(
        node(follower("pg1", age=2.001)), DEFAULT, Reason.POSTGRES_STALE, "2.0 s ago", id="a stale snapshot"
    ),
    pytest.param(
        node(local=local(follower("pg1"), failure=failure())),
        DEFAULT,
        Reason.POSTGRES_DOWN,
        "connection refused",
        id="down",
    ),
    # rule 2
    pytest.param(node(snap()), DEFAULT, Reason.NOT_REPLICA, "a primary", id="a primary"),
    # rule 3
    pytest.param(
        node(),
        policy(no_load_balance=True),
        Reason.NO_LOAD_BALANCE,
        "noloadbalance",
        id="the tag noloadbalance",
    ),
    # rule 4
    pytest.param(
        node(detached(), remembered=good(streamed_at=NOW - 10.001)),
        DEFAULT,
        Reason.REPLICATION_DOWN,
        "pg1 is primary, but this node has not streamed for 10 s (grace 10 s)",
        id="it last streamed 10.001 s ago",
    ),
    pytest.param(
        node(detached(), remembered=good(streamed_at=None)),
        DEFAULT,
        Reason.REPLICATION_DOWN,
        "has not streamed since the agent started",
        id="it has never streamed",
    ),
    pytest.param(
        node(detached(missing=("pg_stat_wal_receiver",)), remembered=good(streamed_at=None)),
        DEFAULT,
        Reason.PRIVILEGE_MISSING,
        "may not see pg_stat_wal_receiver",
        id="nobody may see whether it streams",
    ),
    pytest.param(
        node(follower(receiver=Receiver("waiting", "10.0.0.1", 5432)), remembered=good(streamed_at=NOW - 60)),
        DEFAULT,
        Reason.REPLICATION_DOWN,
        "for 60 s",
        id="its receiver waits for ever",
    ),
    # rule 5
    pytest.param(
        node(peers=[STALE, NEWER], remembered=good(followed_at=NOW - 10.001, high_water={SYSTEM: 2})),
        DEFAULT,
        Reason.FOLLOWS_STALE,
        "it streams from pg1, which is superseded, and followed no other for 10 s (grace 10 s)",
        id="it follows a node below the mark",
    ),
    pytest.param(
        node(peers=[LOST, NEWER], remembered=good(followed_at=NOW - 10.001)),
        DEFAULT,
        Reason.FOLLOWS_STALE,
        "pg1, which is superseded",
        id="it follows a node that lost to a winner",
    ),
    # rule 6
    pytest.param(
        node(follower("pg2", 1), [following("pg1"), NEWER], good(on_timeline_at=NOW - 10.001)),
        DEFAULT,
        Reason.TIMELINE_DIFFERS,
        "timeline 1 here, but pg2 is primary on 2",
        id="on another timeline than the primary for 10.001 s",
    ),
    # rule 7
    pytest.param(
        node(behind(101)),
        NO_MORE_THAN_100,
        Reason.LAGGING,
        "101 bytes",
        id="101 bytes behind",
    ),
    pytest.param(
        node(behind(0), remembered=good(lagged_at=NOW - 4.999)),
        NO_MORE_THAN_100,
        Reason.LAGGING,
        "more than 100 bytes behind 5.0 s ago; 5 s below it must pass",
        id="within the limit for 4.999 s only",
    ),
    pytest.param(
        node(behind(1, replay_age_seconds=3.001, age=0.0)),
        policy(lag_limit=LagLimit(None, 3.0)),
        Reason.LAGGING,
        "1 bytes, 3.0 s behind, at most 3 s",
        id="3.001 s behind",
    ),
    pytest.param(
        node(behind(1)),
        policy(lag_limit=LagLimit(None, 3.0)),
        Reason.LAG_UNKNOWN,
        "at most 3 s is wanted, but cannot be known",
        id="nobody knows how old the last commit is",
    ),
    pytest.param(
        node(follower("pg1", replayed_lsn=None)),
        NO_MORE_THAN_100,
        Reason.LAG_UNKNOWN,
        "at most 100 bytes",
        id="nobody knows what is replayed",
    ),
    pytest.param(
        node(detached(), [following("pg2")]),
        policy(require_primary=True),
        Reason.NO_PRIMARY,
        "replica.require_primary is set",
        id="a primary is required, and there is none",
    ),
]


@pytest.mark.parametrize(("evidence", "chosen", "reason", "said"), REFUSED)
def test_refusal(evidence: View, chosen: Policy, reason: Reason, said: str) -> None:
    verdict = decide_replica(evidence, chosen)
    assert (verdict.ok, verdict.reason) == (False, reason), verdict.detail
    assert said in verdict.detail


# What one question adds.


@pytest.mark.parametrize(
    ("evidence", "chosen", "ask", "reason"),
    [
        pytest.param(
            node(behind(50)), DEFAULT, Ask(LagLimit(50)), Reason.REPLICA, id="as far behind as was asked"
        ),
        pytest.param(
            node(behind(51)), DEFAULT, Ask(LagLimit(50)), Reason.LAGGING, id="further than was asked"
        ),
        pytest.param(
            node(behind(150)),
            NO_MORE_THAN_100,
            Ask(LagLimit(200)),
            Reason.LAGGING,
            id="what is asked does not soften what is configured",
        ),
        pytest.param(
            node(behind(50), remembered=good(lagged_at=NOW - 1)),
            DEFAULT,
            Ask(LagLimit(50), readiness=True),
            Reason.REPLICA,
            id="readiness has no hold",
        ),
        pytest.param(
            node(behind(150)),
            NO_MORE_THAN_100,
            Ask(LagLimit(200), readiness=True),
            Reason.REPLICA,
            id="readiness: what is asked replaces what is configured",
        ),
        pytest.param(
            node(behind(150)),
            NO_MORE_THAN_100,
            Ask(readiness=True),
            Reason.LAGGING,
            id="readiness without a lag uses what is configured",
        ),
        pytest.param(
            node(),
            policy(no_load_balance=True),
            Ask(readiness=True),
            Reason.REPLICA,
            id="readiness has no tags",
        ),
        pytest.param(
            node(behind(900)),
            DEFAULT,
            Ask(LagLimit(0), received=True),
            Reason.REPLICA,
            id="lag of what was received",
        ),
        pytest.param(
            node(paused(2000, 2000)),
            DEFAULT,
            Ask(LagLimit(None, 1.0), readiness=True, received=True),
            Reason.REPLICA,
            id="lag of what was received, in time",
        ),
        pytest.param(
            node(paused(2000, 2000)),
            DEFAULT,
            Ask(LagLimit(None, 1.0), readiness=True),
            Reason.LAGGING,
            id="lag of what was replayed, in time",
        ),
        pytest.param(
            node(),
            DEFAULT,
            Ask(replication_state="streaming"),
            Reason.REPLICA,
            id="it is asked to stream, and does",
        ),
        pytest.param(
            node(),
            DEFAULT,
            Ask(replication_state="in archive recovery"),
            Reason.REPLICATION_STATE_DIFFERS,
            id="it is asked to replay the archive, and streams",
        ),
    ],
)
def test_a_question_with_its_own_wishes(evidence: View, chosen: Policy, ask: Ask, reason: Reason) -> None:
    assert decide_replica(evidence, chosen, ask).reason is reason


# Which primary clients belong to now.


@pytest.mark.parametrize(
    ("peers", "who"),
    [
        pytest.param([PRIMARY_HERE], "pg1", id="the serving one"),
        pytest.param([rival("pg1", 1)], "pg1", id="the only one in sight"),
        pytest.param([PRIMARY_HERE, rival("pg2", 2)], "pg1", id="of two, the serving one"),
        pytest.param([rival("pg1", 1), rival("pg2", 2)], None, id="of two that do not serve, neither"),
        pytest.param([PRIMARY_HERE, NEWER], "pg2", id="of two that serve, the one that is not stale"),
        pytest.param([LOST], None, id="one that lost is none"),
        pytest.param([LOST, rival("pg2", 2)], "pg2", id="of one that lost and another, the other"),
        pytest.param([replace(PRIMARY_HERE, alarm=Alarm.FOREIGN_CLUSTER)], None, id="an ignored entry"),
        pytest.param([rival("pg1", 1, serving=True, age=2.001)], None, id="not heard lately"),
        pytest.param(
            [replace(silent("pg1"), asked_directly=snap())], "pg1", id="told by its PostgreSQL itself"
        ),
    ],
)
def test_current_primary(peers: list[Peer], who: str | None) -> None:
    mark = {SYSTEM: 2} if NEWER in peers else {SYSTEM: 1}
    found = current_primary(node(peers=peers, remembered=good(high_water=mark)), DEFAULT)
    assert (found and found[0].name) == who


# Lag.


@pytest.mark.parametrize(
    ("snapshot", "peers", "lag"),
    [
        pytest.param(behind(30), None, 30, id="behind what the primary flushed"),
        pytest.param(
            follower("pg1", replayed_lsn=900, receiver=Receiver("streaming", latest_end_lsn=1500)),
            None,
            600,
            id="behind what its receiver has heard of, when that is more",
        ),
        pytest.param(follower("pg1", replayed_lsn=1200), None, 0, id="ahead of the primary's last answer"),
        pytest.param(follower(replayed_lsn=None), None, None, id="nothing known of its replay"),
        pytest.param(
            detached(received_lsn=1100, replayed_lsn=1000), [], 100, id="no primary: behind what arrived"
        ),
        pytest.param(
            follower(receiver=Receiver("streaming")), [], None, id="it streams, and nobody says how far"
        ),
        pytest.param(snap(), None, None, id="a primary has none"),
    ],
)
def test_lag_in_bytes(snapshot: Any, peers: Any, lag: int | None) -> None:
    assert lag_bytes(node(snapshot, peers), DEFAULT) == lag


@pytest.mark.parametrize(
    ("snapshot", "lag"),
    [
        pytest.param(behind(1, replay_age_seconds=2.0), 2.1, id="its last commit was 2 s old when asked"),
        pytest.param(behind(1, replay_age_seconds=-9.0), 0.0, id="the server's wall clock was set back"),
        pytest.param(follower("pg1", replay_age_seconds=2.0), 0.0, id="all is replayed"),
        pytest.param(behind(1), None, id="no commit replayed yet"),
        pytest.param(
            detached(replay_age_seconds=2.0, replayed_lsn=900),
            2.1,
            id="it does not stream, and the primary has written more",
        ),
        pytest.param(snap(), None, id="a primary has none"),
    ],
)
def test_lag_in_seconds(snapshot: Any, lag: float | None) -> None:
    found = lag_seconds(node(snapshot), DEFAULT)
    assert found == (lag if lag is None else pytest.approx(lag))


@pytest.mark.parametrize(
    ("snapshot", "peers", "lag"),
    [
        pytest.param(paused(2000, 2000), None, 0.0, id="all that was sent has arrived"),
        pytest.param(paused(1999, 2000), None, 144.1, id="a byte has not"),
        pytest.param(paused(1000, None), None, 0.0, id="its sender tells nothing: as far as the primary"),
        pytest.param(paused(999, None), None, 144.1, id="not as far as the primary"),
        pytest.param(paused(None, 2000), None, 144.1, id="unknown what has arrived"),
        pytest.param(paused(1000, 900, "stopped"), None, 0.0, id="no stream: as far as the primary"),
        pytest.param(paused(999, 900, "stopped"), None, 144.1, id="no stream, what it said counts no more"),
        pytest.param(paused(999, 900, "stopped"), [], 0.0, id="no stream and no primary: all that there is"),
        pytest.param(snap(), None, None, id="a primary has none"),
    ],
)
def test_lag_in_seconds_of_what_was_received(snapshot: Any, peers: Any, lag: float | None) -> None:
    found = lag_seconds(node(snapshot, peers), DEFAULT, received=True)
    assert found == (lag if lag is None else pytest.approx(lag))


@pytest.mark.parametrize(
    ("limit", "text"),
    [(LagLimit(5), "5 bytes"), (LagLimit(None, 1.5), "1.5 s"), (LagLimit(5, 2.0), "5 bytes and 2 s")],
)
def test_limit_spelled(limit: LagLimit, text: str) -> None:
    assert spelled(limit) == text


# Sync, async, quorum: what the primary calls this node.


def attached(*rows: tuple[str, str, str]) -> View:
    """This node calls itself node3; the primary lists followers of (name, address, sync_state)."""
    listed = tuple(Follower("r", name, host, "streaming", state, 1) for name, host, state in rows)
    primary = peer("pg1", statement("pg1", snap(followers=listed, age=0.4), serving=True))
    mine = follower("pg1", receiver=Receiver("streaming", "10.0.0.1", 5432, application_name="node3"))
    book = {"pg1": frozenset({("10.0.0.1", 5432)}), "pg3": frozenset({("10.0.0.3", 5432)})}
    return node(mine, [primary], addresses=book)


@pytest.mark.parametrize(
    ("state", "reasons"),
    [
        ("sync", (Reason.REPLICA, Reason.NOT_ASYNC, Reason.NOT_QUORUM)),
        ("quorum", (Reason.NOT_SYNC, Reason.NOT_ASYNC, Reason.REPLICA)),
        ("potential", (Reason.NOT_SYNC, Reason.REPLICA, Reason.NOT_QUORUM)),
        ("async", (Reason.NOT_SYNC, Reason.REPLICA, Reason.NOT_QUORUM)),
    ],
)
def test_how_a_replica_is_attached(state: str, reasons: tuple[Reason, ...]) -> None:
    evidence = attached(("node3", "10.0.0.3", state), ("node2", "10.0.0.2", "sync"))
    asked = [decide_sync(evidence, DEFAULT, wanted).reason for wanted in ("sync", "async", "quorum")]
    assert tuple(asked) == reasons


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        pytest.param((), Reason.SYNC_UNKNOWN, id="the primary does not list it"),
        pytest.param(
            (("node3", "10.0.0.3", "sync"), ("node3", "10.0.0.2", "async")),
            Reason.REPLICA,
            id="of two with one name, the one from our address",
        ),
        pytest.param(
            (("node3", "10.0.0.7", "sync"), ("node3", "10.0.0.8", "async")),
            Reason.SYNC_UNKNOWN,
            id="of two with one name, neither from our address",
        ),
    ],
)
def test_which_row_of_the_primary_is_this_node(rows: Any, reason: Reason) -> None:
    assert decide_sync(attached(*rows), DEFAULT, "sync").reason is reason


def test_a_refused_replica_is_no_sync_standby() -> None:
    assert decide_sync(node(stopping=True), DEFAULT, "sync").reason is Reason.STOPPING


def test_a_primary_of_another_cluster_is_not_ours() -> None:
    stranger = peer("pg1", statement("pg1", snap(system_identifier=OTHER_SYSTEM), serving=True))
    assert current_primary(node(peers=[stranger]), DEFAULT) is None
