# SPDX-License-Identifier: Apache-2.0
"""Receiving what was sent to an Agent, without being one: under leases, and acknowledged one by one.

    CentralAgent ──claim──► Inbox ──► Message ── ack, fail ──settle──► any CentralAgent
                              └ extends all leases, every third of one

A message is delivered once by an inbox, however many ways it listens on. If its lease was lost on the way, because no
CentralAgent could be reached for too long, the queue gives it out once more. The inbox knows it then: one that is still
being handled goes on under the new lease, one that was acknowledged in vain is acknowledged again. Only an inbox that
ends before it could do so leaves a message to be handled twice, by another one.
"""

import asyncio
import contextlib
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Any, Final, Self

import orjson

from agent_runtime.cancellation import end
from agent_runtime.client.pool import Backoff, Way
from agent_runtime.client.remote_queue import RemoteQueue
from agent_runtime.queue.base import Claim, Failed, Outcome, Succeeded, Worker
from kubeagents_api.errors import CordonedError, PermanentError, QueueUnavailableError, TemporaryError

_log = logging.getLogger(__name__)

_CLAIM_SECONDS: Final = 20.0
_REMEMBERED: Final = 1000
"""Outcomes of messages that are kept, in case that one comes again."""


class Message:
    """One message, held until it is acknowledged. As an async context manager it is acknowledged at the end of the
    block, or handed back if an exception ends it."""

    def __init__(self, claim: Claim, inbox: "Inbox") -> None:
        self.id = claim.id
        """Of the message, which is a task."""
        self.type = claim.type
        """`message`, or what else the sender called it."""
        self.payload: Any = orjson.loads(claim.payload)
        """What was sent."""
        self.attempt = claim.attempt
        """How often it has been given out."""
        self.claim = claim
        """As the queue knows it now."""
        self._inbox = inbox

    async def ack(self, result: Any = None) -> bool:
        """It is done; `result` is what whoever waits for it gets. False if it is not ours any more.

        Raises QueueUnavailableError if nobody could be told. Call it again, or leave it: it comes again.
        """
        return await self._inbox.settle(self, Succeeded(self.claim, orjson.dumps(result)))

    async def fail(self, reason: str, *, permanent: bool = False, delay_seconds: float | None = None) -> bool:
        """It could not be handled. It is given out again, after the delay or the queue's backoff, unless `permanent` or
        its attempts are used up. Returns and raises what `ack` does."""
        code = PermanentError.code if permanent else TemporaryError.code
        failed = Failed(self.claim, code, reason, permanent=permanent, delay_seconds=delay_seconds)
        return await self._inbox.settle(self, failed)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._inbox.holds(self):
            return  # it has been settled in the block
        if error is None:
            await self.ack()
        elif isinstance(error, Exception):
            delay = error.delay if isinstance(error, TemporaryError) else None
            text = f"{type(error).__name__}: {error}"
            await self.fail(text, permanent=isinstance(error, PermanentError), delay_seconds=delay)
        else:
            await self._inbox.give_back(self)


