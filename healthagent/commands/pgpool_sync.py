"""`healthagent pgpool-sync`: make pgpool's view of the cluster follow the agents."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from prometheus_client import CollectorRegistry

from healthagent.clock import boottime
from healthagent.commands.config import add_file
from healthagent.config import ConfigError, PgpoolSyncSettings, load
from healthagent.config.document import Rejected, Scalar
from healthagent.config.gather import Flags
from healthagent.config.peers import BaseUrl
from healthagent.logs import log_to_stderr
from healthagent.notify import Notifier, Watchdog, keep_notified
from healthagent.pgpool import statusfile
from healthagent.pgpool.agents import ask_all, believed, open_session
from healthagent.pgpool.assignment import (
    BadInput,
    answered_wrongly,
    assign_unasked,
    cluster_of,
    known_before,
    witnesses,
)
from healthagent.pgpool.metrics import BridgeCollector
from healthagent.pgpool.model import Says
from healthagent.pgpool.poll import Eyes
from healthagent.pgpool.problems import every_problem
from healthagent.pgpool.promotion import objections
from healthagent.pgpool.readiness import readiness
from healthagent.pgpool.server import BridgeServer
from healthagent.pgpool.sync import Bridge, run_once, run_until

EXAMPLE = """\
example:
  healthagent pgpool-sync --pcp-socket-dir /run/pgpool --pcp-password-file /etc/healthagent/pcp \\
    --agent pg1=http://10.0.0.11:8008 --agent pg2=http://10.0.0.12:8008 \\
    --backend pg1=0 --backend pg2=1
  healthagent pgpool-sync -c /etc/healthagent.yaml --dry-run --once
exit status: 0; 2 bad configuration, every problem on standard error;
  with --once 1 if pgpool differs from the agents and could not be told, or with --dry-run would be told;
  with --may-promote 1 if not; with --write-status 1 if pgpool must not be started now
