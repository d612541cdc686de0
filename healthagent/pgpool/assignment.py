"""Which agent speaks for which of pgpool's backends, and everything that is wrong with the answer.

A wrong assignment would fence the wrong node, so nothing here guesses further than the
documented defaults, and reconcile.py distrusts an agent whose word pgpool's own look contradicts.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from healthagent.config.pgpool_sync import PgpoolSyncSettings
from healthagent.pgpool.agents import Answer, StatusSaid, misplaced
from healthagent.pgpool.model import Backend


class BadInput(Exception):
    """What was configured does not fit what is there. Each problem is one line."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def known_before(settings: PgpoolSyncSettings) -> list[str]:
    """The problems that show without asking anybody."""
    names = [name for name, _ in settings.agents]
    if not names:
        return ["pgpool_sync.agents: want at least one (--agent NAME=URL)"]
    problems = [
        f"pgpool_sync.backends.{name}: no agent has this name (there are {', '.join(names)})"
        for name, _ in settings.backends
        if name not in names
    ]
    missing = [name for name in names if name not in dict(settings.backends)]
    if settings.backends and missing:
        problems.append(f"pgpool_sync.backends: {', '.join(missing)} must be given too, or none at all")
    return problems


def assign(settings: PgpoolSyncSettings, backends: Sequence[Backend]) -> tuple[Mapping[int, str], list[str]]:
    """The name of the agent of each backend, and the problems.

    Without `backends` in the settings, agents go to the backends with the host of their URL, if
    that is the backend of each of them and of one only; else in order, if there are as many.
    """
    names = [name for name, _ in settings.agents]
    if settings.backends:
        problems = [
            f"pgpool_sync.backends.{name}: pgpool has no backend {index}, only 0 to {len(backends) - 1}"
            for name, index in settings.backends
            if index >= len(backends)
        ]
        return {index: name for name, index in settings.backends}, problems
    hosts = [backend.host.lower() for backend in backends]
    wanted = [urlsplit(url).hostname or "" for _, url in settings.agents]
    if len(set(wanted)) == len(wanted) and all(hosts.count(host) == 1 for host in wanted):
        return {hosts.index(host): name for name, host in zip(names, wanted, strict=True)}, []
    if len(names) != len(backends):
        say = "say which is which with --backend NAME=INDEX"
        return {}, [f"pgpool_sync.agents: {len(names)} for {len(backends)} backends of pgpool: {say}"]
    if not set(wanted).isdisjoint(hosts) and len(set(hosts)) == len(hosts):
        some = sorted(set(wanted).intersection(hosts))
        say = "say all of them with --backend NAME=INDEX"
        return {}, [f"pgpool_sync.agents: only {', '.join(some)} are hosts of pgpool's backends too: {say}"]
    return dict(enumerate(names)), []


def answered_wrongly(cluster: str | None, answers: Mapping[str, Answer]) -> list[str]:
    """The problems that agents' answers show: another node, another cluster, several clusters."""
    said = {name: answer for name, answer in answers.items() if isinstance(answer, StatusSaid)}
    problems = [
        f"pgpool_sync.agents.{name}: {wrong}"
        for name, answer in said.items()
        if (wrong := misplaced(name, cluster, answer))
    ]
    clusters = {answer.cluster for answer in said.values()}
    if cluster is None and len(clusters) > 1:
        listed = ", ".join(f"{name} of {answer.cluster!r}" for name, answer in said.items())
        problems.append(f"pgpool_sync.agents: they belong to several clusters: {listed}")
    return problems


def cluster_of(answers: Mapping[str, Answer]) -> str | None:
    """The cluster that the agents which answered belong to."""
    return next((said.cluster for said in answers.values() if isinstance(said, StatusSaid)), None)
