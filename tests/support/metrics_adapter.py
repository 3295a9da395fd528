# SPDX-License-Identifier: Apache-2.0
"""A metrics adapter, as small as they get: what a HorizontalPodAutoscaler reads about a queue.

It serves external.metrics.k8s.io for the API server's aggregator, as the adapters of Prometheus or KEDA do. The metric
is what a test says it is. In a cluster, use one of these: docs/howto/scale-agents.md.

    HPA controller ──► API server ──APIService──► Service (ExternalName localhost) ──► this process
"""

import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tests.support.cluster import Cluster, Object
from tests.support.eventually import eventually

GROUP_VERSION = "external.metrics.k8s.io/v1beta1"
SERVICE = "metrics-adapter"


@dataclass
class MetricsAdapter:
    """A context manager: within, the cluster has the metric in every namespace."""

    cluster: Cluster
    namespace: str
    """Of the Service that leads to it."""
    certificate: Path
    key: Path
    metric: str
    read: Callable[[], int]
    asked: list[str] = field(default_factory=list)
    """The paths that were asked for."""

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="metrics adapter"
        )
        self._thread.start()
        self.cluster.apply(self.namespace, *self._manifests(self._server.server_address[1]))
        eventually(lambda: self.cluster.get_raw(f"/apis/{GROUP_VERSION}")["resources"], what="the metrics are served")
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.kubectl("delete", "apiservice", _api_service(), "--ignore-not-found")
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, path: str) -> Object | None:
        """The body for a path; None if there is nothing."""
        self.asked.append(path)
        prefix, _, rest = path.partition("?")[0].partition(f"/apis/{GROUP_VERSION}")
        if prefix or not path.startswith("/apis/"):
            return None
        if not rest:
            resource = {"name": self.metric, "namespaced": True, "kind": "ExternalMetricValueList", "verbs": ["get"]}
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": GROUP_VERSION,
                    "resources": [resource]}  # fmt: skip
        if not rest.endswith(f"/{self.metric}"):
            return None
        value = {
            "metricName": self.metric,
            "metricLabels": {},
            "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "value": str(self.read()),
        }
        return {"kind": "ExternalMetricValueList", "apiVersion": GROUP_VERSION, "metadata": {}, "items": [value]}

    def _manifests(self, port: int) -> tuple[Object, Object]:
        group, _, version = GROUP_VERSION.partition("/")
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": SERVICE},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        }
        api_service = {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": _api_service()},
            "spec": {
                "group": group,
                "version": version,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "insecureSkipTLSVerify": True,
                "service": {"namespace": self.namespace, "name": SERVICE, "port": port},
            },
        }
        return service, api_service


def _api_service() -> str:
    group, _, version = GROUP_VERSION.partition("/")
    return f"{version}.{group}"


def _handler(adapter: MetricsAdapter) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = adapter.answer(self.path)
            body = json.dumps(found if found is not None else {"kind": "Status", "code": 404}).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    return Handler
