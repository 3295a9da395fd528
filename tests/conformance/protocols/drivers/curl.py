# SPDX-License-Identifier: Apache-2.0
"""HTTP by curl: a process and a connection for each request, streams as lines of JSON."""

import asyncio
import contextlib
import json
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator

from tests.conformance.protocols.driver import BrokenError, Driver, Said
from tests.conformance.protocols.drivers.rest import JSON, OFFERS, RestClient, item_of


class CurlDriver(Driver):
    """HTTP as a shell script has it."""

    name = "curl"
    title = "HTTP, lines of JSON"
    endpoint = "http"
    client = "curl"
    offers = OFFERS

    @contextlib.asynccontextmanager
    async def connect(self, port: int, *, key: str | None = None) -> AsyncIterator[RestClient]:
        """Nothing is connected before a call."""
        yield _CurlClient(f"http://127.0.0.1:{port}", key)


class _CurlClient(RestClient):
    def __init__(self, url: str, key: str | None) -> None:
        self._url = url
        self._options = ["--silent", "--show-error", "--noproxy", "*", "--max-time", "90"]
        if key is not None:
            self._options += ["--header", f"x-api-key: {key}"]

    async def call(
        self, method: str, path: str, body: bytes | None = None, *, content_type: str = JSON
    ) -> tuple[int, bytes]:
        options = ["--request", method, "--write-out", "\n%{http_code}"]
        if body is not None:
            options += ["--header", f"content-type: {content_type}", "--header", "expect:", "--data-binary", "@-"]
        process = await self._run(options, path)
        out, _ = await process.communicate(body)
        answer, _, status = out.rpartition(b"\n")
        if process.returncode:
            raise BrokenError(f"curl has ended with {process.returncode}")
        return int(status), answer

    async def stream(self, task: str, *, after: str = "") -> AsyncIterator[Said]:
        process = await self._run(
            ["--no-buffer", "--fail", "--header", "accept: application/x-ndjson"],
            f"/v1/queues/main/tasks/{task}/stream?after={after}",
        )
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                yield item_of(json.loads(line))
            if await process.wait():
                raise BrokenError(f"curl has ended with {process.returncode}")
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def _run(self, options: list[str], path: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            "curl", *self._options, *options, self._url + path, stdin=PIPE, stdout=PIPE
        )
