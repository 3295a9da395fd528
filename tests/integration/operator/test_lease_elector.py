# SPDX-License-Identifier: Apache-2.0
"""The elector on a real API server, with clocks that tests can stop."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from agent_runtime.leader import LeaseElector
from tests.support.cluster import Cluster, Object
from tests.support.eventually import eventually_async

NAME = "duty"


class Clock:
    """Monotonic time that can be moved on by hand."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[ApiClient]:
    configuration = Configuration()
    load: Any = config.load_kube_config
    await load(config_file=str(cluster.kubeconfig), client_configuration=configuration, persist_config=False)
    async with ApiClient(configuration) as api:
        yield api


Start = Callable[..., Awaitable[LeaseElector]]


@pytest.fixture
async def start(client: ApiClient, namespace: str) -> AsyncIterator[Start]:
    """Starts candidates and stops those that are left."""
    started: list[LeaseElector] = []

    async def make(
        identity: str, *, duration: float = 3, create: bool = True, clock: Clock | None = None
    ) -> LeaseElector:
        elector = LeaseElector(
            client=client,
            identity=identity,
            namespace=namespace,
            name=NAME,
            duration_seconds=duration,
            create=create,
            clock=clock,
        )
        await elector.start()
        started.append(elector)
        return elector

    yield make
    for elector in started:
        await elector.stop()


def lease(cluster: Cluster, namespace: str) -> Object:
    found: Object = cluster.get(namespace, "lease", NAME)["spec"]
    return found


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    async with asyncio.timeout(seconds):
        yield


async def test_of_several_candidates_one_leads(cluster: Cluster, namespace: str, start: Start) -> None:
    electors = [await start(f"pod-{number}") for number in range(4)]

    async with within(20):
        await asyncio.wait(
            [asyncio.ensure_future(one.wait_until_leading()) for one in electors], return_when=asyncio.FIRST_COMPLETED
        )

    leaders = [one for one in electors if one.is_leader]
    assert len(leaders) == 1
    spec = lease(cluster, namespace)
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == (leaders[0].identity, leaders[0].fencing)


async def test_an_orderly_stop_hands_over_before_the_lease_runs_out(
    cluster: Cluster, namespace: str, start: Start
) -> None:
    first = await start("first", duration=300)
    async with within(20):
        assert await first.wait_until_leading() == 1
        second = await start("second", duration=300)

        await first.stop()

        assert not first.is_leader
        assert await second.wait_until_leading() == 2
        await first.wait_until_lost()


async def test_a_frozen_leader_knows_that_it_leads_no_more_before_it_does_anything(
    cluster: Cluster, namespace: str, start: Start
) -> None:
    clock = Clock()
    elector = await start("frozen", duration=60, clock=clock)
    async with within(20):
        await elector.wait_until_leading()

        clock.ahead += 41  # two thirds of the duration: nothing has run meanwhile

        assert not elector.is_leader


async def test_a_rival_waits_for_the_whole_duration_since_it_first_looked(
    cluster: Cluster, namespace: str, start: Start
) -> None:
    dead = {"holderIdentity": "dead", "leaseDurationSeconds": 60, "leaseTransitions": 7}
    cluster.apply(
        namespace,
        {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NAME}, "spec": dead},
    )
    clock = Clock()
    elector = await start("rival", clock=clock)
    async with within(20):

        async def looked() -> bool:
            return elector.holder == "dead"

        await eventually_async(looked, what="the rival has looked")
        clock.ahead += 55
        assert lease(cluster, namespace)["holderIdentity"] == "dead"

        clock.ahead += 10
        assert await elector.wait_until_leading() == 8


async def test_a_term_has_a_number_of_its_own_also_for_a_process_of_the_same_name(
    cluster: Cluster, namespace: str, start: Start
) -> None:
    old = {"holderIdentity": "same", "leaseDurationSeconds": 60, "leaseTransitions": 7}
    cluster.apply(
        namespace,
        {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NAME}, "spec": old},
    )
    elector = await start("same")
    async with within(20):
        assert await elector.wait_until_leading() == 8


async def test_a_leader_whose_lease_was_taken_stops_at_its_next_renewal(
    cluster: Cluster, namespace: str, start: Start
) -> None:
    elector = await start("robbed", duration=30)
    async with within(20):
        await elector.wait_until_leading()
        stolen = {"spec": {"holderIdentity": "thief", "leaseTransitions": 9}}
        cluster.kubectl("-n", namespace, "patch", "lease", NAME, "--type=merge", "-p", json.dumps(stolen))

        await elector.wait_until_lost()

        assert not elector.is_leader
        assert elector.holder == "thief"


async def test_a_touch_of_the_object_costs_nobody_the_term(cluster: Cluster, namespace: str, start: Start) -> None:
    elector = await start("calm", duration=6)
    async with within(30):
        term = await elector.wait_until_leading()
        cluster.kubectl("-n", namespace, "label", "lease", NAME, "touched=1")
        before = lease(cluster, namespace)["renewTime"]

        async def renewed() -> bool:
            return bool(lease(cluster, namespace)["renewTime"] > before)

        await eventually_async(renewed, what="the next renewal", timeout=10)
        assert elector.is_leader
        assert elector.fencing == term


