# SPDX-License-Identifier: Apache-2.0
"""The two Deployments of a canary, made from the one that the Agent has without: pure functions."""

from collections.abc import Sequence

from kubeagents_api.labels import RESTART_HASH, TRACK, TRACK_CANARY
from kubeagents_operator.desired import names, pods
from kubeagents_operator.desired.metadata import Manifest, Owner
from kubeagents_operator.rollout.machine import Plan
from kubeagents_operator.rollout.templates import Template


def arrange(manifests: Sequence[Manifest], plan: Plan, *, owner: Owner, kept: Template | None) -> list[Manifest]:
    """The children as the plan wants them. `kept` is the template that the stable Deployment keeps, if it keeps one.

    A canary comes right before the stable Deployment.
    """
    arranged = []
    for manifest in manifests:
        if manifest["kind"] != "Deployment":
            arranged.append(manifest)
            continue
        if plan.canary is not None:
            arranged.append(_canary(manifest, plan.canary, owner))
        fresh: Template = manifest["spec"]["template"]
        template = fresh if kept is None else _renewed(kept, fresh)
        arranged.append({**manifest, "spec": {**manifest["spec"], "replicas": plan.stable, "template": template}})
    return arranged


def deployment(manifests: Sequence[Manifest], name: str) -> Manifest | None:
    """The Deployment of that name, if it is among them."""
    found = (one for one in manifests if one["kind"] == "Deployment" and one["metadata"]["name"] == name)
    return next(found, None)


def _canary(stable: Manifest, replicas: int, owner: Owner) -> Manifest:
    """The Deployment of the new version. Its pods have all labels of the others, so that Service, disruption budget and
    scale subresource count them, and one more, by which its own selector tells them apart."""
    track = {TRACK: TRACK_CANARY}
    metadata, spec, template = stable["metadata"], stable["spec"], stable["spec"]["template"]
    labelled = {**template["metadata"], "labels": {**template["metadata"]["labels"], **track}}
    return {
        **stable,
        "metadata": {
            **metadata,
            "name": names.canary(owner.key.name),
            "labels": {**metadata["labels"], **track},
        },
        "spec": {
            **spec,
            "replicas": replicas,
            "selector": {"matchLabels": {**spec["selector"]["matchLabels"], **track}},
            "template": pods.hashed({**template, "metadata": labelled}),
        },
    }


def _renewed(kept: Template, fresh: Template) -> Template:
    """An old version that is to be restarted when the new one is."""
    wanted = fresh["metadata"]["annotations"].get(RESTART_HASH)
    annotations = kept["metadata"].get("annotations") or {}
    if annotations.get(RESTART_HASH, wanted) == wanted:
        return kept
    renewed = {**kept["metadata"], "annotations": {**annotations, RESTART_HASH: wanted}}
    return pods.hashed({**kept, "metadata": renewed})
