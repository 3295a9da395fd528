# SPDX-License-Identifier: Apache-2.0
"""Push notifications: what a task says is posted to where somebody wants it.

config ──put──► PushStore ──claim──► one pod follows the task ──POST──► target
                    ▲                            │
                    └────── place, renewed ──────┘

Every update is posted at least once, in the order of the task, and the next one only after the target has answered with
a 2xx. If the pod dies, another claims the config and goes on after the last place that was noted; the update that was
on its way then arrives twice. A target that does not answer is tried again and again, ever more seldom, for an hour.
The config goes when the task has ended and its last update was taken.
"""

import asyncio
import contextlib
import hashlib
import ipaddress
import logging
import time
from collections.abc import Sequence
from typing import Any, Final

import httpx
import orjson
from a2a.server.events import Event
from a2a.types import TaskArtifactUpdateEvent, TaskPushNotificationConfig
from a2a.utils.constants import A2A_JSON_MEDIA_TYPE
from a2a.utils.proto_utils import to_stream_response
from google.protobuf.json_format import MessageToDict, ParseDict

from agent_runtime.adapters.a2a.addresses import Address
from agent_runtime.adapters.a2a.targets import ForbiddenTargetError, Targets
from agent_runtime.adapters.a2a.tasks import OURS
from agent_runtime.adapters.a2a.updates import follow
from agent_runtime.adapters.base import Core, Surroundings
from agent_runtime.cancellation import end
from agent_runtime.queue.push_store import Claimed, PushStore
from kubeagents_api.errors import InvalidTaskError, PermanentError, QueueUnavailableError, TaskNotFoundError
from kubeagents_api.task import TASK_ID, TaskRecord

_log = logging.getLogger(__name__)

_CLAIM_SECONDS: Final = 15
_RENEW_SECONDS: Final = _CLAIM_SECONDS / 3
_LOOK_SECONDS: Final = 1.0
"""Between two looks for configs that nobody has."""
_AT_ONCE: Final = 200
"""Configs that one pod claims with one look, so that pods share them; it works on any number, as most only wait."""
_CONNECTIONS: Final = 200
"""Requests under way."""
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 60.0
_GIVE_UP_SECONDS: Final = 3600.0
_LONGEST: Final = 4096
"""Characters of a token or of credentials."""


def configs(surroundings: Surroundings) -> "Configs | None":
    """Those of a process; None if it has no place for any."""
    store = surroundings.push_store
    return Configs(store, targets(surroundings)) if store is not None else None


def targets(surroundings: Surroundings) -> Targets:
    """What a process may call."""
    host = surroundings.host
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    return Targets(loopback=loopback)


class Configs:
    """The configs that callers make. Each is its maker's: nobody else sees its token."""

    def __init__(self, store: PushStore, targets: Targets) -> None:
        self._store = store
        self._targets = targets

    async def check(self, config: TaskPushNotificationConfig) -> None:
        """Raises InvalidTaskError for one that is not possible."""
        await self._targets.check(config.url, field="url")
        for field, value in (
            ("token", config.token),
            ("authentication.scheme", config.authentication.scheme),
            ("authentication.credentials", config.authentication.credentials),
        ):
            if len(value) > _LONGEST or not (value.isascii() and value.isprintable()):
                raise InvalidTaskError(f"{field} cannot be in a header", field=field)
        if config.id and not TASK_ID.fullmatch(config.id):
            raise InvalidTaskError("id may have letters, digits and . _ : - only", field="id")

    async def put(
        self, config: TaskPushNotificationConfig, record: TaskRecord, address: Address, *, sender: str
    ) -> TaskPushNotificationConfig:
        """Keep a config for a task. One without an id gets one that depends on its URL only."""
        kept = TaskPushNotificationConfig()
        kept.CopyFrom(config)
        kept.task_id = address.task_name(record.queue, record.id)
        kept.id = config.id or hashlib.sha256(config.url.encode()).hexdigest()[:16]
        text = {"config": MessageToDict(kept), "queue": record.queue, "task": record.id, "address": str(address)}
        await self._store.put(_name(record, sender, kept.id), orjson.dumps(text).decode())
        return kept

    async def get(self, config_id: str, record: TaskRecord, *, sender: str) -> TaskPushNotificationConfig:
        """One config. Raises TaskNotFoundError."""
        text = await self._store.get(_name(record, sender, config_id)) if TASK_ID.fullmatch(config_id) else None
        if text is None:
            raise TaskNotFoundError(f"the task {record.id!r} has no push notification config {config_id[:200]!r}")
        return _config(orjson.loads(text))

    async def of_task(self, record: TaskRecord, *, sender: str) -> Sequence[TaskPushNotificationConfig]:
        """All of the sender's for a task."""
        entries = await self._store.group(_name(record, sender, "").rstrip("/"))
        return [_config(orjson.loads(text)) for _, text in entries]

    async def remove(self, config_id: str, record: TaskRecord, *, sender: str) -> None:
        """Keep it no more. Nothing happens if it is not there."""
        if TASK_ID.fullmatch(config_id):
            await self._store.remove(_name(record, sender, config_id))


