# SPDX-License-Identifier: Apache-2.0
"""Which method does what."""

from typing import Any

from mcp.server.lowlevel import Server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    EmptyResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
)

from agent_runtime.adapters.mcp import calls, resources, tasks
from agent_runtime.adapters.mcp.admission import callers_core
from agent_runtime.adapters.mcp.calls import Following, Request
from agent_runtime.adapters.mcp.errors import translating
from agent_runtime.adapters.mcp.tools import find, tools
from agent_runtime.telemetry.metrics import RUNTIME_VERSION

_INSTRUCTIONS = (
    "Each tool gives a task to an agent and returns its result. A call waits until the task has ended; with "
    f"`_meta` {calls.WAIT} it waits for that long at most, and the result is then a resource. A task runs at least "
    f"once: to repeat a call safely give it a `_meta` {calls.OURS}idempotencyKey."
)


def build_server(name: str, following: Following) -> Server[Any]:
    """The MCP server of a CentralAgent. Who calls, and so what there is, is the context's of each request."""
    methods = _Methods(following)
    server: Server[Any] = Server(
        "kubeagents",
        version=RUNTIME_VERSION,
        title=f"Agents of {name}",
        instructions=_INSTRUCTIONS,
        get_tool_input_schema=lambda _: None,  # no tool has arguments that come as headers
        on_list_tools=methods.list_tools,
        on_call_tool=methods.call_tool,
        on_list_resources=methods.list_resources,
        on_list_resource_templates=methods.list_templates,
        on_read_resource=methods.read_resource,
    )
    server.extensions = {tasks.EXTENSION: {}}
    server.add_request_handler("tasks/get", tasks.TaskParams, methods.get_task)
    server.add_request_handler("tasks/update", tasks.TaskParams, methods.update_task)
    server.add_request_handler("tasks/cancel", tasks.TaskParams, methods.cancel_task)
    return server


class _Methods:
    def __init__(self, following: Following) -> None:
        self._following = following

    async def list_tools(self, request: Request, params: PaginatedRequestParams | None) -> ListToolsResult:
        with translating():
            return ListToolsResult(tools=[tool.listed for tool in await tools(await callers_core())])

    async def call_tool(self, request: Request, params: CallToolRequestParams) -> CallToolResult | Any:
        with translating():
            core = await callers_core()
            wait = calls.asked_to_wait(request)
            tool = await find(core, params.name)
            call = await calls.submit(core, tool, params, request.meta)
            knows_tasks = tasks.knows_tasks(request)
            if wait is None and knows_tasks:
                wait = tasks.PATIENCE_SECONDS
            record = await self._following.result(core, call, request, tool=tool, wait_seconds=wait)
            if record.state.final:
                return calls.outcome(record, modern=calls.is_modern(request))
            return tasks.created(record) if knows_tasks else calls.handed_out(record)

    async def list_resources(self, request: Request, params: PaginatedRequestParams | None) -> ListResourcesResult:
        with translating():
            return ListResourcesResult(resources=resources.listed(await callers_core()))

    async def list_templates(
        self, request: Request, params: PaginatedRequestParams | None
    ) -> ListResourceTemplatesResult:
        return ListResourceTemplatesResult(resource_templates=list(resources.TEMPLATES))

    async def read_resource(self, request: Request, params: ReadResourceRequestParams) -> ReadResourceResult:
        with translating():
            return await resources.read(await callers_core(), str(params.uri))

    async def get_task(self, request: Request, params: tasks.TaskParams) -> dict[str, Any]:
        tasks.require(request)
        with translating():
            queue, name = tasks.parsed(params.task_id)
            return tasks.detailed(await (await callers_core()).task(queue, name))

    async def update_task(self, request: Request, params: tasks.TaskParams) -> EmptyResult:
        """Tasks never ask for input, so there is nothing to answer; what is sent is for nobody, and may be ignored."""
        tasks.require(request)
        with translating():
            await (await callers_core()).task(*tasks.parsed(params.task_id))
        return EmptyResult(result_type="complete")

    async def cancel_task(self, request: Request, params: tasks.TaskParams) -> EmptyResult:
        tasks.require(request)
        with translating():
            queue, name = tasks.parsed(params.task_id)
            core = await callers_core()
            await core.cancel(queue, [name], by="mcp", reason="cancelled by tasks/cancel")
        return EmptyResult(result_type="complete")
