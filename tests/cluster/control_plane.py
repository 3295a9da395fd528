# SPDX-License-Identifier: Apache-2.0
"""A Kubernetes without containers: API server, controllers and scheduler are real, nodes and pods are played by kwok.

It starts in some seconds, needs no root, and several run side by side. What an operator sees of it is what it sees of
any cluster, until somebody looks into a pod.
"""

import random
import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from tests.cluster import binaries, components
from tests.cluster.binaries import Binaries
from tests.cluster.certificates import Authority
from tests.cluster.components import Places
from tests.cluster.errors import ClusterError, ClusterUnavailableError
from tests.cluster.processes import Daemons

STAGES = Path(__file__).parent / "kwok" / "stages.yaml"
FAKE = {"kwok.x-k8s.io/node": "fake"}
"""The annotation of the nodes that kwok plays."""

_PORTS = range(20000, 32000)
"""Below those that the system gives to clients: otherwise one of them may sit on the API server's port when it comes
back, or even be connected to itself."""


@dataclass(frozen=True)
class ControlPlane:
    """One cluster without nodes, unless it is given fake ones. A context manager that starts and stops it."""

    programs: Binaries
    kwok: Path
    places: Places
    manager_port: int
    scheduler_port: int
    audited: tuple[str, ...] = ()

    @classmethod
    def build(cls, state: Path, *, audited: Sequence[str] = ()) -> Self:
        """One with its state in the folder, on free ports; its programs are built if need be.

        What the users named by `audited` write is recorded in `audit_log`, one JSON object per line.
        Raises ClusterUnavailableError where they cannot be.
        """
        if shutil.which("setpriv") is None:
            raise ClusterUnavailableError("the control plane without nodes needs Linux (setpriv of util-linux)")
        programs, kwok = binaries.build(), binaries.build_kwok()
        api, etcd, peers, manager, scheduler = _free_ports(5)
        places = Places(state, Authority(state / "pki"), api, etcd, peers)
        return cls(programs, kwok, places, manager, scheduler, tuple(audited))

    @property
    def daemons(self) -> Daemons:
        return Daemons(self.places.state / "run")

    @property
    def kubeconfig(self) -> Path:
        """An administrator's."""
        return self.places.kubeconfig("admin")

    @property
    def audit_log(self) -> Path:
        return self.places.state / "audit.log"

    def administrator(self, name: str) -> Path:
        """The kubeconfig of another administrator, whose doings can be told from those of others."""
        self.places.authority.sign(name, f"/O=system:masters/CN={name}")
        return self.places.authority.kubeconfig(name, self.places.server)

    def start(self) -> None:
        """Start it, empty; ends when the API server is ready. Raises ClusterError."""
        self.places.state.mkdir(parents=True, exist_ok=True)
        components.sign(self.places, "10.96.0.1")
        self._start("etcd", *components.etcd(self.places))
        self.start_api_server()
        self._start(
            "kube-controller-manager",
            *components.controller_manager(
                self.places,
                "--bind-address=127.0.0.1",
                f"--secure-port={self.manager_port}",
                "--horizontal-pod-autoscaler-sync-period=1s",
            ),
        )
        self._start(
            "kube-scheduler",
            *components.scheduler(self.places, "--bind-address=127.0.0.1", f"--secure-port={self.scheduler_port}"),
        )

    def start_api_server(self) -> None:
        """Start the API server, for the first time or after `stop_api_server`, and wait until it is ready."""
        arguments = ["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
                     "--service-cluster-ip-range=10.96.0.0/16"]  # fmt: skip
        if self.audited:
            policy = self.places.state / "audit.yaml"
            policy.write_text(yaml.safe_dump(_audit_policy(self.audited)))
            arguments += [f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}"]
        self._start("kube-apiserver", *components.api_server(self.places, *arguments))
        self.daemons.wait_for(
            "the API server becomes ready",
            lambda: self.places.authority.answers(f"{self.places.server}/readyz"),
            daemon="kube-apiserver",
        )

    def stop_api_server(self) -> None:
        """Kill it: connections break, nothing is lost, as etcd goes on."""
        self.daemons.kill(["kube-apiserver"])

    def add_nodes(self, count: int) -> None:
        """Give it fake nodes, on which every pod is Ready as soon as it is scheduled; see `kwok/stages.yaml`."""
        if self.daemons.pid("kwok") is None:
            self.daemons.start(
                "kwok",
                [
                    self.kwok,
                    f"--kubeconfig={self.kubeconfig}",
                    f"--config={STAGES}",
                    "--manage-nodes-with-annotation-selector=" + ",".join(f"{k}={v}" for k, v in FAKE.items()),
                    # Without a Lease, the node controller takes nodes for dead when the machine is busy.
                    "--node-lease-duration-seconds=40",
                ],
                path=self.programs.path,
                mortal=True,
            )
        first = len(self.kubectl("get", "nodes", "-o", "name").split())
        nodes = [_node(f"fake-{number}") for number in range(first, first + count)]
        self.kubectl("create", "-f", "-", input=yaml.safe_dump_all(nodes))
        self.kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s")

    def kubectl(self, *arguments: str | Path, input: str | None = None) -> str:
        """Run kubectl as an administrator, and return what it prints. Raises ClusterError."""
        done = subprocess.run(
            [self.programs["kubectl"], f"--kubeconfig={self.kubeconfig}", *arguments],
            input=input,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            shown = " ".join(map(str, arguments))
            raise ClusterError(f"kubectl {shown} failed: {done.stderr.strip()}. Logs are in {self.daemons.folder}")
        return done.stdout

    def stop(self) -> None:
        """End everything at once and remove its state."""
        self.daemons.kill(self.daemons.names())
        shutil.rmtree(self.places.state, ignore_errors=True)

    def _start(self, name: str, *arguments: str | Path) -> None:
        self.daemons.start(name, [self.programs[name], *arguments], path=self.programs.path, mortal=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _audit_policy(users: Sequence[str]) -> dict[str, Any]:
    written = {"level": "Metadata", "users": list(users), "verbs": ["create", "update", "patch", "delete"]}
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "omitManagedFields": True,
        "rules": [written, {"level": "None"}],
    }


def _node(name: str) -> dict[str, Any]:
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "annotations": FAKE, "labels": labels},
        "spec": {},
    }


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise ClusterError(f"no {count} free ports from {_PORTS.start} to {_PORTS.stop}")
