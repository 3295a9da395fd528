# SPDX-License-Identifier: Apache-2.0
"""The operator's Prometheus metrics. Labels have few values: kinds, verbs and outcomes, never names of objects."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)


class QueueMetrics:
    """The work queue."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.adds = Counter(
            "kubeagents_operator_workqueue_adds", "Keys that were asked for.", ["kind"], registry=registry
        )
        self.waiting = Histogram(
            "kubeagents_operator_workqueue_wait_seconds",
            "How long a key waited for a worker.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.reconciles = Counter(
            "kubeagents_operator_reconciles", "Finished reconciles.", ["kind", "outcome"], registry=registry
        )
        self.seconds = Histogram(
            "kubeagents_operator_reconcile_seconds",
            "Duration of a reconcile.",
            ["kind"],
            buckets=_SECONDS,
            registry=registry,
        )


class ApiMetrics:
    """Requests to the API server, those of the watches not counted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.writes = Counter(
            "kubeagents_operator_api_writes",
            "Writes that the API server accepted, by the kind of object and by verb.",
            ["kind", "verb"],
            registry=registry,
        )
        self.reads = Counter("kubeagents_operator_api_reads", "Single objects read.", ["kind"], registry=registry)
        self.errors = Counter(
            "kubeagents_operator_api_errors",
            "Requests that failed, by HTTP status; 0 when the API server could not be reached.",
            ["status"],
            registry=registry,
        )


class EventMetrics:
    """Kubernetes Events."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.dropped = Counter(
            "kubeagents_operator_events_dropped",
            "Kubernetes Events that were not posted, by cause: rate, backlog or error.",
            ["cause"],
            registry=registry,
        )


class SampleMetrics:
    """Samples of the queues."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.samples = Counter(
            "kubeagents_operator_queue_samples", "Samples taken of queues, by outcome.", ["outcome"], registry=registry
        )


class LiveFigures:
    """Gauges that are read when Prometheus asks: they need no upkeep and cannot go stale."""

    def __init__(self) -> None:
        self._gauges: list[tuple[str, str, Callable[[], float]]] = []
        self._by_resource: list[tuple[str, str, Callable[[], dict[str, float]]]] = []

    def gauge(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Add one figure."""
        self._gauges.append((name, help_text, value))

    def by_resource(self, name: str, help_text: str, values: Callable[[], dict[str, float]]) -> None:
        """Add one figure per watched resource."""
        self._by_resource.append((name, help_text, values))

    def collect(self) -> list[GaugeMetricFamily]:
        """What prometheus_client calls."""
        families = [GaugeMetricFamily(name, text, value=value()) for name, text, value in self._gauges]
        for name, text, values in self._by_resource:
            family = GaugeMetricFamily(name, text, labels=["resource"])
            for resource, value in values().items():
                family.add_metric([resource], value)
            families.append(family)
        return families
