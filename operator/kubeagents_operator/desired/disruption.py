# SPDX-License-Identifier: Apache-2.0
"""How many pods of an Agent those who empty nodes may stop at the same time.

An eviction is a SIGTERM like any other: the pod takes nothing new, finishes what it runs, and gives back the rest
without costing an attempt. So no task is lost whatever is evicted; what the budget keeps is that somebody works on the
queue meanwhile. It allows a quarter of the replicas, at least one, as a rolling update replaces them: less would have
the drain of a node wait for one slow pod after the other. A single replica has no budget, which could only either
forbid the drain of its node for ever, or say nothing.

A preStop hook would add nothing: the kubelet sends SIGTERM after it, and it takes of the same grace period.
"""

from kubeagents_operator.desired.metadata import Manifest, Owner, manifest, selector

UNAVAILABLE = "25%"


def budget(owner: Owner, name: str) -> Manifest:
    """The PodDisruptionBudget. Pods that are not ready may always be evicted: they do no work."""
    return manifest(
        owner,
        "policy/v1",
        "PodDisruptionBudget",
        name,
        spec={
            "maxUnavailable": UNAVAILABLE,
            "selector": {"matchLabels": selector(owner)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    )
