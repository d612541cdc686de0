"""How large a replica's share of the reads is: it falls with the lag, so that a limit is no cliff."""

from healthagent.core.replica import lag_bytes, lag_seconds
from healthagent.core.view import Policy, View

MOST, LEAST = 100, 1  # percent; at 0 HAProxy would drain the node, which is the verdict's to say


def weight(view: View, policy: Policy) -> int:
    """Percent of a replica's full share of reads, for one that may be given any.

    100 while no lag limit is configured, else linear from 100 at no lag to 1 at the limit;
    with both limits, by the lag that is nearer to its own. A lag that is not known is not small.
    """
    limit = policy.lag_limit
    nearness = 0.0
    if limit.lag_bytes is not None:
        nearness = _nearness(lag_bytes(view, policy), limit.lag_bytes)
    if limit.lag_seconds is not None:
        nearness = max(nearness, _nearness(lag_seconds(view, policy), limit.lag_seconds))
    return round(MOST - (MOST - LEAST) * nearness)


def _nearness(lag: float | None, limit: float) -> float:
    """0 at no lag, 1 at the limit and beyond."""
    if lag == 0:
        return 0.0  # also where the limit is that there be none
    if lag is None or lag >= limit:
        return 1.0
    return lag / limit
