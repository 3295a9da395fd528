# SPDX-License-Identifier: Apache-2.0
"""The reconcile of a CentralAgent."""

from dataclasses import replace

from kubeagents_api.central_agent import CentralAgentSpec
from kubeagents_api.errors import InvalidManifestError
from kubeagents_api.labels import ADMIN_KEY, RESTARTED_AT, STEP_DOWN, STEP_DOWN_ASKED, admin_secret
from kubeagents_api.runtime_config import lease_name
from kubeagents_operator import dependencies
from kubeagents_operator.desired import central_agent, names
from kubeagents_operator.desired.metadata import Owner
from kubeagents_operator.desired.pods import template_hash
from kubeagents_operator.keys import Key, Name
from kubeagents_operator.observed import Custom, Lease
from kubeagents_operator.reconcile.base import REFUSED_RETRY, Tools, bring, parse, pods_state, write_invalid
from kubeagents_operator.reconcile.grants import ForeignUrls
from kubeagents_operator.reconcile.made_up import MadeUp
from kubeagents_operator.reconcile.queues import Queue, foreign_urls, look_up
from kubeagents_operator.status.central_agent import CentralAgentState, report
from kubeagents_operator.status.conditions import Previous, Verdict, earliest
from kubeagents_operator.status.workload import judge_queues
from kubeagents_operator.watched import LEASE

_API_KEY = r"\s*[!-~]{16,}\s*"
"""What the pods take for one; they leave out white space around it."""


class CentralAgentReconcile:
    """Reconciles CentralAgents."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._urls = ForeignUrls(tools)
        self._admin_keys = MadeUp(tools.cluster, tools.cache, entry=ADMIN_KEY, form=_API_KEY)

    async def __call__(self, custom: Custom) -> float | None:
        """One pass. Raises ApiUnavailableError."""
        tools, key = self._tools, custom.key
        try:
            spec = parse(custom)
        except InvalidManifestError as error:
            return await write_invalid(tools, custom, error)
        assert isinstance(spec, CentralAgentSpec)  # noqa: S101 - by its kind
        name = names.central_agent(key.name)
        queues = [
            look_up(tools, key, ref, child=name, referrer=f"spec.queueRefs[{index}]", index=index)
            for index, ref in enumerate(spec.queue_refs)
        ]
        inputs = _inputs(tools, custom, spec, queues, await foreign_urls(self._urls, queues))
        template, refused = None, None
        if isinstance(inputs, central_agent.CentralAgentInputs):
            inputs = replace(inputs, admin_key=await self._admin_key(key, spec))
            manifests = central_agent.children(inputs, tools.defaults)
            template = template_hash(manifests[-1])
            refused = await bring(tools, custom, manifests)
        elif any(queue.refused for queue in queues):
            refused = await bring(tools, custom, [])
        lease = tools.cache.lease(Name(key.namespace, lease_name(key.name)))
        state = CentralAgentState(
            obstacle=inputs if isinstance(inputs, Verdict) else refused,
            suspended=spec.suspend,
            pods=pods_state(
                tools, custom, name, spec=spec, wanted=0 if spec.suspend else spec.replicas, template=template
            ),
            queues=[queue.state for queue in queues],
            lease=lease,
            lease_duration=float(spec.lease_duration_seconds),
            agent_timeout=float(spec.agent_timeout_seconds),
            endpoint=names.url(name, key.namespace, spec.service.port, https=spec.tls is not None),
            restarted_at=custom.asked.get(RESTARTED_AT) if template is not None else None,
            stepped_down=await self._step_down(custom, lease),
        )
        made = report(
            state, Previous(custom.status, generation=custom.generation), now=tools.now(), clock=tools.clock()
        )
        again = await tools.writer.write(custom, made, now=tools.now())
        return earliest(again, REFUSED_RETRY) if refused is not None else again

    def forget(self, key: Key) -> None:
        """The CentralAgent is gone."""
        self._admin_keys.forget(Name(key.namespace, admin_secret(key.name)))

    async def _admin_key(self, key: Key, spec: CentralAgentSpec) -> str | None:
        """The key that opens it, if its manifest does not say whose keys do."""
        name = Name(key.namespace, admin_secret(key.name))
        if spec.access is None:
            return await self._admin_keys.value(name)
        self._admin_keys.forget(name)
        return None

    async def _step_down(self, custom: Custom, lease: Lease | None) -> str | None:
        """Pass on the wish for another leader; which wish has been dealt with, if any.

        The Lease remembers it. So whoever reconciles next, should this process end before the status says so, does not
        ask the next leader to go as well.
        """
        tools, key, wish = self._tools, custom.key, custom.asked.get(STEP_DOWN)
        child = tools.cache.children(key).get(("Lease", lease_name(key.name)))
        if wish is None or lease is None or child is None:
            return None
        if wish != (custom.status.get("handled") or {}).get("stepDown") and lease.holder and lease.asked != wish:
            wishes = {STEP_DOWN: str(lease.transitions), STEP_DOWN_ASKED: wish}
            body = await tools.cluster.annotate(LEASE, key.namespace, child.name, uid=child.uid, annotations=wishes)
            tools.cache.seen(LEASE, body)
            note = f"asked pod {lease.holder} to let another pod lead (term {lease.transitions})"
            tools.recorder.normal(custom, "LeaderSteppedDown", note)
        return wish


def _inputs(
    tools: Tools, custom: Custom, spec: CentralAgentSpec, queues: list[Queue], urls: dict[str, str] | Verdict
) -> central_agent.CentralAgentInputs | Verdict:
    """What the children are made from, or what is missing for it."""
    specs = {queue.state.name: queue.spec for queue in queues if queue.spec is not None}
    access = tuple(queue.access for queue in queues if queue.access is not None)
    if len(access) < len(queues):
        return judge_queues([queue.state for queue in queues if queue.access is None])
    if isinstance(urls, Verdict):
        return urls
    needs = dependencies.look_up(tools.cache, custom.key.namespace, spec)
    if needs.missing is not None:
        return needs.missing
    return central_agent.CentralAgentInputs(
        Owner(custom.key, custom.uid),
        spec,
        specs,
        access,
        urls=urls,
        env_digest=needs.env_digest,
        restarted_at=custom.asked.get(RESTARTED_AT, ""),
    )
