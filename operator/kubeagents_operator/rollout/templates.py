# SPDX-License-Identifier: Apache-2.0
"""The pod template of a version that the spec does not say any more.

The spec is the new one, and what the old one was is written nowhere, except in the Deployment that runs it. Applied by
server-side apply, its `managedFields` say which fields of it are the operator's; cut out, they are what was applied, to
the letter and in its order. Applying them again changes nothing and keeps them ours: so the Deployment is compared and
repaired as ever, and it needs no second way of writing.

Only Agents with a canary, or with one that was taken back, take memory here; each costs one GET after a restart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubeagents_api.errors import TemporaryError
from kubeagents_api.labels import REVISION
from kubeagents_operator import fingerprint
from kubeagents_operator.cluster import Cluster
from kubeagents_operator.keys import Key
from kubeagents_operator.observed import TEMPLATE_HASH
from kubeagents_operator.watched import DEPLOYMENT

Template = dict[str, Any]


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
    """The pod template of a live Deployment as it was applied.

    Where nobody knows any more what was applied, as after a restore from a backup that has no `managedFields`, it is
    the whole template: that changes nothing either.
    """
    applied: Template = (fingerprint.cut_out(body).get("spec") or {}).get("template") or {}
    if (applied.get("spec") or {}).get("containers"):
        return applied
    live: Template = dict(body["spec"]["template"])
    live["metadata"] = {name: value for name, value in live["metadata"].items() if name != "creationTimestamp"}
    return live


def version_of(template: Mapping[str, Any]) -> str:
    """The version of a pod template. One of an operator that did not know versions counts as one of its own."""
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    word: str = annotations.get(REVISION) or annotations.get(TEMPLATE_HASH) or ""
    return word
