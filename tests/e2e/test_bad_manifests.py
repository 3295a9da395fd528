# SPDX-License-Identifier: Apache-2.0
"""`kubectl apply` refuses what cannot work, in words that say what to write instead."""

import pytest
import yaml

from tests.e2e import workload
from tests.support.cluster import Cluster, KubectlError, Object

REFUSED = [
    (workload.agent(handler="no colon"), "spec.handler"),
    (workload.agent(replicas=-1), "spec.replicas"),
    (workload.agent(env=[{"name": "A"}]), "an env entry needs exactly one of value and valueFrom"),
    (
        workload.agent(env=[{"name": "KUBEAGENTS_X", "value": "hello"}]),
        "env names that start with KUBEAGENTS_ are set by the operator: use another name",
    ),
    (
        workload.agent(env=[{"name": "A", "valueFrom": {}}]),
        "valueFrom needs exactly one of secretKeyRef and configMapKeyRef",
    ),
    (workload.agent(name="x" * 53), "at most 52 characters"),
    (workload.agent(name="1st"), "metadata.name must start with a letter"),
    (workload.agent(handlr="work:handle"), 'unknown field "spec.handlr"'),
    (workload.central_agent(queueRefs=[]), "spec.queueRefs"),
    (
        workload.central_agent(queueRefs=[{"name": "a"}, {"name": "a"}]),
        "queueRefs names a TaskQueue twice: list each queue once",
    ),
    (workload.central_agent(service={"type": "Magic"}), "spec.service.type"),
    (workload.queue(redis={}), "redis needs exactly one of managed and external"),
    (
        workload.queue(redis={"managed": {}, "external": {"secretRef": {"name": "s"}}}),
        "redis needs exactly one of managed and external",
    ),
    (
        workload.queue(retry={"initialSeconds": 600}),
        "retry.initialSeconds must not be greater than retry.maxSeconds",
    ),
    (
        workload.queue(redis={"managed": {"storage": {"type": "EmptyDir", "storageClassName": "fast"}}}),
        "storageClassName needs type PersistentVolumeClaim: remove it or change the type",
    ),
    (workload.queue(maxPayloadBytes=1), "spec.maxPayloadBytes"),
]


@pytest.mark.parametrize(("manifest", "message"), REFUSED, ids=[f"{m['kind']}-{text[:40]}" for m, text in REFUSED])
def test_a_bad_manifest_is_refused_with_its_message(cluster: Cluster, manifest: Object, message: str) -> None:
    with pytest.raises(KubectlError) as refused:
        cluster.kubectl("-n", "default", "apply", "--dry-run=server", "-f", "-", input=yaml.safe_dump(manifest))
    assert message in str(refused.value)


def test_the_good_twins_of_these_manifests_are_accepted(cluster: Cluster) -> None:
    for manifest in (workload.agent(), workload.central_agent(), workload.queue()):
        cluster.kubectl("-n", "default", "apply", "--dry-run=server", "-f", "-", input=yaml.safe_dump(manifest))
