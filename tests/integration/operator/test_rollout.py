# SPDX-License-Identifier: Apache-2.0
"""Canaries: a new version on a part of the replicas first. Only the pods are played, not the workers and the tasks."""

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from agent_runtime.agent import Context, Task
from kubeagents_api.task import TaskRequest, TaskState
from tests.integration.operator import manifests
from tests.integration.operator.conftest import StartOperator, StartProxy, StartWorkers
from tests.integration.operator.states import condition, events, wait_for
from tests.support.api_fault_proxy import Fault, Request
from tests.support.cluster import Cluster
from tests.support.eventually import eventually
from tests.support.fake_workers import FakeWorkers
from tests.support.kstatus import kstatus
from tests.support.operator_process import OperatorProcess
from tests.support.redis_server import RedisServer

OURS = "kubeagents.dev/name=worker"
AGENT = "agent/worker"
STABLE, CANARY = "worker-agent", "worker-agent-canary"
TWO_STEPS = {"steps": [{"percent": 25, "pauseSeconds": 0}, {"percent": 50, "pauseSeconds": 0}], "minTasks": 10}
COUNTER_SECONDS = 15.0
WAITING = {"steps": [{"percent": 25}], "minTasks": 0}

pytestmark = pytest.mark.timeout(180)


@dataclass
class Stage:
    """An Agent `worker` in the test's namespace, and who works for it."""

    cluster: Cluster
    namespace: str
    operator: OperatorProcess
    workers: FakeWorkers
    spec: dict[str, Any]
    broken: set[str]
    """Versions of which every task fails."""

    def apply(self, version: str, **spec: Any) -> None:
        """Apply the Agent, of that version from now on."""
        self.spec.update(spec)
        env = [{"name": "VERSION", "value": version}]
        self.cluster.apply(self.namespace, manifests.agent(**self.spec, env=env))

    def annotate(self, name: str, value: str) -> None:
        self.cluster.kubectl("-n", self.namespace, "annotate", AGENT, f"kubeagents.dev/{name}={value}", "--overwrite")

    def deployments(self) -> dict[str, tuple[str, int]]:
        """Name -> the version of its template, and its replicas."""
        found = self.cluster.objects(self.namespace, "deployments", OURS)
        return {one["metadata"]["name"]: (_version(one["spec"]["template"]), one["spec"]["replicas"]) for one in found}

    def generation(self, deployment: str) -> int:
        """How often its spec has been changed."""
        generation: int = self.cluster.get(self.namespace, "deployment", deployment)["metadata"]["generation"]
        return generation

    def versions(self) -> dict[str, int]:
        """Version -> ready pods."""
        counts: dict[str, int] = {}
        ready = set(self.cluster.ready_pods(self.namespace, OURS))
        for pod in self.cluster.objects(self.namespace, "pods", OURS):
            if pod["metadata"]["name"] in ready:
                version = _version({"spec": pod["spec"]})
                counts[version] = counts.get(version, 0) + 1
        return counts

    def rollout(self) -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.get(self.namespace, "agent", "worker")["status"].get("rollout", {})
        return found

    def submit(self, count: int) -> list[str]:
        requests = [TaskRequest(agent="worker", max_attempts=100) for _ in range(count)]
        return self.workers.do(lambda queue: queue.submit(requests))

    def finished(self, ids: list[str]) -> bool:
        """Whether all tasks have succeeded, whoever tried them before."""
        records = self.workers.do(lambda queue: queue.wait(ids, timeout_seconds=20))
        return [record.state for record in records] == [TaskState.SUCCEEDED] * len(ids)

    def settles(self, expected: dict[str, tuple[str, int]], what: str) -> None:
        eventually(lambda: self.deployments() == expected, what=f"{what}; now {self.deployments()}", timeout=60)

    def says(self, reason: str, *, status: str = "True") -> dict[str, Any]:
        """Wait for CanaryHealthy with that reason."""
        return wait_for(self.cluster, self.namespace, AGENT, "CanaryHealthy", status=status, reason=reason)

    def reasons(self) -> list[str]:
        return [reason for reason, _ in events(self.cluster, self.namespace, "worker")]


