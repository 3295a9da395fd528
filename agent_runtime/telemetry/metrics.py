# SPDX-License-Identifier: Apache-2.0
"""The Prometheus registry of a process, and the metrics that every kind of process has."""

import platform
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, Info, ProcessCollector

RUNTIME_VERSION = version("kubeagents")
"""Version of the distribution that this process runs."""

DURATION_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Seconds. From a no-op to half an hour; a task longer than that is in +Inf."""


def new_registry(component: str) -> CollectorRegistry:
    """A registry with the figures of the Python process and `kubeagents_build_info`."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    build = Info("kubeagents_build", "What runs here.", registry=registry)
    build.info({"version": RUNTIME_VERSION, "component": component, "python": platform.python_version()})
    return registry


class LinkMetrics:
    """Whether the queues answer."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.up = Gauge(
            "kubeagents_queue_up", "1 while the queue's Redis answers this process.", ["queue"], registry=registry
        )
        self.errors = Counter(
            "kubeagents_queue_errors_total",
            "Calls to the queue's Redis that failed, by the error's code.",
            ["queue", "code"],
            registry=registry,
        )


class LoopMetrics:
    """How promptly the event loop runs what is due."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.lag = Histogram(
            "kubeagents_event_loop_lag_seconds",
            "How late the event loop ran a timer: time for which something blocked it.",
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0),
            registry=registry,
        )
