"""The container image: built from the Dockerfile, small, and run as strictly as a cluster would."""

import http.client
import json
import os
import time
from collections.abc import Iterator

import pytest

from healthagent import __version__
from healthagent.demo.ports import free_port
from healthagent.demo.postgres import Node, until
from tests.bed.image import IMAGE, Images, missing

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]  # the base is made once, in one to two minutes
STRICT = (
    *("--read-only", "--read-only-tmpfs=false", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges", "--user", "12345:23456"),
)


@pytest.fixture(scope="module")
def images() -> Iterator[Images]:
    problem = missing()
    if problem is not None and os.geteuid() != 0 and "CI" not in os.environ:
        pytest.skip(problem)
    if problem is not None:
        pytest.fail(problem, pytrace=False)
    with Images() as made:
        made.build()
        yield made


def ask(port: int, path: str) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_what_the_image_says_of_itself(images: Images) -> None:
    said = images.inspect()
    labels = {
        key.removeprefix("org.opencontainers.image."): value
        for key, value in said["Config"]["Labels"].items()
    }
    assert labels["title"] == "healthagent"
    assert labels["version"] == __version__
    assert len(labels["revision"]) == 40 or labels["revision"] == "unknown"
    assert labels["licenses"] == "PostgreSQL"
    assert labels["description"]
    assert labels["base.name"] == "localhost/base:test"
    assert said["Config"]["User"] == "65532:65532"
    assert said["Config"]["Entrypoint"] == ["healthagent"]
    environment = [entry.partition("=")[0] for entry in said["Config"]["Env"]]
    assert not [name for name in environment if name.startswith("PIP_")], "a setting of the build stayed"


def test_nothing_is_in_it_that_it_does_not_need(images: Images) -> None:
    found = images.shell(
        "command -v gcc cc c++ make ld; ls -d /src /root/.cache /opt/healthagent/lib/*/site-packages/pip;"
        " du -sm /opt/healthagent | cut -f 1; find / -xdev -type f -perm /6000 -path '/opt/*'"
    ).split()
    assert len(found) == 1, f"left over: {found}"
    assert int(found[0]) < 100, "MB of dependencies"


def test_beside_postgres_and_as_strict_as_can_be(images: Images, postgres: Node) -> None:
    port = free_port()
    variables = {
        "HEALTHAGENT_NAME": "pg0",
        "HEALTHAGENT_LISTEN": f"127.0.0.1:{port}",
        "HEALTHAGENT_POSTGRES_DSN": postgres.dsn(),
    }
    container = images.run(*STRICT, environment=variables)

    def serves() -> bool:
        try:
            return ask(port, "/primary")[0] == 200
        except OSError:
            return False

    try:
        until(serves, 60, "the container answers 200 on /primary")
    except TimeoutError:
        logs = images.podman("logs", container)
        pytest.fail(logs.stdout + logs.stderr)
    assert ask(port, "/status")[1]["alarms"] == [], "the state cannot be written"
    health = images.podman("healthcheck", "run", container)
    assert health.returncode == 0, health.stdout + health.stderr
    [state] = json.loads(images.podman("inspect", container).stdout)
    assert state["State"].get("Health", state["State"].get("Healthcheck"))["Status"] == "healthy"

    began = time.monotonic()
    assert images.podman("kill", "--signal", "TERM", container).returncode == 0
    ended = images.podman("wait", container)
    assert (ended.stdout.strip(), time.monotonic() - began < 5) == ("0", True)


def test_it_needs_no_pip(images: Images) -> None:
    listed = images.shell("/opt/healthagent/bin/python -m pip --version; healthagent --version")
    assert listed.strip() == f"healthagent {__version__}", f"{IMAGE} has pip: {listed}"
