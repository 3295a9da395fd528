# SPDX-License-Identifier: Apache-2.0
"""Metrics of an Agent's process."""

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from agent_runtime.telemetry.metrics import DURATION_BUCKETS


class AttemptSeconds(Collector):
    """How long handlers ran: a histogram that costs a third of the library's for each attempt. For one thread."""

    def __init__(self) -> None:
        self._counts = [0] * (len(DURATION_BUCKETS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count an attempt."""
        self._counts[bisect_left(DURATION_BUCKETS, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterator[Metric]:
        """See the library's Collector."""
        bounds = [*map(floatToGoString, DURATION_BUCKETS), "+Inf"]
        buckets = list(zip(bounds, accumulate(self._counts), strict=True))
        yield HistogramMetricFamily(
            "kubeagents_agent_attempt_seconds", "How long handlers ran.", buckets=buckets, sum_value=self._sum
        )


class WorkerMetrics:
    """What the process has done."""

    def __init__(self, registry: CollectorRegistry) -> None:
        attempts = Counter(
            "kubeagents_agent_attempts_total",
            "Attempts that ended: succeeded, failed (may be retried), refused (failed for good), released (given back "
            "while draining), revoked (the task was cancelled or has expired), lost (somebody else has the task now).",
            ["outcome"],
            registry=registry,
        )
        self.succeeded = attempts.labels("succeeded")
        self.failed = attempts.labels("failed")
        self.refused = attempts.labels("refused")
        self.released = attempts.labels("released")
        self.revoked = attempts.labels("revoked")
        self.lost = attempts.labels("lost")
        self.seconds = AttemptSeconds()
        registry.register(self.seconds)
        self.claimed = Counter("kubeagents_agent_claimed_total", "Tasks claimed.", registry=registry)
        self.settle_batch = Histogram(
            "kubeagents_agent_settle_batch_size",
            "Outcomes recorded in one round trip.",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200),
            registry=registry,
        )
        self.cordoned = Gauge(
            "kubeagents_worker_cordoned",
            "1 while the process takes nothing new because it was told so.",
            registry=registry,
        )
        self.running = Gauge("kubeagents_agent_running", "Tasks that are being worked on.", registry=registry)
        self.concurrency = Gauge("kubeagents_agent_concurrency", "Tasks worked on at most.", registry=registry)
