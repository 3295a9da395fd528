# SPDX-License-Identifier: Apache-2.0
"""Metrics of an Agent's process."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from agent_runtime.telemetry.metrics import DURATION_BUCKETS


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
        self.seconds = Histogram(
            "kubeagents_agent_attempt_seconds",
            "How long handlers ran.",
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.claimed = Counter("kubeagents_agent_claimed_total", "Tasks claimed.", registry=registry)
        self.settle_batch = Histogram(
            "kubeagents_agent_settle_batch_size",
            "Outcomes recorded in one round trip.",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200),
            registry=registry,
        )
        self.running = Gauge("kubeagents_agent_running", "Tasks that are being worked on.", registry=registry)
        self.concurrency = Gauge("kubeagents_agent_concurrency", "Tasks worked on at most.", registry=registry)
