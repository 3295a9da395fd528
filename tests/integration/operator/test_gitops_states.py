# SPDX-License-Identifier: Apache-2.0
"""The states that objects can be in, as Flux and Helm (by kstatus) and Argo CD (by our Lua) read them; and the actions
of Argo CD on real objects.

With `make record-statuses` what is seen here becomes the test data of the Lua scripts.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from agent_runtime.agent import Context, Task
from kubeagents_api.runtime_config import lease_name
from kubeagents_api.task import TaskRequest
from tests.integration.operator import manifests
from tests.integration.operator.conftest import StartOperator, StartWorkers
from tests.support import argocd, recording
from tests.support.cluster import Cluster, Object
from tests.support.eventually import eventually
from tests.support.operator_process import OperatorProcess
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.timeout(180)

PROGRESSING, HEALTHY, DEGRADED = "InProgress/Progressing", "Current/Healthy", "Failed/Degraded"
PLURALS = {"Agent": "agents", "CentralAgent": "centralagents", "TaskQueue": "taskqueues"}
NAMES = {"Agent": "worker", "CentralAgent": "front", "TaskQueue": "work"}
NOBODY = "untouched/nobody:1"
"""An image whose pods kwok leaves alone: they stay as the test says."""


@dataclass(frozen=True)
class Stage:
    """One namespace, and what happens in it."""

    cluster: Cluster
    namespace: str

    def apply(self, *objects: Object) -> None:
        self.cluster.apply(self.namespace, *objects)

    def get(self, kind: str) -> Object:
        return self.cluster.get(self.namespace, PLURALS[kind], NAMES[kind])

    def until(self, kind: str, what: str, holds: Callable[[dict[str, Any]], object], *, seconds: float = 30) -> Object:
        """The object once its conditions, by type, are as wanted and about its latest generation."""

        def look() -> Object:
            obj = self.get(kind)
            status = obj["status"]
            if status["observedGeneration"] != obj["metadata"]["generation"]:
                raise AssertionError(f"not seen yet: {status}")
            conditions = {one["type"]: one for one in status["conditions"]}
            assert holds(conditions), json.dumps(status)
            return obj

        return eventually(look, what=f"{kind}: {what}", timeout=seconds)

    def sees(self, kind: str, state: str, expected: str, reason: str, **conditions: str) -> None:
        """Wait for a reason of Ready and for some conditions, then hold against what is expected."""

        def holds(now: dict[str, Any]) -> bool:
            others = all(now[type_]["status"] == status for type_, status in conditions.items())
            return now["Ready"]["reason"] == reason and others

        recording.check(self.until(kind, f"{reason} {conditions}", holds), state, expected)

    def act(self, kind: str, action: str) -> None:
        """What Argo CD does when somebody starts an action: the script's changes as a patch."""
        before = self.get(kind)
        assert argocd.discover(kind, before)[action], f"{action} is not enabled: {before}"
        after = argocd.act(kind, action, before)
        patch = {
            "spec": {k: v for k, v in after["spec"].items() if before["spec"].get(k) != v},
            "metadata": {"annotations": after["metadata"].get("annotations", {})},
        }
        self.cluster.kubectl(
            "-n", self.namespace, "patch", PLURALS[kind], NAMES[kind], "--type=merge", "-p", json.dumps(patch)
        )

    def enabled(self, kind: str) -> set[str]:
        return {name for name, enabled in argocd.discover(kind, self.get(kind)).items() if enabled}

    def say_of_pods(self, kind: str, state: dict[str, Any], *, restarts: int = 0, last: Object | None = None) -> None:
        """The kubelet's words about the containers of all pods of an object that nobody else touches."""

        def pods() -> list[Object]:
            found = self.cluster.objects(self.namespace, "pods", f"kubeagents.dev/name={NAMES[kind]}")
            return [
                pod for pod in found if pod["spec"].get("nodeName") and pod["spec"]["containers"][0]["image"] == NOBODY
            ]

        for pod in eventually(pods, what="a scheduled pod"):
            container = {
                "name": pod["spec"]["containers"][0]["name"],
                "image": NOBODY,
                "imageID": "",
                "ready": False,
                "restartCount": restarts,
                "state": state,
            }
            if last is not None:
                container["lastState"] = last
            ready = {"type": "Ready", "status": "False", "reason": "ContainersNotReady"}
            status = {"phase": "Pending", "conditions": [ready], "containerStatuses": [container]}
            self.cluster.kubectl(
                "-n", self.namespace, "patch", "pod", pod["metadata"]["name"], "--subresource=status", "--type=merge",
                "-p", json.dumps({"status": status}),
            )  # fmt: skip

    def someone_leads(self) -> None:
        """A pod of the central agent takes the Lease."""
        name = self.cluster.ready_pods(self.namespace, "kubeagents.dev/name=front")[0]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {
            "holderIdentity": name,
            "leaseDurationSeconds": 3600,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": 1,
        }
        self.cluster.kubectl(
            "-n",
            self.namespace,
            "patch",
            "lease",
            lease_name("front"),
            "--type=merge",
            "-p",
            json.dumps({"spec": spec}),
        )


