# SPDX-License-Identifier: Apache-2.0
"""An operator that is killed with each write it makes gets there all the same: in as many lives as there are writes.

Each life ends by SIGKILL just after the API server has accepted its first write, before it hears of that. So every
place at which a reconcile can be cut is cut, and each time the next life has to go on from what it finds.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from kubeagents_api.labels import RESTARTED_AT, STEP_DOWN
from tests.integration.operator import manifests
from tests.integration.operator.conftest import StartOperator, StartProxy
from tests.support.api_fault_proxy import ApiFaultProxy, Fault, Request
from tests.support.cluster import Cluster, Object
from tests.support.eventually import eventually
from tests.support.operator_process import OperatorProcess
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.timeout(400)

MOST_LIVES = 40
CENTRAL_AGENT: Object = {
    "apiVersion": manifests.API_VERSION,
    "kind": "CentralAgent",
    "metadata": {"name": "front"},
    "spec": {"queueRefs": [{"name": manifests.QUEUE}]},
}
MANAGED: Object = {**manifests.queue("kept"), "spec": {"redis": {"managed": {}}}}


@dataclass
class Lives:
    """An operator that dies of its first write, and is started again."""

    start: Callable[..., OperatorProcess]
    proxy: ApiFaultProxy
    ends: list[Request] = field(default_factory=list)
    """The write of each life that did one."""
    process: OperatorProcess | None = None

    def until(self, done: Callable[[], bool], *, what: str) -> None:
        """Let it live and die until something is true."""
        for _ in range(MOST_LIVES):
            before = len(self.ends)
            self.proxy.fault = self._deadly()
            if self.process is None:
                self.process = self.start(kubeconfig=self.proxy.kubeconfig)
            else:
                self.process.start()
            eventually(lambda: len(self.ends) > before or done(), what=f"a write, or {what}", timeout=120)  # noqa: B023
            self.process.kill()
            if len(self.ends) == before:
                return
        raise AssertionError(
            f"not within {MOST_LIVES} lives: {what}; each ended with {[str(end) for end in self.ends]}"
        )

    def live(self, seen: Callable[[], bool], *, what: str) -> list[Request]:
        """Let it live on, and stop it in order once something is true; what it has written."""
        self.proxy.fault = lambda request: None
        before = len(self.proxy.written())
        assert self.process is not None
        self.process.start().ready().leading()
        process = self.process
        eventually(lambda: process.metric("kubeagents_operator_reconciles_total") > 0 and seen(), what=what)
        assert self.process.stop() == 0
        return self.proxy.written()[before:]

    def _deadly(self) -> Callable[[Request], Fault | None]:
        dying: list[Request] = []

        def fault(request: Request) -> Fault | None:
            if dying:
                return Fault(drop=True)
            if not request.of_work:
                return None
            dying.append(request)

            def kill() -> None:
                assert self.process is not None
                self.process.running.kill()
                self.ends.append(request)

            return Fault(after=kill, lose=True)

        return fault


@pytest.fixture
def lives(start_operator: StartOperator, start_proxy: StartProxy) -> Lives:
    def start(**options: Any) -> OperatorProcess:
        return start_operator(ready=False, **options)

    return Lives(start, start_proxy())


def condition(cluster: Cluster, namespace: str, target: str, type_: str) -> Object:
    """The condition, if it is about the spec as it is now."""
    body = cluster.get(namespace, *target.split("/"))
    conditions: list[Object] = body.get("status", {}).get("conditions", [])
    generation = body["metadata"]["generation"]
    return next((c for c in conditions if c["type"] == type_ and c["observedGeneration"] == generation), {})


def state(cluster: Cluster, namespace: str, target: str, type_: str = "Available") -> bool:
    """The condition holds, for the spec as it is now."""
    return bool(condition(cluster, namespace, target, type_).get("status") == "True")


def generations(cluster: Cluster, namespace: str) -> dict[str, int]:
    """How often each workload was written, and how many versions of it have had pods."""
    found = {
        one["metadata"]["name"]: one["metadata"]["generation"] for one in cluster.objects(namespace, "deployments")
    }
    assert len(cluster.objects(namespace, "replicasets")) == sum(found.values())
    return found


def test_an_agent_is_made_and_changed_by_an_operator_that_dies_with_every_write(
    cluster: Cluster, namespace: str, redis_server: RedisServer, lives: Lives
) -> None:
    cluster.apply(
        namespace,
        manifests.secret(redis_server.url),
        manifests.queue(),
        manifests.code(),
        manifests.agent(replicas=2),
    )
    lives.until(
        lambda: state(cluster, namespace, "agent/worker") and state(cluster, namespace, "taskqueue/work", "Ready"),
        what="the Agent is available and its queue Ready",
    )
    assert len(lives.ends) >= 5, "three children and two statuses at least"
    assert set(lives.proxy.created().values()) == {1}
    assert generations(cluster, namespace) == {"worker-agent": 1}
    pods = {pod["metadata"]["uid"] for pod in cluster.objects(namespace, "pods")}
    assert len(pods) == 2

    since = condition(cluster, namespace, "agent/worker", "Available")["lastTransitionTime"]
    written = lives.live(lambda: True, what="a reconcile")
    assert [one for one in written if not one.target.endswith("/status")] == []
    assert {pod["metadata"]["uid"] for pod in cluster.objects(namespace, "pods")} == pods
    assert condition(cluster, namespace, "agent/worker", "Available")["lastTransitionTime"] == since

    cluster.kubectl("-n", namespace, "annotate", "agent/worker", f"{RESTARTED_AT}=now")
    cluster.kubectl("-n", namespace, "patch", "agent/worker", "--type=merge", '-p={"spec":{"concurrency":3}}')

    def rolled() -> bool:
        handled = cluster.get(namespace, "agent", "worker")["status"].get("handled", {})
        return bool(handled.get("restartedAt") == "now") and state(cluster, namespace, "agent/worker")

    lives.until(rolled, what="the Agent is available and restarted")
    assert generations(cluster, namespace) == {"worker-agent": 2}, "one change, one rollout"


def test_a_central_agent_is_made_by_an_operator_that_dies_with_every_write(
    cluster: Cluster, namespace: str, redis_server: RedisServer, lives: Lives
) -> None:
    cluster.apply(namespace, manifests.secret(redis_server.url), manifests.queue(), CENTRAL_AGENT)
    lives.until(lambda: state(cluster, namespace, "centralagent/front"), what="the CentralAgent is available")

    children = set(lives.proxy.created())
    assert len(children) >= 6
    assert len(lives.ends) > len(children), "and a status at least"
    assert set(lives.proxy.created().values()) == {1}
    assert generations(cluster, namespace) == {"front-central": 1}


def test_a_leader_is_asked_once_to_step_down_by_an_operator_that_dies_with_every_write(
    cluster: Cluster, namespace: str, redis_server: RedisServer, lives: Lives, start_operator: StartOperator
) -> None:
    cluster.apply(namespace, manifests.secret(redis_server.url), manifests.queue(), CENTRAL_AGENT)
    first = start_operator()
    eventually(lambda: state(cluster, namespace, "centralagent/front"), what="the CentralAgent is available")
    first.stop()
    lead(cluster, namespace, term=7)
    cluster.kubectl("-n", namespace, "annotate", "centralagent/front", f"{STEP_DOWN}=please")

    def handled() -> bool:
        status = cluster.get(namespace, "centralagent", "front")["status"]
        return bool(status.get("handled", {}).get("stepDown") == "please")

    def asked() -> int:
        return sum(end.plural == "leases" for end in lives.ends)

    lives.until(lambda: asked() > 0 or handled(), what="the leader is asked")
    lead(cluster, namespace, term=8)  # another pod leads, before the status says that the first was asked
    lives.until(handled, what="the status says so")

    assert asked() == 1
    annotations = cluster.get(namespace, "lease", "front-leader")["metadata"]["annotations"]
    assert annotations[STEP_DOWN] == "7", "the leader of now is not asked"


def lead(cluster: Cluster, namespace: str, *, term: int) -> None:
    """Play a pod that leads."""
    spec = f'{{"holderIdentity":"pod-{term}","leaseTransitions":{term},"leaseDurationSeconds":60}}'
    cluster.kubectl("-n", namespace, "patch", "lease/front-leader", "--type=merge", f'-p={{"spec":{spec}}}')


def test_a_managed_queue_keeps_its_password_when_the_operator_dies_with_every_write(
    cluster: Cluster, namespace: str, lives: Lives
) -> None:
    cluster.apply(namespace, MANAGED)
    passwords = set[str]()

    def made() -> bool:
        passwords.update(one["data"]["password"] for one in cluster.objects(namespace, "secrets"))
        status = cluster.get(namespace, "taskqueue", "kept").get("status", {})
        return bool(status.get("conditions")) and bool(cluster.objects(namespace, "statefulsets"))

    lives.until(made, what="the StatefulSet and a status")
    lives.live(made, what="the same once more")

    assert len(passwords) == 1
    assert set(lives.proxy.created().values()) == {1}
    (server,) = cluster.objects(namespace, "statefulsets")
    assert server["metadata"]["generation"] == 1
