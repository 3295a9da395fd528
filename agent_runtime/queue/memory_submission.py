# SPDX-License-Identifier: Apache-2.0
"""Letting tasks into a queue in memory: everything is checked before anything is changed."""

from collections.abc import Iterable, Sequence
from datetime import datetime

import orjson

from agent_runtime.queue.base import Gate
from agent_runtime.queue.memory_ledger import Ledger, place_of
from agent_runtime.queue.memory_tasks import StoredTask
from agent_runtime.queue.records import duplicate, encode_tasks, unknown_parent
from kubeagents_api.errors import QueueClosedError, QueueFullError
from kubeagents_api.task import TaskEventKind, TaskRequest, TaskState


class Submission:
    """One batch on its way in. It may be tried again while the queue is full."""

    def __init__(self, ledger: Ledger, tasks: Sequence[TaskRequest]) -> None:
        """Raises InvalidTaskError and its kinds for what is wrong whatever the queue holds."""
        self._ledger = ledger
        self._tasks = tasks
        self._own_ids = [encoded.id for encoded in encode_tasks(tasks, ledger.config)]

    def enter(self) -> list[str]:
        """Let all in, and return their ids; or raise, and have changed nothing."""
        ledger = self._ledger
        ledger.forget_expired()
        if shut := ledger.gates[Gate.SUBMISSIONS]:
            raise QueueClosedError(
                f"the queue {ledger.config.name!r} takes no new tasks: it has been closed by {', '.join(sorted(shut))}"
            )
        ids, merged = self._merge()
        fresh = [index for index in range(len(ids)) if index not in merged]
        for index in fresh:
            if ids[index] in ledger.tasks:
                raise duplicate(self._tasks, index, ledger.config.name)
        parents = self._parents(ids, fresh)
        victims = self._make_room(fresh)
        for victim in victims:
            ledger.cut_short(
                victim,
                TaskState.CANCELLED,
                "SHED",
                "cancelled for tasks of higher priority: the queue is full",
                by="shed",
            )
        stored = {index: self._stored(index, ids[index], parents[index]) for index in fresh}
        ledger.admit(list(stored.values()))
        for index in sorted(merged):
            ledger.log.note(TaskEventKind.MERGED, ids[index])
        return ids

    def _merge(self) -> tuple[list[str], set[int]]:
        """The id of each task, and which of them are merged with an earlier one."""
        ledger = self._ledger
        oldest = ledger.now() - ledger.config.deduplication_seconds * 1000
        first = {key: task_id for key, (task_id, at) in self._known_keys() if at > oldest}
        ids, merged = [], set()
        for index, (task, own_id) in enumerate(zip(self._tasks, self._own_ids, strict=True)):
            key = task.idempotency_key
            if key is None:
                ids.append(own_id)
                continue
            if key in first:
                merged.add(index)
            ids.append(first.setdefault(key, own_id))
        return ids, merged

    def _known_keys(self) -> Iterable[tuple[str, tuple[str, int]]]:
        keys = self._ledger.keys
        wanted = {task.idempotency_key for task in self._tasks}
        return [(key, keys[key]) for key in wanted if key is not None and key in keys]

    def _parents(self, ids: list[str], fresh: list[int]) -> dict[int, tuple[str, ...]]:
        """The ids that each new task depends on, where merged ones count as those they were merged with."""
        new = {ids[index] for index in fresh}
        actual = {own: task_id for own, task_id in zip(self._own_ids, ids, strict=True) if own not in new}
        parents: dict[int, tuple[str, ...]] = {}
        for index in fresh:
            wanted = dict.fromkeys(actual.get(name, name) for name in self._tasks[index].depends_on)
            for name in wanted:
                if name not in new and name not in self._ledger.tasks:
                    raise unknown_parent(self._tasks, index, name, self._ledger.config.name)
            parents[index] = tuple(wanted)
        return parents

    def _make_room(self, fresh: list[int]) -> list[StoredTask]:
        """The tasks that must go. Raises QueueFullError if there is no room."""
        ledger, limits = self._ledger, self._ledger.config.limits
        if limits.max_depth is None:
            return []
        too_many = ledger.depth + len(fresh) - limits.max_depth
        if too_many <= 0 or not fresh:
            return []
        victims: list[StoredTask] = []
        if limits.when_full == "Shed":
            least = min(task.priority for task in self._tasks)
            waiting = [ledger.tasks[task_id] for lane in ledger.lanes.values() for task_id in lane.waiting]
            lower = [task for task in waiting if task.request.priority < least]
            victims = sorted(lower, key=lambda task: task.place, reverse=True)[:too_many]
        if len(victims) < too_many:
            raise QueueFullError(
                f"the queue {ledger.config.name!r} has {ledger.depth} waiting tasks and may have {limits.max_depth} "
                f"(spec.limits.maxDepth): {len(fresh)} more do not fit; nothing was queued"
            )
        return victims

    def _stored(self, index: int, task_id: str, parents: tuple[str, ...]) -> StoredTask:
        task, config, now = self._tasks[index], self._ledger.config, self._ledger.now()
        not_before = _ms_of(task.not_before)
        if task.delay_seconds is not None:
            not_before = now + round(task.delay_seconds * 1000)
        deadline = _ms_of(task.deadline)
        if deadline is None and config.task_ttl_seconds is not None:
            deadline = now + round(config.task_ttl_seconds * 1000)
        return StoredTask(
            id=task_id,
            request=task.model_copy(update={"payload": None, "depends_on": []}),
            payload=orjson.dumps(task.payload),
            depends_on=parents,
            max_attempts=task.max_attempts or config.retry.max_attempts,
            timeout_seconds=task.timeout_seconds or config.task_timeout_seconds,
            created=now,
            not_before=not_before,
            deadline=deadline,
            place=place_of(task.priority, self._ledger.next_order()),
        )


def _ms_of(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)
