# SPDX-License-Identifier: Apache-2.0
"""What stands between a caller and the core, whatever the wire.

An adapter shows `Guard.admit` what came with a call and gets the core as that caller may use it: each method first asks
whether the caller may, and what changes something is noted in the audit log. So no adapter can forget either.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from agent_runtime.adapters.base import Core
from agent_runtime.cancellation import end
from agent_runtime.queue.base import Gate, Worker, WorkerQueue
from agent_runtime.security.audit import Audit
from agent_runtime.security.authenticator import Authenticator
from agent_runtime.security.caller import Caller, Credentials
from agent_runtime.security.guarded_workers import GuardedWorkers
from agent_runtime.security.permissions import Verb, reach, require, require_agents, sees
from agent_runtime.security.rates import Rates
from agent_runtime.security.runtime_keys import RuntimeKeys
from kubeagents_api.access import AuditEntry, KeyInfo, KeyRequest, NewKey
from kubeagents_api.errors import (
    ForbiddenError,
    IssuerUnavailableError,
    KubeagentsError,
    QueueUnavailableError,
    RateLimitedError,
    TaskNotFoundError,
    UnauthenticatedError,
)
from kubeagents_api.interface import InterfaceInfo
from kubeagents_api.schedule_info import ScheduleInfo
from kubeagents_api.task import (
    DeadFilter,
    InstanceInfo,
    QueueStats,
    StreamItem,
    TaskEvent,
    TaskRecord,
    TaskRequest,
    TaskState,
)
from kubeagents_api.work import Terms

T = TypeVar("T")

_RECHECK_SECONDS: Final = 2.0
"""Between two looks whether somebody who follows a stream still may."""
_DENIED = (ForbiddenError, RateLimitedError, UnauthenticatedError)


class Guard:
    """Admits callers."""

    def __init__(
        self,
        core: Core,
        *,
        authenticator: Authenticator,
        rates: Rates,
        audit: Audit,
        keys: RuntimeKeys,
        certificate_required: bool = False,
    ) -> None:
        """With `certificate_required`, who shows no client certificate is refused, whatever else is shown."""
        self._certificate_required = certificate_required
        self._core = core
        self._authenticator = authenticator
        self._rates = rates
        self.audit = audit
        self.keys = keys

    async def admit(self, credentials: Credentials) -> "GuardedCore":
        """The core for whoever shows these.

        Raises UnauthenticatedError, ForbiddenError, RateLimitedError, QueueUnavailableError, IssuerUnavailableError.
        """
        caller = None
        try:
            self._check_certificate(credentials)
            caller = await self._authenticator.authenticate(credentials)
            self._rates.take(caller)
        except _DENIED as error:
            self.audit.note(credentials, caller, verb="call", outcome="denied", code=error.code)
            raise
        return GuardedCore(self._core, self, caller, credentials)

    def admit_anybody(self, credentials: Credentials) -> Core:
        """The core for what needs no key. Raises UnauthenticatedError where clients must show a certificate."""
        try:
            self._check_certificate(credentials)
        except UnauthenticatedError as error:
            self.audit.note(credentials, None, verb="call", outcome="denied", code=error.code)
            raise
        return self._core

    def _check_certificate(self, credentials: Credentials) -> None:
        if self._certificate_required and credentials.certificate is None:
            raise UnauthenticatedError("a client certificate is needed here, besides a key: show one when you connect")

    async def check(self, caller: Caller, credentials: Credentials) -> None:
        """Raises UnauthenticatedError if what was shown was revoked or has expired, or its rights have changed."""
        try:
            if await self._authenticator.authenticate(credentials) == caller:
                return
        except (UnauthenticatedError, ForbiddenError):
            pass
        except (QueueUnavailableError, IssuerUnavailableError):
            return  # what is read comes from there as well, and new calls are refused meanwhile
        raise UnauthenticatedError(f"what {caller.name} has shown ({caller.key}) is not valid any more")

    async def watch(self, caller: Caller, credentials: Credentials) -> None:
        """Check now and then. Ends with UnauthenticatedError only."""
        while True:
            await asyncio.sleep(_RECHECK_SECONDS)
            await self.check(caller, credentials)


@dataclass(slots=True)
class _Change:
    """What a call is about to change, for the audit log."""

    target: str | None


class GuardedCore:
    """The core as one caller may use it. See `Core` for the methods; each also raises ForbiddenError."""

    def __init__(self, core: Core, guard: Guard, caller: Caller, credentials: Credentials) -> None:
        self._core = core
        self._guard = guard
        self._caller = caller
        self._credentials = credentials

    @property
    def caller(self) -> Caller:
        """Who it is."""
        return self._caller

    @property
    def name(self) -> str:
        """See Core."""
        return self._core.name

    @property
    def instance(self) -> str:
        """See Core."""
        return self._core.instance

    @property
    def queue_names(self) -> Sequence[str]:
        """Those that the caller may use. Raises ForbiddenError if there are none."""
        names = tuple(name for name in self._core.queue_names if sees(self._caller, name))
        if not names:
            raise ForbiddenError(f"{self._caller.name} may use none of the queues of this CentralAgent")
        return names

    @property
    def max_payload_bytes(self) -> int:
        """See Core."""
        return self._core.max_payload_bytes

    @property
    def draining(self) -> bool:
        """See Core."""
        return self._core.draining

    async def drained(self) -> None:
        """See Core."""
        await self._core.drained()

    @property
    def leader(self) -> str | None:
        """See Core."""
        return self._core.leader

    def trouble(self, queue: str) -> str | None:
        """See Core."""
        return self._core.trouble(queue)

    def may_block(self, queue: str) -> bool:
        """See Core."""
        return self._core.may_block(queue)

    def named(self, queue: str, tasks: Sequence[TaskRequest]) -> Sequence[TaskRequest]:
        """See Core."""
        return self._core.named(queue, tasks)

    async def submit(self, queue: str, tasks: Sequence[TaskRequest]) -> Sequence[str]:
        """See Core. Who may use some Agents only has to name one of them in each task."""
        target = (tasks[0].id or "a task") if len(tasks) == 1 else f"{len(tasks)} tasks"
        with self._changing(Verb.SUBMIT, "submit", queue, target) as change:
            await self._check_submitted(queue, tasks)
            ids = await self._core.submit(queue, tasks)
            change.target = _named(ids)
            return ids

    async def task(self, queue: str, task_id: str) -> TaskRecord:
        """See Core."""
        self._reading("task", queue)
        return self._visible(await self._core.task(queue, task_id))

    async def results(self, queue: str, task_ids: Sequence[str], *, timeout_seconds: float) -> Sequence[TaskRecord]:
        """See Core."""
        self._reading("results", queue)
        await self._check_tasks(queue, task_ids)
        call = self._core.results(queue, task_ids, timeout_seconds=timeout_seconds)
        return await (self.while_valid(call) if timeout_seconds else call)

    async def cancel(self, queue: str, task_ids: Sequence[str], *, by: str, reason: str) -> Sequence[TaskState]:
        """See Core."""
        with self._changing(Verb.CANCEL, "cancel", queue, _named(task_ids)):
            await self._check_tasks(queue, task_ids)
            return await self._core.cancel(queue, task_ids, by=self._author(by), reason=reason)

    async def stream(self, queue: str, task_id: str, *, after: str) -> AsyncIterator[StreamItem]:
        """See Core. Raises UnauthenticatedError in the midst of it if the key is revoked."""
        self._reading("stream", queue)
        await self._check_tasks(queue, [task_id])
        items = self._core.stream(queue, task_id, after=after)
        async with contextlib.aclosing(self.items_while_valid(items)) as watched:
            async for item in watched:
                yield item

    async def dead(self, queue: str, which: DeadFilter, *, limit: int, after: str) -> Sequence[TaskRecord]:
        """See Core."""
        self._reading("dead", queue)
        require_agents(self._caller, {which.agent})
        return await self._core.dead(queue, which, limit=limit, after=after)

    async def replay(self, queue: str, which: DeadFilter, *, by: str) -> Sequence[str]:
        """See Core."""
        with self._changing(Verb.OPERATE, "replay", queue, _of(which)):
            require_agents(self._caller, {which.agent})
            return await self._core.replay(queue, which, by=self._author(by))

    async def purge(self, queue: str, which: DeadFilter, *, by: str) -> Sequence[str]:
        """See Core."""
        with self._changing(Verb.OPERATE, "purge", queue, _of(which)):
            require_agents(self._caller, {which.agent})
            return await self._core.purge(queue, which, by=self._author(by))

    async def set_gate(self, queue: str, gate: Gate, *, shut: bool, by: str) -> None:
        """See Core."""
        names = {Gate.CLAIMS: ("resume", "pause"), Gate.SUBMISSIONS: ("open", "close")}
        with self._changing(Verb.OPERATE, names[gate][shut], queue):
            self._check_whole()
            await self._core.set_gate(queue, gate, shut=shut, by=self._author(by))

    async def events(self, queue: str, *, after: str, limit: int, wait_seconds: float) -> Sequence[TaskEvent]:
        """See Core."""
        self._reading("events", queue)
        self._check_whole()
        await self._guard.check(self._caller, self._credentials)  # who follows them calls again and again
        call = self._core.events(queue, after=after, limit=limit, wait_seconds=wait_seconds)
        return await (self.while_valid(call) if wait_seconds else call)

    async def schedules(self, queue: str) -> Sequence[ScheduleInfo]:
        """See Core."""
        self._reading("schedules", queue)
        return await self._core.schedules(queue)

    async def stats(self, queue: str) -> QueueStats:
        """See Core."""
        self._reading("stats", queue)
        return await self._core.stats(queue)

    async def set_cordon(self, queue: str, instances: Sequence[str], *, cordoned: bool, by: str) -> None:
        """See Core."""
        verb = "cordon" if cordoned else "uncordon"
        with self._changing(Verb.OPERATE, verb, queue, ", ".join(instances)[:200]):
            self._check_whole()
            await self._core.set_cordon(queue, instances, cordoned=cordoned, by=self._author(by))

    async def instances(self, *, queue: str | None, agent: str | None) -> Sequence[InstanceInfo]:
        """See Core; of the queues and Agents that the caller may use."""
        self._reading("instances", queue)
        found = await self._core.instances(queue=queue, agent=agent)
        agents = reach(self._caller)
        return [one for one in found if sees(self._caller, one.queue) and (agents is None or one.agent in agents)]

    def register(self, queue: str, worker: Worker) -> Terms:
        """See Core."""
        with self.working("register", queue, worker):
            return self._core.register(queue, worker)

    def worker_queue(self, queue: str) -> WorkerQueue:
        """See Core."""
        self.may_work("work", queue)
        return GuardedWorkers(self._core.worker_queue(queue), self)

    async def interfaces(self, *, queue: str | None, max_age_seconds: float = 0.0) -> Sequence[InterfaceInfo]:
        """See Core; of the queues and Agents that the caller may use."""
        self._reading("interfaces", queue)
        found = await self._core.interfaces(queue=queue, max_age_seconds=max_age_seconds)
        agents = reach(self._caller)
        return [one for one in found if sees(self._caller, one.queue) and (agents is None or one.agent in agents)]

    def may_submit(self, queue: str, agent: str | None) -> bool:
        """See Core. Not noted in the audit log, since nothing was tried."""
        try:
            require(self._caller, Verb.SUBMIT, queue=queue)
        except ForbiddenError:
            return False
        agents = reach(self._caller)
        return self._core.may_submit(queue, agent) and (agents is None or agent in agents)

    async def make_key(self, wanted: KeyRequest) -> NewKey:
        """Make an API key. Raises QueueUnavailableError."""
        with self._changing(Verb.ADMINISTER, "make key", None, f"of {wanted.principal}"):
            return await self._guard.keys.make(wanted, by=self._caller.name)

    async def keys(self) -> Sequence[KeyInfo]:
        """The API keys that were made here. Raises QueueUnavailableError."""
        self._reading("keys", None, Verb.ADMINISTER)
        return await self._guard.keys.list()

    async def revoke_key(self, key_id: str) -> None:
        """End an API key. Raises KeyNotFoundError, QueueUnavailableError."""
        with self._changing(Verb.ADMINISTER, "revoke key", None, key_id):
            await self._guard.keys.revoke(key_id)

    async def audit(self, *, after: str, limit: int) -> Sequence[tuple[str, AuditEntry]]:
        """The audit log, oldest first, with offsets. Raises QueueUnavailableError."""
        self._reading("audit", None, Verb.ADMINISTER)
        return await self._guard.audit.read(after=after, limit=limit)

    # What the worker's half of a queue needs.

    def may_work(self, what: str, queue: str, worker: Worker | None = None) -> None:
        """Raises ForbiddenError unless the caller may work for the Agent of the queue."""
        try:
            require(self._caller, Verb.WORK, queue=queue)
            if worker is not None:
                require_agents(self._caller, {worker.agent})
        except ForbiddenError as error:
            self._note(what, "denied", queue=queue, target=worker.instance if worker else None, code=error.code)
            raise

    @contextlib.contextmanager
    def working(self, what: str, queue: str, worker: Worker) -> Iterator[None]:
        """The same around something that is noted in the audit log."""
        with self._changing(Verb.WORK, what, queue, worker.instance):
            require_agents(self._caller, {worker.agent})
            yield

    @contextlib.contextmanager
    def telling(self, what: str, record: TaskRecord) -> Iterator[None]:
        """Around something that has others told of a task: noted in the audit log, and for those who may submit."""
        with self._changing(Verb.SUBMIT, what, record.queue, record.id):
            self._visible(record)
            yield

    async def while_valid(self, call: Awaitable[T]) -> T:
        """Await a call that may take long. Raises UnauthenticatedError in the midst of it if the key is revoked."""
        watch = self._watch()
        try:
            return await _unless_ended(call, watch)
        finally:
            watch.cancel()

    async def items_while_valid(self, items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
        """The items, as long as the key is valid. Closes them at the end."""
        watch = self._watch()
        try:
            while (item := await _unless_ended(anext(items, None), watch)) is not None:
                yield item
        finally:
            watch.cancel()
            if isinstance(items, AsyncGenerator):
                await items.aclose()

    # What the methods have in common.

    def _author(self, by: str) -> str:
        """Only an admin may act in the name of others, for example to take back a pause of theirs."""
        return by if self._caller.role == "admin" and by else self._caller.name

    def _reading(self, what: str, queue: str | None, verb: Verb = Verb.READ) -> None:
        try:
            require(self._caller, verb, queue=queue)
        except ForbiddenError as error:
            self._note(what, "denied", queue=queue, code=error.code)
            raise

    @contextlib.contextmanager
    def _changing(self, verb: Verb, what: str, queue: str | None, target: str | None = None) -> Iterator["_Change"]:
        change = _Change(target)
        try:
            require(self._caller, verb, queue=queue)
            yield change
        except KubeagentsError as error:
            outcome = "denied" if isinstance(error, _DENIED) else "failed"
            self._note(what, outcome, queue=queue, target=change.target, code=error.code)
            raise
        self._note(what, "done", queue=queue, target=change.target)

    def _note(
        self, what: str, outcome: str, *, queue: str | None, target: str | None = None, code: str | None = None
    ) -> None:
        self._guard.audit.note(
            self._credentials, self._caller, verb=what, outcome=outcome, queue=queue, target=target, code=code
        )

    def _visible(self, record: TaskRecord) -> TaskRecord:
        """Somebody's who may use some Agents only, what is for others is not there."""
        agents = reach(self._caller)
        if agents is not None and record.agent not in agents:
            raise TaskNotFoundError(f"there is no task {record.id!r} of the Agents that {self._caller.name} may use")
        return record

    async def _check_tasks(self, queue: str, task_ids: Sequence[str]) -> None:
        if reach(self._caller) is not None and task_ids:
            for record in await self._core.results(queue, task_ids, timeout_seconds=0):
                self._visible(record)

    async def _check_submitted(self, queue: str, tasks: Sequence[TaskRequest]) -> None:
        if reach(self._caller) is None:
            return
        require_agents(self._caller, {task.agent for task in tasks})
        # What a task depends on, its agent can read.
        own = {task.id for task in tasks}
        await self._check_tasks(queue, [parent for task in tasks for parent in task.depends_on if parent not in own])

    def _check_whole(self) -> None:
        """What concerns a whole queue is not for those who may use some Agents only."""
        require_agents(self._caller, {None})

    def _watch(self) -> "asyncio.Task[None]":
        watch = asyncio.create_task(self._guard.watch(self._caller, self._credentials))
        watch.add_done_callback(_noticed)
        return watch


async def _unless_ended(call: Awaitable[T], watch: "asyncio.Task[None]") -> T:
    """What the call returns; if the watch ends before, what it raises."""

    async def awaited() -> T:
        return await call

    coming = asyncio.create_task(awaited())
    coming.add_done_callback(_noticed)
    try:
        await asyncio.wait({coming, watch}, return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            watch.result()
        return coming.result()
    finally:
        await end(coming)


def _noticed(task: "asyncio.Task[Any]") -> None:
    """Its error is not lost, even if something else came first."""
    if not task.cancelled():
        task.exception()


def _named(tasks: Sequence[str]) -> str:
    return tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks"


def _of(which: DeadFilter) -> str:
    return _named(which.ids) if which.ids is not None else "by filter"
