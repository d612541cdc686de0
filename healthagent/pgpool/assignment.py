"""Which agent speaks for which of pgpool's backends, and everything that is wrong with the answer.

A wrong assignment would fence the wrong node, so nothing here guesses further than the
documented defaults, and reconcile.py distrusts an agent whose word pgpool's own look contradicts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from healthagent.config.pgpool_sync import PgpoolSyncSettings
from healthagent.core.model import Reason
from healthagent.pgpool.agents import Answer, StatusSaid, misplaced
from healthagent.pgpool.model import Backend

SAY = "say which is which with --backend NAME=INDEX"
SPEAKS_FOR_NONE = "one without an index, as a witness, speaks for none and counts for majorities only"


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
    return [
        f"pgpool_sync.backends.{name}: no agent has this name (there are {', '.join(names)})"
        for name, _ in settings.backends
        if name not in names
    ]


def assign(settings: PgpoolSyncSettings, backends: Sequence[Backend]) -> tuple[Mapping[int, str], list[str]]:
    """The name of the agent of each backend, and the problems.

    With `backends` in the settings nothing is guessed: agents and backends may be left over. Without,
    agents go to the backends with the host of their URL, if that is the backend of each of them and of
    one only; else in order, if there are as many.
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
        say = f"{SAY}; {SPEAKS_FOR_NONE}" if len(names) > len(backends) else SAY
        return {}, [f"pgpool_sync.agents: {len(names)} for {len(backends)} backends of pgpool: {say}"]
    if not set(wanted).isdisjoint(hosts) and len(set(hosts)) == len(hosts):
        some = sorted(set(wanted).intersection(hosts))
        say = "say all of them with --backend NAME=INDEX"
        return {}, [f"pgpool_sync.agents: only {', '.join(some)} are hosts of pgpool's backends too: {say}"]
    return dict(enumerate(names)), []


def assign_unasked(
    settings: PgpoolSyncSettings, file: Path, lines: int
) -> tuple[Mapping[int, str], str, list[str]]:
    """The same for a pgpool that does not run and cannot be asked: also why, in a few words.

    Its status `file` with so many `lines` (0: there is none) holds no hosts. Where agents could go by host,
    their order is no evidence of pgpool's, so it is taken only where `assign` could take nothing else.
    """
    if settings.backends:
        return {index: name for name, index in settings.backends}, "as given", []
    hosts = {urlsplit(url).hostname for _, url in settings.agents}
    count = len(settings.agents)
    if count == len(hosts):
        why = "pgpool does not run, so nobody can tell which agent has the host of which backend"
        return {}, "", [f"pgpool_sync.backends: must be given with --write-status: {why}; {SAY}"]
    if lines not in (0, count):
        return {}, "", [f"pgpool_sync.agents: {count}, but {file} has {lines} backends: {SAY}"]
    assigned = {index: name for index, (name, _) in enumerate(settings.agents)}
    return assigned, "in the order of the agents, since they share a host and no backends are given", []


def witnesses(assigned: Mapping[int, str], answers: Mapping[str, Answer]) -> list[str]:
    """The problem of an agent that has no PostgreSQL and is taken to speak for a backend all the same."""
    return [
        f"pgpool_sync.agents.{name}: it is a witness and cannot speak for backend {index}:"
        " give --backend NAME=INDEX for the others only"
        for index, name in sorted(assigned.items())
        if isinstance(said := answers.get(name), StatusSaid)
        and said.verdicts.primary.reason == Reason.WITNESS
    ]


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
