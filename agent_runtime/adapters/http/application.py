# SPDX-License-Identifier: Apache-2.0
"""The FastAPI application: which operation is where, and what OpenAPI says about it."""

from collections.abc import Callable, Coroutine
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.calls import work as calls
from agent_runtime.adapters.calls.parameters import InboxOfQueue, MessageOfQueue
from agent_runtime.adapters.headers import KEY_HEADER
from agent_runtime.adapters.http import errors
from agent_runtime.adapters.http.administration import Administration
from agent_runtime.adapters.http.models import (
    AgentOverview,
    AuditLog,
    Author,
    CancelledTasks,
    CancelRequest,
    CentralStatus,
    DeadSelection,
    Events,
    Gates,
    Instances,
    InstanceSelection,
    Results,
    ResultsRequest,
    StreamEnd,
    SubmittedBatch,
    SubmittedTask,
    TaskIds,
    TaskInState,
)
from agent_runtime.adapters.http.operations import Operations
from agent_runtime.adapters.http.steering import Steering
from agent_runtime.adapters.http.streams import EVENT_STREAM, JSON_LINES, Streams
from agent_runtime.adapters.http.work import Work
from agent_runtime.telemetry.metrics import RUNTIME_VERSION
from kubeagents_api.access import KeyInfo, KeyRequest, NewKey
from kubeagents_api.schedule_info import ScheduleInfo
from kubeagents_api.task import (
    BatchRequest,
    ErrorBody,
    InstanceInfo,
    QueueStats,
    StreamItem,
    TaskEvent,
    TaskRecord,
    TaskRequest,
)

_REF = "#/components/schemas/{model}"
_PAGE_POLICY = (
    "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
)
_MEANINGS = {
    400: "The request is malformed; the sentence names the field.",
    401: "No valid API key came with the request.",
    403: "Whose key it is may not do that.",
    404: "There is no such queue, task or agent.",
    409: "A task with this id exists already, or the queue is closed to new tasks; the code says which.",
    413: "The body, or the payload of a task, is too large.",
    415: "The body is not said to be JSON.",
    429: "The queue has as many tasks as it may, or you have called too often; Retry-After says when to try again.",
    503: "The queue's Redis does not answer; Retry-After says when to try again.",
}
_GUARDED = (401, 403, 429)
"""What may be wrong with any request where callers are told apart."""
_TASK_EXAMPLE = {"type": "count-words", "payload": {"text": "to be or not to be"}, "priority": 5}

_SELECTION_EXAMPLE = {"filter": {"agent": "billing", "code": "TIMEOUT"}, "by": "maria"}
_AUTHOR_EXAMPLE = {"by": "maria"}
_WORKER_EXAMPLE = {"agent": "billing", "instance": "laptop-1"}
_CLAIM_EXAMPLE = {"id": "invoice-1", "token": "5f3a", "attempt": 1, "maxAttempts": 3, "timeoutSeconds": 300}
_WORK_EXAMPLES: dict[str, dict[str, Any]] = {
    "register": {"worker": _WORKER_EXAMPLE},
    "beat": {
        "beat": {
            "worker": _WORKER_EXAMPLE,
            "version": "1.0",
            "concurrency": 4,
            "running": 1,
            "startedAtMs": 1795296713910,
        }
    },
    "claim": {"worker": _WORKER_EXAMPLE, "limit": 4, "waitSeconds": 30},
    "extend": {"claims": [_CLAIM_EXAMPLE]},
    "settle": {"outcomes": [{"claim": _CLAIM_EXAMPLE, "result": {"total": 12}}]},
    "release": {"claims": [_CLAIM_EXAMPLE]},
    "emit": {"claim": _CLAIM_EXAMPLE, "items": [{"kind": "progress", "fraction": 0.5, "message": "half"}]},
    "parents": {"claim": _CLAIM_EXAMPLE},
    "leave": {"worker": _WORKER_EXAMPLE},
}
_KEY_EXAMPLE = {"principal": "nightly-import", "role": "developer", "queues": ["orders"]}
_CHANGES = (400, 404, 413, 415, 503)
"""What may be wrong with a request that changes a queue."""
_BODIES: tuple[type[BaseModel], ...] = (
    TaskRequest, BatchRequest, ResultsRequest, CancelRequest, DeadSelection, Author, InstanceSelection, KeyRequest,
    MessageOfQueue, InboxOfQueue, *{one.params for one in calls.WORK.values()},
)  # fmt: skip
_STREAMED: tuple[type[BaseModel], ...] = (StreamItem, StreamEnd, TaskEvent, calls.Revoked)

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "header": {"type": "apiKey", "in": "header", "name": KEY_HEADER, "description": "The same in a header of its own."},
}

Endpoint = Callable[..., Coroutine[Any, Any, Response]]


