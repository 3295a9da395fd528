# SPDX-License-Identifier: Apache-2.0
"""The composition root: reads the environment, builds the parts of an Agent or a CentralAgent, and ends them in order.

Exit codes: 0 stopped as told; 78 (EX_CONFIG) cannot ever work as configured, the termination log says why; 1 broken.
An unreachable Redis is none of these: the process waits for it, and is not ready meanwhile.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from agent_runtime import garbage
from agent_runtime.agent import BatchHandler, Handler, load_batch_handler, load_handler
from agent_runtime.cancellation import end
from agent_runtime.event_loop import new_event_loop
from agent_runtime.queue import TaskQueue, open_queue
from agent_runtime.telemetry import logs
from agent_runtime.telemetry.http_server import HttpServer
from agent_runtime.telemetry.link import Link
from agent_runtime.telemetry.loop_watch import LoopWatch
from agent_runtime.telemetry.metrics import LinkMetrics, LoopMetrics, new_registry
from agent_runtime.telemetry.probes import Probes
from kubeagents_api.conditions import Reason
from kubeagents_api.errors import HandlerNotFoundError, PermanentError, RedisUrlError, RuntimeConfigError
from kubeagents_api.labels import CONFIG_ENV, INSTANCE_ENV, REVISION_ENV, TERMINATION_LOG_ENV
from kubeagents_api.runtime_config import AgentConfig, CentralAgentConfig, QueueConfig, load

if TYPE_CHECKING:  # its package imports the Kubernetes client, which an agent's pod never needs
    from agent_runtime.central.dedicated import Dedicated
    from agent_runtime.leader.base import Elector
    from agent_runtime.serving import Serving

_log = logging.getLogger(__name__)

EXIT_CONFIG = 78
_REASONS: dict[type[PermanentError], Reason] = {
    HandlerNotFoundError: Reason.HANDLER_NOT_FOUND,
    RedisUrlError: Reason.REDIS_URL_INVALID,
    RuntimeConfigError: Reason.RUNTIME_CONFIG_INVALID,
}
_TERMINATION_LIMIT = 3000
"""Characters of a message in the termination log, of which the kubelet keeps 4096 bytes."""
_LINGER_SECONDS = 3.0
"""How long a process serves on after it was told to stop: a Service sends new connections until all nodes know."""
_REQUEST_GRACE_SECONDS = 10.0
_CLOSE_SECONDS = 2.0


def main(environ: Mapping[str, str]) -> int:
    """Run the process that the environment describes, until a signal ends it. Returns the exit code.

    The caller must exit with it at once: soon after the last event loop has ended, the process is ended by force.
    """
    code = 1
    try:
        logs.configure(environ)
        config = load(Path(_variable(environ, CONFIG_ENV, "the path of the RuntimeConfig")))
        instance = _variable(environ, INSTANCE_ENV, "a name that no other process has; in a cluster the pod's")
        kind = "agent" if isinstance(config, AgentConfig) else "centralAgent"
        logs.configure(environ, process_fields={kind: config.name, "instance": instance})
        match config:
            case AgentConfig():
                running = _prepare_agent(config, environ, instance=instance)
            case CentralAgentConfig():
                running = _prepare_central(config, environ, instance=instance)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            try:
                runner.run(running)
                code = 0
            finally:
                _end_by_force(lambda: code)
    except PermanentError as error:
        code = EXIT_CONFIG
        _report(error, environ)
    except Exception:
        _log.exception("broken, which is a fault of the runtime or of its surroundings")
    else:
        _log.info("stopped")
    return code


def _end_by_force(code: Callable[[], int]) -> None:
    """End the process if Python does not manage to within two seconds.

    All is recorded and given back by now. But Python waits without end for what handlers may have left behind: tasks
    that ignore their cancellation, and threads of `asyncio.to_thread`, which cannot be cancelled.
    """

    def end() -> None:
        _log.warning("stopped; what handlers have left running is cut off")
        logging.shutdown()
        os._exit(code())

    timer = threading.Timer(_CLOSE_SECONDS, end)
    timer.daemon = True
    timer.start()


@dataclass(frozen=True, slots=True)
class _Signals:
    """SIGTERM or SIGINT: the first one asks to stop, the second one to hurry."""

    stop: asyncio.Event
    hurry: asyncio.Event

    @classmethod
    def listen(cls) -> "_Signals":
        signals = cls(asyncio.Event(), asyncio.Event())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, signals._received, number.name)
        return signals

    def _received(self, name: str) -> None:
        again = self.stop.is_set()
        _log.info("%s: %s", name, "hurrying" if again else "stopping")
        (self.hurry if again else self.stop).set()


def _prepare_agent(config: AgentConfig, environ: Mapping[str, str], *, instance: str) -> Coroutine[Any, Any, None]:
    load_it = load_handler if config.batch is None else load_batch_handler
    handler = load_it(config.handler, code_path=config.code_path)
    url = _queue_url(environ, config.queue)
    revision = environ.get(REVISION_ENV, "")
    return _run_agent(config, instance=instance, revision=revision, handler=handler, url=url)


def _prepare_central(
    config: CentralAgentConfig, environ: Mapping[str, str], *, instance: str
) -> Coroutine[Any, Any, None]:
    urls = [_queue_url(environ, queue) for queue in config.queues]
    return _run_central(config, instance=instance, urls=urls)


async def _run_agent(
    config: AgentConfig, *, instance: str, revision: str, handler: Handler | BatchHandler, url: str
) -> None:
    from agent_runtime.worker import Consumer

    signals = _Signals.listen()
    registry = new_registry("agent")
    async with _open(config.queue, url) as queue, contextlib.AsyncExitStack() as stack:
        link = Link(config.queue.name, metrics=LinkMetrics(registry))
        consumer = Consumer(
            config,
            instance=instance,
            handler=handler,
            queue=queue,
            link=link,
            registry=registry,
            revision=revision,
        )
        probes = Probes(live=consumer.live, ready=consumer.ready, registry=registry)
        server: HttpServer | Serving
        runs: Sequence[Callable[[], Coroutine[Any, Any, None]]] = ()
        ports: Callable[[], Mapping[str, int]] = dict
        if config.endpoints:
            server, core = _own_endpoints(
                config, stack, instance=instance, queue=queue, link=link, url=url, probes=probes, registry=registry
            )
            runs, ports = (*server.runs, lambda: _drain_when(signals.stop, core)), server.ports
        else:
            server = HttpServer(probes, host=config.host, port=config.port)
        await server.start()
        host, port = server.address
        _log.info(
            "agent %s takes tasks from queue %s with %s, up to %d at a time; probes on %s:%d%s",
            config.name,
            config.queue.name,
            config.handler,
            config.concurrency,
            host,
            port,
            f"; serves {', '.join(config.endpoints)}" if config.endpoints else "",
            extra={"port": port, **_ports(ports())},
        )
        garbage.spare_what_stays()
        async with _watched_loop(registry), asyncio.TaskGroup() as group:
            background = [group.create_task(run()) for run in runs]
            await consumer.run(stop=signals.stop, hurry=signals.hurry)
            if config.access is not None:  # without, no Service is in front
                await _linger(signals)
            await server.stop(grace_seconds=_REQUEST_GRACE_SECONDS if config.endpoints else 1)
            await end(*background)


def _own_endpoints(
    config: AgentConfig,
    stack: contextlib.AsyncExitStack,
    *,
    instance: str,
    queue: TaskQueue,
    link: Link,
    url: str,
    probes: Probes,
    registry: CollectorRegistry,
) -> "tuple[Serving, Dedicated]":
    """What serves an Agent's own endpoints, and the core behind them."""
    from agent_runtime.central import ServedQueue
    from agent_runtime.central.dedicated import Dedicated
    from agent_runtime.security import OfOneAgent
    from agent_runtime.serving import Serving

    core = Dedicated(config, instance=instance, queue=ServedQueue(config.queue, queue, link))
    serving = Serving(
        config,
        core,
        stack,
        instance=instance,
        url=url,
        store=f"agent.{config.name}",  # no CentralAgent can have this name
        probes=probes,
        registry=registry,
        narrow=lambda authenticator: OfOneAgent(authenticator, config.name),
    )
    return serving, core


