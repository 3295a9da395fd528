# SPDX-License-Identifier: Apache-2.0
"""What is said on each protocol. An exchange yields requests and is sent the bodies of their answers."""

import uuid
from collections.abc import Callable, Generator, Mapping
from typing import Any, Final

import orjson

from agent_runtime.protos.kubeagents.v1 import kubeagents_pb2 as pb
from benchmarks.protocols.wires import Wire, grpc, http
from benchmarks.protocols.wires.grpc import GrpcWire
from benchmarks.protocols.wires.http import HttpWire
from benchmarks.protocols.wires.websocket import WebSocketWire

Talk = Generator[bytes, bytes, None]
Exchange = Callable[[int], Talk]

PAYLOAD: Final = {"words": "x" * 88}
"""100 bytes of JSON."""
TASK: Final[dict[str, Any]] = {"agent": "echo", "payload": PAYLOAD}
WAIT_SECONDS: Final = 30
_RUN: Final = uuid.uuid4().hex
"""Tells the messages of this process from those of others: A2A does not queue the same one twice."""

WIRES: Final[Mapping[str, Wire]] = {
    "http": HttpWire(),
    "websocket": WebSocketWire("/v1/ws"),
    "grpc": GrpcWire(),
}


def _right(record: Mapping[str, Any]) -> None:
    if record["state"] != "succeeded" or record["result"] != PAYLOAD:
        raise RuntimeError(f"a wrong result: {record}")


# HTTP; the bare server understands the submission, too.

_HTTP_SUBMIT = http.request("POST", "/v1/tasks", orjson.dumps(TASK))


def http_submit(number: int) -> Talk:
    """A task."""
    yield _HTTP_SUBMIT


def http_result(number: int) -> Talk:
    """A task, and a wait for its result."""
    task = orjson.loads((yield _HTTP_SUBMIT))
    path = f"/v1/queues/{task['queue']}/tasks/{task['id']}/result?timeoutSeconds={WAIT_SECONDS}"
    _right(orjson.loads((yield http.request("GET", path))))


# WebSocket; the bare server sends back what comes.


def websocket_submit(number: int) -> Talk:
    """A task."""
    yield orjson.dumps({"id": str(number), "call": "submit", "params": {"task": TASK}})


def websocket_result(number: int) -> Talk:
    """A task, and a wait for its result."""
    call = orjson.dumps({"id": f"{number}s", "call": "submit", "params": {"task": TASK}})
    task = orjson.loads((yield call))["result"]
    params = {"ids": [task["id"]], "timeoutSeconds": WAIT_SECONDS}
    found = orjson.loads((yield orjson.dumps({"id": f"{number}r", "call": "results", "params": params})))
    _right(found["result"]["tasks"][0])


# gRPC; the bare server has the same method.

_NEW_TASK = pb.NewTask(agent="echo", payload_json=orjson.dumps(PAYLOAD))
_GRPC_SUBMIT = grpc.request("/kubeagents.v1.Tasks/Submit", pb.SubmitRequest(task=_NEW_TASK).SerializeToString())


def grpc_submit(number: int) -> Talk:
    """A task."""
    yield _GRPC_SUBMIT


def grpc_result(number: int) -> Talk:
    """A task, and a wait for its result."""
    asked = pb.ResultRequest(id=pb.SubmitResponse.FromString((yield _GRPC_SUBMIT)).id)
    asked.wait.seconds = WAIT_SECONDS
    answer = yield grpc.request("/kubeagents.v1.Tasks/Result", asked.SerializeToString())
    task = pb.Task.FromString(answer)
    if task.state != pb.TASK_STATE_SUCCEEDED or orjson.loads(task.result_json) != PAYLOAD:
        raise RuntimeError(f"a wrong result: {task}")


# MCP, stateless: a call that does not wait is answered with the task, one that waits with the result.

_MCP_HEADERS = (
    "accept: application/json, text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\n"
    "mcp-method: tools/call\r\nmcp-name: echo\r\n"
)


def _mcp(number: int, meta: Mapping[str, Any]) -> bytes:
    about = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        **meta,
    }
    params = {"name": "echo", "arguments": PAYLOAD, "_meta": about}
    body = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    return http.request("POST", "/mcp", orjson.dumps(body), headers=_MCP_HEADERS)


def mcp_submit(number: int) -> Talk:
    """A call that does not wait."""
    answer = orjson.loads((yield _mcp(number, {"kubeagents.dev/waitSeconds": 0})))
    if answer.get("result", {}).get("isError", True):
        raise RuntimeError(f"refused: {answer}")


def mcp_result(number: int) -> Talk:
    """A call that waits."""
    answer = orjson.loads((yield _mcp(number, {})))
    if answer.get("result", {}).get("structuredContent") != PAYLOAD:
        raise RuntimeError(f"a wrong result: {answer}")


# A2A by JSON-RPC.


def _a2a(number: int, *, now: bool) -> bytes:
    message = {"messageId": f"{_RUN}-{number}", "role": "ROLE_USER", "parts": [{"data": PAYLOAD}]}
    params = {"message": message, "configuration": {"returnImmediately": now}}
    body = {"jsonrpc": "2.0", "id": number, "method": "SendMessage", "params": params}
    return http.request("POST", "/a2a/echo@main", orjson.dumps(body), headers="a2a-version: 1.0\r\n")


def a2a_submit(number: int) -> Talk:
    """A message whose sender does not wait."""
    answer = orjson.loads((yield _a2a(number, now=True)))
    if "result" not in answer:
        raise RuntimeError(f"refused: {answer}")


def a2a_result(number: int) -> Talk:
    """A message whose sender waits."""
    answer = orjson.loads((yield _a2a(number, now=False)))
    artifacts = answer.get("result", {}).get("task", {}).get("artifacts", [])
    if not artifacts or artifacts[0]["parts"][0].get("data") != PAYLOAD:
        raise RuntimeError(f"a wrong result: {answer}")


EXCHANGES: Final[Mapping[str, Exchange]] = {
    "http.submit": http_submit,
    "http.result": http_result,
    "websocket.submit": websocket_submit,
    "websocket.result": websocket_result,
    "grpc.submit": grpc_submit,
    "grpc.result": grpc_result,
    "mcp.submit": mcp_submit,
    "mcp.result": mcp_result,
    "a2a.submit": a2a_submit,
    "a2a.result": a2a_result,
}
