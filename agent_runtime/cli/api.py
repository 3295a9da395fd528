# SPDX-License-Identifier: Apache-2.0
"""The HTTP API of a CentralAgent, as the commands use it.

Answers stay dictionaries: a newer server may say more than this version knows, and `-o json` must show it all.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from agent_runtime.cli.errors import CliError

if TYPE_CHECKING:
    import httpx

    from agent_runtime.cli.server import Server

Json = dict[str, Any]

BATCH_TASKS = 1000
"""Tasks in one request, at most; a batch is queued atomically, and progress shows between batches."""
BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of JSON in one request, at most, unless a single task is larger."""
_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 30.0
_SILENCE_SECONDS = 60.0
"""A stream says something every 15 s, if only that there is nothing new."""
_PAGE = 1000
_KEY_HEADER = "x-api-key"
_FINAL = frozenset({"succeeded", "failed", "cancelled", "expired", "dead"})


@dataclass(frozen=True)
class Said:
    """One thing that came in a stream."""

    data: Json
    offset: str = ""
    """Where to go on after it; empty for the end."""


def is_final(task: Json) -> bool:
    """Whether the task will never change again."""
    return task.get("state") in _FINAL


class Api:
    """A connection to one CentralAgent. Every method raises CliError with what to do when it does not work."""

    def __init__(self, server: "Server") -> None:
        import httpx

        self.server = server
        # Not as Authorization: on the way through the Kubernetes API server that is for the latter.
        key = {_KEY_HEADER: server.key} if server.key is not None else {}
        try:
            self._http = httpx.Client(
                base_url=server.url.rstrip("/") + "/",
                timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
                **{**server.connection, "headers": {**server.connection.get("headers", {}), **key}},
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise CliError(f"{server.url!r} ({server.source}) is not a URL: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def submit(self, task: Json) -> Json:
        """Queue one task; the answer has its id, queue and state."""
        return self._object("POST", "v1/tasks", body=task)

    def submit_batch(self, tasks: Sequence[Json]) -> Json:
        """Queue tasks, all or none; the answer has their ids and the queue."""
        return self._object("POST", "v1/tasks/batch", body={"tasks": list(tasks)})

    def task(self, queue: str, task_id: str) -> Json:
        """A task and all that is known about it."""
        return self._object("GET", f"v1/queues/{_quoted(queue)}/tasks/{_quoted(task_id)}")

    def wait(self, queue: str, task_ids: Sequence[str], *, seconds: float) -> list[Json]:
        """Those of the tasks that are final once all are, or once `seconds` are over."""
        answer = self._object(
            "POST",
            f"v1/queues/{_quoted(queue)}/results",
            body={"ids": list(task_ids), "timeoutSeconds": seconds},
            extra_seconds=seconds,
        )
        return [task for task in answer["tasks"] if is_final(task)]

    def queues(self) -> list[Json]:
        """Figures of every queue, the default one first."""
        return self._list("v1/queues")

    def queue(self, name: str) -> Json:
        """Figures of one queue."""
        return self._object("GET", f"v1/queues/{_quoted(name)}")

    def cancel(self, queue: str, task_ids: Sequence[str], *, by: str, reason: str) -> list[Json]:
        """End tasks that have not ended; each one's id and the state it is in now."""
        body = {"ids": list(task_ids), "reason": reason, "by": by}
        tasks: list[Json] = self._object("POST", f"v1/queues/{_quoted(queue)}/cancel", body=body)["tasks"]
        return tasks

    def dead(self, queue: str, *, which: Json, limit: int) -> list[Json]:
        """Dead tasks of a queue that fit, newest first."""
        found: list[Json] = []
        while len(found) < limit:
            page = min(_PAGE, limit - len(found))
            query = _query({**which, "limit": page, "cursor": found[-1]["id"] if found else None})
            tasks = self._list(f"v1/queues/{_quoted(queue)}/dead?{query}")
            found.extend(tasks)
            if len(tasks) < page:
                break
        return found

    def replay(self, queue: str, selection: Json) -> list[str]:
        """Queue dead tasks again; their ids."""
        return self._change_dead(queue, "replay", selection)

    def purge(self, queue: str, selection: Json) -> list[str]:
        """Remove dead tasks for good; their ids."""
        return self._change_dead(queue, "purge", selection)

    def _change_dead(self, queue: str, change: str, selection: Json) -> list[str]:
        answer = self._object("POST", f"v1/queues/{_quoted(queue)}/dead/{change}", body=selection)
        ids: list[str] = answer["ids"]
        return ids

    def gate(self, queue: str, change: str, *, by: str) -> Json:
        """Pause, resume, close or open a queue; who has it paused and closed now."""
        return self._object("POST", f"v1/queues/{_quoted(queue)}/{change}", body={"by": by})

    def cordon(self, queue: str, change: str, instances: Sequence[str], *, by: str) -> list[Json]:
        """Cordon or uncordon agent processes of a queue; what is known of them now."""
        body = {"instances": list(instances), "by": by}
        known: list[Json] = self._object("POST", f"v1/queues/{_quoted(queue)}/{change}", body=body)["instances"]
        return known

    def schedules(self, queue: str) -> list[Json]:
        """The schedules of a queue."""
        return self._list(f"v1/queues/{_quoted(queue)}/schedules")

    def events(self, queue: str, *, after: str) -> Iterator[Json]:
        """What has happened in a queue after the offset, and is kept."""
        while True:
            query = _query({"after": after, "limit": _PAGE})
            page = self._object("GET", f"v1/queues/{_quoted(queue)}/events?{query}")
            if not page["events"]:
                return
            yield from page["events"]
            after = page["next"]

    def follow_events(self, queue: str, *, after: str) -> Iterator[Said]:
        """What happens in a queue after the offset, without end."""
        while True:
            for said in self._stream(f"v1/queues/{_quoted(queue)}/events?{_query({'limit': _PAGE})}", after=after):
                after = said.offset
                yield said

    def follow_task(self, queue: str, task_id: str, *, after: str) -> Iterator[Said]:
        """What a task says after the offset, until it has ended; the last one has the state, and no offset."""
        while True:
            for said in self._stream(f"v1/queues/{_quoted(queue)}/tasks/{_quoted(task_id)}/stream", after=after):
                yield said
                if not said.offset:
                    return
                after = said.offset

    def make_key(self, wanted: Json) -> Json:
        """Make an API key; what is known of it, and the key itself."""
        return self._object("POST", "v1/keys", body=wanted)

    def keys(self) -> list[Json]:
        """The API keys that were made."""
        return self._list("v1/keys")

    def revoke_key(self, key_id: str) -> None:
        """End an API key."""
        self._request("DELETE", f"v1/keys/{_quoted(key_id)}")

    def audit(self) -> Iterator[Json]:
        """Who has changed what and who was refused, oldest first."""
        after = ""
        while True:
            page = self._object("GET", f"v1/audit?{_query({'after': after, 'limit': _PAGE})}")
            if not page["entries"]:
                return
            yield from page["entries"]
            after = page["next"]

    def agents(self) -> list[Json]:
        """Every known process of every agent."""
        return self._list("v1/agents")

    def version(self) -> str:
        """Version of the server."""
        return str(self._object("GET", "openapi.json")["info"]["version"])

    def default_queue(self) -> str:
        """The queue that a task without one goes to: the server's first."""
        queues = self.queues()
        if not queues:
            raise CliError(f"{self.server.describe()} serves no queue")
        return str(queues[0]["queue"])

    def _object(self, method: str, path: str, *, body: Json | None = None, extra_seconds: float = 0.0) -> Json:
        answer = self._request(method, path, body=body, extra_seconds=extra_seconds)
        if not isinstance(answer, dict):
            raise self._not_ours(f"{method} {path} answered with JSON that is not an object")
        return answer

    def _list(self, path: str) -> list[Json]:
        answer = self._request("GET", path)
        if not isinstance(answer, list):
            raise self._not_ours(f"GET {path} answered with JSON that is no list")
        return answer

    def _request(self, method: str, path: str, *, body: Json | None = None, extra_seconds: float = 0.0) -> Any:
        import httpx

        try:
            response = self._http.request(
                method,
                path,
                json=body,
                timeout=httpx.Timeout(_ANSWER_SECONDS + extra_seconds, connect=_CONNECT_SECONDS),
            )
        except httpx.ConnectError as error:
            raise CliError(self._unreachable(error)) from error
        except httpx.TimeoutException as error:
            raise CliError(
                f"{self.server.describe()} did not answer within {_ANSWER_SECONDS + extra_seconds:g} s; "
                f"`{method} {path}` may or may not have been done"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise CliError(f"talking to {self.server.describe()} failed: {_cause(error)}") from error
        if response.status_code == httpx.codes.NO_CONTENT:
            return None
        if response.is_success:
            try:
                return response.json()
            except ValueError:
                raise self._not_ours(f"{method} {path} answered with something that is not JSON") from None
        raise CliError(self._refusal(method, path, response))

    def _stream(self, path: str, *, after: str) -> Iterator[Said]:
        """One connection's worth of server-sent events; it may end at any time, for example when a pod stops."""
        import httpx

        headers = {"accept": "text/event-stream", "last-event-id": after}
        timeout = httpx.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS)
        try:
            with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                if not response.is_success:
                    response.read()
                    raise CliError(self._refusal("GET", path, response))
                if not response.headers.get("content-type", "").startswith("text/event-stream"):
                    raise self._not_ours(f"GET {path} answered with something that is no event stream")
                yield from _events(response.iter_lines())
        except httpx.ConnectError as error:
            raise CliError(self._unreachable(error)) from error
        except httpx.RemoteProtocolError:
            return  # cut in the middle: the pod was killed
        except httpx.HTTPError as error:
            raise CliError(f"talking to {self.server.describe()} failed: {_cause(error)}") from error

    def _unreachable(self, error: Exception) -> str:
        cause, advice = _cause(error), self.server.advice
        if "CERTIFICATE_VERIFY_FAILED" in cause:
            advice = "If its certificate is of a private authority, name that one's with --ca-file."
        return f"cannot reach {self.server.describe()}: {cause}\n{advice}"

    def _refusal(self, method: str, path: str, response: "httpx.Response") -> str:
        """What a 4xx or 5xx means: our API's ErrorBody, or the Kubernetes API server's Status."""
        try:
            body = response.json()
        except ValueError:
            body = None
        if isinstance(body, dict) and isinstance(body.get("error"), str):
            advice = self.server.key_advice if body.get("code") == "UNAUTHENTICATED" else ""
            return str(body["error"]) + (advice and f"\n{advice}")
        if isinstance(body, dict) and body.get("kind") == "Status":
            text = f"the Kubernetes API server answered {response.status_code}: {body.get('message') or 'no message'}"
            return f"{text}\n{self.server.advice}" if response.status_code in (403, 404, 503) else text
        return str(self._not_ours(f"{method} {path} answered {response.status_code}"))

    def _not_ours(self, what: str) -> CliError:
        return CliError(f"{self.server.describe()} does not look like a CentralAgent: {what}\n{self.server.advice}")


def batches(tasks: Sequence[Json]) -> Iterator[list[Json]]:
    """The tasks, cut so that each request stays within BATCH_TASKS and BATCH_BYTES."""
    batch: list[Json] = []
    size = 0
    for task in tasks:
        length = len(json.dumps(task))
        if batch and (len(batch) >= BATCH_TASKS or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(task)
        size += length
    if batch:
        yield batch


def _events(lines: Iterator[str]) -> Iterator[Said]:
    """Server-sent events, taken apart. Raises CliError for a fault that the server reports."""
    kind, offset, data = "", "", ""
    for line in lines:
        name, _, value = line.partition(": ")
        match name:
            case "event":
                kind = value
            case "id":
                offset = value
            case "data":
                data = value
            case "" if not line and data:
                said = json.loads(data)
                if kind == "fault":
                    raise CliError(said["error"])
                yield Said(said, offset)
                kind, offset, data = "", "", ""


def _query(parameters: Json) -> str:
    from urllib.parse import urlencode

    return urlencode({key: value for key, value in parameters.items() if value not in (None, "")})


def _quoted(segment: str) -> str:
    """A path segment that can hold whatever the user typed."""
    from urllib.parse import quote

    return quote(segment, safe="")


def _cause(error: BaseException) -> str:
    return str(error) or type(error).__name__