Enter = Callable[..., Stage]


@pytest.fixture
def enter(
    cluster: Cluster,
    namespace: str,
    redis_server: RedisServer,
    start_operator: StartOperator,
    start_workers: StartWorkers,
) -> Enter:
    """Puts four ready replicas of version `1` on the stage: `enter(rollout=…)`."""

    def make(*, replicas: int = 4, **spec: Any) -> Stage:
        broken: set[str] = set()
        versions: dict[str, str] = {}

        async def handle(task: Task, ctx: Context) -> str:
            await asyncio.sleep(0.02)
            if ctx.instance not in versions:
                pod = await asyncio.to_thread(cluster.get, namespace, "pod", ctx.instance)
                versions[ctx.instance] = _version({"spec": pod["spec"]})
            if versions[ctx.instance] in broken:
                raise ValueError("this version does not work")
            return versions[ctx.instance]

        operator = start_operator().leading()
        retry = {"maxAttempts": 100, "initialSeconds": 0.1, "maxSeconds": 0.5}
        queue = manifests.queue(retry=retry)
        cluster.apply(namespace, manifests.secret(redis_server.url), queue, manifests.code())
        workers = start_workers("worker", handler=handle, concurrency=1)
        stage = Stage(cluster, namespace, operator, workers, {"replicas": replicas, **spec}, broken)
        stage.apply("1")
        cluster.wait(namespace, AGENT, "condition=Ready")
        if replicas:
            stage.says("NoCanary")
            eventually(lambda: stage.rollout().get("stableRevision"), what="a version that is known to work")
        return stage

    return make


def _version(template: dict[str, Any]) -> str:
    env = template["spec"]["containers"][0]["env"]
    return str(next(one["value"] for one in env if one["name"] == "VERSION"))


def test_a_version_whose_tasks_succeed_is_promoted_step_by_step(enter: Enter) -> None:
    stage = enter(rollout=TWO_STEPS)
    untouched = stage.generation(STABLE)

    stage.apply("2")
    stage.settles({STABLE: ("1", 3), CANARY: ("2", 1)}, "one pod of the new version")
    assert stage.versions() == {"1": 3, "2": 1}
    assert stage.generation(STABLE) == untouched + 1, "only its replicas were changed"
    assert kstatus(stage.cluster.get(stage.namespace, "agent", "worker")) == "InProgress"
    stage.says("CanaryRunning")
    ids = stage.submit(200)

    stage.settles({STABLE: ("2", 4)}, "the new version everywhere")
    stage.cluster.wait(stage.namespace, AGENT, "condition=Ready")
    assert stage.versions() == {"2": 4}
    assert stage.finished(ids)
    assert {"CanaryStarted", "CanaryStepped", "CanaryPromoted"} <= set(stage.reasons())
    assert "CanaryFailed" not in stage.reasons()
    rollout = stage.rollout()
    assert rollout.keys() == {"stableRevision"}


