"""The pod's label follows the verdicts, whatever the Kubernetes API does."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from healthagent.board import Board
from healthagent.clock import boottime
from healthagent.config import KubernetesSettings
from healthagent.core.view import Maintenance
from healthagent.kubernetes import NoApi, PodApi, RoleLabel, label, label_families
from healthagent.peers.resolve import Names
from tests.bed.boards import PRIMARY, START, Clock, board, replica
from tests.bed.certificates import Certificates
from tests.bed.kubernetes_api import ANNOTATION, LABEL, NAME, PodServer

# asyncio's TLS transports close some turns of the loop after everybody has let go of them
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")

OUT = Maintenance(until=None)
TIMEOUT = 0.5


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other fast; the label is looked at again only where a test says so."""
    monkeypatch.setattr(label, "SOON", 0.01)
    monkeypatch.setattr(label, "SLOW", 0.05)
    monkeypatch.setattr(label, "LOOK_EVERY", 600.0)


def settings(folder: Path, api: PodServer, **more: Any) -> KubernetesSettings:
    values: dict[str, Any] = {
        "role_label": LABEL,
        "pod": NAME,
        "api": api.url,
        "token_file": folder / "token",
        "ca_file": folder / "ca.crt",
        "timeout": TIMEOUT,
    }
    return KubernetesSettings(**(values | more))


@contextlib.asynccontextmanager
async def keeping(
    folder: Path, api: PodServer, made: Board, clock: Callable[[], float] | None = None, **more: Any
) -> AsyncIterator[RoleLabel]:
    """The label kept on `api`; ending it takes no time, whatever it waits for."""
    api.files(folder) if api.tls is None else None
    wanted = settings(folder, api, **more)
    names = Names(boottime)
    kept = RoleLabel(
        made, PodApi(wanted, names), clock or Clock(), LABEL, uid=wanted.uid, timeout=wanted.timeout
    )
    task = asyncio.create_task(kept.run())
    try:
        yield kept
    finally:
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=2.0)
        assert done, "a cancelled label waits for something"
        await names.close()
        if not task.cancelled():
            task.result()


def turn(made: Board, kept: RoleLabel, maintenance: Maintenance | None) -> None:
    """Take the node out, or back, as the daemon notices it."""
    made.maintain(maintenance, START)
    kept.note(START)


# What is kept.


async def test_the_label_is_the_verdict(tmp_path: Path) -> None:
    made = board(PRIMARY)
    async with PodServer() as api, keeping(tmp_path, api, made) as kept:
        await kept.settle(20)
        turn(made, kept, OUT)
        await kept.settle(20)
        made.observe(replica(), START)
        turn(made, kept, None)
        await kept.settle(20)
        made.observe(PRIMARY, START)
        kept.note(START)
        await kept.settle(20)
        assert api.history == ["primary", None, "replica", "primary"]
        assert api.labels["app"] == "pg", "another label was touched"
        assert api.calls.count(("get", 200)) == 1, "a change needs one call: the version is known"


async def test_a_label_of_a_predecessor_is_taken_away_first(tmp_path: Path) -> None:
    async with PodServer(label="primary") as api, keeping(tmp_path, api, board(None)) as kept:
        await api.says(None)
        await until(lambda: not kept.stale(START))
        assert api.history == [None]


async def test_until_the_first_answer_the_pod_may_say_anything(tmp_path: Path) -> None:
    async with PodServer() as api:
        api.hanging = asyncio.Event()
        clock = Clock()
        async with keeping(tmp_path, api, board(None), clock) as kept:
            assert kept.stale(START) == {"primary", "replica"}
            assert kept.stale_for(START + 7) == 7
            await until(lambda: kept.error is not None)
            assert kept.alarms(START) == [
                f"kubernetes: the pod may still say {LABEL}=primary or replica, and must not: "
                f"{api.url} has not answered within 0.5 s"
            ]
            api.hanging.set()
            await until(lambda: kept.error is None)
            assert (kept.stale_for(START), kept.alarms(START)) == (None, [])


async def test_a_label_that_is_right_is_not_written(tmp_path: Path) -> None:
    async with PodServer(label="primary") as api, keeping(tmp_path, api, board(PRIMARY)) as kept:
        await api.called("get", 200)
        await until(lambda: kept.may_say() == {"primary"})
        assert api.calls == [("get", 200)]


async def test_what_somebody_changes_by_hand_is_put_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label, "LOOK_EVERY", 0.05)
    async with PodServer() as api, keeping(tmp_path, api, board(PRIMARY)):
        await api.says("primary")
        api.labels[LABEL] = "replica"
        api.touched()
        await api.says("primary")


