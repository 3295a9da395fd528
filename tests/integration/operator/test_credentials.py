# SPDX-License-Identifier: Apache-2.0
"""The operator as it runs in a pod: with the token of a service account in a file that somebody renews."""

import shutil
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from kubeagents_operator import rbac
from tests.cluster.control_plane import ControlPlane
from tests.integration.operator import manifests
from tests.integration.operator.conftest import StartOperator
from tests.support.cluster import Cluster, Object
from tests.support.eventually import eventually
from tests.support.redis_server import RedisServer

ACCOUNT = "operator"
FOLDER = "/run/secrets/kubernetes.io/serviceaccount"
IN_A_POD = (
    "unshare", "--map-root-user", "--mount", "--propagation=private", "sh", "-c",
    f'mount -t tmpfs tmpfs /run && mkdir -p {FOLDER} && mount --bind "$0" {FOLDER} && exec "$@"',
)  # fmt: skip
"""What shows a process a folder where pods have their token, and leaves everybody else's view alone."""


def token(cluster: Cluster, namespace: str, secret: str) -> str:
    """A token that is revoked when its Secret is deleted."""
    cluster.kubectl("-n", namespace, "create", "secret", "generic", secret)
    options = ("--bound-object-kind=Secret", f"--bound-object-name={secret}")
    return cluster.kubectl("-n", namespace, "create", "token", ACCOUNT, *options).strip()


def roles(namespace: str) -> list[Object]:
    """What the chart grants, and no more."""
    rules = rbac.rules() + rbac.lease_rules("kubeagents-operator")
    group = "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": ACCOUNT}, "rules": rules}
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": ACCOUNT},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": ACCOUNT},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}],
    }
    return [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}}, role, binding]


@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run([*IN_A_POD, "/tmp", "true"], check=False).returncode != 0,
    reason="needs Linux with namespaces of mounts",
)
def test_a_token_that_is_renewed_in_its_file_is_used_before_the_old_one_is_refused(
    cluster: Cluster,
    namespace: str,
    control_plane: ControlPlane,
    start_operator: StartOperator,
    redis_server: RedisServer,
    tmp_path: Path,
) -> None:
    cluster.apply(namespace, *roles(namespace))
    cluster.apply(namespace, manifests.secret(redis_server.url), manifests.queue(), manifests.code(), manifests.agent())
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "ca.crt").write_bytes(control_plane.places.authority.certificate("ca").read_bytes())
    (folder / "namespace").write_text(namespace)
    first = token(cluster, namespace, "first")
    (folder / "token").write_text(first)
    operator = start_operator(
        prefix=(*IN_A_POD, str(folder)),
        KUBECONFIG="",
        KUBERNETES_SERVICE_HOST="127.0.0.1",
        KUBERNETES_SERVICE_PORT=str(control_plane.places.api_port),
    ).leading()

    def ready(replicas: int) -> bool:
        return bool(cluster.get(namespace, "agent", "worker").get("status", {}).get("readyReplicas") == replicas)

    eventually(lambda: ready(1), what="one replica, and the status says so")
    renewed = folder / "token.new"
    renewed.write_text(token(cluster, namespace, "second"))
    renewed.replace(folder / "token")
    cluster.kubectl("-n", namespace, "delete", "secret/first")
    eventually(lambda: _answer_to(control_plane, first) == 401, what="the old one is refused")

    cluster.kubectl("-n", namespace, "scale", "agent/worker", "--replicas=2")
    eventually(lambda: ready(2), what="two replicas, and the status says so", timeout=60)
    assert operator.leads(), "it has not lost its Lease meanwhile"
    assert operator.metric("kubeagents_operator_api_errors_total", status="401") == 0


def _answer_to(plane: ControlPlane, revoked: str) -> int:
    """The API server keeps its opinion of a token for some seconds."""
    trust = ssl.create_default_context(cafile=str(plane.places.authority.certificate("ca")))
    headers = {"Authorization": f"Bearer {revoked}"}
    return httpx.get(f"{plane.places.server}/api", headers=headers, verify=trust, trust_env=False).status_code
