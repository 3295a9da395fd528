# SPDX-License-Identifier: Apache-2.0
"""Who waits for which task to become final: one subscription for all waiters of a queue object.

Publishing is at most once: what is published while the connection is down is lost. So a watch looks for itself once it
is sure to hear what happens from then on, and again each time that the subscription had to be made anew.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Iterable
from typing import Final

from redis.asyncio.client import PubSub

from agent_runtime.cancellation import end
from agent_runtime.queue.connection import AUTH_ERRORS, Server
from kubeagents_api.errors import QueueUnavailableError

log = logging.getLogger(__name__)

SILENCE_SECONDS: Final = 15.0
"""After so long without a message the server is asked for a sign of life; after the same again it is given up."""
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 2.0


class Watch:
    """The tasks that one waiter waits for."""

    def __init__(self, task_ids: Iterable[str], *, stale: bool) -> None:
        self.pending = set(task_ids)
        """Not known to be final yet."""
        self.stale = stale
        """Messages may have been missed: look at the pending tasks."""
        self._changed = asyncio.Event()
        self._refusal: QueueUnavailableError | None = None

    async def change(self) -> None:
        """Return once nothing is pending any more, or the watch is stale. Raises QueueAuthError."""
        await self._changed.wait()
        self._changed.clear()
        if self._refusal is not None:
            raise self._refusal

    def finish(self, task_id: str) -> None:
        """The task is final."""
        self.pending.discard(task_id)
        if not self.pending:
            self._changed.set()

    def spoil(self) -> None:
        """Messages may have been missed."""
        self.stale = True
        self._changed.set()

    def refuse(self, error: QueueUnavailableError) -> None:
        """There is no subscription, and waiting for one is useless."""
        self._refusal = error
        self._changed.set()


class Completions:
    """The subscription. It is made by the first watch and stays until it is closed."""

    def __init__(self, server: Server, channel: str) -> None:
        self._server = server
        self._channel = channel
        self._watches: dict[str, set[Watch]] = {}
        self._listener: asyncio.Task[None] | None = None
        self.standing = False
        """Whether the subscription stands: a watch misses nothing from its beginning on."""

    @contextlib.asynccontextmanager
    async def watch(self, task_ids: Iterable[str]) -> AsyncIterator[Watch]:
        """A watch over tasks. It is stale at first if the subscription stands, else as soon as that does."""
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen(), name=f"completions {self._channel}")
        watch = Watch(task_ids, stale=self.standing)
        watched = tuple(watch.pending)
        for task_id in watched:
            self._watches.setdefault(task_id, set()).add(watch)
        try:
            yield watch
        finally:
            for task_id in watched:
                watches = self._watches.get(task_id)
                if watches is not None:
                    watches.discard(watch)
                    if not watches:
                        del self._watches[task_id]

    async def aclose(self) -> None:
        """End the subscription."""
        if self._listener is not None:
            await end(self._listener)
            self._listener = None

    async def _listen(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            subscription: PubSub = self._server.blocking.pubsub()
            try:
                await subscription.subscribe(self._channel)
                async for task_ids in self._messages(subscription):
                    pause = _FIRST_PAUSE_SECONDS
                    for task_id in task_ids:
                        for watch in self._watches.pop(task_id, ()):
                            watch.finish(task_id)
            except AUTH_ERRORS as error:
                refusal = self._server.translated(error)
                for watch in self._all_watches():
                    watch.refuse(refusal)
            except Exception as error:  # whatever it was, waiters depend on there being a next try
                log.warning(
                    "lost the subscription to %s at %s, making it anew: %s: %s",
                    self._channel,
                    self._server.address,
                    type(error).__name__,
                    error,
                )
            finally:
                self.standing = False
                await subscription.aclose()  # type: ignore[no-untyped-call]
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _messages(self, subscription: PubSub) -> AsyncIterator[list[str]]:
        """The ids in each message; empty once, when the subscription stands."""
        asked = False
        while True:
            message = await subscription.get_message(timeout=SILENCE_SECONDS)
            if message is None:
                if asked:
                    raise ConnectionError(f"no sign of life for {2 * SILENCE_SECONDS:g} s")
                await subscription.ping()
                asked = True
                continue
            asked = False
            if message["type"] == "subscribe":
                self.standing = True
                for watch in self._all_watches():
                    watch.spoil()
                yield []
            elif message["type"] == "message":
                yield message["data"].decode().split(" ")

    def _all_watches(self) -> set[Watch]:
        return {watch for watches in self._watches.values() for watch in watches}
