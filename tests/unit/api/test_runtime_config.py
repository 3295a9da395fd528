# SPDX-License-Identifier: Apache-2.0
"""What the operator tells a process is what the process reads."""

from pathlib import Path

import pytest

from kubeagents_api import runtime_config
from kubeagents_api.access import key_secrets
from kubeagents_api.agent import AgentSpec
from kubeagents_api.central_agent import CentralAgentSpec
from kubeagents_api.errors import RuntimeConfigError
from kubeagents_api.task_queue import TaskQueueSpec

AGENT = AgentSpec.model_validate({"queueRef": {"name": "tasks"}, "handler": "echo:handle", "concurrency": 4})
QUEUE = TaskQueueSpec.model_validate({"leaseSeconds": 7, "retry": {"maxAttempts": 5}})


def agent() -> runtime_config.AgentConfig:
    return runtime_config.agent_config(name="echo", namespace="n", spec=AGENT, queue=QUEUE, code_path="/agent/code")


def test_an_agents_configuration_survives_the_way_through_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(runtime_config.render(agent()))
    assert runtime_config.load(path) == agent()


def test_a_central_agents_configuration_has_every_queue_in_order(tmp_path: Path) -> None:
    spec = CentralAgentSpec.model_validate({"queueRefs": [{"name": "b"}, {"name": "a"}], "leaseDurationSeconds": 9})
    config = runtime_config.central_agent_config(
        name="front",
        namespace="n",
        spec=spec,
        queues={"a": QUEUE, "b": TaskQueueSpec()},
        leader="lease",
        keys_path="/keys",
    )
    assert [(q.name, q.url_env) for q in config.queues] == [
        ("b", "KUBEAGENTS_QUEUE_0_URL"),
        ("a", "KUBEAGENTS_QUEUE_1_URL"),
    ]
    assert config.leader.lease_name == "front-leader"
    assert config.leader.lease_duration_seconds == 9
    path = tmp_path / "config.json"
    path.write_text(runtime_config.render(config))
    assert runtime_config.load(path) == config


@pytest.mark.parametrize("access", [None, {"principals": [{"name": "r", "role": "admin", "keysFrom": {"name": "s"}}]}])
def test_where_keys_can_be_read_somebody_is_always_asked_for_one(access: object) -> None:
    spec = CentralAgentSpec.model_validate({"queueRefs": [{"name": "a"}], "access": access})

    def config(keys_path: str | None) -> runtime_config.CentralAgentConfig:
        return runtime_config.central_agent_config(
            name="front", namespace="n", spec=spec, queues={"a": QUEUE}, leader="lease", keys_path=keys_path
        )

    closed = config("/keys")
    assert closed.access is not None
    assert closed.keys_path == "/keys"
    (principal,) = closed.access.principals
    assert principal.role == "admin"
    wanted = {"admin": "front-central-admin"} if access is None else {"r": "s"}
    assert key_secrets(closed.access) == wanted
    assert (config(None).access, config(None).keys_path) == (None, None)


def test_policies_of_the_queue_reach_the_agent() -> None:
    assert agent().queue.lease_seconds == 7
    assert agent().queue.retry.max_attempts == 5
    assert agent().concurrency == 4


def test_no_code_path_without_a_code_source() -> None:
    assert agent().code_path is None


def test_equal_configurations_render_to_equal_text() -> None:
    assert runtime_config.render(agent()) == runtime_config.render(agent())


def test_a_configuration_of_another_version_is_refused_with_the_field_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(runtime_config.render(agent()).replace('"concurrency": 4', '"concurrency": "many"'))
    with pytest.raises(RuntimeConfigError, match=r"concurrency.*same version as the operator"):
        runtime_config.load(path)


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeConfigError, match="nowhere"):
        runtime_config.load(tmp_path / "nowhere.json")
