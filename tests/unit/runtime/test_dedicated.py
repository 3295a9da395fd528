# SPDX-License-Identifier: Apache-2.0
"""The core of an Agent's own endpoints."""

import pytest
from prometheus_client import CollectorRegistry

from agent_runtime.central.dedicated import Dedicated
from agent_runtime.central.served import ServedQueue
from agent_runtime.queue.base import Gate, TaskQueue
from agent_runtime.security import Caller, Credentials, OfOneAgent
from agent_runtime.telemetry.link import Link
from agent_runtime.telemetry.metrics import LinkMetrics
from agent_runtime.testing import memory_queue
from kubeagents_api.agent import AgentSpec
from kubeagents_api.errors import ForbiddenError, InvalidTaskError
from kubeagents_api.runtime_config import AgentConfig, agent_config
from kubeagents_api.task import TaskRequest
from kubeagents_api.task_queue import TaskQueueSpec

QUEUE = "work"


def config() -> AgentConfig:
    spec = AgentSpec.model_validate({"queueRef": {"name": QUEUE}, "handler": "billing:handle"})
    return agent_config(name="billing", namespace="tests", spec=spec, queue=TaskQueueSpec(), code_path=None)


def core_on(queue: TaskQueue) -> Dedicated:
    link = Link(QUEUE, metrics=LinkMetrics(CollectorRegistry()))
    return Dedicated(config(), instance="pod-1", queue=ServedQueue(config().queue, queue, link))


class Anybody:
    """An authenticator that knows one caller."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    async def authenticate(self, credentials: Credentials) -> Caller:
        return self.caller


async def test_what_is_submitted_here_is_for_this_agent() -> None:
    async with memory_queue(name=QUEUE) as queue:
        core = core_on(queue)
        (task,) = await core.submit(QUEUE, core.named(QUEUE, [TaskRequest(payload=1, idempotency_key="once")]))
        assert (await core.task(QUEUE, task)).agent == "billing"


@pytest.mark.parametrize("field", ["agent", "capability", "instance"])
async def test_what_is_for_others_is_refused_with_where_to_submit_it(field: str) -> None:
    async with memory_queue(name=QUEUE) as queue:
        core = core_on(queue)
        with pytest.raises(InvalidTaskError, match="endpoint of Agent billing") as caught:
            await core.submit(QUEUE, [TaskRequest(**{field: "other"})])
        assert caught.value.field == field
        assert (await core.stats(QUEUE)).queued == 0


async def test_the_queue_of_several_agents_is_not_steered_from_here() -> None:
    async with memory_queue(name=QUEUE) as queue:
        core = core_on(queue)
        with pytest.raises(ForbiddenError, match="ask a CentralAgent"):
            await core.set_gate(QUEUE, Gate.CLAIMS, shut=True, by="me")
        with pytest.raises(ForbiddenError, match="ask a CentralAgent"):
            await core.set_cordon(QUEUE, ["pod-1"], cordoned=True, by="me")


async def test_callers_have_to_do_with_this_agent_only() -> None:
    admin = Caller("root", "admin")
    let_in = await OfOneAgent(Anybody(admin), "billing").authenticate(Credentials("http"))
    assert let_in.agents == frozenset({"billing"})
    other = Caller("maria", "developer", agents=frozenset({"shipping"}))
    with pytest.raises(ForbiddenError, match="maria may not use Agent 'billing'"):
        await OfOneAgent(Anybody(other), "billing").authenticate(Credentials("http"))
