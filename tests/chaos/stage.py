# SPDX-License-Identifier: Apache-2.0
"""Where a round takes place: a Redis of its own, the way to it, and who works there."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from kubeagents_api.runtime_config import AgentConfig, QueueConfig
from kubeagents_api.task_queue import RetryPolicy
from tests.chaos import producer, worker
from tests.chaos.crew import END_SECONDS, Crew, Member
from tests.chaos.errands import Mix
from tests.chaos.producer import ProducerOrders
from tests.chaos.storage import Alone, Replicated, Storage
from tests.chaos.worker import WorkerOrders
from tests.support.eventually import eventually_async
from tests.support.redis_server import RedisServer
from tests.support.runtime_process import RuntimeProcess
from tests.support.tcp_proxy import TcpProxy

LEASE_SECONDS = 1.5
HANDLERS = Path(__file__).parent / "handlers"


def queue_config(**changes: Any) -> QueueConfig:
    """The queue of a round."""
    return QueueConfig(
        name="chaos",
        namespace="tests",
        url_env="KUBEAGENTS_QUEUE_0_URL",
        retry=RetryPolicy(max_attempts=20, initial_seconds=0.05, max_seconds=0.5),
        lease_seconds=LEASE_SECONDS,
        keep_events=10_000_000,
    ).model_copy(update=changes)


@dataclass(frozen=True, slots=True)
class Layout:
    """Who takes part in a round."""

    workers: int = 4
    producers: int = 2
    agents: int = 0
    """Processes of `python -m agent_runtime`."""
    names: tuple[str, ...] = ("chaos",)
    """Of the Agents that the workers belong to, in turn."""
    proxied: bool = False
    """Whether all connections lead through the proxy."""
    replicated: bool = False
    """Whether there are replicas and Sentinels. Then nothing leads through the proxy."""


@dataclass
class Stage:
    """One round's world. Use it as an async context manager: nothing is left of it but its folder."""

    folder: Path
    """For journals and the server's files. Must exist and be empty."""
    seed: str
    binary: Path
    layout: Layout = field(default_factory=Layout)
    queue: QueueConfig = field(default_factory=queue_config)
    sabotage: str = ""
    """How the workers' queues are broken on purpose, see `sabotage`."""
    faults: Counter[str] = field(default_factory=Counter)
    """What was done to it."""

    def __post_init__(self) -> None:
        self.dice = random.Random(f"{self.seed}/stage")
        self.crew = Crew()
        self.workers: list[Member] = []
        self.producers: list[Member] = []
        self.agents: list[RuntimeProcess] = []
        self.former_agents: list[RuntimeProcess] = []
        self._orders: dict[str, ProducerOrders] = {}
        self._generations: Counter[str] = Counter()
        self._changes: dict[str, Any] = {}
        self._later: set[asyncio.Task[None]] = set()
        self._owed: list[Callable[[], None]] = []
        self._stack = contextlib.AsyncExitStack()
        self.journals = self.folder / "journals"
        self.storage: Storage
        self.proxy: TcpProxy

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            self.journals.mkdir()
            data = self.folder / "redis"
            data.mkdir()
            self.storage = Replicated(self.binary, data) if self.layout.replicated else Alone(self.binary, data)
            stack.callback(self.storage.__exit__)
            await asyncio.to_thread(self.storage.__enter__)
            self.proxy = await stack.enter_async_context(TcpProxy(target_port=self.server.port))
            stack.enter_context(self.crew)
            stack.callback(self._end_agents)
            stack.push_async_callback(self._cancel_later)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def server(self) -> RedisServer:
        """The server in charge."""
        return self.storage.server

    @property
    def url(self) -> str:
        """Where those who take part connect."""
        return self.proxy_url if self.layout.proxied else self.storage.url

    @property
    def proxy_url(self) -> str:
        """The way through the proxy."""
        return f"redis://127.0.0.1:{self.proxy.port}/0"

    @property
    def own_url(self) -> str:
        """Where the harness connects: what it asks must not be disturbed."""
        return self.storage.url

    def start_workers(self, **changes: Any) -> None:
        """Start all workers and agents of the layout. What is changed in their orders holds for replacements too."""
        self._changes = changes
        for slot in range(self.layout.workers):
            self.start_worker(slot)
        for _ in range(self.layout.agents):
            self.start_agent()

    def start_worker(self, slot: int, **changes: Any) -> Member:
        """Start the next worker of a slot. Further arguments change its orders."""
        name = self._next(f"worker-{slot}")
        names = self.layout.names
        orders = WorkerOrders(
            name=name,
            agent=names[slot % len(names)],
            url=self.url,
            queue=self.queue,
            folder=self.journals,
            seed=self.seed,
            sabotage=self.sabotage,
        )
        member = self.crew.start(name, worker.run, replace(orders, **{**self._changes, **changes}), log=self._log(name))
        if slot < len(self.workers):
            self.workers[slot] = member
        else:
            self.workers.append(member)
        return member

    def journal(self, member: Member) -> Path:
        """Where a process writes down what it does."""
        return self.journals / f"{member.name}.journal"

    def journal_of_agent(self, process: RuntimeProcess) -> Path:
        """The same for the handler of an agent, see handlers/errands.py."""
        return self.journals / f"agent-{process.running.pid}.journal"

    async def at_work(self) -> None:
        """Return when all have begun to work, that is: have a journal."""
        journals = [self.journal(member) for member in self.workers]
        journals += [self.journal_of_agent(process) for process in self.agents]

        async def there() -> bool:
            return all(journal.exists() for journal in journals)

        await eventually_async(there, what="all workers have begun", timeout=END_SECONDS)

    def last_words(self, member: Member) -> str:
        """The end of what a process has printed."""
        return self._log(member.name).read_text(errors="replace")[-2000:]

    def start_producers(self, *, mix: Mix, tasks: int, seconds: float, batch_size: int, cancels: bool) -> None:
        """Start the producers: they submit so many tasks together, spread over some seconds."""
        batches = max(1, round(tasks / self.layout.producers / batch_size))
        for slot in range(self.layout.producers):
            name = f"producer-{slot}"
            self._orders[name] = ProducerOrders(
                name=name,
                producer=name,
                url=self.url,
                queue=self.queue,
                folder=self.journals,
                seed=self.seed,
                mix=mix,
                batches=batches,
                batch_size=batch_size,
                pause_seconds=seconds / batches,
                cancels=cancels,
            )
            self.producers.append(self._start_producer(name))

    def restart_producer(self, slot: int) -> None:
        """Start the next generation of a producer."""
        self.producers[slot] = self._start_producer(f"producer-{slot}")

    def _start_producer(self, producer_name: str) -> Member:
        name = self._next(producer_name)
        return self.crew.start(name, producer.run, replace(self._orders[producer_name], name=name), log=self._log(name))

    def start_agent(self) -> RuntimeProcess:
        """Start a process of an Agent, with the handler of the round."""
        name = self._next("agent")
        config = AgentConfig(
            name=self.layout.names[0],
            namespace="tests",
            queue=self.queue,
            handler="errands:work",
            code_path=str(HANDLERS),
            concurrency=200,
            drain_seconds=2,
            heartbeat_seconds=1,
            host="127.0.0.1",
            port=0,
        )
        process = RuntimeProcess(
            config=config,
            folder=self.folder,
            instance=name.replace(".", "-"),
            urls=[self.url],
            environment={"CHAOS_FOLDER": str(self.journals), "CHAOS_SEED": self.seed},
        )
        self.agents.append(process.start())
        return process

    def replace_agent(self, process: RuntimeProcess) -> None:
        """Another one takes its place."""
        self.agents.remove(process)
        self.former_agents.append(process)
        self.start_agent()

    def _log(self, name: str) -> Path:
        return self.journals / f"{name}.log"

    def _next(self, slot: str) -> str:
        self._generations[slot] += 1
        return f"{slot}.{self._generations[slot]}"

    def later(self, moment: Callable[[], Awaitable[object]], do: Callable[[], None]) -> None:
        """Do something when the moment has come, or when all shall be calm."""
        self._owed.append(do)

        async def wait() -> None:
            await moment()
            self._owed.remove(do)
            do()

        self._later.add(asyncio.create_task(wait()))

    async def calm(self) -> None:
        """End all faults: whoever is frozen wakes up, the way is free, the server runs."""
        await self._cancel_later()
        for do in self._owed:
            do()
        self._owed.clear()
        self.proxy.delay_seconds = 0.0
        for member in self.crew.members:
            if member.frozen:
                member.thaw()
        await asyncio.to_thread(self.storage.heal)

    async def _cancel_later(self) -> None:
        for task in self._later:
            task.cancel()
        for result in await asyncio.gather(*self._later, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
        self._later.clear()

    def _end_agents(self) -> None:
        for process in (*self.agents, *self.former_agents):
            process.__exit__()
