"""`healthagent run`: the agent."""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable

from healthagent import light  # first: see there  # noqa: F401
from healthagent.commands.config import add_file, add_flags, given_flags, usable
from healthagent.commands.detach import Report, detach
from healthagent.config import Settings, load
from healthagent.daemon import Agent, StartError
from healthagent.logs import log_to_stderr
from healthagent.notify import Notifier
from healthagent.takeover import DETACH, Gone, PlaceError, Predecessor, TakeoverFailed, reach

EXAMPLE = """\
example:
  healthagent run -c /etc/healthagent.yaml
  healthagent run --name pg1 --dsn postgresql://healthagent@127.0.0.1/postgres --peer pg2=http://10.0.0.12:8008
  healthagent run -c /etc/healthagent.yaml --replace   # after an upgrade, or a change of the file
"""

log = logging.getLogger(__name__)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `run` to the command line."""
    parser = subparsers.add_parser(
        "run",
        help="run the agent; SIGTERM drains, SIGHUP reloads",
        description="Run the agent beside one PostgreSQL. SIGTERM drains, SIGHUP reloads.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_file(parser)
    add_flags(parser)
    parser.add_argument(
        "--replace",
        action="store_true",
        help="take the place of the agent that runs with this state_dir; no check fails, no client is cut",
    )
    parser.add_argument(
        DETACH, action="store_true", help="return once the agent answers, and leave it running"
    )
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Run until stopped; 0 after a stop, 1 when it cannot start, 2 for a bad configuration."""
    flags = given_flags(arguments)
    configuration = usable(arguments.config, flags)
    if configuration is None:
        return 2
    settings = configuration.settings
    if arguments.replace and settings.state_dir is None:
        sys.stderr.write("--replace: needs a state_dir, where the running agent is found\n")
        return 2
    report = detach() if arguments.detach else Report()  # before there is a thread
    log_to_stderr(settings.log)
    for warning in configuration.warnings:
        log.warning("configuration: %s", warning)

    def reload() -> Settings:
        return load(arguments.config, flags=flags).settings

    try:
        predecessor = _predecessor(settings) if arguments.replace else None
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_run(settings, reload, predecessor, report))
    except StartError as error:
        sys.stderr.write(f"{error}\n")
        return report.failed(1)
    except (TakeoverFailed, PlaceError) as error:
        sys.stderr.write(f"--replace: {error}; the running agent goes on\n")
        return report.failed(1)
    logging.shutdown()
    # not sys.exit: a resolver thread of the event loop may hang, and must not hold up the end
    os._exit(0)


def _predecessor(settings: Settings) -> Predecessor | None:
    assert settings.state_dir is not None, "looked at before"
    found = reach(settings.state_dir, settings.name, settings.cluster)
    if found is None:
        log.info("no agent runs with state_dir %s: a start as any other", settings.state_dir)
    return found


async def _run(
    settings: Settings, reload: Callable[[], Settings], predecessor: Predecessor | None, report: Report
) -> None:
    notifier = Notifier.from_environment(os.environ, os.getpid())
    if predecessor is None:
        await _agent(settings, reload, notifier, report).run()
        return
    if predecessor.welcome.notify is not None:  # what it was started by does not know this process yet
        notifier = Notifier(predecessor.welcome.notify, predecessor.welcome.watchdog)
    try:
        await _agent(settings, reload, notifier, report).run(predecessor)
    except Gone as error:
        log.warning("the agent to be replaced is gone: %s; this is a restart now", error)
        predecessor.close()
        await _agent(settings, reload, notifier, report).run(inherited=predecessor.sockets)
    except (TakeoverFailed, StartError) as error:
        predecessor.refuse(str(error))
        raise


def _agent(settings: Settings, reload: Callable[[], Settings], notifier: Notifier, report: Report) -> Agent:
    agent = Agent(settings, reload, notifier)
    agent.on_answering = report.answering
    return agent


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:  # not on this platform: asyncio's own is slower, not worse
        return asyncio.new_event_loop
    return uvloop.new_event_loop