"""

# Long names of the section's keys; those without an argument and those that repeat are added by hand.
PLAIN_FLAGS = {
    "pcp-host": ("HOST", "where pgpool's PCP listens (localhost)"),
    "pcp-socket-dir": ("DIR", "pgpool's pcp_socket_dir, instead of --pcp-host"),
    "pcp-port": ("PORT", "pgpool's pcp_port (9898)"),
    "pcp-user": ("USER", "a user of pcp.conf (pcp)"),
    "pcp-password-file": ("FILE", "a file that holds that user's password"),
    "cluster": ("NAME", "the cluster that all agents must belong to"),
    "ca": ("FILE", "who may have signed the agents' certificates"),
    "interval": ("TIME", "how often pgpool is compared with the agents (1s)"),
    "timeout": ("TIME", "how long one answer may take (1s)"),
    "fall": ("COUNT", "refusals in a row before a detach (2)"),
    "rise": ("COUNT", "permissions in a row before an attach or a promotion (2)"),
    "hold": ("TIME", "how long a backend that was detached stays so (5s)"),
    "listen": ("HOST:PORT", "for /ready, /liveness and /metrics; null for none (0.0.0.0:8011)"),
}
AGENTS_VARIABLE = "HEALTHAGENT_AGENTS"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `pgpool-sync` to the command line; its arguments name `run` of this module as `command`."""
    parser = subparsers.add_parser(
        "pgpool-sync",
        help="make pgpool's view of the cluster follow the agents",
        description="Compare what pgpool thinks of its backends with what their agents say,"
        " and detach, attach or promote them in pgpool over PCP.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_file(parser)
    parser.add_argument(
        "--agent",
        action="append",
        metavar="NAME=URL",
        help="the agent of a backend, or a witness; may be repeated",
    )
    parser.add_argument(
        "--backend",
        action="append",
        metavar="NAME=INDEX",
        help="pgpool's number of that agent's node, none for a witness; may be repeated;"
        " without any: by host, else in order",
    )
    for name, (metavar, text) in PLAIN_FLAGS.items():
        parser.add_argument(f"--{name}", metavar=metavar, help=text)
    parser.add_argument("--no-fence", action="store_true", help="never detach, only attach and promote")
    parser.add_argument("--dry-run", action="store_true", help="only log what would be asked of pgpool")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--once", action="store_true", help="act at most once, then exit")
    what.add_argument(
        "--write-status",
        metavar="FILE",
        type=Path,
        help="write pgpool's status file from what the agents say, then exit; before pgpool starts; needs"
        " --backend, since a pgpool that does not run cannot tell hosts (unless agents share one: in order)",
    )
    what.add_argument(
        "--may-promote",
        action="store_true",
        help="exit 0 if a failover script may promote a standby now, else 1 with the reasons",
    )
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM, or do the one thing that was asked."""
    try:
        configuration = load(arguments.config, flags=given_flags(arguments))
    except ConfigError as error:
        if error.settings is None:
            return complain(error.problems)
        settings, problems = with_agents(error.settings.pgpool_sync, arguments)
        return complain(asyncio.run(every_problem(settings, [*error.problems, *problems], error.bad)))
    sys.stderr.write("".join(f"warning: {line}\n" for line in configuration.warnings))
    settings, problems = with_agents(configuration.settings.pgpool_sync, arguments)
    if problems or known_before(settings):
        return complain(asyncio.run(every_problem(settings, problems)))
    log_to_stderr(configuration.settings.log)
    try:
        if arguments.may_promote:
            return asyncio.run(may_promote(settings))
        if arguments.write_status is not None:
            return asyncio.run(write_status(settings, arguments.write_status))
        return asyncio.run(follow(settings, once=arguments.once, dry_run=arguments.dry_run))
    except BadInput as error:
        return complain(error.problems)
    except OSError as error:
        return complain([str(error)], 1)


def given_flags(arguments: argparse.Namespace) -> Flags:
    """The settings that the command line gave, as `load` takes them."""
    flags: dict[str, str | bool | Sequence[str]] = {}
    for name in PLAIN_FLAGS:
        key = name.replace("-", "_")
        if (value := getattr(arguments, key)) is not None:
            flags[f"pgpool_sync.{key}"] = value
    for key, values in (("agents", arguments.agent), ("backends", arguments.backend)):
        if values is not None:
            flags[f"pgpool_sync.{key}"] = values
    if arguments.no_fence:
        flags["pgpool_sync.fence"] = False
    return flags


def with_agents(
    settings: PgpoolSyncSettings, arguments: argparse.Namespace
) -> tuple[PgpoolSyncSettings, list[str]]:
    """The settings, for a failover script with the agents of its environment, and what is wrong there."""
    if settings.agents or not arguments.may_promote:
        return settings, []
    try:
        return replace(settings, agents=agents_in(os.environ.get(AGENTS_VARIABLE, ""))), []
    except Rejected as error:
        return settings, [f"{AGENTS_VARIABLE}: {flaw.rule}, got {flaw.got}" for flaw in error.flaws]


def agents_in(text: str) -> tuple[tuple[str, str], ...]:
    """The agents in HEALTHAGENT_AGENTS: URL or NAME=URL, between blanks or commas. Raises Rejected."""
    # Names play no part: of a promotion only the roles are asked, not whose they are.
    urls = [BaseUrl().parse(Scalar(word.rpartition("=")[2])) for word in text.replace(",", " ").split()]
    return tuple((url, url) for url in dict.fromkeys(urls))


def complain(problems: Sequence[str], status: int = 2) -> int:
    sys.stderr.write("".join(f"{problem}\n" for problem in problems))
    return status


async def follow(settings: PgpoolSyncSettings, *, once: bool, dry_run: bool) -> int:
    """The loop with its HTTP server, or one decision without it."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with open_session(settings.ca, settings.timeout) as session:
        bridge = Bridge(settings, Eyes(settings, session, boottime), boottime, dry_run=dry_run)
        if once:
            return 0 if await run_once(bridge, max(settings.fall, settings.rise), settings.interval) else 1
        with closing(Notifier.from_environment(os.environ, os.getpid())) as notifier:
            await serve_and_follow(bridge, settings, stop, notifier)
    return 0


async def serve_and_follow(
    bridge: Bridge, settings: PgpoolSyncSettings, stop: asyncio.Event, notifier: Notifier
) -> None:
    """Answer HTTP while the bridge follows; either failing ends both."""
    # Two polls that took their whole budget, and one interval: older evidence says nothing about now.
    max_age = 2 * settings.interval + 6 * settings.timeout
    registry = CollectorRegistry()
    registry.register(BridgeCollector(lambda: bridge.look, bridge.counts, boottime, max_age))
    watchdog = Watchdog(notifier.watchdog, max_age)
    server = BridgeServer(lambda: readiness(bridge.look, boottime(), max_age), registry)
    listener = await server.listen(settings.listen) if settings.listen else None
    bad: BadInput | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            beside = [
                tasks.create_task(server.reap()),
                tasks.create_task(keep_notified(notifier, watchdog, boottime)),
            ]
            await run_until(bridge, stop, settings.interval, boottime, lambda: watchdog.progress(boottime()))
            notifier.stopping()
            for task in beside:
                task.cancel()
    except* BadInput as group:
        bad = next(error for error in group.exceptions if isinstance(error, BadInput))
    finally:
        if listener is not None:
            listener.close()
        await server.close()
    if bad is not None:
        raise bad  # not above: what is raised there stays a group


async def may_promote(settings: PgpoolSyncSettings) -> int:
    """Ask every agent once; say on standard error what speaks against a promotion."""
    async with open_session(settings.ca, settings.timeout) as session:
        answers = await ask_all(session, settings.agents)
    found = objections(answers, settings.cluster)
    return complain(found, 1) if found else 0


async def write_status(settings: PgpoolSyncSettings, path: Path) -> int:
    """Ask the agents as often as a decision needs, and write pgpool's status file."""
    before = statusfile.read(path)
    assigned, why, problems = assign_unasked(settings, path, len(before))
    if problems:
        raise BadInput(await every_problem(settings, problems))
    said: Mapping[str, Says] = {}
    async with open_session(settings.ca, settings.timeout) as session:
        for number in range(max(settings.fall, settings.rise)):
            if number:
                await asyncio.sleep(settings.interval)
            answers = await ask_all(session, settings.agents)
            if wrong := [*witnesses(assigned, answers), *answered_wrongly(settings.cluster, answers)]:
                raise BadInput(wrong)
            cluster = settings.cluster or cluster_of(answers)
            now = {name: believed(name, cluster, answer).says for name, answer in answers.items()}
            said = {
                name: says if said.get(name, says) is says else Says.UNKNOWN for name, says in now.items()
            }
    of_backends = {index: said[name] for index, name in assigned.items()}
    try:
        lines = statusfile.seeded(before, of_backends)
    except statusfile.AllRefused as error:
        why_not = f"pgpool must not start now: {error}, which it would take for all up"
        anyway = f"; to start it with those that no agent refuses, remove {path}"
        return complain([why_not + (anyway if statusfile.afresh(of_backends) else "")], 1)
    if lines != before:
        statusfile.write(path, lines)
    spoken = ", ".join(f"{name} is backend {index}" for index, name in sorted(assigned.items()))
    sys.stdout.write(f"{spoken}: {why}\n{path}: {' '.join(lines)}\n")
    return 0
