# SPDX-License-Identifier: Apache-2.0
"""The API server. Nothing else in the operator talks to it, except the watches, which get their connection from here.

Every write asks whether this replica still leads: at first, and once more when there is a connection to send it by. To
get one takes a while, and a process may be frozen meanwhile.

Errors come in three kinds: ObjectRefusedError (what we sent is not accepted, somebody has to help), ApiUnavailableError
(try again later), and a plain None where an object that is not there is a normal answer.
"""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from kubernetes.aio.client import ApiClient

from kubeagents_api.errors import KubeagentsError, PermanentError, TemporaryError
from kubeagents_api.labels import FIELD_MANAGER
from kubeagents_operator.keys import Key
from kubeagents_operator.metrics import ApiMetrics
from kubeagents_operator.watched import BY_KIND, CUSTOM, Resource

_REQUEST_TIMEOUT = 30.0
_TERMINATING = "NamespaceTerminating"

Object = dict[str, Any]


class ObjectRefusedError(PermanentError):
    """The API server refuses an object: quota, admission, a field that cannot be changed. The message is its own."""

    code = "OBJECT_REFUSED"


class ApiUnavailableError(TemporaryError):
    """The API server cannot be reached, is overloaded, or the object changed meanwhile."""

    code = "API_UNAVAILABLE"


class ConflictError(ApiUnavailableError):
    """The object is another one than we thought, or something that has to be counted with it, such as a
    ResourceQuota, has changed meanwhile."""

    code = "CONFLICT"


class ExistsError(ConflictError):
    """There is an object of that name already."""

    code = "EXISTS"


class NotLeadingError(TemporaryError):
    """This replica leads no more, or not yet: it must not write."""

    code = "NOT_LEADING"


@dataclass(frozen=True, slots=True)
class Connection:
    """What another HTTP client needs to talk to the same API server as the same user."""

    server: str
    ssl_context: ssl.SSLContext
    headers: Mapping[str, str]