@pytest.fixture
def stage(cluster: Cluster, namespace: str) -> Stage:
    return Stage(cluster, namespace)


def central_agent(**spec: Any) -> Object:
    return {
        "apiVersion": manifests.API_VERSION,
        "kind": "CentralAgent",
        "metadata": {"name": "front"},
        "spec": {"queueRefs": [{"name": "work"}], "replicas": 2, **spec},
    }


def test_an_agent_from_its_manifest_to_its_end(
    stage: Stage, redis_server: RedisServer, start_operator: StartOperator, start_workers: StartWorkers
) -> None:
    stage.apply(manifests.agent(replicas=2))
    recording.check(stage.get("Agent"), "unseen", PROGRESSING)
    operator = start_operator().leading()
    stage.sees("Agent", "queue-missing", PROGRESSING, "DependencyNotFound")

    start_workers("worker")
    stage.apply(manifests.secret(redis_server.url), manifests.queue(), manifests.code())
    stage.sees("Agent", "ready", HEALTHY, "Available", HeartbeatHealthy="True")
    assert stage.enabled("Agent") == {"pause", "restart"}

    stage.act("Agent", "restart")
    wanted = stage.get("Agent")["metadata"]["annotations"]["kubeagents.dev/restartedAt"]
    eventually(lambda: stage.get("Agent")["status"].get("handled") == {"restartedAt": wanted}, what="the echo")
    stage.sees("Agent", "restarted", HEALTHY, "Available")

    stage.act("Agent", "pause")
    stage.sees("Agent", "suspended", "Current/Suspended", "SpecSuspended", Suspended="True")
    assert stage.enabled("Agent") == {"resume"}
    stage.act("Agent", "resume")
    stage.sees("Agent", "resumed", HEALTHY, "Available", HeartbeatHealthy="True")

    stage.cluster.kubectl("-n", stage.namespace, "scale", "agent/worker", "--replicas=0")
    stage.sees("Agent", "scaled-to-zero", HEALTHY, "ScaledToZero", ScaledToZero="True")

    assert operator.stop() == 0
    stage.cluster.kubectl("-n", stage.namespace, "scale", "agent/worker", "--replicas=1")
    recording.check(stage.get("Agent"), "changed-while-the-operator-is-down", PROGRESSING)
    patch = '{"metadata": {"finalizers": ["example.com/hold"]}}'
    stage.cluster.kubectl("-n", stage.namespace, "patch", "agent/worker", "--type=merge", "-p", patch)
    stage.cluster.kubectl("-n", stage.namespace, "delete", "agent/worker", "--wait=false")
    recording.check(stage.get("Agent"), "deleting", "Terminating/Progressing")
    patch = '{"metadata": {"finalizers": null}}'
    stage.cluster.kubectl("-n", stage.namespace, "patch", "agent/worker", "--type=merge", "-p", patch)


def test_an_agent_whose_pods_do_not_get_up(stage: Stage, redis_server: RedisServer, operator: OperatorProcess) -> None:
    stage.apply(manifests.secret(redis_server.url), manifests.queue(), manifests.code())
    stage.apply(manifests.agent(image=NOBODY, progressDeadlineSeconds=10))
    stage.sees("Agent", "rolling-out", PROGRESSING, "RollingOut")

    stage.say_of_pods("Agent", {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x"'}})
    stage.sees("Agent", "image-pull-fails", PROGRESSING, "ImagePullFailed")
    stage.sees("Agent", "image-pull-failed", DEGRADED, "ImagePullFailed", Stalled="True")

    told = json.dumps({"reason": "HandlerNotFound", "message": "work has no handle"})
    died = {"terminated": {"exitCode": 78, "message": told, "reason": "Error"}}
    waits = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}}
    stage.say_of_pods("Agent", waits, restarts=2, last=died)
    stage.sees("Agent", "handler-not-found", DEGRADED, "HandlerNotFound", Stalled="True")

    died = {"terminated": {"exitCode": 3, "reason": "Error"}}
    stage.say_of_pods("Agent", waits, restarts=9, last=died)
    stage.sees("Agent", "crash-loop", DEGRADED, "CrashLoop", Stalled="True")


