# SPDX-License-Identifier: Apache-2.0
"""Names of children, and addresses that follow from them."""

from kubeagents_api.labels import HTTP_PORT


def agent(name: str) -> str:
    """All children of an Agent."""
    return f"{name}-agent"


def canary(name: str) -> str:
    """The Deployment of an Agent's new version, while it is tried."""
    return f"{agent(name)}-canary"


def code(name: str, digest: str) -> str:
    """The copy of an Agent's code that the pods of one version mount, if versions are tried one after the other."""
    return f"{agent(name)}-code-{digest[:10]}"


def central_agent(name: str) -> str:
    """All children of a CentralAgent, except its Lease (`lease_name`) and its admin's key (`admin_secret`)."""
    return f"{name}-central"


def redis(name: str) -> str:
    """All children of a TaskQueue with a managed Redis."""
    return f"{name}-redis"


def url(service: str, namespace: str, port: int = HTTP_PORT, *, https: bool = False) -> str:
    """URL of a Service inside the cluster."""
    scheme, usual = ("https", 443) if https else ("http", 80)
    return f"{scheme}://{service}.{namespace}.svc" + ("" if port == usual else f":{port}")