class Cluster:
    """Typed access to the few requests that the operator makes."""

    def __init__(self, client: ApiClient, *, may_write: Callable[[], bool], metrics: ApiMetrics) -> None:
        self._client = client
        self._may_write = may_write
        self._metrics = metrics
        self._session: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        """Close the connections. The client is its owner's."""
        if self._session is not None:
            await self._session.close()

    async def connection(self) -> Connection:
        """How the watches connect. Asked again whenever the API server refuses the credentials, so that a token
        that has been renewed on disk is picked up."""
        configuration = self._client.configuration
        token = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        return Connection(
            server=configuration.host,
            ssl_context=self._client.rest_client.ssl_context,
            headers={"Authorization": token} if token else {},
        )

    async def missing_kinds(self) -> list[str]:
        """Which of our custom resources the API server does not serve. Raises ApiUnavailableError."""
        resource = CUSTOM[0]
        found = await self._request("GET", f"/apis/{resource.group}/{resource.version}", kind="APIResourceList")
        served = {entry["kind"] for entry in found["resources"]} if found is not None else set()
        return [custom.kind for custom in CUSTOM if custom.kind not in served]

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """One object; None if there is none."""
        self._metrics.reads.labels(resource.kind).inc()
        return await self._request("GET", resource.path(namespace, name), kind=resource.kind)

    async def create(self, manifest: Object) -> Object:
        """Create an object, and return it as it is now.

        Raises ExistsError, ObjectRefusedError or ApiUnavailableError.
        """
        resource = BY_KIND[manifest["kind"]]
        path = resource.path(manifest["metadata"]["namespace"]) + f"?fieldManager={FIELD_MANAGER}"
        return await self._written("POST", path, kind=resource.kind, verb="create", body=manifest)

    async def patch(self, patch: Object, *, uid: str) -> Object:
        """A strategic merge patch of the object that the patch names, if it is still the one with that uid.

        Returns the object as it is now. Raises ObjectRefusedError, ConflictError or ApiUnavailableError.
        """
        resource = BY_KIND[patch["kind"]]
        metadata = patch["metadata"]
        return await self._written(
            "PATCH",
            resource.path(metadata["namespace"], metadata["name"]) + f"?fieldManager={FIELD_MANAGER}",
            kind=resource.kind,
            verb="patch",
            body={**patch, "metadata": {**metadata, "uid": uid}},
            content_type="application/strategic-merge-patch+json",
        )

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> bool:
        """Delete an object, if it is still the one with that uid. Returns whether it was there."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        self._lead_or_raise()
        answer = await self._request("DELETE", resource.path(namespace, name), kind=resource.kind, body=body)
        if answer is not None:
            self._metrics.writes.labels(resource.kind, "delete").inc()
        return answer is not None

    async def patch_status(self, key: Key, *, uid: str, patch: Mapping[str, Any]) -> Object:
        """Merge-patch the status of a custom resource, if it is still the one with that uid."""
        resource = BY_KIND[key.kind]
        return await self._written(
            "PATCH",
            resource.path(key.namespace, key.name) + f"/status?fieldManager={FIELD_MANAGER}",
            kind=key.kind,
            verb="status",
            body={"metadata": {"uid": uid}, "status": patch},
            content_type="application/merge-patch+json",
        )

    async def annotate(
        self, resource: Resource, namespace: str, name: str, *, uid: str, annotations: Mapping[str, str | None]
    ) -> Object:
        """Set annotations of an object, or remove those that are None, if it is still the one with that uid."""
        return await self._written(
            "PATCH",
            resource.path(namespace, name) + f"?fieldManager={FIELD_MANAGER}",
            kind=resource.kind,
            verb="annotate",
            body={"metadata": {"uid": uid, "annotations": annotations}},
            content_type="application/merge-patch+json",
        )

    async def create_event(self, event: Object) -> Object:
        """Post a Kubernetes Event (events.k8s.io/v1)."""
        namespace = event["metadata"]["namespace"]
        path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
        return await self._written("POST", path, kind="Event", verb="create", body=event)

    async def patch_event(self, namespace: str, name: str, patch: Mapping[str, Any]) -> Object:
        """Say that an Event has happened again."""
        return await self._written(
            "PATCH",
            f"/apis/events.k8s.io/v1/namespaces/{namespace}/events/{name}",
            kind="Event",
            verb="patch",
            body=patch,
            content_type="application/merge-patch+json",
        )

    def _http(self, connection: Connection) -> aiohttp.ClientSession:
        """A session of our own: the library's client takes bodies apart and puts them together again, field by field,
        which takes it longer than the rest of a reconcile."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connection.server,
                # Kept for longer than between two samples: the handshake costs more than the request.
                connector=aiohttp.TCPConnector(limit=0, ssl=connection.ssl_context, keepalive_timeout=60.0),
                timeout=aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT),
                request_class=_request_class(self._lead_or_raise),
            )
        return self._session

    def _lead_or_raise(self) -> None:
        if not self._may_write():
            raise NotLeadingError("this replica does not lead")

    async def _written(
        self,
        method: str,
        path: str,
        *,
        kind: str,
        verb: str,
        body: Mapping[str, Any],
        content_type: str = "application/json",
    ) -> Object:
        self._lead_or_raise()
        answer = await self._request(method, path, kind=kind, body=body, content_type=content_type)
        if answer is None:
            raise ApiUnavailableError(f"{kind} at {path.partition('?')[0]} is gone, or its namespace is")
        self._metrics.writes.labels(kind, verb).inc()
        return answer

    async def _request(
        self,
        method: str,
        path: str,
        *,
        kind: str,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Object | None:
        """One request; None for 404."""
        headers = {"Accept": "application/json", "Content-Type": content_type}
        data = None if body is None else orjson.dumps(body)
        try:
            connection = await self.connection()
            async with self._http(connection).request(
                method, path, data=data, headers={**headers, **connection.headers}
            ) as response:
                status = response.status
                text = await response.read()
                retry_after = response.headers.get("Retry-After")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._metrics.errors.labels("0").inc()
            raise ApiUnavailableError(f"the API server cannot be reached: {error or type(error).__name__}") from error
        if status == 404:
            return None
        if status >= 300:
            self._metrics.errors.labels(str(status)).inc()
            raise _refusal(status, text, what=f"{kind} {path.partition('?')[0]}", retry_after=retry_after)
        if answer := _answer(text):
            return answer
        raise ApiUnavailableError(
            f"something in place of the API server has answered {status} for {kind}, without JSON"
        )


def _request_class(lead_or_raise: Callable[[], None]) -> type[aiohttp.ClientRequest]:
    class Request(aiohttp.ClientRequest):
        async def send(self, conn: Any) -> aiohttp.ClientResponse:
            if self.method != "GET":
                lead_or_raise()
            return await super().send(conn)

    return Request


def _refusal(status: int, text: bytes, *, what: str, retry_after: str | None) -> KubeagentsError:
    answer = _answer(text)
    message = str(answer.get("message") or f"HTTP status {status}")
    causes = (answer.get("details") or {}).get("causes") or ()
    if status == 409:
        return ExistsError(message) if answer.get("reason") == "AlreadyExists" else ConflictError(message)
    if status in (400, 403, 405, 413, 415, 422) and not any(c.get("reason") == _TERMINATING for c in causes):
        return ObjectRefusedError(message)
    delay = float(retry_after) if retry_after is not None and retry_after.isdigit() else None
    return ApiUnavailableError(f"the API server answered {status} for {what}: {message}", delay=delay)


def _answer(text: bytes) -> Object:
    try:
        answer = orjson.loads(text)
    except ValueError:  # a proxy in between may answer with HTML
        return {}
    return answer if isinstance(answer, dict) else {}
