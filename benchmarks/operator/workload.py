# SPDX-License-Identifier: Apache-2.0
"""What is applied, and what the operator would make of it."""

from typing import Any

from kubeagents_api.agent import AgentSpec
from kubeagents_api.task_queue import TaskQueueSpec
from kubeagents_operator.desired import agent as desired
from kubeagents_operator.desired.metadata import Owner
from kubeagents_operator.desired.runtime import Defaults, QueueAccess
from kubeagents_operator.keys import Key
from kubeagents_operator.watched import BY_KIND

API_VERSION = "kubeagents.dev/v1alpha1"
QUEUE = "work"
TENANT = 100
"""Agents of one namespace."""
HEARTBEAT_SECONDS = 30

AGENT_SPEC: dict[str, Any] = {
    "queueRef": {"name": QUEUE},
    "handler": "work:handle",
    "replicas": 1,
    "concurrency": 16,
    "heartbeatSeconds": HEARTBEAT_SECONDS,
}

Object = dict[str, Any]


def namespaces(agents: int) -> list[str]:
    """Those of so many Agents."""
    return [f"tenant-{number}" for number in range(-(-agents // TENANT))]


def namespace(number: int) -> str:
    """That of one Agent."""
    return f"tenant-{number // TENANT}"


def name(number: int) -> str:
    return f"agent-{number}"


def path(number: int) -> str:
    """The path of one Agent on the API server."""
    return f"{agents_path(namespace(number))}/{name(number)}"


def agents_path(where: str) -> str:
    return f"/apis/{API_VERSION}/namespaces/{where}/agents"


def agent(number: int) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "Agent",
        "metadata": {"name": name(number), "namespace": namespace(number)},
        "spec": AGENT_SPEC,
    }


def tenant(where: str, url: str) -> list[tuple[str, Object]]:
    """A namespace with a TaskQueue, as paths and bodies to create."""
    queue = {
        "apiVersion": API_VERSION,
        "kind": "TaskQueue",
        "metadata": {"name": QUEUE},
        "spec": {"redis": {"external": {"secretRef": {"name": "redis", "key": "url"}}}},
    }
    return [
        ("/api/v1/namespaces", {"metadata": {"name": where}}),
        (f"/api/v1/namespaces/{where}/secrets", {"metadata": {"name": "redis"}, "stringData": {"url": url}}),
        (f"/apis/{API_VERSION}/namespaces/{where}/taskqueues", queue),
    ]


def children(number: int, uid: str) -> list[tuple[str, Object]]:
    """The children of one Agent, as paths and bodies to create: exactly those of the operator."""
    owner = Owner(Key("Agent", namespace(number), name(number)), uid)
    access = QueueAccess("KUBEAGENTS_QUEUE_0_URL", "redis", "url", "digest")
    inputs = desired.AgentInputs(owner, AgentSpec.model_validate(AGENT_SPEC), TaskQueueSpec(), access, 1)
    defaults = Defaults("kubeagents-runtime:latest", "redis:8.2-bookworm", "IfNotPresent")
    return [(BY_KIND[one["kind"]].path(namespace(number)), one) for one in desired.children(inputs, defaults)]
