"""What HAProxy says of its sessions towards this node."""

import pytest

from healthagent.server.haproxy_state import (
    MAX_BYTES,
    MAX_SERVERS,
    MAX_SESSIONS_BYTES,
    SILENCE,
    HaproxyState,
    HaproxyStates,
    parse_sessions,
    parse_state,
)

# captured from HAProxy 2.6.12
CAPTURED = "UP 1/3; address=127.0.0.1; port=21999; name=b15/s; node=vm; weight=1/1; scur=0/0; qcur=0"
NOW = 1000.0


def header(server: str = "pg_primary/pg1", node: str = "lb1", scur: str = "13/22") -> str:
    return (
        f"UP 2/3; address=10.0.0.11; port=5432; name={server}; node={node}; weight=1/2; scur={scur}; qcur=0"
    )


@pytest.mark.parametrize(
    ("text", "state"),
    [
        pytest.param(CAPTURED, HaproxyState("vm", "b15/s", 0), id="as HAProxy 2.6 writes it"),
        pytest.param(
            header(), HaproxyState("lb1", "pg_primary/pg1", 13), id="the server's sessions, not the backend's"
        ),
        pytest.param(
            "DOWN 1/2; name=bck/srv2; node=lb1; weight=1/2; scur=7/22; qcur=0; throttle=20%",
            HaproxyState("lb1", "bck/srv2", 7),
            id="without an address, with a word that we do not know",
        ),
    ],
)
def test_the_header_is_read(text: str, state: HaproxyState) -> None:
    assert parse_state(text) == state


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("UP 1/3", id="no fields"),
        pytest.param(header(scur="x/22"), id="sessions that are no number"),
        pytest.param(header(scur="-1/22"), id="negative sessions"),
        pytest.param(header(scur="٣/4"), id="digits of another script"),
        pytest.param(header(scur="9" * 11 + "/1"), id="more sessions than a counter of HAProxy holds"),
        pytest.param(header(scur="13"), id="sessions without the backend's"),
        pytest.param(header(server="pg1"), id="a server without its backend"),
        pytest.param(header(server='pg/"\\'), id="a name that HAProxy would refuse"),
        pytest.param(header(server="pg/\udcff"), id="bytes that are no text"),
        pytest.param(header(node=""), id="no load balancer"),
        pytest.param(header() + "; x=" + "y" * MAX_BYTES, id="longer than HAProxy ever writes"),
    ],
)
def test_what_haproxy_does_not_write_is_ignored(text: str) -> None:
    assert parse_state(text) is None
    states = HaproxyStates()
    states.note("10.0.0.1", text, "", NOW)
    assert states.sessions(NOW) == {}


def test_the_longest_allowed_header_is_read() -> None:
    filled = header() + "; x="
    assert parse_state(filled + "y" * (MAX_BYTES - len(filled))) is not None


def test_the_last_word_of_a_load_balancer_counts() -> None:
    states = HaproxyStates()
    states.note("10.0.0.1", header(scur="13/22"), "", NOW)
    states.note("10.0.0.1", header(scur="4/4"), "", NOW + 1)
    assert states.sessions(NOW + 1) == {"pg_primary/pg1": 4}


def test_sessions_of_several_load_balancers_add_up() -> None:
    states = HaproxyStates()
    states.note("10.0.0.1", header(node="lb1", scur="3/3"), "", NOW)
    states.note("10.0.0.1", header(node="lb2", scur="4/4"), "", NOW)
    states.note("10.0.0.2", header(node="lb2", scur="5/5"), "", NOW)
    states.note("10.0.0.1", header("pg_replica/pg1", scur="1/1"), "", NOW)
    assert states.sessions(NOW) == {"pg_primary/pg1": 12, "pg_replica/pg1": 1}


def test_a_silent_load_balancer_is_forgotten() -> None:
    states = HaproxyStates()
    states.note("10.0.0.1", header(), "", NOW)
    assert states.sessions(NOW + SILENCE) == {"pg_primary/pg1": 13}
    assert states.sessions(NOW + SILENCE + 0.1) == {}


def test_only_so_many_servers_are_remembered_and_the_longest_silent_makes_room() -> None:
    states = HaproxyStates()
    for number in range(MAX_SERVERS):
        states.note("10.0.0.1", header(f"pg/s{number}"), "", NOW + number / 1000)
    states.note("10.0.0.1", header("pg/s0"), "", NOW + 1)  # the first one speaks again
    assert len(states.sessions(NOW + 1)) == MAX_SERVERS
    states.note("10.0.0.1", header("pg/new"), "", NOW + 2)
    known = states.sessions(NOW + 2)
    assert len(known) == MAX_SERVERS
    assert {"pg/new", "pg/s0"} <= known.keys()
    assert "pg/s1" not in known


@pytest.mark.parametrize(
    ("text", "sessions"),
    [
        pytest.param("pg_primary/pg1=13 pg_primary/pg2=4", {"pg_primary/pg1": 13}, id="of this server only"),
        pytest.param("a/pg1=1 b/pg1=2", {"a/pg1": 1, "b/pg1": 2}, id="in several backends"),
        pytest.param("pg_primary/pg11=13 pg_primary/pg=1", {}, id="of names that are longer or shorter"),
        pytest.param("", {}, id="nothing"),
        pytest.param("pg_primary/pg1", {}, id="no number"),
        pytest.param("pg_primary/pg1=-1", {}, id="a negative number"),
        pytest.param("pg_primary/pg1=" + "9" * 11, {}, id="more sessions than a counter of HAProxy holds"),
        pytest.param("pg1=13", {}, id="a server without its backend"),
        pytest.param("pg_primary/pg1=13,", {}, id="another separator"),
    ],
)
def test_sessions_of_another_backend_are_read(text: str, sessions: dict[str, int]) -> None:
    assert parse_sessions(text, "pg1") == sessions


def test_the_sessions_of_another_backend_are_bounded() -> None:
    filled = "pg_primary/pg1=13 " + "x" * MAX_SESSIONS_BYTES
    assert parse_sessions(filled[:MAX_SESSIONS_BYTES], "pg1") == {"pg_primary/pg1": 13}
    assert parse_sessions(filled[: MAX_SESSIONS_BYTES + 1], "pg1") == {}


def test_a_backend_that_only_asks_tells_of_the_one_with_the_sessions() -> None:
    states = HaproxyStates()
    states.note("10.0.0.1", header("pg_probe/pg1", scur="0/0"), "pg_primary/pg1=3 pg_primary/pg2=9", NOW)
    assert states.sessions(NOW) == {"pg_probe/pg1": 0, "pg_primary/pg1": 3}