async def _drain_when(stop: asyncio.Event, core: "Dedicated") -> None:
    await stop.wait()
    core.drain()


async def _linger(signals: _Signals) -> None:
    """Serve on for a while."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            await signals.hurry.wait()


async def _run_central(config: CentralAgentConfig, *, instance: str, urls: list[str]) -> None:
    # Only here: an agent's pod needs neither the web framework nor the time to import it.
    from agent_runtime.central import Central, Duties, Observer, Schedules, ServedQueue
    from agent_runtime.serving import Serving

    signals = _Signals.listen()
    registry = new_registry("central")
    link_metrics = LinkMetrics(registry)
    async with contextlib.AsyncExitStack() as stack:
        queues = [
            ServedQueue(
                config=queue,
                queue=await stack.enter_async_context(_open(queue, url)),
                link=Link(queue.name, metrics=link_metrics),
            )
            for queue, url in zip(config.queues, urls, strict=True)
        ]
        elector = await stack.enter_async_context(_elector(config, instance=instance))
        central = Central(config, instance=instance, queues=queues, elector=elector)
        timeout = config.agent_timeout_seconds
        observer = Observer(central, queues, agent_timeout_seconds=timeout, registry=registry)
        schedules = Schedules(config.schedules, queues, elector=elector, registry=registry)
        duties = Duties(elector, queues, schedules=schedules, agent_timeout_seconds=timeout, registry=registry)
        probes = Probes(live=observer.live, ready=observer.ready, registry=registry)
        serving = Serving(
            config,
            central,
            stack,
            instance=instance,
            url=urls[0],
            store=config.name,
            probes=probes,
            registry=registry,
        )
        await serving.start()
        _log.info(
            "central agent %s serves queues %s on %s",
            config.name,
            ", ".join(central.queue_names),
            _addresses(serving),
            extra={"port": serving.address[1], **_ports(serving.ports())},
        )
        garbage.spare_what_stays()
        async with _watched_loop(registry), asyncio.TaskGroup() as group:
            background = [group.create_task(run()) for run in (observer.run, duties.run, *serving.runs)]
            await signals.stop.wait()
            central.drain()
            if config.leader.type == "lease":  # alone means that no Service is in front
                await _linger(signals)
            grace = 0 if signals.hurry.is_set() else _REQUEST_GRACE_SECONDS
            await serving.stop(grace_seconds=grace)
            await end(*background)


def _ports(others: Mapping[str, int]) -> dict[str, Mapping[str, int]]:
    return {"ports": others} if others else {}


def _addresses(serving: "Serving") -> str:
    host, port = serving.address
    others = "".join(f", {name} on {number}" for name, number in serving.ports().items())
    return f"{serving.scheme}://{host}:{port}{others}"


@contextlib.asynccontextmanager
async def _open(config: QueueConfig, url: str) -> AsyncIterator[TaskQueue]:
    queue = open_queue(config, url=url)
    try:
        yield queue
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await queue.aclose()


@contextlib.asynccontextmanager
async def _elector(config: CentralAgentConfig, *, instance: str) -> "AsyncIterator[Elector]":
    """A candidate for leadership, which it hands over at the end."""
    async with contextlib.AsyncExitStack() as stack:
        elector: Elector
        if config.leader.type == "lease":
            from kubernetes.aio.config import ConfigException

            from agent_runtime.leader import LeaseElector, connect

            try:
                client = await connect()
            except ConfigException as error:
                raise RuntimeConfigError(f"leader election by Lease needs a way to the API server: {error}") from error
            stack.push_async_callback(client.close)
            elector = LeaseElector(
                client=client,
                identity=instance,
                namespace=config.namespace,
                name=config.leader.lease_name,
                duration_seconds=config.leader.lease_duration_seconds,
                create=False,  # the operator does, so that the Lease goes when the CentralAgent goes
            )
        else:
            from agent_runtime.leader.alone import AloneElector

            elector = AloneElector(identity=instance)
        await elector.start()
        stack.push_async_callback(elector.stop)
        yield elector


@contextlib.asynccontextmanager
async def _watched_loop(registry: CollectorRegistry) -> AsyncIterator[None]:
    watch = asyncio.create_task(LoopWatch(LoopMetrics(registry)).run(), name="loop-watch")
    try:
        yield
    finally:
        await end(watch)


def _variable(environ: Mapping[str, str], name: str, meaning: str) -> str:
    value = environ.get(name)
    if not value:
        raise RuntimeConfigError(f"the environment variable {name} is not set: it must be {meaning}")
    return value


def _queue_url(environ: Mapping[str, str], queue: QueueConfig) -> str:
    return _variable(environ, queue.url_env, f"the Redis URL of queue {queue.name}")


def _report(error: PermanentError, environ: Mapping[str, str]) -> None:
    """One log line, and the same for the operator."""
    if not logging.getLogger().handlers:
        logs.configure({})  # what is wrong is the configuration of the logs
    reason = next((_REASONS[kind] for kind in type(error).__mro__ if kind in _REASONS), Reason.RUNTIME_CONFIG_INVALID)
    message = str(error)
    _log.error("cannot start: %s", message, extra={"reason": reason.value})
    path = environ.get(TERMINATION_LOG_ENV)
    if path:
        try:
            text = json.dumps({"reason": reason.value, "message": message[:_TERMINATION_LIMIT]})
            Path(path).write_text(text, encoding="utf-8")
        except OSError as trouble:
            _log.warning("cannot write the termination log %s: %s", path, trouble)
