# SPDX-License-Identifier: Apache-2.0
"""The children of an Agent."""

from dataclasses import dataclass

from kubeagents_api import runtime_config
from kubeagents_api.agent import AgentSpec
from kubeagents_api.labels import HTTP_PORT
from kubeagents_api.task_queue import TaskQueueSpec
from kubeagents_operator.desired import names, runtime
from kubeagents_operator.desired.metadata import Manifest, Owner
from kubeagents_operator.desired.runtime import CODE_PATH, Defaults, QueueAccess, RuntimePods

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
    code_digest: str = ""
    env_digest: str = ""
    restarted_at: str = ""
    """The annotation by which people ask for a restart."""


def children(inputs: AgentInputs, defaults: Defaults) -> list[Manifest]:
    """In the order in which they are written: what a pod needs comes before it."""
    owner, spec = inputs.owner, inputs.spec
    config = runtime_config.agent_config(
        name=owner.key.name, namespace=owner.key.namespace, spec=spec, queue=inputs.queue, code_path=CODE_PATH
    )
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
        code=spec.code.config_map_ref.name if spec.code is not None else None,
        code_digest=inputs.code_digest,
        env_digest=inputs.env_digest,
        restarted_at=inputs.restarted_at,
    )
    return [
        runtime.service_account(owner, pods.name),
        runtime.service(owner, pods.name, port=HTTP_PORT),
        runtime.deployment(pods, defaults),
    ]
