"""Metrics that Prometheus reads at /metrics. Each server has its own registry."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
VIEWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters, gauges and histograms of one server."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "openxclip_requests", "Answered requests", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "openxclip_request_seconds",
            "From the first byte of a request to the last of its response",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.gone = Counter(
            "openxclip_clients_gone", "Clients that left before their response", registry=registry
        )
        self.batch_views = Histogram(
            "openxclip_batch_views",
            "Views per batch",
            buckets=VIEWS,
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "openxclip_batch_seconds", "Time of a batch in the model", buckets=SECONDS, registry=registry
        )

    def gauge(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Add a gauge that is evaluated whenever the metrics are read."""
        Gauge(name, help_text, registry=self.registry).set_function(value)

    def on_batch(self, num_views: int, seconds: float) -> None:
        """Count a batch of the model."""
        self.batch_views.observe(num_views)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
