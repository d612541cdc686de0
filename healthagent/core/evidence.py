"""The rules that every question begins with: is this agent in service, and what is known of PostgreSQL?"""

from dataclasses import replace

from healthagent.core.model import Local, Reason, Verdict
from healthagent.core.view import Policy, View


def refusal(reason: Reason, detail: str) -> Verdict:
    """A refusal, with its reason and a sentence that says by how much."""
    return Verdict(False, reason, detail)


def decide_running(view: View, policy: Policy) -> Verdict:
    """Say whether PostgreSQL runs, by fresh evidence, whatever its role."""
    if policy.witness:
        return refusal(Reason.WITNESS, "this agent has no PostgreSQL")
    return refused_by_evidence(view, policy) or Verdict(True, Reason.RUNNING, "PostgreSQL runs")


def younger(one: Local, other: Local) -> Local:
    """What two probes of one PostgreSQL know together; of new connections what `other` has tried."""
    first, last = one.snapshot, other.snapshot
    snapshot = last if first is None or (last is not None and last.asked_at >= first.asked_at) else first
    failures = [failure for failure in (one.failure, other.failure) if failure is not None]
    failure = max(failures, key=lambda failure: failure.at, default=None)
    if failure is not None and snapshot is not None and snapshot.asked_at >= failure.at:
        failure = None
    return replace(other, snapshot=snapshot, failure=failure)


def refused_by_agent(view: View, policy: Policy) -> Verdict | None:
    """Rule 1: this agent takes itself out."""
    if view.stopping:
        return refusal(Reason.STOPPING, "the agent is shutting down")
    maintenance = view.memory.maintenance
    if maintenance is not None and (maintenance.until is None or view.now < maintenance.until):
        left = "" if maintenance.until is None else f" for another {maintenance.until - view.now:.0f} s"
        who = (maintenance.who or "an operator") + (f" ({maintenance.why})" if maintenance.why else "")
        return refusal(Reason.MAINTENANCE, f"{who} took this node out of service{left}")
    if policy.witness:
        return refusal(Reason.WITNESS, "this agent has no PostgreSQL")
    return None


def refused_by_evidence(view: View, policy: Policy) -> Verdict | None:
    """Rule 2: without a fresh snapshot nothing is known."""
    local, now = view.local, view.now
    if local.failure is not None and local.failure.conclusive:
        return refusal(local.failure.reason, local.failure.detail)
    if local.snapshot is None:
        if local.failure is not None:
            return refusal(local.failure.reason, local.failure.detail)
        return refusal(Reason.STARTING_UP, "PostgreSQL has not answered yet since the agent started")
    age = local.snapshot.age(now)
    if age > policy.max_age:
        why = f"; {local.failure.detail}" if local.failure else ""
        return refusal(
            local.failure.reason if local.failure else Reason.POSTGRES_STALE,
            f"PostgreSQL last answered {age:.1f} s ago, at most {policy.max_age:g} s is fresh{why}",
        )
    if local.new_connection_failures >= 2 and local.new_connection_failure is not None:
        return refusal(
            Reason.NO_NEW_CONNECTIONS,
            f"{local.new_connection_failures} new connections in a row failed, though the held one lives: "
            f"{local.new_connection_failure.detail}",
        )
    return None
