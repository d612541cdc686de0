"""May pgpool's failover script promote a standby? The question that `--may-promote` answers.

It looks at roles and not at verdicts: in a split brain every primary is refused, and a script that
takes "nobody answers 200" for "there is no primary" makes a third one. An agent that cannot say
counts like one that is silent: a majority must say that theirs is no primary.
"""

from collections.abc import Mapping

from healthagent.core.model import Reason, Role
from healthagent.pgpool.agents import Answer, StatusSaid

NO_PRIMARY = frozenset({Reason.POSTGRES_DOWN, Reason.WITNESS})


def objections(answers: Mapping[str, Answer], cluster: str | None) -> list[str]:
    """Everything that speaks against a promotion now; nothing: go ahead."""
    said = {name: answer for name, answer in answers.items() if isinstance(answer, StatusSaid)}
    found = [
        f"{name} says that its PostgreSQL is a primary ({answer.verdicts.primary.reason})"
        for name, answer in said.items()
        if answer.role is Role.PRIMARY
    ]
    none = [name for name, answer in said.items() if _is_no_primary(answer)]
    if len(none) * 2 <= len(answers):
        rest = ", ".join(name for name in answers if name not in none)
        found.append(f"only {len(none)} of {len(answers)} agents say that theirs is no primary, not {rest}")
    clusters = sorted({answer.cluster for answer in said.values()} | ({cluster} if cluster else set()))
    if len(clusters) > 1:
        found.append(f"the agents belong to several clusters: {', '.join(clusters)}")
    return found


def _is_no_primary(answer: StatusSaid) -> bool:
    if answer.role is not None:
        return answer.role is Role.REPLICA
    return answer.verdicts.primary.reason in NO_PRIMARY
