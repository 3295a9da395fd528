# SPDX-License-Identifier: Apache-2.0
"""What is kept of live objects: only what a reconcile asks for, in small immutable records.

A live Deployment takes some 30 kB of Python dictionaries, these records a few hundred bytes.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubeagents_api.kinds import BY_KIND
from kubeagents_api.labels import (
    ASKING,
    GROUP,
    OWNER_KIND,
    OWNER_NAME,
    REVISION,
    STEP_DOWN_ASKED,
    TEMPLATE_HASH,
    TRACK,
    TRACK_CANARY,
)
from kubeagents_operator import fingerprint, ownership
from kubeagents_operator.keys import Key, Name
from kubeagents_operator.ownership import Owned

LEAVING_SINCE = f"{GROUP}/leaving-since"
"""Annotation on pods that are to go: since when. They take no new tasks and go when they have finished."""
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
"""Annotation on pods by which a ReplicaSet chooses those to remove: the lowest first."""

_MESSAGE_LIMIT = 1000

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Custom:
    """One custom resource."""

    key: Key
    uid: str
    version: int
    generation: int
    deleting: bool
    spec: dict[str, Any]
    status: dict[str, Any]
    asked: Mapping[str, str]
    """Those of its annotations by which people ask for something (`labels.ASKING`)."""
    created: str
    """When it was created."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """Status of a Deployment or StatefulSet."""

    current: bool
    """The controller has seen the latest spec."""
    wanted: int
    replicas: int
    updated: int
    ready: int
    available: int
    template: str
    """Digest of the pod template (TEMPLATE_HASH)."""
    conditions: Mapping[str, tuple[str, str, str]]
    """Type -> status, reason, message."""
    revision: str = ""
    """The version of an Agent that the pod template is of (labels.REVISION)."""

    @property
    def complete(self) -> bool:
        """All that is wanted is there, and nothing else."""
        return self.current and self.updated == self.replicas == self.available == self.wanted


@dataclass(frozen=True, slots=True)
class Child:
    """One object that belongs to a custom resource."""

    kind: str
    name: str
    uid: str
    version: int
    owner_uid: str | None
    """The uid in its controller reference: of an earlier object of the same name, perhaps."""
    deleting: bool
    applied: str
    """Digest of the manifest that it was written from (labels.APPLIED)."""
    owned: Owned
    """The fields that are the operator's."""
    rollout: Rollout | None = None


@dataclass(frozen=True, slots=True)
class Termination:
    """How a container ended."""

    reason: str
    exit_code: int
    message: str


@dataclass(frozen=True, slots=True)
class Container:
    """State of one container of a pod."""

    name: str
    restarts: int
    waiting: str | None
    """Reason for which it does not run, for example `CrashLoopBackOff`."""
    waiting_message: str
    ended: Termination | None
    """How it ended, or, while it runs again or is about to, how its last run ended."""


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod."""

    name: str
    uid: str
    version: int
    template: str
    """Digest of the template that it was made from."""
    deleting: bool
    ready: bool
    ready_since: str | None
    """When it last became ready."""
    created: str
    unschedulable: str | None
    """Why no node takes it."""
    containers: tuple[Container, ...]
    unready_since: str | None = None
    """When it last stopped being ready; None if it never was, or is."""
    canary: bool = False
    """It belongs to the canary of an Agent."""
    finished: bool = False
    """It has ended for good, as an evicted one has, and is no replica any more."""
    leaving_since: str | None = None
    """The annotation LEAVING_SINCE."""
    deletion_cost: str | None = None
    """The annotation DELETION_COST."""


@dataclass(frozen=True, slots=True)
class Digest:
    """What is known of a ConfigMap or Secret: that it changed, not what it says."""

    version: int
    keys: Mapping[str, str]
    """Key -> digest of its value."""

    def digest(self) -> str:
        """Of the whole content."""
        return fingerprint.digest(part for key in sorted(self.keys) for part in (key, self.keys[key]))


@dataclass(frozen=True, slots=True)
class Lease:
    """Who leads a CentralAgent."""

    version: int
    holder: str
    transitions: int
    duration: float
    renewed: str | None
    changed_at: float
    """Local monotonic time at which it was seen to change: other machines' clocks are not compared with ours."""
    confirmed: bool
    """It was seen to change at all: what a LIST shows first may be a Lease that expired long ago."""
    asked: str | None
    """Which wish for another leader was passed on last (STEP_DOWN_ASKED)."""

    def held(self, now: float) -> bool:
        """Somebody holds it and has renewed it within its duration."""
        return bool(self.holder) and now < self.changed_at + self.duration


def version(body: Body) -> int:
    """`resourceVersion` as a number: it grows with every write (KEP-5504)."""
    return int(body["metadata"]["resourceVersion"])


def owner(body: Body) -> Key | None:
    """The custom resource that an object belongs to, by its labels."""
    labels = body["metadata"].get("labels") or {}
    kind, called = labels.get(OWNER_KIND), labels.get(OWNER_NAME)
    if kind is None or kind not in BY_KIND or not called:
        return None
    return Key(kind, body["metadata"]["namespace"], called)


