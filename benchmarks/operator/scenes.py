# SPDX-License-Identifier: Apache-2.0
"""The scenes, one after the other; see the package's docstring for what each measures."""

import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.operator import workload
from benchmarks.operator.api import Api, each
from benchmarks.operator.audit import Write, tally
from benchmarks.operator.process import Contender, total
from benchmarks.operator.stage import CLIENT, CONTENDER, Stage, apply_all, set_up, until

Figures = dict[str, Any]

CHILDREN = ("serviceaccounts", "services", "deployments")
CHANGED = 100
LOAD_CHANGES = 200
LOAD_CHANGES_PER_SECOND = 5
LOAD_CREATED_PER_SECOND = 1
"""Together some 100 writes per second of the control plane: a third of what it takes on two cores."""
QUIET_SECONDS = 20.0
"""Longer than the time between two samples of a queue: nobody has anything left to say then."""


async def direct(agents: int) -> Figures:
    """No operator: a client creates the Agents and their children."""
    async with set_up(agents) as stage:
        stage.audit.read()
        begun = time.time()

        async def create(number: int) -> None:
            made = await stage.api.create(workload.agents_path(workload.namespace(number)), workload.agent(number))
            for path, body in workload.children(number, made["metadata"]["uid"]):
                await stage.api.create(path, body)

        await each(range(agents), create)
        return _children(stage.audit.read(), begun, agents, user=CLIENT, kinds=CHILDREN)


async def plain_kopf(agents: int) -> Figures:
    """The baseline."""
    kinds = ("services", "deployments")
    async with set_up(agents) as stage:
        with stage.plain_kopf() as operator:
            await until("kopf is up", lambda: operator.answers("/healthz"), seconds=60)
            await asyncio.sleep(3.0)  # its watches are open a moment later; nothing tells
            idle = operator.cpu_seconds()
            begun = time.time()
            await apply_all(stage.api, agents)
            writes = await _all_children(stage, agents, kinds)
            await asyncio.sleep(5.0)  # it still has to note in each Agent what it has done
            writes += stage.audit.read()
            return {
                **_children(writes, begun, agents, user=CONTENDER, kinds=kinds),
                **_cost(operator, idle, agents),
                "writes": tally(writes, CONTENDER),
            }


async def kubeagents(agents: int) -> Figures:
    """Ours, through all scenes."""
    async with set_up(agents) as stage:
        with stage.kubeagents() as operator:
            await until("the operator leads", lambda: _leads(operator), seconds=60)
            await asyncio.sleep(3.0)
            stage.audit.read()
            found = await _creation(stage, operator, agents)
            found["resync"] = await _resync(stage, operator, agents)
            found["change"] = await _change(stage, agents)
            found["load"] = await _load(stage, agents)
            found["restart"] = await _restart(stage, operator)
            found["api_server_restart"] = await _api_server_restart(stage, operator)
            return found


async def _creation(stage: Stage, operator: Contender, agents: int) -> Figures:
    idle, before = operator.cpu_seconds(), operator.metrics()
    watching = asyncio.create_task(_all_ready(stage.api, agents))
    begun = time.time()
    await apply_all(stage.api, agents)
    applied = time.time() - begun
    writes = await _all_children(stage, agents, CHILDREN)
    ready = await asyncio.wait_for(watching, 120 + agents * 0.3) - begun
    cost = _cost(operator, idle, agents)
    reconciles = total(operator.metrics(), RECONCILES) - total(before, RECONCILES)
    writes += await _quiet(stage)
    by_kind = tally(writes, CONTENDER)
    said = total(operator.metrics(), WRITES) - total(before, WRITES)
    return {
        "applied_seconds": round(applied, 2),
        **_children(writes, begun, agents, user=CONTENDER, kinds=CHILDREN),
        "ready_seconds": round(ready, 2),
        **cost,
        "reconciles": int(reconciles),
        "reconciles_per_s": round(reconciles / ready, 1),
        "writes": by_kind,
        "writes_by_own_metrics": int(said),
        "writes_per_agent": round(_of_agents(by_kind) / agents, 3),
        "events_per_agent": round(sum(n for kind, n in by_kind.items() if "events" in kind) / agents, 3),
        "status_writes_per_agent": round(by_kind.get("patch agents/status", 0) / agents, 3),
    }


