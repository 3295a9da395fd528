# SPDX-License-Identifier: Apache-2.0
"""How Agents and CentralAgents see the TaskQueues that they refer to."""

from collections.abc import Iterable
from dataclasses import dataclass

from kubeagents_api.agent import AgentSpec
from kubeagents_api.central_agent import CentralAgentSpec
from kubeagents_api.conditions import Reason
from kubeagents_api.errors import InvalidManifestError
from kubeagents_api.model import QueueRef
from kubeagents_api.task_queue import TaskQueueSpec
from kubeagents_operator.cache import Cache
from kubeagents_operator.desired import names, task_queue
from kubeagents_operator.desired.runtime import QueueAccess
from kubeagents_operator.keys import Key, Name
from kubeagents_operator.observed import Custom
from kubeagents_operator.reconcile import grants
from kubeagents_operator.reconcile.base import Tools
from kubeagents_operator.sampler import Trouble
from kubeagents_operator.status.agent import MISSED_BEATS
from kubeagents_operator.status.conditions import Verdict, progressing
from kubeagents_operator.status.routing import Takers
from kubeagents_operator.status.workload import QueueState


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue that is referred to."""

    key: Key
    state: QueueState
    spec: TaskQueueSpec | None = None
    access: QueueAccess | None = None
    """None while there is no Secret to take the URL from."""
    source: tuple[Name, str] | None = None
    """Secret and key to copy the URL from, if the queue is in another namespace than its user."""

    @property
    def refused(self) -> bool:
        """It may not be used: whatever was made for it has to go."""
        trouble = self.state.trouble
        return trouble is not None and trouble.reason is Reason.REFERENCE_NOT_GRANTED


def secret_of(name: str, spec: TaskQueueSpec) -> tuple[str, str]:
    """Name and key of the Secret with the URL of a queue's Redis."""
    if spec.redis.external is not None:
        return spec.redis.external.secret_ref.name, spec.redis.external.secret_ref.key
    return names.redis(name), task_queue.URL_KEY


def look_up(tools: Tools, user: Key, ref: QueueRef, *, child: str, referrer: str, index: int = 0) -> Queue:
    """A queue as its user sees it. `referrer` is the field that names it, and `child` the user's Secret with the URLs
    of queues of other namespaces."""
    name, namespace = ref.name, ref.namespace or user.namespace
    key = Key("TaskQueue", namespace, name)
    foreign = namespace != user.namespace
    if foreign and (trouble := grants.refusal(tools, key, user.namespace, referrer=referrer)) is not None:
        return Queue(key, QueueState(name, trouble, None))
    custom = tools.cache.custom(key)
    if custom is None or custom.deleting:
        trouble = Trouble(Reason.DEPENDENCY_NOT_FOUND, f"does not exist: create it, or correct {referrer}.name")
        return Queue(key, QueueState(name, trouble, None))
    try:
        spec = tools.queue_specs.of(custom)
    except InvalidManifestError:
        return Queue(key, QueueState(name, Trouble(Reason.DEPENDENCY_NOT_READY, "its spec is invalid"), None))
    spec = tools.quotas.limited(namespace, spec)
    secret, secret_key = secret_of(name, spec)
    digest = tools.cache.digest("Secret", Name(namespace, secret))
    if digest is None or secret_key not in digest.keys:
        message = f'key "{secret_key}" of Secret "{secret}", which has the URL of its Redis, does not exist yet'
        return Queue(key, QueueState(name, Trouble(Reason.DEPENDENCY_NOT_READY, message), None), spec)
    access = QueueAccess(
        variable=f"KUBEAGENTS_QUEUE_{index}_URL",
        secret=child if foreign else secret,
        key=f"queue-{index}" if foreign else secret_key,
        digest=digest.keys[secret_key],
    )
    source = (Name(namespace, secret), secret_key) if foreign else None
    return Queue(key, QueueState(name, None, tools.sampler.sample(key)), spec, access, source)


async def foreign_urls(urls: grants.ForeignUrls, queues: Iterable[Queue]) -> dict[str, str] | Verdict:
    """What the Secret with the URLs of queues of other namespaces has to contain; the obstacle if one is gone.

    Raises ApiUnavailableError.
    """
    found: dict[str, str] = {}
    for queue in queues:
        if queue.source is None or queue.access is None:
            continue
        value = await urls.read(*queue.source, digest=queue.access.digest)
        if value is None:
            message = f'TaskQueue "{queue.state.name}": the Secret with the URL of its Redis has just been removed'
            return progressing(Reason.DEPENDENCY_NOT_READY, message)
        found[queue.access.key] = value
    return found


def users(cache: Cache, queue: Key) -> list[Custom]:
    """Who refers to a queue and may."""
    named = [cache.custom(user) for user in cache.users(queue.kind, Name(queue.namespace, queue.name))]
    known = cache.custom(queue)
    return [
        user
        for user in named
        if user is not None and (user.key.namespace == queue.namespace or grants.granted(known, user.key.namespace))
    ]


def thresholds(cache: Cache, queue: Key) -> frozenset[float]:
    """The ages of a heartbeat by which the users of a queue tell healthy instances from others.

    Specs are read as they are, not validated: a queue may have thousands of users.
    """
    found = set()
    for user in users(cache, queue):
        if user.key.kind == "Agent":
            found.add(MISSED_BEATS * _seconds(user.spec.get("heartbeatSeconds"), _HEARTBEAT))
        else:
            found.add(_seconds(user.spec.get("agentTimeoutSeconds"), _TIMEOUT))
    # Somebody may consume from the queue who is no Agent of this cluster.
    return frozenset(found) or frozenset({_TIMEOUT})


def takers(cache: Cache, queue: Key) -> Takers:
    """What the Agents of a queue take. Specs are read as they are, too."""
    agents, capabilities, instances = set[str](), set[str](), set[str]()
    for user in users(cache, queue):
        if user.key.kind == "Agent" and not user.deleting:
            agents.add(user.key.name)
            capabilities.update(user.spec.get("capabilities") or ())
            instances.update(pod.name for pod in cache.pods(user.key))
    return Takers(frozenset(agents), frozenset(capabilities), frozenset(instances))


def has_central_agent(cache: Cache, queue: Key) -> bool:
    """Whether a CentralAgent serves the queue, with at least one replica."""
    centrals = [user for user in users(cache, queue) if user.key.kind == "CentralAgent"]
    return any(
        not one.deleting and one.spec.get("replicas") != 0 and one.spec.get("suspend") is not True for one in centrals
    )


_HEARTBEAT = float(AgentSpec.model_fields["heartbeat_seconds"].default)
_TIMEOUT = float(CentralAgentSpec.model_fields["agent_timeout_seconds"].default)


def _seconds(value: object, default: float) -> float:
    return float(value) if isinstance(value, int | float) else default
