# SPDX-License-Identifier: Apache-2.0
"""The pod template of a version that the spec does not say any more.

The spec is the new one, and what the old one was is written nowhere, except in the Deployment that runs it. Its
`managedFields` say which fields of it are the operator's; cut out, they are what was written, in its order and with the
API server's defaults. Writing them again changes nothing and keeps them ours: so the Deployment is compared and
repaired as ever, and it needs no second way of writing.

Only Agents with a canary, or with one that was taken back, take memory here; each costs one GET after a restart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from kubeagents_api.errors import TemporaryError
from kubeagents_api.labels import FIELD_MANAGER, REVISION, TEMPLATE_HASH
from kubeagents_operator.cluster import Cluster
from kubeagents_operator.keys import Key
from kubeagents_operator.watched import DEPLOYMENT

Template = dict[str, Any]
Tree = Mapping[str, Any]


class TemplateChangedError(TemporaryError):
    """The Deployment is not the one that the cache shows. The watch tells."""

    code = "TEMPLATE_CHANGED"


@dataclass(frozen=True, slots=True)
class _Kept:
    uid: str
    revision: str
    template: Template


class Templates:
    """Remembers the templates of stable Deployments while the specs of their Agents say another one."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._kept: dict[Key, _Kept] = {}

    def revision(self, key: Key, *, uid: str) -> str | None:
        """The version whose template is remembered for the Agent with that uid."""
        kept = self._kept.get(key)
        return kept.revision if kept is not None and kept.uid == uid else None

    async def keep(self, key: Key, *, uid: str, name: str, revision: str) -> Template:
        """The template of that version, from memory or from the live Deployment.

        Raises TemplateChangedError or ApiUnavailableError.
        """
        kept = self._kept.get(key)
        if kept is not None and (kept.uid, kept.revision) == (uid, revision):
            return kept.template
        body = await self._cluster.get(DEPLOYMENT, key.namespace, name)
        if body is None or version_of(body["spec"]["template"]) != revision:
            raise TemplateChangedError(f"Deployment {name} has another version than it had: looking again", delay=1.0)
        template = read_back(body)
        self._kept[key] = _Kept(uid, revision, template)
        return template

    def forget(self, key: Key) -> None:
        """There is nothing to keep."""
        self._kept.pop(key, None)


def read_back(body: Mapping[str, Any]) -> Template:
    """The pod template of a live Deployment as the operator wrote it.

    Where nobody knows any more what that was, as after a restore from a backup that has no `managedFields`, or where
    somebody has changed the image, it is the whole template: that changes nothing either.
    """
    template: Template = body["spec"]["template"]
    trees: list[Tree] = [
        entry["fieldsV1"].get("f:spec", {}).get("f:template", {})
        for entry in body["metadata"].get("managedFields") or ()
        if entry.get("manager") == FIELD_MANAGER and "subresource" not in entry
    ]
    ours: Template = _cut(template, [tree for tree in trees if tree])
    containers = (ours.get("spec") or {}).get("containers") or ()
    if containers and all("image" in one for one in containers):
        return ours
    metadata = {name: value for name, value in template["metadata"].items() if name != "creationTimestamp"}
    return {**template, "metadata": metadata}


def _cut(value: Any, trees: Sequence[Tree]) -> Any:
    """The fields of a value that one of the trees names (FieldsV1: `f:name` is a field, `k:{...}` a list item by its
    key, `v:...` one by its value, `.` the thing itself). A tree without children owns the value as a whole."""
    if not trees:
        return {}
    if any(not tree for tree in trees):
        return value
    if isinstance(value, Mapping):
        below = {name: [tree[f"f:{name}"] for tree in trees if f"f:{name}" in tree] for name in value}
        return {name: _cut(part, below[name]) for name, part in value.items() if below[name]}
    if isinstance(value, list):
        found = [(item, _of_item(item, trees)) for item in value]
        return [_cut(item, parts) for item, parts in found if parts]
    return value


def _of_item(item: Any, trees: Sequence[Tree]) -> list[Tree]:
    """What the trees say of an item of a list that is merged."""
    return [part for tree in trees for path, part in tree.items() if _is_item(item, path)]


def _is_item(item: Any, path: str) -> bool:
    if path.startswith("v:"):
        return bool(orjson.loads(path[2:]) == item)
    if path.startswith("k:") and isinstance(item, Mapping):
        return all(item.get(key, word) == word for key, word in orjson.loads(path[2:]).items())
    return False


def version_of(template: Mapping[str, Any]) -> str:
    """The version of a pod template. One of an operator that did not know versions counts as one of its own."""
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    word: str = annotations.get(REVISION) or annotations.get(TEMPLATE_HASH) or ""
    return word
