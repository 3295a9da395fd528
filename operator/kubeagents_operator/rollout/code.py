# SPDX-License-Identifier: Apache-2.0
"""A copy of an Agent's code for each version: its pods mount the copy, not the ConfigMap that people edit.

Pods of the old version that start while a new one is tried, or after it was taken back, would read the new code
otherwise. A copy is immutable, is named by its content, belongs to the Agent, and goes when no pod needs it any more.
"""

from collections.abc import Iterable
from typing import Any

from kubeagents_operator import observed
from kubeagents_operator.cluster import Cluster, ConflictError, Object
from kubeagents_operator.desired.metadata import Manifest, Owner, manifest
from kubeagents_operator.rollout.templates import Template, TemplateChangedError
from kubeagents_operator.watched import CONFIG_MAP


async def copy(cluster: Cluster, owner: Owner, *, source: str, name: str, digest: str) -> Object:
    """Make the copy.

    Raises TemplateChangedError if the code is another one than `digest` says, ObjectRefusedError,
    ConflictError if something else has that name, or ApiUnavailableError.
    """
    body = await cluster.get(CONFIG_MAP, owner.key.namespace, source)
    if body is None or observed.content(body).digest() != digest:
        raise TemplateChangedError(f"ConfigMap {source} has other content than it had: looking again", delay=1.0)
    content = {part: body[part] for part in ("data", "binaryData") if body.get(part)}
    try:
        return await cluster.create(manifest(owner, "v1", "ConfigMap", name, immutable=True, **content))
    except ConflictError:
        found = await cluster.get(CONFIG_MAP, owner.key.namespace, name)
        if found is None or observed.content(found).digest() != digest:
            raise
        return found  # of a reconcile that ended before it was seen


def mounted(manifests: Iterable[Manifest]) -> set[str]:
    """The ConfigMaps with code that the pods of Deployments mount."""
    templates: list[Template] = [one["spec"]["template"] for one in manifests if one["kind"] == "Deployment"]
    volumes: list[dict[str, Any]] = [volume for one in templates for volume in one["spec"].get("volumes") or ()]
    return {volume["configMap"]["name"] for volume in volumes if volume["name"] == "code"}