def test_an_agent_that_tries_a_new_version(
    stage: Stage, redis_server: RedisServer, operator: OperatorProcess, start_workers: StartWorkers
) -> None:
    def agent(image: str) -> Object:
        rollout = {"steps": [{"percent": 50}], "minTasks": 0}
        return manifests.agent(replicas=2, image=image, rollout=rollout, progressDeadlineSeconds=10)

    start_workers("worker")
    stage.apply(manifests.secret(redis_server.url), manifests.queue(), manifests.code(), agent("good:1"))
    stage.sees("Agent", "without-canary", HEALTHY, "Available", CanaryHealthy="True")
    assert not argocd.discover("Agent", stage.get("Agent"))["promote"]

    stage.apply(agent("good:2"))
    stage.sees("Agent", "canary-waits", PROGRESSING, "CanaryWaiting", CanaryHealthy="True")
    stage.act("Agent", "promote")
    stage.sees("Agent", "canary-promoted", HEALTHY, "Available", CanaryHealthy="True")

    stage.apply(agent(NOBODY))
    told = json.dumps({"reason": "HandlerNotFound", "message": "work has no handle"})
    died = {"terminated": {"exitCode": 78, "message": told, "reason": "Error"}}
    stage.say_of_pods("Agent", {"waiting": {"reason": "CrashLoopBackOff"}}, restarts=2, last=died)
    stage.sees("Agent", "canary-failed", DEGRADED, "CanaryFailed", CanaryHealthy="False", Available="True")


def test_an_agent_that_the_operator_scales(
    stage: Stage, redis_server: RedisServer, operator: OperatorProcess, start_workers: StartWorkers
) -> None:
    autoscaling = {"minReplicas": 0, "maxReplicas": 2, "idleSeconds": 0, "scaleDown": {"stabilizationWindowSeconds": 0}}
    start_workers("worker")
    stage.apply(manifests.secret(redis_server.url), manifests.queue(), manifests.code())
    stage.apply(manifests.agent(autoscaling=autoscaling))
    stage.sees("Agent", "autoscaled-to-zero", HEALTHY, "ScaledToZero", ScaledToZero="True", Autoscaled="True")

    stage.apply(manifests.agent(autoscaling={**autoscaling, "minReplicas": 1}))
    stage.sees("Agent", "autoscaled", HEALTHY, "Available", ScaledToZero="False", Autoscaled="True")


def test_a_central_agent_from_its_manifest_to_its_end(
    stage: Stage, redis_server: RedisServer, start_operator: StartOperator
) -> None:
    stage.apply(central_agent())
    recording.check(stage.get("CentralAgent"), "unseen", PROGRESSING)
    operator = start_operator().leading()
    stage.sees("CentralAgent", "queue-missing", PROGRESSING, "DependencyNotFound")

    stage.apply(manifests.secret(redis_server.url), manifests.queue())
    stage.sees("CentralAgent", "without-leader", PROGRESSING, "LeaseExpired", LeaderElected="False")
    assert stage.enabled("CentralAgent") == {"pause", "restart"}
    stage.someone_leads()
    stage.sees("CentralAgent", "ready", HEALTHY, "Available", LeaderElected="True")
    assert stage.enabled("CentralAgent") == {"pause", "restart", "step-down"}

    stage.act("CentralAgent", "step-down")
    wanted = stage.get("CentralAgent")["metadata"]["annotations"]["kubeagents.dev/stepDown"]
    eventually(
        lambda: stage.get("CentralAgent")["status"].get("handled", {}).get("stepDown") == wanted, what="the echo"
    )

    stage.act("CentralAgent", "pause")
    stage.sees("CentralAgent", "suspended", "Current/Suspended", "SpecSuspended", Suspended="True")
    stage.act("CentralAgent", "resume")
    stage.apply(central_agent(image=NOBODY, progressDeadlineSeconds=10))
    stage.sees("CentralAgent", "rolling-out", PROGRESSING, "RollingOut")
    stage.say_of_pods("CentralAgent", {"waiting": {"reason": "ErrImagePull", "message": "not found"}})
    stage.sees("CentralAgent", "image-pull-failed", DEGRADED, "ImagePullFailed", Stalled="True")

    assert operator.stop() == 0
    stage.apply(central_agent(replicas=1))
    recording.check(stage.get("CentralAgent"), "changed-while-the-operator-is-down", PROGRESSING)


