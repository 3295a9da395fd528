# SPDX-License-Identifier: Apache-2.0
"""Which adapters exist. Imported on use, so that one whose library is not installed costs nothing."""

import importlib

from agent_runtime.adapters.base import Adapter
from kubeagents_api.endpoints import Endpoint

# Sorted by name.
ADAPTERS: dict[Endpoint, str] = {
    "a2a": "agent_runtime.adapters.a2a.adapter:A2aAdapter",
    "grpc": "agent_runtime.adapters.grpc.adapter:GrpcAdapter",
    "http": "agent_runtime.adapters.http.adapter:HttpAdapter",
    "mcp": "agent_runtime.adapters.mcp.adapter:McpAdapter",
    "websocket": "agent_runtime.adapters.websocket.adapter:WebSocketAdapter",
    "zeromq": "agent_runtime.adapters.zeromq.adapter:ZeroMqAdapter",
}


def adapter(name: Endpoint) -> type[Adapter]:
    """The class of the adapter. Raises KeyError for a name that is not in the table, ModuleNotFoundError
    if what it needs is not installed."""
    module, _, attribute = ADAPTERS[name].partition(":")
    found: type[Adapter] = getattr(importlib.import_module(module), attribute)
    return found
