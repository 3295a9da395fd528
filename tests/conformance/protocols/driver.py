# SPDX-License-Identifier: Apache-2.0
"""The interface that the matrix knows: a protocol, and somebody who is connected by it."""

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from kubeagents_api.endpoints import OWN_PORTS, Endpoint
from tests.conformance.protocols.features import Feature
from tests.support.runtime_process import RuntimeProcess


class RefusedError(Exception):
    """The server's answer is an error."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class BrokenError(Exception):
    """The connection has ended without an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """A task to submit."""

    payload: Any = None
    agent: str = "worker"
    id: str | None = None
    priority: int | None = None
    deadline: datetime | None = None
    idempotency_key: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """As a TaskRequest in JSON."""
        fields: dict[str, Any] = {
            "id": self.id,
            "agent": self.agent,
            "priority": self.priority,
            "deadline": self.deadline.isoformat() if self.deadline is not None else None,
            "idempotencyKey": self.idempotency_key,
        }
        return {"payload": self.payload, **{name: value for name, value in fields.items() if value is not None}}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A task as it is now."""

    id: str
    state: str
    result: Any = None


@dataclass(frozen=True, slots=True)
class Said:
    """One thing that a task said."""

    offset: str
    """Where it is in the stream; empty where the wire has no such thing."""
    kind: str
    """`task` (its id), `progress`, `partial`, or `end` (the state)."""
    data: Any = None


class Client(ABC):
    """Somebody who is connected. Methods raise RefusedError and BrokenError."""

    @abstractmethod
    async def submit(self, errand: Errand) -> str:
        """Queue a task; its id."""

    async def submit_batch(self, errands: list[Errand]) -> list[str]:
        """Queue all of them or none; their ids."""
        raise NotImplementedError

    @abstractmethod
    async def result(self, task: str, *, seconds: float = 30) -> Outcome:
        """Wait until the task is final, the time is over, or the server drains."""

    async def run(self, errand: Errand) -> Outcome:
        """Queue a task and wait for it."""
        return await self.result(await self.submit(errand), seconds=80)

    async def listen(self, errand: Errand) -> AsyncIterator[Said]:
        """Queue a task and hear what it says. The first thing said is `task`, with its id."""
        task = await self.submit(errand)
        yield Said("", "task", task)
        async for said in self.stream(task):
            yield said

    @abstractmethod
    async def cancel(self, task: str, *, reason: str) -> None:
        """Cancel a task."""

    def stream(self, task: str, *, after: str = "") -> AsyncIterator[Said]:
        """What the task says, from the offset on. A stream that is whole closes with `end`."""
        raise NotImplementedError

    @abstractmethod
    async def malformed(self) -> Mapping[str, str]:
        """Send what is no valid message, one after the other; what it was, and the code of the refusal."""


class Driver(ABC):
    """A protocol, by a client that is not ours."""

    name: ClassVar[str]
    """How the matrix calls it."""
    title: ClassVar[str]
    endpoint: ClassVar[Endpoint]
    """Whose adapter it is for."""
    client: ClassVar[str]
    """The client library or program."""
    offers: ClassVar[Mapping[Feature, str]]
    """How each feature is done on this wire. Those are tested."""
    lacks: ClassVar[Mapping[Feature, str]] = {}
    """Why the others do not exist on it."""

    @property
    def carrier(self) -> Endpoint:
        """On whose port it is, if not on that of HTTP."""
        return self.endpoint

    not_allowed: ClassVar[str] = "FORBIDDEN"
    """What a caller is told who may not submit."""

    @abstractmethod
    def connect(self, port: int, *, key: str | None = None) -> AbstractAsyncContextManager[Client]:
        """Connect to 127.0.0.1, with an API key or without."""

    def port(self, central: RuntimeProcess) -> int:
        """Where a process serves the protocol."""
        if self.carrier not in OWN_PORTS:
            return central.port
        found: int = next(line["ports"][self.carrier] for line in list(central.lines) if "ports" in line)
        return found


def code_of(body: bytes | str) -> str:
    """The code of an ErrorBody. Raises AssertionError if it is none."""
    found = json.loads(body)
    assert {"error", "code", "timestamp"} <= found.keys(), found
    code: str = found["code"]
    return code