def test_a_version_whose_tasks_fail_is_taken_back_and_not_tried_again(enter: Enter) -> None:
    stage = enter(rollout=TWO_STEPS)
    stable = stage.rollout()["stableRevision"]
    stage.broken.add("2")

    stage.apply("2")
    stage.settles({STABLE: ("1", 3), CANARY: ("2", 1)}, "one pod of the new version")
    ids = stage.submit(400)
    said = stage.says("CanaryFailed", status="False")
    assert "task attempts failed" in said["message"]
    stage.settles({STABLE: ("1", 4)}, "the old version everywhere")
    assert stage.finished(ids), "what the new version could not do, the old one did"

    agent = stage.cluster.get(stage.namespace, "agent", "worker")
    assert kstatus(agent) == "Failed"
    assert condition(stage.cluster, stage.namespace, AGENT, "Stalled")["reason"] == "CanaryFailed"
    assert condition(stage.cluster, stage.namespace, AGENT, "Available")["status"] == "True"
    assert stage.rollout()["failed"] >= 10
    assert stage.rollout()["stableRevision"] == stable
    eventually(lambda: "CanaryFailed" in stage.reasons(), what="an Event")

    stage.operator.kill()
    stage.operator.start().leading()
    stage.annotate("restartedAt", "now")  # something that has it look again
    eventually(lambda: stage.versions() == {"1": 4}, what="the restarted old version")
    assert stage.deployments() == {STABLE: ("1", 4)}, "it is not tried again"

    stage.apply("1")
    wait_for(stage.cluster, stage.namespace, AGENT, "Ready", status="True")
    stage.says("NoCanary")
    assert "failedRevision" not in stage.rollout()


def test_a_step_that_has_just_begun_is_decided_without_waiting_for_the_next_sample(enter: Enter) -> None:
    stage = enter(rollout=TWO_STEPS)
    stage.broken.add("2")
    stage.operator.kill()
    stage.operator.environment["KUBEAGENTS_SAMPLE_SECONDS"] = "3600"
    stage.operator.start().leading()

    stage.apply("2")
    eventually(lambda: stage.rollout().get("stepStartedAt"), what="a step that waits for tasks")
    stage.submit(100)
    stage.says("CanaryFailed", status="False")


def test_a_version_whose_pods_do_not_come_up_is_taken_back(enter: Enter) -> None:
    stage = enter(rollout=TWO_STEPS, progressDeadlineSeconds=10)

    stage.apply("2", nodeSelector={"example.com/there-is": "no-such-node"})

    said = stage.says("CanaryFailed", status="False")
    assert "its pods do not come up" in said["message"]
    stage.settles({STABLE: ("1", 4)}, "the old version everywhere")
    assert stage.versions() == {"1": 4}


def test_a_step_without_a_pause_waits_for_somebody_to_promote_it(enter: Enter) -> None:
    stage = enter(rollout={"steps": [{"percent": 25}, {"percent": 50}], "minTasks": 0})
    stage.annotate("promote", "before")  # of an earlier rollout

    stage.apply("2")
    stage.says("CanaryWaiting")
    assert stage.deployments() == {STABLE: ("1", 3), CANARY: ("2", 1)}
    assert stage.rollout()["progress"] == "1/2"
    stage.annotate("promote", "first")
    stage.settles({STABLE: ("1", 2), CANARY: ("2", 2)}, "the second step")
    stage.says("CanaryWaiting")
    stage.annotate("promote", "second")
    stage.settles({STABLE: ("2", 4)}, "the new version everywhere")


def test_the_counts_of_a_canary_are_written_every_15_s(enter: Enter) -> None:
    stage = enter(rollout={"steps": [{"percent": 25}], "minTasks": 100_000})
    stage.apply("2")
    eventually(lambda: stage.rollout().get("stepStartedAt"), what="a step that waits for tasks")

    def writes() -> float:
        return stage.operator.metric("kubeagents_operator_api_writes_total", kind="Agent", verb="status")

    def samples() -> float:
        return stage.operator.metric("kubeagents_operator_queue_samples_total")

    def counted() -> int:
        found: int = stage.rollout().get("succeeded", 0)
        return found

    began, before, totals = time.monotonic(), writes(), set()
    for _ in range(15):
        stage.submit(20)
        taken = samples()
        eventually(lambda taken=taken: samples() > taken + 1, what="another sample")  # type: ignore[misc]
        totals.add(stage.workers.do(lambda queue: queue.stats()).succeeded_total)
    passed = time.monotonic() - began

    assert len(totals) >= 12, "the figures did change"
    assert writes() - before <= passed / COUNTER_SECONDS + 1
    eventually(lambda: counted() > 0, what="they are shown", timeout=40)