# What can go wrong.


async def test_a_pod_that_has_changed_meanwhile_is_looked_at_again(tmp_path: Path) -> None:
    made = board(PRIMARY)
    async with PodServer() as api, keeping(tmp_path, api, made) as kept:
        await api.says("primary")
        api.before_patch = api.touched
        turn(made, kept, OUT)
        await api.says(None)
        assert ("patch", 409) in api.calls
        assert kept.error is None, "the kubelet writes too: that is no trouble"


async def test_conflicts_without_end_are_trouble(tmp_path: Path) -> None:
    async with PodServer() as api:

        def always() -> None:
            api.touched()
            api.before_patch = always

        api.before_patch = always
        async with keeping(tmp_path, api, board(PRIMARY)) as kept:
            await until(lambda: kept.error is not None)
            assert kept.alarms(START)[0].startswith(
                f"kubernetes: the pod cannot be labelled {LABEL}=primary: the pod was changed by others each"
            )
            api.before_patch = None
            await api.says("primary")


@pytest.mark.parametrize("verb", ["get", "patch"])
async def test_without_the_right_the_verb_is_named(tmp_path: Path, verb: str) -> None:
    async with PodServer() as api:
        api.forbidden = {verb}
        async with keeping(tmp_path, api, board(PRIMARY)) as kept:
            await until(lambda: kept.error is not None)
            assert kept.error == (
                f"the service account may not {verb} this pod: its Role needs the verb '{verb}' on the "
                f'resource \'pods\' (pods "pg-0" is forbidden: User "system:serviceaccount:db:pg" cannot '
                f'{verb} resource "pods" in API group "" in the namespace "db")'
            )
            api.forbidden = set()
            await api.says("primary")
            await until(lambda: kept.error is None)


async def test_an_api_that_asks_for_patience_gets_it(tmp_path: Path) -> None:
    async with PodServer() as api:
        api.busy = ["1"]
        loop = asyncio.get_running_loop()
        async with keeping(tmp_path, api, board(PRIMARY)):
            await api.called("get", 429)
            asked_at = loop.time()
            await api.says("primary")
            assert loop.time() - asked_at >= 0.9
            assert api.calls == [("get", 429), ("get", 200), ("patch", 200)]


@pytest.mark.parametrize(
    ("header", "expected"),
    [(None, 0), ("0", 0), ("3", 3), ("10", 10), ("11", 10), ("99999", 10), ("-1", 0), ("soon", 0)],
)
def test_patience_has_an_end(header: str | None, expected: float) -> None:
    from healthagent.kubernetes.api import _patience

    assert _patience(header) == expected


@pytest.mark.parametrize("status", [500, 503, 504])
async def test_a_server_in_trouble_is_asked_again(tmp_path: Path, status: int) -> None:
    async with PodServer() as api:
        api.broken = [status] * 8
        async with keeping(tmp_path, api, board(PRIMARY)) as kept:
            await until(lambda: kept.error is not None)
            assert kept.error == f"the API answered {status} (etcdserver: leader changed)"
            await api.says("primary")


async def test_an_api_that_is_away_is_waited_for(tmp_path: Path) -> None:
    made = board(PRIMARY)
    async with PodServer() as api, keeping(tmp_path, api, made) as kept:
        await api.says("primary")
        async with api.away():
            turn(made, kept, OUT)
            await until(lambda: kept.error is not None)
            assert kept.stale(START) == {"primary"}
            assert kept.alarms(START) == [
                f"kubernetes: the pod may still say {LABEL}=primary, and must not: {kept.error}"
            ]
        await api.says(None)
        await until(lambda: not kept.stale(START))


async def test_nothing_was_sent_to_a_port_that_is_closed(tmp_path: Path) -> None:
    made = board(None)
    async with PodServer() as api, keeping(tmp_path, api, made) as kept:
        await api.called("get", 200)
        await until(lambda: not kept.may_say())
        async with api.away():
            made.observe(PRIMARY, START)
            kept.note(START)
            await until(lambda: kept.error is not None)
            assert not kept.may_say(), "what was never sent cannot be carried out"


async def test_a_hanging_attempt_ends_when_the_verdict_turns(tmp_path: Path) -> None:
    made = board(PRIMARY)
    async with PodServer() as api:
        api.late = asyncio.Event()
        async with keeping(tmp_path, api, made, timeout=60.0) as kept:
            await api.until(lambda: len(api.held) == 1)
            api.late = None
            turn(made, kept, OUT)
            # it may be carried out yet, so that a pod without a label is no proof: it is written to
            await until(lambda: not kept.may_say())
            assert kept.error is None
            assert api.label is None


async def test_a_patch_that_was_given_up_cannot_come_true_later(tmp_path: Path) -> None:
    made = board(PRIMARY)
    async with PodServer() as api:
        held = api.late = asyncio.Event()
        async with keeping(tmp_path, api, made) as kept:
            await api.until(lambda: len(api.held) == 1)
            api.late = None
            turn(made, kept, OUT)
            await until(lambda: not kept.may_say())
            held.set()
            await api.called("late", 409)
            assert (api.label, api.history) == (None, [])
            assert api.annotations[ANNOTATION].endswith("/2"), "nothing kept the first one from coming true"


async def test_a_patch_that_was_given_up_and_came_true_is_taken_back(tmp_path: Path) -> None:
    made = board(PRIMARY)
    async with PodServer() as api:
        held = api.late = asyncio.Event()
        async with keeping(tmp_path, api, made) as kept:
            await api.until(lambda: len(api.held) == 1)
            api.hanging, api.late = asyncio.Event(), None
            held.set()
            await api.says("primary")
            turn(made, kept, OUT)
            assert kept.stale(START) == {"primary"}
            api.hanging.set()
            await api.says(None)
            await until(lambda: not kept.stale(START))


async def test_a_namesake_is_not_labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label, "LOOK_EVERY", 0.05)
    async with PodServer() as api, keeping(tmp_path, api, board(PRIMARY)) as kept:
        await api.says("primary")
        # the pod was deleted and made anew elsewhere, this container goes on
        api.uid, api.labels = "22222222-0000-4000-8000-000000000002", {"app": "pg"}
        api.touched()
        await until(lambda: kept.error is not None)
        assert "is another one now" in str(kept.error)
        assert not kept.may_say()
        assert api.label is None


async def test_a_configured_uid_is_compared_from_the_first_look(tmp_path: Path) -> None:
    async with PodServer() as api, keeping(tmp_path, api, board(PRIMARY), uid="of before") as kept:
        await until(lambda: kept.error is not None)
        assert ("patch", 200) not in api.calls


async def test_a_pod_that_is_not_there(tmp_path: Path) -> None:
    async with PodServer() as api, keeping(tmp_path, api, board(PRIMARY), pod="pg-7") as kept:
        await until(lambda: kept.error is not None)
        assert kept.error == (
            "there is no pod 'pg-7' in the namespace 'db': see kubernetes.pod (pods \"pg-7\" not found)"
        )


# The account and TLS.


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("others"))


async def test_tokens_are_renewed_while_the_agent_runs(tmp_path: Path, certificates: Certificates) -> None:
    made = board(PRIMARY)
    async with PodServer(tls=certificates.server("127.0.0.1")) as api:
        api.files(tmp_path, certificates.ca)
        async with keeping(tmp_path, api, made) as kept:
            await kept.settle(20)
            api.tokens = {"a-newer-token"}
            turn(made, kept, OUT)
            await until(lambda: kept.error is not None)
            assert str(kept.error).startswith("the API does not accept the token in ")
            assert "a-token" not in str(kept.error)
            api.files(tmp_path, certificates.ca)
            await api.says(None)


async def test_only_an_api_that_the_ca_has_signed_gets_the_token(
    tmp_path: Path, certificates: Certificates, others: Certificates
) -> None:
    async with PodServer(tls=others.server("127.0.0.1")) as api:
        api.files(tmp_path, certificates.ca)
        async with keeping(tmp_path, api, board(PRIMARY)) as kept:
            await until(lambda: kept.error is not None)
            assert "its certificate is not believed: " in str(kept.error)
            assert api.calls == []
            api.files(tmp_path, others.ca)  # the cluster has a new authority: no restart is needed
            await api.says("primary")


