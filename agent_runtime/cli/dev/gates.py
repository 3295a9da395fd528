# SPDX-License-Identifier: Apache-2.0
"""Pausing and closing queues as their manifests say: what the operator does in a cluster."""

import asyncio
from collections.abc import Callable

from agent_runtime.cli.dev.plan import QueuePlan
from agent_runtime.queue import open_queue
from agent_runtime.queue.gates import hold_gates, shut_by_spec
from kubeagents_api.errors import QueueUnavailableError, RedisUrlError
from kubeagents_api.runtime_config import queue_config

_AGAIN_SECONDS = 2.0


async def hold_to_manifest(plan: QueuePlan, *, url: str, warn: Callable[[str], None]) -> None:
    """Bring the gates of one queue where its manifest wants them. Tries until its Redis answers.

    A malformed URL is left to the processes, which end with it.
    """
    namespace, name = plan.key
    try:
        queue = open_queue(queue_config(name=name, namespace=namespace, spec=plan.spec), url=url.strip())
    except RedisUrlError:
        return
    told = False
    try:
        while True:
            try:
                await hold_gates(queue, await queue.stats(), shut=shut_by_spec(plan.spec))
                return
            except QueueUnavailableError as error:
                if not told:
                    warn(f'TaskQueue "{name}": {error}; trying on')
                told = True
            await asyncio.sleep(_AGAIN_SECONDS)
    finally:
        await queue.aclose()
