# SPDX-License-Identifier: Apache-2.0
"""Leadership by a Kubernetes Lease (coordination.k8s.io/v1). The guarantees are in the package's docstring."""

import asyncio
import logging
import math
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration

from kubeagents_api.labels import STEP_DOWN, STEPPED_DOWN

_log = logging.getLogger(__name__)

_IN_CLUSTER_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path

Lease = dict[str, Any]


async def connect() -> ApiClient:
    """A client for the API server: of the kubeconfig that KUBECONFIG names, else of the pod's service account.

    The caller closes it. Raises `kubernetes.aio.config.ConfigException` when there is neither.
    """
    configuration = Configuration()
    if os.environ.get("KUBECONFIG") or not os.path.exists(_IN_CLUSTER_TOKEN):  # noqa: ASYNC240 - once, at the start
        await kube_config.load_kube_config(  # type: ignore[no-untyped-call] # the library has types for its models only
            client_configuration=configuration, persist_config=False
        )
    else:
        kube_config.load_incluster_config(  # type: ignore[no-untyped-call] # as above
            client_configuration=configuration, try_refresh_token=False
        )
        configuration.refresh_api_key_hook = _TokenFile(Path(_IN_CLUSTER_TOKEN))  # type: ignore[assignment] # as above
    return ApiClient(configuration)


class _TokenFile:
    """The token of the pod's service account. The kubelet renews it on disk before it expires, and with each request it
    is looked at whether it has: the library alone would go on for up to a minute with a token that has been revoked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at: int | None = None
        """When the file was changed that was read last, in ns."""

    def __call__(self, configuration: Configuration) -> None:
        changed_at = self._path.stat().st_mtime_ns
        if changed_at != self._read_at and (token := self._path.read_text(encoding="utf-8").strip()):
            configuration.api_key["BearerToken"] = f"Bearer {token}"
            self._read_at = changed_at


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """The four times of an election, in seconds, derived from the first one."""

    duration: float
    """A Lease that has not changed for so long may be taken."""

    def __post_init__(self) -> None:
        if self.duration < 1:
            raise ValueError(f"a lease duration of {self.duration:g} s is too short: use at least 1 s")

    @property
    def renew_deadline(self) -> float:
        """How long a leader trusts a renewal."""
        return self.duration * 2 / 3

    @property
    def retry(self) -> float:
        """Between two looks of a candidate, and between two renewals of a leader."""
        return min(2.0, self.duration / 6)

    @property
    def request_timeout(self) -> float:
        """For one request; several fit into the renew deadline."""
        return max(0.5, self.duration / 6)


class _Refused(Exception):
    """The API server answered with an error status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


_UNREACHABLE = (aiohttp.ClientError, TimeoutError, OSError)


