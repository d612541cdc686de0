"""Find the known traps in an HAProxy configuration for PostgreSQL.

Syntax is HAProxy's own business (`haproxy -c -f FILE`); what is found here is valid and dangerous.
A backend is judged only if its check shows that it belongs to PostgreSQL (see topology), or if its
name says that it takes PostgreSQL's writes and its check cannot tell who is primary (traps_roles).
"""

from pathlib import Path

from healthagent.haproxy.finding import Finding
from healthagent.haproxy.syntax import PROXIES, parse
from healthagent.haproxy.topology import understand
from healthagent.haproxy.traps_checks import check_traps
from healthagent.haproxy.traps_process import process_traps
from healthagent.haproxy.traps_roles import role_traps
from healthagent.haproxy.traps_writes import TRAPS as WRITE_TRAPS

MOST_BYTES = 1 << 20
MOST_LINES = 10_000
MOST_PROXIES = 500  # each listener may lead to each backend: what is judged grows with the square


class UnreadableConfiguration(ValueError):
    """A file that is no configuration, or too large for one: rule and value."""


def lint(text: str) -> list[Finding]:
    """Return every trap in this configuration, in the order of its lines.

    Raises UnreadableConfiguration when it has more than 500 proxies.
    """
    sections = parse(text)
    count = sum(section.kind in PROXIES for section in sections)
    if count > MOST_PROXIES:
        raise UnreadableConfiguration(f"must have at most {MOST_PROXIES} proxies, has {count}")
    topology = understand(sections)
    found = {*check_traps(topology), *role_traps(topology), *process_traps(topology)}
    for proxy in topology.primaries():
        for trap in WRITE_TRAPS:
            found.update(trap(topology, proxy))
    return sorted(found)


def read_configuration(path: Path) -> str:
    """Read a configuration file, at most 1 MiB of text in 10,000 lines.

    Raises OSError when it cannot be read, UnreadableConfiguration when it is something else.
    """
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise UnreadableConfiguration(f"must be at most {MOST_BYTES} bytes, has more")
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        raise UnreadableConfiguration(f"must be text, got a NUL byte in line {line}")
    lines = content.count(b"\n") + 1
    if lines > MOST_LINES:
        raise UnreadableConfiguration(f"must have at most {MOST_LINES} lines, has {lines}")
    return content.decode("utf-8", "replace")  # HAProxy itself takes any bytes in comments and names