class Deliveries:
    """Posts what there is to post, from `start` to `stop`."""

    def __init__(self, store: PushStore, core: Core, targets: Targets) -> None:
        self._store = store
        self._core = core
        self._targets = targets
        # Proxies of the environment are for other ways; the target is called at the address that was looked at.
        limits = httpx.Limits(max_connections=_CONNECTIONS)
        self._client = httpx.AsyncClient(trust_env=False, follow_redirects=False, limits=limits)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._loops: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        self._loops = [asyncio.create_task(loop(), name="a2a-push") for loop in (self._claim, self._renew)]

    async def stop(self) -> None:
        """End, and let others go on at once."""
        await end(*self._loops)
        names = list(self._running)
        await end(*self._running.values())
        await self._client.aclose()
        with contextlib.suppress(QueueUnavailableError):  # then they wait until the claims are over
            await self._store.renew(names, seconds=0)

    async def _claim(self) -> None:
        while not self._core.draining:
            try:
                for entry in await self._store.claim(limit=_AT_ONCE, seconds=_CLAIM_SECONDS):
                    self._begin(entry)
            except QueueUnavailableError as error:
                _log.info("nobody is told by push notifications now: %s", error)
            await asyncio.sleep(_LOOK_SECONDS)

    def _begin(self, entry: Claimed) -> None:
        if entry.name in self._running:
            return

        def ended(_: asyncio.Task[None]) -> None:
            self._running.pop(entry.name, None)

        task = asyncio.create_task(self._deliver(entry), name=f"a2a-push {entry.name}")
        self._running[entry.name] = task
        task.add_done_callback(ended)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            try:
                await self._store.renew(list(self._running), seconds=_CLAIM_SECONDS)
            except QueueUnavailableError as error:
                _log.warning("claims of push notifications are not renewed: %s", error)

    async def _deliver(self, entry: Claimed) -> None:
        """All of one config: removes it at the end, or leaves it to whoever claims it next."""
        try:
            if await self._ended(entry):
                await self._store.remove(entry.name)
            else:
                await self._store.renew([entry.name], seconds=0)
        except QueueUnavailableError as error:
            _log.info("push notifications of %s are given back: %s", entry.name, error)
        except Exception:
            _log.exception("push notifications of %s have failed", entry.name)

    async def _ended(self, entry: Claimed) -> bool:
        try:
            return await self._told_all(entry)
        except PermanentError as error:  # mostly that the task is not kept any more
            _log.info("push notifications of %s end: %s", entry.name, error)
            return True

    async def _told_all(self, entry: Claimed) -> bool:
        """Whether there is nothing more to tell; False if this pod is about to stop."""
        known = orjson.loads(entry.text)
        place = orjson.loads(entry.place) if entry.place else {}
        record = await self._core.task(known["queue"], known["task"])
        begun = {place["attempt"]} if "attempt" in place else set()
        events = follow(self._core, record, Address.parse(known["address"]), after=place.get("offset", ""), begun=begun)
        ended = False
        async with contextlib.aclosing(events):
            async for event in events:
                if not await self._told(entry.name, event):
                    return True
                now = _place(event)
                ended = now is None and not isinstance(event, TaskArtifactUpdateEvent)
                if now is not None:
                    place |= now
                    await self._store.note(entry.name, orjson.dumps(place).decode())
        return ended

    async def _told(self, name: str, event: Event) -> bool:
        """Post one update until it is taken. False if the config is gone meanwhile, or its target for good."""
        body = orjson.dumps(MessageToDict(to_stream_response(event)))
        since, pause = time.monotonic(), _FIRST_PAUSE_SECONDS
        while True:
            text = await self._store.get(name)  # it may have been changed or removed
            if text is None:
                return False
            config = _config(orjson.loads(text))
            try:
                await self._targets.post(self._client, config.url, body, _headers(config))
                return True
            except (httpx.HTTPError, httpx.InvalidURL, ForbiddenTargetError) as error:
                reason = f"{type(error).__name__}: {error}"
            if time.monotonic() - since > _GIVE_UP_SECONDS:
                _log.warning("push notifications of %s end, as the target has taken none for long: %s", name, reason)
                return False
            _log.info("a push notification of %s was not taken: %s", name, reason)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


def _name(record: TaskRecord, sender: str, config_id: str) -> str:
    """Of an entry. No part has a slash or anything that is special in patterns."""
    who = hashlib.sha256(sender.encode()).hexdigest()[:16]
    return f"{record.queue}/{record.id}/{who}/{config_id}"


def _config(known: dict[str, Any]) -> TaskPushNotificationConfig:
    config = TaskPushNotificationConfig()
    ParseDict(known["config"], config)
    return config


def _headers(config: TaskPushNotificationConfig) -> dict[str, str]:
    headers = {"content-type": A2A_JSON_MEDIA_TYPE}
    if config.token:
        headers["x-a2a-notification-token"] = config.token
    if config.authentication.scheme:
        said = config.authentication
        headers["authorization"] = f"{said.scheme} {said.credentials}".strip()
    return headers


def _place(event: Event) -> dict[str, Any] | None:
    """Where an update is in the stream of its task; None for what is not in it, such as its end."""
    fields = event.metadata.fields
    offset = fields.get(f"{OURS}offset")
    if offset is None:
        return None
    place: dict[str, Any] = {"offset": offset.string_value}
    if isinstance(event, TaskArtifactUpdateEvent):
        place["attempt"] = int(fields[f"{OURS}attempt"].number_value)
    return place
