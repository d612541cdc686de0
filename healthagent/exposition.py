"""Which of Prometheus's formats a scraper is answered in."""

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

OPENMETRICS = "application/openmetrics-text"


def rendered(registry: CollectorRegistry, accept: str | None) -> tuple[bytes, str]:
    """The body and its Content-Type: OpenMetrics 1.0 for who accepts it, else the text format 0.0.4."""
    # only the type is handed on: choose_encoder() raises on a stranger's `version=x`
    types = [one.partition(";")[0].strip() for one in (accept or "").split(",")]
    encode, content_type = choose_encoder(OPENMETRICS if OPENMETRICS in types else "")
    return encode(registry), content_type