class LeaseElector:
    """Competes for one Lease. With `create` it makes the Lease where there is none, else it waits for it."""

    def __init__(
        self,
        *,
        client: ApiClient,
        identity: str,
        namespace: str,
        name: str,
        duration_seconds: float,
        create: bool,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.identity = identity
        self.times = LeaseTimes(duration_seconds)
        self._client = client
        self._namespace = namespace
        self._name = name
        self._create = create
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._clock = clock if clock is not None else _since_boot
        self._task: asyncio.Task[None] | None = None
        self._leading = asyncio.Event()
        self._lost = asyncio.Event()
        self._lost.set()
        self._lease: Lease | None = None
        self._term = 0
        self._trusted_until = float("-inf")
        self._seen: tuple[str, float] = ("", 0.0)
        self._trouble: str | None = None

    def __str__(self) -> str:
        return f"lease {self._namespace}/{self._name}"

    @property
    def is_leader(self) -> bool:
        """Whether the trust window is open; see the package's docstring."""
        return self._leading.is_set() and self._clock() < self._trusted_until

    @property
    def fencing(self) -> int:
        """`leaseTransitions` of the current or last term of this process."""
        return self._term

    @property
    def holder(self) -> str | None:
        """Who the Lease names, as last seen."""
        return (_spec(self._lease).get("holderIdentity") or None) if self._lease is not None else None

    async def start(self) -> None:
        """Begin to compete, in the background."""
        if self._task is not None:
            raise RuntimeError("this elector has been started already")
        self._task = asyncio.create_task(self._compete(), name=str(self))

    async def stop(self) -> None:
        """Stop competing; a leader empties the Lease, so that a rival need not wait for it to expire."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])
        self._task = None
        held = self.is_leader
        self._end_term("it stops in order", level=logging.INFO)
        if held:
            await self._release()

    async def wait_until_leading(self) -> int:
        """Wait for a term of this process; its fencing number."""
        while not self.is_leader:
            if self._leading.is_set():  # the window has closed, the background task has not noticed yet
                await self._lost.wait()
            await self._leading.wait()
        return self._term

    async def wait_until_lost(self) -> None:
        """Wait for the end of the current term."""
        if self.is_leader:
            await self._lost.wait()

    async def _compete(self) -> None:
        while True:
            try:
                if self._leading.is_set():
                    await self._lead()
                    continue
                await self._look()
            except Exception:
                # A defect. Without this task nobody would notice that the term has ended.
                _log.exception("%s: this try failed", self)
            if not self._leading.is_set():
                # Candidates that began at the same moment should not knock at the same moment forever.
                await asyncio.sleep(self.times.retry * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load

    async def _look(self) -> None:
        """One look of a candidate at the Lease, which it takes if it is free."""
        started = self._clock()
        try:
            lease = await self._read()
            if lease is None:
                if not self._create:
                    self._report("it does not exist yet; whoever owns it creates it")
                    return
                lease = await self._write("POST", self._taken(None))
            else:
                self._observe(lease, at=started)
                if not self._free(lease):
                    self._report(None)
                    return
                lease = await self._write("PUT", self._taken(lease))
        except _Refused as error:
            if error.status != 409:  # a conflict: a rival was faster, which the next look shows
                self._report(f"the API server answered {error.status}: {error}")
            return
        except _UNREACHABLE as error:
            self._report(f"the API server cannot be reached: {_words(error)}")
            return
        self._report(None)
        self._begin_term(lease, started=started)

    async def _lead(self) -> None:
        """Renew until the term is lost."""
        while self._leading.is_set():
            pause = min(self.times.retry, max(0.0, self._trusted_until - self._clock()))
            await asyncio.sleep(pause)
            started = self._clock()
            if started >= self._trusted_until:
                self._end_term(f"not renewed within {self.times.renew_deadline:g} s ({self._trouble or 'frozen'})")
                return
            try:
                await self._renew(started)
            except _Refused as error:
                self._report(f"the API server answered {error.status}: {error}")
            except _UNREACHABLE as error:
                self._report(f"the API server cannot be reached: {_words(error)}")

    async def _renew(self, started: float) -> None:
        assert self._lease is not None  # noqa: S101 - a leader has written it
        try:
            self._lease = await self._write("PUT", self._renewed(self._lease))
        except _Refused as error:
            if error.status not in (404, 409):
                raise
            # Somebody touched the object (a label, an owner reference), took it, or deleted it.
            self._lease = await self._read()
            if not self._is_this_term(self._lease):
                self._end_term("the Lease was deleted" if self._lease is None else f"{self.holder} holds it now")
                return
        else:
            self._trusted_until = started + self.times.renew_deadline
            self._report(None)
        if _annotations(self._lease).get(STEP_DOWN) == str(self._term):
            await self._step_down()

    async def _step_down(self) -> None:
        """Give the Lease up, and say in it who did. It leads no more before a rival can; who waits for the end of the
        term, and may end this process then, hears of it when the Lease is free."""
        self._trusted_until = float("-inf")
        try:
            await self._release(annotations={STEPPED_DOWN: self.identity})
        finally:
            self._end_term("it was asked to step down", level=logging.INFO)

    async def _release(self, *, annotations: dict[str, str] | None = None) -> None:
        """Empty the Lease. It is read first: a renewal may have been under way when the task was stopped."""
        try:
            lease = await self._read()
            if lease is not None and self._is_this_term(lease):
                spec = {**_spec(lease), "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
                metadata = {**lease["metadata"], "annotations": {**_annotations(lease), **(annotations or {})}}
                self._lease = await self._write("PUT", {**lease, "metadata": metadata, "spec": spec})
        except (_Refused, *_UNREACHABLE) as error:
            _log.warning(
                "%s could not be released, a rival leads after %g s: %s", self, self.times.duration, _words(error)
            )

    def _begin_term(self, lease: Lease, *, started: float) -> None:
        self._lease = lease
        self._term = int(_spec(lease)["leaseTransitions"])
        self._trusted_until = started + self.times.renew_deadline
        if self._clock() >= self._trusted_until:
            return  # the answer took too long: the next look will find the Lease in our own name and take it again
        self._lost.clear()
        self._leading.set()
        _log.info("%s: %s leads, term %d", self, self.identity, self._term)

    def _end_term(self, why: str, *, level: int = logging.WARNING) -> None:
        self._trusted_until = float("-inf")
        if self._leading.is_set():
            self._leading.clear()
            self._lost.set()
            _log.log(level, "%s: %s leads no more, term %d: %s", self, self.identity, self._term, why)

    def _observe(self, lease: Lease, *, at: float) -> None:
        self._lease = lease
        version = lease["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, at)

    def _free(self, lease: Lease) -> bool:
        """Nobody holds it, or it names this process, or it has not changed for the duration written in it. Who has
        stepped down lets others go first: this is kept in the Lease, as the process may have been replaced since."""
        spec = _spec(lease)
        holder = spec.get("holderIdentity") or ""
        unchanged = self._clock() - self._seen[1]
        if self._gave_up(lease, holder):
            return unchanged >= self.times.duration
        if holder in ("", self.identity):
            return True
        return unchanged >= float(spec.get("leaseDurationSeconds") or self.times.duration)

    def _gave_up(self, lease: Lease, holder: str) -> bool:
        """This process, or one before it of the same name, has stepped down or has died while being asked to."""
        annotations = _annotations(lease)
        if holder == self.identity:
            return annotations.get(STEP_DOWN) == str(_spec(lease).get("leaseTransitions"))
        return holder == "" and annotations.get(STEPPED_DOWN) == self.identity

    def _is_this_term(self, lease: Lease | None) -> bool:
        spec = _spec(lease)
        return spec.get("holderIdentity") == self.identity and spec.get("leaseTransitions") == self._term

    def _taken(self, lease: Lease | None) -> Lease:
        now = _now()
        spec = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": math.ceil(self.times.duration),
            "acquireTime": now,
            "renewTime": now,
            # Each term has a number of its own, also when the holder's name stays the same.
            "leaseTransitions": int(_spec(lease).get("leaseTransitions") or 0) + 1,
        }
        if lease is not None:
            annotations = {name: text for name, text in _annotations(lease).items() if name != STEPPED_DOWN}
            return {**lease, "metadata": {**lease["metadata"], "annotations": annotations}, "spec": spec}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": spec,
        }

    def _renewed(self, lease: Lease) -> Lease:
        return {**lease, "spec": {**_spec(lease), "renewTime": _now()}}

    async def _read(self) -> Lease | None:
        try:
            return await self._request("GET", f"{self._path}/{self._name}", None)
        except _Refused as error:
            if error.status == 404:
                return None
            raise

    async def _write(self, method: str, lease: Lease) -> Lease:
        path = self._path if method == "POST" else f"{self._path}/{self._name}"
        # managedFields must not be sent back as they were read; the API server keeps them itself.
        metadata = {key: value for key, value in lease["metadata"].items() if key != "managedFields"}
        return await self._request(method, path, {**lease, "metadata": metadata})

    async def _request(self, method: str, path: str, body: Lease | None) -> Lease:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        request = await self._client.param_serialize(
            method, path, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        response = await self._client.call_api(*request, _request_timeout=self.times.request_timeout)
        answer = _json(await response.response.read())
        if response.status >= 300 or answer is None:
            raise _Refused(response.status, str(answer.get("message", "")) if answer is not None else "no JSON")
        return answer

    def _report(self, trouble: str | None) -> None:
        """Log what keeps this process from competing, once per trouble."""
        if trouble is not None and trouble != self._trouble:
            _log.warning("%s: %s", self, trouble)
        self._trouble = trouble


def _since_boot() -> float:
    """Monotonic seconds. On Linux those in which the machine was asleep count, unlike in those of the event loop."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _spec(lease: Lease | None) -> dict[str, Any]:
    spec: dict[str, Any] = (lease or {}).get("spec") or {}
    return spec


def _json(text: bytes) -> dict[str, Any] | None:
    """What the API server says; None if it was something in between that answered, such as a load balancer's page."""
    try:
        answer = orjson.loads(text)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _annotations(lease: Lease | None) -> dict[str, str]:
    found: dict[str, str] = (lease or {}).get("metadata", {}).get("annotations") or {}
    return found


def _now() -> str:
    """A Kubernetes MicroTime: always with six digits, unlike `isoformat`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
