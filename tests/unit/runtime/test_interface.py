# SPDX-License-Identifier: Apache-2.0
"""What a handler's docstring and type hints say."""

from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, Field

from agent_runtime.agent import BatchContext, Context, Task, contract_of
from agent_runtime.testing import MemoryTaskQueue, outcome, result, running
from kubeagents_api.agent import BatchSettings
from kubeagents_api.errors import HandlerNotFoundError
from kubeagents_api.runtime_config import QueueConfig
from kubeagents_api.task import TaskRequest, TaskState


class Question(BaseModel):
    text: str = Field(description="What to find out.")
    words: int = 3


@dataclass
class Page:
    number: int


class Opaque:
    pass


async def answer(task: Task[Question], ctx: Context) -> Any:
    """Answers a question.

    With many words.
    """
    return f"{type(task.payload).__name__}: {task.payload.text} in {task.payload.words}"


async def read_pages(tasks: list[Task[Page]], ctx: BatchContext) -> list[int]:
    return [task.payload.number * 10 for task in tasks]


class Reader:
    """Reads a page."""

    async def handle(self, task: Task[Page], ctx: Context) -> int:
        return task.payload.number


async def untyped(task: Task, ctx: Context) -> Any:
    return task.payload


async def opaque(task: Task[Opaque], ctx: Context) -> None: ...


@pytest.fixture
def queue() -> MemoryTaskQueue:
    return MemoryTaskQueue(QueueConfig(name="main", namespace="test", url_env=""))


def test_the_docstring_is_the_description_and_the_hint_the_schema() -> None:
    interface = contract_of(answer).interface
    assert interface.description == "Answers a question.\n\nWith many words."
    assert interface.input_schema["required"] == ["text"]
    properties: Any = interface.input_schema["properties"]
    assert properties["text"] == {"description": "What to find out.", "title": "Text", "type": "string"}


def test_a_method_is_described_by_its_class() -> None:
    interface = contract_of(Reader().handle).interface
    assert (interface.description, interface.input_schema["required"]) == ("Reads a page.", ["number"])


def test_a_handler_that_does_not_say_takes_any_object_and_is_left_as_it_is() -> None:
    contract = contract_of(untyped)
    assert contract.handler is untyped
    assert (contract.interface.description, contract.interface.input_schema) == ("", {"type": "object"})


def test_a_handler_for_batches_says_what_one_of_its_payloads_is() -> None:
    assert contract_of(read_pages).interface.input_schema["required"] == ["number"]


def test_a_payload_that_cannot_be_made_of_json_is_refused_by_name() -> None:
    with pytest.raises(HandlerNotFoundError, match="Opaque"):
        contract_of(opaque)


def test_a_schema_that_is_too_large_is_not_shown_but_holds(caplog: pytest.LogCaptureFixture) -> None:
    class Huge(BaseModel):
        text: str = Field(description="x" * 20_000)

    async def handle(task: Task[Any], ctx: Context) -> None: ...

    handle.__annotations__["task"] = Task[Huge]
    contract = contract_of(handle)
    assert contract.interface.input_schema == {"type": "object"}
    assert contract.handler is not handle
    assert "larger than 16384 bytes" in caplog.text


async def test_the_payload_arrives_as_what_the_handler_takes(queue: MemoryTaskQueue) -> None:
    async with running(answer, queue):
        assert await result(queue, TaskRequest(payload={"text": "why"})) == "Question: why in 3"
        (known,) = await queue.interfaces()
        assert (known.agent, known.description[:7]) == ("agent", "Answers")


async def test_a_task_with_another_payload_fails_at_once_and_says_what_is_wrong(queue: MemoryTaskQueue) -> None:
    async with running(answer, queue):
        record = await outcome(queue, TaskRequest(payload={"words": "many"}))
    assert record.state is TaskState.FAILED
    (failure,) = record.failures
    assert failure.code == "INVALID_PAYLOAD"
    assert "text: Field required" in failure.message
    assert "words: Input should be a valid integer" in failure.message


async def test_in_a_batch_only_the_tasks_with_another_payload_fail(queue: MemoryTaskQueue) -> None:
    ids = await queue.submit([TaskRequest(payload=value) for value in ({"number": 1}, {"number": "x"}, {"number": 3})])
    async with running(read_pages, queue, batch=BatchSettings(max_tasks=3)):
        good, bad, last = await queue.wait(ids, timeout_seconds=30)
        assert (good.result, bad.state, last.result) == (10, "failed", 30)
        assert bad.failures[0].code == "INVALID_PAYLOAD"
        alone = await outcome(queue, TaskRequest(payload=None))
        assert alone.failures[0].code == "INVALID_PAYLOAD"
