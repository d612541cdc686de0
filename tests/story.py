"""The language of tests/stories: commands that act on a world, and what each agent then says.

A story is a title in English, then blocks: commands, `----`, what changed. Nothing below `----`
is typed by hand (`pytest --rewrite`). A line is printed when the answer on /primary, or after
`watch reads` also on /replica, changes its code or its reason.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from healthagent.core.forced import objection
from healthagent.core.model import LagLimit, Role, Verdict
from healthagent.core.view import Maintenance, Override, Policy
from tests.agent import Agent
from tests.builders import OTHER_SYSTEM
from tests.world import World


class Story:
    """One cluster and what has been printed of it so far."""

    def __init__(self) -> None:
        self.policy = Policy()
        self.world = World(self.policy)
        self.lines: list[str] = []
        self._shown: dict[str, tuple[bool, str]] = {}
        self._reads = False

    def tell(self, commands: list[str]) -> list[str]:
        """Run the commands of one block, and return what was said meanwhile."""
        self.lines = []
        for command in commands:
            self.act(command)
        return self.lines

    def act(self, command: str) -> None:
        """Do what one command says."""
        word, *arguments = command.split()
        act: Callable[..., None] = getattr(self, f"do_{word.replace('-', '_')}")
        act(*arguments)

    def _listen(self, agent: Agent, verdict: Verdict) -> None:
        """Print what an agent answers now, if it differs from what it answered before."""
        self._hear(agent.name, verdict)
        if self._reads:
            self._hear(f"{agent.name} reads", agent.board.replica(agent.now))

    def _hear(self, who: str, verdict: Verdict) -> None:
        if self._shown.get(who) != (verdict.ok, verdict.reason):
            self._shown[who] = (verdict.ok, verdict.reason)
            self._say(f"{who} {200 if verdict.ok else 503} {verdict.reason}: {verdict.detail}")

    def _say(self, line: str) -> None:
        self.lines.append(f"t={self.world.now:.1f} {line}")

    # The cluster.

    def do_nodes(self, *words: str) -> None:
        """nodes pg1 pg2 pg3 w9 [key=value ...]: pg1 is primary, the others follow it; w... are witnesses."""
        names = [word for word in words if "=" not in word]
        chosen = dict(word.split("=", 1) for word in words if "=" in word)
        self.world = self.make_world(
            chosen_policy(self.policy, chosen), signed=chosen.get("exchange") == "signed"
        )
        for name in names:
            self.world.add(name, witness=name.startswith("w"))
        for name in names:
            self.world.agents[name].settings.entries = {other: other for other in names if other != name}
        for name, postgres in self.world.postgres.items():
            if name == names[0]:
                postgres.role = Role.PRIMARY
            else:
                postgres.follows = names[0]
        self.watch()

    def make_world(self, policy: Policy, *, signed: bool) -> World:
        return World(policy, signed=signed)

    def watch(self) -> None:
        """Listen to the agents of a new world."""
        self.world.observers.append(self._listen)

    def do_entry(self, owner: str, entry: str, target: str) -> None:
        """entry pg1 pg4 pg2: pg1's configuration has an entry pg4 that leads to pg2's machine."""
        self.world.agents[owner].settings.entries[entry] = target

    def do_cluster(self, name: str, cluster: str) -> None:
        self.world.agents[name].settings.cluster = cluster

    def do_dsn(self, owner: str, entry: str) -> None:
        """dsn pg1 pg2: pg1 may ask pg2's PostgreSQL itself while pg2's agent is silent."""
        settings = self.world.agents[owner].settings
        settings.by_dsn |= {entry}

    def do_patroni(self, name: str) -> None:
        self.world.agents[name].speaks_patroni = True

    def do_version(self, name: str, which: str) -> None:
        """version pg2 older|newer|garbled|ours: how its messages are spelled."""
        self.world.agents[name].settings.dialect = DIALECTS[which]

    def do_watch(self, _reads: str) -> None:
        self._reads = True

    # Agents.

    def do_boot(self, *names: str) -> None:
        for name in names or tuple(self.world.agents):
            self.world.agents[name].start()

    def do_kill(self, name: str) -> None:
        self.world.agents[name].kill()

    def do_restart(self, name: str, *how: str) -> None:
        """restart pg1 [emptied] [down=SECONDS]: kill the agent and start it again."""
        agent = self.world.agents[name]
        agent.kill()
        if "emptied" in how:
            agent.disk.content = None
        self.do_run(next((word[5:] for word in how if word.startswith("down=")), "0.5"))
        agent.start()

    def do_empty(self, name: str) -> None:
        """empty pg1: its state_dir is lost."""
        self.world.agents[name].disk.content = None

    def do_freeze(self, name: str) -> None:
        self.world.agents[name].freeze()

    def do_thaw(self, name: str) -> None:
        self.world.agents[name].thaw()

    def do_disk(self, name: str, state: str) -> None:
        self.world.agents[name].disk.full = state == "full"

    def do_maintenance(self, name: str, state: str) -> None:
        agent = self.world.agents[name]
        agent.board.maintain(Maintenance(None) if state == "on" else None, agent.now)
        agent.look()

    def do_force(self, name: str, word: str, *how: str) -> None:
        """force pg1 on|off|end [for=SECONDS]: an operator's verdict on /primary, an hour by default."""
        agent = self.world.agents[name]
        board, now = agent.board, agent.now
        seconds = next((float(one[4:]) for one in how if one.startswith("for=")), 3600.0)
        why_not = objection(board.view(now), board.policy) if word == "on" else None
        if why_not is not None:
            self._say(f"{name} is not forced on: {why_not}")
            return
        timeline = board.local.snapshot.timeline if board.local.snapshot else None
        override = Override(word == "on", now, now + seconds, timeline, "alice", "the story says so")
        board.force(None if word == "end" else override, now)
        agent.look()

    def do_stop(self, name: str) -> None:
        agent = self.world.agents[name]
        agent.board.stop(agent.now)
        agent.look()

    def do_clear(self, name: str) -> None:
        """clear pg1: an operator's word against its latches."""
        agent = self.world.agents[name]
        agent.board.forgive(agent.now)
        agent.look()

    # PostgreSQL.

    def do_promote(self, *names: str) -> None:
        """promote pg2 [timeline=N]"""
        for name in names:
            if "=" not in name:
                timeline = next((int(word.split("=")[1]) for word in names if "=" in word), None)
                self.world.promote(name, timeline)

    def do_follow(self, name: str, source: str) -> None:
        self.world.follow(name, source)

    def do_crash(self, name: str) -> None:
        self.world.postgres[name].running = False
        self._notice(name)

    def do_start(self, name: str) -> None:
        self.world.postgres[name].running = True

    def do_hang(self, name: str) -> None:
        self.world.postgres[name].hangs = True

    def do_resume(self, name: str) -> None:
        self.world.postgres[name].hangs = False

    def do_lock(self, name: str) -> None:
        """lock pg2: its agent can log in no more, as after a change of pg_hba.conf."""
        self.world.postgres[name].locked = True

    def do_unlock(self, name: str) -> None:
        self.world.postgres[name].locked = False

    def do_reinit(self, name: str) -> None:
        """reinit pg2: initdb by mistake: a primary of its own under our name."""
        postgres = self.world.postgres[name]
        postgres.role, postgres.follows, postgres.timeline = Role.PRIMARY, None, 1
        postgres.system_identifier = OTHER_SYSTEM

    def do_read_only(self, name: str, state: str) -> None:
        self.world.postgres[name].read_only = state == "on"

    def do_lag(self, name: str, size: str) -> None:
        postgres = self.world.postgres[name]
        postgres.replayed = postgres.written - int(size)

    def do_detach(self, name: str) -> None:
        self.world.postgres[name].follows = None

    def _notice(self, name: str) -> None:
        """A lost connection is an event: the agent looks again at once."""
        agent = self.world.agents[name]
        if agent.answers:
            agent.probe()

    # The network.

    def do_cut(self, one: str, other: str, *how: str) -> None:
        """cut pg1 pg2 [one-way]: from pg1 to pg2 only."""
        self.world.network.sever(one, other, one_way="one-way" in how)

    def do_block(self, one: str, other: str) -> None:
        """block pg1 pg2: pg1 cannot open a connection to pg2; what it answers passes."""
        self.world.network.blocked.add((one, other))

    def do_isolate(self, *names: str) -> None:
        """isolate pg1: cut these from all others."""
        for name in names:
            for other in self.world.agents:
                if other not in names:
                    self.world.network.sever(name, other)

    def do_mend(self, one: str, other: str) -> None:
        """mend pg1 pg2: these two reach each other again."""
        for pair in ((one, other), (other, one)):
            self.world.network.cut.discard(pair)
            self.world.network.blocked.discard(pair)

    def do_heal(self) -> None:
        self.world.network.heal()

    def do_slow(self, name: str, seconds: str) -> None:
        """slow pg2 0.8: what it sends takes so long."""
        wait = float(seconds)
        self.world.network.delay = lambda source, _target: wait if source == name else 0.002

    # Time, and looking closely.

    def do_run(self, seconds: str) -> None:
        self.world.run(float(seconds))

    def do_show(self, *names: str) -> None:
        """show pg1: what it says now, changed or not."""
        for name in names:
            agent = self.world.agents[name]
            verdict = agent.board.primary(agent.now)
            self._say(f"{name} {200 if verdict.ok else 503} {verdict.reason}: {verdict.detail}")


