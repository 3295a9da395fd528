# SPDX-License-Identifier: Apache-2.0
"""The handler of the real agents in a round: does what the errand says, and keeps a journal as the workers do."""

import asyncio
import itertools
import os
import random
from pathlib import Path
from typing import Any

from agent_runtime.agent import Context, Task
from kubeagents_api.errors import PermanentError, TemporaryError
from tests.chaos.evidence import Journal, now

FOLDER = Path(os.environ["CHAOS_FOLDER"])
_NAME = f"agent-{os.getpid()}"
_JOURNAL = Journal(FOLDER / f"{_NAME}.journal")
_DICE = random.Random(f"{os.environ['CHAOS_SEED']}/{_NAME}")
_NUMBERS = itertools.count()


async def work(task: Task, ctx: Context) -> dict[str, Any]:
    """An attempt. The queue's token is none of a handler's business, so it makes one up."""
    token = f"{_NAME}/{next(_NUMBERS)}"
    # When the runtime asked for the task is not known here: at any time before, so nothing can be held against it.
    _JOURNAL.write("claimed", asked=0.0, tasks=[(task.id, task.attempt, token)], fenced=False)
    await asyncio.sleep(_DICE.uniform(0, 0.03))

    def ends(ending: str) -> None:
        _JOURNAL.call("settling", outcomes=[(task.id, task.attempt, token, ending)], ready=now())

    errand: Any = task.payload
    match errand["mood"]:
        case "again" if task.attempt <= errand["failures"]:
            ends("retry")
            raise TemporaryError("not yet", delay=_DICE.choice((0.0, 0.2)))
        case "refused":
            ends("failed")
            raise PermanentError("never")
        case "doomed" if not (FOLDER / "cured").exists():
            ends("retry")
            raise TemporaryError("still ill", delay=0.0)
    ends("succeeded")
    return {"by": _NAME, "token": token}
