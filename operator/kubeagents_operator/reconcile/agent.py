# SPDX-License-Identifier: Apache-2.0
"""The reconcile of an Agent."""

from collections.abc import Hashable

from kubeagents_api.agent import AgentSpec
from kubeagents_api.errors import InvalidManifestError
from kubeagents_api.labels import RESTARTED_AT
from kubeagents_operator import dependencies
from kubeagents_operator.desired import agent, names
from kubeagents_operator.desired.metadata import Owner
from kubeagents_operator.desired.pods import template_hash
from kubeagents_operator.keys import Key
from kubeagents_operator.observed import Custom
from kubeagents_operator.reconcile.base import REFUSED_RETRY, Tools, bring, parse, pods_state, write_invalid
from kubeagents_operator.reconcile.canary import Canaries
from kubeagents_operator.reconcile.grants import ForeignUrls
from kubeagents_operator.reconcile.queues import Queue, foreign_urls, look_up
from kubeagents_operator.reconcile.replicas import Replicas
from kubeagents_operator.scaling.plan import ReplicaPlan
from kubeagents_operator.status.agent import AgentState, awaits_sample, report
from kubeagents_operator.status.conditions import Previous, Verdict, earliest
from kubeagents_operator.status.workload import judge_queues


class AgentReconcile:
    """Reconciles Agents."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._replicas = Replicas(tools)
        self._urls = ForeignUrls(tools)
        self._canaries = Canaries(tools)

    def forget(self, key: Key) -> None:
        """The Agent is gone."""
        self._replicas.forget(key)
        self._canaries.forget(key)

    async def __call__(self, custom: Custom) -> float | None:
        """One pass. Raises ApiUnavailableError."""
        tools, key = self._tools, custom.key
        try:
            own = parse(custom)
        except InvalidManifestError as error:
            return await write_invalid(tools, custom, error)
        assert isinstance(own, AgentSpec)  # noqa: S101 - by its kind
        allowed = tools.quotas.allow(custom, own)
        spec = allowed.spec
        name = names.agent(key.name)
        queue = look_up(tools, key, spec.queue_ref, child=name, referrer="spec.queueRef")
        urls = await foreign_urls(self._urls, [queue])
        plan = await self._replicas.plan(custom, spec, queue)
        tools.quotas.took(key, plan.kept)
        inputs = allowed.refusal or self._inputs(custom, spec, queue, plan, urls)
        template, refused = None, None
        kept, canary, image = plan.kept, self._canaries.unarranged(custom, spec), spec.image
        basis = _basis(custom, inputs) if spec is own else None
        if basis is not None and tools.children.stand(custom, basis):
            standing = tools.cache.children(key)["Deployment", name].rollout
            template = standing.template if standing is not None else None
        elif isinstance(inputs, agent.AgentInputs):
            made_of = agent.children(inputs, tools.defaults)
            arranged = await self._canaries.arrange(custom, inputs, made_of, queue.state.sample)
            custom = tools.cache.custom(key) or custom
            template, kept, image = template_hash(arranged.stable), arranged.replicas, arranged.image
            canary = arranged.view
            refused = await bring(tools, custom, arranged.manifests, keeping=arranged.keeping, basis=basis)
        elif queue.refused:
            refused = await bring(tools, custom, [])
        state = AgentState(
            name=key.name,
            obstacle=inputs if isinstance(inputs, Verdict) else refused or allowed.excess,
            suspended=spec.suspend,
            plan=plan,
            pods=pods_state(tools, custom, name, spec=spec, wanted=plan.wanted, kept=kept, template=template),
            queue=queue.state,
            heartbeat_seconds=float(spec.heartbeat_seconds),
            image=image or tools.defaults.runtime_image,
            endpoint=names.url(name, key.namespace),
            restarted_at=custom.asked.get(RESTARTED_AT) if template is not None else None,
            canary=canary,
        )
        if awaits_sample(state, now=tools.now()):
            tools.sampler.poke(queue.key)
        made = report(state, Previous(custom.status, generation=custom.generation), now=tools.now())
        again = await tools.writer.write(custom, made, now=tools.now())
        return earliest(again, REFUSED_RETRY) if refused is not None else again

    def _inputs(
        self, custom: Custom, spec: AgentSpec, queue: Queue, plan: ReplicaPlan, urls: dict[str, str] | Verdict
    ) -> agent.AgentInputs | Verdict:
        """What the children are made from, or what is missing for it."""
        if queue.spec is None or queue.access is None:
            return judge_queues([queue.state])
        if isinstance(urls, Verdict):
            return urls
        needs = dependencies.look_up(self._tools.cache, custom.key.namespace, spec)
        if needs.missing is not None:
            return needs.missing
        return agent.AgentInputs(
            Owner(custom.key, custom.uid),
            spec,
            queue.spec,
            queue.access,
            replicas=plan.kept,
            urls=urls,
            code_digest=needs.code_digest,
            env_digest=needs.env_digest,
            restarted_at=custom.asked.get(RESTARTED_AT, ""),
        )


def _basis(custom: Custom, inputs: agent.AgentInputs | Verdict) -> Hashable:
    """All that the children of an Agent without a canary are made from; None if there is one, or nothing to make."""
    if isinstance(inputs, Verdict) or inputs.spec.rollout is not None or custom.status.get("rollout"):
        return None
    return (
        custom.generation,
        inputs.queue,
        inputs.access,
        inputs.replicas,
        inputs.code_digest,
        inputs.env_digest,
        inputs.restarted_at,
    )
