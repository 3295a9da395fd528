# SPDX-License-Identifier: Apache-2.0
"""The FastAPI application: which operation is where, and what OpenAPI says about it."""

from collections.abc import Callable, Coroutine
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.http import errors
from agent_runtime.adapters.http.models import (
    AgentOverview,
    CentralStatus,
    Results,
    ResultsRequest,
    SubmittedBatch,
    SubmittedTask,
)
from agent_runtime.adapters.http.operations import Operations
from agent_runtime.telemetry.metrics import RUNTIME_VERSION
from kubeagents_api.task import BatchRequest, ErrorBody, InstanceInfo, QueueStats, TaskRecord, TaskRequest

_REF = "#/components/schemas/{model}"
_PAGE_POLICY = (
    "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
)
_MEANINGS = {
    400: "The request is malformed; the sentence names the field.",
    404: "There is no such queue, task or agent.",
    409: "A task with this id exists already.",
    413: "The body, or the payload of a task, is too large.",
    415: "The body is not said to be JSON.",
    503: "The queue's Redis does not answer; Retry-After says when to try again.",
}
_TASK_EXAMPLE = {"type": "count-words", "payload": {"text": "to be or not to be"}, "priority": 5}

Endpoint = Callable[..., Coroutine[Any, Any, Response]]


def build(core: Core) -> FastAPI:
    """The application in front of the core."""
    app = FastAPI(
        title="Kubeagents CentralAgent",
        summary="Submit tasks to agents, read their results, see who is at work.",
        version=RUNTIME_VERSION,
        docs_url=None,  # both load their scripts from elsewhere; /docs here needs no network
        redoc_url=None,
        redirect_slashes=False,
    )
    errors.install(app)
    operations = Operations(core)

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
    ) -> None:
        responses: dict[int | str, dict[str, Any]] = {
            **{status: {"model": model} for status, model in answers.items()},
            **{status: {"model": ErrorBody, "description": _MEANINGS[status]} for status in refusals},
            "default": {"model": ErrorBody, "description": "Every other error has the same form."},
        }
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
        tag="tasks", answers={201: SubmittedTask}, refusals=(400, 404, 409, 413, 415, 503),
        body=TaskRequest, example=_TASK_EXAMPLE,
    )  # fmt: skip
    add(
        "POST", "/v1/tasks/batch", operations.submit_batch,
        tag="tasks", answers={201: SubmittedBatch}, refusals=(400, 404, 409, 413, 415, 503),
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
    add("GET", "/v1/queues", operations.queues, tag="queues", answers={200: list[QueueStats]}, refusals=(503,))
    add("GET", "/v1/queues/{queue}", operations.queue, tag="queues", answers={200: QueueStats}, refusals=(404, 503))
    add(
        "GET", "/v1/queues/{queue}/dead", operations.dead,
        tag="queues", answers={200: list[TaskRecord]}, refusals=(400, 404, 503),
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

    app.add_route("/", _page("status.html"), include_in_schema=False)
    app.add_route("/docs", _page("docs.html"), include_in_schema=False)
    _complete_openapi(app)
    return app


def _request_body(model: type[BaseModel], example: dict[str, Any] | None) -> dict[str, Any]:
    media = {"schema": {"$ref": _REF.format(model=model.__name__)}, "example": example}
    return {"requestBody": {"required": True, "content": {"application/json": media}}}


def _complete_openapi(app: FastAPI) -> None:
    """Add the models of the bodies, which FastAPI does not see because the operations read them themselves."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas: dict[str, Any] = document["components"]["schemas"]
        models = (TaskRequest, BatchRequest, ResultsRequest)
        _, bodies = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
        for name, schema in bodies["$defs"].items():
            schemas.setdefault(name, schema)
        return document

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's own way to change the document


def _page(name: str) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    content = files(__package__).joinpath("pages", name).read_bytes()

    async def page(request: Request) -> Response:
        headers = {"content-security-policy": _PAGE_POLICY, "cache-control": "no-cache"}
        return Response(content, media_type="text/html", headers=headers)

    return page
