# SPDX-License-Identifier: Apache-2.0
"""How Agents and CentralAgents see the TaskQueues that they refer to."""

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
from kubeagents_operator.reconcile.base import Tools, parse
from kubeagents_operator.sampler import Trouble
from kubeagents_operator.status.agent import MISSED_BEATS
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


def secret_of(name: str, spec: TaskQueueSpec) -> tuple[str, str]:
    """Name and key of the Secret with the URL of a queue's Redis."""
    if spec.redis.external is not None:
        return spec.redis.external.secret_ref.name, spec.redis.external.secret_ref.key
    return names.redis(name), task_queue.URL_KEY


def look_up(tools: Tools, namespace: str, ref: QueueRef, *, referrer: str, index: int = 0) -> Queue:
    """A queue as its user in `namespace` sees it. `referrer` is the field that names it."""
    name, namespace = ref.name, ref.namespace or namespace
    key = Key("TaskQueue", namespace, name)
    custom = tools.cache.custom(key)
    if custom is None or custom.deleting:
        trouble = Trouble(Reason.DEPENDENCY_NOT_FOUND, f"does not exist: create it, or correct {referrer}.name")
        return Queue(key, QueueState(name, trouble, None))
    try:
        spec = parse(custom)
    except InvalidManifestError:
        return Queue(key, QueueState(name, Trouble(Reason.DEPENDENCY_NOT_READY, "its spec is invalid"), None))
    assert isinstance(spec, TaskQueueSpec)  # noqa: S101 - by its kind
    spec = tools.quotas.limited(namespace, spec)
    secret, secret_key = secret_of(name, spec)
    digest = tools.cache.digest("Secret", Name(namespace, secret))
    if digest is None or secret_key not in digest.keys:
        message = f'key "{secret_key}" of Secret "{secret}", which has the URL of its Redis, does not exist yet'
        return Queue(key, QueueState(name, Trouble(Reason.DEPENDENCY_NOT_READY, message), None), spec)
    access = QueueAccess(
        variable=f"KUBEAGENTS_QUEUE_{index}_URL", secret=secret, key=secret_key, digest=digest.keys[secret_key]
    )
    return Queue(key, QueueState(name, None, tools.sampler.sample(key)), spec, access)


def thresholds(cache: Cache, queue: Key) -> frozenset[float]:
    """The ages of a heartbeat by which the users of a queue tell healthy instances from others.

    Specs are read as they are, not validated: a queue may have thousands of users.
    """
    found = set()
    for user in cache.users(queue.kind, Name(queue.namespace, queue.name)):
        spec = custom.spec if (custom := cache.custom(user)) is not None else {}
        if user.kind == "Agent":
            found.add(MISSED_BEATS * _seconds(spec.get("heartbeatSeconds"), _HEARTBEAT))
        else:
            found.add(_seconds(spec.get("agentTimeoutSeconds"), _TIMEOUT))
    # Somebody may consume from the queue who is no Agent of this cluster.
    return frozenset(found) or frozenset({_TIMEOUT})


def takers(cache: Cache, queue: Key) -> Takers:
    """What the Agents of a queue take. Specs are read as they are, too."""
    agents, capabilities, instances = set[str](), set[str](), set[str]()
    for user in cache.users(queue.kind, Name(queue.namespace, queue.name)):
        custom = cache.custom(user)
        if user.kind == "Agent" and custom is not None and not custom.deleting:
            agents.add(user.name)
            capabilities.update(custom.spec.get("capabilities") or ())
            instances.update(pod.name for pod in cache.pods(user))
    return Takers(frozenset(agents), frozenset(capabilities), frozenset(instances))


def has_central_agent(cache: Cache, queue: Key) -> bool:
    """Whether a CentralAgent serves the queue, with at least one replica."""
    users = cache.users(queue.kind, Name(queue.namespace, queue.name))
    centrals = [cache.custom(user) for user in users if user.kind == "CentralAgent"]
    return any(one is not None and not one.deleting and one.spec.get("replicas") != 0 for one in centrals)


_HEARTBEAT = float(AgentSpec.model_fields["heartbeat_seconds"].default)
_TIMEOUT = float(CentralAgentSpec.model_fields["agent_timeout_seconds"].default)


def _seconds(value: object, default: float) -> float:
    return float(value) if isinstance(value, int | float) else default
