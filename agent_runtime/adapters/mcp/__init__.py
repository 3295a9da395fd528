# SPDX-License-Identifier: Apache-2.0
"""MCP: agents as tools. Speaks 2026-07-28, and older versions to older clients.

    tools/list      one tool for each Agent and each capability that the caller may use, from what their processes say
                    about themselves (`Core.interfaces`); an Agent that comes later shows in the next list
    tools/call      submits a task and waits for it; `_meta` may set its other fields (`kubeagents.dev/priority`, …)
    tasks/*         the extension io.modelcontextprotocol/tasks: for clients that declare it, a call that takes longer
                    than a moment is answered with a task, whose id any replica understands
    resources/*     queues, and tasks with their results

Nothing is kept here. A task's id names its queue and its task, both are in Redis; HTTP has no sessions, for older
clients neither. So requests may go to any replica, one after the other, and a replica that dies takes only the answers
along that it was about to give.

Who gives up, and what happens then
    With 2026-07-28 the client cancels a call by closing its answer, and the task is cancelled. With older versions over
    HTTP a lost connection is no cancellation, and without sessions there is nobody whom a `notifications/cancelled`
    could reach: the task goes on. Over a WebSocket both the notification and the end of the connection cancel. A call
    that has been answered with a task is cancelled by tasks/cancel only. When the process stops, calls end with an
    error that names the task, which goes on.

    `adapter` mounts it all; `server` maps methods; `tools`, `calls`, `tasks`, `resources` are those; `origins` keeps
    web pages of others out; `websocket` carries the same messages over a WebSocket.
"""
