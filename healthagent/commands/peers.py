"""`healthagent peers check`: can this node's peers be reached, and do they agree with it?

It asks as the agent does, with the same client, secret and certificates, only under another
name: a peer answers that and believes none of it.
"""

import argparse
import asyncio
import contextlib
import logging
import sys
import uuid
from dataclasses import dataclass, field

from healthagent import __version__, light  # noqa: F401  # before aiohttp
from healthagent.board import Board, Identity
from healthagent.clock import boottime
from healthagent.commands.config import add_file, add_flags, given_flags, load_or_complain
from healthagent.config import Settings
from healthagent.core.peer import Alarm, Peer, Source, Statement
from healthagent.core.view import Memory
from healthagent.peers.client import Entry, PeerClient
from healthagent.peers.discovery import Discoverer
from healthagent.peers.exchange import exchange_of
from healthagent.peers.resolve import Names
from healthagent.policy import policy_of
from healthagent.tls import client_tls

CLOCK_WINDOW = 2.0  # seconds over which the rates of two clocks are compared
DRIFT_LIMIT = 0.01  # of the rate; real machines stay below 0.0005
WELL, DIFFERS, USAGE, UNREACHABLE = 0, 1, 2, 3

EXAMPLE = """\
example:
  healthagent peers check -c /etc/healthagent.yaml
exit code: 0 all well, 1 something differs, 2 usage, 3 a peer cannot be reached
"""


@dataclass
class Findings:
    """What the peers said while they were asked for a while."""

    board: Board
    first: dict[str, Statement] = field(default_factory=dict)
    causes: dict[str, str] = field(default_factory=dict)  # why a peer could not be asked


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `peers` to the command line."""
    parser = subparsers.add_parser(
        "peers",
        help="check that the peers can be reached and agree",
        description="Ask every configured peer: reachable, same cluster, same members, which version, "
        "and does its clock run at our rate?",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=("check",))
    add_file(parser)
    add_flags(parser)
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one line per finding; the worst of them is the exit code."""
    configuration = load_or_complain(arguments.config, given_flags(arguments))
    if configuration is None:
        return USAGE
    settings = configuration.settings
    if not settings.peers and settings.discovery is None:
        sys.stdout.write("no peers are configured\n")
        return WELL
    logging.getLogger("healthagent").addHandler(logging.NullHandler())  # what it would say is printed here
    findings = asyncio.run(_find(settings))
    if not findings.board.peers:
        sys.stdout.write("discovery names nobody\n")
        return UNREACHABLE
    worst = WELL
    for peer in findings.board.peers.values():
        code, lines = _judged(peer, findings, settings)
        worst = max(worst, code)
        for line in lines:
            sys.stdout.write(f"{peer.name}: {line}\n")
    return worst


async def _find(settings: Settings) -> Findings:
    """Ask every peer again and again for the window in which clocks are compared."""
    incarnation = str(uuid.uuid4())
    board = Board(
        Identity(f"{settings.name} (peers check)"[:255], settings.cluster, incarnation),
        policy_of(settings),
        Memory(boottime()),
        [Peer(entry.name, entry.witness) for entry in settings.peers],
    )
    findings, names = Findings(board), Names(boottime)
    client = PeerClient(
        board,
        [Entry(entry.name, entry.url) for entry in settings.peers],
        boottime,
        names,
        interval=settings.peer.interval,
        timeout=settings.peer.timeout,
        exchange=exchange_of(settings, incarnation),
        tls=client_tls(settings),
    )
    if settings.discovery is not None:
        await Discoverer(board, client, settings.discovery, names, boottime).look()
    asking = asyncio.create_task(client.run())
    deadline = boottime() + max(CLOCK_WINDOW, settings.peer.interval + 2 * settings.peer.timeout)
    while boottime() < deadline:
        await asyncio.wait([asking], timeout=0.1)
        for peer in board.peers.values():
            if peer.statement is not None:
                findings.first.setdefault(peer.name, peer.statement)
    findings.causes = {name: cause for name in board.peers if (cause := client.troubles.cause(name))}
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    await names.close()
    return findings


def _judged(peer: Peer, findings: Findings, settings: Settings) -> tuple[int, list[str]]:
    said = peer.statement
    if peer.alarm is not None:
        # two addresses of one agent are nothing unusual in DNS
        return (WELL if peer.alarm is Alarm.DUPLICATE else DIFFERS), [f"{peer.alarm}: {peer.alarm_detail}"]
    if said is None or peer.silent_since is not None:
        return UNREACHABLE, [f"cannot be reached: {findings.causes.get(peer.name, 'no answer')}"]
    if said.source is Source.PATRONI:
        return WELL, [f"well: a Patroni node, version {said.version!r}: {said.detail!r}"]
    found = [*_differences(said, findings.board, settings), *_drift(findings.first[peer.name], said)]
    if said.version != __version__:
        upgrade = f"version: {said.version!r} there, {__version__!r} here (fine during an upgrade)"
        return (DIFFERS if found else WELL), [*found, upgrade]
    if found:
        return DIFFERS, found
    return WELL, [f"well: version {said.version}, same cluster, same members"]


def _differences(said: Statement, board: Board, settings: Settings) -> list[str]:
    found = []
    own = Identity(settings.name, settings.cluster, board.identity.incarnation)
    members_hash = Board(own, board.policy, board.memory, board.peers.values()).members_hash()
    if said.members_hash != members_hash:
        found.append("members: it has another list of members; compare the `peers` of both")
    return found


def _drift(first: Statement, last: Statement) -> list[str]:
    """How far the peer's start has moved on our clock: not at all, where both clocks run at one rate."""
    passed = last.received_at - first.received_at
    if passed <= 0:
        return []
    unknown = (last.received_at - last.asked_at) + (first.received_at - first.asked_at)
    moved = last.started_at - first.started_at
    if abs(moved) <= passed * DRIFT_LIMIT + unknown:
        return []
    return [f"clock: runs at {1 - moved / passed:.3f} of our rate over {passed:.1f} s"]
