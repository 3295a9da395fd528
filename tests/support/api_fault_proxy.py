# SPDX-License-Identifier: Apache-2.0
"""Stands between one process and a real API server, lets requests go wrong on command, and remembers all of them.

    proxy.fault = lambda request: Fault(status=429, retry_after=1) if request.is_write and request.tries == 1 else None

The process speaks TLS with the proxy as it does with the API server, so nothing in it is special. Each process of a
test has a proxy of its own: what a proxy has passed on is what that process wrote.

    fault                            what the process sees                          what the API server sees
    Fault(status=…)                  that answer                                    nothing
    Fault(status=…, page=…)          a page that is no JSON, as of a load balancer  nothing
    Fault(delay=…)                   the answer, late                               the request, late
    Fault(drop=True)                 a broken connection                            nothing
    Fault(lose=True)                 a broken connection                            the request: it has acted
    Fault(before=f), Fault(after=f)  f() is called before the request is passed on, or after it has been answered
"""

import asyncio
import json
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml
from aiohttp import web
from multidict import CIMultiDict

from tests.cluster.certificates import kubeconfig
from tests.cluster.control_plane import ControlPlane

_NAME = "api-fault-proxy"
_END_SECONDS = 10.0
_NOT_PASSED_ON = frozenset({"host", "connection", "transfer-encoding", "content-length", "keep-alive"})
_VERBS = {"PATCH": "patch", "POST": "create", "PUT": "update", "DELETE": "delete"}


@dataclass
class Request:
    """One request of the process."""

    method: str
    path: str
    query: dict[str, str]
    body: Any = None
    tries: int = 1
    """How often it has sent the like of this one, counting this one."""
    status: int | None = None
    """What the API server has answered; None while it has not, or if it was not asked."""

    @property
    def target(self) -> str:
        """The path of the object that it is about, also if it creates it."""
        name = self.body.get("metadata", {}).get("name", "") if isinstance(self.body, dict) else ""
        return f"{self.path}/{name}" if self.method == "POST" else self.path

    @property
    def is_write(self) -> bool:
        return self.method in _VERBS

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") == "true"

    @property
    def plural(self) -> str:
        """The plural of the resource, for example `deployments`."""
        parts = self.path.split("/namespaces/", 1)[-1].split("/") if "/namespaces/" in self.path else [""]
        return parts[1] if len(parts) > 1 else self.path.rstrip("/").rpartition("/")[2]

    @property
    def of_work(self) -> bool:
        """It writes something that is the work of the operator: no Event, and nothing for its own election."""
        return self.is_write and self.plural != "events" and (self.plural != "leases" or self.method == "PATCH")

    def __str__(self) -> str:
        return f"{self.method} {self.target} -> {self.status}"


@dataclass(frozen=True)
class Fault:
    """What becomes of a request."""

    status: int | None = None
    retry_after: int | None = None
    page: str | None = None
    delay: float = 0.0
    drop: bool = False
    lose: bool = False
    before: Callable[[], None] | None = None
    after: Callable[[], None] | None = None


def sound(_: Request) -> Fault | None:
    """Nothing goes wrong."""
    return None


