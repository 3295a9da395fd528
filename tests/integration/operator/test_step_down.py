# SPDX-License-Identifier: Apache-2.0
"""The leader of a CentralAgent lets another pod lead, because somebody has annotated the CentralAgent."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from agent_runtime.leader import LeaseElector
from kubeagents_api.labels import STEP_DOWN
from tests.integration.operator import manifests
from tests.support.cluster import Cluster, Object
from tests.support.eventually import eventually_async
from tests.support.operator_process import OperatorProcess
from tests.support.redis_server import RedisServer

FRONT: Object = {
    "apiVersion": manifests.API_VERSION,
    "kind": "CentralAgent",
    "metadata": {"name": "front"},
    "spec": {"queueRefs": [{"name": manifests.QUEUE}], "replicas": 2, "leaseDurationSeconds": 60},
}


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[ApiClient]:
    configuration = Configuration()
    load: Any = config.load_kube_config
    await load(config_file=str(cluster.kubeconfig), client_configuration=configuration, persist_config=False)
    async with ApiClient(configuration) as api:
        yield api


@pytest.mark.usefixtures("operator")
async def test_the_leader_of_a_central_agent_steps_down_once_for_each_new_value(
    cluster: Cluster, namespace: str, redis_server: RedisServer, operator: OperatorProcess, client: ApiClient
) -> None:
    async def get(kind: str, name: str) -> Object:
        return await asyncio.to_thread(cluster.get, namespace, kind, name)

    async def kubectl(*arguments: str) -> str:
        return await asyncio.to_thread(cluster.kubectl, "-n", namespace, *arguments)

    await asyncio.to_thread(cluster.apply, namespace, manifests.secret(redis_server.url), manifests.queue(), FRONT)
    pods = [
        LeaseElector(
            client=client,
            identity=f"front-{name}",
            namespace=namespace,
            name="front-leader",
            duration_seconds=60,
            create=False,
        )
        for name in "ab"
    ]
    first, second = pods
    try:
        await first.start()
        term = await asyncio.wait_for(first.wait_until_leading(), 60)
        await second.start()

        async def shown(leader: str, handled: str | None) -> bool:
            status = (await get("centralagent", "front")).get("status", {})
            return (status.get("leader"), status.get("handled", {}).get("stepDown")) == (leader, handled)

        await eventually_async(lambda: shown("front-a", None), what="the first pod is shown as the leader")
        await kubectl("annotate", "centralagent/front", f"{STEP_DOWN}=monday")

        assert await asyncio.wait_for(second.wait_until_leading(), 60) == term + 1
        await eventually_async(lambda: shown("front-b", "monday"), what="the second one is, and the wish is handled")
        events = await kubectl("get", "events", "--field-selector=reason=LeaderSteppedDown", "-o", "name")
        assert len(events.split()) == 1

        # The same value does not count again, whatever else changes; a new one does.
        await kubectl("annotate", "centralagent/front", "their.example/note=1")
        await kubectl("scale", "centralagent/front", "--replicas=3")
        await eventually_async(lambda: _seen(get), what="the operator has looked again")
        assert second.is_leader
        await kubectl("annotate", "--overwrite", "centralagent/front", f"{STEP_DOWN}=tuesday")
        assert await asyncio.wait_for(first.wait_until_leading(), 60) == term + 2
        await eventually_async(lambda: shown("front-a", "tuesday"), what="the first one leads again")
        assert operator.leads()
    finally:
        for pod in pods:
            await pod.stop()


async def _seen(get: Any) -> bool:
    body = await get("centralagent", "front")
    return bool(body["status"]["observedGeneration"] == body["metadata"]["generation"])
