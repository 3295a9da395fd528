# SPDX-License-Identifier: Apache-2.0
"""Makes the children of a custom resource what they should be, with as few writes as possible."""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field

from kubeagents_api.errors import TemporaryError
from kubeagents_api.labels import TEMPLATE_HASH
from kubeagents_operator import observed, ownership
from kubeagents_operator.buckets import Buckets
from kubeagents_operator.cache import Cache
from kubeagents_operator.cluster import Cluster, ConflictError, ExistsError, ObjectRefusedError
from kubeagents_operator.desired.metadata import Manifest
from kubeagents_operator.keys import Key
from kubeagents_operator.observed import Body, Child, Custom
from kubeagents_operator.watched import BY_KIND


class StillThereError(TemporaryError):
    """A child of an earlier object of the same name is on its way out. Its end is announced by a watch event."""

    code = "STILL_THERE"


class ContestedError(TemporaryError):
    """Somebody else keeps changing a child, as often as it is repaired."""

    code = "CONTESTED"


@dataclass(slots=True)
class Changes:
    """What was written, for the Events."""

    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    scaled: str | None = None
    """For example `Deployment echo-agent from 1 to 5`."""


_Settled = tuple[str, str, bytes]
"""Digests: of the manifest that we want, of the one that the child was written from, of the fields that are ours."""


class Children:
    """Writes children. Remembers what it wrote last, to tell a repair from a change."""

    def __init__(self, cluster: Cluster, cache: Cache) -> None:
        self._cluster = cluster
        self._cache = cache
        self._repairs = Buckets(burst=5, refill_seconds=20.0)
        self._settled: dict[Key, dict[str, _Settled]] = {}
        """Owner -> child -> what we want, and what the API server made of it."""
        self._bases: dict[Key, tuple[str, Hashable]] = {}
        """Owner -> its uid, and the basis of the manifests that were brought last."""

    def stand(self, owner: Custom, basis: Hashable) -> bool:
        """Whether the manifests that were brought last had the same basis, and the children are still as they were
        left. Then there is no need to make the manifests."""
        if self._bases.get(owner.key) != (owner.uid, basis):
            return False
        settled, children = self._settled.get(owner.key, {}), self._cache.children(owner.key).values()
        return len(settled) == len(children) and all(
            child.owner_uid == owner.uid
            and not child.deleting
            and settled.get(f"{child.kind} {child.name}", ("",))[1:] == (child.applied, child.owned.digest)
            for child in children
        )

    async def bring(
        self,
        owner: Custom,
        manifests: Sequence[Manifest],
        changes: Changes,
        *,
        keeping: Collection[tuple[str, str]] = (),
        basis: Hashable = None,
    ) -> None:
        """Write what differs and delete what is not wanted any more; `changes` is filled in on the way. Children whose
        kind and name are in `keeping` stay as they are. `basis` is all that the manifests are made from, or None.

        Raises ObjectRefusedError that names the child, StillThereError, ContestedError or ApiUnavailableError; what
        comes before the child in question has been written then.
        """
        settled = self._settled.setdefault(owner.key, {})
        self._bases.pop(owner.key, None)
        for manifest in manifests:
            await self._bring(owner, manifest, settled, changes)
        wanted = {*keeping, *((manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests)}
        for (kind, name), child in list(self._cache.children(owner.key).items()):
            if (kind, name) not in wanted and child.owner_uid == owner.uid and not child.deleting:
                settled.pop(f"{kind} {name}", None)
                if await self._cluster.delete(BY_KIND[kind], owner.key.namespace, name, uid=child.uid):
                    changes.removed.append(f"{kind} {name}")
        if basis is not None:
            self._bases[owner.key] = (owner.uid, basis)

    def forget(self, key: Key) -> None:
        """The custom resource is gone, and its children with it."""
        self._settled.pop(key, None)
        self._bases.pop(key, None)

    async def _bring(self, owner: Custom, manifest: Manifest, settled: "dict[str, _Settled]", changes: Changes) -> None:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        what = f"{kind} {name}"
        wanted, word = ownership.stamped(manifest)
        child = self._cache.children(owner.key).get((kind, name))
        if child is None:
            with self._cache.expecting_child(owner.key, kind, name, word):
                body = await self._create(wanted, what)
            if body is not None:
                settled[what] = _as_written(word, body)
                changes.created.append(what)
                return
            child = await self._look(owner, kind, name)
        if child.deleting or child.owner_uid not in (owner.uid, None):
            raise StillThereError(f"{what} of an earlier {owner.key.kind} {owner.key.name} is still being deleted")
        seen = (word, child.applied, child.owned.digest)
        if child.owner_uid == owner.uid and (
            settled.get(what) == seen or (child.applied == word and ownership.covers(child.owned, wanted))
        ):
            settled[what] = seen
            return
        if what in settled and settled[what][0] == word:
            self._repair_or_raise(owner, what)
        try:
            with self._cache.expecting_child(owner.key, kind, name, word):
                body = await self._cluster.patch(ownership.patch(child.owned, wanted), uid=child.uid)
                self._cache.seen(BY_KIND[kind], body)
        except ObjectRefusedError as error:
            raise ObjectRefusedError(f"{what}: {error}") from error
        settled[what] = _as_written(word, body)
        _note(changes, what, child, manifest)

    async def _create(self, manifest: Manifest, what: str) -> Body | None:
        """Create a child that the cache does not have. Returns None if there is an object of that name."""
        try:
            body = await self._cluster.create(manifest)
        except ExistsError:
            return None
        except ObjectRefusedError as error:
            raise ObjectRefusedError(f"{what}: {error}") from error
        self._cache.seen(BY_KIND[manifest["kind"]], body)
        return body

    def _repair_or_raise(self, owner: Custom, what: str) -> None:
        """We have written the very same before, and somebody has changed it since."""
        if (pause := self._repairs.take((owner.uid, what))) > 0:
            raise ContestedError(
                f"{what} keeps being changed by somebody else: see its metadata.managedFields for who it is, and let "
                "only one of the two write it",
                delay=pause,
            )

    async def _look(self, owner: Custom, kind: str, name: str) -> Child:
        """The cache does not have it, but it exists: it is somebody else's, or one of ours that has lost its label, or
        that was created a moment ago."""
        body = await self._cluster.get(BY_KIND[kind], owner.key.namespace, name)
        if body is None:
            raise ConflictError(f"{kind} {name} existed a moment ago and does not any more")
        references = body["metadata"].get("ownerReferences") or ()
        controller: Manifest = next((reference for reference in references if reference.get("controller")), {})
        if (controller.get("kind"), controller.get("name")) != (owner.key.kind, owner.key.name):
            raise ObjectRefusedError(_foreign(owner, f"{kind} {name}"))
        self._cache.seen(BY_KIND[kind], body)
        return observed.child(kind, body)


def _as_written(word: str, body: Body) -> _Settled:
    return word, ownership.applied(body), ownership.owned(body).digest


def _foreign(owner: Custom, what: str) -> str:
    return (
        f"{what} exists already and does not belong to this {owner.key.kind}, which needs that name: "
        f"delete it, or give the {owner.key.kind} another name"
    )


def _note(changes: Changes, what: str, child: Child, manifest: Manifest) -> None:
    rollout = child.rollout
    if rollout is not None and rollout.wanted != manifest["spec"]["replicas"]:
        changes.scaled = f"{what} from {rollout.wanted} to {manifest['spec']['replicas']}"
        if rollout.template == manifest["spec"]["template"]["metadata"]["annotations"][TEMPLATE_HASH]:
            return
    changes.updated.append(what)