def test_a_killed_operator_goes_on_where_it_was(enter: Enter, start_proxy: StartProxy) -> None:
    stage = enter(rollout={"steps": [{"percent": 25}, {"percent": 50}], "minTasks": 0})
    stage.apply("2")
    stage.says("CanaryWaiting")
    untouched = stage.generation(STABLE), stage.generation(CANARY)

    stage.operator.kill()
    stage.operator.start().leading()
    eventually(lambda: stage.operator.metric("kubeagents_operator_reconciles_total") > 1, what="it has looked")
    stage.annotate("promote", "first")
    stage.settles({STABLE: ("1", 2), CANARY: ("2", 2)}, "the second step")
    assert (stage.generation(STABLE), stage.generation(CANARY)) == (untouched[0] + 1, untouched[1] + 1)
    assert stage.versions() == {"1": 2, "2": 2}

    stage.operator.kill()
    stage.annotate("promote", "second")
    proxy = start_proxy()

    def deadly(request: Request) -> Fault | None:
        acts = request.is_write and request.plural == "deployments"
        return Fault(after=stage.operator.running.kill, lose=True) if acts else None

    proxy.fault = deadly
    direct, stage.operator.kubeconfig = stage.operator.kubeconfig, proxy.kubeconfig
    assert stage.operator.start().exit_code() == -signal.SIGKILL
    promoting = stage.rollout()
    assert promoting["stableRevision"] == promoting["canaryRevision"]
    stage.operator.kubeconfig = direct
    stage.operator.start().leading()
    stage.settles({STABLE: ("2", 4)}, "the new version everywhere")
    assert stage.reasons().count("CanaryStarted") == 1


def test_a_newer_version_in_the_midst_of_a_canary_takes_its_place(enter: Enter) -> None:
    stage = enter(rollout=WAITING)
    stage.apply("2")
    stage.says("CanaryWaiting")
    second = stage.rollout()["canaryRevision"]

    stage.apply("3")
    stage.settles({STABLE: ("1", 3), CANARY: ("3", 1)}, "the newest version is tried")
    eventually(lambda: stage.rollout()["canaryRevision"] != second, what="another canary")
    stage.says("CanaryWaiting")

    stage.apply("1")
    stage.settles({STABLE: ("1", 4)}, "back at the old version")
    stage.says("NoCanary")
    assert stage.versions() == {"1": 4}


def test_replicas_may_change_and_rest_in_the_midst_of_a_canary(enter: Enter) -> None:
    stage = enter(rollout=WAITING)
    stage.apply("2")
    stage.says("CanaryWaiting")

    stage.apply("2", replicas=8)
    stage.settles({STABLE: ("1", 6), CANARY: ("2", 2)}, "shares of eight")
    stage.apply("2", suspend=True)
    stage.settles({STABLE: ("1", 0), CANARY: ("2", 0)}, "nothing runs")
    wait_for(stage.cluster, stage.namespace, AGENT, "Ready", status="True", reason="SpecSuspended")
    stage.annotate("promote", "asleep")
    stage.apply("2", suspend=False)
    stage.settles({STABLE: ("2", 8)}, "promoted once its pods were ready again")


def test_the_scale_subresource_counts_both_and_the_version_is_the_stable_one(enter: Enter) -> None:
    stage = enter(rollout=WAITING, image="runtime:1")
    stage.apply("2", image="runtime:2")
    stage.says("CanaryWaiting")

    path = f"/apis/kubeagents.dev/v1alpha1/namespaces/{stage.namespace}/agents/worker/scale"
    eventually(lambda: stage.cluster.get_raw(path)["status"]["replicas"] == 4, what="the figure, which may be late")
    eventually(lambda: _status(stage)["ready"] == "4/4", what="four of four")
    pods = stage.cluster.objects(stage.namespace, "pods", stage.cluster.get_raw(path)["status"]["selector"])
    assert len(pods) == 4
    assert _status(stage)["version"] == "runtime:1"
    selector = stage.cluster.get(stage.namespace, "service", STABLE)["spec"]["selector"]
    assert all(selector.items() <= pod["metadata"]["labels"].items() for pod in pods)


