# SPDX-License-Identifier: Apache-2.0
"""The in-memory picture of the cluster, and who has to look again when something in it changes.

It is fed from three sides: LISTs, which replace what is held of a resource; watch events; and the answers to our own
writes, so that a reconcile sees what the one before it wrote. They overtake each other, therefore an older
`resourceVersion` never replaces a newer one.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from kubeagents_operator import observed
from kubeagents_operator.keys import Key, Name
from kubeagents_operator.observed import Child, Custom, Digest, Lease, Pod
from kubeagents_operator.references import Reference, references
from kubeagents_operator.watched import CUSTOM, WATCHED, Resource

_CUSTOM_KINDS = frozenset(resource.kind for resource in CUSTOM)
_TOMBSTONES = 4096

Body = Mapping[str, Any]


class _Held(NamedTuple):
    """That an object is known, and in whose records it is."""

    uid: str
    version: int
    owner: Key | None


class Cache:
    """What the watches have shown. `changed` is called with each key that has to be reconciled, or, where they are
    given, `asked` if somebody wants something new of it, and `stirred` if something has become of its children or pods.
    """

    def __init__(
        self,
        changed: Callable[[Key], None],
        *,
        asked: Callable[[Key], None] | None = None,
        stirred: Callable[[Key], None] | None = None,
    ) -> None:
        self._changed = changed
        self._asked = asked or changed
        self._stirred = stirred or changed
        self._clock = asyncio.get_running_loop().time
        self._held: dict[str, dict[Name, _Held]] = {resource.kind: {} for resource in WATCHED}
        self._gone: dict[str, int] = {}
        """Uid and version of the objects that were deleted last: a late answer must not revive them."""
        self._customs: dict[Key, Custom] = {}
        self._expected: dict[Key, Mapping[str, Any]] = {}
        """Fields of statuses that are being written by who has just looked at the object."""
        self._coming: dict[tuple[Key, str, str], str] = {}
        """Children that are being written by who is looking at their owner, and the digests of their manifests."""
        self._children: dict[Key, dict[tuple[str, str], Child]] = {}
        self._pods: dict[Key, dict[str, Pod]] = {}
        self._digests: dict[tuple[str, Name], Digest] = {}
        self._leases: dict[Name, Lease] = {}
        self._refers: dict[Key, frozenset[Reference]] = {}
        self._users: dict[Reference, set[Key]] = {}
        """The reverse: referenced object, whether it exists or not -> who refers to it."""

    # What reconciles ask.

    def customs(self) -> list[Key]:
        """All custom resources."""
        return list(self._customs)

    def custom(self, key: Key) -> Custom | None:
        """One custom resource."""
        return self._customs.get(key)

    def children(self, key: Key) -> Mapping[tuple[str, str], Child]:
        """Its children by kind and name."""
        return self._children.get(key, {})

    def pods(self, key: Key) -> list[Pod]:
        """Its pods."""
        return list(self._pods.get(key, {}).values())

    def digest(self, kind: str, name: Name) -> Digest | None:
        """A ConfigMap or Secret, whoever it belongs to."""
        return self._digests.get((kind, name))

    def lease(self, name: Name) -> Lease | None:
        """The Lease of a CentralAgent."""
        return self._leases.get(name)

    def users(self, kind: str, name: Name) -> frozenset[Key]:
        """The custom resources that refer to an object."""
        return frozenset(self._users.get(Reference(kind, name), ()))

    # What feeds it.

    @contextmanager
    def expecting(self, key: Key, status: Mapping[str, Any]) -> Iterator[None]:
        """While these fields of its status are written, that they change is no reason to look at it again."""
        self._expected[key] = status
        try:
            yield
        finally:
            del self._expected[key]

    @contextmanager
    def expecting_child(self, owner: Key, kind: str, name: str, applied: str) -> Iterator[None]:
        """While a child is written from the manifest with that digest, that it is there now is no reason to look at
        its owner again."""
        self._coming[owner, kind, name] = applied
        try:
            yield
        finally:
            del self._coming[owner, kind, name]

    def keep_only(self, resource: Resource, namespace: str | None, names: set[Name], version: int) -> None:
        """A LIST has shown all objects of a resource as they were at `version`: the others are gone."""
        for name, held in list(self._held[resource.kind].items()):
            if name not in names and namespace in (None, name.namespace) and held.version <= version:
                self._bury(held.uid, version)
                self._remove(resource.kind, name)

    def deleted(self, resource: Resource, body: Body) -> None:
        """A watch event says that the object is gone, or has lost the label by which it is watched."""
        name, uid, version = observed.name(body), body["metadata"]["uid"], observed.version(body)
        self._bury(uid, version)
        held = self._held[resource.kind].get(name)
        if held is not None and held.uid == uid and held.version <= version:
            self._remove(resource.kind, name)

    def seen(self, resource: Resource, body: Body) -> None:
        """A LIST, a watch event or the answer to a write shows the object."""
        kind, name, uid = resource.kind, observed.name(body), body["metadata"]["uid"]
        version = observed.version(body)
        held = self._held[kind].get(name)
        if version <= max(self._gone.get(uid, -1), held.version if held is not None else -1):
            return
        owner = None if kind in _CUSTOM_KINDS else observed.owner(body)
        if held is not None and held.owner not in (None, owner):
            self._take_from(held.owner, kind, name)
        self._held[kind][name] = _Held(uid, version, owner)
        if kind in _CUSTOM_KINDS:
            self._put_custom(observed.custom(kind, body))
            return
        if kind in ("ConfigMap", "Secret"):
            self._put_digest(kind, name, observed.content(body))
        if owner is None:
            return
        if kind == "Lease":
            self._put_lease(name, observed.lease(body, now=self._clock(), confirmed=name in self._leases), owner)
        if kind == "Pod":
            self._put_pod(observed.pod(body), owner)
        else:
            self._put_child(observed.child(kind, body), owner)

    def _bury(self, uid: str, version: int) -> None:
        self._gone[uid] = version
        if len(self._gone) > _TOMBSTONES:
            del self._gone[next(iter(self._gone))]

    # One record each; the owner has to look again if more than the version has changed.

    def _put_custom(self, new: Custom) -> None:
        old = self._customs.get(new.key)
        self._customs[new.key] = new
        if old is not None and replace(old, version=new.version) == new:
            return
        if old is None or (old.uid, old.generation, old.asked) != (new.uid, new.generation, new.asked):
            self._asked(new.key)
        elif not self._is_expected(old, new):
            self._changed(new.key)
        if old is None or (old.uid, old.spec, old.deleting) != (new.uid, new.spec, new.deleting):
            left = self._queues(new.key)
            self._refer(new.key, references(new.key, new.spec))
            self._changed_all({*left, *self._queues(new.key), *self._dependents(new.key)})

    def _is_expected(self, old: Custom, new: Custom) -> bool:
        expected = self._expected.get(new.key)
        if expected is None or replace(old, version=new.version, status=new.status) != new:
            return False
        return all(new.status.get(name) == value for name, value in expected.items())

    def _put_child(self, new: Child, owner: Key) -> None:
        siblings = self._children.setdefault(owner, {})
        old = siblings.get((new.kind, new.name))
        siblings[new.kind, new.name] = new
        if old is not None and replace(old, version=new.version) == new:
            return
        if _arrived(old, new):
            self._changed(owner)
        elif new.applied != self._coming.get((owner, new.kind, new.name)) or (old and old.applied == new.applied):
            self._stirred(owner)

    def _put_pod(self, new: Pod, owner: Key) -> None:
        siblings = self._pods.setdefault(owner, {})
        old = siblings.get(new.name)
        siblings[new.name] = new
        if old is None or replace(old, version=new.version) != new:
            self._stirred(owner)

    def _put_digest(self, kind: str, name: Name, new: Digest) -> None:
        old = self._digests.get((kind, name))
        self._digests[kind, name] = new
        if old is None or old.keys != new.keys:
            self._changed_users(kind, name)

    def _put_lease(self, name: Name, new: Lease, owner: Key) -> None:
        old = self._leases.get(name)
        self._leases[name] = new
        if old is None or (old.holder, old.transitions, old.held(new.changed_at)) != (
            new.holder,
            new.transitions,
            True,
        ):
            self._changed(owner)

    def _remove(self, kind: str, name: Name) -> None:
        held = self._held[kind].pop(name)
        if kind in _CUSTOM_KINDS:
            key = Key(kind, *name)
            del self._customs[key]
            self._changed_all(self._queues(key))
            self._refer(key, frozenset())
            self._changed(key)
            self._changed_all(self._dependents(key))
            return
        if self._digests.pop((kind, name), None) is not None:
            self._changed_users(kind, name)
        if kind == "Lease":
            self._leases.pop(name, None)
        if held.owner is not None:
            self._take_from(held.owner, kind, name)

    def _take_from(self, owner: Key, kind: str, name: Name) -> None:
        """The owner does not have the object any more."""
        if kind == "Pod":
            _drop(self._pods, owner, name.name)
        else:
            _drop(self._children, owner, (kind, name.name))
        self._changed(owner)

    # Who refers to what.

    def _refer(self, key: Key, wanted: frozenset[Reference]) -> None:
        known = self._refers.pop(key, frozenset())
        for reference in known - wanted:
            self._users[reference].discard(key)
            if not self._users[reference]:
                del self._users[reference]
        for reference in wanted - known:
            self._users.setdefault(reference, set()).add(key)
        if wanted:
            self._refers[key] = wanted

    def _queues(self, key: Key) -> set[Key]:
        """The TaskQueues that it refers to: what its users can do, and whether it has any, shows in their status."""
        named = {Key(kind, *name) for kind, name in self._refers.get(key, ()) if kind == "TaskQueue"}
        return named & self._customs.keys()

    def _dependents(self, key: Key) -> frozenset[Key]:
        return self.users(key.kind, Name(key.namespace, key.name))

    def _changed_users(self, kind: str, name: Name) -> None:
        """A queue's Secret concerns the queue and, because pods have it in their environment, its agents."""
        for user in self.users(kind, name):
            self._changed(user)
            self._changed_all(self._dependents(user))

    def _changed_all(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._changed(key)


def _arrived(old: Child | None, new: Child) -> bool:
    """A Deployment is where it should be, and was not."""
    if old is None or old.rollout is None or new.rollout is None:
        return False
    return new.rollout.complete and not old.rollout.complete


def _drop(records: dict[Key, dict[Any, Any]], owner: Key, slot: Any) -> None:
    siblings = records.get(owner, {})
    siblings.pop(slot, None)
    if not siblings:
        records.pop(owner, None)
