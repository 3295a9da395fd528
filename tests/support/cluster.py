# SPDX-License-Identifier: Apache-2.0
"""A real cluster as tests use it: kubectl, helm, and the HTTP API of a CentralAgent through its Service."""

import base64
import json
import ssl
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from kubeagents_api.labels import ADMIN_KEY, admin_secret
from tests.cluster import chart
from tests.cluster.handle import ClusterHandle
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "examples" / "01-quickstart"

OPERATOR_NAMESPACE = chart.NAMESPACE

Object = dict[str, Any]


class KubectlError(AssertionError):
    """kubectl or helm exited non-zero; the message has what it printed."""


@dataclass(frozen=True)
class Cluster:
    """A cluster, and the images that it can run."""

    handle: ClusterHandle

    @property
    def kubeconfig(self) -> Path:
        return self.handle.kubeconfig

    @property
    def images(self) -> dict[str, str]:
        """`runtime`, `operator` and `redis` -> image reference."""
        return self.handle.images

    def run(self, *command: str | Path, input: str | None = None, timeout: float = 180) -> str:
        """Run a program against this cluster and return its output. Raises KubectlError with all it printed."""
        result = subprocess.run(
            [str(part) for part in command],
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={"KUBECONFIG": str(self.kubeconfig), "PATH": "/usr/bin:/bin", "HOME": "/tmp"},
        )
        if result.returncode != 0:
            shown = " ".join(str(part) for part in command[1:])
            raise KubectlError(f"{shown} exited with {result.returncode}:\n{result.stdout}{result.stderr}")
        return result.stdout

    def kubectl(self, *arguments: str | Path, input: str | None = None, timeout: float = 180) -> str:
        return self.run(self.handle.kubectl, *arguments, input=input, timeout=timeout)

    def helm(self, *arguments: str | Path, timeout: float = 300) -> str:
        return self.run(self.handle.helm, *arguments, timeout=timeout)

    def apply(self, namespace: str, *manifests: Object | str | Path) -> str:
        """`kubectl apply` of objects, YAML text, or files and folders."""
        printed = []
        for manifest in manifests:
            if isinstance(manifest, Path):
                printed.append(self.kubectl("-n", namespace, "apply", "-f", manifest))
            else:
                # JSON, because kubectl reads more words of YAML as true and false than PyYAML writes quotes around.
                text = manifest if isinstance(manifest, str) else json.dumps(manifest)
                printed.append(self.kubectl("-n", namespace, "apply", "-f", "-", input=text))
        return "".join(printed)

    def get(self, namespace: str, kind: str, name: str) -> Object:
        found: Object = json.loads(self.kubectl("-n", namespace, "get", kind, name, "-o", "json"))
        return found

    def objects(self, namespace: str, kinds: str, selector: str = "") -> list[Object]:
        selection = ["-l", selector] if selector else []
        items: list[Object] = json.loads(self.kubectl("-n", namespace, "get", kinds, *selection, "-o", "json"))["items"]
        return items

    def wait(self, namespace: str, target: str, condition: str, *, seconds: int = 120) -> None:
        """`kubectl wait --for=condition=…`; on failure the message has the object's status and Events."""
        try:
            self.kubectl(
                "-n", namespace, "wait", target, f"--for={condition}", f"--timeout={seconds}s", timeout=seconds + 30
            )
        except KubectlError as error:
            described = self.kubectl("-n", namespace, "describe", target)
            pods = self.kubectl("-n", namespace, "get", "pods", "-o", "wide")
            raise KubectlError(f"{error}\n{described}\n{pods}") from error

    def ready_pods(self, namespace: str, selector: str) -> list[str]:
        """Names of the pods that are Ready and not on their way out."""
        return [
            pod["metadata"]["name"]
            for pod in self.objects(namespace, "pods", selector)
            if "deletionTimestamp" not in pod["metadata"]
            and any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", []))
        ]

    def get_raw(self, path: str) -> Object:
        """GET of an API path, for example a scale subresource."""
        found: Object = json.loads(self.kubectl("get", "--raw", path))
        return found

    def run_python(
        self, namespace: str, name: str, program: str, *, privileged: bool = False, env: Sequence[Object] = ()
    ) -> None:
        """Run a program once, in a pod of the runtime image. Privileged ones see every process of the node."""
        container: Object = {
            "name": "python",
            "image": self.images["runtime"],
            "imagePullPolicy": "IfNotPresent",
            "command": ["python", "-c", program],
            "env": list(env),
        }
        spec: Object = {"restartPolicy": "Never", "containers": [container], "terminationGracePeriodSeconds": 1}
        if privileged:
            container["securityContext"] = {"privileged": True, "runAsUser": 0, "runAsNonRoot": False}
            spec["hostPID"] = True
        self.apply(namespace, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})

    def sigkill(self, namespace: str, pod: str) -> None:
        """SIGKILL the runtime process of a pod, from outside, as the kernel's out-of-memory killer does it."""
        program = (
            "import os, pathlib, signal\n"
            f"marker = b'KUBEAGENTS_INSTANCE={pod}\\0'\n"
            "killed = 0\n"
            "for process in pathlib.Path('/proc').glob('[0-9]*'):\n"
            "    try:\n"
            "        if marker in (process / 'environ').read_bytes():\n"
            "            os.kill(int(process.name), signal.SIGKILL)\n"
            "            killed += 1\n"
            "    except (FileNotFoundError, ProcessLookupError, PermissionError):\n"
            "        continue  # gone by itself, or the init process of a sandbox\n"
            "assert killed, 'no such process'\n"
        )
        name = f"killer-{pod[-5:]}"
        self.run_python(namespace, name, program, privileged=True)
        self.kubectl(
            "-n", namespace, "wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"
        )

    def stop_operator(self) -> None:
        """Scale the operator to nothing and wait until its pods are gone."""
        self.kubectl("-n", OPERATOR_NAMESPACE, "scale", "deployment/kubeagents-operator", "--replicas=0")
        eventually(
            lambda: not self.objects(OPERATOR_NAMESPACE, "pods", "app.kubernetes.io/component=operator"),
            what="operator pods gone",
            timeout=90,
        )

    def start_operator(self) -> None:
        self.kubectl("-n", OPERATOR_NAMESPACE, "scale", "deployment/kubeagents-operator", "--replicas=1")
        self.kubectl("-n", OPERATOR_NAMESPACE, "rollout", "status", "deployment/kubeagents-operator", "--timeout=120s")

    @contextmanager
    def api(self, path: str = "", *, timeout: float = 90) -> Iterator[httpx.Client]:
        """The API server, or what is below a path of it, as an administrator: cheaper than kubectl."""
        config = yaml.safe_load(self.kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        with tempfile.TemporaryDirectory() as folder:
            context = ssl.create_default_context(cadata=_inline(cluster, "certificate-authority").decode())
            certificate, key = Path(folder, "client.crt"), Path(folder, "client.key")
            certificate.write_bytes(_inline(user, "client-certificate"))
            key.write_bytes(_inline(user, "client-key"))
            context.load_cert_chain(certificate, key)
            with httpx.Client(base_url=cluster["server"] + path, verify=context, timeout=timeout) as client:
                yield client

    @contextmanager
    def central_agent(self, namespace: str, name: str) -> Iterator[httpx.Client]:
        """The HTTP API of a CentralAgent, through its Service, by way of the API server's proxy.

        With the key that the operator has made, if it has.
        """
        with self.api(f"/api/v1/namespaces/{namespace}/services/http:{name}-central:http/proxy") as client:
            if (key := self.admin_key(namespace, name)) is not None:
                client.headers["x-api-key"] = key
            yield client

    def admin_key(self, namespace: str, name: str) -> str | None:
        """The key that the operator has made for a CentralAgent."""
        found = self.kubectl("-n", namespace, "get", "secret", admin_secret(name), "--ignore-not-found", "-o", "json")
        return base64.b64decode(json.loads(found)["data"][ADMIN_KEY]).decode() if found else None


def _inline(section: dict[str, str], name: str) -> bytes:
    """A credential of a kubeconfig, whether written into it or named by path."""
    if f"{name}-data" in section:
        return base64.b64decode(section[f"{name}-data"])
    return Path(section[name]).read_bytes()