def build(core: Core, *, guarded: bool = False) -> FastAPI:
    """The application in front of the core. If it is guarded, every operation needs a key."""
    app = FastAPI(
        title="Kubeagents CentralAgent",
        summary="Submit tasks to agents, read their results, see who is at work.",
        version=RUNTIME_VERSION,
        docs_url=None,  # both load their scripts from elsewhere; /docs here needs no network
        redoc_url=None,
        redirect_slashes=False,
    )
    errors.install(app)
    operations, steering, streams = Operations(core), Steering(core), Streams(core)
    administration, work = Administration(), Work(core)

    def add(
        method: str,
        path: str,
        endpoint: Endpoint,
        *,
        tag: str,
        answers: dict[int, Any],
        refusals: tuple[int, ...],
        body: type[BaseModel] | None = None,
        example: dict[str, Any] | None = None,
        streams_as: dict[str, tuple[type[BaseModel], ...]] | None = None,
    ) -> None:
        shut = _GUARDED if guarded else ()
        responses: dict[int | str, dict[str, Any]] = {
            **{status: {"model": model} if model else {} for status, model in answers.items()},
            **{status: {"model": ErrorBody, "description": _MEANINGS[status]} for status in (*refusals, *shut)},
            "default": {"model": ErrorBody, "description": "Every other error has the same form."},
        }
        if streams_as is not None:
            responses[200]["content"] = {
                kind: {"schema": {"anyOf": [{"$ref": _REF.format(model=model.__name__)} for model in models]}}
                for kind, models in streams_as.items()
            }
            responses[200]["description"] = "Items as they come."
        app.add_api_route(
            path,
            endpoint,
            methods=[method],
            tags=[tag],
            operation_id=endpoint.__name__,
            summary=(endpoint.__doc__ or "").partition("\n")[0].rstrip("."),
            status_code=next(iter(answers)),
            response_model=next(iter(answers.values())),
            response_class=Response,
            responses=responses,
            openapi_extra=_request_body(body, example) if body is not None else None,
        )

    add(
        "POST", "/v1/tasks", operations.submit,
        tag="tasks", answers={201: SubmittedTask, 200: SubmittedTask}, refusals=(400, 404, 409, 413, 415, 429, 503),
        body=TaskRequest, example=_TASK_EXAMPLE,
    )  # fmt: skip
    add(
        "POST", "/v1/tasks/batch", operations.submit_batch,
        tag="tasks", answers={201: SubmittedBatch}, refusals=(400, 404, 409, 413, 415, 429, 503),
        body=BatchRequest, example={"tasks": [_TASK_EXAMPLE, {"payload": {"text": "that is the question"}}]},
    )  # fmt: skip
    add(
        "GET", "/v1/queues/{queue}/tasks/{task}", operations.task,
        tag="tasks", answers={200: TaskRecord}, refusals=(400, 404, 503),
    )  # fmt: skip
    add(
        "GET", "/v1/queues/{queue}/tasks/{task}/result", operations.result,
        tag="tasks", answers={200: TaskRecord, 202: TaskRecord}, refusals=(400, 404, 503),
    )  # fmt: skip
    add(
        "POST", "/v1/queues/{queue}/results", operations.results,
        tag="tasks", answers={200: Results}, refusals=(400, 404, 413, 415, 503),
        body=ResultsRequest, example={"ids": ["invoice-1", "invoice-2"], "timeoutSeconds": 30},
    )  # fmt: skip
    add(
        "GET", "/v1/queues/{queue}/tasks/{task}/stream", streams.stream,
        tag="tasks", answers={200: None}, refusals=(400, 404, 503),
        streams_as={EVENT_STREAM: (StreamItem, StreamEnd), JSON_LINES: (StreamItem, StreamEnd)},
    )  # fmt: skip
    add(
        "DELETE", "/v1/queues/{queue}/tasks/{task}", steering.cancel_task,
        tag="tasks", answers={200: TaskInState}, refusals=(400, 404, 503),
    )  # fmt: skip
    add(
        "POST", "/v1/queues/{queue}/cancel", steering.cancel_tasks,
        tag="tasks", answers={200: CancelledTasks}, refusals=_CHANGES,
        body=CancelRequest, example={"ids": ["invoice-1", "invoice-2"], "reason": "wrong month", "by": "maria"},
    )  # fmt: skip
    add("GET", "/v1/queues", operations.queues, tag="queues", answers={200: list[QueueStats]}, refusals=(503,))
    add("GET", "/v1/queues/{queue}", operations.queue, tag="queues", answers={200: QueueStats}, refusals=(404, 503))
    add(
        "GET", "/v1/queues/{queue}/dead", operations.dead,
        tag="queues", answers={200: list[TaskRecord]}, refusals=(400, 404, 503),
    )  # fmt: skip
    add(
        "POST", "/v1/queues/{queue}/dead/replay", steering.replay_dead,
        tag="queues", answers={200: TaskIds}, refusals=_CHANGES, body=DeadSelection, example=_SELECTION_EXAMPLE,
    )  # fmt: skip
    add(
        "POST", "/v1/queues/{queue}/dead/purge", steering.purge_dead,
        tag="queues", answers={200: TaskIds}, refusals=_CHANGES, body=DeadSelection, example=_SELECTION_EXAMPLE,
    )  # fmt: skip
    for endpoint in (steering.pause, steering.resume, steering.close, steering.open):
        add(
            "POST", f"/v1/queues/{{queue}}/{endpoint.__name__}", endpoint,
            tag="queues", answers={200: Gates}, refusals=_CHANGES, body=Author, example=_AUTHOR_EXAMPLE,
        )  # fmt: skip
    for endpoint in (steering.cordon, steering.uncordon):
        add(
            "POST", f"/v1/queues/{{queue}}/{endpoint.__name__}", endpoint,
            tag="agents", answers={200: Instances}, refusals=_CHANGES,
            body=InstanceSelection, example={"instances": ["billing-agent-5c9d"], "by": "maria"},
        )  # fmt: skip
    add(
        "GET", "/v1/queues/{queue}/events", streams.events,
        tag="queues", answers={200: Events}, refusals=(400, 404, 503), streams_as={EVENT_STREAM: (TaskEvent,)},
    )  # fmt: skip
    add(
        "GET", "/v1/queues/{queue}/schedules", operations.schedules,
        tag="queues", answers={200: list[ScheduleInfo]}, refusals=(404, 503),
    )  # fmt: skip
    add(
        "GET",
        "/v1/agents",
        operations.agents,
        tag="agents",
        answers={200: list[InstanceInfo]},
        refusals=(400, 404, 503),
    )
    add("GET", "/v1/agents/{agent}", operations.agent, tag="agents", answers={200: AgentOverview}, refusals=(404, 503))
    add("GET", "/v1/status", operations.status, tag="agents", answers={200: CentralStatus}, refusals=())

    for name, call in calls.WORK.items():
        add(
            "POST", f"/v1/queues/{{queue}}/work/{name}", work.operation(name, call.run, call.params),
            tag="work", answers={200: call.answer}, refusals=(400, 404, 409, 413, 415, 503),
            body=call.params, example=_WORK_EXAMPLES[name],
        )  # fmt: skip
    add(
        "POST", "/v1/queues/{queue}/work/revoked", work.work_revoked,
        tag="work", answers={200: None}, refusals=(400, 404, 413, 415, 503),
        body=calls.OneWorker, example={"worker": _WORKER_EXAMPLE},
        streams_as={EVENT_STREAM: (calls.Revoked,), JSON_LINES: (calls.Revoked,)},
    )  # fmt: skip
    add(
        "POST", "/v1/messages", work.send_message,
        tag="messages", answers={201: calls.Sent}, refusals=(400, 404, 409, 413, 415, 429, 503),
        body=MessageOfQueue, example={"to": "billing", "payload": {"say": "hello"}},
    )  # fmt: skip
    add(
        "POST", "/v1/messages/receive", work.receive_messages,
        tag="messages", answers={200: calls.ClaimedTasks}, refusals=(400, 404, 409, 413, 415, 503),
        body=InboxOfQueue, example={"agent": "billing", "limit": 10, "waitSeconds": 30},
    )  # fmt: skip

    add(
        "POST", "/v1/keys", administration.make_key,
        tag="access", answers={201: NewKey}, refusals=(400, 409, 413, 415, 503), body=KeyRequest, example=_KEY_EXAMPLE,
    )  # fmt: skip
    add("GET", "/v1/keys", administration.keys, tag="access", answers={200: list[KeyInfo]}, refusals=(409, 503))
    add(
        "DELETE", "/v1/keys/{key}", administration.revoke_key,
        tag="access", answers={204: None}, refusals=(404, 409, 503),
    )  # fmt: skip
    add("GET", "/v1/audit", administration.audit, tag="access", answers={200: AuditLog}, refusals=(400, 409, 503))

    app.add_route("/", _page("status.html"), include_in_schema=False)
    app.add_route("/docs", _page("docs.html"), include_in_schema=False)
    _complete_openapi(app, guarded=guarded)
    return app