RECONCILES = "kubeagents_operator_reconciles_total"
WRITES = "kubeagents_operator_api_writes_total"


def _of_agents(by_kind: dict[str, int]) -> int:
    """Writes of Agents and their children; the status of a TaskQueue is no Agent's, and Events are for people."""
    resources = (*CHILDREN, "agents/status")
    return sum(count for kind, count in by_kind.items() if kind.split()[1] in resources)


async def _resync(stage: Stage, operator: Contender, agents: int) -> Figures:
    before = operator.cpu_seconds()

    async def touch(number: int) -> None:
        await stage.api.patch(workload.path(number), {"metadata": {"annotations": {"bench/touched": "1"}}})

    await each(range(agents), touch)
    writes = tally(await _quiet(stage), CONTENDER)
    return {"writes": writes, "cpu_seconds": round(operator.cpu_seconds() - before, 2)}


async def _change(stage: Stage, agents: int) -> Figures:
    chosen = random.sample(range(agents), min(CHANGED, agents))
    await each(chosen, lambda number: _set_concurrency(stage.api, number, 17), in_flight=5)
    writes = tally(await _quiet(stage), CONTENDER)
    return {"writes": writes, "writes_per_agent": round(_of_agents(writes) / len(chosen), 2)}


async def _load(stage: Stage, agents: int) -> Figures:
    """Changes at a steady rate, which does not wait for the answer to earlier ones."""
    sent: dict[str, float] = {}

    async def change(number: int) -> None:
        sent[workload.name(number)] = time.time()
        await _set_concurrency(stage.api, number, 18)

    async def create(number: int) -> None:
        made = {**workload.agent(number), "metadata": {"name": workload.name(number)}}
        path = workload.agents_path(workload.namespace(agents))
        await stage.api.create(path, made)
        await asyncio.sleep(3.0)
        await stage.api.delete(f"{path}/{workload.name(number)}")

    chosen = random.sample(range(agents), min(LOAD_CHANGES, agents))
    async with asyncio.TaskGroup() as group:
        group.create_task(_paced(group, chosen, change, LOAD_CHANGES_PER_SECOND))
        new = range(agents + 1000, agents + 1000 + int(len(chosen) / LOAD_CHANGES_PER_SECOND * LOAD_CREATED_PER_SECOND))
        group.create_task(_paced(group, new, create, LOAD_CREATED_PER_SECOND))
    latencies = []
    for write in await _quiet(stage):
        if write.user == CONTENDER and write.verb == "patch" and write.resource == "deployments" and write.accepted:
            begun = sent.pop(write.name.removesuffix("-agent"), None)
            if begun is not None:
                latencies.append(write.at - begun)
    return {"changes": len(chosen), "not_carried_out": len(sent), **_percentiles(latencies)}


async def _paced(group: asyncio.TaskGroup, numbers: Sequence[int], work: Any, per_second: float) -> None:
    begun = time.monotonic()
    for turn, number in enumerate(numbers):
        await asyncio.sleep(max(0.0, begun + turn / per_second - time.monotonic()))
        group.create_task(work(number))


async def _restart(stage: Stage, operator: Contender) -> Figures:
    operator.stop()
    stage.audit.read()
    begun = time.monotonic()
    operator.start()
    await until("the operator has looked at everything", lambda: _steady(operator), seconds=120, every=0.25)
    steady = time.monotonic() - begun
    cpu = operator.cpu_seconds()
    writes = tally(await _quiet(stage), CONTENDER)
    return {
        "steady_seconds": round(steady, 2),
        "writes": writes,
        "cpu_seconds": round(cpu, 2),
        "peak_megabytes": round(operator.peak_megabytes(), 1),
    }


