# SPDX-License-Identifier: Apache-2.0
"""The gRPC binding: A2AService, for the server of whoever serves gRPC.

There are no paths to say whom a message is for, so the `tenant` of each request does; the interface in the agent card
has it, and clients send it by themselves.
"""

from typing import Any

from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.grpc_handler import GrpcHandler, GrpcServerCallContextBuilder
from a2a.types import a2a_pb2, a2a_pb2_grpc
from a2a.utils.errors import A2AError, InvalidParamsError
from a2a.utils.grpc_status import status_to_grpc
from a2a.utils.proto_utils import validation_errors_to_bad_request
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from agent_runtime.adapters.a2a.calls import Call
from agent_runtime.adapters.a2a.cards import Cards
from agent_runtime.adapters.a2a.errors import status
from agent_runtime.adapters.a2a.handler import Handler
from agent_runtime.adapters.a2a.push import configs
from agent_runtime.adapters.base import Surroundings
from agent_runtime.adapters.http.callers import current_core

DOMAIN = "a2a-protocol.org"
"""Whose reasons they are, in the details of errors."""


def add_a2a_service(server: Any, surroundings: Surroundings) -> str:
    """Let a server answer the calls of A2AService. Returns the full name of the service.

    The server admits the callers: in the task that handles a call, `adapters.http.callers.current_core()` is the core
    as its caller may use it.
    """
    service = _Service(Handler(Cards(surroundings), configs(surroundings)), _GrpcCalls())
    a2a_pb2_grpc.add_A2AServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]  # generated
    return str(a2a_pb2.DESCRIPTOR.services_by_name["A2AService"].full_name)


class _GrpcCalls(GrpcServerCallContextBuilder):
    """Makes the context of a call over gRPC."""

    def build(self, context: Any) -> ServerCallContext:
        return Call(current_core(), "").put_into(ServerCallContext())


class _Service(GrpcHandler):
    """Tells errors as they are told on the other bindings."""

    async def abort_context(self, error: A2AError, context: Any) -> None:
        """End the call with the error; its details have our code, and which field is wrong."""
        mapping, data = status(error)
        known = {name: value for name, value in data.items() if isinstance(value, str)}
        said = Status(code=StatusCode[mapping.grpc_status].value[0], message=error.message)
        said.details.append(_packed(ErrorInfo(reason=mapping.reason, domain=DOMAIN, metadata=known)))
        if isinstance(error, InvalidParamsError) and data.get("errors"):
            said.details.append(_packed(validation_errors_to_bad_request(data["errors"])))
        rich = status_to_grpc(said)
        context.set_trailing_metadata((*(context.trailing_metadata() or ()), *rich.trailing_metadata))
        await context.abort(rich.code, rich.details)


def _packed(detail: Any) -> AnyMessage:
    found = AnyMessage()
    found.Pack(detail)
    return found
