# SPDX-License-Identifier: Apache-2.0
"""Run agents outside of a cluster: they take their tasks through a CentralAgent."""

import asyncio
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent_runtime.cli import options
from agent_runtime.cli.errors import EXIT_USAGE, CliError
from agent_runtime.cli.options import KEY_ENV, SERVER_ENV, Target, server_from_environment

if TYPE_CHECKING:
    from agent_runtime.agent import Handler
    from agent_runtime.client import AgentClient
    from agent_runtime.client.remote_queue import RemoteQueue
    from agent_runtime.queue.base import Worker
    from agent_runtime.worker import Consumer
    from kubeagents_api.work import Terms

_DEFAULT_HANDLER = "handle"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_FIRST_CONTACT_SECONDS = 15.0
_CALL_SECONDS = 10.0
"""After which the worker says that there is trouble, and tries again."""
_LONGEST_BEAT_SECONDS = 10
_MISSED_BEATS = 3
_CLOSE_SECONDS = 2.0


def run(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE[:HANDLER]",
            help=f"The Python file, and the handler in it. [dim]Default: {_DEFAULT_HANDLER}.",
            show_default=False,
        ),
    ],
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            metavar="URL[,URL…]",
            help="Where CentralAgents can be reached, in order of preference: grpc://, ws://, http://, or with TLS "
            f"grpcs://, wss://, https://. [dim]Default: ${SERVER_ENV}, or a running `dev`.",
        ),
    ] = None,
    queue: options.Queue = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The Agent's name. [dim]Default: that of the file.")
    ] = None,
    instance: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of this process, unique on the queue. [dim]Default: any.")
    ] = None,
    capability: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="What it is able to do; may be repeated.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=10000, metavar="N", help="Tasks at the same time.")] = 16,
    drain_seconds: Annotated[
        int, typer.Option(min=0, max=86400, metavar="N", help="Time to finish what runs when it is told to stop.")
    ] = 30,
    key_file: options.KeyFile = None,
    ca_file: options.CaFile = None,
    cert_file: options.CertFile = None,
    cert_key_file: options.CertKeyFile = None,
) -> None:
    """Run an agent here, which takes its tasks through a CentralAgent.

    It needs nothing but a way to the CentralAgent, and where that asks for keys, one with the role `agent`. What it
    works on goes on while the connection is down. Ctrl-C: it finishes what runs, and takes nothing new; twice: it gives
    back what runs.

    Examples:

        {prog} agent run my_agent.py --server https://agents.example.com
        {prog} agent run my_agent.py:summarize --server grpc://hub:9090,ws://hub:8080,http://hub:8080
        {prog} agent run ocr.py --capability ocr --concurrency 4 --key-file key.txt
    """
    from agent_runtime.event_loop import new_event_loop
    from agent_runtime.telemetry import logs

    path, _, attribute = file.partition(":")
    named = name or re.sub(r"[^a-z0-9]+", "-", Path(path).stem.lower()).strip("-")
    if not _NAME.fullmatch(named):
        raise CliError(
            f"{named!r} is no name for an Agent: use --name with lower-case letters, digits and hyphens",
            exit_code=EXIT_USAGE,
        )
    start = _Start(
        handler=_load(path, attribute or _DEFAULT_HANDLER),
        target=f"{Path(path).name}:{attribute or _DEFAULT_HANDLER}",
        servers=_servers(server),
        queue=queue,
        name=named,
        instance=instance,
        capabilities=tuple(capability or ()),
        concurrency=concurrency,
        drain_seconds=drain_seconds,
        key_file=key_file,
        ca_file=ca_file,
        cert_file=cert_file,
        cert_key_file=cert_key_file,
    )
    logs.configure(os.environ, process_fields={"agent": named})
    for library in ("httpx", "websockets", "grpc"):  # what goes wrong with them, the client says itself
        logging.getLogger(library).setLevel(logging.ERROR)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_run(start))
        # All is recorded and given back by now. Threads that handlers have left behind would keep the process for ever.
        timer = threading.Timer(_CLOSE_SECONDS, os._exit, (0,))
        timer.daemon = True
        timer.start()


COMMANDS = ((("run",), run),)


@dataclass(frozen=True)
class _Start:
    """What is to run, and where."""

    handler: "Handler"
    target: str
    servers: list[str]
    queue: str | None
    name: str
    instance: str | None
    capabilities: tuple[str, ...]
    concurrency: int
    drain_seconds: int
    key_file: Path | None
    ca_file: Path | None
    cert_file: Path | None
    cert_key_file: Path | None


