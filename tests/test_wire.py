"""What agents say to one another: read as far as it can be, and never believed to be more than it is."""

import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthagent.core.model import Follower, Receiver, Role, Snapshot
from healthagent.core.peer import Candidate, Served, Sight, Source, Statement
from healthagent.wire import (
    MAX_BYTES,
    VERSION,
    CandidateSaid,
    HighWaterSaid,
    Message,
    Misunderstood,
    ServedSaid,
    SightSaid,
    decode,
    encode,
    said_of,
    statement_of,
)
from tests.builders import NOW, SYSTEM, follower, snap

ASKED, RECEIVED = NOW - 0.4, NOW - 0.1

FULL = Message(
    cluster="main",
    name="pg2",
    incarnation="an incarnation",
    uptime=60.0,
    serving=True,
    version="1.2.3",
    members_hash="0123456789abcdef",
    address="10.0.0.2:5432",
    snapshot=said_of(
        snap(timeline=3, followers=(Follower("r", "pg1", "10.0.0.1", "streaming", "sync", 1),)), NOW
    ),
    not_serving_for=5.0,
    last_served=ServedSaid(2, 5.0, str(SYSTEM)),
    yields_to=CandidateSaid("pg1", 4),
    hwm=[HighWaterSaid(str(SYSTEM), 3)],
    reason="primary",
    detail="primary on timeline 3",
    replica_ok=False,
    replica_reason="not_replica",
    tags={"zone": "az1"},
    sees=[SightSaid("pg1", True, "replica", 3, False), SightSaid("w1")],
)


def with_changes(**changed: Any) -> bytes:
    """The full message as JSON with some keys changed; dots lead into objects."""
    content = json.loads(encode(FULL))
    for place, value in changed.items():
        *path, key = place.split("__")
        inner = content
        for step in path:
            inner = inner[step]
        inner[key] = value
    return json.dumps(content).encode()


def test_round_trip() -> None:
    assert decode(encode(FULL)) == FULL


def test_a_message_becomes_a_statement_with_instants_of_our_clock() -> None:
    assert statement_of(FULL, ASKED, RECEIVED) == Statement(
        asked_at=ASKED,
        received_at=RECEIVED,
        source=Source.AGENT,
        cluster="main",
        name="pg2",
        incarnation="an incarnation",
        started_at=RECEIVED - 60.0,
        snapshot=snap(
            timeline=3,
            asked_at=pytest.approx(ASKED - 0.1),
            followers=(Follower("r", "pg1", "10.0.0.1", "streaming", "sync", 1),),
        ),
        reason="primary",
        serving=True,
        stopped_serving_at=RECEIVED - 5.0,
        served=Served(SYSTEM, 2, RECEIVED - 5.0),
        yields_to=Candidate("pg1", 4),
        high_water=((SYSTEM, 3),),
        members_hash="0123456789abcdef",
        version="1.2.3",
        address="10.0.0.2:5432",
        sees=(Sight("pg1", True, Role.REPLICA, 3, False), Sight("w1", False, None, None, False)),
        tags=(("zone", "az1"),),
        detail="primary on timeline 3",
        replica_ok=False,
        replica_reason="not_replica",
    )


def test_what_permits_counts_from_the_question_and_what_forbids_from_the_answer() -> None:
    found = statement_of(FULL, ASKED, RECEIVED)
    assert found.snapshot is not None
    assert found.snapshot.asked_at == pytest.approx(ASKED - 0.1)  # as old as it can be
    assert found.stopped_serving_at == RECEIVED - 5.0  # as late as it can be
    assert found.started_at == RECEIVED - 60.0
    assert found.served is not None
    assert found.served.at == RECEIVED - 5.0


SNAPSHOTS = st.builds(
    Snapshot,
    asked_at=st.floats(0, NOW),
    role=st.sampled_from(Role),
    system_identifier=st.none() | st.integers(0, 2**64 - 1),
    timeline=st.none() | st.integers(1, 2**32 - 1),
    server_version=st.integers(0, 200000),
    read_only=st.booleans(),
    flush_lsn=st.none() | st.integers(0, 2**63 - 1),
    replayed_lsn=st.none() | st.integers(0, 2**63 - 1),
    replay_age_seconds=st.none() | st.floats(-1e6, 1e9),
    receiver=st.none()
    | st.builds(
        Receiver,
        status=st.text(max_size=20),
        host=st.none() | st.text(max_size=20),
        port=st.none() | st.integers(0, 65535),
        latest_end_lsn=st.none() | st.integers(0, 2**63 - 1),
        addresses=st.lists(st.text(max_size=20), max_size=3).map(tuple),
    ),
    followers=st.lists(
        st.builds(
            Follower, *[st.none() | st.text(max_size=20)] * 5, sync_priority=st.none() | st.integers(0, 9)
        ),
        max_size=3,
    ).map(tuple),
)