def name(body: Body) -> Name:
    """Namespace and name of an object."""
    return Name(body["metadata"]["namespace"], body["metadata"]["name"])


def custom(kind: str, body: Body) -> Custom:
    """The record of a custom resource."""
    metadata = body["metadata"]
    return Custom(
        key=Key(kind, metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        version=version(body),
        generation=int(metadata.get("generation", 0)),
        deleting="deletionTimestamp" in metadata,
        spec=body.get("spec") or {},
        status=body.get("status") or {},
        asked={name: text for name, text in (metadata.get("annotations") or {}).items() if name in ASKING},
        created=metadata.get("creationTimestamp", ""),
    )


def child(kind: str, body: Body) -> Child:
    """The record of a child."""
    metadata = body["metadata"]
    return Child(
        kind=kind,
        name=metadata["name"],
        uid=metadata["uid"],
        version=version(body),
        owner_uid=next((r["uid"] for r in metadata.get("ownerReferences") or () if r.get("controller")), None),
        deleting="deletionTimestamp" in metadata,
        applied=ownership.applied(body),
        owned=ownership.owned(body),
        rollout=_rollout(body) if kind in ("Deployment", "StatefulSet") else None,
    )


def pod(body: Body) -> Pod:
    """The record of a pod."""
    metadata, status = body["metadata"], body.get("status") or {}
    annotations = metadata.get("annotations") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    ready, scheduled = conditions.get("Ready", {}), conditions.get("PodScheduled", {})
    is_ready = ready.get("status") == "True"
    unschedulable = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    statuses = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        version=version(body),
        template=annotations.get(TEMPLATE_HASH, ""),
        deleting="deletionTimestamp" in metadata,
        ready=is_ready,
        ready_since=ready.get("lastTransitionTime") if is_ready else None,
        created=metadata.get("creationTimestamp", ""),
        unschedulable=scheduled.get("message", "")[:_MESSAGE_LIMIT] if unschedulable else None,
        canary=(metadata.get("labels") or {}).get(TRACK) == TRACK_CANARY,
        containers=tuple(_container(one) for one in statuses),
        unready_since=ready.get("lastTransitionTime") if not is_ready else None,
        finished=status.get("phase") in ("Succeeded", "Failed"),
        leaving_since=annotations.get(LEAVING_SINCE),
        deletion_cost=annotations.get(DELETION_COST),
    )


def content(body: Body) -> Digest:
    """The record of a ConfigMap or Secret."""
    data = {**(body.get("data") or {}), **(body.get("binaryData") or {})}
    return Digest(version=version(body), keys={key: fingerprint.digest([text]) for key, text in data.items()})


def lease(body: Body, *, now: float, confirmed: bool) -> Lease:
    """The record of a Lease that is seen now."""
    spec = body.get("spec") or {}
    return Lease(
        version=version(body),
        holder=spec.get("holderIdentity") or "",
        transitions=int(spec.get("leaseTransitions") or 0),
        duration=float(spec.get("leaseDurationSeconds") or 0),
        renewed=spec.get("renewTime"),
        changed_at=now,
        confirmed=confirmed,
        asked=(body["metadata"].get("annotations") or {}).get(STEP_DOWN_ASKED),
    )


def secret_value(body: Body, key: str) -> str | None:
    """The text of one key of a Secret; None if it has no such key. Raises ValueError if it is no UTF-8 text."""
    encoded = (body.get("data") or {}).get(key)
    return None if encoded is None else base64.b64decode(encoded).decode("utf-8")


def _rollout(body: Body) -> Rollout:
    spec, status = body.get("spec") or {}, body.get("status") or {}
    annotations = (spec.get("template") or {}).get("metadata", {}).get("annotations") or {}
    return Rollout(
        current=status.get("observedGeneration", 0) >= body["metadata"].get("generation", 0),
        wanted=spec.get("replicas", 1),
        replicas=status.get("replicas", 0),
        updated=status.get("updatedReplicas", 0),
        ready=status.get("readyReplicas", 0),
        available=status.get("availableReplicas", 0),
        template=annotations.get(TEMPLATE_HASH, ""),
        revision=annotations.get(REVISION) or annotations.get(TEMPLATE_HASH, ""),
        conditions={
            one["type"]: (one["status"], one.get("reason", ""), one.get("message", "")[:_MESSAGE_LIMIT])
            for one in status.get("conditions") or ()
        },
    )


def _container(status: Mapping[str, Any]) -> Container:
    state = status.get("state") or {}
    waiting = state.get("waiting") or {}
    ended = state.get("terminated") or (status.get("lastState") or {}).get("terminated")
    return Container(
        name=status["name"],
        restarts=status.get("restartCount", 0),
        waiting=waiting.get("reason"),
        waiting_message=waiting.get("message", "")[:_MESSAGE_LIMIT],
        ended=Termination(
            reason=ended.get("reason", ""),
            exit_code=ended.get("exitCode", 0),
            message=ended.get("message", "")[: 4 * _MESSAGE_LIMIT],
        )
        if ended
        else None,
    )
