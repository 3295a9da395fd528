# SPDX-License-Identifier: Apache-2.0
"""An Agent that serves protocols itself: its tasks only, whichever of its pods is asked."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from agent_runtime.protos.kubeagents.v1 import kubeagents_pb2 as pb
from agent_runtime.protos.kubeagents.v1 import kubeagents_pb2_grpc as rpc
from kubeagents_api.access import AccessSettings
from kubeagents_api.endpoints import Endpoint
from tests.integration.runtime.conftest import System
from tests.integration.runtime.test_access import ACCESS, BILLING, DEVELOPER, KEYS, Client
from tests.support.runtime_process import RuntimeProcess

PROTOCOLS: dict[Endpoint, int] = {"http": 0, "websocket": 0, "mcp": 0, "a2a": 0, "grpc": 0}


@pytest.fixture
def keys_path(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    for name, key in KEYS.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "key").write_text(key)
    return folder


def agent(system: System, keys_path: Path, number: int, *, access: AccessSettings = ACCESS) -> RuntimeProcess:
    changes: dict[str, Any] = {"endpoints": PROTOCOLS, "access": access, "keys_path": str(keys_path)}
    return system.agent(instance=f"worker-{number}", **changes)


def test_a_task_is_submitted_to_one_pod_and_its_result_is_had_from_another(system: System, keys_path: Path) -> None:
    first, second = (agent(system, keys_path, number).ready() for number in (1, 2))
    submitted = Client(first, DEVELOPER).post("/v1/tasks", {"payload": {"n": 1}})
    assert submitted.status_code == 201
    found = Client(second, DEVELOPER).get(f"/v1/queues/main/tasks/{submitted.json()['id']}/result")
    assert (found.status_code, found.json()["agent"], found.json()["state"]) == (200, "worker", "succeeded")


def test_nobody_gets_in_without_a_key_or_with_that_of_another_agent(system: System, keys_path: Path) -> None:
    pod = agent(system, keys_path, 1).ready()
    assert Client(pod, None).get("/v1/queues").status_code == 401
    assert Client(pod, BILLING).get("/v1/queues").status_code == 403
    assert pod.get("/healthz").status_code == 200, "the probes are open"


def test_tasks_of_other_agents_are_not_taken_and_not_shown(system: System, keys_path: Path) -> None:
    pod = agent(system, keys_path, 1).ready()
    client = Client(pod, DEVELOPER)
    refused = client.post("/v1/tasks", {"agent": "billing"})
    assert (refused.status_code, refused.json()["details"]["field"]) == (400, "agent")
    other = system.central().ready().post("/v1/tasks", {"id": "not-yours", "agent": "billing"})
    assert other.status_code == 201
    assert client.get("/v1/queues/main/tasks/not-yours").status_code == 404


def test_the_other_protocols_are_there_too(system: System, keys_path: Path) -> None:
    pod = agent(system, keys_path, 1).ready()
    port = next(line["ports"]["grpc"] for line in pod.lines if line.get("ports"))
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stubs: Any = rpc  # generated code has no types of functions
        tasks = stubs.TasksStub(channel)
        request = pb.SubmitRequest(task=pb.NewTask(payload_json=b"1"))
        submitted = tasks.Submit(request, metadata=[("x-api-key", DEVELOPER)], timeout=30)
    client = Client(pod, DEVELOPER)
    assert client.get(f"/v1/queues/main/tasks/{submitted.id}/result").json()["state"] == "succeeded"
    card = client.get("/.well-known/agent-card.json")
    assert card.status_code == 200


def test_an_agent_without_endpoints_answers_probes_only(system: System) -> None:
    pod = system.agent().ready()
    assert pod.get("/v1/queues").status_code == 404
