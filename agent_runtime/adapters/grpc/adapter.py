# SPDX-License-Identifier: Apache-2.0
"""The adapter for gRPC: its server, from the start to the drain."""

import asyncio
import logging
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from grpc_reflection.v1alpha.reflection import aio as aio_reflection

from agent_runtime.adapters.base import Surroundings
from agent_runtime.adapters.grpc.encryption import server_credentials
from agent_runtime.adapters.grpc.envelope import Envelope, Methods
from agent_runtime.adapters.grpc.queues import Queues
from agent_runtime.adapters.grpc.tasks import Tasks
from agent_runtime.adapters.grpc.work import Work
from agent_runtime.cancellation import end
from agent_runtime.protos.kubeagents.v1 import kubeagents_pb2 as pb
from kubeagents_api.errors import RuntimeConfigError

_log = logging.getLogger(__name__)

_ENVELOPE_BYTES: Final = 64 * 1024
"""What a message may have besides a payload."""
_USUAL_BYTES: Final = 4 * 1024 * 1024
"""The largest message by default, in all implementations."""


class GrpcAdapter:
    """Serves gRPC on a port of its own."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._core = core = surroundings.core
        self._host, self._port = surroundings.host, surroundings.port
        self._tls = surroundings.tls
        self._tasks = Tasks()
        self._health = health.HealthServicer()
        self._envelope = Envelope(core=core, guard=surroundings.guard, registry=surroundings.registry)
        self._methods = Methods()
        services = pb.DESCRIPTOR.services_by_name
        for name, servant in (("Tasks", self._tasks), ("Queues", Queues()), ("Work", Work())):
            self._envelope.serve(self._methods, services[name], servant)
        self._names = [service.full_name for service in services.values()]
        if "a2a" in surroundings.endpoints:
            from agent_runtime.adapters.a2a.grpc_binding import add_a2a_service  # takes a while, and not all want it

            self._names.append(add_a2a_service(self._envelope.adopter(self._methods), surroundings))
        public = self._envelope.adopter(self._methods, public=True)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, public)
        names = [*self._names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME]
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(aio_reflection.ReflectionServicer(names), public)
        self._server: grpc.aio.Server | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: host and port."""
        return self._host, self._port

    async def start(self) -> None:
        """Listen. Raises RuntimeConfigError if the address cannot be had."""
        largest = max(_USUAL_BYTES, self._core.max_payload_bytes + _ENVELOPE_BYTES)
        server = grpc.aio.server(handlers=[self._methods], options=_options(largest))
        for name in self._names:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            address = f"{host}:{self._port}"
            if self._tls is None:
                self._port = server.add_insecure_port(address)
            else:
                self._port = server.add_secure_port(address, server_credentials(self._tls))
        except RuntimeError as error:
            raise RuntimeConfigError(
                f"cannot listen on {self._host}:{self._port} for gRPC: free the port or configure another"
            ) from error
        await server.start()
        self._server = server
        self._watch = asyncio.create_task(self._until_drained(), name="grpc-health")

    async def stop(self, *, grace_seconds: float) -> None:
        """Take nothing new, let running calls end within the grace, then cut them."""
        if self._server is None or self._watch is None:
            return
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_seconds)
        await self._tasks.aclose()
        await end(self._watch)

    async def _until_drained(self) -> None:
        """Health says so before the server takes no calls any more: balancers need a moment to hear it."""
        await self._core.drained()
        await self._health.enter_graceful_shutdown()


def _options(largest_message: int) -> list[tuple[str, int]]:
    minute = 60_000
    return [
        ("grpc.max_receive_message_length", largest_message),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # a second process on the same port is a mistake
        # Connections that have died are noticed, those of clients that are just silent live.
        ("grpc.keepalive_time_ms", minute),
        ("grpc.keepalive_timeout_ms", minute // 3),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", minute // 12),
        # Clients look for replicas anew now and then; calls that run go on.
        ("grpc.max_connection_age_ms", 30 * minute),
        ("grpc.max_concurrent_streams", 10_000),
    ]
