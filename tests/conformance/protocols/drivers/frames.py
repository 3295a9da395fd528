# SPDX-License-Identifier: Apache-2.0
"""Calls as JSON frames on one connection, whatever carries them: many at once, told apart by their ids."""

import asyncio
import contextlib
import itertools
import json
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import Any

from agent_runtime.cancellation import end
from tests.conformance.protocols.driver import BrokenError, Client, Errand, Outcome, RefusedError, Said
from tests.conformance.protocols.drivers.rest import item_of
from tests.conformance.protocols.features import Feature

OFFERS: Mapping[Feature, str] = {
    Feature.ROUND_TRIP: "the calls `submit` and `results`",
    Feature.BATCH: "the call `submitBatch`",
    Feature.STREAM: "the call `watch`, with credit",
    Feature.CANCEL: "the call `cancel`",
    Feature.DEADLINE: "`deadline`",
    Feature.PRIORITY: "`priority`",
    Feature.IDEMPOTENCY: "`idempotencyKey`, or an `id` of one's own",
    Feature.LARGE: "`PAYLOAD_TOO_LARGE`",
    Feature.MALFORMED: "an error frame; the connection stays",
    Feature.FORBIDDEN: "an error frame with `FORBIDDEN`",
    Feature.DRAIN: '`{"notice": "draining"}`, and `results` as they are',
    Feature.RECONNECT: "`after`",
    Feature.REPLICAS: "any replica answers",
}

Frame = dict[str, Any]


class FramesClient(Client):
    """A connection. Kinds of it differ in what carries a frame."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._inboxes: dict[str | None, asyncio.Queue[Frame]] = {}
        self._last: Frame | None = None
        """What everybody was told when the connection ended."""

    @abstractmethod
    async def transmit(self, frame: bytes) -> None:
        """Send a frame."""

    @abstractmethod
    def frames(self) -> AsyncIterator[str | bytes]:
        """Those that arrive, until the connection ends. Raises BrokenError if it breaks."""

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Give each answer to who waits for it."""
        reader = asyncio.create_task(self._read())
        try:
            yield
        finally:
            await end(reader)

    async def submit(self, errand: Errand) -> str:
        task: str = (await self._ask("submit", task=errand.to_wire()))["id"]
        return task

    async def submit_batch(self, errands: list[Errand]) -> list[str]:
        ids: list[str] = (await self._ask("submitBatch", tasks=[errand.to_wire() for errand in errands]))["ids"]
        return ids

    async def result(self, task: str, *, seconds: float = 30) -> Outcome:
        found = await self._ask("results", ids=[task], timeoutSeconds=seconds)
        if not found["tasks"]:
            return Outcome(task, "pending")
        (record,) = found["tasks"]
        return Outcome(record["id"], record["state"], record.get("result"))

    async def cancel(self, task: str, *, reason: str) -> None:
        await self._ask("cancel", ids=[task], reason=reason)

    async def stream(self, task: str, *, after: str = "") -> AsyncIterator[Said]:
        async with self._call("watch", {"id": task, "after": after}) as inbox:
            while True:
                frame = _whole(await inbox.get())
                if "end" in frame:
                    yield Said("", "end", frame["end"].get("state"))
                    return
                yield item_of(frame["item"])

    async def malformed(self) -> Mapping[str, str]:
        frames = {
            "no JSON": b"{",
            "NaN": b'{"id": "1", "call": "submit", "params": {"task": {"payload": NaN}}}',
            "a list": b"[]",
            "no id": b'{"call": "submit"}',
            "an id that is a number": b'{"id": 1, "call": "submit"}',
            "neither call nor credit": b'{"id": "1"}',
            "a call that does not exist": b'{"id": "1", "call": "nothing"}',
            "no parameters": b'{"id": "1", "call": "submit"}',
            "a field that does not exist": b'{"id": "1", "call": "submit", "params": {"task": {"pay": 1}}}',
            "a number as a string": b'{"id": "1", "call": "submit", "params": {"task": {"priority": "5"}}}',
            "credit that is none": b'{"id": "1", "call": "watch", "params": {"id": "a"}, "credit": -1}',
            "nesting without end": b'{"id": "1", "call": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        }
        found = {}
        for what, frame in frames.items():
            inbox: asyncio.Queue[Frame] = asyncio.Queue()
            self._inboxes["1"] = self._inboxes[None] = inbox
            await self.transmit(frame)
            answer = await inbox.get()
            assert "error" in answer, (what, answer)
            found[what] = answer["error"]["code"]
        return found

    async def _ask(self, call: str, **params: Any) -> Any:
        async with self._call(call, params) as inbox:
            return _whole(await inbox.get())["result"]

    @contextlib.asynccontextmanager
    async def _call(self, call: str, params: Mapping[str, Any]) -> AsyncIterator[asyncio.Queue[Frame]]:
        if self._last is not None:
            _whole(self._last)
        call_id = f"call-{next(self._ids)}"
        inbox = self._inboxes[call_id] = asyncio.Queue()
        try:
            await self.transmit(json.dumps({"id": call_id, "call": call, "params": params}).encode())
            yield inbox
        finally:
            del self._inboxes[call_id]

    async def _read(self) -> None:
        about_all: Frame = {"broken": "the connection has ended"}
        try:
            async for frame in self.frames():
                answer: Frame = json.loads(frame)
                if "notice" in answer:
                    continue
                if answer["id"] is None and None not in self._inboxes:
                    about_all = answer
                    self._tell_all(answer)
                elif (inbox := self._inboxes.get(answer["id"])) is not None:
                    inbox.put_nowait(answer)
        except BrokenError as error:
            if "error" not in about_all:
                about_all = {"broken": str(error)}
        self._last = about_all
        self._tell_all(about_all)

    def _tell_all(self, frame: Frame) -> None:
        for inbox in self._inboxes.values():
            inbox.put_nowait(frame)


def _whole(frame: Frame) -> Frame:
    if "broken" in frame:
        raise BrokenError(frame["broken"])
    if "error" in frame:
        raise RefusedError(frame["error"]["code"], frame["error"]["error"])
    return frame