@dataclass
class ApiFaultProxy:
    """A context manager that starts and stops it, in a thread of its own."""

    plane: ControlPlane
    folder: Path
    fault: Callable[[Request], Fault | None] = sound
    requests: list[Request] = field(default_factory=list)
    """All requests so far, in the order of their arrival."""
    stalled: list[str] = field(default_factory=list)
    """The paths of the watches from which something was withheld, once for each time."""

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    @property
    def kubeconfig(self) -> Path:
        """An administrator's, by way of the proxy."""
        return self.folder / "kubeconfig"

    def written(self) -> list[Request]:
        """What the API server has accepted of the operator's work."""
        return [one for one in list(self.requests) if one.of_work and one.status is not None and one.status < 300]

    def created(self) -> Counter[str]:
        """Path -> how often the API server has created an object there."""
        return Counter(one.target for one in self.written() if one.status == 201)

    def stall(self) -> None:
        """From now on nothing comes through the watches that are open, nor through later ones. They stay open."""
        self._stalled = True

    def flow(self) -> None:
        """The end of that, for watches that are opened from now on: those of before have lost what came meanwhile."""
        self._stalled = False

    def cut(self) -> None:
        """Break all connections."""
        self._loop.call_soon_threadsafe(self._cut)

    def end_watches(self, *, code: int) -> None:
        """All open watches end with an ERROR event, for example 410: their resourceVersion is too old."""
        self._loop.call_soon_threadsafe(self._end_watches, code)

    def __enter__(self) -> Self:
        self._stalled = False
        self._tries: Counter[tuple[str, str]] = Counter()
        self._transports: set[asyncio.Transport] = set()
        self._endings: set[asyncio.Future[int]] = set()
        self._begun = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=_NAME)
        self._thread.start()
        self._begun.wait()
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_END_SECONDS)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:  # handed to the test by `__enter__` or `__exit__`
            self._error = error
        finally:
            self._begun.set()

    async def _live(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        authority = self.plane.places.authority
        trust = ssl.create_default_context(cafile=str(authority.certificate("ca")))
        trust.load_cert_chain(authority.certificate("admin"), authority.key("admin"))
        identity = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        # A certificate for 127.0.0.1, which the plane's authority has signed.
        identity.load_cert_chain(authority.certificate("apiserver"), authority.key("apiserver"))
        connector = aiohttp.TCPConnector(ssl=trust, limit=0)
        async with aiohttp.ClientSession(
            connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)
        ) as self._upstream:
            app = web.Application(client_max_size=32 * 2**20)
            app.router.add_route("*", "/{path:.*}", self._serve)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
            await runner.setup()
            try:
                site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=identity)
                await site.start()
                self._port: int = runner.addresses[0][1]
                self._write_kubeconfig()
                self._begun.set()
                await self._end.wait()
                self._cut()
            finally:
                await runner.cleanup()
        # aiohttp does not wait for the ends of TLS connections: see "graceful shutdown" in its documentation.
        await asyncio.sleep(0.25)

    def _write_kubeconfig(self) -> None:
        authority = self.plane.places.authority
        self.folder.mkdir(parents=True, exist_ok=True)
        content = kubeconfig(
            server=self.url,
            authority=authority.certificate("ca").read_bytes(),
            certificate=authority.certificate("admin").read_bytes(),
            key=authority.key("admin").read_bytes(),
        )
        self.kubeconfig.write_text(yaml.safe_dump(content))
        self.kubeconfig.chmod(0o600)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        seen = Request(request.method, request.path, dict(request.query), _json(body))
        self._tries[seen.method, seen.target] += 1
        seen.tries = self._tries[seen.method, seen.target]
        self.requests.append(seen)
        fault = self.fault(seen) or Fault()
        if fault.delay:
            await asyncio.sleep(fault.delay)
        if fault.before is not None:
            fault.before()
        if fault.drop or self._end.is_set():
            return self._break(request)
        if fault.status is not None:
            if fault.page is not None:
                return web.Response(status=fault.status, text=fault.page, content_type="text/html")
            return _refusal(fault.status, fault.retry_after)
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)
        self._transports.add(transport)
        headers = CIMultiDict((k, v) for k, v in request.headers.items() if k.lower() not in _NOT_PASSED_ON)
        url = f"{self.plane.places.server}{request.path_qs}"
        try:
            async with self._upstream.request(
                request.method, url, headers=headers, data=body or None, skip_auto_headers=("Content-Type", "Accept")
            ) as answer:
                if seen.is_watch:
                    seen.status = answer.status
                    return await self._stream(request, answer)
                content = await answer.read()
                seen.status = answer.status
                if fault.after is not None:
                    fault.after()
                if fault.lose:
                    return self._break(request)
                kept = CIMultiDict((k, v) for k, v in answer.headers.items() if k.lower() not in _NOT_PASSED_ON)
                return web.Response(status=answer.status, body=content, headers=kept)
        except aiohttp.ClientConnectionError:  # the API server is away
            return self._break(request)
        finally:
            self._transports.discard(transport)

    async def _stream(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
        await response.prepare(request)
        ending: asyncio.Future[int] = self._loop.create_future()
        self._endings.add(ending)
        stalled = self._stalled
        chunk: asyncio.Future[bytes] = self._loop.create_future()
        try:
            while True:
                chunk = asyncio.ensure_future(answer.content.readany())
                either: list[asyncio.Future[Any]] = [chunk, ending]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if ending.done():
                    event = {"type": "ERROR", "object": _status(ending.result())}
                    await response.write(json.dumps(event).encode() + b"\n")
                    break
                data = await chunk
                stalled = stalled or self._stalled
                if not data and not stalled:
                    break
                if not data:
                    await self._end.wait()  # it stays open, whatever the API server does
                if stalled:
                    self.stalled.append(request.path)
                else:
                    await response.write(data)
        except (ConnectionError, aiohttp.ClientError):
            return self._break(request)
        finally:
            self._endings.discard(ending)
            ending.cancel()
            chunk.cancel()
            await asyncio.gather(chunk, return_exceptions=True)
        await response.write_eof()
        return response

    def _break(self, request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    def _cut(self) -> None:
        for transport in self._transports:
            transport.abort()

    def _end_watches(self, code: int) -> None:
        for ending in self._endings:
            if not ending.done():
                ending.set_result(code)


def _refusal(status: int, retry_after: int | None) -> web.Response:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return web.json_response(_status(status), status=status, headers=headers)


def _status(code: int) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": f"the proxy of the test answers {code}",
        "reason": "Injected",
        "code": code,
    }


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
