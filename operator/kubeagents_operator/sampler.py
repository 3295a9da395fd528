# SPDX-License-Identifier: Apache-2.0
"""Looks at the queues' Redis every few seconds and keeps what it saw, so that no reconcile ever waits for a Redis.

One task per TaskQueue. With each sample it also writes all that the operator ever writes into a queue: it holds the
gates to what `spec.paused` and `spec.closed` say, and the cordons to what the Agents wish, and replays dead tasks if
somebody asks for it. Before each of these writes it asks whether this replica still leads. Its samples are a snapshot:
the reconciles of the queue, of its Agents and of its CentralAgents all read the same one and are asked for only when
what they would read has changed.

A sample is taken every so many seconds, soon after somebody has poked, soon while those who were cordoned have not
finished, and at once when something happens in a queue of which an Agent sleeps at zero replicas: for these, a second
task waits for the queue's events. However many there are, that makes one sample a second.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from agent_runtime.queue import StorageInfo, TaskQueue, open_queue
from agent_runtime.queue.base import Gate
from agent_runtime.queue.gates import hold_gates
from kubeagents_api.conditions import Reason
from kubeagents_api.errors import KubeagentsError, QueueAuthError, QueueUnavailableError, RedisUrlError
from kubeagents_api.runtime_config import QueueConfig
from kubeagents_api.task import InstanceInfo, QueueStats
from kubeagents_operator.consumption import Consumption, Witness
from kubeagents_operator.keys import Key, Name
from kubeagents_operator.metrics import SampleMetrics
from kubeagents_operator.replays import Replayed, Replays
from kubeagents_operator.scaling.cordons import Cordons, Wish
from kubeagents_operator.turns import FairLimit

_log = logging.getLogger(__name__)

_TIMEOUT = 15.0
"""For one sample; longer than the queue's own patience, so that its error tells what is wrong."""
_RETRIES = (1.0, 2.0, 4.0, 8.0)
"""Pauses after the first failed samples, in seconds; the usual interval follows."""
_SHORTEST_PAUSE = 0.5
"""Between two samples, however often somebody pokes."""
_SOON = (0.2, 0.5, 1.0, 1.0, 2.0, 2.0)
"""Pauses while cordoned instances have not finished, from the latest cordon on; the last one repeats."""
_EVENT_PAUSE = 1.0
"""Between two samples because of events."""
_EVENT_WAIT = 60.0
"""For an event, in one call; a queue answers earlier if that is too long for its connection."""


class _LeadsNoMoreError(Exception):
    """Nothing may be written into a queue any more: another replica may do so already."""


ReadUrl = Callable[[Name, str], Awaitable[str | None]]
"""Reads one key of a Secret."""


Changed = Callable[[Key, frozenset[str] | None], None]
"""Called with a queue and the names of the Agents of which the sample says something new; None stands for all."""


@dataclass(frozen=True, slots=True)
class Target:
    """What to sample. A change of any of it opens the queue anew."""

    config: QueueConfig
    secret: Name
    secret_key: str
    secret_digest: str
    thresholds: frozenset[float]
    """Ages of a heartbeat, in seconds, by which somebody tells healthy instances from others."""
    shut: frozenset[Gate] = frozenset()
    """The gates that the queue's spec wants shut."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a queue could not be sampled."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen last. After a failure, the figures of before are gone: they would pretend to be of now."""

    trouble: Trouble | None = None
    stats: QueueStats | None = None
    storage: StorageInfo | None = None
    instances: tuple[InstanceInfo, ...] = ()
    healthy: Mapping[float, frozenset[str]] = field(default_factory=dict)
    """Threshold -> names of the instances whose heartbeat is younger."""
    at: datetime | None = None
    """When the figures were seen; None if there are none."""
    consumption: Consumption = field(default_factory=Consumption)
    """Who takes tasks, by this sample and those before it."""
    replayed: Replayed | None = None
    """The last replay of dead tasks that was asked for and has been done."""
    vacated: frozenset[str] = frozenset()
    """The instances that the operator has cordoned and that have finished since."""

    def of_queue(self) -> object:
        """The part that shows in the queue's status: a sample that differs in nothing else is no news to it."""
        stats = self.stats
        storage = self.storage
        return (
            self.trouble,
            stats and (stats.queued, stats.running, stats.scheduled, stats.blocked, stats.dead, stats.oldest_at),
            stats and (stats.paused_by, stats.closed_by, stats.unroutable_targets),
            storage and (storage.server, storage.eviction_policy, storage.append_only),
            len(self.instances),
            self.replayed,
        )

    def of_demand(self) -> object:
        """The part by which Agents are scaled."""
        stats = self.stats
        return stats and (stats.waiting, stats.oldest_at, bool(stats.paused_by))

    def of_agents(self) -> dict[str, list[object]]:
        """The part that shows in the status of each Agent."""
        agents: dict[str, list[object]] = {}
        for one in self.instances:
            fresh = (threshold for threshold, names in sorted(self.healthy.items()) if one.instance in names)
            healthy = (self.consumption.of(one.instance), *fresh)
            vacated = one.instance in self.vacated
            agents.setdefault(one.agent, []).append((one.instance, one.running, healthy, vacated))
        return agents


