"""Hosts in network namespaces, and everything that can happen between them.

    with Network(["pg1", "pg2", "w1"]) as network:
        network["pg1"].place                    # for Node and Agent: where they run, and their address
        network.cut(["pg1"])                    # no packet between pg1 and the others, in one step
        network.cut(["pg2"], ["pg1"], syn_only=True)    # pg2 can open no connection to pg1
        network.refuse("pg1", 8008)             # pg1's port answers with a reset
        network.reject("pg1")                   # every link of pg1 refuses in both directions
    network.delay("pg2", 0.5)               # half a second each way
        network.heal()

Each host is a namespace with one interface, wired to a bridge in a namespace of its own, so nothing of
this machine's network is touched. Packets are dropped on the bridge: one change of its rules cuts
every path at the same instant. Names hold our process id and start, so what a killed run has left is
told from what another run is using, and swept away at the next start. Needs root.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from healthagent.demo.postgres import Place

INSTALL = "apt-get install -y --no-install-recommends iproute2 nftables ethtool"
RELAY = Path(__file__).with_name("relay.py")
CLONE_NEWNET = 0x40000000
PREFIX = "ha-"
SUBNET = "10.99.0"  # every network has its own bridge: runs side by side do not meet

_networks = count(1)  # of this process
_libc = ctypes.CDLL(None, use_errno=True)


def missing() -> str | None:
    """What keeps this machine from having such networks, with the cure; None when nothing does."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = [program for program in ("ip", "nft", "ethtool") if shutil.which(program, path=path) is None]
    if absent:
        return f"no {', '.join(absent)}: run `{INSTALL}`"
    return None if os.geteuid() == 0 else "network namespaces need root: run the tests as root"


