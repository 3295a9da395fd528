# SPDX-License-Identifier: Apache-2.0
"""`kubectl apply` refuses what cannot work, in words that say what to write instead.

A real API server says so, by the CustomResourceDefinitions alone: no webhook, no operator runs here.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.e2e import workload
from tests.support.cluster import ROOT, Cluster, KubectlError, Object

CRDS = sorted((ROOT / "crds").glob("*.yaml"))
STEPS_DOWN = [{"percent": 50, "pauseSeconds": 1}, {"percent": 20, "pauseSeconds": 1}]
ADMIN = {"name": "root", "role": "admin", "keysFrom": {"name": "root-keys"}}
ISSUER = {
    "name": "corp",
    "url": "https://login.example.com",
    "audiences": ["kubeagents"],
    "grants": [{"claim": "groups", "values": ["platform"], "role": "admin"}],
}

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
        "queueRefs has a name twice: clients tell queues apart by name, list each name once",
    ),
    (workload.central_agent(service={"type": "Magic"}), "spec.service.type"),
    (
        workload.central_agent(access={"principals": [{"name": "v", "role": "viewer", "keysFrom": {"name": "s"}}]}),
        "access has no admin of all queues and Agents",
    ),
    (workload.central_agent(access={}), "access has no admin of all queues and Agents"),
    (
        workload.central_agent(access={"principals": [{"name": "root", "role": "admin"}]}),
        "principal needs keysFrom or certificates: a way to show who it is",
    ),
    (
        workload.central_agent(access={"principals": [{**ADMIN, "certificates": [{"commonName": "a", "uri": "b"}]}]}),
        "certificates needs exactly one of commonName, dnsName and uri in each entry",
    ),
    (
        workload.central_agent(access={"principals": [{**ADMIN, "certificates": [{"commonName": "root"}]}]}),
        "certificates of access.principals need tls.clientCa: say who has signed them",
    ),
    (
        workload.central_agent(access={"issuers": [ISSUER, {**ISSUER, "name": "other"}]}),
        "access.issuers has a url twice: give one issuer all its audiences and grants",
    ),
    (
        workload.central_agent(access={"issuers": [{**ISSUER, "url": "http://login.example.com"}]}),
        "spec.access.issuers[0].url",
    ),
    (
        workload.central_agent(access={"issuers": [{**ISSUER, "algorithms": ["HS256"]}]}),
        "spec.access.issuers[0].algorithms[0]",
    ),
    (
        workload.central_agent(tls={"secretRef": {"name": "t"}, "clientAuth": "Required"}),
        "tls.clientAuth Required needs tls.clientCa: say who has signed the certificates of clients",
    ),
    (
        workload.central_agent(tls={"secretRef": {"name": "t"}}, endpoints=["http", "zeromq"]),
        "the endpoint zeromq cannot be encrypted: leave it out, or leave out tls",
    ),
    (workload.agent(endpoints=["http"]), "endpoints needs access: say who may use them"),
    (
        workload.agent(access={"principals": [ADMIN]}),
        "access and tls are for endpoints, and there are none: add some, such as http, or remove them",
    ),
    (
        workload.agent(endpoints=["zeromq"], access={"principals": [ADMIN]}, tls={"secretRef": {"name": "t"}}),
        "the endpoint zeromq cannot be encrypted: leave it out, or leave out tls",
    ),
    (
        workload.agent(
            endpoints=["http"], access={"principals": [{**ADMIN, "certificates": [{"commonName": "root"}]}]}
        ),
        "certificates of access.principals need tls.clientCa: say who has signed them",
    ),
    (
        workload.central_agent(endpoints=["grpc"]),
        "endpoints must contain http, which the command line and the page use, and each protocol once",
    ),
    (
        workload.central_agent(access={"principals": [{"name": "a", "role": "agent", "keysFrom": {"name": "s"}}]}),
        "role agent needs agents: name the Agents whose tasks it works on",
    ),
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
    (workload.queue(taskTtlSeconds=-1), "spec.taskTtlSeconds"),
    (workload.queue(limits={"maxDepth": -1}), "spec.limits.maxDepth"),
    (workload.queue(limits={"rate": {"tasks": 0}}), "spec.limits.rate.tasks"),
    (workload.queue(limits={"whenFull": "Block"}), "limits.whenFull needs limits.maxDepth: set it, or remove whenFull"),
    (workload.queue(shards=0), "spec.shards"),
    (workload.queue(schedules=[{"everySeconds": 5}]), "spec.schedules[0].name"),
    (workload.queue(schedules=[{"name": "tick"}]), "schedule needs exactly one of cron and everySeconds"),
    (
        workload.queue(schedules=[{"name": "tick", "cron": "* * * * *", "everySeconds": 5}]),
        "schedule needs exactly one of cron and everySeconds",
    ),
    (workload.queue(schedules=[{"name": "tick", "everySeconds": -5}]), "spec.schedules[0].everySeconds"),
    (
        workload.queue(schedules=[{"name": "tick", "cron": "every day"}]),
        "cron needs five fields (minute, hour, day of month, month, day of week), for example 30 6 * * 1-5",
    ),
    (
        workload.queue(schedules=[{"name": "tick", "everySeconds": 5}, {"name": "tick", "everySeconds": 6}]),
        "schedules has a name twice: give each schedule a name of its own",
    ),
    (
        workload.queue(schedules=[{"name": "tick", "everySeconds": 5, "task": {"agent": "a", "capability": "b"}}]),
        "task needs at most one of agent and capability",
    ),
    (workload.agent(capabilities=["ocr", "ocr"]), "capabilities names one twice: list each once"),
    (workload.agent(batch={"maxTasks": 0}), "spec.batch.maxTasks"),
    (
        workload.agent(autoscaling={"minReplicas": 3, "maxReplicas": 2}),
        "autoscaling.minReplicas must not be greater than autoscaling.maxReplicas",
    ),
    (workload.agent(autoscaling={}), "spec.autoscaling.maxReplicas: Required value"),
    (workload.agent(autoscaling={"maxReplicas": 0}), "spec.autoscaling.maxReplicas"),
    (workload.agent(autoscaling={"maxReplicas": 2, "targetUtilization": 0}), "spec.autoscaling.targetUtilization"),
    (workload.agent(autoscaling={"maxReplicas": 2, "targetUtilization": 80}), "spec.autoscaling.targetUtilization"),
    (
        workload.agent(rollout={"steps": STEPS_DOWN}),
        "each step of rollout.steps must have a greater percent than the one before",
    ),
    (
        workload.agent(rollout={"steps": [STEPS_DOWN[0], STEPS_DOWN[0]]}),
        "each step of rollout.steps must have a greater percent than the one before",
    ),
    (workload.agent(rollout={"steps": []}), "spec.rollout.steps"),
    (workload.agent(rollout={"steps": [{"percent": 100}]}), "spec.rollout.steps[0].percent"),
    (workload.agent(rollout={"steps": STEPS_DOWN[1:], "minSuccessRate": 95}), "spec.rollout.minSuccessRate"),
    (workload.agent(queueRef={"name": "work", "namespace": "Not_A_Name"}), "spec.queueRef.namespace"),
    (workload.queue(allowedNamespaces=["team-*"]), "spec.allowedNamespaces[0]"),
    (workload.queue(allowedNamespaces=["a", "a"]), "spec.allowedNamespaces[1]: Duplicate value"),
    (workload.queue(backlog={"maxDepth": 0}), "spec.backlog.maxDepth"),
]


@pytest.mark.parametrize(("manifest", "message"), REFUSED, ids=[f"{m['kind']}-{text[:40]}" for m, text in REFUSED])
def test_a_bad_manifest_is_refused_with_its_message(cluster: Cluster, manifest: Object, message: str) -> None:
    with pytest.raises(KubectlError) as refused:
        cluster.kubectl("-n", "default", "apply", "--dry-run=server", "-f", "-", input=yaml.safe_dump(manifest))
    assert message in str(refused.value)


def _sentences(schema: Any) -> Iterator[str]:
    """The messages of all rules across fields."""
    if isinstance(schema, dict):
        yield from (rule["message"] for rule in schema.get("x-kubernetes-validations", ()))
        for value in schema.values():
            yield from _sentences(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _sentences(value)


@pytest.mark.parametrize("file", CRDS, ids=[file.name for file in CRDS])
def test_each_rule_across_fields_is_broken_by_one_of_these_manifests(file: Any) -> None:
    sentences = set(_sentences(yaml.safe_load(file.read_text())))
    shown = [message for _, message in REFUSED]
    assert sentences, "each kind has some"
    assert [one for one in sorted(sentences) if not any(message in one for message in shown)] == []


def test_the_api_server_accepts_what_the_rules_cost(cluster: Cluster) -> None:
    """It estimates the worst case of each rule and of all together, and refuses a definition that is too expensive."""
    for file in CRDS:
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", file)


def test_the_good_twins_of_these_manifests_are_accepted(cluster: Cluster) -> None:
    schedules = [
        {"name": "tick", "everySeconds": 5, "task": {"payload": {"any": [1, None, {"json": True}]}, "agent": "worker"}},
        {"name": "nightly", "cron": "30 6 * * 1-5", "timeZone": "Europe/Berlin", "concurrencyPolicy": "Forbid"},
    ]
    limits = {"maxDepth": 10, "whenFull": "Block", "rate": {"tasks": 5}, "perTenant": {"concurrency": 1}}
    for manifest in (
        workload.agent(),
        workload.agent(capabilities=["ocr", "translate"], batch={"maxTasks": 8, "waitSeconds": 0.5}),
        workload.agent(autoscaling={"minReplicas": 0, "maxReplicas": 20}, suspend=True),
        workload.agent(rollout={"steps": [*reversed(STEPS_DOWN), {"percent": 99}]}),
        workload.agent(queueRef={"name": "work", "namespace": "team-b"}),
        workload.agent(endpoints=["http", "grpc"], access={"principals": [ADMIN]}, tls={"secretRef": {"name": "t"}}),
        workload.central_agent(),
        workload.central_agent(access={"issuers": [ISSUER]}),
        workload.central_agent(
            access={"principals": [{**ADMIN, "certificates": [{"dnsName": "root.example.com"}]}], "issuers": [ISSUER]},
            tls={"secretRef": {"name": "t"}, "clientCa": {"secretRef": {"name": "c"}}, "clientAuth": "Required"},
        ),
        workload.queue(),
        workload.queue(allowedNamespaces=["team-a", "*"], backlog={"maxDepth": 5, "maxAgeSeconds": 60}),
        workload.queue(schedules=schedules, limits=limits, shards=4, paused=True, closed=True, taskTtlSeconds=60),
    ):
        cluster.kubectl("-n", "default", "apply", "--dry-run=server", "-f", "-", input=yaml.safe_dump(manifest))
