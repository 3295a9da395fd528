# SPDX-License-Identifier: Apache-2.0
"""Is a live object still as the operator wrote it, and what has to be sent to make it so?

The API server records in `metadata.managedFields` which fields belong to which manager. A field that somebody else
changes or removes is taken from our list. And each child carries a digest of the manifest that it was written from, as
an annotation, which is a field of ours like all others. So an object is as we want it if and only if

    its digest is that of the manifest, and all fields of the manifest are still ours.

Nothing has to be remembered for that: a restarted operator can tell without a write that there is nothing to do. Nor is
any value compared: quantities may be stored in another form than they were sent in, an admission webhook may change
what it likes. Fields of others (an annotation, an injected sidecar) are not in the manifest and do not count.

A child is created by a POST, the cheapest write there is, which fails where an object of that name exists: so nothing
that belongs to somebody else is ever taken over. It makes the defaults that the API server fills in ours as well, which
a server-side apply would not; but that costs the API server a third more. A change is one strategic merge patch, in
which each field that is ours and not wanted any more is null: where that is a default, the API server fills it in anew.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import orjson

from kubeagents_api.labels import APPLIED, FIELD_MANAGER
from kubeagents_operator import fingerprint

Tree = Mapping[str, Any]
"""FieldsV1: `f:name` is a field, `k:{...}` a list item by its key, `v:...` one by its value, `.` the thing itself. What
is empty is owned as a whole."""

_NOT_OURS_TO_SAY = ("name", "namespace", "uid", "ownerReferences")
"""Metadata that are looked at otherwise: whose child it is says its controller reference."""


@dataclass(frozen=True, weakref_slot=True, slots=True)
class Owned:
    """The fields of an object that are the operator's. Objects of the same shape share one."""

    digest: bytes
    trees: tuple[Tree, ...]


_KNOWN: WeakValueDictionary[bytes, Owned] = WeakValueDictionary()


def owned(body: Mapping[str, Any]) -> Owned:
    """What is ours of a live object."""
    texts = []
    for entry in _entries(body):
        tree = entry["fieldsV1"]
        metadata = tree.get("f:metadata", {})
        if "f:ownerReferences" in metadata:  # it has the owner's uid in it, and would make each object another one
            rest = {path: below for path, below in metadata.items() if path != "f:ownerReferences"}
            tree = {**tree, "f:metadata": rest}
        texts.append(orjson.dumps(tree))
    digest = hashlib.blake2b(b"\0".join(texts), digest_size=16).digest()
    found = _KNOWN.get(digest)
    if found is None:
        found = _KNOWN[digest] = Owned(digest, tuple(orjson.loads(text) for text in texts))
    return found


def applied(body: Mapping[str, Any]) -> str:
    """The digest of the manifest that it was written from; empty if it has none."""
    word: str = (body["metadata"].get("annotations") or {}).get(APPLIED, "")
    return word


def stamped(manifest: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The manifest with its digest, and the digest."""
    word = fingerprint.of_desired(manifest).hex()
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), APPLIED: word}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}, word


def covers(mine: Owned, manifest: Mapping[str, Any]) -> bool:
    """Whether all fields of a manifest are ours."""
    return _covers(mine.trees, _content(manifest))


def patch(mine: Owned, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The strategic merge patch that brings an object, of which these fields are ours, to the manifest."""
    gone = _without(mine.trees, _content(manifest))
    return {**manifest, **gone, "metadata": {**manifest["metadata"], **gone["metadata"]}}


def _entries(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for entry in body["metadata"].get("managedFields") or ():
        if entry.get("manager") == FIELD_MANAGER and "subresource" not in entry and "fieldsV1" in entry:
            yield entry


def _content(manifest: Mapping[str, Any]) -> dict[str, Any]:
    content = {name: value for name, value in manifest.items() if name not in ("apiVersion", "kind")}
    content["metadata"] = {n: v for n, v in manifest["metadata"].items() if n not in _NOT_OURS_TO_SAY}
    return content


def _whole(trees: tuple[Tree, ...]) -> bool:
    """Owned with all that is in it: a leaf, or an atomic structure."""
    return any(not tree for tree in trees)


def _below(trees: tuple[Tree, ...], path: str) -> tuple[Tree, ...]:
    return tuple(tree[path] for tree in trees if path in tree)


def _covers(trees: tuple[Tree, ...], value: Any) -> bool:
    if not trees:
        return False
    if isinstance(value, Mapping):
        if not value or _whole(trees):
            return True
        return all(_covers(_below(trees, f"f:{name}"), part) for name, part in value.items())
    if isinstance(value, list) and not _whole(trees):
        return all(_covers(_item(trees, part), part) for part in value)
    return True


def _item(trees: tuple[Tree, ...], item: Any) -> tuple[Tree, ...]:
    """What is ours of an item of a merged list."""
    found = []
    for tree in trees:
        for path, below in tree.items():
            if path[:2] in ("k:", "v:") and _is(item, path):
                found.append(below)
    return tuple(found)


def _is(item: Any, path: str) -> bool:
    wanted = orjson.loads(path[2:])
    if path[:2] == "v:":
        return bool(item == wanted)
    return isinstance(item, Mapping) and all(item.get(name, value) == value for name, value in wanted.items())


def _without(trees: tuple[Tree, ...], value: Mapping[str, Any]) -> dict[str, Any]:
    """The value, with null for each field that is ours and not in it."""
    made = {name: _merged(_below(trees, f"f:{name}"), part) for name, part in value.items()}
    for path in {path for tree in trees for path in tree}:
        if path[:2] == "f:" and path[2:] not in value:
            made[path[2:]] = None
    return made


def _merged(trees: tuple[Tree, ...], value: Any) -> Any:
    if not trees or _whole(trees):
        return value
    if isinstance(value, Mapping):
        return _without(trees, value)
    if isinstance(value, list):
        kept = [_merged(_item(trees, part), part) for part in value]
        paths = {path for tree in trees for path in tree if path[:2] == "k:"}
        gone = sorted(path for path in paths if not any(_is(part, path) for part in value))
        return [*kept, *({"$patch": "delete", **orjson.loads(path[2:])} for path in gone)]
    return value