async def test_without_create_a_candidate_waits_for_the_lease(
    cluster: Cluster, namespace: str, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    elector = await start("patient", create=False)
    async with within(30):

        async def looked() -> bool:
            return "does not exist yet" in caplog.text

        await eventually_async(looked, what="the candidate has looked")
        assert not elector.is_leader
        cluster.apply(namespace, {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NAME}})

        assert await elector.wait_until_leading() == 1


def annotate(cluster: Cluster, namespace: str, **annotations: str) -> None:
    cluster.kubectl(
        "-n",
        namespace,
        "annotate",
        "--overwrite",
        "lease",
        NAME,
        *(f"kubeagents.dev/{k}={v}" for k, v in annotations.items()),
    )


async def test_a_leader_that_is_asked_to_step_down_lets_another_lead(
    cluster: Cluster, namespace: str, start: Start
) -> None:
    first = await start("first", duration=6)
    async with within(30):
        term = await first.wait_until_leading()
        second = await start("second", duration=6)
        annotate(cluster, namespace, stepDown=str(term))

        await first.wait_until_lost()
        assert await second.wait_until_leading() == term + 1

        async def looked() -> bool:
            return first.holder == "second"

        await eventually_async(looked, what="the first one has looked again")
        assert not first.is_leader
    found = cluster.get(namespace, "lease", NAME)
    assert "kubeagents.dev/steppedDown" not in found["metadata"]["annotations"], "that was the state between the two"


async def test_the_number_of_a_term_that_is_over_asks_nobody_to_step_down(
    cluster: Cluster, namespace: str, start: Start
) -> None:
    elector = await start("calm", duration=6)
    async with within(30):
        term = await elector.wait_until_leading()
        annotate(cluster, namespace, stepDown=str(term - 1))
        before = lease(cluster, namespace)["renewTime"]

        async def renewed() -> bool:
            return bool(lease(cluster, namespace)["renewTime"] > before)

        await eventually_async(renewed, what="the next renewal", timeout=10)
        assert (elector.is_leader, elector.fencing) == (True, term)


async def test_who_has_stepped_down_leads_again_if_nobody_else_does(
    cluster: Cluster, namespace: str, start: Start
) -> None:
    elector = await start("only", duration=3)
    async with within(30):
        term = await elector.wait_until_leading()
        annotate(cluster, namespace, stepDown=str(term))
        await elector.wait_until_lost()
        free = lease(cluster, namespace)
        assert free["holderIdentity"] == ""

        assert await elector.wait_until_leading() == term + 1
    taken = lease(cluster, namespace)
    pause = datetime.fromisoformat(taken["acquireTime"]) - datetime.fromisoformat(free["renewTime"])
    assert pause.total_seconds() >= 3, "for one duration, others could have taken it"


@pytest.mark.parametrize(
    ("spec", "annotation"),
    [
        ({"holderIdentity": "", "leaseTransitions": 4}, {"kubeagents.dev/steppedDown": "reborn"}),
        ({"holderIdentity": "reborn", "leaseTransitions": 4}, {"kubeagents.dev/stepDown": "4"}),
    ],
    ids=["gave it up", "died before it could"],
)
async def test_a_process_that_is_replaced_after_it_was_asked_to_step_down_lets_others_go_first(
    cluster: Cluster, namespace: str, start: Start, spec: Object, annotation: dict[str, str]
) -> None:
    metadata = {"name": NAME, "annotations": annotation}
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
    cluster.apply(namespace, {**body, "spec": {**spec, "leaseDurationSeconds": 1}})
    clock = Clock()
    reborn = await start("reborn", duration=60, clock=clock)
    async with within(30):

        async def looked() -> bool:
            return reborn.holder is not None or lease(cluster, namespace)["holderIdentity"] == ""

        await eventually_async(looked, what="it has looked")
        other = await start("other", duration=60)
        assert await other.wait_until_leading() == 5
        assert not reborn.is_leader


@pytest.mark.parametrize("renewed", ["1999-12-31T23:59:59.000000Z", "2099-12-31T23:59:59.000000Z"])
async def test_the_clocks_of_others_do_not_matter(cluster: Cluster, namespace: str, start: Start, renewed: str) -> None:
    """A holder whose clock is wrong by decades keeps its Lease while it renews, and loses it when it does not."""
    skewed = {"holderIdentity": "skewed", "leaseDurationSeconds": 60, "leaseTransitions": 1, "renewTime": renewed}
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NAME}, "spec": skewed}
    cluster.apply(namespace, body)
    clock = Clock()
    rival = await start("rival", clock=clock)
    async with within(30):

        async def looked() -> bool:
            return rival.holder == "skewed"

        await eventually_async(looked, what="the rival has looked")
        assert not rival.is_leader
        clock.ahead += 65
        assert await rival.wait_until_leading() == 2