class Inbox:
    """Receives what is for one Agent. Use it in `async with`, and iterate over it, in one task or in several.

    Takes a message only when somebody waits for one. What came too late for that is kept for the next one, but not for
    longer than a third of a lease: then it is given back.
    """

    def __init__(self, queue: RemoteQueue, worker: Worker, *, ways: Sequence[Way | None]) -> None:
        """Listens on each of the ways by itself; None is the best one at the time."""
        self._queue = queue
        self._worker = worker
        self._ways = ways
        self._waiting: deque[asyncio.Future[Message]] = deque()
        self._wanted = asyncio.Event()
        """Somebody waits."""
        self._early: deque[Message] = deque()
        """Taken, but nobody has waited for them any more."""
        self._held: dict[str, Message] = {}
        self._settled: OrderedDict[str, Outcome] = OrderedDict()
        self._tasks: list[asyncio.Task[None]] = []

    async def receive(self, *, timeout_seconds: float | None = None) -> Message | None:
        """The next message; None if none has come in this time."""
        if self._early:
            return self._early.popleft()
        coming: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting.append(coming)
        self._wanted.set()
        try:
            async with asyncio.timeout(timeout_seconds):
                return await asyncio.shield(coming)
        except TimeoutError:
            return coming.result() if coming.done() else None
        except asyncio.CancelledError:
            if coming.done():
                self._early.append(coming.result())
            raise
        finally:
            if coming in self._waiting:
                self._waiting.remove(coming)
                coming.cancel()
            if not self._waiting:
                self._wanted.clear()

    def holds(self, message: Message) -> bool:
        """Whether it has been delivered and not settled."""
        return self._held.get(message.id) is message

    async def settle(self, message: Message, outcome: Outcome) -> bool:
        """Record how a message ended."""
        if not self.holds(message):
            return False
        (held,) = await self._queue.settle([outcome])
        self._held.pop(message.id, None)
        if not held:
            _log.warning("message %s was acknowledged too late: its lease was over", message.id)
            self._settled[message.id] = outcome
            while len(self._settled) > _REMEMBERED:
                self._settled.popitem(last=False)
        return held

    async def give_back(self, *messages: Message) -> None:
        """Let others have them, without spending an attempt."""
        claims = [message.claim for message in messages if self._held.pop(message.id, None) is not None]
        if claims:
            await self._queue.release(claims)

    async def open(self) -> Self:
        """Begin to listen. Raises ForbiddenError if one may not work for the Agent, QueueNotFoundError."""
        terms = await self._queue.register(self._worker)
        self._tasks = [asyncio.create_task(self._listen(way), name="inbox") for way in self._ways]
        self._tasks.append(asyncio.create_task(self._extend(terms.lease_seconds / 3), name="inbox-leases"))
        return self

    async def aclose(self) -> None:
        """Give back what has not been acknowledged."""
        await end(*self._tasks)
        try:
            await self.give_back(*self._held.values())
            await self._queue.leave(self._worker)
        except QueueUnavailableError as trouble:
            _log.warning("messages that were not acknowledged come again when their leases are over: %s", trouble)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def __aiter__(self) -> AsyncGenerator[Message, None]:
        while True:
            if (message := await self.receive()) is not None:
                yield message

    async def _listen(self, way: Way | None) -> None:
        backoff = Backoff()
        while True:
            await self._wanted.wait()
            try:
                claims = await self._queue.claim(self._worker, limit=1, wait_seconds=_CLAIM_SECONDS, only=way)
            except (QueueUnavailableError, CordonedError) as error:
                _log.info("no messages are taken at the moment: %s", error)
                await asyncio.sleep(backoff.pause())
                continue
            backoff.reset()
            for claim in claims:
                await self._take(claim)

    async def _take(self, claim: Claim) -> None:
        if (message := self._held.get(claim.id)) is not None:
            message.claim = claim
        elif (outcome := self._settled.pop(claim.id, None)) is not None:
            with contextlib.suppress(QueueUnavailableError):  # then it comes once more
                await self._queue.settle([_again(outcome, claim)])
        else:
            message = self._held[claim.id] = Message(claim, self)
            self._deliver(message)

    def _deliver(self, message: Message) -> None:
        while self._waiting:
            coming = self._waiting.popleft()
            if not coming.done():
                coming.set_result(message)
                return
        self._early.append(message)

    async def _extend(self, seconds: float) -> None:
        idle: set[Message] = set()
        while True:
            await asyncio.sleep(seconds)
            unwanted = [message for message in self._early if message in idle]
            idle = set(self._early).difference(unwanted)
            try:
                for message in unwanted:
                    self._early.remove(message)
                await self.give_back(*unwanted)
                if claims := [message.claim for message in self._held.values()]:
                    for claim in await self._queue.extend(claims):
                        _log.warning("the lease of message %s is lost; it is given out again", claim.id)
            except QueueUnavailableError as error:
                _log.info("leases of messages cannot be extended at the moment: %s", error)


def _again(outcome: Outcome, claim: Claim) -> Outcome:
    if isinstance(outcome, Succeeded):
        return Succeeded(claim, outcome.result)
    return Failed(
        claim, outcome.code, outcome.message, permanent=outcome.permanent, delay_seconds=outcome.delay_seconds
    )
