# SPDX-License-Identifier: Apache-2.0
"""A lean client of the API server: bytes in, bytes out, so that the measuring costs little."""

import asyncio
import base64
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import orjson
import yaml

T = TypeVar("T")

Object = dict[str, Any]

MERGE = "application/merge-patch+json"


class Api:
    """Requests of one user."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def create(self, path: str, body: Object) -> Object:
        """POST. Raises aiohttp.ClientResponseError."""
        return await self._request("POST", path, body, "application/json")

    async def patch(self, path: str, body: Object) -> Object:
        """A merge patch."""
        return await self._request("PATCH", path, body, MERGE)

    async def delete(self, path: str) -> Object:
        return await self._request("DELETE", path, {"propagationPolicy": "Background"}, "application/json")

    async def get(self, path: str) -> Object:
        return await self._request("GET", path, None, "application/json")

    async def watch(self, path: str, *, accept: str = "application/json") -> AsyncIterator[Object]:
        """The objects as they are and as they become, until cancelled. A connection that breaks is opened anew."""
        while True:
            try:
                async with self._session.get(
                    path,
                    params={"watch": "true", "allowWatchBookmarks": "false"},
                    headers={"Accept": accept},
                    timeout=aiohttp.ClientTimeout(total=None),
                ) as answer:
                    answer.raise_for_status()
                    async for line in lines(answer.content):
                        yield orjson.loads(line)
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(0.5)

    async def _request(self, method: str, path: str, body: Object | None, content_type: str) -> Object:
        data = None if body is None else orjson.dumps(body)
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        async with self._session.request(method, path, data=data, headers=headers) as answer:
            text = await answer.read()
            if answer.status >= 300:
                raise RuntimeError(f"{method} {path}: {answer.status} {text[:500]!r}")
            found: Object = orjson.loads(text)
            return found


@asynccontextmanager
async def connected(kubeconfig: Path, *, in_flight: int = 50) -> AsyncIterator[Api]:
    """A client with the credentials of a kubeconfig that has them inside; a watch needs a connection for itself."""
    server, context = _credentials(kubeconfig)
    connector = aiohttp.TCPConnector(limit=in_flight, ssl=context)
    async with aiohttp.ClientSession(server, connector=connector) as session:
        yield Api(session)


def _credentials(kubeconfig: Path) -> tuple[str, ssl.SSLContext]:
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder, "crt"), Path(folder, "key")
        certificate.write_bytes(base64.b64decode(user["client-certificate-data"]))
        key.write_bytes(base64.b64decode(user["client-key-data"]))
        context.load_cert_chain(certificate, key)
    return cluster["server"], context


async def each(items: Iterable[T], work: Callable[[T], Awaitable[object]], *, in_flight: int = 50) -> None:
    """Do it for all items, so many at a time, in their order."""
    todo = iter(items)

    async def worker() -> None:
        for item in todo:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(worker())


async def lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length: the reader's own limit is too low for objects."""
    rest = b""
    async for chunk in content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line
