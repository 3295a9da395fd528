# SPDX-License-Identifier: Apache-2.0
"""Plans a press review, and puts it together when everything has been read.

{"texts": {"title": "…", …}}  ->  {"review": "<id of the task whose result is the review>"}
"""

from typing import Any

from agent_runtime.agent import Context, Task
from kubeagents_api.errors import PermanentError
from kubeagents_api.task import TaskRequest


async def handle(task: Task, ctx: Context) -> Any:
    """Plan, or put together: the type says which."""
    return await (compose(ctx) if task.type == "compose" else plan(task, ctx))


async def plan(task: Task, ctx: Context) -> dict[str, str]:
    """Submit a small graph: one task for each text, and one that depends on all of them."""
    match task.payload:
        case {"texts": dict(texts)} if texts:
            pass
        case _:
            raise PermanentError('the payload must look like {"texts": {"title": "…"}}')
    # This may run again, if the process dies before it has said that it is done. The keys make that harmless: what is
    # in the queue already is not queued twice.
    readings = [
        TaskRequest(
            id=f"{task.id}.{number}",
            idempotency_key=f"{task.id}.{number}",
            capability="reading",
            payload={"title": title, "text": text},
        )
        for number, (title, text) in enumerate(texts.items())
    ]
    review = TaskRequest(
        id=f"{task.id}.review",
        idempotency_key=f"{task.id}.review",
        agent="editor",
        type="compose",
        depends_on=[f"{task.id}.{number}" for number in range(len(readings))],
        on_parent_failure="Run",  # a review with a gap is better than none
    )
    *_, review_id = await ctx.submit_all([*readings, review])
    return {"review": review_id}


async def compose(ctx: Context) -> dict[str, Any]:
    """What was read, shortest first, and what could not be."""
    parents = (await ctx.parents()).values()
    articles: list[Any] = [parent.result for parent in parents if parent.state == "succeeded"]
    return {
        "articles": sorted(articles, key=lambda article: article["seconds"]),
        "unread": [parent.failure.message for parent in parents if parent.failure is not None],
    }
