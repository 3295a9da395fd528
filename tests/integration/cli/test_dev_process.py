# SPDX-License-Identifier: Apache-2.0
"""A process of `kubeagents dev` by itself."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from agent_runtime.cli.dev import process as dev_process
from agent_runtime.cli.dev.plan import HOST, Ports, ProcessPlan
from agent_runtime.cli.dev.process import Supervised, Surroundings, free_port
from kubeagents_api.agent import AgentSpec
from kubeagents_api.runtime_config import AgentConfig, agent_config
from kubeagents_api.task_queue import TaskQueueSpec
from tests.support.eventually import eventually_async

CODE = "async def handle(task, ctx):\n    return task.payload\n"


def plan() -> ProcessPlan:
    spec = AgentSpec.model_validate(
        {"queueRef": {"name": "work"}, "handler": "echo:handle", "code": {"configMapRef": {"name": "code"}}}
    )

    def config(ports: Ports, code_path: str | None) -> AgentConfig:
        return agent_config(
            name="echo",
            namespace="default",
            spec=spec,
            queue=TaskQueueSpec(),
            code_path=code_path,
            host=HOST,
            port=ports.http,
        )

    return ProcessPlan(
        name="echo-0",
        kind="Agent",
        owner="echo",
        namespace="default",
        queues=(("default", "work"),),
        env={},
        drain_seconds=0,
        does="echo:handle",
        code=None,
        config=config,
    )


async def test_a_process_whose_port_was_taken_meanwhile_is_started_on_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "echo.py").write_text(CODE)
    said: list[str] = []
    around = Surroundings(
        folder=tmp_path,
        log_folder=tmp_path,
        group=0,
        environment=dict(os.environ),
        suffix="x",
        warn=said.append,
        show=lambda _, line: said.append(line),
    )
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        chosen = iter([taken.getsockname()[1], free_port()])
        monkeypatch.setattr(dev_process, "free_port", lambda: next(chosen))
        env = {"KUBEAGENTS_QUEUE_0_URL": "redis://127.0.0.1:1/0"}
        process = Supervised(plan(), around, ports=None, env=env, code=tmp_path)
        running = asyncio.create_task(process.run())

        async def listens() -> bool:
            assert any("takes tasks from queue work" in line for line in said), said
            return True

        try:
            await eventually_async(listens, what="it listens on the other port", timeout=90)
        finally:
            process.kill()
            await running
