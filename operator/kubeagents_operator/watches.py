# SPDX-License-Identifier: Apache-2.0
"""kopf as the watch engine: it lists and watches, reconnects, re-lists after 410 Gone, renews credentials. No more.

It is given an HTTP session of ours. Through it we learn three things that kopf keeps to itself:

- What a LIST contains. kopf shows the objects of a LIST one by one as events and never says which objects are no more,
  and it makes a task for each object. So the LIST is taken out of the response here, goes straight into the cache,
  which forgets what it does not show, and kopf gets it empty and goes on to watch from its `resourceVersion`.
- What happens to objects. kopf would copy each one, give it a queue and a task, and look for handlers: a millisecond
  for each event. So the events are taken out of the stream, too, and kopf gets bookmarks instead: how far it is.
- When each stream last spoke to the API server. Each watch is ended by the server after `SERVER_TIMEOUT` and is opened
  anew, so a stream that has not even tried for longer is stuck, however alive the process looks.

The same holds while the API server is away: kopf keeps trying, for as long as it takes.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import aiohttp
import kopf
import orjson
from yarl import URL

from kubeagents_operator import observed
from kubeagents_operator.cache import Cache
from kubeagents_operator.cluster import Connection
from kubeagents_operator.keys import Name
from kubeagents_operator.watched import WATCHED, Resource

_log = logging.getLogger(__name__)

SERVER_TIMEOUT = 240
CLIENT_TIMEOUT = SERVER_TIMEOUT + 30
CONNECT_TIMEOUT = 10.0
SILENCE_TIMEOUT = 70.0
"""The API server sends a bookmark each minute: a stream without any for longer is dead, though its connection is up."""
STUCK_AFTER = CLIENT_TIMEOUT + 60
"""A stream that has made no request for so long will make none any more."""

_PAGE = 500
_RELOGIN_PAUSE = 5.0
_ERROR_PAUSE = 2.0
_REFUSAL_TIMEOUT = 5.0
"""For the text of a refusal: it comes with the headers. If its session is closed before, aiohttp waits on in vain."""
_KNOWN_TO_KOPF = (401, 403, 404, 429)
"""Statuses below 500 that kopf does right by: it logs in anew, tries again, or ends. All others would end it."""
_GONE = b'{"type":"ERROR","object":{"code":410}}\n'
"""Makes kopf list anew."""


@dataclass(slots=True)
class Stream:
    """One resource in one namespace, or in all of them."""

    resource: Resource
    namespace: str | None
    tried_at: float
    answered_at: float
    listed: bool = False
    trouble: str | None = None
    """Why its last request failed."""
    shown: set[Name] = field(default_factory=set)
    """The objects in the pages of the LIST that is being read."""

    def __str__(self) -> str:
        return self.resource.plural + (f" in {self.namespace}" if self.namespace is not None else "")


class Watches:
    """Keeps the cache up to date. `synced` is set once every resource has been listed."""

    def __init__(
        self, cache: Cache, *, namespaces: Iterable[str], connect: Callable[[], Awaitable[Connection]]
    ) -> None:
        self._cache = cache
        self._connect = connect
        self._namespaces = tuple(namespaces)
        self._clock = asyncio.get_running_loop().time
        self._logged_in_at = float("-inf")
        now = self._clock()
        self._streams = {
            resource.path(namespace): Stream(resource, namespace, tried_at=now, answered_at=now)
            for resource in WATCHED
            for namespace in (self._namespaces or (None,))
        }
        self._tasks: Collection[asyncio.Task[Any]] = ()
        self.synced = asyncio.Event()

    async def start(self) -> None:
        """Begin to watch. kopf takes the signal handlers of the process; the caller may take them back."""
        self._tasks = await kopf.spawn_tasks(
            registry=self._registry(),
            settings=_settings(),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
        )

    async def wait(self) -> None:
        """Wait for an end of the watches that nobody asked for. Raises what kopf cannot get over, for example a CRD
        that was deleted.

        (`kopf.operator` would do that as well, but then it cancels every task of the event loop, ours included.)
        """
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Watch no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # When one watcher fails, kopf forgets the others; they would keep the event loop from closing.
        orphans = [task for task in asyncio.all_tasks() if task.get_name().startswith("watcher for ")]
        for task in orphans:
            task.cancel()
        await asyncio.gather(*orphans, return_exceptions=True)

    def unlisted(self) -> list[str]:
        """The streams whose first LIST is still missing."""
        return [str(stream) for stream in self._streams.values() if not stream.listed]

    def stuck(self) -> list[str]:
        """The streams that have stopped trying."""
        now = self._clock()
        return [str(stream) for stream in self._streams.values() if now - stream.tried_at > STUCK_AFTER]

    def ages(self) -> dict[str, float]:
        """Per resource, the seconds since its least fortunate stream last heard from the API server."""
        now = self._clock()
        ages: dict[str, float] = {}
        for stream in self._streams.values():
            ages[stream.resource.plural] = max(ages.get(stream.resource.plural, 0.0), now - stream.answered_at)
        return ages

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry, id="login")(self._login)
        for resource in WATCHED:
            kopf.on.event(
                group=resource.group,
                version=resource.version,
                plural=resource.plural,
                id=resource.plural,
                registry=registry,
            )(_never_called)
        return registry

    async def _login(self, **_: Any) -> kopf.AiohttpSession:
        """Called at the start and whenever the API server refuses the credentials."""
        pause = self._logged_in_at + _RELOGIN_PAUSE - self._clock()
        if pause > 0:
            _log.warning("the API server refuses the credentials; next try in %.0f s", pause)
            await asyncio.sleep(pause)
        self._logged_in_at = self._clock()
        connection = await self._connect()
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=connection.ssl_context),
            headers=connection.headers,
            trace_configs=[self._trace()],
            response_class=_response_class(self._streams.keys(), self._listed, self._happened, self._useless),
        )
        return kopf.AiohttpSession(server=connection.server, aiohttp_session=session)

    def _trace(self) -> aiohttp.TraceConfig:
        async def tried(_: Any, __: Any, request: aiohttp.TraceRequestStartParams) -> None:
            if (stream := self._streams.get(request.url.path)) is not None:
                stream.tried_at = self._clock()

        async def answered(_: Any, __: Any, request: aiohttp.TraceRequestEndParams) -> None:
            answer = request.response
            if (stream := self._streams.get(request.url.path)) is not None and answer.status >= 300:
                self._note(stream, f"it answers {answer.status} {answer.reason} for {stream}")

        async def failed(_: Any, __: Any, request: aiohttp.TraceRequestExceptionParams) -> None:
            stream = self._streams.get(request.url.path)
            if stream is not None and not isinstance(request.exception, asyncio.CancelledError):
                self._note(stream, str(request.exception) or type(request.exception).__name__)

        trace: aiohttp.TraceConfig = aiohttp.TraceConfig()
        trace.on_request_start.append(tried)
        trace.on_request_end.append(answered)
        trace.on_request_exception.append(failed)
        return trace

    def _heard(self, stream: Stream) -> None:
        """The API server has said something of use."""
        stream.answered_at = self._clock()
        if stream.trouble is not None:
            self._note(stream, None)

    def _note(self, stream: Stream, trouble: str | None) -> None:
        """Log a trouble once, however many streams have it and however often they try."""
        if trouble is not None and not any(one.trouble == trouble for one in self._streams.values()):
            _log.warning("watching, trying on: %s", trouble)
        recovered = stream.trouble is not None and trouble is None
        stream.trouble = trouble
        if recovered and not any(one.trouble for one in self._streams.values()):
            _log.info("watching: the API server answers again")

    def _useless(self, url: URL, answer: str) -> None:
        """Something has come that is no answer to a list or watch request."""
        stream = self._streams[url.path]
        self._note(stream, f"{answer} for {stream}: listing anew")

    def _happened(self, url: URL, event: dict[str, Any]) -> str | None:
        """Take an event out of a watch. Returns the `resourceVersion` that it brings the stream to; None for what kopf
        has to see itself: its errors, and bookmarks."""
        stream = self._streams[url.path]
        self._heard(stream)
        take = _TAKES.get(event["type"])
        if take is None:
            return None
        body = event["object"]
        try:
            take(self._cache, stream.resource, body)
        except Exception:
            # A defect. The other objects are none the worse for it.
            _log.exception("an event of %s could not be taken in", stream.resource.plural)
        version: str = body["metadata"]["resourceVersion"]
        return version

    def _listed(self, url: URL, body: dict[str, Any]) -> None:
        """Take a page of a LIST out of the response."""
        stream = self._streams[url.path]
        self._heard(stream)
        if "continue" not in url.query:
            stream.shown = set()
        for item in body.get("items") or ():
            stream.shown.add(observed.name(item))
            self._cache.seen(stream.resource, item)
        body["items"] = []
        if body["metadata"].get("continue"):
            return
        self._cache.keep_only(stream.resource, stream.namespace, stream.shown, int(body["metadata"]["resourceVersion"]))
        stream.shown = set()
        stream.listed = True
        if not self.unlisted():
            self.synced.set()


_TAKES = {"ADDED": Cache.seen, "MODIFIED": Cache.seen, "DELETED": Cache.deleted}


async def _never_called(**_: Any) -> None:
    """kopf watches what has a handler. No event gets as far as that."""


Listed = Callable[[URL, dict[str, Any]], None]
Happened = Callable[[URL, dict[str, Any]], str | None]
Useless = Callable[[URL, str], None]


def _response_class(
    paths: Collection[str], listed: Listed, happened: Happened, useless: Useless
) -> type[aiohttp.ClientResponse]:
    """Of the answers that kopf gets. Those to other requests than for these paths, it gets as they are."""

    async def give_up(url: URL, answer: str) -> None:
        """After a pause: whatever it is may last."""
        useless(url, answer)
        await asyncio.sleep(_ERROR_PAUSE)

    class Response(aiohttp.ClientResponse):
        async def start(self, connection: Any) -> "aiohttp.ClientResponse":
            await super().start(connection)
            if self.url.path not in paths:
                return self
            watch = self.url.query.get("watch") == "true"
            if 400 <= self.status < 500 and self.status not in _KNOWN_TO_KOPF:
                # For example 410: the watch, or the next page of a LIST, is of a past that is forgotten.
                await give_up(self.url, f"it answers {self.status} {self.reason}")
                if not watch:
                    raise _list_anew(self.status)
                self.status = 200
                self.content = cast("aiohttp.StreamReader", _Ended(self.content))
            elif watch and self.status == 200:
                self.content = cast("aiohttp.StreamReader", _Events(self.content, self.url, happened, give_up))
            return self

        async def read(self) -> bytes:
            with _lost_connections():
                return await super().read()

        async def json(self, **options: Any) -> Any:
            if self.status >= 300 or self.url.path not in paths:
                async with asyncio.timeout(_REFUSAL_TIMEOUT):
                    return await super().json(**options)
            try:
                body = orjson.loads(await self.read())
                body["metadata"]["resourceVersion"]
            except (ValueError, TypeError, KeyError) as error:
                await give_up(self.url, _NOT_OF_THE_API_SERVER)
                raise _list_anew(self.status) from error
            listed(self.url, body)
            return body

    return Response


_NOT_OF_THE_API_SERVER = "something in its place answers"


def _list_anew(status: int) -> aiohttp.ClientPayloadError:
    """What makes kopf begin the LIST anew, instead of ending."""
    return aiohttp.ClientPayloadError(f"not a page of a list (status {status})")


@contextmanager
def _lost_connections() -> Iterator[None]:
    """To read on from a connection that was closed on this side is a RuntimeError for aiohttp, and kopf would end with
    it; errors of connections it gets over. It closes all connections of a session when one answer in it is 401."""
    try:
        yield
    except RuntimeError as error:
        raise aiohttp.ClientConnectionError(str(error)) from error


async def _bearable(event: dict[str, Any]) -> bytes:
    """kopf gives up after an error in a stream, unless it is 410 Gone: then it lists anew, which helps against all. The
    others, such as that of an etcd without a leader, may last, so they get a pause."""
    if event["type"] == "ERROR" and event["object"].get("code") != 410:
        _log.warning(
            "watching, listing anew: a stream has ended with %s", event["object"].get("message") or event["object"]
        )
        await asyncio.sleep(_ERROR_PAUSE)
        return _GONE
    return orjson.dumps(event) + b"\n"


class _Body:
    """Instead of the body of a watch's response; what aiohttp wants of it goes to the one that has come."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)