def test_a_queue_from_its_manifest_to_its_end(
    stage: Stage, redis_server: RedisServer, start_operator: StartOperator, start_workers: StartWorkers
) -> None:
    stage.apply(manifests.queue())
    recording.check(stage.get("TaskQueue"), "unseen", PROGRESSING)
    operator = start_operator().leading()
    stage.sees("TaskQueue", "secret-missing", DEGRADED, "SecretNotFound")

    stage.apply(manifests.secret("redis://nowhere.invalid:6379"))
    stage.sees("TaskQueue", "redis-unreachable", PROGRESSING, "RedisUnreachable")
    stage.apply(manifests.secret("http://no-redis"))
    stage.sees("TaskQueue", "redis-url-invalid", DEGRADED, "RedisUrlInvalid", Stalled="True")
    stage.apply(manifests.secret(redis_server.url))
    stage.sees("TaskQueue", "ready", HEALTHY, "Available", Drained="True", Suspended="False", Accepting="True")
    assert stage.enabled("TaskQueue") == {"pause", "drain"}

    stage.act("TaskQueue", "pause")
    stage.sees("TaskQueue", "paused", "Current/Suspended", "Paused", Suspended="True")
    assert stage.enabled("TaskQueue") == {"resume", "drain"}
    stage.act("TaskQueue", "resume")
    stage.until("TaskQueue", "resumed", lambda now: now["Suspended"]["status"] == "False")
    stage.act("TaskQueue", "drain")
    stage.sees("TaskQueue", "closed", HEALTHY, "Closed", Accepting="False")
    assert stage.enabled("TaskQueue") == {"pause", "reopen"}
    stage.act("TaskQueue", "reopen")
    stage.until("TaskQueue", "reopened", lambda now: now["Accepting"]["status"] == "True")

    async def fails(task: Task, ctx: Context) -> None:
        raise ValueError("as it should")

    stage.apply(manifests.code(), manifests.agent())
    workers = start_workers("worker", handler=fails)
    tasks = [TaskRequest(payload={}, agent=agent, max_attempts=1) for agent in ("worker", "nobody")]
    workers.do(lambda queue: queue.submit(tasks))
    stage.sees("TaskQueue", "dead-tasks", HEALTHY, "Available", DeadLettering="True", Routable="False")
    stage.apply(manifests.queue(backlog={"maxAgeSeconds": 1}))
    stage.sees("TaskQueue", "backlogged", HEALTHY, "Available", Backlogged="True")
    assert stage.enabled("TaskQueue") == {"pause", "drain", "replay-dead"}
    stage.act("TaskQueue", "replay-dead")
    wanted = stage.get("TaskQueue")["metadata"]["annotations"]["kubeagents.dev/replayDead"]
    eventually(lambda: stage.get("TaskQueue")["status"].get("handled") == {"replayDead": wanted}, what="the echo")

    assert operator.stop() == 0
    stage.apply(manifests.queue(leaseSeconds=9))
    recording.check(stage.get("TaskQueue"), "changed-while-the-operator-is-down", PROGRESSING)


def test_nothing_drifts_from_what_was_applied(
    stage: Stage, redis_server: RedisServer, operator: OperatorProcess, start_workers: StartWorkers
) -> None:
    objects = [
        manifests.secret(redis_server.url),
        manifests.code(),
        manifests.queue(),
        manifests.agent(),
        central_agent(),
    ]
    text = "\n---\n".join(map(json.dumps, objects))
    where = ("-n", stage.namespace)
    stage.cluster.kubectl(*where, "apply", "--server-side", "--field-manager=git", "-f", "-", input=text)
    start_workers("worker")
    stage.until("Agent", "ready", lambda now: now["Ready"]["status"] == "True")
    stage.until("TaskQueue", "ready", lambda now: now["Ready"]["status"] == "True")
    stage.until("CentralAgent", "no leader", lambda now: now["LeaderElected"]["status"] == "False")

    # Exits with 1, and so fails here, if there is a difference.
    diff = stage.cluster.kubectl(*where, "diff", "--server-side", "--field-manager=git", "-f", "-", input=text)
    assert diff == ""
    for kind in PLURALS:
        fields = json.loads(
            stage.cluster.kubectl(*where, "get", PLURALS[kind], NAMES[kind], "-o", "json", "--show-managed-fields")
        )
        owned = {one["manager"]: one for one in fields["metadata"]["managedFields"] if one["manager"] != "git"}
        assert {name: (one["subresource"], list(one["fieldsV1"])) for name, one in owned.items()} == {
            "kubeagents-operator": ("status", ["f:status"])
        }
        assert "finalizers" not in fields["metadata"]
        assert not fields["metadata"].get("annotations")