async def _run(start: _Start) -> None:
    from agent_runtime.cancellation import end
    from agent_runtime.client.agent_client import instance_name
    from agent_runtime.client.calls import Calls
    from agent_runtime.client.remote_queue import RemoteQueue
    from agent_runtime.queue.base import Worker
    from agent_runtime.telemetry.link import Link
    from agent_runtime.telemetry.loop_watch import LoopWatch
    from agent_runtime.telemetry.metrics import LinkMetrics, LoopMetrics, new_registry
    from agent_runtime.worker import Consumer
    from kubeagents_api.runtime_config import AgentConfig, QueueConfig

    stop, hurry = asyncio.Event(), asyncio.Event()
    worker = Worker(start.name, start.instance or instance_name(start.name), start.capabilities)
    async with _client(start) as client:
        queue, terms = await _registered(client, worker, start)
        beat = max(1, min(_LONGEST_BEAT_SECONDS, int(terms.agent_timeout_seconds / _MISSED_BEATS)))
        config = AgentConfig(
            name=start.name,
            namespace=terms.namespace,
            queue=QueueConfig(
                name=queue.name,
                namespace=terms.namespace,
                url_env="",
                lease_seconds=terms.lease_seconds,
                max_payload_bytes=terms.max_payload_bytes,
            ),
            handler=start.target,
            capabilities=list(start.capabilities),
            concurrency=start.concurrency,
            drain_seconds=start.drain_seconds,
            heartbeat_seconds=beat,
            port=0,
        )
        registry = new_registry("agent")
        consumer = Consumer(
            config,
            instance=worker.instance,
            handler=start.handler,
            queue=RemoteQueue(
                Calls(client.pool, timeout_seconds=_CALL_SECONDS), queue.name, most_bytes=terms.max_payload_bytes
            ),
            link=Link(queue.name, metrics=LinkMetrics(registry)),
            registry=registry,
        )
        _listen(stop, hurry, lambda: consumer.running)
        known = asyncio.create_task(_tell(consumer, client, worker, queue.name, start))
        watch = asyncio.create_task(LoopWatch(LoopMetrics(registry)).run())
        try:
            await consumer.run(stop=stop, hurry=hurry)
        finally:
            await end(known, watch)
    _say(f"agent {start.name} has stopped")


async def _tell(consumer: "Consumer", client: "AgentClient", worker: "Worker", queue: str, start: _Start) -> None:
    await consumer.known()
    able = f", able to do {', '.join(worker.capabilities)}" if worker.capabilities else ""
    _say(
        f"agent {worker.agent} takes tasks from queue {queue} with {start.target}{able}, up to {start.concurrency} at "
        f"a time, through {client.endpoint or start.servers[0]}; process {worker.instance}. Ctrl-C stops it"
    )


def _client(start: _Start) -> "AgentClient":
    from agent_runtime.client import AgentClient, EndpointError

    key = None if start.key_file is not None else options.api_key(Target())
    try:
        return AgentClient(
            start.servers,
            key=key,
            key_file=start.key_file,
            queue=start.queue,
            ca_file=start.ca_file,
            cert_file=start.cert_file,
            cert_key_file=start.cert_key_file,
        )
    except EndpointError as error:
        raise CliError(str(error), exit_code=EXIT_USAGE) from error


async def _registered(client: "AgentClient", worker: "Worker", start: _Start) -> "tuple[RemoteQueue, Terms]":
    """The queue, once a CentralAgent has said that the process may work there. Raises CliError with what to do."""
    from agent_runtime.client.calls import Calls
    from agent_runtime.client.remote_queue import RemoteQueue
    from kubeagents_api.errors import (
        ForbiddenError,
        KubeagentsError,
        QueueNotFoundError,
        QueueUnavailableError,
        UnauthenticatedError,
    )

    calls = Calls(client.pool, timeout_seconds=_FIRST_CONTACT_SECONDS)
    try:
        name = await calls.queue_name(start.queue)
        queue = RemoteQueue(calls, name)
        return queue, await queue.register(worker)
    except QueueUnavailableError as error:
        raise CliError(f"{error}\nCheck --server: {', '.join(start.servers)}") from error
    except UnauthenticatedError as error:
        raise CliError(f"{error}\nPut the key into {KEY_ENV}, or into a file for --key-file") from error
    except ForbiddenError as error:
        raise CliError(
            f"{error}\nThe key must be of a principal with the role agent, for the Agent {start.name!r}"
        ) from error
    except QueueNotFoundError as error:
        raise CliError(f"{error}\nName one with --queue") from error
    except KubeagentsError as error:
        raise CliError(str(error)) from error


def _listen(stop: asyncio.Event, hurry: asyncio.Event, running: Callable[[], int]) -> None:
    def received() -> None:
        if stop.is_set():
            _say("giving back what runs")
            hurry.set()
            return
        stop.set()
        count = running()
        waits = f"{count} {'task runs' if count == 1 else 'tasks run'}, once more gives back what runs"
        _say(f"stopping: {waits}" if count else "stopping")

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received)


def _servers(server: str | None) -> list[str]:
    """The URLs. Raises CliError if there are none."""
    given = server if server is not None else server_from_environment()
    if given is not None:
        return [url for url in re.split(r"[,\s]+", given) if url]
    from agent_runtime.cli.server import find_server

    found = find_server(Target(), needs_key=False)
    if found.connection:
        raise CliError(
            f"the way to {found.describe()} leads through the Kubernetes API server, which an agent cannot take: give "
            "a URL of the CentralAgent with --server, for example that of an Ingress or of a port-forward",
            exit_code=EXIT_USAGE,
        )
    return [found.url]


def _load(path: str, attribute: str) -> "Handler":
    """The handler. Raises CliError that says what is wrong with the file."""
    from agent_runtime.agent import load_handler
    from kubeagents_api.errors import HandlerNotFoundError

    file = Path(path)
    if not file.is_file():
        raise CliError(f"there is no file {path!r}: give the Python file with the handler", exit_code=EXIT_USAGE)
    if file.suffix != ".py" or not file.stem.isidentifier():
        raise CliError(
            f"{path!r} is not a module of Python: its name must be letters, digits and underscores, and end in .py",
            exit_code=EXIT_USAGE,
        )
    try:
        return load_handler(f"{file.stem}:{attribute}", code_path=str(file.resolve().parent))
    except HandlerNotFoundError as error:
        raise CliError(f"{path}: {error}", exit_code=EXIT_USAGE) from error


def _say(text: str) -> None:
    print(text, file=sys.stdout, flush=True)