@given(SNAPSHOTS)
def test_any_snapshot_makes_the_round_trip(snapshot: Snapshot) -> None:
    message = Message("main", "pg2", "i", 1.0, serving=False, snapshot=said_of(snapshot, NOW))
    found = statement_of(decode(encode(message)), NOW, NOW).snapshot
    assert found is not None
    for field in fields(Snapshot):
        if field.name not in ("asked_at", "missing"):
            assert getattr(found, field.name) == getattr(snapshot, field.name), field.name
    assert found.asked_at == pytest.approx(snapshot.asked_at)


def test_a_primary_with_more_followers_than_are_read_tells_of_those_that_are() -> None:
    crowd = tuple(Follower("r", f"standby {number}", None, None, None, None) for number in range(1000))
    message = Message("main", "pg2", "i", 1.0, serving=True, snapshot=said_of(snap(followers=crowd), NOW))
    found = statement_of(decode(encode(message)), NOW, NOW).snapshot
    assert found is not None
    assert 64 <= len(found.followers) < 1000


# Agents of other versions.


def test_an_older_agent_knows_fewer_words() -> None:
    least = {"cluster": "main", "name": "pg2", "incarnation": "i", "uptime": 1, "serving": False}
    found = statement_of(decode(json.dumps(least).encode()), ASKED, RECEIVED)
    assert (found.snapshot, found.yields_to, found.stopped_serving_at, found.high_water) == (
        None,
        None,
        None,
        (),
    )


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"v": VERSION + 1}, id="a later format"),
        pytest.param({"v": 999999}, id="a far later format"),
        pytest.param({"lease": {"term": 4, "holders": [[[]]]}}, id="an unknown key"),
        pytest.param({"snapshot__checksums": True}, id="an unknown key of the snapshot"),
        pytest.param({"reason": "lease_expired"}, id="an unknown reason"),
        pytest.param({"sees__0__role": "quorum-primary"}, id="an unknown role in what it sees"),
    ],
)
def test_a_newer_agent_is_understood_as_far_as_can_be(changed: dict[str, Any]) -> None:
    content = json.loads(encode(FULL))
    for place, value in changed.items():
        *path, key = place.split("__")
        inner = content
        for step in path:
            inner = inner[int(step)] if step.isdigit() else inner[step]
        inner[key] = value
    found = statement_of(decode(json.dumps(content).encode()), ASKED, RECEIVED)
    assert found.serving
    assert found.snapshot is not None
    assert (found.snapshot.role, found.snapshot.timeline) == (Role.PRIMARY, 3)


def test_an_unknown_role_is_no_snapshot_at_all() -> None:
    found = statement_of(decode(with_changes(snapshot__role="quorum-primary")), ASKED, RECEIVED)
    assert found.snapshot is None
    assert found.serving


# What cannot be read.

REQUIRED = ("cluster", "name", "incarnation", "uptime", "serving")
WRONG: dict[str, list[Any]] = {
    "cluster": [None, 7, "x" * 256],
    "name": [None, ["pg2"], "x" * 256],
    "incarnation": [None, {}, "x" * 256],
    "uptime": [None, "60", -1, -0.001, 1e300, 4.1e9, True],
    "serving": [None, 1, "true", "yes"],
    "v": [None, "1", 1.5],
    "version": [7, "x" * 256],
    "counter": [None, -1, 2**63, 1.5, "1"],
    "echo": [7, {}, {"incarnation": "i"}, {"incarnation": "i", "counter": -1}],
    "witness": [None, "no", 0],
    "members_hash": [7],
    "address": [7, ["10.0.0.2"]],
    "snapshot": [7, [], {}, {"role": "primary"}, {"age": 1}],
    "snapshot__age": [None, -0.001, 1e300, "1", True],
    "snapshot__role": [None, 7],
    "snapshot__system_identifier": [7, "", "-1", "7a", "7" * 21, " 7"],
    "snapshot__timeline": [0, -1, 2**32, 1.5, "3"],
    "snapshot__server_version": [None, "15"],
    "snapshot__read_only": [None, 1],
    "snapshot__insert_lsn": [-1, 2**63, 10**30, 0.5],
    "snapshot__flush_lsn": [-1, 2**63, 10**30, "0/1"],
    "snapshot__received_lsn": [-1, 2**64],
    "snapshot__replayed_lsn": [-1, 2**64],
    "snapshot__replay_age_seconds": ["1", [1]],
    "snapshot__receiver": [7, {}, {"status": None}, {"status": "streaming", "port": "5432"}],
    "snapshot__followers": [None, 7, [7], [{}], [{"usename": 7}]],
    "not_serving_for": [-0.001, "1", 1e300],
    "last_served": [7, {}, {"timeline": 0, "ago": 1}, {"timeline": 1, "ago": -1}],
    "yields_to": [7, {}, {"name": "pg1"}, {"name": "pg1", "timeline": 0}, {"name": None, "timeline": 1}],
    "hwm": [
        None,
        {},
        [7],
        [{"system_identifier": 7, "timeline": 1}],
        [{"system_identifier": "7", "timeline": 0}],
    ],
    "reason": [None, 7, "x" * 256],
    "detail": [None, 7, "x" * 2001],
    "replica_ok": ["yes", 1],
    "replica_reason": [None, 7],
    "tags": [None, [], {"zone": [7]}, {"zone": None}, {"x" * 256: "y"}],
    "sees": [None, {}, [7], [{}], [{"name": 7}], [{"name": "pg1", "timeline": -1}]],
}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        pytest.param(place, value, id=f"{place} is {str(value)[:20]}")
        for place, values in WRONG.items()
        for value in values
    ],
)
def test_a_wrong_value_is_misunderstood(place: str, value: Any) -> None:
    with pytest.raises(Misunderstood) as caught:
        decode(with_changes(**{place: value}))
    assert len(str(caught.value)) < 300
    assert "x" * 50 not in str(caught.value)  # says where, and quotes nothing


