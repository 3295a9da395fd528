# SPDX-License-Identifier: Apache-2.0
"""A plain operator, written as the documentation of kopf teaches it: the baseline. Run by `kopf run`."""

from typing import Any

import kopf
import kubernetes


def deployment(name: str, spec: kopf.Spec) -> Any:
    """Much the same pod as ours."""
    labels = {"app": name}
    probe = {"httpGet": {"path": "/healthz", "port": "http"}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"{name}-agent", "labels": labels},
        "spec": {
            "replicas": spec.get("replicas", 1),
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [
                        {
                            "name": "runtime",
                            "image": spec.get("image", "kubeagents-runtime:latest"),
                            "command": ["python", "-m", "agent_runtime"],
                            "ports": [{"name": "http", "containerPort": 8080}],
                            "env": [
                                {"name": "HANDLER", "value": spec["handler"]},
                                {"name": "CONCURRENCY", "value": str(spec.get("concurrency", 16))},
                                {
                                    "name": "QUEUE_URL",
                                    "valueFrom": {"secretKeyRef": {"name": "redis", "key": "url"}},
                                },
                            ],
                            "livenessProbe": probe,
                            "readinessProbe": {**probe, "httpGet": {"path": "/readyz", "port": "http"}},
                        }
                    ]
                },
            },
        },
    }


def service(name: str) -> Any:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"{name}-agent", "labels": {"app": name}},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 8080, "targetPort": "http"}]},
    }


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    kubernetes.config.load_kube_config()  # type: ignore[no-untyped-call]
    settings.execution.max_workers = 50
    settings.peering.standalone = True


@kopf.on.create("kubeagents.dev", "v1alpha1", "agents")
def create(*, spec: kopf.Spec, name: str, namespace: str | None, **_: Any) -> None:
    """Creates a Deployment and a Service."""
    made, front = deployment(name, spec), service(name)
    kopf.adopt([made, front])
    kubernetes.client.AppsV1Api().create_namespaced_deployment(namespace or "", made)
    kubernetes.client.CoreV1Api().create_namespaced_service(namespace or "", front)


@kopf.on.update("kubeagents.dev", "v1alpha1", "agents")
def update(*, spec: kopf.Spec, name: str, namespace: str | None, **_: Any) -> None:
    """Patches the Deployment."""
    made = deployment(name, spec)
    kopf.adopt(made)
    kubernetes.client.AppsV1Api().patch_namespaced_deployment(f"{name}-agent", namespace or "", made)
