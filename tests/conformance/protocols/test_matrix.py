# SPDX-License-Identifier: Apache-2.0
"""Every protocol by every feature. What a protocol does not have is not collected; its driver says why."""

import asyncio
import contextlib
import json
import re
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime, timedelta

import pytest

from tests.conformance.protocols.conftest import DEVELOPER, VIEWER, Place, Stage
from tests.conformance.protocols.driver import BrokenError, Client, Driver, Errand, Outcome, RefusedError, Said
from tests.conformance.protocols.drivers import DRIVERS
from tests.conformance.protocols.features import Feature
from tests.support.eventually import eventually_async
from tests.support.runtime_process import RuntimeProcess
from tests.support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.xdist_group("protocols")

LIMIT_BYTES = 1_048_576
CODE = re.compile(r"[A-Z][A-Z0-9_]+")
PARTS = [("progress", 0.25), ("partial", 1), ("partial", 2), ("progress", 1.0)]
"""What a speaking task says."""


def over_all_that_have(feature: Feature) -> pytest.MarkDecorator:
    """One test per protocol that offers the feature."""
    fitting = [driver for driver in DRIVERS if feature in driver.offers]
    return pytest.mark.parametrize("driver", fitting, ids=[driver.name for driver in fitting])


def told(said: Said) -> tuple[str, object]:
    """An item without what differs between wires."""
    match said.data:
        case {"fraction": fraction}:
            return said.kind, fraction
        case {"part": part}:
            return said.kind, part
    return said.kind, said.data


async def take(items: AsyncIterator[Said], count: int) -> list[Said]:
    """The first ones."""
    return [await anext(items) for _ in range(count)]


async def rest(items: AsyncIterator[Said]) -> list[Said]:
    """All others."""
    return [item async for item in items]


@over_all_that_have(Feature.ROUND_TRIP)
async def test_what_the_handler_returns_comes_back(driver: Driver, stage: Stage) -> None:
    value = {"text": "Grüße, 世界 🌍\n\x00", "numbers": [0, -1.5, 2**53 - 1], "nested": {"none": None, "yes": True}}
    async with driver.connect(driver.port(stage.hub)) as client:
        outcome = await client.run(Errand(payload={"value": value}))
        again = await client.result(outcome.id)
    assert (outcome.state, outcome.result) == ("succeeded", value)
    assert again == outcome
    assert (await stage.task(outcome.id))["payload"] == {"value": value}


@over_all_that_have(Feature.BATCH)
async def test_a_batch_is_queued_whole_or_not_at_all(driver: Driver, stage: Stage) -> None:
    mark = uuid.uuid4().hex
    async with driver.connect(driver.port(stage.hub)) as client:
        ids = await client.submit_batch([Errand(payload={"value": number}) for number in range(20)])
        outcomes = [await client.result(task) for task in ids]
        with pytest.raises(RefusedError, match="DUPLICATE_TASK"):
            await client.submit_batch([Errand(id=f"new-{mark}"), Errand(id=ids[0])])
    assert [outcome.result for outcome in outcomes] == list(range(20))
    with pytest.raises(AssertionError, match="TASK_NOT_FOUND"):
        await stage.task(f"new-{mark}")


@over_all_that_have(Feature.STREAM)
async def test_what_a_task_says_is_heard_while_it_runs(driver: Driver, stage: Stage, place: Place) -> None:
    async with driver.connect(driver.port(stage.hub)) as client:
        items = client.listen(Errand(payload=place.errand("speak")))
        (first,) = await take(items, 1)
        begun = await take(items, 2)
        assert (await stage.task(first.data))["state"] == "running"
        place.open()
        ended = await rest(items)
    assert [told(item) for item in begun + ended] == [*PARTS, ("end", "succeeded")]


@over_all_that_have(Feature.CANCEL)
async def test_a_running_task_is_cancelled(driver: Driver, stage: Stage, place: Place) -> None:
    async with driver.connect(driver.port(stage.hub)) as client:
        task = await client.submit(Errand(payload=place.errand("wait")))
        await place.started()
        await client.cancel(task, reason="changed my mind")
        outcome = await client.result(task)
    assert outcome.state == "cancelled"
    assert await place.stopped() == "cancelled"


