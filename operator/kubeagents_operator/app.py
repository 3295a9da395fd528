# SPDX-License-Identifier: Apache-2.0
"""Puts the parts together and runs them: the only module that knows all of them.

    start ──► CRDs are served ──► caches synced ──► standby ──► leading ──► stop
                                                       (the Lease)   │
                                     exit code 1 ◄── the Lease, or the watches, are lost

A replica that has lost its Lease ends: whatever it was doing was computed by a leader that it is no more, and a new
process that stands by is the state with the fewest questions.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

from prometheus_client import CollectorRegistry

from agent_runtime import garbage
from agent_runtime.leader import LeaseElector, connect
from agent_runtime.telemetry.http_server import HttpServer
from agent_runtime.telemetry.loop_watch import LoopWatch
from agent_runtime.telemetry.metrics import LoopMetrics, new_registry
from agent_runtime.telemetry.probes import Probes, Report, all_of
from kubeagents_api.errors import KubeagentsError
from kubeagents_operator.cache import Cache
from kubeagents_operator.children import Children
from kubeagents_operator.cluster import Cluster
from kubeagents_operator.desired.runtime import Defaults
from kubeagents_operator.events import Recorder
from kubeagents_operator.keys import Key, Name
from kubeagents_operator.metrics import ApiMetrics, EventMetrics, LiveFigures, QueueMetrics, SampleMetrics
from kubeagents_operator.observed import secret_value
from kubeagents_operator.quotas import Quotas
from kubeagents_operator.reconcile.agent import AgentReconcile
from kubeagents_operator.reconcile.base import Tools
from kubeagents_operator.reconcile.central_agent import CentralAgentReconcile
from kubeagents_operator.reconcile.task_queue import TaskQueueReconcile
from kubeagents_operator.sampler import Sampler
from kubeagents_operator.settings import Settings
from kubeagents_operator.status.writer import StatusWriter
from kubeagents_operator.watched import SECRET
from kubeagents_operator.watches import Watches
from kubeagents_operator.workqueue import WorkQueue

_log = logging.getLogger(__name__)

_CRD_RETRY_SECONDS = 5.0
_STUCK_SECONDS = 180.0
"""Longer than one reconcile may take."""
_FINISH_SECONDS = 5.0
"""For what runs when it is stopped in order; then it hands over, as it would if it were killed."""


async def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    asyncio.get_running_loop().set_exception_handler(_unheard)
    async with AsyncExitStack() as stack:
        client = await connect()
        stack.push_async_callback(client.close)
        elector = LeaseElector(
            client=client,
            identity=settings.instance,
            namespace=settings.lease_namespace,
            name=settings.lease_name,
            duration_seconds=settings.lease_duration_seconds,
            create=True,
        )
        operator = Operator(settings, elector=elector, client=client)
        stack.push_async_callback(operator.aclose)
        server = HttpServer(
            Probes(live=operator.live, ready=operator.ready, registry=operator.registry),
            host=settings.http_host,
            port=settings.http_port,
        )
        await server.start()
        stack.push_async_callback(server.stop, grace_seconds=1.0)
        _log.info("probes and metrics are on port %d", server.address[1])
        loop_watch = asyncio.create_task(LoopWatch(LoopMetrics(operator.registry)).run(), name="loop-watch")
        stack.callback(loop_watch.cancel)
        return await operator.run()


def _unheard(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """uvloop cannot cancel a look-up in DNS: its failure after its caller has gone concerns nobody."""
    if not isinstance(context.get("exception"), socket.gaierror):
        loop.default_exception_handler(context)


class Operator:
    """One replica, from start to end."""

    def __init__(self, settings: Settings, *, elector: LeaseElector, client: Any) -> None:
        self.registry: CollectorRegistry = new_registry("operator")
        self._elector = elector
        self._stop = asyncio.Event()
        self._missing: list[str] = []
        self._uids: dict[Key, str] = {}
        """What was reconciled under that key."""
        self._queue = WorkQueue(metrics=QueueMetrics(self.registry), concurrency=settings.concurrency)
        self._cluster = Cluster(client, may_write=lambda: elector.is_leader, metrics=ApiMetrics(self.registry))
        self._cache = Cache(changed=self._queue.add, asked=self._queue.add_asked, stirred=self._queue.add_soon)
        self._watches = Watches(self._cache, namespaces=settings.watch_namespaces, connect=self._cluster.connection)
        self._recorder = Recorder(
            self._cluster,
            instance=settings.instance,
            metrics=EventMetrics(self.registry),
            busy=self._queue.has_asked,
        )
        self._sampler = Sampler(
            read_url=self._read_url,
            changed=self._sampled,
            interval=settings.sample_seconds,
            concurrency=settings.sample_concurrency,
            metrics=SampleMetrics(self.registry),
            may_write=lambda: elector.is_leader,
        )
        self._tools = Tools(
            cache=self._cache,
            cluster=self._cluster,
            children=Children(self._cluster, self._cache),
            sampler=self._sampler,
            recorder=self._recorder,
            writer=StatusWriter(self._cluster, self._cache, self._recorder, crowded=self._queue.crowded),
            defaults=Defaults(settings.runtime_image, settings.redis_image, settings.image_pull_policy),
            quotas=Quotas(settings.quotas, self._cache, changed=self._queue.add),
            namespaces=frozenset(settings.watch_namespaces),
        )
        self._reconciles: dict[str, AgentReconcile | CentralAgentReconcile | TaskQueueReconcile] = {
            "Agent": AgentReconcile(self._tools),
            "CentralAgent": CentralAgentReconcile(self._tools),
            "TaskQueue": TaskQueueReconcile(self._tools),
        }
        self._export()

    async def aclose(self) -> None:
        """Close its connections to the API server."""
        await self._cluster.aclose()

    def live(self) -> Report:
        """Whether it makes progress. That the API server is away is no reason to restart."""
        stuck = self._watches.stuck()
        waiting = self._queue.stuck_seconds() if self._elector.is_leader else 0.0
        return all_of(
            {
                "watches": f"no sign of life of {', '.join(stuck)}" if stuck else None,
                "work queue": f"nothing moves for {waiting:.0f} s" if waiting > _STUCK_SECONDS else None,
            }
        )

    def ready(self) -> Report:
        """Whether it could lead, or does."""
        unlisted = self._watches.unlisted()
        return all_of(
            {
                "custom resources": f"not installed: {', '.join(self._missing)}" if self._missing else None,
                "caches": f"not listed yet: {', '.join(unlisted)}" if unlisted else None,
            }
        )

    async def run(self) -> int:
        """From start to end; the exit code."""
        self._take_signals()
        if not await self._until(self._custom_resources_served()):
            return 0
        await self._watches.start()
        self._take_signals()  # kopf has put its own in their place
        watches = asyncio.create_task(self._watches.wait(), name="watches")
        try:
            if not await self._until(self._watches.synced.wait(), watches):
                return self._end_of(watches)
            _log.info("caches are synced: %d custom resources", len(self._cache.customs()))
            garbage.spare_what_stays()
            return await self._compete(watches)
        finally:
            watches.cancel()
            await self._watches.stop()

    async def _compete(self, watches: "asyncio.Task[None]") -> int:
        """Stand by, lead, hand over."""
        await self._elector.start()
        try:
            if not await self._until(self._elector.wait_until_leading(), watches):
                return self._end_of(watches)
            for key in self._cache.customs():
                self._queue.add(key)
            work = asyncio.create_task(self._work(), name="work")
            try:
                await self._until(self._elector.wait_until_lost(), watches, work)
                if self._stop.is_set():
                    await self._queue.finish(within=_FINISH_SECONDS)
            finally:
                work.cancel()
                await asyncio.wait([work])
                await self._sampler.aclose()
            if work.done() and not work.cancelled() and (defect := work.exception()) is not None:
                raise defect
            if self._stop.is_set():
                return 0
            if watches.done():
                return self._end_of(watches)
            _log.error("the Lease is lost: this process ends, another replica leads")
            return 1
        finally:
            await self._elector.stop()

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._queue.run(self._reconcile), name="workers")
            group.create_task(self._recorder.run(), name="events")

    async def _reconcile(self, key: Key) -> float | None:
        custom = self._cache.custom(key)
        if custom is None:
            self._forget(key)
            return None
        if self._uids.get(key, custom.uid) != custom.uid:
            self._forget(key)  # another one of that name has come so soon that the absence was not seen
        self._uids[key] = custom.uid
        if custom.deleting:
            return None  # its children are collected by way of their owner references
        return await self._reconciles[key.kind](custom)

    def _forget(self, key: Key) -> None:
        self._uids.pop(key, None)
        self._queue.forget(key)
        self._sampler.forget(key)
        self._tools.children.forget(key)
        self._tools.writer.forget(key)
        self._tools.quotas.forget(key)
        self._tools.queue_specs.forget(key)
        self._reconciles[key.kind].forget(key)

    def _sampled(self, key: Key, agents: frozenset[str] | None) -> None:
        """A sample says something new about a queue, and about these Agents (None: all)."""
        self._queue.add(key)
        for user in self._cache.users(key.kind, Name(key.namespace, key.name)):
            if agents is None or user.kind != "Agent" or user.name in agents:
                self._queue.add(user)

    async def _read_url(self, name: Name, key: str) -> str | None:
        body = await self._cluster.get(SECRET, name.namespace, name.name)
        return secret_value(body, key) if body is not None else None

    async def _custom_resources_served(self) -> None:
        """Wait until the API server knows our kinds: somebody may install the CRDs after the operator."""
        said: object = None
        while True:
            try:
                self._missing = await self._cluster.missing_kinds()
            except KubeagentsError as error:
                if said != str(error):
                    _log.warning("%s; trying on", error)
                said = str(error)
            else:
                if not self._missing:
                    return
                if said != self._missing:
                    _log.warning("waiting for the CustomResourceDefinitions of %s", ", ".join(self._missing))
                said = self._missing
            await asyncio.sleep(_CRD_RETRY_SECONDS)

    async def _until(self, awaited: Coroutine[Any, Any, Any], *ends: "asyncio.Task[None]") -> bool:
        """Wait for something; False if a stop was asked for, or one of the tasks has ended, before."""
        waiting = asyncio.ensure_future(awaited)
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait([waiting, stopped, *ends], return_when=asyncio.FIRST_COMPLETED)
            if waiting.done() and not self._stop.is_set():
                waiting.result()
                return True
            return False
        finally:
            for task in (waiting, stopped):
                task.cancel()

    def _end_of(self, watches: "asyncio.Task[None]") -> int:
        """The exit code when waiting has ended early."""
        if not watches.done() or self._stop.is_set():
            return 0
        error = watches.exception()
        _log.error("the watches have ended: %s", error if error is not None else "for no reason that is known")
        return 1

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)

    def _export(self) -> None:
        figures = LiveFigures()
        figures.gauge(
            "kubeagents_operator_is_leader", "1 while this replica leads.", lambda: float(self._elector.is_leader)
        )
        figures.gauge(
            "kubeagents_operator_workqueue_length", "Keys that wait for a worker.", lambda: float(len(self._queue))
        )
        figures.gauge(
            "kubeagents_operator_workqueue_delayed",
            "Keys that wait for a time: a backoff, a Retry-After, or a deadline of their own.",
            lambda: float(self._queue.delayed),
        )
        figures.gauge(
            "kubeagents_operator_workqueue_oldest_seconds",
            "For how long the key has waited for a worker that has waited longest.",
            self._queue.waiting_seconds,
        )
        figures.gauge(
            "kubeagents_operator_workqueue_longest_running_seconds",
            "For how long the reconcile has run that has run longest.",
            self._queue.running_seconds,
        )
        figures.gauge(
            "kubeagents_operator_failing_resources",
            "Custom resources of which the last reconcile failed and is tried again.",
            lambda: float(self._queue.failing),
        )
        figures.gauge(
            "kubeagents_operator_lease_transitions",
            "Number of the last term in which this replica led.",
            lambda: float(self._elector.fencing),
        )
        figures.gauge(
            "kubeagents_operator_custom_resources", "Custom resources.", lambda: float(len(self._cache.customs()))
        )
        figures.by_resource(
            "kubeagents_operator_watch_age_seconds",
            "Seconds since the API server last said something in a list or watch of the resource: at least each 60.",
            self._watches.ages,
        )
        self.registry.register(figures)