async def _api_server_restart(stage: Stage, operator: Contender) -> Figures:
    stage.plane.stop_api_server()
    await asyncio.sleep(2.0)
    stage.plane.start_api_server()
    begun = time.time()
    number = 0
    await _set_concurrency(stage.api, number, 19)
    deployment = f"{workload.name(number)}-agent"
    seen: list[Write] = []

    def carried_out() -> bool:
        seen.extend(stage.audit.read())
        return any(one.user == CONTENDER and one.verb == "patch" and one.name == deployment for one in seen)

    await until("a change after the API server is back", carried_out, seconds=120)
    recovered = next(one.at for one in seen if one.user == CONTENDER and one.name == deployment) - begun
    others = [one for one in (*seen, *await _quiet(stage)) if not one.name.startswith(workload.name(number))]
    return {
        "recovery_seconds": round(recovered, 2),
        "restarted": not _leads(operator),
        "writes_elsewhere": tally(others, CONTENDER),
    }


async def _set_concurrency(api: Api, number: int, value: int) -> None:
    await api.patch(workload.path(number), {"spec": {"concurrency": value}})


async def _all_children(stage: Stage, agents: int, kinds: Sequence[str]) -> list[Write]:
    """Wait until as many have been created as there should be; everything that was written until then."""
    writes: list[Write] = []

    def complete() -> bool:
        writes.extend(stage.audit.read())
        created = [one.resource for one in writes if _creates(one, CONTENDER, kinds)]
        return all(created.count(kind) >= agents for kind in kinds)

    await until("all children", complete, seconds=120 + agents * 0.3, every=0.5)
    return writes


async def _quiet(stage: Stage) -> list[Write]:
    """Wait until the contender has written nothing for a while; everything that was written meanwhile."""
    found: list[Write] = []
    last = time.monotonic()
    while time.monotonic() < last + QUIET_SECONDS:
        await asyncio.sleep(1.0)
        new = stage.audit.read()
        found += new
        if any(one.user == CONTENDER for one in new):
            last = time.monotonic()
    return found


async def _all_ready(api: Api, agents: int) -> float:
    """When the last Agent has said that it is Ready."""
    ready: set[str] = set()
    async for event in api.watch(f"/apis/{workload.API_VERSION}/agents"):
        body = event["object"]
        conditions = body.get("status", {}).get("conditions", ())
        if any(one["type"] == "Ready" and one["status"] == "True" for one in conditions):
            ready.add(body["metadata"]["name"])
        if len(ready) >= agents:
            break
    return time.time()


def _creates(write: Write, user: str, kinds: Sequence[str]) -> bool:
    return write.user == user and write.accepted and write.verb == "create" and write.resource in kinds


def _children(writes: Sequence[Write], begun: float, agents: int, *, user: str, kinds: Sequence[str]) -> Figures:
    created: dict[tuple[str, str], float] = {}
    for one in writes:
        if _creates(one, user, kinds):
            created.setdefault((one.resource, one.name), one.at)
    assert len(created) == agents * len(kinds), f"{len(created)} children of {agents} Agents"
    seconds = max(created.values()) - begun
    return {
        "children": len(created),
        "children_seconds": round(seconds, 2),
        "agents_per_s": round(agents / seconds, 1),
    }


def _cost(operator: Contender, idle: float, agents: int) -> Figures:
    seconds = operator.cpu_seconds() - idle
    return {
        "cpu_seconds": round(seconds, 2),
        "cpu_seconds_per_1000": round(seconds / agents * 1000, 2),
        "peak_megabytes": round(operator.peak_megabytes(), 1),
    }


def _percentiles(values: list[float]) -> Figures:
    values.sort()
    return {
        "p50_seconds": round(statistics.median(values), 3),
        "p99_seconds": round(values[min(len(values) - 1, int(len(values) * 0.99))], 3),
        "worst_seconds": round(values[-1], 3),
    }


def _leads(operator: Contender) -> bool:
    operator.answers("/healthz")
    return operator.metrics().get("kubeagents_operator_is_leader") == 1


def _steady(operator: Contender) -> bool:
    operator.answers("/healthz")
    figures = operator.metrics()
    known = figures.get("kubeagents_operator_custom_resources", 0)
    return (
        figures.get("kubeagents_operator_is_leader") == 1
        and figures.get("kubeagents_operator_workqueue_length") == 0
        and total(figures, RECONCILES) >= known > 0
    )
