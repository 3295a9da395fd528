# SPDX-License-Identifier: Apache-2.0
"""Waiting for many tasks at once, with progress."""

import math
import time
from collections.abc import Sequence

from agent_runtime.cli.api import Api, Json
from agent_runtime.cli.output import counting

_CHUNK = 250
"""Tasks waited for in one call: small enough for a smooth progress bar, large enough to be quick."""
_CALL_SECONDS = 10.0
"""How long one call waits at most; proxies on the way cut long ones."""
_PROGRESS_SECONDS = 1.0
"""The same where there are many tasks, so that the bar moves."""


def wait_for(api: Api, queue: str, task_ids: Sequence[str], *, seconds: float | None) -> dict[str, Json]:
    """Those of the tasks that are final, by id in the given order, once all are or once `seconds` are over."""
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    ids = list(dict.fromkeys(task_ids))
    longest = _CALL_SECONDS if len(ids) == 1 else _PROGRESS_SECONDS
    done: dict[str, Json] = {}
    with counting("waiting for results", total=len(ids)) as counter:
        for start in range(0, len(ids), _CHUNK):
            pending = ids[start : start + _CHUNK]
            while pending and (left := deadline - time.monotonic()) > 0:
                finished = {task["id"]: task for task in api.wait(queue, pending, seconds=min(left, longest))}
                counter.add(len(finished))
                done |= finished
                pending = [task_id for task_id in pending if task_id not in done]
    return {task_id: done[task_id] for task_id in ids if task_id in done}