@dataclass(slots=True)
class _Watched:
    target: Target
    task: asyncio.Task[None]
    poke: asyncio.Event
    sample: Sample | None = None


@dataclass(slots=True)
class _Wished:
    """What the Agents of a queue wish, whether it is sampled now or not."""

    by_agent: dict[Key, Wish] = field(default_factory=dict)
    cordons: Cordons = field(default_factory=Cordons)

    def wakes(self) -> bool:
        return any(wish.wakes for wish in self.by_agent.values())

    def cordoned(self) -> frozenset[str]:
        return frozenset[str]().union(*(wish.cordoned for wish in self.by_agent.values()))


class Sampler:
    """Samples every queue that it was told to `watch`."""

    def __init__(
        self,
        *,
        read_url: ReadUrl,
        changed: Changed,
        interval: float,
        concurrency: int,
        metrics: SampleMetrics,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        self._read_url = read_url
        self._may_write = may_write
        self._changed = changed
        self._interval = interval
        self._limit = FairLimit(concurrency)
        self._metrics = metrics
        self._watched: dict[Key, _Watched] = {}
        self._witnesses: dict[Key, Witness] = {}
        self.replays = Replays()
        self._wished: dict[Key, _Wished] = {}
        self._stopping: set[asyncio.Task[None]] = set()

    def watch(self, key: Key, target: Target) -> None:
        """Sample this queue from now on."""
        watched = self._watched.get(key)
        if watched is not None and watched.target == target:
            return
        last = None
        if watched is not None:
            witness = self._witnesses.get(key)
            self.forget(key)
            if witness is not None:
                self._witnesses[key] = witness
            # The figures of the same server stay until there are new ones; those of another say nothing.
            if (watched.target.secret, watched.target.secret_digest) == (target.secret, target.secret_digest):
                last = watched.sample
            elif (wished := self._wished.get(key)) is not None:
                wished.cordons = Cordons()
        poke = asyncio.Event()
        task = asyncio.create_task(self._run(key, target, poke), name=f"sample {key}")
        self._watched[key] = _Watched(target, task, poke, last)

    def forget(self, key: Key) -> None:
        """Sample it no more."""
        self._witnesses.pop(key, None)
        watched = self._watched.pop(key, None)
        if watched is None:
            return
        stopping = asyncio.create_task(_stop(watched.task))
        self._stopping.add(stopping)
        stopping.add_done_callback(self._stopping.discard)

    def wish(self, queue: Key, agent: Key, wish: Wish) -> None:
        """What an Agent wants of its queue from now on, in place of what it wanted before."""
        wished = self._wished.setdefault(queue, _Wished())
        before = wished.by_agent.get(agent, Wish())
        wished.by_agent[agent] = wish
        self._take_back(queue, before.cordoned - wish.cordoned)
        if before.cordoned != wish.cordoned or before.wakes != wish.wakes:
            self.poke(queue)

    def _take_back(self, queue: Key, freed: frozenset[str]) -> None:
        """Instances may take tasks again: that they had finished does not count if they are cordoned once more before
        the next sample, which may let them go in between."""
        watched = self._watched.get(queue)
        if watched is not None and watched.sample is not None and watched.sample.vacated & freed:
            watched.sample = replace(watched.sample, vacated=watched.sample.vacated - freed)

    def withdraw(self, queue: Key, agent: Key) -> None:
        """An Agent is gone, or refers to another queue."""
        if (wished := self._wished.get(queue)) is not None:
            wished.by_agent.pop(agent, None)
            if not wished.by_agent:
                del self._wished[queue]

    def poke(self, key: Key) -> None:
        """Something has happened that makes the last sample doubtful: take another one soon."""
        if (watched := self._watched.get(key)) is not None:
            watched.poke.set()

    def sample(self, key: Key) -> Sample | None:
        """What was seen last; None if there is nothing yet."""
        watched = self._watched.get(key)
        return watched.sample if watched is not None else None

    async def aclose(self) -> None:
        """Stop all."""
        for key in list(self._watched):
            self.forget(key)
        if self._stopping:
            await asyncio.wait(self._stopping)

    async def _run(self, key: Key, target: Target, poke: asyncio.Event) -> None:
        queue: TaskQueue | None = None
        listener: asyncio.Task[None] | None = None
        pauses = _Pauses(self._interval)
        try:
            while True:
                poke.clear()
                async with self._limit.turn(key.namespace):
                    pauses.begin()
                    if queue is None:
                        queue, sample = await self._open(target)
                    if queue is not None:
                        sample = await self._take(key, queue, target)
                self._metrics.samples.labels("error" if sample.trouble is not None else "ok").inc()
                self._keep(key, target, sample)
                wished = self._wished.get(key, _Wished())
                if queue is not None and listener is None and wished.wakes():
                    listener = asyncio.create_task(_listen(queue, poke), name=f"events of {key}")
                elif listener is not None and not wished.wakes():
                    await _stop(listener)
                    listener = None
                pauses.ended(sample, awaited=wished.cordoned() - sample.vacated)
                await pauses.until_next(poke)
        except _LeadsNoMoreError:
            _log.info("%s: sampled no more, this replica does not lead", key, extra={"object": str(key)})
        finally:
            if listener is not None:
                await _stop(listener)
            if queue is not None:
                await queue.aclose()

    async def _open(self, target: Target) -> tuple[TaskQueue | None, Sample]:
        where = f'key "{target.secret_key}" of Secret "{target.secret.name}"'
        try:
            async with asyncio.timeout(_TIMEOUT):
                url = await self._read_url(target.secret, target.secret_key)
        except (KubeagentsError, TimeoutError) as error:
            return None, _failed(Reason.DEPENDENCY_NOT_READY, f"{where} cannot be read: {error}")
        except ValueError:
            return None, _failed(Reason.REDIS_URL_INVALID, f"{where} is no text: write the URL of a Redis")
        if url is None:
            return None, _failed(Reason.SECRET_NOT_FOUND, f"{where} does not exist: create it with the Redis URL")
        try:
            # A trailing newline is what most Secrets made from files have.
            return open_queue(target.config, url=url.strip()), Sample()
        except RedisUrlError as error:
            return None, _failed(Reason.REDIS_URL_INVALID, f"{where}: {error}")

    async def _take(self, key: Key, queue: TaskQueue, target: Target) -> Sample:
        try:
            self._lead_or_raise()
            await self.replays.serve(key, queue)
            async with asyncio.timeout(_TIMEOUT):
                stats = await queue.stats()
                self._lead_or_raise()
                if await hold_gates(queue, stats, shut=target.shut):
                    stats = await queue.stats()
                storage = await queue.storage()
                healthy: dict[float, frozenset[str]] = {}
                known: list[InstanceInfo] = []
                for threshold in sorted(target.thresholds):
                    known = await queue.instances(timeout_seconds=threshold)
                    healthy[threshold] = frozenset(one.instance for one in known if one.healthy)
                vacated = frozenset[str]()
                self._lead_or_raise()
                if (wished := self._wished.get(key)) is not None:
                    by_name = {one.instance: one for one in known}
                    vacated = await wished.cordons.hold(queue, by_name, list(wished.by_agent.values()))
                return Sample(stats=stats, storage=storage, instances=tuple(known), healthy=healthy, vacated=vacated)
        except _LeadsNoMoreError:
            raise
        except QueueAuthError as error:
            return _failed(Reason.REDIS_AUTH_FAILED, str(error))
        except QueueUnavailableError as error:
            return _failed(Reason.REDIS_UNREACHABLE, str(error))
        except TimeoutError:
            return _failed(Reason.REDIS_UNREACHABLE, f"Redis has not answered within {_TIMEOUT:g} s")
        except Exception as error:
            # A defect, here or in the queue. One queue's defect must not end the samples of it for ever.
            _log.exception("%s: the sample failed", key, extra={"object": str(key)})
            return _failed(Reason.REDIS_UNREACHABLE, f"the sample failed: {type(error).__name__}: {error}")

    def _lead_or_raise(self) -> None:
        """Before each write: this process may have been frozen since it last looked."""
        if not self._may_write():
            raise _LeadsNoMoreError

    def _compared(self, key: Key, target: Target, sample: Sample) -> Sample:
        """The sample, with what follows from the ones before it."""
        replayed = self.replays.done(key)
        if sample.stats is None:
            # Whoever could not reach Redis takes nothing: what was seen before is no evidence.
            self._witnesses.pop(key, None)
            return replace(sample, replayed=replayed)
        consumption = self._witnesses.setdefault(key, Witness()).look(
            sample.instances,
            sample.stats,
            thresholds=target.thresholds,
            limits=target.config.limits,
            now=asyncio.get_running_loop().time(),
        )
        return replace(sample, at=datetime.now(UTC), consumption=consumption, replayed=replayed)

    def _keep(self, key: Key, target: Target, sample: Sample) -> None:
        watched = self._watched.get(key)
        if watched is None or watched.target != target:
            return
        sample = self._compared(key, target, sample)
        old, watched.sample = watched.sample, sample
        if old is None or old.trouble != sample.trouble or old.healthy.keys() != sample.healthy.keys():
            self._changed(key, None)
            return
        before, after = old.of_agents(), sample.of_agents()
        agents = frozenset(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        agents |= self._concerned(key, old, sample)
        if agents or old.of_queue() != sample.of_queue():
            self._changed(key, agents)

    def _concerned(self, key: Key, old: Sample, new: Sample) -> frozenset[str]:
        """The Agents that wish to hear of a difference which is none of their pods'."""
        wished = self._wished.get(key, _Wished()).by_agent.items()
        vacated = old.vacated ^ new.vacated
        demand = old.of_demand() != new.of_demand()
        return frozenset(agent.name for agent, wish in wished if wish.cordoned & vacated or (demand and wish.counts))


class _Pauses:
    """How long until the next sample of one queue."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._failures = 0
        self._awaited = frozenset[str]()
        self._looks = 0

    def begin(self) -> None:
        """A sample is taken now."""
        self._began = self._clock()

    def ended(self, sample: Sample, *, awaited: frozenset[str]) -> None:
        """It has been taken; `awaited` are those that are cordoned and have not finished."""
        self._failures = self._failures + 1 if sample.trouble is not None else 0
        self._looks = self._looks + 1 if awaited <= self._awaited else 0
        self._awaited = awaited

    async def until_next(self, poke: asyncio.Event) -> None:
        """Wait for the next sample's time, or until somebody pokes."""
        # Jitter, lest all queues be sampled at the same moment for ever after a restart.
        pause = self._interval * random.uniform(0.9, 1.1)  # noqa: S311 - spreads load
        if 0 < self._failures <= len(_RETRIES):
            pause = min(pause, _RETRIES[self._failures - 1])
        if self._awaited and not self._failures:
            pause = min(pause, _SOON[min(self._looks, len(_SOON) - 1)])
        try:
            async with asyncio.timeout(pause):
                await poke.wait()
                await asyncio.sleep(max(0.0, self._began + _SHORTEST_PAUSE - self._clock()))
        except TimeoutError:
            return


async def _listen(queue: TaskQueue, poke: asyncio.Event) -> None:
    """Poke whenever something has happened in the queue. The newest event is looked up before the poke, so the sample
    that follows has all that happened up to it, and what comes later is found next."""
    while True:
        try:
            newest = await queue.events(after="$", limit=1)
            poke.set()
            await asyncio.sleep(_EVENT_PAUSE)
            while not await queue.events(after=newest[-1].offset if newest else "", limit=1, wait_seconds=_EVENT_WAIT):
                pass
        except QueueUnavailableError:
            await asyncio.sleep(_EVENT_PAUSE)
        except Exception:
            _log.exception("the events of queue %s could not be read", queue.name)
            await asyncio.sleep(_EVENT_WAIT)


def _failed(reason: Reason, message: str) -> Sample:
    return Sample(trouble=Trouble(reason, message))


async def _stop(task: asyncio.Task[None]) -> None:
    """Cancel until it has ended: before Python 3.12 a client library may swallow one cancellation."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.5)
