# SPDX-License-Identifier: Apache-2.0
"""The reconcile of a CentralAgent."""

from kubeagents_api.central_agent import CentralAgentSpec
from kubeagents_api.errors import InvalidManifestError
from kubeagents_api.labels import RESTARTED_AT
from kubeagents_api.runtime_config import lease_name
from kubeagents_operator.desired import central_agent, names
from kubeagents_operator.desired.metadata import Owner
from kubeagents_operator.desired.pods import template_hash
from kubeagents_operator.keys import Name
from kubeagents_operator.observed import Custom
from kubeagents_operator.reconcile.base import REFUSED_RETRY, Tools, bring, parse, pods_state, write_invalid
from kubeagents_operator.reconcile.queues import Queue, look_up
from kubeagents_operator.status.central_agent import CentralAgentState, report
from kubeagents_operator.status.conditions import Previous, Verdict, earliest
from kubeagents_operator.status.workload import judge_queues


class CentralAgentReconcile:
    """Reconciles CentralAgents."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def __call__(self, custom: Custom) -> float | None:
        """One pass. Raises ApiUnavailableError."""
        tools, key = self._tools, custom.key
        try:
            spec = parse(custom)
        except InvalidManifestError as error:
            return await write_invalid(tools, custom, error)
        assert isinstance(spec, CentralAgentSpec)  # noqa: S101 - by its kind
        queues = [
            look_up(tools, key.namespace, ref, referrer=f"spec.queueRefs[{index}]", index=index)
            for index, ref in enumerate(spec.queue_refs)
        ]
        inputs = _inputs(custom, spec, queues)
        template, refused = None, None
        if isinstance(inputs, central_agent.CentralAgentInputs):
            manifests = central_agent.children(inputs, tools.defaults)
            template = template_hash(manifests[-1])
            refused = await bring(tools, custom, manifests)
        name = names.central_agent(key.name)
        state = CentralAgentState(
            obstacle=inputs if isinstance(inputs, Verdict) else refused,
            suspended=spec.suspend,
            pods=pods_state(tools, custom, name, wanted=0 if spec.suspend else spec.replicas, template=template),
            queues=[queue.state for queue in queues],
            lease=tools.cache.lease(Name(key.namespace, lease_name(key.name))),
            lease_duration=float(spec.lease_duration_seconds),
            agent_timeout=float(spec.agent_timeout_seconds),
            endpoint=names.url(name, key.namespace, spec.service.port),
            restarted_at=custom.asked.get(RESTARTED_AT) if template is not None else None,
        )
        made = report(state, Previous(custom.status), now=tools.now(), clock=tools.clock())
        again = await tools.writer.write(custom, made, now=tools.now())
        return earliest(again, REFUSED_RETRY) if refused is not None else again


def _inputs(custom: Custom, spec: CentralAgentSpec, queues: list[Queue]) -> central_agent.CentralAgentInputs | Verdict:
    """What the children are made from, or what is missing for it."""
    specs = {queue.state.name: queue.spec for queue in queues if queue.spec is not None}
    access = tuple(queue.access for queue in queues if queue.access is not None)
    if len(access) < len(queues):
        verdict = judge_queues([queue.state for queue in queues if queue.access is None], Previous({}))
        assert verdict is not None  # noqa: S101 - that is why there is no access
        return verdict
    return central_agent.CentralAgentInputs(
        Owner(custom.key, custom.uid), spec, specs, access, restarted_at=custom.asked.get(RESTARTED_AT, "")
    )
