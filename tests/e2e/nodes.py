# SPDX-License-Identifier: Apache-2.0
"""The way to a Service from outside of the cluster."""

from tests.support.cluster import Cluster


def node_ports(cluster: Cluster, namespace: str, service: str) -> tuple[str, dict[str, int]]:
    """The address of a node, and where the ports of a Service of type NodePort are on it."""
    node = cluster.objects("default", "nodes")[0]
    address = next(one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP")
    found = cluster.get(namespace, "service", service)
    return address, {port["name"]: port["nodePort"] for port in found["spec"]["ports"]}
