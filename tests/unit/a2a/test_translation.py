# SPDX-License-Identifier: Apache-2.0
"""Between our tasks and those of A2A, both ways."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from a2a.types import Message, Part, Role, SendMessageRequest, TaskState
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.adapters.a2a import tasks
from agent_runtime.adapters.a2a.addresses import Address
from agent_runtime.adapters.a2a.conversations import Origin
from agent_runtime.adapters.a2a.parts import parts_of, payload
from kubeagents_api.errors import InvalidTaskError
from kubeagents_api.task import TaskFailure, TaskRecord
from kubeagents_api.task import TaskState as OurState

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
WORKER = Address("worker", "main")

_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def record(**changes: Any) -> TaskRecord:
    base: dict[str, Any] = {
        "id": "one", "queue": "main", "state": "queued", "max_attempts": 3, "timeout_seconds": 60, "created_at": AT,
    }  # fmt: skip
    return TaskRecord.model_validate(base | changes)


def asked(*parts: Part, **metadata: Any) -> SendMessageRequest:
    message = Message(message_id="m", role=Role.ROLE_USER, parts=parts)
    json_format.ParseDict({f"kubeagents.dev/{name}": value for name, value in metadata.items()}, message.metadata)
    return SendMessageRequest(message=message)


def origin(context: str = "", message: str = "m", sender: str = "ann") -> Origin:
    return Origin.of_message(message, context, sender=sender, receiver="worker@main")


@given(_values)
def test_every_value_survives_the_way_out_and_back(value: Any) -> None:
    parts = parts_of(value)
    assert len(parts) == 1
    if parts[0].media_type == "application/json":
        assert json.loads(parts[0].text) == value
        return
    back = payload(Message(parts=parts))
    assert back == ({"text": value} if isinstance(value, str) else value)


def test_a_part_without_content_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidTaskError, match=r"message.parts\[1\] is empty"):
        payload(Message(parts=[Part(text="a"), Part()]))


@pytest.mark.parametrize(
    "value",
    [
        {"parts": []},
        {"parts": [{"raw": "no base64!"}]},
        {"parts": [{"text": "a", "url": "b"}]},
        {"parts": [{"text": 1}]},
        {"parts": [{"text": "a"}], "more": 1},
    ],
)
def test_what_only_looks_like_parts_is_data(value: Any) -> None:
    (part,) = parts_of(value)
    assert part.HasField("data")
    assert payload(Message(parts=[part])) == value


@pytest.mark.parametrize("state", list(OurState))
def test_every_state_is_mapped_and_ours_is_kept(state: OurState) -> None:
    found = tasks.task(record(state=state), WORKER)
    assert found.status.state != TaskState.TASK_STATE_UNSPECIFIED
    assert found.metadata.fields["kubeagents.dev/state"].string_value == state.value
    ended = {
        TaskState.TASK_STATE_COMPLETED, TaskState.TASK_STATE_FAILED, TaskState.TASK_STATE_CANCELED,
        TaskState.TASK_STATE_REJECTED,
    }  # fmt: skip
    assert (found.status.state in ended) == state.final


def test_what_a_full_queue_has_dropped_is_rejected() -> None:
    shed = TaskFailure(code="SHED", message="no room", attempt=0, at=AT)
    found = tasks.task(record(state="cancelled", failures=[shed]), WORKER)
    assert found.status.state == TaskState.TASK_STATE_REJECTED
    assert found.metadata.fields["kubeagents.dev/code"].string_value == "SHED"


def test_metadata_of_ours_are_fields_of_the_task() -> None:
    request = tasks.request(asked(Part(text="hi"), priority=7, timeoutSeconds=1.5, dependsOn=["a"]), WORKER, origin())
    assert (request.priority, request.timeout_seconds, request.depends_on) == (7, 1.5, ("a",))
    assert (request.agent, request.queue, request.payload) == ("worker", "main", {"text": "hi"})


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"priority": 10}, "priority"),
        ({"priority": "7"}, "priority"),
        ({"agent": "other"}, "agent"),
        ({"queue": "orders"}, "queue"),
        ({"payload": 1}, "payload"),
        ({"id": "x"}, "id"),
        ({"idempotencyKey": "x"}, "idempotencyKey"),
        ({"nothing": 1}, "nothing"),
        ({"priority": float(2**60)}, "priority"),
    ],
)
def test_a_wrong_field_is_named(metadata: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidTaskError) as caught:
        tasks.request(asked(Part(text="hi"), **metadata), WORKER, origin())
    assert field in caught.value.field


@given(st.text(min_size=1, max_size=8), st.text(max_size=8))
def test_a_conversation_is_kept_with_its_task(message: str, context: str) -> None:
    made = origin(context, message)
    assert len(made.key) <= 256
    back = Origin.of_record(record(idempotency_key=made.key))
    assert (back.context, back.message) == (context or made.context, message)


def test_the_same_message_is_the_same_task_only_from_the_same_sender() -> None:
    assert origin() == origin()
    assert origin().key != origin(sender="bob").key
    assert origin().key != origin(message="n").key


def test_ids_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidTaskError, match=r"message.contextId has more than 100"):
        origin("x" * 101)


def test_a_task_that_came_another_way_is_a_conversation_of_its_own() -> None:
    assert Origin.of_record(record()).context == "one"
    assert Origin.of_record(record(idempotency_key="a2a/mine")).context == "one"