def test_every_field_has_a_wrong_value() -> None:
    assert {place for place in WRONG if "__" not in place} == set(Message.__struct_fields__)


@pytest.mark.parametrize("key", REQUIRED)
def test_a_required_key_is_missing(key: str) -> None:
    content = json.loads(encode(FULL))
    del content[key]
    with pytest.raises(Misunderstood, match=key):
        decode(json.dumps(content).encode())


LONG_LIST = [{"name": "w1"}] * 257


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"<html>502 Bad Gateway</html>", id="a proxy's error page"),
        pytest.param(b"\xff\xfe" * 50, id="no UTF-8"),
        pytest.param(b'{"name":"\xed\xa0\x80"}', id="a lone surrogate"),
        pytest.param(encode(FULL)[:-1], id="cut off"),
        pytest.param(encode(FULL) + b"{}", id="two messages"),
        pytest.param(encode(FULL).replace(b'"uptime":60.0', b'"uptime":NaN'), id="NaN"),
        pytest.param(encode(FULL).replace(b'"uptime":60.0', b'"uptime":Infinity'), id="Infinity"),
        pytest.param(encode(FULL).replace(b'"uptime":60.0', b'"uptime":1e999'), id="a number beyond floats"),
        pytest.param(encode(FULL).replace(b'"uptime":60.0', b'"uptime":-1e999'), id="one below them"),
        pytest.param(b"[" * 100_000, id="nested beyond reason"),
        pytest.param(b'{"a":' * 40_000 + b"1" + b"}" * 40_000, id="objects nested beyond reason"),
        pytest.param(
            encode(FULL)[:-1] + b',"later":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
            id="an unknown key nested deep",
        ),
        pytest.param(b" " * (MAX_BYTES + 1), id="one byte too long"),
        pytest.param(b'{"a":"' + b"x" * 10_000_000 + b'"}', id="10 MB"),
        pytest.param(with_changes(sees=LONG_LIST), id="257 members"),
        pytest.param(with_changes(tags={str(n): "x" for n in range(65)}), id="65 tags"),
        pytest.param(
            with_changes(hwm=[{"system_identifier": str(n), "timeline": 1} for n in range(65)]), id="65 marks"
        ),
        pytest.param(
            encode(FULL).replace(b'"timeline":3', b'"timeline":' + b"9" * 5000),
            id="an integer of 5000 digits",
        ),
    ],
)
def test_what_is_no_message(body: bytes) -> None:
    with pytest.raises(Misunderstood):
        decode(body)


def test_the_longest_message_that_is_read() -> None:
    padded = encode(FULL) + b" " * (MAX_BYTES - len(encode(FULL)))
    assert decode(padded) == FULL


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_misunderstood_at_worst(body: bytes) -> None:
    with pytest.raises(Misunderstood):
        decode(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(WRONG)), JSON)
def test_any_value_anywhere_is_read_or_misunderstood(place: str, value: Any) -> None:
    body = with_changes(**{place: value})
    try:
        message = decode(body)
    except Misunderstood:
        return
    statement_of(message, ASKED, RECEIVED)


@given(st.integers(0, len(encode(FULL)) - 1), st.binary(min_size=1, max_size=4))
def test_a_damaged_message_is_read_or_misunderstood(place: int, junk: bytes) -> None:
    whole = encode(FULL)
    try:
        message = decode(whole[:place] + junk + whole[place + len(junk) :])
    except Misunderstood:
        return
    statement_of(message, ASKED, RECEIVED)


def test_a_replica_keeps_what_a_verdict_needs() -> None:
    message = Message("main", "pg3", "i", 1.0, serving=False, snapshot=said_of(follower("pg1"), NOW))
    found = statement_of(decode(encode(message)), NOW, NOW).snapshot
    assert found is not None
    assert found.streaming
    assert found.receiver == follower("pg1").receiver
