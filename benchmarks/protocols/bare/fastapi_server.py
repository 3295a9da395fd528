# SPDX-License-Identifier: Apache-2.0
"""Bare FastAPI, as its tutorial teaches it, on uvicorn with its fast parts."""

import asyncio
import socket
import uuid
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Task(BaseModel):
    """What comes."""

    agent: str
    payload: Any


class Submitted(BaseModel):
    """What goes."""

    id: str
    queue: str
    state: str


@app.post("/v1/tasks", status_code=201)
async def submit(task: Task) -> Submitted:
    """Take a task, and forget it."""
    return Submitted(id=uuid.uuid4().hex, queue="main", state="queued")


def main() -> None:
    """Serve until killed."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, access_log=False, log_level="warning", loop="uvloop", http="httptools")
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(uvicorn.Server(config).serve(sockets=[listener]))


if __name__ == "__main__":
    main()
