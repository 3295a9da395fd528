# SPDX-License-Identifier: Apache-2.0
"""A subscription to one channel that is made anew whenever it breaks, and says that messages may have been missed.

Publishing is at most once: what is published while the connection is down is lost. So whoever depends on messages must
look for himself once the subscription stands, and again each time that it had to be made anew.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from typing import Final, Protocol

from redis.asyncio.client import PubSub

from agent_runtime.cancellation import end
from agent_runtime.queue.connection import AUTH_ERRORS, Server
from kubeagents_api.errors import QueueUnavailableError

log = logging.getLogger(__name__)

SILENCE_SECONDS: Final = 15.0
"""After so long without a message the server is asked for a sign of life; after the same again it is given up."""
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 2.0


class Listener(Protocol):
    """Who is told what a subscription hears."""

    def heard(self, task_ids: list[str]) -> None:
        """A message: the ids in it."""
        ...

    def missed(self) -> None:
        """The subscription stands from now on; what came before may have been missed."""
        ...

    def refused(self, error: QueueUnavailableError) -> None:
        """The server refuses us; waiting for the subscription is useless until somebody changes that."""
        ...


class Subscription:
    """It is made by `start` and stays until it is closed."""

    def __init__(self, server: Server, channel: str, listener: Listener) -> None:
        self._server = server
        self._channel = channel
        self._listener = listener
        self._task: asyncio.Task[None] | None = None
        self.standing = False
        """Whether nothing is missed at the moment."""

    def start(self) -> None:
        """Subscribe, unless that has been done."""
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name=f"subscription {self._channel}")

    async def aclose(self) -> None:
        """End the subscription."""
        if self._task is not None:
            await end(self._task)
            self._task = None

    async def _listen(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            subscription: PubSub = self._server.blocking.pubsub()
            try:
                await subscription.subscribe(self._channel)
                async for task_ids in self._messages(subscription):
                    pause = _FIRST_PAUSE_SECONDS
                    if task_ids:
                        self._listener.heard(task_ids)
            except AUTH_ERRORS as error:
                self._listener.refused(self._server.translated(error))
            except Exception as error:  # whatever it was, those who wait depend on there being a next try
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
                self._listener.missed()
                yield []
            elif message["type"] == "message":
                yield message["data"].decode().split(" ")