class _Ended(_Body):
    """That of a response that is none."""

    async def iter_chunked(self, _: int) -> AsyncIterator[bytes]:
        """What kopf calls."""
        yield _GONE


class _Events(_Body):
    """That from which kopf reads bookmarks instead of events."""

    def __init__(
        self,
        content: aiohttp.StreamReader,
        url: URL,
        happened: Happened,
        give_up: Callable[[URL, str], Awaitable[None]],
    ) -> None:
        super().__init__(content)
        self._url = url
        self._happened = happened
        self._give_up = give_up

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """What kopf calls."""
        rest, empty = b"", True
        while chunk := await self._read(size):
            *lines, rest = (rest + chunk).split(b"\n")
            version = None
            for line in lines:
                if not line:
                    continue
                if (event := _event(line)) is None:
                    await self._give_up(self._url, _NOT_OF_THE_API_SERVER)
                    yield _GONE
                    return
                empty = False
                if (reached := self._happened(self._url, event)) is not None:
                    version = reached
                    continue
                yield await _bearable(event)
            if version is not None:
                bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version}}}
                yield orjson.dumps(bookmark) + b"\n"
        if rest:
            await self._give_up(self._url, _NOT_OF_THE_API_SERVER)
            yield _GONE
        elif empty:  # kopf opens the next one at once, and that may be as short as this one
            await asyncio.sleep(_ERROR_PAUSE)

    async def _read(self, size: int) -> bytes:
        with _lost_connections():
            return await self._content.read(size)