def test_a_restart_is_no_new_version(enter: Enter) -> None:
    stage = enter(rollout=WAITING)
    before = set(stage.cluster.ready_pods(stage.namespace, OURS))

    stage.annotate("restartedAt", "noon")
    eventually(
        lambda: len(after := set(stage.cluster.ready_pods(stage.namespace, OURS))) == 4 and not before & after,
        what="other pods",
    )
    assert stage.deployments() == {STABLE: ("1", 4)}
    assert "CanaryStarted" not in stage.reasons()

    stage.apply("2")
    stage.says("CanaryWaiting")
    both = set(stage.cluster.ready_pods(stage.namespace, OURS))
    stage.annotate("restartedAt", "evening")
    eventually(
        lambda: (
            not both & set(stage.cluster.ready_pods(stage.namespace, OURS)) and stage.versions() == {"1": 3, "2": 1}
        ),
        what="other pods of the same versions",
    )
    assert stage.deployments() == {STABLE: ("1", 3), CANARY: ("2", 1)}


def test_without_a_strategy_any_more_the_new_version_is_rolled_out(enter: Enter) -> None:
    stage = enter(rollout=WAITING)
    stage.apply("2")
    stage.says("CanaryWaiting")

    stage.apply("2", rollout=None)
    stage.settles({STABLE: ("2", 4)}, "the new version everywhere")
    eventually(lambda: not stage.rollout(), what="nothing to remember")
    assert not condition(stage.cluster, stage.namespace, AGENT, "CanaryHealthy")


def test_old_pods_that_start_again_read_the_old_code(enter: Enter) -> None:
    stage = enter(rollout=WAITING)
    stage.cluster.apply(stage.namespace, manifests.code(text="async def handle(task, ctx): return 2\n"))
    stage.says("CanaryWaiting")

    sources = {name: _code(stage, name) for name in (STABLE, CANARY)}
    assert sources[STABLE] == "async def handle(task, ctx): ...\n"
    assert sources[CANARY] == "async def handle(task, ctx): return 2\n"
    stage.annotate("promote", "now")
    eventually(lambda: STABLE in stage.deployments() and CANARY not in stage.deployments(), what="promoted")
    assert _code(stage, STABLE) == "async def handle(task, ctx): return 2\n"
    eventually(
        lambda: len(stage.cluster.objects(stage.namespace, "configmaps", OURS)) == 1, what="the old copy is gone"
    )


def test_a_stable_deployment_that_somebody_deletes_comes_back_as_it_was(enter: Enter) -> None:
    stage = enter(rollout=WAITING)
    stage.apply("2")
    stage.says("CanaryWaiting")

    stage.cluster.kubectl("-n", stage.namespace, "delete", "deployment", STABLE)
    stage.settles({STABLE: ("1", 3), CANARY: ("2", 1)}, "the old version again")
    eventually(lambda: stage.versions() == {"1": 3, "2": 1}, what="its pods")


def _code(stage: Stage, deployment: str) -> str:
    """The code that the pods of a Deployment mount."""
    volumes = stage.cluster.get(stage.namespace, "deployment", deployment)["spec"]["template"]["spec"]["volumes"]
    name = next(volume["configMap"]["name"] for volume in volumes if volume["name"] == "code")
    text: str = stage.cluster.get(stage.namespace, "configmap", name)["data"]["work.py"]
    return text


def _status(stage: Stage) -> dict[str, Any]:
    status: dict[str, Any] = stage.cluster.get(stage.namespace, "agent", "worker")["status"]
    return status
