# SPDX-License-Identifier: Apache-2.0
"""One client's connection: its calls, whatever carries the frames.

The adapter gives each frame that arrives to `receive`, and a function that sends one. While that function waits because
the client does not read, no stream fetches more, and `receive` waits as soon as much waits to be sent.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from agent_runtime.adapters.base import Core
from agent_runtime.adapters.calls import errors
from agent_runtime.adapters.calls.answer import End
from agent_runtime.adapters.calls.errors import DrainingError, InvalidCallError, TooManyCallsError
from agent_runtime.adapters.calls.figures import Figures
from agent_runtime.adapters.calls.parsing import parameters
from agent_runtime.adapters.calls.table import CALLS, STREAMS, Call, StreamCall
from agent_runtime.cancellation import end
from kubeagents_api.errors import KubeagentsError

_log = logging.getLogger(__name__)

MOST_CALLS: Final = 1000
"""At once, on one connection."""
MOST_ANSWERS: Final = 32
"""That are made, or wait to be sent, at once; those of calls that wait for something are not counted."""
MOST_CALLED_BYTES: Final = 64 * 1024 * 1024
"""Of calls that have not been answered yet. One call may have as much as the wire lets through."""
MOST_UNSENT_CHARACTERS: Final = 4 * 1024 * 1024
"""Of answers that the client does not take. Then no calls are read until it does."""
DEFAULT_CREDIT: Final = 256
MOST_CREDIT: Final = 1_000_000
_LONGEST_ID: Final = 128
_TURN: Final = 50
"""Frames that are taken without a pause."""

Admit = Callable[[], Awaitable[Core]]
"""The core as the client may use it, asked anew for each call: so that calls are counted, and a key that was revoked
is not good for another one."""
Send = Callable[[str], Awaitable[None]]
"""Sends a frame, once the client takes it. Raises OSError if it never will."""


@dataclass(slots=True, eq=False)
class _Running:
    """A call that has not been answered yet."""

    id: str
    """As JSON."""
    size: int
    credit: int
    more: asyncio.Event = field(default_factory=asyncio.Event)
    """There is credit again."""
    waits: bool = True
    """Whether it may be cancelled."""
    begun: bool = False
    done: bool = False
    """Only its answer is left to be sent."""
    stopped: bool = False
    """The client has asked for its end."""
    task: "asyncio.Task[None] | None" = None


class Session:
    """The calls of one connection."""

    def __init__(self, *, admit: Admit, send: Send, by: str, figures: Figures) -> None:
        """`by` is who calls, where callers are not told apart."""
        self._admit = admit
        self._transmit = send
        self._by = by
        self._figures = figures
        self._running: dict[str, _Running] = {}
        self._called_bytes = 0
        self._taken = 0
        self._unsent = 0
        self._answering = asyncio.Semaphore(MOST_ANSWERS)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._gone = False
        self._undoing: set[asyncio.Task[None]] = set()
        figures.connections.inc()

    @property
    def idle(self) -> bool:
        """Whether no call runs."""
        return not self._running

    async def receive(self, frame: str | bytes) -> None:
        """Take a frame. Waits while the client does not take what it has asked for."""
        said_id = "null"
        try:
            fields = _object(frame)
            call_id = _id(fields)
            said_id = orjson.dumps(call_id).decode()
            self._take(call_id, said_id, fields, frame)
        except KubeagentsError as error:
            self._figures.count("", error.code)
            # An answer under an id that is in use would be taken for that call's.
            reply_to = "null" if said_id != "null" and call_id in self._running else said_id
            await self._deliver_quietly(f'{{"id":{reply_to},"error":{errors.body(error)}}}')
        await self._flowing.wait()
        self._taken += 1
        if self._taken % _TURN == 0:
            await asyncio.sleep(0)  # who sends many at once leaves a turn to the others

    async def notice_draining(self) -> None:
        """Tell the client to go elsewhere. Its calls still end."""
        await self._deliver_quietly('{"notice":"draining"}')

    async def fail(self, error: KubeagentsError) -> None:
        """Tell the client why the connection is about to be closed."""
        await self._deliver_quietly(f'{{"id":null,"error":{errors.body(error)}}}')

    async def finish(self) -> None:
        """Wait until all calls have been answered."""
        await self._idle.wait()

    async def close(self) -> None:
        """The connection has gone: cancel what waits and what would be sent, finish the rest."""
        self._gone = True
        self._flowing.set()
        self._figures.connections.dec()
        running = list(self._running.values())
        await end(*(call.task for call in running if call.task is not None and (call.waits or call.done)))
        await asyncio.gather(*(call.task for call in running if call.task is not None), return_exceptions=True)
        await asyncio.gather(*self._undoing)
        self._idle.set()

    def _take(self, call_id: str, said_id: str, fields: dict[str, Any], frame: str | bytes) -> None:
        match fields:
            case {"call": str(name)}:
                self._begin(call_id, said_id, name, fields, frame)
            case {"more": int(credit)} if type(credit) is int and 0 < credit <= MOST_CREDIT:
                if (call := self._running.get(call_id)) is not None:  # otherwise it has just ended
                    call.credit = min(MOST_CREDIT, call.credit + credit)
                    call.more.set()
            case {"stop": True}:
                if (call := self._running.get(call_id)) is not None and call.waits and call.task is not None:
                    call.stopped = True
                    if call.begun:  # cancelled before, it could not even say so
                        call.task.cancel()
            case _:
                raise InvalidCallError(
                    f'a frame needs one of: "call" with a name, "more" with 1 to {MOST_CREDIT}, "stop" with true'
                )

    def _begin(self, call_id: str, said_id: str, name: str, fields: dict[str, Any], frame: str | bytes) -> None:
        if call_id in self._running:
            raise InvalidCallError(
                f"the id {call_id!r} is in use: each call needs one of its own",
                code="ID_IN_USE",
                details={"id": call_id},
            )
        called = CALLS.get(name) or STREAMS.get(name)
        if called is None:
            raise InvalidCallError(
                f"there is no call {name[:64]!r}; there are {', '.join(sorted([*CALLS, *STREAMS]))}",
                code="UNKNOWN_CALL",
            )
        credit = fields.get("credit", DEFAULT_CREDIT)
        if type(credit) is not int or not 0 <= credit <= MOST_CREDIT:
            raise InvalidCallError(f'"credit" must be a number from 0 to {MOST_CREDIT}')
        if unknown := fields.keys() - {"id", "call", "params", "credit"}:
            raise InvalidCallError(f"a call has no {min(unknown)[:64]!r}: what it needs goes into params")
        if len(self._running) >= MOST_CALLS:
            raise TooManyCallsError(f"{MOST_CALLS} calls of this connection run: wait until one is answered")
        if self._running and self._called_bytes + len(frame) > MOST_CALLED_BYTES:
            raise TooManyCallsError(f"the calls of this connection that run have {self._called_bytes} bytes")
        running = _Running(said_id, len(frame), credit)
        self._running[call_id] = running
        self._called_bytes += running.size
        self._idle.clear()
        given = frame if "params" in fields else None
        running.task = asyncio.create_task(self._run(call_id, name, called, running, given))

    async def _run(
        self, call_id: str, name: str, called: Call[Any] | StreamCall[Any], running: _Running, frame: str | bytes | None
    ) -> None:
        outcome, running.begun = "ok", True
        try:
            if running.stopped:
                raise asyncio.CancelledError
            params = parameters(called.params, frame)
            core = await self._admit()
            if isinstance(called, StreamCall):
                await self._stream(core, called, params, running)
            else:
                await self._answer(core, called, params, running)
        except KubeagentsError as error:
            outcome, running.done = error.code, True
            await self._deliver_quietly(f'{{"id":{running.id},"error":{errors.body(error)}}}')
        except OSError:
            outcome = "gone"
        except asyncio.CancelledError:
            outcome, running.done = "stopped", True
            if self._gone or not running.stopped:
                raise
            await self._deliver_quietly(f'{{"id":{running.id},"end":{{"stopped":true}}}}')
        except Exception:
            outcome, running.done = "INTERNAL", True
            _log.exception("call %s failed", name)
            body = errors.body(KubeagentsError("something went wrong in the server; its log has more"))
            await self._deliver_quietly(f'{{"id":{running.id},"error":{body}}}')
        finally:
            del self._running[call_id]
            self._called_bytes -= running.size
            self._figures.count(name, outcome)
            if not self._running:
                self._idle.set()

    async def _answer(self, core: Core, called: Call[Any], params: Any, running: _Running) -> None:
        running.waits = called.waits(core, params)
        if running.waits:
            return await self._answered(core, called, params, running)
        async with self._answering:
            if self._gone:  # it has not begun, and nobody waits for it
                raise BrokenPipeError("the connection has gone")
            await self._answered(core, called, params, running)

    async def _answered(self, core: Core, called: Call[Any], params: Any, running: _Running) -> None:
        answer = await called.run(core, params, self._by)
        running.done = True
        try:
            await self._deliver(f'{{"id":{running.id},"result":{answer.json}}}')
        except (OSError, asyncio.CancelledError):
            if answer.undo is not None:
                undoing = asyncio.create_task(_undo(answer.undo))  # not to be cancelled with the call
                self._undoing.add(undoing)
                undoing.add_done_callback(self._undoing.discard)
            raise

    async def _stream(self, core: Core, called: StreamCall[Any], params: Any, running: _Running) -> None:
        items = called.run(core, params)
        try:
            async for item in items:
                if isinstance(item, End):
                    return await self._deliver(f'{{"id":{running.id},"end":{item.json}}}')
                while running.credit < 1:
                    running.more.clear()
                    await running.more.wait()
                running.credit -= 1
                await self._deliver(f'{{"id":{running.id},"item":{item}}}')
        finally:
            await items.aclose()
        if core.draining:
            raise DrainingError("this pod is about to stop: go on at another one, after the last offset")
        await self._deliver(f'{{"id":{running.id},"end":{{}}}}')

    async def _deliver_quietly(self, frame: str) -> None:
        try:
            await self._deliver(frame)
        except OSError:
            _log.debug("the client has gone before its answer")

    async def _deliver(self, frame: str) -> None:
        if self._gone:
            raise BrokenPipeError("the connection has gone")
        self._unsent += len(frame)
        if self._unsent > MOST_UNSENT_CHARACTERS:
            self._flowing.clear()
        try:
            await self._transmit(frame)
        finally:
            self._unsent -= len(frame)
            if self._unsent <= MOST_UNSENT_CHARACTERS:
                self._flowing.set()


async def _undo(undo: Callable[[], Awaitable[None]]) -> None:
    try:
        await undo()
    except KubeagentsError as error:
        _log.warning("what was claimed for an answer that could not be sent comes back with its lease: %s", error)


def _object(frame: str | bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(frame)
    except orjson.JSONDecodeError as error:
        raise InvalidCallError(f"the frame is no JSON: {error}", code="INVALID_JSON") from error
    if not isinstance(fields, dict):
        raise InvalidCallError("the frame is no JSON object")
    return fields


def _id(fields: dict[str, Any]) -> str:
    call_id = fields.get("id")
    if not isinstance(call_id, str) or not 0 < len(call_id) <= _LONGEST_ID:
        raise InvalidCallError(f'the frame needs an "id": a text of 1 to {_LONGEST_ID} characters')
    return call_id
