"""checks.allow between hosts: strangers get no check, whatever they write, and are heard as peers."""

import subprocess

import pytest

from healthagent.demo.postgres import until
from tests.bed.site import PORT, Site

pytestmark = pytest.mark.live
CHECK = 8009


def asked(site: Site, host: str, path: str, *arguments: str) -> str:
    """The status that a host gets from pg1."""
    url = f"http://{site.network['pg1'].address}:{PORT}{path}"
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "5", *arguments, url]
    return subprocess.run(
        [*site.network[host].prefix, *command], capture_output=True, text=True, check=False
    ).stdout


def agent_check(site: Site, host: str) -> str:
    script = f"exec 3<>/dev/tcp/{site.network['pg1'].address}/{CHECK}; echo primary >&3; cat <&3"
    command = [*site.network[host].prefix, "bash", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout


def test_only_who_is_allowed_is_answered(site: Site) -> None:
    allowed, stranger = site.network["pg2"].address, "w1"
    site.ready({"checks": {"allow": [f"{allowed}/32"]}, "agent_check": {"listen": "0.0.0.0:8009"}}, nodes=2)
    for path in ("/primary", "/status", "/metrics", "/events", "/nowhere"):
        assert asked(site, stranger, path) == "403", path
        assert asked(site, stranger, path, "-H", f"X-Forwarded-For: {allowed}") == "403", path
        assert asked(site, stranger, path, "-I") == "403", path
    assert asked(site, stranger, "/maintenance", "-d", "{}", "-H", "Content-Type: application/json") == "403"
    assert asked(site, "pg2", "/primary") == "200"
    assert (agent_check(site, "pg2"), agent_check(site, stranger)) == ("up\n", "")
    # the witness is a stranger to checks, and heard as a peer
    until(lambda: site.heard("pg1") == 3, 10, "all hear each other")
    assert asked(site, stranger, "/peer") == "200"
    site.agents["pg1"].reload(checks={"allow": None})
    until(lambda: asked(site, stranger, "/primary") == "200", 10, "everybody may ask again")
