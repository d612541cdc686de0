"""The label's metrics, read at the scrape. The families are there, without samples, where it is off."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from healthagent.core.model import Instant
from healthagent.kubernetes.label import RoleLabel

PREFIX = "healthagent_kubernetes"


def label_families(label: RoleLabel | None, now: Instant) -> Iterator[Metric]:
    """How far the pod's label can be trusted."""
    stale = GaugeMetricFamily(
        f"{PREFIX}_label_stale", "1 while the pod may say a role that this node does not have now."
    )
    seconds = GaugeMetricFamily(
        f"{PREFIX}_label_stale_seconds", "How long the pod may have said so; 0 while it does not."
    )
    calls = CounterMetricFamily(
        f"{PREFIX}_calls", "Calls of the Kubernetes API, by verb and result.", labels=("verb", "result")
    )
    if label is not None:
        stale_for = label.stale_for(now)
        stale.add_metric((), stale_for is not None)
        seconds.add_metric((), stale_for or 0.0)
        for labels, count in label.api.calls.items():
            calls.add_metric(labels, count)
    yield from (stale, seconds, calls)