@over_all_that_have(Feature.DEADLINE)
async def test_a_task_that_does_not_end_in_time_expires(driver: Driver, stage: Stage, place: Place) -> None:
    async with driver.connect(driver.port(stage.hub)) as client:
        deadline = datetime.now(UTC) + timedelta(seconds=2)
        task = await client.submit(Errand(payload=place.errand("wait"), deadline=deadline))
        outcome = await client.result(task)
    assert outcome.state == "expired"
    assert (await stage.task(task))["failures"][-1]["code"] == "DEADLINE_EXCEEDED"


@over_all_that_have(Feature.PRIORITY)
async def test_a_higher_priority_goes_first(driver: Driver, stage: Stage, place: Place) -> None:
    async with driver.connect(driver.port(stage.hub)) as client:
        busy = await client.submit(Errand(payload=place.errand("wait"), agent="clerk"))
        await place.started()
        ids = [
            await client.submit(Errand(payload={"value": priority}, agent="clerk", priority=priority))
            for priority in (1, 5, 9)
        ]
        place.open()
        for task in (busy, *ids):
            assert (await client.result(task)).state == "succeeded"
    begun = [(await stage.task(task))["startedAt"] for task in ids]
    assert sorted(begun) == begun[::-1]


@over_all_that_have(Feature.IDEMPOTENCY)
async def test_a_repeated_submission_is_queued_once(driver: Driver, stage: Stage) -> None:
    key = uuid.uuid4().hex
    async with driver.connect(driver.port(stage.hub)) as client:
        first = await client.submit(Errand(payload={"value": "first"}, idempotency_key=key))
        second = await client.submit(Errand(payload={"value": "second"}, idempotency_key=key))
        assert second == first
        assert (await client.result(first)).result == "first"


@over_all_that_have(Feature.LARGE)
async def test_a_payload_may_have_1_mib_and_no_more(driver: Driver, stage: Stage) -> None:
    frame = len(json.dumps({"value": ""}, separators=(",", ":")))
    largest = "x" * (LIMIT_BYTES - frame)
    async with driver.connect(driver.port(stage.hub)) as client:
        task = await client.submit(Errand(payload={"value": largest}))
        assert (await client.result(task)).result == largest
        with pytest.raises(RefusedError, match="TOO_LARGE"):
            await client.submit(Errand(payload={"value": largest + "x"}))
        with pytest.raises(RefusedError, match="TOO_LARGE"):
            await client.submit(Errand(payload={"value": largest * 2}))
    async with driver.connect(driver.port(stage.hub)) as client:
        assert (await client.result(await client.submit(Errand(payload={"value": 1})))).result == 1


@over_all_that_have(Feature.MALFORMED)
async def test_malformed_input_is_refused_by_its_name(driver: Driver, stage: Stage) -> None:
    async with driver.connect(driver.port(stage.hub)) as client:
        refusals = await client.malformed()
    assert len(refusals) >= 4
    for what, code in refusals.items():
        assert CODE.fullmatch(code), (what, code)
        assert code not in ("INTERNAL", "UNKNOWN"), what
    async with driver.connect(driver.port(stage.hub)) as client:
        assert (await client.result(await client.submit(Errand(payload={"value": 1})))).result == 1


@over_all_that_have(Feature.UNAUTHENTICATED)
async def test_without_a_valid_key_nothing_is_done(driver: Driver, stage: Stage) -> None:
    mark = uuid.uuid4().hex
    for key in (None, "nobody-has-such-a-key", "ka_abcdefghijkl_" + "x" * 43):
        with pytest.raises(RefusedError, match="UNAUTHENTICATED"):
            await _submit(driver, stage.guarded, key, Errand(payload={"value": 1}, idempotency_key=mark))
    task = await _submit(driver, stage.guarded, DEVELOPER, Errand(payload={"value": 2}, idempotency_key=mark))
    assert (await stage.task(task))["payload"] == {"value": 2}, "none before it was queued"


