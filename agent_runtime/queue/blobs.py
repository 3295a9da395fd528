# SPDX-License-Identifier: Apache-2.0
"""Large payloads and results, kept beside their tasks in chunks.

A task with a large payload would make every command that touches its record large, and a server that sends 64 MB in one
piece does nothing else for as long. So the record only names a blob, and its parts are keys of their own, each written
and read by a command for itself.

Parts are written before the record that names them, with a time to live, so that nothing is left behind if the record
never comes. Once it does, the scripts take that off, and put it on again when the task ends.
"""

from collections.abc import Sequence
from typing import Any, Final

from agent_runtime.queue.calls import Calls
from agent_runtime.queue.exchange import execute
from agent_runtime.queue.records import Blob
from kubeagents_api.errors import TaskNotFoundError

ORPHAN_SECONDS: Final = 3600
"""How long parts are kept whose record has not come."""


class BlobStore:
    """The blobs of one queue."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def write(self, blobs: Sequence[Blob], *, ttl_seconds: int) -> None:
        """Write all parts. Writing again does no harm."""
        for blob in blobs:
            for number, part in enumerate(blob.parts, start=1):
                key = self._calls.keys.chunk(blob.name, number)
                await self._command("SET", key, part, "EX", ttl_seconds)

    async def read(self, blob: Blob, *, task_id: str) -> bytes:
        """The whole blob; only the number of its parts is used. Raises TaskNotFoundError if a part is gone."""
        parts = []
        for number in range(1, len(blob.parts) + 1):
            part = await self._command("GET", self._calls.keys.chunk(blob.name, number))
            if part is None:
                raise TaskNotFoundError(
                    f"part {number} of {len(blob.parts)} of what task {task_id!r} of queue {self._calls.config.name!r} "
                    "holds is gone: it has expired, or Redis evicts keys (maxmemory-policy must be noeviction)"
                )
            parts.append(part)
        return b"".join(parts)

    async def _command(self, *command: str | bytes | int) -> Any:
        return await self._calls.server.call(lambda _: execute(self._calls.server.commands, *command))
