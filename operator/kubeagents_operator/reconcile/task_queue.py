# SPDX-License-Identifier: Apache-2.0
"""The reconcile of a TaskQueue."""

from agent_runtime.queue.gates import shut_by_spec
from agent_runtime.queue.timetable import Timetable
from kubeagents_api.conditions import Reason
from kubeagents_api.errors import InvalidManifestError
from kubeagents_api.labels import REPLAY_DEAD
from kubeagents_api.runtime_config import queue_config
from kubeagents_api.task_queue import ManagedRedis, TaskQueueSpec
from kubeagents_operator.desired import names, task_queue
from kubeagents_operator.desired.metadata import Manifest, Owner
from kubeagents_operator.desired.pods import template_hash
from kubeagents_operator.keys import Key, Name
from kubeagents_operator.observed import Custom
from kubeagents_operator.reconcile.base import REFUSED_RETRY, Tools, bring, parse, write_invalid
from kubeagents_operator.reconcile.made_up import MadeUp
from kubeagents_operator.reconcile.queues import has_central_agent, secret_of, takers, thresholds
from kubeagents_operator.replays import Replayed
from kubeagents_operator.sampler import Sample, Target
from kubeagents_operator.status.conditions import Previous, Verdict, earliest, stalled
from kubeagents_operator.status.task_queue import ManagedState, TaskQueueState, overdue_sample, report

_URL_SAFE = r"[A-Za-z0-9_-]+"
"""What can stand in redis.conf and in a URL."""


class TaskQueueReconcile:
    """Reconciles TaskQueues.

    Remembers what is wrong with schedules, by generation: to find out that one is never due, it looks at the days of
    fifty years.
    """

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._passwords = MadeUp(tools.cluster, tools.cache, entry=task_queue.PASSWORD_KEY, form=_URL_SAFE)
        self._faults: dict[Key, tuple[tuple[str, int], str | None]] = {}

    async def __call__(self, custom: Custom) -> float | None:
        """One pass. Raises ApiUnavailableError."""
        tools, key = self._tools, custom.key
        try:
            spec = parse(custom)
        except InvalidManifestError as error:
            tools.sampler.forget(key)
            return await write_invalid(tools, custom, error)
        assert isinstance(spec, TaskQueueSpec)  # noqa: S101 - by its kind
        tools.quotas.seen(key)
        managed = None
        manifests: list[Manifest] = []
        if spec.redis.managed is not None:
            manifests = await self._manifests(custom, spec.redis.managed)
        refused = await bring(tools, custom, manifests)
        obstacle = self._sample(custom, spec) or refused
        if spec.redis.managed is not None:
            child = tools.cache.children(key).get(("StatefulSet", names.redis(key.name)))
            rollout = child.rollout if child is not None else None
            managed = ManagedState(rollout, template_hash(manifests[-1]), tuple(tools.cache.pods(key)))
        sample = tools.sampler.sample(key)
        state = TaskQueueState(
            obstacle,
            managed,
            sample,
            fault=self._fault(custom, spec),
            max_depth=spec.limits.max_depth,
            unroutable=self._unroutable(key, sample),
            schedules_served=has_central_agent(tools.cache, key) if spec.schedules else None,
            backlog=spec.backlog,
            replayed=self._replayed(custom, sample),
        )
        self._poke_if_doubtful(state, custom)
        made = report(state, Previous(custom.status, generation=custom.generation), now=tools.now())
        again = await tools.writer.write(custom, made, now=tools.now())
        return earliest(again, REFUSED_RETRY) if refused is not None else again

    def _replayed(self, custom: Custom, sample: Sample | None) -> Replayed | None:
        """Have dead tasks replayed if the annotation has a value that has not been acted on; what came of it."""
        wish = custom.asked.get(REPLAY_DEAD)
        if wish is None or wish == (custom.status.get("handled") or {}).get("replayDead"):
            return None
        if self._tools.sampler.replays.ask(custom.key, wish):
            self._tools.sampler.poke(custom.key)
        done = sample.replayed if sample is not None else None
        return done if done is not None and done.wish == wish else None

    def forget(self, key: Key) -> None:
        """The TaskQueue is gone."""
        self._tools.sampler.replays.forget(key)
        self._passwords.forget(Name(key.namespace, names.redis(key.name)))
        self._faults.pop(key, None)

    def _fault(self, custom: Custom, spec: TaskQueueSpec) -> str | None:
        generation = (custom.uid, custom.generation)
        known = self._faults.get(custom.key)
        if known is None or known[0] != generation:
            known = self._faults[custom.key] = (generation, _fault(spec))
        return known[1]

    def _sample(self, custom: Custom, spec: TaskQueueSpec) -> Verdict | None:
        """Have the queue sampled; the obstacle if there is no URL for it."""
        tools, key = self._tools, custom.key
        secret, secret_key = secret_of(key.name, spec)
        digest = tools.cache.digest("Secret", Name(key.namespace, secret))
        if digest is None or secret_key not in digest.keys:
            tools.sampler.forget(key)
            if spec.redis.managed is not None:
                return None
            what = f'Secret "{secret}"' if digest is None else f'key "{secret_key}" of Secret "{secret}"'
            return stalled(Reason.SECRET_NOT_FOUND, f"{what} does not exist: create it with the Redis URL")
        target = Target(
            config=queue_config(name=key.name, namespace=key.namespace, spec=tools.quotas.limited(key.namespace, spec)),
            secret=Name(key.namespace, secret),
            secret_key=secret_key,
            secret_digest=digest.keys[secret_key],
            thresholds=thresholds(tools.cache, key),
            shut=shut_by_spec(spec),
        )
        tools.sampler.watch(key, target)
        return None

    def _unroutable(self, key: Key, sample: Sample | None) -> dict[str, int]:
        if sample is None or sample.stats is None or not sample.stats.unroutable_targets:
            return {}
        return takers(self._tools.cache, key).unroutable(sample.stats)

    def _poke_if_doubtful(self, state: TaskQueueState, custom: Custom) -> None:
        """A Redis pod that has come or gone since the last sample makes it doubtful, and so does the moment at which
        the oldest task would be too old."""
        if overdue_sample(state, now=self._tools.now()):
            self._tools.sampler.poke(custom.key)
        if state.managed is None or state.sample is None:
            return
        up = state.managed.rollout is not None and state.managed.rollout.ready > 0
        if up != (state.sample.trouble is None):
            self._tools.sampler.poke(custom.key)

    async def _manifests(self, custom: Custom, redis: ManagedRedis) -> list[Manifest]:
        owner = Owner(custom.key, custom.uid)
        password = await self._passwords.value(Name(custom.key.namespace, names.redis(custom.key.name)))
        return task_queue.children(task_queue.ManagedInputs(owner, redis, password), self._tools.defaults)


def _fault(spec: TaskQueueSpec) -> str | None:
    """What is wrong with the schedules, beyond what the API server can check."""
    faults = []
    for schedule in spec.schedules:
        try:
            Timetable(schedule)
        except InvalidManifestError as error:
            faults.append(str(error))
    return "; ".join(faults) or None