def _event(line: bytes) -> dict[str, Any] | None:
    """An event of a watch; None if it is something else."""
    try:
        event = orjson.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "type" in event and "object" in event else None


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.process.ultimate_exiting_timeout = None
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.persistence.progress_storage = _NoProgress()
    settings.networking.error_backoffs = _Endless()
    settings.networking.connect_timeout = CONNECT_TIMEOUT
    settings.networking.request_timeout = 60.0
    settings.watching.server_timeout = SERVER_TIMEOUT
    settings.watching.client_timeout = CLIENT_TIMEOUT
    settings.watching.connect_timeout = CONNECT_TIMEOUT
    settings.watching.inactivity_timeout = SILENCE_TIMEOUT
    settings.watching.chunk_size = _PAGE
    settings.queueing.idle_timeout = 1.0
    for resource in WATCHED:
        name = (resource.group, resource.version, resource.plural)
        if resource.label_selector is not None:
            settings.watching.label_selectors[name] = resource.label_selector
        if resource.field_selector is not None:
            settings.watching.field_selectors[name] = resource.field_selector
    return settings


class _Endless(Iterable[float]):
    """Seconds between the tries of a request, without an end."""

    def __iter__(self) -> Iterator[float]:
        yield from (0.5, 1.0, 2.0, 3.0, 5.0)
        while True:
            yield 10.0


class _NoDiffBase(kopf.DiffBaseStorage):
    """Nothing is remembered of an object, so nothing has to be compared with it."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """Event handlers make no progress that would have to be kept."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence
