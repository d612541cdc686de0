"""A cluster of real PostgreSQL and real agents on hosts of their own, watched every few milliseconds.

    site.ready()                            # pg1 serves, pg2 and pg3 stream from it, w1 is a witness
    site.network.cut(["pg1"])
    site.node("pg2").promote()
    site.wait("pg2", "rival_silent")
    site.judge()                            # the invariants, over every answer since ready()

Tests share one site: `ready` keeps what the test before has left healthy and builds anew otherwise.
Everything here blocks.
"""

import signal
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from healthagent.clock import boottime
from healthagent.demo.binaries import Binaries, PostgresFailed
from healthagent.demo.cluster import Cluster, Template
from healthagent.demo.postgres import Node, until
from tests.bed.agent import Agent, Reply
from tests.bed.network import Host, Network
from tests.bed.sampler import Sample, Sampler, Service, outdated, overlaps, services, slowest_percent

DATA = ("pg1", "pg2", "pg3")
WITNESS = "w1"
PORT = 8008
DRAIN = 3.0  # seconds, the default
TAKEOVER = 5.0  # seconds, instead of 10: what is waited for here
ROUND = 1.5  # seconds: peer.interval + peer.timeout, after which every peer was asked once more
MOMENT = 0.5  # seconds that a busy machine may add to anything
SLOWEST = 0.5  # seconds: an answer that waited for PostgreSQL or a peer would take their 1 s
STARTED_WITHIN = 60.0  # seconds; four agents import side by side, and a machine may have two cores
SETTINGS = {"takeover_after": f"{TAKEOVER:g}s", "start_alone_after": "4s"}
SECRET = "a secret for tests only"


class HostedAgent(Agent):
    """An agent on a host of the network."""

    def __init__(self, folder: Path, host: Host, node: Node | None, settings: Mapping[str, object]) -> None:
        super().__init__(folder, node, name=host.name)
        self.place = host
        self.host, self.port = host.address, PORT
        self._prefix = host.prefix
        self.change({"listen": f"{host.address}:{PORT}", **settings})

    def wait_answering(self) -> None:
        until(self._answers, STARTED_WITHIN, f"{self.name} answers")

    def post(
        self, path: str, body: object, method: str = "POST", timeout: float = 5.0, **headers: str
    ) -> Reply:
        with self.place.entered():
            return super().post(path, body, method, timeout, **headers)


