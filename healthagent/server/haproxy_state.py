"""What HAProxy says of this node as its server, in the header that `http-check send-state` adds to a check:

    UP 1/3; address=10.0.0.11; port=5432; name=pg_primary/pg1; node=lb1; weight=1/1; scur=13/22; qcur=0

The format is in HAProxy's configuration manual under `http-check send-state`. Sessions that a
load balancer still holds towards a node that answers 503 are what an operator must hear of.

A backend that only asks, as the tally of the gate layout, has no sessions itself. It adds those of the
backend that carries the traffic, of every server, since HAProxy has no line of checks for one server:

    X-Healthagent-Sessions: pg_primary/pg1=13 pg_primary/pg2=0

Whoever reaches the port can send these headers: they are bounded, and only ever become a metric.
"""

import re
from dataclasses import dataclass

from healthagent.core.model import Instant

HEADER = "X-Haproxy-Server-State"
SESSIONS_HEADER = "X-Healthagent-Sessions"
MAX_SERVERS = 64  # the same node in several backends of several load balancers
MAX_BYTES = 1024  # of one header: two names of 255 bytes, and the rest
MAX_SESSIONS_BYTES = 8192  # of the other: 64 servers with long names
SILENCE = 60.0  # seconds without a check after which the sessions are unknown, not the same

# the characters that HAProxy allows in names of proxies, servers and nodes
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,255}")
_SERVER = re.compile(r"[A-Za-z0-9_.:-]{1,255}/[A-Za-z0-9_.:-]{1,255}")
_SESSIONS = re.compile(r"([0-9]{1,10})/[0-9]{1,10}")  # of the server, of its whole backend
_ELSEWHERE = re.compile(r"([A-Za-z0-9_.:-]{1,255}/([A-Za-z0-9_.:-]{1,255}))=([0-9]{1,10})")


@dataclass(frozen=True, slots=True)
class HaproxyState:
    """One server of one load balancer."""

    node: str  # the load balancer's own name
    server: str  # backend/server
    sessions: int  # current ones of that server


def parse_state(header: str) -> HaproxyState | None:
    """Read the header, or None when it is not as HAProxy writes it."""
    if len(header) > MAX_BYTES:
        return None
    _, *pairs = header.split(";")
    words = dict(pair.strip().partition("=")[::2] for pair in pairs)
    node, server = words.get("node", ""), words.get("name", "")
    sessions = _SESSIONS.fullmatch(words.get("scur", ""))
    if not _NAME.fullmatch(node) or not _SERVER.fullmatch(server) or sessions is None:
        return None
    return HaproxyState(node, server, int(sessions[1]))


def parse_sessions(header: str, name: str) -> dict[str, int]:
    """Sessions by server (backend/server) of those servers that bear this name; nothing of nonsense."""
    words = header.split(" ") if len(header) <= MAX_SESSIONS_BYTES else []
    found = (_ELSEWHERE.fullmatch(word) for word in words)
    return {match[1]: int(match[3]) for match in found if match is not None and match[2] == name}


class HaproxyStates:
    """The last word of each load balancer on each of its servers, the longest silent first."""

    def __init__(self) -> None:
        # two load balancers may bear one node name (both "localhost"), but not from one address too
        self._known: dict[tuple[str, str, str], tuple[Instant, int]] = {}

    def note(self, sender: str, header: str, elsewhere: str, now: Instant) -> None:
        """Take in the headers of a check from the address `sender`; `elsewhere` is empty if not sent."""
        state = parse_state(header)
        if state is None:
            return
        name = state.server.partition("/")[2]
        for server, sessions in {**parse_sessions(elsewhere, name), state.server: state.sessions}.items():
            key = (sender, state.node, server)
            self._known.pop(key, None)
            self._known[key] = (now, sessions)
        while len(self._known) > MAX_SERVERS:
            del self._known[next(iter(self._known))]

    def sessions(self, now: Instant) -> dict[str, int]:
        """Current sessions by server (backend/server), those of all load balancers together."""
        found: dict[str, int] = {}
        for (_, _, server), (noted_at, sessions) in self._known.items():
            if now - noted_at <= SILENCE:
                found[server] = found.get(server, 0) + sessions
        return found
