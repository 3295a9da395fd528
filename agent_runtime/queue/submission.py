# SPDX-License-Identifier: Apache-2.0
"""Submitting: what many callers submit at the same time travels together, and each still gets its own answer.

One call at a time is on its way. What comes meanwhile waits for the next one, which takes all of it: a lone caller
waits for nobody, and a thousand callers need a few round trips. Every submission stays atomic, and its order is kept.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from agent_runtime.cancellation import end
from agent_runtime.queue import scripts
from agent_runtime.queue.blobs import ORPHAN_SECONDS, BlobStore
from agent_runtime.queue.calls import LARGEST_BATCH_BYTES, Calls, milliseconds
from agent_runtime.queue.exchange import execute
from agent_runtime.queue.records import (
    EncodedTask,
    duplicate,
    encode_tasks,
    submission_arguments,
    unknown_parent,
)
from agent_runtime.queue.scripts import Argument, Submitted
from kubeagents_api.errors import (
    PayloadTooLargeError,
    QueueClosedError,
    QueueFullError,
    QueueUnavailableError,
)
from kubeagents_api.task import TaskRequest

log = logging.getLogger(__name__)

_TOGETHER: Final = 500
"""Tasks of different callers in one call: more would make the first of them wait for the last."""
_TOGETHER_BYTES: Final = 4 * 1024 * 1024
_ROOM_SECONDS: Final = 0.5
"""How often those who wait for room look for themselves."""


@dataclass(slots=True)
class _Submission:
    arguments: Sequence[Argument]
    tasks: int
    size: int
    answer: "asyncio.Future[list[Any]]"
    firing: tuple[str, int] = ("", 0)
    """Schedule and due time, ms."""


class Submitter:
    """Submits to one queue."""

    def __init__(self, calls: Calls, blobs: BlobStore) -> None:
        self._calls = calls
        self._blobs = blobs
        self._waiting: deque[_Submission] = deque()
        self._sending = False
        """A call is on its way, or about to be."""
        self._sender: asyncio.Task[None] | None = None
        self._room_watch: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        config = calls.config
        limits = config.limits
        self._settings: tuple[Argument, ...] = (
            config.keep_events,
            config.result_ttl_seconds,
            limits.max_depth or 0,
            limits.when_full,
            milliseconds(config.deduplication_seconds),
        )

    async def submit(self, tasks: Sequence[TaskRequest]) -> list[str]:
        """See TaskQueue.submit."""
        if not tasks:
            return []
        encoded = await self._encode(tasks)
        patience = monotonic() + self._calls.config.limits.block_seconds
        while True:
            verdict = await self._send(tasks, encoded)
            if verdict[0] != Submitted.FULL:
                return self._ids(tasks, encoded, verdict)
            if self._calls.config.limits.when_full != "Block" or monotonic() >= patience:
                raise self._full(len(tasks), verdict[1])
            await self._wait_for_room(patience - monotonic())

    async def fire(self, schedule: str, due_ms: int, task: TaskRequest) -> bool:
        """Submit the task of a schedule. False if it has fired for that time already."""
        encoded = await self._encode([task])
        verdict = await self._send([task], encoded, firing=(schedule, due_ms))
        if verdict[0] == Submitted.FIRED:
            return False
        if verdict[0] == Submitted.FULL:
            raise self._full(1, verdict[1])
        self._ids([task], encoded, verdict)
        return True

    async def aclose(self) -> None:
        """Wait until what is on its way has been answered."""
        if self._sender is not None:
            await asyncio.wait([self._sender])
        if self._room_watch is not None:
            await end(self._room_watch)

    async def _encode(self, tasks: Sequence[TaskRequest]) -> list[EncodedTask]:
        encoded = encode_tasks(tasks, self._calls.config)
        if len(encoded) > 1:
            size = sum(len(task.text) for task in encoded)
            if size > LARGEST_BATCH_BYTES:
                raise PayloadTooLargeError(
                    f"the batch has {size} bytes, at most {LARGEST_BATCH_BYTES} can be queued at once: split it",
                    field="tasks",
                )
        blobs = [task.blob for task in encoded if task.blob is not None]
        if blobs:
            await self._blobs.write(blobs, ttl_seconds=ORPHAN_SECONDS)
        return encoded

    async def _send(
        self, tasks: Sequence[TaskRequest], encoded: Sequence[EncodedTask], *, firing: tuple[str, int] = ("", 0)
    ) -> list[Any]:
        """The script's verdict on one submission. A cancelled caller does not know whether it was queued."""
        # A made-up id is as good as another random number; a repeated one may be a client's.
        made_up = tasks[0].id is None
        arguments = submission_arguments(encoded, nonce=encoded[0].id[-16:] if made_up else os.urandom(8).hex())
        if not self._sending:
            self._sending = True
            try:
                verdict: list[Any] = (await self._ask(firing, 1, arguments))[0]
                return verdict
            finally:
                if self._waiting:
                    self._sender = asyncio.create_task(self._send_rest(), name=f"submit {self._calls.config.name}")
                else:
                    self._sending = False
        answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        size = len(encoded[0].text) if len(encoded) == 1 else sum(len(task.text) for task in encoded)
        self._waiting.append(_Submission(arguments, len(encoded), size, answer, firing))
        return await answer

    async def _send_rest(self) -> None:
        """Send what came while another call was on its way, until nothing comes any more."""
        try:
            while self._waiting:
                await self._send_some()
        finally:
            self._sending = False
            self._sender = None

    async def _send_some(self) -> None:
        together = self._take()
        if not together:
            return
        arguments: list[Argument] = []
        for submission in together:
            arguments += submission.arguments
        try:
            verdicts = await self._ask(together[0].firing, len(together), arguments)
        except Exception as error:  # every caller gets it
            for submission in together:
                if not submission.answer.done():
                    submission.answer.set_exception(error)
            return
        for submission, verdict in zip(together, verdicts, strict=True):
            if not submission.answer.done():
                submission.answer.set_result(verdict)

    async def _ask(self, firing: tuple[str, int], count: int, arguments: Sequence[Argument]) -> list[list[Any]]:
        verdicts: list[list[Any]] = await self._calls.run(scripts.SUBMIT, [*self._settings, *firing, count, *arguments])
        return verdicts

    def _take(self) -> list[_Submission]:
        """What goes into the next call. What was cancelled meanwhile is left out."""
        together: list[_Submission] = []
        tasks = size = 0
        while self._waiting:
            first = self._waiting[0]
            fits = tasks + first.tasks <= _TOGETHER and size + first.size <= _TOGETHER_BYTES
            alone = first.firing[0] or (together and together[0].firing[0])
            if together and (alone or not fits):
                break
            self._waiting.popleft()
            if not first.answer.done():
                together.append(first)
                tasks += first.tasks
                size += first.size
        return together

    def _ids(self, tasks: Sequence[TaskRequest], encoded: Sequence[EncodedTask], verdict: list[Any]) -> list[str]:
        name = self._calls.config.name
        match verdict[0]:
            case Submitted.DUPLICATE:
                raise duplicate(tasks, verdict[1], name)
            case Submitted.UNKNOWN_PARENT:
                raise unknown_parent(tasks, verdict[1], verdict[2].decode(), name)
            case Submitted.CLOSED:
                raise QueueClosedError(
                    f"the queue {name!r} is closed to new tasks: wait until it is opened again, or use another one"
                )
        ids = [task.id for task in encoded]
        for index, task_id in zip(verdict[1::2], verdict[2::2], strict=True):
            ids[index] = task_id.decode()
        return ids

    def _full(self, wanted: int, waiting: int) -> QueueFullError:
        limits = self._calls.config.limits
        waited = f", also after {limits.block_seconds:g} s" if limits.when_full == "Block" else ""
        return QueueFullError(
            f"the queue {self._calls.config.name!r} is full: {waiting} tasks wait, {wanted} more would be over the "
            f"limit of {limits.max_depth} (spec.limits.maxDepth){waited}: submit later, or add agents",
            delay=1.0,
        )

    async def _wait_for_room(self, seconds: float) -> None:
        """Until there may be room, or the time is over. All who wait share one listener, and try again together."""
        if self._room_watch is None:
            self._room.clear()
            self._room_watch = asyncio.create_task(self._listen_for_room(), name="room")
        try:
            async with asyncio.timeout(seconds):
                await self._room.wait()
        except TimeoutError:
            pass

    async def _listen_for_room(self) -> None:
        server = self._calls.server
        bell = self._calls.keys.name("room")

        async def listen(repeated: bool) -> None:
            if not repeated:
                await execute(server.blocking, "BLPOP", bell, f"{_ROOM_SECONDS:.3f}")

        try:
            await server.call(listen)
        except QueueUnavailableError as error:
            log.debug("cannot listen for room: %s", error)  # those who wait try all the same, and then are told
        finally:
            self._room_watch = None
            self._room.set()