class Site:
    """The hosts, and what runs on them now; a context manager."""

    def __init__(self, binaries: Binaries, template: Template, new_folder: Callable[[], Path]) -> None:
        self.network = Network([*DATA, WITNESS])
        self.agents: dict[str, HostedAgent] = {}
        self.overlap_until = 0.0  # until then two may answer 200: they could not know of each other
        self.cluster: Cluster | None = None
        self._binaries = binaries
        self._template = template
        self._new_folder = new_folder
        self._folder = new_folder()
        self._built_for: object = None
        self._samplers: dict[str, Sampler] = {}
        self._watches = 0

    def __enter__(self) -> "Site":
        self.network.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        with ExitStack() as closing:
            closing.callback(self.network.close)
            closing.callback(self._demolish)

    # What runs.

    def ready(
        self,
        settings: Mapping[str, object] | None = None,
        *,
        nodes: int = 3,
        witness: bool = True,
        secret: bool = False,
        dsn: bool = False,
    ) -> None:
        """A healthy site: pg1 answers 200, the other nodes stream from it; the watch begins.

        `settings` hold for all agents; `secret`: they sign and push, else each pulls; `dsn`: a peer's
        PostgreSQL is asked while its agent is silent.
        """
        wanted = (settings, nodes, witness, secret, dsn)
        if self._built_for != wanted or not self._is_healthy():
            self._demolish()
            self._build(settings or {}, nodes, witness, secret, dsn)
            self._built_for = wanted
        self.watch()

    def watch(self, *names: str) -> None:
        """Forget the answers so far; those of these nodes (none named: all) from now on are judged."""
        self._end_watch()
        self._watches += 1
        self.overlap_until = 0.0
        for name in names or self.data():
            agent = self.agents[name]
            file = self._folder / f"{name}-{self._watches}.samples"
            self._samplers[name] = Sampler(agent.place.prefix, agent.host, PORT, file)
        until(lambda: all(self.samples(name) for name in self._samplers), 10.0, "every sampler has an answer")

    def settle(self) -> None:
        """After a test: everything passes and runs again that can; what was cut or stopped shows later."""
        self._end_watch()
        self.network.heal()
        for agent in self.agents.values():
            agent.signal(signal.SIGCONT)
        for node in self.cluster.nodes if self.cluster else []:
            node.thaw()

    def node(self, name: str) -> Node:
        assert self.cluster is not None, "ready() comes first"
        return self.cluster[name]

    def data(self) -> list[str]:
        """The names of the nodes that have a PostgreSQL."""
        return [node.name for node in self.cluster.nodes] if self.cluster else []

    def others(self, name: str) -> list[str]:
        return [other for other in self.agents if other != name]

    def kill(self, *names: str) -> None:
        """Hosts lose their power: agent and PostgreSQL are gone at once."""
        for name in names:
            self.agents[name].signal(signal.SIGKILL)
            if name in self.data():
                self.node(name).kill9()
            self.agents[name].kill()

    def freeze(self, *names: str) -> None:
        """Hosts stand still: agent and PostgreSQL; `thaw` lets them go on."""
        for name in names:
            self.agents[name].signal(signal.SIGSTOP)
            self.node(name).freeze()

    def thaw(self, *names: str) -> None:
        for name in names:
            self.node(name).thaw()
            self.agents[name].signal(signal.SIGCONT)

    def promote_at_once(self, *names: str) -> None:
        """Promote several standbys side by side."""
        threads = [threading.Thread(target=self.node(name).promote) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    # What is answered.

    def wait(self, name: str, reason: str, timeout: float = 15.0) -> float:
        """Wait until /primary answers for this reason, also those who watch; the moment when it was seen."""
        began = boottime()
        self.agents[name].wait_for("/primary", 200 if reason == "primary" else 503, reason, timeout)
        seen_at = boottime()
        if name in self._samplers:
            until(lambda: self._is_sampled(name, reason, began), 5.0, f"the sampler of {name} sees it")
        return seen_at

    def _is_sampled(self, name: str, reason: str, since: float) -> bool:
        return any(one.reason == reason and one.after >= since for one in self._samplers[name].samples())

    def heard(self, name: str) -> int:
        """How many members an agent hears, itself included."""
        members = self.agents[name].status()["members"]
        return int(members["heard"])

    def samples(self, name: str, since: float = 0.0) -> list[Sample]:
        """The answers to questions asked after `since`."""
        return [one for one in self._samplers[name].samples() if one.before >= since]

    def reasons(self, name: str, since: float = 0.0) -> set[str]:
        """For which reasons /primary was answered; `primary` alone is a 200."""
        return {one.reason for one in self.samples(name, since)}

    def services(self, name: str) -> list[Service]:
        """The stretches during which it answered 200."""
        return services(name, self.samples(name))

    def judge(self) -> None:
        """The invariants over all answers since `watch`, on one clock."""
        samples = {name: self.samples(name) for name in self._samplers}
        assert overlaps(samples, self.overlap_until) == [], "two agents answered 200 at the same time"
        assert outdated(samples, self.overlap_until) == [], "200 on a timeline older than one already served"
        for name, its in samples.items():
            wrong = [one for one in its if (one.status == 200) != (one.reason == "primary")]
            assert wrong == [], f"{name}: a status without its reason"
            slow = slowest_percent(its)
            assert slow < SLOWEST, f"{name}: 1 % of the answers took longer than {slow * 1000:.0f} ms"

    def _is_healthy(self) -> bool:
        """Whether what the last test left is as new, soon."""
        if self.cluster is None:
            return False
        primary, *standbys = self.cluster.nodes
        try:
            if any(not agent.is_running() for agent in self.agents.values()):
                return False
            if any(agent.status()["timeline"] not in (None, 1) for agent in self.agents.values()):
                return False
            primary.wait_streaming(*standbys, timeout=5.0)
            until(self._all_is_calm, 5.0, "all agents agree")
        except (TimeoutError, PostgresFailed, OSError):
            return False
        return True

    def _all_is_calm(self) -> bool:
        """All hear one another, and that pg1 serves: a cut before that would leave them without the news."""
        told = {name: agent.status() for name, agent in self.agents.items()}
        return all(
            one["members"]["heard"] == one["members"]["configured"] == len(told)
            and one["conflict"] is None
            and not one["alarms"]
            and one["verdicts"]["primary"]["ok"] == (name == "pg1")
            and all(peer["serving"] == (peer["name"] == "pg1") for peer in one["peers"])
            for name, one in told.items()
        )

    def _build(
        self, settings: Mapping[str, object], nodes: int, witness: bool, secret: bool, dsn: bool
    ) -> None:
        self._folder = self._new_folder()
        names = [*DATA[:nodes], *([WITNESS] if witness else [])]
        self.cluster = Cluster(
            self._binaries, [self.network[name].place for name in DATA[:nodes]], template=self._template
        )
        hosts = {name: self.network[name] for name in names}
        for name, host in hosts.items():
            node = None if name == WITNESS else self.cluster[name]
            agent = HostedAgent(self._folder, host, node, {**SETTINGS, **settings})
            agent.change({"peers": [self.entry(other, dsn) for other in names if other != name]})
            if secret:
                agent.change({"peer": {"secret": SECRET}})
            if node is None:
                agent.change({"witness": True})
            self.agents[name] = agent
            agent.start(wait=False)  # its imports take as long as the cluster's start
        self.cluster.start()
        for agent in self.agents.values():
            agent.wait_answering()
        self.wait("pg1", "primary")
        until(self._all_is_calm, 10.0, "all agents agree")

    def entry(self, name: str, dsn: bool = False, at: str | None = None) -> dict[str, object]:
        """How a member stands in the others' lists; `at` names the host that it is looked for on."""
        host = self.network[at or name]
        found: dict[str, object] = {"name": name, "url": f"http://{host.address}:{PORT}"}
        if name == WITNESS:
            found["witness"] = True
        elif dsn:
            found["dsn"] = self.node(name).dsn()
        return found

    def _end_watch(self) -> None:
        for sampler in self._samplers.values():
            sampler.stop()
        self._samplers.clear()

    def _demolish(self) -> None:
        self._end_watch()
        self.network.heal()
        for agent in self.agents.values():
            agent.kill()
        self.agents.clear()
        if self.cluster is not None:
            self.cluster.close()
            self.cluster = None
        self._built_for = None


def gap(before: Iterable[Service], after: Iterable[Service]) -> float:
    """Seconds between the last 200 of one agent and the first of another after it."""
    ended = max(one.ended for one in before)
    return min(one.began for one in after if one.began > ended) - ended
