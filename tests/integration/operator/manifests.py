# SPDX-License-Identifier: Apache-2.0
"""What the tests apply: a queue in the test's Redis, and Agents of it."""

from typing import Any

from tests.support.cluster import Object

API_VERSION = "kubeagents.dev/v1alpha1"
QUEUE = "work"


def secret(url: str, name: str = "redis") -> Object:
    """The Secret with the URL of the test's Redis."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"url": url}}


def queue(name: str = QUEUE, **spec: Any) -> Object:
    """A TaskQueue in that Redis."""
    external = {"external": {"secretRef": {"name": "redis", "key": "url"}}}
    return {
        "apiVersion": API_VERSION,
        "kind": "TaskQueue",
        "metadata": {"name": name},
        "spec": {"redis": external, "leaseSeconds": 3, **spec},
    }


def code(name: str = "code", text: str = "async def handle(task, ctx): ...\n") -> Object:
    """The files of an Agent's handler. Nobody runs them."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"work.py": text}}


def agent(name: str = "worker", **spec: Any) -> Object:
    """An Agent whose pods beat every second, once the test plays them."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Agent",
        "metadata": {"name": name},
        "spec": {
            "queueRef": {"name": QUEUE},
            "handler": "work:handle",
            "code": {"configMapRef": {"name": "code"}},
            "heartbeatSeconds": 1,
            "drainSeconds": 5,
            **spec,
        },
    }
