"""`healthagent peers check`: can this node's peers be reached, and do they agree with it?"""

import argparse
import sys
import time
from dataclasses import dataclass

from healthagent import __version__
from healthagent.commands.client import Unreachable, ask
from healthagent.commands.config import add_file, add_flags, given_flags, load_or_complain
from healthagent.config import PeerEntry, Settings

CLOCK_WINDOW = 2.0  # seconds over which the rates of two clocks are compared
DRIFT_LIMIT = 0.01  # of the rate; real machines stay below 0.0005

EXAMPLE = """\
example:
  healthagent peers check -c /etc/healthagent.yaml
exit code: 0 all well, 1 something differs, 2 usage, 3 a peer cannot be reached
"""


@dataclass(frozen=True)
class Said:
    """What a peer said of itself, and when by our clock."""

    cluster: str
    name: str
    version: str
    incarnation: str
    members_hash: str
    uptime: float
    heard_at: float


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
    """Print one line per peer; the worst of them is the exit code."""
    configuration = load_or_complain(arguments.config, given_flags(arguments))
    if configuration is None:
        return 2
    settings = configuration.settings
    if not settings.peers:
        sys.stdout.write("no peers are configured\n")
        return 0
    first = {peer.name: _asked(peer) for peer in settings.peers}
    time.sleep(CLOCK_WINDOW)
    hashes = {said.members_hash for said in first.values() if isinstance(said, Said)}
    worst = 0
    for peer in settings.peers:
        code, lines = _judged(peer, first[peer.name], settings, hashes)
        worst = max(worst, code)
        for line in lines:
            sys.stdout.write(f"{peer.name}: {line}\n")
    return worst


def _asked(peer: PeerEntry) -> Said | str:
    try:
        reply = ask(peer.url, "/peer")
    except Unreachable as error:
        return str(error)
    heard_at = time.clock_gettime(time.CLOCK_BOOTTIME)
    body = reply.json
    if reply.status != 200 or not isinstance(body, dict):
        return f"{peer.url}: no healthagent there, /peer answered {reply.status}"
    return Said(
        cluster=str(body.get("cluster")),
        name=str(body.get("name")),
        version=str(body.get("version")),
        incarnation=str(body.get("incarnation")),
        members_hash=str(body.get("members_hash")),
        uptime=float(body.get("uptime") or 0),
        heard_at=heard_at,
    )


def _judged(peer: PeerEntry, said: Said | str, settings: Settings, hashes: set[str]) -> tuple[int, list[str]]:
    if isinstance(said, str):
        return 3, [f"cannot be reached: {said}"]
    found = []
    if said.cluster != settings.cluster:
        found.append(f"cluster: it is of {said.cluster!r}, this one of {settings.cluster!r}")
    if said.name != peer.name:
        found.append(f"name: it calls itself {said.name!r}")
    if len(hashes) > 1:
        found.append("members: not all agents have the same list of members; compare their `peers`")
    again = _asked(peer)
    if isinstance(again, Said) and again.incarnation == said.incarnation:
        passed = again.heard_at - said.heard_at
        drift = (again.uptime - said.uptime) / passed - 1
        if abs(drift) > DRIFT_LIMIT:
            found.append(f"clock: runs at {1 + drift:.3f} of our rate over {passed:.1f} s")
    if said.version != __version__:
        found.append(f"version: {said.version} there, {__version__} here (fine during an upgrade)")
    fine = not found or all(line.startswith("version:") for line in found)
    return (0 if fine else 1), found or [f"well: version {said.version}, same cluster, same members"]
