"""No secret is shown: not in an answer, the log, an error, the configuration, or the list of processes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from healthagent.demo.binaries import Binaries
from healthagent.demo.cluster import Cluster, Template
from tests.bed.agent import Agent
from tests.bed.certificates import Certificates
from tests.bed.command import ran

pytestmark = pytest.mark.live

PEER, TOKEN, PASSWORD = "peer-secret-of-this-test", "control-token-of-this-test", "password-of-this-test"
SECRETS = (PEER, TOKEN, PASSWORD)
PATHS = (
    "/status",
    "/events",
    "/metrics",
    "/patroni",
    "/cluster",
    "/history",
    "/primary",
    "/peer",
    "/nowhere",
)


def test_no_secret_is_shown(tmp_path: Path, binaries: Binaries) -> None:
    with (
        Template(binaries, passwords={"healthagent": PASSWORD}) as template,
        Cluster(binaries, 1, template=template) as cluster,
    ):
        [node] = cluster.nodes
        agent = Agent(tmp_path, node, settings={"log": {"level": "debug"}})
        agent.change(
            {
                "postgres": {"password": PASSWORD},
                "peer": {"secret": PEER},
                "control": {"token": TOKEN},
                "peers": [
                    {"name": "pg2", "url": "http://127.0.0.1:1", "dsn": f"host=127.0.0.1 password={PASSWORD}"}
                ],
                "fence": {"command": ["env"], "after": "0s"},
                "start_alone_after": "3s",
            }
        )
        shown = []
        with agent:
            agent.wait_for("/primary", 200)
            shown += [str(agent.get(path).json) for path in PATHS]
            refused = agent.post(
                "/maintenance", {"on": True}, Authorization=f"Bearer {TOKEN}x", Origin="null"
            )
            shown.append(str(refused.json))
            shown.append(str(agent.post("/peer", {"x": 1}, X_Healthagent_Signature="sha256=0").json))
            commands = [Path("/proc", str(agent.pid), "cmdline").read_bytes().decode()]
            agent.reload(peer={"secret": "short"}, postgres={"password": f"{PASSWORD}\n2"})
            shown += [str(ran(*words, "-c", str(agent.config)).stdout) for words in (["config", "check"],)]
            agent.change({"peer": {"secret": PEER}, "postgres": {"password": PASSWORD}})
            agent.reload()
            for words in (["config", "show"], ["config", "check"], ["peers", "check"], ["list"]):
                told = ran(*words, "-c", str(agent.config))
                shown.append(told.stdout + told.stderr)
            node.psql(f"ALTER ROLE healthagent PASSWORD '{PASSWORD}-changed'")
            node.restart()
            agent.wait_for("/primary", 503, "auth_failed", timeout=30)
            shown += [str(agent.get(path).json) for path in PATHS]
        shown.append(agent.log())
        found = [(secret, text) for text in (*shown, *commands) for secret in SECRETS if secret in text]
        assert found == []
        assert "***" in shown[len(PATHS) + 3]  # config show says that there is one


@pytest.fixture
def agent_over_tls(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[tuple[Agent, str, Path]]:
    """A witness with TLS: the agent, its URL over TLS, and who signed its certificate."""
    (tmp_path / "ours").mkdir()
    certificates, port = Certificates(tmp_path / "ours"), free_port()
    pem = str(certificates.pem("localhost"))
    agent = Agent(tmp_path, settings={"witness": True, "control": {"token": TOKEN}})
    agent.change(
        {
            "listen": f"127.0.0.1:{port}",
            "checks": {"listen": f"127.0.0.1:{agent.port}"},
            "tls": {"cert": pem, "key": pem},
            "peers": [{"name": "pg2", "url": "http://127.0.0.1:1"}],
        }
    )
    with agent:
        yield agent, f"https://localhost:{port}", certificates.ca


def test_a_token_goes_only_to_an_agent_that_proves_who_it_is(
    tmp_path: Path, agent_over_tls: tuple[Agent, str, Path]
) -> None:
    agent, url, ca = agent_over_tls
    (tmp_path / "others").mkdir()
    (tmp_path / "token").write_text(TOKEN)
    words = ("maintenance", "on", "--url", url, "--token-file", str(tmp_path / "token"), "--ca")
    refused = ran(*words, str(Certificates(tmp_path / "others").ca))
    assert (refused.returncode, "certificate verify failed" in refused.stderr.lower()) == (3, True)
    assert agent.status()["maintenance"] is None
    taken = ran(*words, str(ca))
    assert taken.returncode == 0, taken.stderr
    assert agent.status()["maintenance"] is not None
    assert TOKEN not in taken.stdout + taken.stderr + refused.stderr
    assert ran(*words, "/nowhere").returncode == 2