def _request_body(model: type[BaseModel], example: dict[str, Any] | None) -> dict[str, Any]:
    media = {"schema": {"$ref": _REF.format(model=model.__name__)}, "example": example}
    return {"requestBody": {"required": True, "content": {"application/json": media}}}


def _complete_openapi(app: FastAPI, *, guarded: bool) -> None:
    """Add the models of the bodies, which FastAPI does not see because the operations read them themselves, and the
    ways to show a key."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas: dict[str, Any] = document["components"]["schemas"]
        _, bodies = models_json_schema([(model, "validation") for model in _BODIES], ref_template=_REF)
        _, streamed = models_json_schema([(model, "serialization") for model in _STREAMED], ref_template=_REF)
        for name, schema in (bodies["$defs"] | streamed["$defs"]).items():
            schemas.setdefault(name, schema)
        if guarded:
            document["components"]["securitySchemes"] = _SCHEMES
            document["security"] = [{name: []} for name in _SCHEMES]
        return document

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's own way to change the document


def _page(name: str) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    content = files(__package__).joinpath("pages", name).read_bytes()

    async def page(request: Request) -> Response:
        headers = {"content-security-policy": _PAGE_POLICY, "cache-control": "no-cache"}
        return Response(content, media_type="text/html", headers=headers)

    return page
