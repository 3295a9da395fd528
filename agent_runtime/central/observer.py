# SPDX-License-Identifier: Apache-2.0
"""Looks at the queues every few seconds: for the metrics, and to know whether they answer."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from agent_runtime.central.core import Central
from agent_runtime.central.served import ServedQueue
from agent_runtime.telemetry.probes import Report
from kubeagents_api.errors import QueueUnavailableError
from kubeagents_api.task import InstanceInfo, QueueStats

_LOOK_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 1.0
"""While a queue does not answer."""
_STUCK_SECONDS = 60.0
"""Without any look at any queue for this long, only a restart helps: a look takes some seconds at most."""


_TARGETS_SHOWN = 50
"""Agents and capabilities of a queue for which tasks wait that the metrics name; the others are summed up."""


class _Figures(Collector):
    """What the last look at each queue has found that comes and goes. Counted in Redis, so all pods show the same."""

    def __init__(self) -> None:
        self.seen: dict[str, QueueStats] = {}
        self.instances: dict[str, Sequence[InstanceInfo]] = {}

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """The figures of the last look."""
        yield from self._totals()
        yield self._waiting()
        yield from self._slots()

    def _waiting(self) -> GaugeMetricFamily:
        waiting = GaugeMetricFamily(
            "kubeagents_queue_waiting_tasks",
            "Queued tasks by who may take them: `any`, `agent/…`, `capability/…`, `instances` (those that name one "
            "process), `others` (beyond the 50 largest).",
            labels=["queue", "target"],
        )
        for queue, stats in self.seen.items():
            for target, count in _shown(stats.waiting, stats.queued).items():
                waiting.add_metric([queue, target], count)
        return waiting

    def _slots(self) -> Iterator[GaugeMetricFamily]:
        labels = ["queue", "agent"]
        slots = GaugeMetricFamily(
            "kubeagents_agent_slots",
            "Tasks that the processes of an Agent can work on at once; only those that are healthy and take new ones.",
            labels=labels,
        )
        busy = GaugeMetricFamily("kubeagents_agent_slots_taken", "How many of these slots are taken.", labels=labels)
        utilization = GaugeMetricFamily(
            "kubeagents_agent_utilization", "Share of these slots that is taken; 0 if there are none.", labels=labels
        )
        for queue, instances in self.instances.items():
            for agent in sorted({found.agent for found in instances}):
                taking = [found for found in instances if found.agent == agent and found.takes_tasks]
                total, taken = sum(found.concurrency for found in taking), sum(found.running for found in taking)
                slots.add_metric([queue, agent], total)
                busy.add_metric([queue, agent], taken)
                utilization.add_metric([queue, agent], min(1.0, taken / total) if total else 0.0)
        yield from (slots, busy, utilization)

    def _totals(self) -> Iterator[CounterMetricFamily]:
        submitted = CounterMetricFamily(
            "kubeagents_queue_submitted_tasks", "Tasks that have been queued since the queue exists.", labels=["queue"]
        )
        ended = CounterMetricFamily(
            "kubeagents_queue_ended_tasks",
            "Tasks that have ended since the queue exists, by how; failed counts the dead, too.",
            labels=["queue", "state"],
        )
        for queue, stats in self.seen.items():
            submitted.add_metric([queue], stats.submitted_total)
            for state in ("succeeded", "failed", "cancelled", "expired"):
                ended.add_metric([queue, state], getattr(stats, f"{state}_total"))
        yield submitted
        yield ended


def _shown(waiting: Mapping[str, int], queued: int) -> dict[str, int]:
    """Waiting tasks by target, so that however many targets there are, there are only so many series."""
    shown = {"any": waiting.get("", 0)}
    named = [(target, count) for target, count in waiting.items() if target]
    shown["instances"] = sum(count for target, count in named if target.startswith("instance/"))
    shown |= [(target, count) for target, count in named if not target.startswith("instance/")][:_TARGETS_SHOWN]
    shown["others"] = max(0, queued - sum(shown.values()))
    return shown


class Observer:
    """One look after the other at each queue, each queue for itself, so that a broken one delays no other."""

    def __init__(
        self,
        central: Central,
        queues: Sequence[ServedQueue],
        *,
        agent_timeout_seconds: float,
        registry: CollectorRegistry,
    ) -> None:
        self._central = central
        self._queues = queues
        self._agent_timeout_seconds = agent_timeout_seconds
        self._looked_at = time.monotonic()
        self._seen: dict[str, set[str]] = {served.config.name: set() for served in queues}
        """The agents that the metrics show, by queue."""
        self._tasks = Gauge(
            "kubeagents_queue_tasks",
            "Tasks in the queue by state. Unroutable ones, which no known agent process takes, are queued, too.",
            ["queue", "state"],
            registry=registry,
        )
        self._figures = _Figures()
        registry.register(self._figures)
        self._shut = Gauge(
            "kubeagents_queue_shut",
            "1 while somebody has shut the gate: claims (the queue is paused), submissions (it is closed).",
            ["queue", "gate"],
            registry=registry,
        )
        self._oldest = Gauge(
            "kubeagents_queue_oldest_task_seconds",
            "Age of the oldest task that waits for a worker; 0 if none waits.",
            ["queue"],
            registry=registry,
        )
        self._agents = Gauge(
            "kubeagents_agent_instances", "Agent processes by health.", ["queue", "agent", "health"], registry=registry
        )
        self._cordoned = Gauge(
            "kubeagents_agent_cordoned_instances",
            "Agent processes that are to take nothing new.",
            ["queue", "agent"],
            registry=registry,
        )
        self._looks = Counter(
            "kubeagents_central_looks_total", "Looks at the queues that were answered.", ["queue"], registry=registry
        )
        waits = Gauge("kubeagents_central_waits", "Calls that wait for results, events or streams.", registry=registry)
        waits.set_function(lambda: central.waiting)

    def live(self) -> Report:
        """Whether this object still looks."""
        still = time.monotonic() - self._looked_at
        stuck = still > _STUCK_SECONDS
        return Report(not stuck, {"observer": f"has not looked for {still:.0f} s" if stuck else "ok"})

    def ready(self) -> Report:
        """Ready while at least one queue answers; see the package's docstring. Names the others all the same."""
        troubles = {f"queue {served.config.name}": served.link.trouble for served in self._queues}
        checks = {name: trouble or "ok" for name, trouble in troubles.items()}
        draining = self._central.draining
        checks["draining"] = "the process is stopping" if draining else "ok"
        return Report(not draining and not all(troubles.values()), checks)

    async def run(self) -> None:
        """Look until cancelled."""
        async with asyncio.TaskGroup() as group:
            for served in self._queues:
                group.create_task(self._watch(served), name=f"observe {served.config.name}")

    async def _watch(self, served: ServedQueue) -> None:
        while True:
            try:
                stats = await served.ask(served.queue.stats())
                instances = await served.ask(served.queue.instances(timeout_seconds=self._agent_timeout_seconds))
            except QueueUnavailableError:  # `ask` has noted it
                pause = _LOOK_AGAIN_SECONDS
            else:
                self._show(stats, instances)
                pause = _LOOK_SECONDS
            self._looked_at = time.monotonic()
            await asyncio.sleep(pause)

    def _show(self, stats: QueueStats, instances: Sequence[InstanceInfo]) -> None:
        queue = stats.queue
        for state in ("queued", "running", "scheduled", "blocked", "dead", "unroutable"):
            self._tasks.labels(queue, state).set(getattr(stats, state))
        self._figures.seen[queue] = stats
        self._figures.instances[queue] = instances
        self._shut.labels(queue, "claims").set(bool(stats.paused_by))
        self._shut.labels(queue, "submissions").set(bool(stats.closed_by))
        self._oldest.labels(queue).set(stats.oldest_seconds)
        agents = {instance.agent for instance in instances}
        for gone in self._seen[queue] - agents:
            self._agents.remove(queue, gone, "healthy")
            self._agents.remove(queue, gone, "silent")
            self._cordoned.remove(queue, gone)
        self._seen[queue] = agents
        for agent in agents:
            healthy = [found.healthy for found in instances if found.agent == agent]
            self._agents.labels(queue, agent, "healthy").set(healthy.count(True))
            self._agents.labels(queue, agent, "silent").set(healthy.count(False))
            cordoned = [found for found in instances if found.agent == agent and found.cordoned_by]
            self._cordoned.labels(queue, agent).set(len(cordoned))
        self._looks.labels(queue).inc()
