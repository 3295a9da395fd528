# SPDX-License-Identifier: Apache-2.0
"""The canary of an Agent: gathers what `rollout` needs to know, and writes down what it says before it is done."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from kubeagents_api.agent import AgentSpec
from kubeagents_api.conditions import ConditionType
from kubeagents_api.labels import PROMOTE
from kubeagents_operator.desired import names
from kubeagents_operator.desired.agent import AgentInputs, code_volume
from kubeagents_operator.desired.metadata import Manifest
from kubeagents_operator.keys import Key
from kubeagents_operator.observed import Child, Custom, Pod, Rollout
from kubeagents_operator.reconcile.base import Tools
from kubeagents_operator.rollout import code
from kubeagents_operator.rollout.deployments import arrange, deployment
from kubeagents_operator.rollout.machine import Plan, Seen, Workload, advance
from kubeagents_operator.rollout.state import State, of_status, to_status
from kubeagents_operator.rollout.tally import Tally
from kubeagents_operator.rollout.templates import Templates, version_of
from kubeagents_operator.rollout.view import CanaryView, view
from kubeagents_operator.sampler import Sample
from kubeagents_operator.status.conditions import Previous
from kubeagents_operator.status.rollout import Patience, is_stalled, judge
from kubeagents_operator.watched import BY_KIND, CONFIG_MAP


@dataclass(frozen=True, slots=True)
class Arrangement:
    """The children of an Agent, canary or not."""

    manifests: Sequence[Manifest]
    stable: Manifest
    """The Deployment among them that is no canary."""
    view: CanaryView | None = None
    keeping: Collection[tuple[str, str]] = ()
    """Children that stay as they are, by kind and name."""

    @property
    def replicas(self) -> int:
        """How many the stable Deployment has for now."""
        replicas: int = self.stable["spec"]["replicas"]
        return replicas

    @property
    def image(self) -> str:
        """That of the stable version."""
        image: str = self.stable["spec"]["template"]["spec"]["containers"][0]["image"]
        return image


class Canaries:
    """The canaries of all Agents. Remembers the old templates and the figures of those that are under way."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._templates = Templates(tools.cluster)
        self._tallies: dict[Key, Tally] = {}

    def forget(self, key: Key) -> None:
        """The Agent is gone, or has no canary."""
        self._templates.forget(key)
        self._tallies.pop(key, None)

    async def arrange(
        self, custom: Custom, inputs: AgentInputs, manifests: Sequence[Manifest], sample: Sample | None
    ) -> Arrangement:
        """The children as they should be now, given those without a canary. Raises what has to be tried again."""
        key, spec = custom.key, inputs.spec
        fresh = deployment(manifests, names.agent(key.name))
        assert fresh is not None  # noqa: S101 - each Agent has one
        canary = self._child(custom, names.canary(key.name))
        if spec.rollout is None and not custom.status.get("rollout") and canary is None:
            self.forget(key)
            return Arrangement(manifests, fresh, keeping=self._copies(custom, spec, (), manifests))
        before = of_status(custom.status.get("rollout"))
        state = self._counted(key, before, sample)
        plan = advance(state, spec.rollout, self._seen(custom, inputs, version_of(fresh["spec"]["template"])))
        kept = None
        if plan.keeps is not None:
            kept = await self._templates.keep(key, uid=custom.uid, name=fresh["metadata"]["name"], revision=plan.keeps)
        arranged = arrange(manifests, plan, owner=inputs.owner, kept=kept)
        await self._copy_code(custom, inputs)
        await self._write_down(custom, before, plan)
        if plan.keeps is None:
            self._templates.forget(key)
        stable = deployment(arranged, fresh["metadata"]["name"])
        assert stable is not None  # noqa: S101 - as above
        return Arrangement(
            arranged,
            stable,
            view(plan, spec.rollout, replicas=inputs.replicas),
            keeping=self._copies(custom, spec, arranged, manifests),
        )

    def unarranged(self, custom: Custom, spec: AgentSpec) -> CanaryView | None:
        """What to say while there is nothing to make the children from: what was said before."""
        said = Previous(custom.status).fact(ConditionType.CANARY_HEALTHY)
        return CanaryView(None, said) if spec.rollout is not None else None

    def _seen(self, custom: Custom, inputs: AgentInputs, wanted: str) -> Seen:
        tools, key = self._tools, custom.key
        stable = self._child(custom, names.agent(key.name))
        canary = self._child(custom, names.canary(key.name))
        remembered = self._templates.revision(key, uid=custom.uid)
        workload = _workload(stable)
        if workload is None and remembered is not None:
            workload = Workload(remembered, wanted=0, complete=False, works=False)  # somebody has deleted it
        return Seen(
            wanted=wanted,
            replicas=inputs.replicas,
            stable=workload,
            canary=_workload(canary),
            trouble=self._trouble(custom, inputs.spec, canary, wanted),
            promote=custom.asked.get(PROMOTE),
            now=tools.now(),
        )

    def _trouble(self, custom: Custom, spec: AgentSpec, canary: Child | None, wanted: str) -> str | None:
        """Why the pods of the canary do not come up, once it is clear that they will not."""
        rollout = canary.rollout if canary is not None else None
        if rollout is None or rollout.revision != wanted:
            return None
        now, limit = self._tools.now(), float(spec.progress_deadline_seconds)
        pods = [pod for pod in self._tools.cache.pods(custom.key) if pod.canary]
        verdict = judge(
            replace(rollout, available=0),  # what else works is no consolation here
            wanted=rollout.wanted,
            template=rollout.template,
            pods=pods,
            overdue=False,
            patience=Patience(limit=limit, now=now, waited=0.0),
        )
        return verdict.message if is_stalled(verdict) else None

    def _counted(self, key: Key, state: State, sample: Sample | None) -> State:
        """The state with the figures of the last sample."""
        if not state.trying or state.canary is None:
            self._tallies.pop(key, None)
            return state
        tally = self._tallies.get(key)
        if tally is None or tally.revision != state.canary:
            tally = Tally(state.canary, state.succeeded, state.failed_attempts)
            self._tallies[key] = tally
        if sample is not None and sample.trouble is None:
            mine = [one for one in sample.instances if one.agent == key.name]
            tally.take(mine, pods={pod.name for pod in self._tools.cache.pods(key) if _counts(pod)})
        succeeded, failed = tally.total()
        return replace(state, succeeded=succeeded, failed_attempts=failed)

    async def _write_down(self, custom: Custom, before: State, plan: Plan) -> None:
        """What is decided is written into the status before it is done: who goes on from here must not do it again."""
        after = plan.state or State()
        if after.phase() == before.phase():
            return
        tools, old, new = self._tools, custom.status.get("rollout") or {}, to_status(plan.state)
        value = {**dict.fromkeys(old), **new} if new is not None else None
        body = await tools.cluster.patch_status(custom.key, uid=custom.uid, patch={"rollout": value})
        tools.cache.seen(BY_KIND[custom.key.kind], body)
        for one in plan.news:
            tools.recorder.normal(custom, one.reason, one.note)

    async def _copy_code(self, custom: Custom, inputs: AgentInputs) -> None:
        """The copy of the code that the spec's version mounts."""
        if inputs.spec.rollout is None or inputs.spec.code is None:
            return
        name = code_volume(inputs)
        assert name is not None  # noqa: S101 - it has code
        if self._child(custom, name, kind="ConfigMap") is not None:
            return
        source = inputs.spec.code.config_map_ref.name
        made = await code.copy(self._tools.cluster, inputs.owner, source=source, name=name, digest=inputs.code_digest)
        self._tools.cache.seen(CONFIG_MAP, made)

    def _copies(
        self, custom: Custom, spec: AgentSpec, arranged: Sequence[Manifest], manifests: Sequence[Manifest]
    ) -> set[tuple[str, str]]:
        """The copies of code that pods still need: while old pods are there, those of all versions."""
        children = self._tools.cache.children(custom.key)
        existing = {name for kind, name in children if kind == "ConfigMap"}
        if not existing:
            return set()
        stable = self._child(custom, names.agent(custom.key.name))
        workload = _workload(stable)
        needed = code.mounted([*arranged, *manifests])
        if workload is None or not workload.complete or any(pod.deleting for pod in self._tools.cache.pods(custom.key)):
            needed = existing
        return {("ConfigMap", name) for name in needed & existing}

    def _child(self, custom: Custom, name: str, kind: str = "Deployment") -> Child | None:
        child = self._tools.cache.children(custom.key).get((kind, name))
        return child if child is not None and child.owner_uid == custom.uid and not child.deleting else None


def _workload(child: Child | None) -> Workload | None:
    rollout = child.rollout if child is not None else None
    if rollout is None:
        return None
    return Workload(rollout.revision, rollout.wanted, complete=rollout.complete, works=_works(rollout))


def _works(rollout: Rollout) -> bool:
    return rollout.current and rollout.updated == rollout.replicas and rollout.available > 0


def _counts(pod: Pod) -> bool:
    return pod.canary and not pod.deleting
