# SPDX-License-Identifier: Apache-2.0
"""The protocols by which clients reach agents, and the ports they are on."""

from typing import Final, Literal

from kubeagents_api.labels import GRPC_PORT, ZEROMQ_PORT

Endpoint = Literal["a2a", "grpc", "http", "mcp", "websocket", "zeromq"]
"""A protocol that a pod serves."""

OWN_PORTS: Final[dict[Endpoint, int]] = {"grpc": GRPC_PORT, "zeromq": ZEROMQ_PORT}
"""Those that have a port of their own in a pod; the others ride on HTTP."""
