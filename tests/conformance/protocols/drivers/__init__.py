# SPDX-License-Identifier: Apache-2.0
"""Every row of the matrix. A new protocol is one module here, and one line in this table."""

from tests.conformance.protocols.driver import Driver
from tests.conformance.protocols.drivers.a2a import A2aDriver, A2aGrpcDriver
from tests.conformance.protocols.drivers.curl import CurlDriver
from tests.conformance.protocols.drivers.grpc import GrpcDriver
from tests.conformance.protocols.drivers.http import HttpDriver
from tests.conformance.protocols.drivers.mcp import McpDriver
from tests.conformance.protocols.drivers.websocket import WebSocketDriver
from tests.conformance.protocols.drivers.zeromq import ZeroMqDriver

DRIVERS: tuple[Driver, ...] = (
    HttpDriver(),
    CurlDriver(),
    WebSocketDriver(),
    GrpcDriver(),
    McpDriver(),
    A2aDriver("a2a", "JSONRPC"),
    A2aDriver("a2a-rest", "HTTP+JSON"),
    A2aGrpcDriver(),
    ZeroMqDriver(),
)