def chosen_policy(policy: Policy, chosen: dict[str, str]) -> Policy:
    """The policy with what a `nodes` line chooses."""
    return replace(
        policy,
        demote_isolated=chosen.get("isolation") == "demote",
        demote_all=chosen.get("on_conflict") == "demote_all",
        durable=chosen.get("state_dir") != "null",
        lag_limit=LagLimit(int(chosen["max_lag"])) if "max_lag" in chosen else LagLimit(),
    )


REQUIRED = ("cluster", "name", "incarnation", "uptime", "serving", "counter", "echo")
OPTIONAL = ("snapshot", "not_serving_for", "last_served", "yields_to", "hwm", "reason", "witness")


def older(body: bytes) -> bytes:
    """As an agent that knows fewer words would say it."""
    content = json.loads(body)
    return msgspec.json.encode({key: content[key] for key in (*REQUIRED, *OPTIONAL) if key in content})


def newer(body: bytes) -> bytes:
    """As an agent of a later format would say it."""
    content: dict[str, Any] = json.loads(body)
    content |= {"v": 2, "lease": {"term": 7, "held": True}, "reason": "lease_" + content.get("reason", "")}
    content.setdefault("snapshot", None)
    if content["snapshot"] is not None:
        content["snapshot"] |= {"checksums": "on", "slots": [{"name": "s1"}]}
    return msgspec.json.encode(content)


def garbled(_body: bytes) -> bytes:
    """As a proxy in front of a dead agent would say it."""
    return b"<html>502 Bad Gateway</html>"


DIALECTS = {"older": older, "newer": newer, "garbled": garbled, "ours": None}
