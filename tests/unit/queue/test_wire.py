# SPDX-License-Identifier: Apache-2.0
"""The worker's half of a queue, to the wire and back."""

from dataclasses import replace

import orjson
import pytest
from pydantic import ValidationError

from agent_runtime.queue.base import Beat, Claim, Failed, Orders, Partial, Progress, Succeeded, Worker
from agent_runtime.queue.wire import (
    beat_of,
    beat_told,
    claim_of,
    claimed_fields,
    held,
    orders_of,
    outcome_fields,
    outcome_of,
    ref_fields,
    said_fields,
    said_of,
    worker_info,
    worker_of,
)
from kubeagents_api.interface import Interface
from kubeagents_api.work import ClaimedTask, ClaimRef, WorkerBeat, WorkerInfo, WorkerOrders, WorkItem, WorkOutcome

WORKER = Worker("billing", "laptop-1", ("ocr",))
CLAIM = Claim(
    id="invoice-1",
    type="scan",
    payload=b'{"page":1}',
    priority=5,
    attempt=2,
    max_attempts=3,
    timeout_seconds=30.0,
    agent="billing",
    created_at_ms=1_700_000_000_123,
    token="00ff",  # noqa: S106 - fences, no password
    tenant="acme",
    depends_on=("before",),
    deadline_ms=1_700_000_060_000,
)


def over_the_wire(fields: object) -> bytes:
    return orjson.dumps(fields)


def test_a_claim_arrives_as_it_was_given() -> None:
    assert claim_of(ClaimedTask.model_validate_json(over_the_wire(claimed_fields(CLAIM)))) == CLAIM


def test_a_held_claim_keeps_what_the_queue_needs_to_settle_it() -> None:
    ref = held(ClaimRef.model_validate_json(over_the_wire(ref_fields(CLAIM))))
    assert (ref.id, ref.token, ref.attempt, ref.max_attempts, ref.timeout_seconds) == ("invoice-1", "00ff", 2, 3, 30.0)


@pytest.mark.parametrize(
    "outcome",
    [
        Succeeded(CLAIM, b'{"lines":3}'),
        Succeeded(CLAIM, b"null"),
        Failed(CLAIM, "TIMEOUT", "it took too long", permanent=False, delay_seconds=2.5),
        Failed(CLAIM, "BAD", "no", permanent=True),
    ],
)
def test_an_outcome_arrives_as_it_was_told(outcome: Succeeded | Failed) -> None:
    arrived = outcome_of(WorkOutcome.model_validate_json(over_the_wire(outcome_fields(outcome))))
    assert replace(arrived, claim=CLAIM) == outcome
    assert (arrived.claim.id, arrived.claim.token) == (CLAIM.id, CLAIM.token)


def test_an_outcome_with_a_result_and_a_failure_is_refused() -> None:
    with pytest.raises(ValidationError, match="not both"):
        WorkOutcome.model_validate({"claim": ref_fields(CLAIM), "result": 1, "failure": {"code": "X", "message": ""}})


def test_what_a_task_says_arrives_in_order() -> None:
    said: list[Progress | Partial] = [Progress(0.5, "half"), Partial(b'["a"]'), Progress(None)]
    fields = orjson.loads(over_the_wire(said_fields(said)))
    assert said_of(WorkItem.model_validate(one) for one in fields) == said


def test_a_heartbeat_and_its_answer_arrive_whole() -> None:
    beat = Beat(
        worker=WORKER,
        version="1.0",
        concurrency=4,
        running=2,
        draining=True,
        started_at_ms=1,
        claimed_at_ms=2,
        succeeded=3,
        failed=4,
        revision="abc",
        cordoned=True,
        interface=Interface(description="Reads invoices."),
    )
    assert beat_of(WorkerBeat.model_validate_json(over_the_wire(beat_told(beat).to_wire()))) == beat
    assert orders_of(WorkerOrders(cordoned=True)) == Orders(cordoned=True)
    assert worker_of(WorkerInfo.model_validate(worker_info(WORKER).to_wire())) == WORKER