async def test_the_certificate_is_for_the_address_that_is_asked(
    tmp_path: Path, certificates: Certificates
) -> None:
    async with PodServer(tls=certificates.server("another.example")) as api:
        api.files(tmp_path, certificates.ca)
        async with keeping(tmp_path, api, board(PRIMARY)) as kept:
            await until(lambda: kept.error is not None)
            assert "127.0.0.1" in str(kept.error)
            assert api.calls == []


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        pytest.param("token", None, "kubernetes.token_file: {} cannot be read: No such file or directory"),
        pytest.param("token", "\n", "kubernetes.token_file: {} must hold one line of text"),
        pytest.param("token", "a\nb", "kubernetes.token_file: {} must hold one line of text"),
        pytest.param("namespace", None, "kubernetes.namespace: {} cannot be read: No such file or directory"),
        pytest.param("ca.crt", None, "kubernetes.ca_file: {} cannot be read: No such file or directory"),
        pytest.param("ca.crt", "no PEM", "kubernetes.ca_file: {} must hold certificates in PEM"),
    ],
)
async def test_files_that_cannot_be_used(
    tmp_path: Path, certificates: Certificates, name: str, content: str | None, complaint: str
) -> None:
    async with PodServer(tls=certificates.server("127.0.0.1")) as api:
        api.files(tmp_path, certificates.ca)
        file = tmp_path / name
        file.unlink() if content is None else file.write_text(content)
        async with keeping(tmp_path, api, board(PRIMARY)) as kept:
            await until(lambda: kept.error is not None)
            assert kept.error == complaint.format(file)
            api.files(tmp_path, certificates.ca)
            await api.says("primary")


def test_where_the_api_is() -> None:
    wanted = KubernetesSettings(role_label=LABEL)
    names = Names(boottime)

    def url(**environment: str) -> str:
        return PodApi(wanted, names, environment).url

    assert url(KUBERNETES_SERVICE_HOST="10.96.0.1", KUBERNETES_SERVICE_PORT="443") == "https://10.96.0.1:443"
    assert url(KUBERNETES_SERVICE_HOST="fd00::1", KUBERNETES_SERVICE_PORT="443") == "https://[fd00::1]:443"
    with pytest.raises(NoApi, match=r"kubernetes\.api: must be set where KUBERNETES_SERVICE_HOST"):
        url(KUBERNETES_SERVICE_HOST="10.96.0.1")


# The end, and what is told.


async def test_the_end_waits_for_the_label_to_go(tmp_path: Path) -> None:
    made = board(PRIMARY)
    async with PodServer() as api, keeping(tmp_path, api, made) as kept:
        await api.says("primary")
        made.stop(START)
        kept.note(START)
        await kept.settle(10.0)
        assert api.label is None


async def test_the_end_does_not_wait_for_ever(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = board(PRIMARY)
    async with PodServer() as api, keeping(tmp_path, api, made) as kept:
        await api.says("primary")
        api.hanging = asyncio.Event()
        made.stop(START)
        kept.note(START)
        with caplog.at_level(logging.WARNING):
            await kept.settle(0.05)
        assert caplog.messages == [
            f"kubernetes: the agent ends although the pod may still say {LABEL}=primary"
        ]
        api.hanging.set()


class _Registered(Collector):
    def __init__(self, kept: RoleLabel | None, now: float) -> None:
        self.kept, self.now = kept, now

    def collect(self) -> list[Metric]:
        return list(label_families(self.kept, self.now))


def scraped(kept: RoleLabel | None, now: float) -> list[str]:
    registry = CollectorRegistry()
    registry.register(_Registered(kept, now))
    lines = generate_latest(registry).decode().splitlines()
    return [line.removeprefix("healthagent_kubernetes_") for line in lines if line[0] != "#"]


async def test_a_label_that_cannot_be_taken_back_is_a_metric(tmp_path: Path) -> None:
    made, clock = board(PRIMARY), Clock()
    async with PodServer() as api, keeping(tmp_path, api, made, clock) as kept:
        await api.says("primary")
        await until(lambda: not kept.stale(START))
        assert scraped(kept, START)[:2] == ["label_stale 0.0", "label_stale_seconds 0.0"]
        api.forbidden = {"patch"}
        turn(made, kept, OUT)
        await until(lambda: kept.error is not None)
        assert scraped(kept, START + 4)[:2] == ["label_stale 1.0", "label_stale_seconds 4.0"]
        assert any(line.startswith('calls_total{result="forbidden"') for line in scraped(kept, START))
        status = kept.status(START + 4)
        assert status | {"error": "", "stale_for": 4.0} == {
            "label": LABEL,
            "pod": NAME,
            "wanted": None,
            "seen": "primary",
            "may_say": ["primary"],
            "stale_for": 4.0,
            "error": "",
        }
        api.forbidden = set()
        await api.says(None)
        await until(lambda: kept.stale_for(START) is None)


def test_without_a_label_the_families_are_there_without_samples() -> None:
    assert scraped(None, START) == []


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110  # state of the label, which nobody else waits for
            await asyncio.sleep(0.005)
