"""`healthagent run`: the agent."""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable

from healthagent import light  # first: see there  # noqa: F401
from healthagent.commands.config import add_file, add_flags, given_flags, load_or_complain
from healthagent.config import Settings, load
from healthagent.daemon import Agent, StartError
from healthagent.logs import log_to_stderr
from healthagent.notify import Notifier

EXAMPLE = """\
example:
  healthagent run -c /etc/healthagent.yaml
  healthagent run --name pg1 --dsn postgresql://healthagent@127.0.0.1/postgres --peer pg2=http://10.0.0.12:8008
"""


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
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Run until stopped; 0 after a stop, 1 when it cannot start, 2 for a bad configuration."""
    flags = given_flags(arguments)
    configuration = load_or_complain(arguments.config, flags)
    if configuration is None:
        return 2
    settings = configuration.settings
    log_to_stderr(settings.log)

    def reload() -> Settings:
        return load(arguments.config, flags=flags).settings

    async def main() -> None:
        await Agent(settings, reload, Notifier.from_environment(os.environ, os.getpid())).run()

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(main())
    except StartError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    logging.shutdown()
    # not sys.exit: a resolver thread of the event loop may hang, and must not hold up the end
    os._exit(0)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:  # not on this platform: asyncio's own is slower, not worse
        return asyncio.new_event_loop
    return uvloop.new_event_loop