@dataclass(frozen=True)
class Host:
    """One namespace. `prefix` runs a command in it."""

    name: str
    namespace: str
    address: str

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.namespace)

    @property
    def place(self) -> Place:
        """Where a PostgreSQL of the bed runs."""
        return Place(self.name, host=self.address, port=5432, prefix=self.prefix)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in the namespace: the connections that it opens start there."""
        with open("/proc/thread-self/ns/net") as ours, open(f"/run/netns/{self.namespace}") as its:
            _enter(its.fileno())
            try:
                yield
            finally:
                _enter(ours.fileno())


class Network:
    """Hosts on one bridge; a context manager that leaves no namespace behind."""

    def __init__(self, names: Sequence[str]) -> None:
        sweep()
        run = f"{PREFIX}{_alive_as(os.getpid())}-{next(_networks)}-"
        self._switch = f"{run}bridge"
        self.hosts = [Host(name, f"{run}{name}", f"{SUBNET}.{i}") for i, name in enumerate(names, start=1)]
        self._dropped: list[str] = []
        self._refused: set[str] = set()
        self._relays: dict[str, subprocess.Popen[bytes]] = {}

    def __getitem__(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    def __enter__(self) -> Self:
        try:
            self._wire()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def cut(
        self,
        sources: Iterable[str],
        targets: Iterable[str] | None = None,
        *,
        port: int | None = None,
        one_way: bool = False,
        syn_only: bool = False,
        loss: int = 100,
    ) -> None:
        """Drop packets between sources and targets (None: all other hosts), beside what is cut already.

        `port`: only of connections to that port of a target, and without one_way also to that of a source.
        `one_way`: only packets from a source to a target. `syn_only`: only those that open a connection
        from a source to a target. `loss`: percent of the packets.
        """
        inside = [self[name].address for name in sources]
        outside = [
            host.address
            for host in self.hosts
            if (host.address not in inside if targets is None else host.name in targets)
        ]
        share = f"numgen random mod 100 < {loss} " if loss < 100 else ""
        for one in inside:
            for other in outside:
                there, back = f"ip saddr {one} ip daddr {other}", f"ip saddr {other} ip daddr {one}"
                if syn_only:
                    ways = [f"{there} tcp flags & (syn|ack) == syn"]
                elif one_way:
                    ways = [there if port is None else f"{there} tcp dport {port}"]
                elif port is None:
                    ways = [there, back]
                else:
                    ways = [f"{way} tcp {end} {port}" for way in (there, back) for end in ("dport", "sport")]
                self._dropped += [f"{way} {share}drop" for way in ways]
        self._apply()

    def refuse(
        self, target: str, port: int, how: Literal["tcp-reset", "admin-prohibited"] = "tcp-reset"
    ) -> None:
        """Let a host answer packets to a port of it with a refusal at once, as a firewall that rejects."""
        verdict = "reject with tcp reset" if how == "tcp-reset" else "reject with icmp type admin-prohibited"
        chain = "type filter hook input priority 0; policy accept;"
        rules = f"{chain}\n iifname eth0 tcp dport {port} {verdict}"
        self._nft(self[target].namespace, f"table inet bed {{\n chain input {{\n {rules}\n }}\n}}\n")
        self._refused.add(target)

    def reject(self, name: str) -> None:
        """Let a host refuse at once every packet that it sends or gets, as `iptables -j REJECT` on its links.

        What it asks of itself, under its own address too, goes on.
        """
        rules = "".join(
            f" chain {hook} {{\n type filter hook {hook} priority 0; policy accept;\n"
            f" {side} eth0 meta l4proto {{ tcp, icmp, udp }} reject with icmp type admin-prohibited\n }}\n"
            for hook, side in (("input", "iifname"), ("output", "oifname"))
        )
        self._nft(self[name].namespace, f"table inet bed {{\n{rules}}}\n")
        self._refused.add(name)

    def delay(self, name: str, seconds: float, jitter: float = 0.0) -> None:
        """Hold every packet to and from a host for `seconds`, and at random up to `jitter` more, in order.

        By a relay in the host's cable, since many kernels come without netem.
        """
        self._undelay(name)
        cable, near, far = f"v-{name}", f"n-{name}", f"f-{name}"
        self._ip("link", "add", near, "type", "veth", "peer", "name", far)
        self._ip("link", "set", cable, "nomaster")
        for link in (near, far):
            self._ip("link", "set", link, "up")
        self._ip("link", "set", far, "master", "br0")
        command = ("ip", "netns", "exec", self._switch, sys.executable, "-I", str(RELAY))
        self._relays[name] = subprocess.Popen([*command, cable, near, str(seconds), str(jitter)])

    def heal(self) -> None:
        """Let everything pass again, at once."""
        self._dropped.clear()
        self._apply()
        for name in self._refused:
            self._nft(self[name].namespace, "delete table inet bed\n")
        self._refused.clear()
        for name in list(self._relays):
            self._undelay(name)

    def close(self) -> None:
        """End what runs in the namespaces and remove them; idempotent."""
        for relay in self._relays.values():
            relay.kill()
            relay.wait()
        self._relays.clear()
        for namespace in (*(host.namespace for host in self.hosts), self._switch):
            _remove(namespace)

    def _wire(self) -> None:
        _run("ip", "netns", "add", self._switch)
        self._ip("link", "add", "br0", "type", "bridge")
        self._ip("link", "set", "br0", "up")
        for host in self.hosts:
            here, cable = host.namespace, f"v-{host.name}"
            _run("ip", "netns", "add", here)
            _run("ip", "-n", here, "link", "set", "lo", "up")
            _run(
                *("ip", "link", "add", "eth0", "netns", here),
                *("type", "veth", "peer", "name", cable, "netns", self._switch),
            )
            self._ip("link", "set", cable, "master", "br0", "up")
            _run("ip", "-n", here, "addr", "add", f"{host.address}/24", "dev", "eth0")
            _run("ip", "-n", here, "link", "set", "eth0", "up")
            # a checksum left to hardware that is not there would make a relayed packet invalid
            _run(*host.prefix, "ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off", "gro", "off")
        self._apply()

    def _apply(self) -> None:
        rules = "".join(f" {rule}\n" for rule in self._dropped)
        chain = "type filter hook forward priority 0; policy accept;"
        self._nft(
            self._switch,
            "table bridge bed {\n chain forward { }\n}\ndelete table bridge bed\n"
            f"table bridge bed {{\n chain forward {{\n {chain}\n{rules} }}\n}}\n",
        )

    def _undelay(self, name: str) -> None:
        relay = self._relays.pop(name, None)
        if relay is not None:
            relay.kill()
            relay.wait()
            self._ip("link", "del", f"n-{name}")
            self._ip("link", "set", f"v-{name}", "master", "br0")

    def _ip(self, *arguments: str) -> None:
        _run("ip", "-n", self._switch, *arguments)

    def _nft(self, namespace: str, script: str) -> None:
        """Run a script in a namespace; nft applies a whole file as one transaction."""
        _run("ip", "netns", "exec", namespace, "nft", "-f", "-", stdin=script)


def sweep() -> None:
    """Remove what killed runs have left: namespaces whose process is gone, with all that runs in them."""
    for line in _run("ip", "netns", "list").splitlines():
        namespace = line.split()[0]
        if not namespace.startswith(PREFIX) or namespace.count("-") < 4:
            continue
        pid, started_at = namespace.removeprefix(PREFIX).split("-")[:2]
        if f"{pid}-{started_at}" != _alive_as(int(pid)):
            _remove(namespace)


def _alive_as(pid: int) -> str | None:
    """A word for a running process that no later process with its id has; None when there is none."""
    try:
        started_at = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None
    return f"{pid}-{started_at}"


def _remove(namespace: str) -> None:
    if not Path("/run/netns", namespace).exists():
        return
    for pid in _run("ip", "netns", "pids", namespace).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    _run("ip", "netns", "del", namespace)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _run(*command: str, stdin: str | None = None) -> str:
    """Run a program to its end; RuntimeError with its words if it fails."""
    ran = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=20)
    if ran.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {ran.stderr.strip()}")
    return ran.stdout
