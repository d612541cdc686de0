"""What is broken, when, and what that makes of an answer: the truth that answers are judged by.

All instants are CLOCK_BOOTTIME seconds, one clock for agents, faults and judge.
"""

from dataclasses import dataclass, field
from math import inf

MAX_AGE = 2.0  # seconds, the agents' `postgres.max_age`: older evidence refuses
MOMENT = 1.0  # seconds that a busy machine may add to anything
RECOVERED = 12.0  # seconds after the end of a fault in which its own node may still refuse


@dataclass
class Disturbance:
    """Something is wrong with a node's PostgreSQL; with `outage` none of it answers."""

    node: str
    began: float
    outage: bool
    ended: float = inf  # while it lasts


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a check, decided at some moment between `before` and `after`."""

    node: str
    path: str
    before: float
    after: float
    status: int  # 0: the connection failed
    reason: str


@dataclass
class Truth:
    """All disturbances so far, and the verdict on an answer: `pg1` is the primary throughout."""

    primary: str
    of_postgres: list[Disturbance] = field(default_factory=list)
    of_agents: list[Disturbance] = field(default_factory=list)  # frozen, or not running

    def fault(self, answer: Answer) -> str | None:
        """What is wrong about the answer, or None.

        A refusal is right whenever anything happened to that node lately; a permission is wrong
        when its PostgreSQL was away for longer than evidence stays fresh, and always where the
        role says so. What happens to others excuses nothing.
        """
        if answer.status == 0:
            near = self._near(self.of_agents, answer, RECOVERED)
            return None if near else "not answered, and the agent was left alone"
        if answer.path == "/liveness":
            return None if answer.status == 200 else "the event loop turns, and it says no"
        wanted = answer.path == ("/primary" if answer.node == self.primary else "/replica")
        if answer.status == 200:
            if not wanted:
                return "200 for the other role"
            return "200 without evidence" if self._away(answer) else None
        if not wanted or self._near(self.of_postgres, answer, RECOVERED):
            return None
        if self._near(self.of_agents, answer, RECOVERED):
            return None
        return "refused, though nothing happened to this node"

    def _away(self, answer: Answer) -> bool:
        return any(
            one.node == answer.node
            and one.outage
            and one.began <= answer.before - MAX_AGE - MOMENT
            and answer.after <= one.ended
            for one in self.of_postgres
        )

    @staticmethod
    def _near(disturbances: list[Disturbance], answer: Answer, long_after: float) -> bool:
        return any(
            one.node == answer.node and one.began <= answer.after and answer.before <= one.ended + long_after
            for one in disturbances
        )