@over_all_that_have(Feature.FORBIDDEN)
async def test_a_key_opens_what_its_role_allows(driver: Driver, stage: Stage) -> None:
    task = await _submit(driver, stage.guarded, DEVELOPER, Errand(payload={"value": 1}))
    with pytest.raises(RefusedError, match=driver.not_allowed):
        await _submit(driver, stage.guarded, VIEWER, Errand(payload={"value": 1}))
    async with driver.connect(driver.port(stage.guarded), key=VIEWER) as viewer:
        with pytest.raises(RefusedError, match="FORBIDDEN"):
            await viewer.cancel(task, reason="not mine")
        assert (await viewer.result(task)).result == 1, "it may read"


async def _submit(driver: Driver, central: RuntimeProcess, key: str | None, errand: Errand) -> str:
    async with driver.connect(driver.port(central), key=key) as client:
        return await client.submit(errand)


@over_all_that_have(Feature.DRAIN)
async def test_who_waits_is_answered_when_the_server_stops(driver: Driver, stage: Stage, place: Place) -> None:
    central = await asyncio.to_thread(stage.fresh)
    async with driver.connect(driver.port(central)) as client:
        waiting = asyncio.create_task(client.run(Errand(payload=place.errand("wait"))))
        task = await place.started()
        await eventually_async(lambda: _waits(central), what="it waits in the server")
        central.signal(signal.SIGTERM)
        assert await _answer(waiting) in ("running", "pending", "DRAINING", "UNAVAILABLE")
    assert await asyncio.to_thread(central.exit_code) == 0
    place.open()
    async with driver.connect(driver.port(stage.hub)) as client:
        assert (await client.result(task)).result == "waited"


async def _answer(waiting: Awaitable[Outcome]) -> str:
    """The task as it is, or what the server says instead. It is an answer, no broken connection."""
    try:
        return (await waiting).state
    except RefusedError as error:
        return error.code


async def _waits(central: RuntimeProcess) -> bool:
    metrics = (await asyncio.to_thread(central.get, "/metrics")).text.splitlines()
    waits = next(line for line in metrics if line.startswith("kubeagents_central_waits "))
    assert float(waits.split()[1]) >= 1, waits
    return True


@over_all_that_have(Feature.RECONNECT)
async def test_a_stream_goes_on_after_a_broken_connection(driver: Driver, stage: Stage, place: Place) -> None:
    async with TcpProxy(target_port=driver.port(stage.hub)) as proxy:
        async with driver.connect(proxy.port) as client:
            task = await client.submit(Errand(payload=place.errand("speak")))
            items = client.stream(task)
            heard = await take(items, 2)
            proxy.cut_all()
            with contextlib.suppress(BrokenError):
                heard += await asyncio.wait_for(rest(items), 60)
            assert [told(item) for item in heard] == PARTS[:2], "it has not gone on by itself"
        async with driver.connect(proxy.port) as client:
            items = client.stream(task, after=heard[0].offset)
            again = await take(items, 1)
            place.open()
            again += await rest(items)
            outcome = await client.result(task)
    assert [told(item) for item in [heard[0], *again]] == [*PARTS, ("end", "succeeded")]
    assert outcome.result == "said"


@over_all_that_have(Feature.REPLICAS)
async def test_replicas_are_one(driver: Driver, stage: Stage, place: Place) -> None:
    dying = await asyncio.to_thread(stage.fresh)
    async with driver.connect(driver.port(dying)) as one, driver.connect(driver.port(stage.hub)) as other:
        kept = await one.submit(Errand(payload=place.errand("speak")))
        ended = await one.submit(Errand(payload=place.errand("wait")))
        await place.started(2)
        heard = await _begun(other, kept) if Feature.RECONNECT in driver.offers else PARTS[:2]
        await other.cancel(ended, reason="by the other")
        assert (await one.result(ended)).state == "cancelled"
        dying.signal(signal.SIGKILL)
        await asyncio.to_thread(dying.exit_code)
        place.open()
        outcome = await other.result(kept)
    assert heard == PARTS[:2]
    assert (outcome.state, outcome.result) == ("succeeded", "said")


async def _begun(client: Client, task: str) -> list[tuple[str, object]]:
    async with contextlib.aclosing(client.stream(task)) as items:  # type: ignore[type-var]
        return [told(item) for item in await take(items, 2)]
