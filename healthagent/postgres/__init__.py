"""The edge to this node's PostgreSQL: one held connection, one statement a poll, snapshots and failures."""

from healthagent.postgres.poller import Poller, Sink

__all__ = ["Poller", "Sink"]
