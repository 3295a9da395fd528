# SPDX-License-Identifier: Apache-2.0
"""The children of an Agent."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from kubeagents_api import runtime_config
from kubeagents_api.access import key_secrets
from kubeagents_api.agent import AgentSpec
from kubeagents_api.labels import HTTP_PORT
from kubeagents_api.runtime_config import AgentConfig
from kubeagents_api.task_queue import TaskQueueSpec
from kubeagents_api.tls import tls_secrets
from kubeagents_operator.desired import disruption, names, runtime
from kubeagents_operator.desired.metadata import Manifest, Owner
from kubeagents_operator.desired.runtime import CODE_PATH, KEYS_PATH, TLS_PATH, Defaults, QueueAccess, RuntimePods

_STOP_MARGIN_SECONDS = 15
"""After the drain: to give back what is left, to say goodbye and to close the connections."""


@dataclass(frozen=True, slots=True)
class AgentInputs:
    """An Agent and all that its children depend on."""

    owner: Owner
    spec: AgentSpec
    queue: TaskQueueSpec
    access: QueueAccess
    replicas: int
    """How many pods the Deployment keeps for now."""
    urls: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The encoded URL of its queue by key of a Secret, if the queue is in another namespace."""
    code_digest: str = ""
    env_digest: str = ""
    restarted_at: str = ""
    """The annotation by which people ask for a restart."""


def children(inputs: AgentInputs, defaults: Defaults) -> list[Manifest]:
    """In the order in which they are written: what a pod needs comes before it."""
    owner, spec = inputs.owner, inputs.spec
    config = runtime_config.agent_config(
        name=owner.key.name,
        namespace=owner.key.namespace,
        spec=spec,
        queue=inputs.queue,
        code_path=CODE_PATH,
        keys_path=KEYS_PATH,
        tls_path=TLS_PATH,
    )
    ports = {str(name): port for name, port in config.endpoints.items() if port}
    pods = RuntimePods(
        owner=owner,
        name=names.agent(owner.key.name),
        settings=spec,
        replicas=inputs.replicas,
        config=runtime_config.render(config),
        queues=(inputs.access,),
        grace_seconds=spec.drain_seconds + _STOP_MARGIN_SECONDS,
        api_token=False,
        config_in_template=True,
        own_config=_own(config),
        ports=ports,
        keys=key_secrets(spec.access),
        tls_files=tls_secrets(spec.access, spec.tls),
        https=spec.tls is not None,
        code=code_volume(inputs),
        code_digest=inputs.code_digest,
        env_digest=inputs.env_digest,
        restarted_at=inputs.restarted_at,
    )
    return [
        *runtime.queue_urls(owner, pods.name, inputs.urls),
        runtime.service_account(owner, pods.name),
        runtime.service(owner, pods.name, port=HTTP_PORT, others=ports, https=spec.tls is not None),
        *([disruption.budget(owner, pods.name)] if _may_be_several(inputs) else []),
        runtime.deployment(pods, defaults),
    ]


def _may_be_several(inputs: AgentInputs) -> bool:
    spec = inputs.spec
    most = spec.replicas if spec.autoscaling is None else spec.autoscaling.max_replicas
    return max(most, inputs.replicas) > 1


def code_volume(inputs: AgentInputs) -> str | None:
    """The ConfigMap that the pods mount: the user's own one, or, if versions are tried on a part of the replicas, a
    copy that belongs to the version. The other replicas would read the new code as well when they start again."""
    if inputs.spec.code is None:
        return None
    if inputs.spec.rollout is None:
        return inputs.spec.code.config_map_ref.name
    return names.code(inputs.owner.key.name, inputs.code_digest)


def _own(config: AgentConfig) -> str:
    """The configuration without what the queue says."""
    own = {**config.to_wire(), "queue": [config.queue.namespace, config.queue.name]}
    return orjson.dumps(own, option=orjson.OPT_SORT_KEYS).decode()
