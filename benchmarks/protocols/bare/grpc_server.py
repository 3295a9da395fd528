# SPDX-License-Identifier: Apache-2.0
"""A bare grpc.aio server with the method that ours has."""

import asyncio
import uuid
from typing import Any

import grpc

from agent_runtime.protos.kubeagents.v1 import kubeagents_pb2 as pb


async def submit(request: Any, context: Any) -> Any:
    """Take a task, and forget it."""
    return pb.SubmitResponse(id=uuid.uuid4().hex, queue="main", state=pb.TASK_STATE_QUEUED)


async def main() -> None:
    """Serve until killed."""
    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(
        submit,
        request_deserializer=pb.SubmitRequest.FromString,
        response_serializer=pb.SubmitResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("kubeagents.v1.Tasks", {"Submit": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
