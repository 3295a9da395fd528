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
    from agent_runtime.central import Central
    from agent_runtime.leader.base import Elector
    from agent_runtime.security import Guard

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
"""How long a CentralAgent serves on after it was told to stop: a Service sends new connections until all nodes know."""
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
    async with _open(config.queue, url) as queue:
        consumer = Consumer(
            config,
            instance=instance,
            handler=handler,
            queue=queue,
            link=Link(config.queue.name, metrics=LinkMetrics(registry)),
            registry=registry,
            revision=revision,
        )
        probes = Probes(live=consumer.live, ready=consumer.ready, registry=registry)
        server = HttpServer(probes, host=config.host, port=config.port)
        await server.start()
        host, port = server.address
        _log.info(
            "agent %s takes tasks from queue %s with %s, up to %d at a time; probes on %s:%d",
            config.name,
            config.queue.name,
            config.handler,
            config.concurrency,
            host,
            port,
            extra={"port": port},
        )
        async with _watched_loop(registry):
            await consumer.run(stop=signals.stop, hurry=signals.hurry)
        await server.stop(grace_seconds=1)


async def _run_central(config: CentralAgentConfig, *, instance: str, urls: list[str]) -> None:
    # Only here: an agent's pod needs neither the web framework nor the time to import it.
    from agent_runtime.adapters.base import Listening, Surroundings
    from agent_runtime.adapters.http.web import Web
    from agent_runtime.adapters.registry import adapter as adapter_class
    from agent_runtime.central import Central, Duties, Observer, Schedules, ServedQueue
    from agent_runtime.security import Tls

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
        guard, guarding = _guard(config, central, stack, instance=instance, url=urls[0], registry=registry)
        tls = Tls(config.tls, registry=registry) if config.tls is not None else None
        web = Web(
            core=central,
            guard=guard,
            probes=probes,
            registry=registry,
            host=config.host,
            port=config.port,
            tls=tls.context if tls is not None else None,
        )
        endpoints = dict(config.endpoints)
        adapters = {
            name: adapter_class(name)(
                Surroundings(
                    core=central,
                    guard=guard,
                    web=web,
                    host=config.host,
                    port=port,
                    registry=registry,
                    tls=tls,
                    endpoints=endpoints,
                )
            )
            for name, port in config.endpoints.items()
        }
        for adapter in adapters.values():
            await adapter.start()
        await web.start()
        host, port = web.address
        ports = {name: one.address[1] for name, one in adapters.items() if isinstance(one, Listening)}
        endpoints.update(ports)
        _log.info(
            "central agent %s serves queues %s on %s://%s:%d%s",
            config.name,
            ", ".join(central.queue_names),
            "http" if tls is None else "https",
            host,
            port,
            "".join(f", {name} on {number}" for name, number in ports.items()),
            extra={"port": port, "ports": ports},
        )
        async with _watched_loop(registry), asyncio.TaskGroup() as group:
            runs = [observer.run, duties.run, *guarding, *([tls.run] if tls is not None else [])]
            background = [group.create_task(run()) for run in runs]
            await signals.stop.wait()
            central.drain()
            if config.leader.type == "lease":  # alone means that no Service is in front
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LINGER_SECONDS):
                        await signals.hurry.wait()
            grace = 0 if signals.hurry.is_set() else _REQUEST_GRACE_SECONDS
            await asyncio.gather(
                web.stop(grace_seconds=grace), *(adapter.stop(grace_seconds=grace) for adapter in adapters.values())
            )
            await end(*background)


def _guard(
    config: CentralAgentConfig,
    central: "Central",
    stack: contextlib.AsyncExitStack,
    *,
    instance: str,
    url: str,
    registry: CollectorRegistry,
) -> "tuple[Guard | None, Sequence[Callable[[], Coroutine[Any, Any, None]]]]":
    """What admits callers, if the configuration wants it, and what runs for it in the background."""
    required = config.tls is not None and config.tls.client_auth == "Required"
    if config.access is None or config.keys_path is None:
        if required:
            raise RuntimeConfigError("clients must show a certificate, but nobody is asked who it is: set access")
        return None, ()
    from agent_runtime.queue.access_store import AccessStore
    from agent_runtime.security import (
        Audit,
        Certificates,
        Guard,
        Identities,
        KeyFiles,
        Peers,
        Rates,
        RuntimeKeys,
        Tokens,
        issuer_keys,
    )

    store = AccessStore(config.namespace, config.name, url=url)
    stack.push_async_callback(store.aclose)
    keys, rates, audit = RuntimeKeys(store), Rates(), Audit(store, registry=registry)
    principals = config.access.principals
    issuers = issuer_keys(config.access.issuers, ca=config.issuer_ca, registry=registry)
    identities = Identities(
        KeyFiles(Path(config.keys_path), principals),
        keys,
        tokens=Tokens(issuers),
        certificates=Certificates(principals),
    )
    guard = Guard(central, authenticator=identities, rates=rates, audit=audit, keys=keys, certificate_required=required)
    return guard, (Peers(store, rates, instance=instance).run, audit.run, *(issuer.run for issuer in issuers))


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
