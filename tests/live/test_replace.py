"""`healthagent run --replace`: another process answers, and nobody notices."""

from pathlib import Path

import pytest

from tests.bed.certificates import Certificates
from tests.bed.haproxy import Missing, find_haproxy
from tests.bed.replacing import Seen, replaced
from tests.conftest import StartCluster

pytestmark = pytest.mark.live

COUNT = 3  # bench/replacements.py does 50
SECRET = "a secret of at least this many bytes"


def unnoticed(seen: Seen) -> None:
    """Claim that nobody saw anything."""
    assert (seen.checks_failed, seen.marked_down) == (0, 0), seen.proxy_said
    assert seen.refused == []
    assert list(seen.cut) == []
    assert seen.commits > 0
    assert len(seen.incarnations) == 1
    assert seen.seen_as == {"heard, primary, no alarm"}
    assert seen.peers_said == ""


@pytest.mark.parametrize("how", ["pulling", "secret", "tls"])
async def test_nobody_notices_that_the_agent_of_a_serving_primary_is_replaced(
    start_cluster: StartCluster, tmp_path: Path, how: str
) -> None:
    program = find_haproxy("2.6")
    if isinstance(program, Missing):
        pytest.fail(program.problem, pytrace=False)
    nodes = start_cluster(3).nodes
    settings: dict[str, object] = {"peer": {"secret": SECRET}} if how == "secret" else {}
    if how == "tls":
        pem = str(Certificates(tmp_path).pem("agents.test"))
        settings["tls"] = {"cert": pem, "key": pem}
    seen = await replaced(program, nodes, tmp_path, COUNT, settings=settings, tls=how == "tls")
    assert seen.replacements == COUNT
    unnoticed(seen)
