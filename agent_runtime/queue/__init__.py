# SPDX-License-Identifier: Apache-2.0
"""The task queue."""

from agent_runtime.queue.base import Beat, Claim, Failed, Outcome, StorageInfo, Succeeded, TaskQueue, Worker
from agent_runtime.queue.redis import RedisTaskQueue
from kubeagents_api.runtime_config import QueueConfig

__all__ = [
    "Beat",
    "Claim",
    "Failed",
    "Outcome",
    "StorageInfo",
    "Succeeded",
    "TaskQueue",
    "Worker",
    "open_queue",
]


def open_queue(config: QueueConfig, *, url: str) -> TaskQueue:
    """The queue that the configuration names, at the server that the URL names.

    Connects when it is first used. Raises RedisUrlError if the URL is malformed.
    """
    return RedisTaskQueue(config, url=url)
