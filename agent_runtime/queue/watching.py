# SPDX-License-Identifier: Apache-2.0
"""Who waits for which task: one subscription for all that wait for the same kind of news on a queue object."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

from agent_runtime.queue.connection import Server
from agent_runtime.queue.subscription import Subscription
from kubeagents_api.errors import QueueUnavailableError


class Watch:
    """The tasks that one waiter waits for."""

    def __init__(self, task_ids: Iterable[str], *, stale: bool) -> None:
        self.pending = set(task_ids)
        """Of which nothing has been heard yet."""
        self.stale = stale
        """News may have been missed: look at the pending tasks."""
        self._changed = asyncio.Event()
        self._refusal: QueueUnavailableError | None = None

    async def change(self) -> None:
        """Return once nothing is pending any more, or the watch is stale. Raises QueueAuthError."""
        await self._changed.wait()
        self._changed.clear()
        if self._refusal is not None:
            raise self._refusal

    def finish(self, task_id: str) -> None:
        """There is news of the task."""
        self.pending.discard(task_id)
        if not self.pending:
            self._changed.set()

    def spoil(self) -> None:
        """News may have been missed."""
        self.stale = True
        self._changed.set()

    def refuse(self, error: QueueUnavailableError) -> None:
        """There is no subscription, and waiting for one is useless."""
        self._refusal = error
        self._changed.set()


class Watches:
    """All watches for one kind of news. The subscription is made by the first one and stays until it is closed."""

    def __init__(self, server: Server, channel: str) -> None:
        self._subscription = Subscription(server, channel, self)
        self._watches: dict[str, set[Watch]] = {}

    @contextlib.asynccontextmanager
    async def watch(self, task_ids: Iterable[str]) -> AsyncIterator[Watch]:
        """A watch over tasks. It is stale at first if the subscription stands, else as soon as that does."""
        self._subscription.start()
        watch = Watch(task_ids, stale=self._subscription.standing)
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
        await self._subscription.aclose()

    def heard(self, task_ids: list[str]) -> None:
        """See Listener.heard."""
        for task_id in task_ids:
            for watch in tuple(self._watches.get(task_id, ())):
                watch.finish(task_id)

    def missed(self) -> None:
        """See Listener.missed."""
        for watch in self._all():
            watch.spoil()

    def refused(self, error: QueueUnavailableError) -> None:
        """See Listener.refused."""
        for watch in self._all():
            watch.refuse(error)

    def _all(self) -> set[Watch]:
        return {watch for watches in self._watches.values() for watch in watches}


class Revocations:
    """Tasks that were taken away from their workers, for whoever asks."""

    def __init__(self, server: Server, channel: str) -> None:
        self._subscription = Subscription(server, channel, self)
        self._readers: set[asyncio.Queue[list[str] | QueueUnavailableError | None]] = set()

    async def read(self, instance: str) -> AsyncIterator[list[str]]:
        """Ids as they are heard; empty when some may have been missed, or the instance has orders. Ends when closed."""
        orders = f"@{instance}"
        news: asyncio.Queue[list[str] | QueueUnavailableError | None] = asyncio.Queue()
        self._readers.add(news)
        self._subscription.start()
        try:
            while (heard := await news.get()) is not None:
                if isinstance(heard, QueueUnavailableError):
                    raise heard
                if heard and heard[0].startswith("@"):
                    if orders in heard:
                        yield []
                    continue
                yield heard
        finally:
            self._readers.discard(news)

    async def aclose(self) -> None:
        """End the subscription, and all who read."""
        await self._subscription.aclose()
        for reader in self._readers:
            reader.put_nowait(None)

    def heard(self, task_ids: list[str]) -> None:
        """See Listener.heard."""
        for reader in self._readers:
            reader.put_nowait(task_ids)

    def missed(self) -> None:
        """See Listener.missed."""
        for reader in self._readers:
            reader.put_nowait([])

    def refused(self, error: QueueUnavailableError) -> None:
        """See Listener.refused."""
        for reader in self._readers:
            reader.put_nowait(error)
