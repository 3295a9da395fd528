# SPDX-License-Identifier: Apache-2.0
"""Makes the children of a custom resource what they should be, with as few writes as possible."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from kubeagents_api.errors import TemporaryError
from kubeagents_operator import fingerprint, observed
from kubeagents_operator.buckets import Buckets
from kubeagents_operator.cache import Cache
from kubeagents_operator.cluster import Cluster, ConflictError, ObjectRefusedError
from kubeagents_operator.desired.metadata import Manifest
from kubeagents_operator.keys import Key
from kubeagents_operator.observed import TEMPLATE_HASH, Child, Custom
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


class Children:
    """Writes children. Remembers what it wrote last, to tell a repair from a change."""

    def __init__(self, cluster: Cluster, cache: Cache) -> None:
        self._cluster = cluster
        self._cache = cache
        self._repairs = Buckets(burst=5, refill_seconds=20.0)
        self._settled: dict[Key, dict[str, tuple[bytes, bytes]]] = {}
        """Owner -> child -> what we want, and what the API server made of it; see `fingerprint`."""

    async def bring(
        self,
        owner: Custom,
        manifests: Sequence[Manifest],
        changes: Changes,
        *,
        keeping: Collection[tuple[str, str]] = (),
    ) -> None:
        """Write what differs and delete what is not wanted any more; `changes` is filled in on the way. Children whose
        kind and name are in `keeping` stay as they are.

        Raises ObjectRefusedError that names the child, StillThereError, ContestedError or ApiUnavailableError; what
        comes before the child in question has been written then.
        """
        settled = self._settled.setdefault(owner.key, {})
        for manifest in manifests:
            await self._bring(owner, manifest, settled, changes)
        wanted = {*keeping, *((manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests)}
        for (kind, name), child in list(self._cache.children(owner.key).items()):
            if (kind, name) not in wanted and child.owner_uid == owner.uid and not child.deleting:
                await self._cluster.delete(BY_KIND[kind], owner.key.namespace, name, uid=child.uid)
                settled.pop(f"{kind} {name}", None)
                changes.removed.append(f"{kind} {name}")

    def forget(self, key: Key) -> None:
        """The custom resource is gone, and its children with it."""
        self._settled.pop(key, None)

    async def _bring(
        self, owner: Custom, manifest: Manifest, settled: dict[str, tuple[bytes, bytes]], changes: Changes
    ) -> None:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        what = f"{kind} {name}"
        child = self._cache.children(owner.key).get((kind, name)) or await self._look(owner, kind, name)
        if child is not None and (child.deleting or child.owner_uid not in (owner.uid, None)):
            raise StillThereError(f"{what} of an earlier {owner.key.kind} {owner.key.name} is still being deleted")
        wanted = fingerprint.of_desired(manifest)
        if child is not None and (child.print == wanted or settled.get(what) == (wanted, child.print)):
            return
        if child is not None and wanted == settled.get(what, (None, None))[0]:
            self._repair_or_raise(owner, what)
        try:
            body = await self._cluster.apply(manifest, force=child is not None)
        except ConflictError as error:
            if child is not None:
                raise
            # It has come into being since we looked.
            raise ObjectRefusedError(_foreign(owner, what)) from error
        except ObjectRefusedError as error:
            raise ObjectRefusedError(f"{what}: {error}") from error
        self._cache.seen(BY_KIND[kind], body)
        settled[what] = (wanted, fingerprint.of_live(body))
        _note(changes, what, child, manifest)

    def _repair_or_raise(self, owner: Custom, what: str) -> None:
        """We have written the very same before, and somebody has changed it since."""
        if (pause := self._repairs.take((owner.uid, what))) > 0:
            raise ContestedError(
                f"{what} keeps being changed by somebody else: see its metadata.managedFields for who it is, and let "
                "only one of the two write it",
                delay=pause,
            )

    async def _look(self, owner: Custom, kind: str, name: str) -> Child | None:
        """The cache does not have it: make sure that nobody else has an object of that name, and that it is not one
        of ours that has lost its label."""
        body = await self._cluster.get(BY_KIND[kind], owner.key.namespace, name)
        if body is None:
            return None
        references = body["metadata"].get("ownerReferences") or ()
        controller: Manifest = next((reference for reference in references if reference.get("controller")), {})
        if (controller.get("kind"), controller.get("name")) != (owner.key.kind, owner.key.name):
            raise ObjectRefusedError(_foreign(owner, f"{kind} {name}"))
        self._cache.seen(BY_KIND[kind], body)
        return observed.child(kind, body)


def _foreign(owner: Custom, what: str) -> str:
    return (
        f"{what} exists already and does not belong to this {owner.key.kind}, which needs that name: "
        f"delete it, or give the {owner.key.kind} another name"
    )


def _note(changes: Changes, what: str, child: Child | None, manifest: Manifest) -> None:
    if child is None:
        changes.created.append(what)
        return
    rollout = child.rollout
    if rollout is not None and rollout.wanted != manifest["spec"]["replicas"]:
        changes.scaled = f"{what} from {rollout.wanted} to {manifest['spec']['replicas']}"
        if rollout.template == manifest["spec"]["template"]["metadata"]["annotations"][TEMPLATE_HASH]:
            return
    changes.updated.append(what)
