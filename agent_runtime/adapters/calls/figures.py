# SPDX-License-Identifier: Apache-2.0
"""What the metrics say about the connections of one protocol."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class Figures:
    """Of one adapter."""

    def __init__(self, protocol: str, *, registry: CollectorRegistry) -> None:
        self.connections = Gauge(f"kubeagents_{protocol}_connections", "Open connections.", registry=registry)
        self._calls = Counter(
            f"kubeagents_{protocol}_calls_total",
            "Calls that have ended: ok, stopped by the client, gone with its connection, or the code of the error.",
            ["call", "outcome"],
            registry=registry,
        )

    def count(self, call: str, outcome: str) -> None:
        """A call has ended; of what was no call at all, the name is empty."""
        self._calls.labels(call, outcome).inc()
