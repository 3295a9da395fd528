# SPDX-License-Identifier: Apache-2.0
"""The calls of the HTTP API, whatever sends them."""

import json
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

from tests.conformance.protocols.driver import Client, Errand, Outcome, RefusedError, Said, code_of
from tests.conformance.protocols.features import Feature

JSON = "application/json"
OFFERS: Mapping[Feature, str] = {
    Feature.ROUND_TRIP: "`POST /v1/tasks`, then `GET /v1/queues/{queue}/tasks/{task}/result`",
    Feature.BATCH: "`POST /v1/tasks/batch`",
    Feature.STREAM: "`GET …/stream` as server-sent events or lines of JSON",
    Feature.CANCEL: "`DELETE /v1/queues/{queue}/tasks/{task}`",
    Feature.DEADLINE: "`deadline`",
    Feature.PRIORITY: "`priority`",
    Feature.IDEMPOTENCY: "`idempotencyKey`, or an `id` of one's own (409 if it is there)",
    Feature.LARGE: "413 over the limit",
    Feature.MALFORMED: "400, 413 or 415 with an ErrorBody",
    Feature.UNAUTHENTICATED: "401; `Authorization: Bearer` or `x-api-key`",
    Feature.FORBIDDEN: "403",
    Feature.DRAIN: "202 with the task as it is; `connection: close`",
    Feature.RECONNECT: "`Last-Event-ID`, or `after`",
    Feature.REPLICAS: "any replica answers",
}


class RestClient(Client):
    """A client of the HTTP API. Kinds of it differ in how they send a request."""

    @abstractmethod
    async def call(
        self, method: str, path: str, body: bytes | None = None, *, content_type: str = JSON
    ) -> tuple[int, bytes]:
        """Send a request; status and body of the answer. Raises BrokenError if there is none."""

    async def submit(self, errand: Errand) -> str:
        task: str = (await self._ask("POST", "/v1/tasks", errand.to_wire()))["id"]
        return task

    async def submit_batch(self, errands: list[Errand]) -> list[str]:
        body = {"tasks": [errand.to_wire() for errand in errands]}
        ids: list[str] = (await self._ask("POST", "/v1/tasks/batch", body))["ids"]
        return ids

    async def result(self, task: str, *, seconds: float = 30) -> Outcome:
        found = await self._ask("GET", f"/v1/queues/main/tasks/{task}/result?timeoutSeconds={seconds}")
        return Outcome(found["id"], found["state"], found.get("result"))

    async def cancel(self, task: str, *, reason: str) -> None:
        await self._ask("DELETE", f"/v1/queues/main/tasks/{task}?reason={quote(reason)}")

    async def malformed(self) -> Mapping[str, str]:
        bodies = {
            "no JSON": b"{",
            "NaN": b'{"payload": NaN}',
            "a list": b"[]",
            "half a character": b'{"payload": "\xc3"}',
            "a field that does not exist": b'{"pay": 1}',
            "a priority that does not exist": b'{"priority": 10}',
            "a number as a string": b'{"priority": "5"}',
            "an id with a blank": b'{"id": "a b"}',
            "nesting without end": b'{"payload": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        }
        found = {what: await self._refused("POST", "/v1/tasks", body) for what, body in bodies.items()}
        found["no content type"] = await self._refused("POST", "/v1/tasks", b"{}", content_type="text/plain")
        found["no such path"] = await self._refused("GET", "/v1/nothing")
        found["no such method"] = await self._refused("PUT", "/v1/tasks", b"{}")
        found["a bad query"] = await self._refused("GET", "/v1/queues/main/tasks/a/result?timeoutSeconds=x")
        return found

    async def _refused(self, method: str, path: str, body: bytes | None = None, *, content_type: str = JSON) -> str:
        status, answer = await self.call(method, path, body, content_type=content_type)
        assert 400 <= status < 500, (status, answer)
        return code_of(answer)

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = await self.call(method, path, None if body is None else json.dumps(body).encode())
        if status >= 400:
            raise RefusedError(code_of(answer), answer.decode())
        return json.loads(answer)


async def said(lines: AsyncIterator[str]) -> AsyncIterator[Said]:
    """What server-sent events say: whole ones only."""
    offset, kind, data = "", "", ""
    async for line in lines:
        name, _, value = line.partition(": ")
        match name:
            case "id":
                offset = value
            case "event":
                kind = value
            case "data":
                data = value
            case "" if data:
                if kind == "fault":
                    raise RefusedError(code_of(data), data)
                item = json.loads(data)
                assert item.get("offset", "") == offset
                yield item_of(item)
                offset, kind, data = "", "", ""


def item_of(item: dict[str, Any]) -> Said:
    """A StreamItem or a StreamEnd."""
    if item["kind"] == "end":
        return Said("", "end", item.get("state"))
    return Said(item["offset"], item["kind"], item["data"])
