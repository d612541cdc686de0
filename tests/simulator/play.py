"""Play one schedule, and tell what it was when an invariant did not hold."""

from dataclasses import dataclass, replace
from random import Random

from healthagent.core.model import Role
from healthagent.core.view import Policy
from tests.simulator.plan import POLICY, Plan, Step
from tests.simulator.watch import AFTERWARDS, Violated, WatchedWorld
from tests.story import Story
from tests.world import Clock, World

CALM = 30.0  # seconds
SETTLED = 4.0  # seconds, after which no agent is about to serve on evidence of what is over


@dataclass(frozen=True)
class Failure:
    """A schedule that breaks an invariant."""

    plan: Plan
    what: str
    transcript: tuple[str, ...]

    def __str__(self) -> str:
        plan = self.plan
        return "\n".join(
            [
                f"seed {plan.seed}: {self.what}",
                f"{plan.nodes}; messages take up to {plan.delay:g} s, "
                f"{plan.loss:.0%} are lost, {plan.duplicated:.0%} duplicated",
                *self.transcript,
            ]
        )


class Played(Story):
    """A story that a random schedule tells, under the eyes of the watcher."""

    world: WatchedWorld

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self._chance = Random(plan.seed + 1)
        self._plan = plan
        self.policy = POLICY
        self.do_nodes(*plan.nodes.split())

    def make_world(self, policy: Policy, *, signed: bool) -> World:
        return WatchedWorld(policy, signed=signed)

    def watch(self) -> None:
        world, chance = self.world, self._chance
        world.network.delay = self._delay
        world.network.again = self._again
        world.watch()
        for name, agent in world.agents.items():
            world.clocks[name] = Clock(chance.uniform(0, 1e6), chance.uniform(0.995, 1.005))
            agent.ticks = False
            agent.disk.takes = chance.choice([0.005, 0.02, 0.3])

    def _delay(self, source: str, target: str) -> float | None:
        chance, world = self._chance, self.world
        if not world.network.reaches(source, target) or chance.random() < self._plan.loss:
            world.part(source, target, after=AFTERWARDS)
            return None
        takes = chance.uniform(0.0005, self._plan.delay)
        if takes > world.policy.peer_timeout / 2 - 0.05:
            world.part(source, target, after=AFTERWARDS)
        return takes

    def _again(self) -> float | None:
        """Duplicates, and recordings that somebody plays later."""
        if self._chance.random() >= self._plan.duplicated:
            return None
        return self._chance.choice([0.001, 0.5, 3.0])

    def act(self, command: str) -> None:
        world = self.world
        word, *names = command.split()
        world.transcript.append(f"t={world.now:.2f} -- {command}")
        world.note_primaries()
        if word in ("freeze", "thaw", "kill", "boot", "restart"):
            for name in names or world.agents:
                world.disturb(name, agent=True)
        elif word in ("cut", "mend", "block"):
            world.part(names[0], names[1])
        elif word in ("isolate", "heal"):
            for one in world.agents:
                for other in world.agents:
                    if one != other:
                        world.part(one, other)
        elif names and names[0] in world.known:
            world.disturb(names[0], agent=False)
        if word == "maintenance":
            world.known[names[0]].in_maintenance = True
        super().act(command)
        world.note_primaries()

    def do_boot(self, *names: str) -> None:
        for name in names or tuple(self.world.agents):
            self.world.started(self.world.agents[name])
            super().do_boot(name)

    def do_kill(self, name: str) -> None:
        self.world.known[name].serving = False
        super().do_kill(name)

    def do_promote(self, *names: str) -> None:
        """As pg_promote: only a running replica, to a timeline above all in its history."""
        for name in names:
            postgres = self.world.postgres[name]
            if postgres.running and postgres.role is Role.REPLICA:
                super().do_promote(name)

    def do_thaw(self, name: str) -> None:
        if self.world.agents[name].running:
            super().do_thaw(name)

    def do_maintenance(self, name: str, state: str) -> None:
        if self.world.agents[name].answers:
            super().do_maintenance(name, state)

    # The end.

    def calm_down(self) -> None:
        """Mend everything, leave one primary on the newest served timeline, and expect it to serve."""
        world = self.world
        self.act("heal")
        self._plan = replace(self._plan, loss=0.0, delay=0.005)
        world.run(world.policy.peer_timeout)  # what was lost is given up
        for name, agent in world.agents.items():
            agent.disk.full = False
            if agent.running and agent.frozen:
                self.act(f"thaw {name}")
            elif not agent.running:
                self.act(f"boot {name}")
            if name in world.postgres:
                self.act(f"resume {name}")
                self.act(f"maintenance {name} off")
                self.act(f"start {name}")
        world.run(SETTLED)
        rightful = self._rightful()
        for name in world.postgres:
            if name != rightful:
                self.act(f"follow {name} {rightful}")
        until = world.now + CALM
        while world.now < until:
            world.run(1.0)
            agent = world.agents[rightful]
            if agent.board.primary(agent.now).ok:
                return
        verdict = world.agents[rightful].board.primary(world.agents[rightful].now)
        raise Violated(f"L: {rightful} is the only primary and was calm for {CALM:g} s: {verdict.reason}")

    def _rightful(self) -> str:
        """A primary, made the newest of all timelines that were or were about to be served."""
        world = self.world
        mark = max(max(agent.board.memory.high_water.values(), default=1) for agent in world.agents.values())
        primaries = [name for name, postgres in world.postgres.items() if postgres.role is Role.PRIMARY]
        name = max(
            primaries, key=lambda one: world.postgres[one].timeline, default=next(iter(world.postgres))
        )
        postgres = world.postgres[name]
        if postgres.role is Role.REPLICA or postgres.timeline < mark:
            world.promote(name, max(mark, postgres.timeline) + 1)
            world.note_primaries()
        return name


def play(plan: Plan) -> Failure | None:
    """Run a schedule to its end, or to the first instant at which an invariant does not hold."""
    story = Played(plan)
    try:
        story.act("boot")
        for step in plan.steps:
            if step.at > plan.duration:
                break
            story.world.run(max(0.0, step.at - story.world.now))
            story.act(step.command)
        story.world.run(max(0.0, plan.duration - story.world.now))
        if plan.calm:
            story.calm_down()
    except Violated as violation:
        return Failure(plan, str(violation), tuple(story.world.transcript))
    return None


def shrink(failure: Failure) -> Failure:
    """The same failure with fewer steps, as far as leaving out one after another goes."""
    smallest, kind = failure, failure.what.split(":")[0]
    for step in failure.plan.steps:
        steps: tuple[Step, ...] = tuple(one for one in smallest.plan.steps if one is not step)
        found = play(replace(smallest.plan, steps=steps))
        if found is not None and found.what.split(":")[0] == kind:
            smallest = found
    return smallest
