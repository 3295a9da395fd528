# SPDX-License-Identifier: Apache-2.0
"""Replays of dead tasks that people ask for by the annotation `kubeagents.dev/replayDead` on a TaskQueue.

Each new value replays all dead tasks once. What has been done is in the status (`handled.replayDead`). Should this
process end after the replay and before the status says so, the next one replays what has died in between, too: no task
is replayed that was not dead, but some may be that died after the wish.
"""

from typing import NamedTuple

from agent_runtime.queue import TaskQueue
from kubeagents_api.task import DeadFilter
from kubeagents_operator.keys import Key

BY = "operator"
"""Who replays, in the queue's log of events."""


class Replayed(NamedTuple):
    """A wish that has been fulfilled."""

    wish: str
    tasks: int


class Replays:
    """The wishes of each queue, and what came of them."""

    def __init__(self) -> None:
        self._wishes: dict[Key, str] = {}
        self._done: dict[Key, Replayed] = {}

    def ask(self, key: Key, wish: str) -> bool:
        """Have all dead tasks replayed with the next sample; False if that has been asked for already."""
        if self._wishes.get(key) == wish:
            return False
        self._wishes[key] = wish
        return True

    def done(self, key: Key) -> Replayed | None:
        """The last wish that has been fulfilled."""
        return self._done.get(key)

    async def serve(self, key: Key, queue: TaskQueue) -> None:
        """Fulfil the wish, if there is one. Raises QueueUnavailableError; then the rest is done with the next try."""
        wish, done = self._wishes.get(key), self._done.get(key)
        if wish is None or (done is not None and done.wish == wish):
            return
        tasks = await queue.replay(DeadFilter(), by=BY)
        self._done[key] = Replayed(wish, len(tasks))

    def forget(self, key: Key) -> None:
        """The queue is gone."""
        self._wishes.pop(key, None)
        self._done.pop(key, None)
