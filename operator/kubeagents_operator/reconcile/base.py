# SPDX-License-Identifier: Apache-2.0
"""What the reconciles of all kinds share."""

import asyncio
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kubeagents_api.conditions import Reason
from kubeagents_api.errors import InvalidManifestError
from kubeagents_api.kinds import BY_KIND, parse_spec
from kubeagents_api.model import ApiModel
from kubeagents_api.pod import PodSettings
from kubeagents_api.task_queue import TaskQueueSpec
from kubeagents_operator.cache import Cache
from kubeagents_operator.children import Changes, Children, ContestedError, StillThereError
from kubeagents_operator.cluster import Cluster, ObjectRefusedError
from kubeagents_operator.desired import names
from kubeagents_operator.desired.metadata import Manifest, Owner, selector
from kubeagents_operator.desired.runtime import Defaults
from kubeagents_operator.events import Recorder
from kubeagents_operator.keys import Key
from kubeagents_operator.observed import Custom
from kubeagents_operator.quotas import Quotas
from kubeagents_operator.sampler import Sampler
from kubeagents_operator.status.conditions import Previous, Report, Verdict, of_verdict, progressing, stalled
from kubeagents_operator.status.rollout import refusal
from kubeagents_operator.status.workload import PodsState
from kubeagents_operator.status.writer import StatusWriter

REFUSED_RETRY = 30.0
"""Seconds until a child that the API server refused is tried again: a quota may have been raised, nothing tells."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class QueueSpecs:
    """The specs of TaskQueues, validated once each: every pass of every Agent asks for one."""

    def __init__(self) -> None:
        self._parsed: dict[Key, tuple[dict[str, Any], TaskQueueSpec]] = {}

    def of(self, custom: Custom) -> TaskQueueSpec:
        """The spec of a TaskQueue. Raises InvalidManifestError."""
        known = self._parsed.get(custom.key)
        if known is not None and known[0] == custom.spec:
            return known[1]
        spec = parse(custom)
        assert isinstance(spec, TaskQueueSpec)  # noqa: S101 - by its kind
        self._parsed[custom.key] = (custom.spec, spec)
        return spec

    def forget(self, key: Key) -> None:
        """The TaskQueue is gone."""
        self._parsed.pop(key, None)


@dataclass(frozen=True)
class Tools:
    """What a reconcile works with."""

    cache: Cache
    cluster: Cluster
    children: Children
    sampler: Sampler
    recorder: Recorder
    writer: StatusWriter
    defaults: Defaults
    quotas: Quotas
    queue_specs: QueueSpecs = field(default_factory=QueueSpecs)
    namespaces: frozenset[str] = frozenset()
    """Those that are served; all if empty."""
    now: Callable[[], datetime] = _utc_now
    clock: Callable[[], float] = field(default_factory=lambda: asyncio.get_running_loop().time)


def parse(custom: Custom) -> ApiModel:
    """The spec, validated. Raises InvalidManifestError."""
    body = {"metadata": {"name": custom.key.name}, "spec": custom.spec}
    return parse_spec(BY_KIND[custom.key.kind], body, ignore_unknown=True)


async def write_invalid(tools: Tools, custom: Custom, error: InvalidManifestError) -> float | None:
    """Say that the spec is invalid: it got past the API server by way of an older or newer CRD. The children stay as
    they are, and what was said of them before stays said."""
    verdict = stalled(Reason.INVALID_SPEC, f"{error}; are the CRDs of the same version as the operator?")
    previous = Previous(custom.status)
    facts = (*of_verdict(verdict), *previous.other_facts())
    return await tools.writer.write(custom, Report(verdict, facts, {}), now=tools.now())


def pods_state(
    tools: Tools,
    custom: Custom,
    name: str,
    *,
    spec: PodSettings,
    wanted: int,
    template: str | None,
    kept: int | None = None,
) -> PodsState:
    """The Deployment of an Agent or CentralAgent and its pods, as they are in memory now."""
    children = tools.cache.children(custom.key)
    child, beside = children.get(("Deployment", name)), children.get(("Deployment", names.canary(custom.key.name)))
    labels = selector(Owner(custom.key, custom.uid))
    return PodsState(
        wanted=wanted,
        selector=",".join(f"{label}={value}" for label, value in labels.items()),
        rollout=child.rollout if child is not None else None,
        template=template,
        pods=tuple(tools.cache.pods(custom.key)),
        deadline=float(spec.progress_deadline_seconds),
        kept=kept,
        canary=beside.rollout if beside is not None else None,
    )


async def bring(
    tools: Tools,
    custom: Custom,
    manifests: Sequence[Manifest],
    *,
    keeping: Collection[tuple[str, str]] = (),
    basis: Hashable = None,
) -> Verdict | None:
    """Bring the children where they should be and post what was done; the obstacle if that is not possible. Those in
    `keeping`, by kind and name, stay as they are; for the `basis` see `Children.stand`."""
    changes = Changes()
    try:
        await tools.children.bring(custom, manifests, changes, keeping=keeping, basis=basis)
    except ObjectRefusedError as error:
        return stalled(refusal(str(error)), str(error))
    except (StillThereError, ContestedError) as error:
        return progressing(Reason.ROLLING_OUT, str(error))
    finally:
        _announce(tools.recorder, custom, changes)
    return None


def _announce(recorder: Recorder, custom: Custom, changes: Changes) -> None:
    if changes.created:
        recorder.normal(custom, "Created", "Created " + ", ".join(changes.created))
    if changes.updated:
        recorder.normal(custom, "Updated", "Updated " + ", ".join(changes.updated))
    if changes.removed:
        recorder.normal(custom, "Removed", "Removed " + ", ".join(changes.removed))
    if changes.scaled is not None:
        recorder.normal(custom, "Scaled", "Scaled " + changes.scaled)
