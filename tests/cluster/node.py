# SPDX-License-Identifier: Apache-2.0
"""One machine as a whole Kubernetes cluster: control plane, container runtime and kubelet as plain processes."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.cluster import components, network
from tests.cluster.binaries import Binaries
from tests.cluster.certificates import Authority
from tests.cluster.components import Places
from tests.cluster.errors import ClusterError
from tests.cluster.images import PAUSE, pause_archive
from tests.cluster.processes import Daemons

STATE = Path("/var/lib/kubeagents/cluster")
"""Short, as paths of Unix sockets may not be long."""

API_PORT = 36443
ETCD_PORT = 32379
NODE = "local"

ORDER = (
    "etcd",
    "kube-apiserver",
    "containerd",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "coredns",
)
"""Daemons in the order in which they start; they stop the other way round."""

COREFILE = f"""\
.:53 {{
    bind {network.NODE_ADDRESS}
    errors
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {{kubeconfig}}
        ttl 1
    }}
    forward . /etc/resolv.conf
}}
"""

STORAGE_CLASS = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "local", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": "kubernetes.io/no-provisioner",
}

VOLUMES = 100
"""Volumes that wait for a claim; each is used once. `Node.provision` makes new ones."""


@dataclass(frozen=True)
class Node:
    """The cluster of this machine."""

    binaries: Binaries
    state: Path = STATE

    @property
    def daemons(self) -> Daemons:
        return Daemons(self.state / "run")

    @property
    def authority(self) -> Authority:
        return Authority(self.state / "pki")

    @property
    def kubeconfig(self) -> Path:
        return self.authority.folder / "admin.kubeconfig"

    @property
    def containerd_socket(self) -> Path:
        return self.state / "containerd.sock"

    def healthy(self) -> bool:
        """Whether every daemon runs, from these very binaries, and the API server is ready."""
        folder = str(self.binaries.folder)
        return all(self.daemons.runs_from(name, folder) for name in ORDER) and self._ready("readyz")

    def up(self) -> None:
        """Start everything, on an empty disk; ends when the node is Ready. Raises ClusterError."""
        self.down()
        print("Starting Kubernetes on this machine (about 15 s)", flush=True)
        self.state.mkdir(parents=True)
        self._sign()
        network.up(self.state / "cni", self.state / "ipam")
        self._start_control_plane()
        self._start_node()
        self._kubectl("wait", "--for=create", f"node/{NODE}", "--timeout=60s")
        self._kubectl("wait", "--for=condition=Ready", f"node/{NODE}", "--timeout=90s")
        self._kubectl("apply", "-f", "-", input=yaml.safe_dump(STORAGE_CLASS))
        self.provision()

    def provision(self) -> None:
        """Fill up the stock of volumes for claims of the default class, and throw the used ones away.

        The provisioner inside the controller manager is no help: its folders cannot be written by non-root pods.
        """
        found = json.loads(self._kubectl("get", "persistentvolumes", "-o", "json"))["items"]
        used = [v["metadata"]["name"] for v in found if v["status"]["phase"] in ("Released", "Failed")]
        if used:
            self._kubectl("delete", "persistentvolumes", *used)
        for name in used:
            shutil.rmtree(self.state / "volumes" / name)
        missing = VOLUMES - (len(found) - len(used))
        if missing > 0:
            self._kubectl("create", "-f", "-", input=yaml.safe_dump_all(self._volume() for _ in range(missing)))

    def _volume(self) -> dict[str, object]:
        name = f"volume-{uuid.uuid4().hex[:10]}"
        folder = self.state / "volumes" / name
        folder.mkdir(parents=True)
        folder.chmod(0o777)  # a pod's fsGroup does not reach the folders of the host
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "10Gi"},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "local",
                "hostPath": {"path": str(folder), "type": "Directory"},
            },
        }

    def down(self) -> None:
        """Stop everything and leave nothing behind; also what a crash has left."""
        if not self.state.exists():
            return
        # containerd goes before the containers: it would clean up after them, and we would get in each other's way.
        self.daemons.stop(list(reversed(ORDER)))
        self._kill_containers()
        _unmount_below(self.state)
        network.down()
        _remove_cgroups()
        _remove_traces(self.state)
        shutil.rmtree(self.state)

    def ctr(self, *arguments: str | Path) -> str:
        """Run containerd's own client, in the namespace of the kubelet."""
        command = [self.binaries["ctr"], "-a", self.containerd_socket, "-n", "k8s.io", *arguments]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode != 0:
            raise ClusterError(f"ctr {' '.join(map(str, arguments))} failed: {done.stderr.strip()}")
        return done.stdout

    @property
    def _places(self) -> Places:
        return Places(self.state, self.authority, API_PORT, ETCD_PORT, ETCD_PORT + 1)

    def _sign(self) -> None:
        authority = self.authority
        components.sign(self._places, network.API_SERVICE_ADDRESS, network.NODE_ADDRESS)
        authority.sign("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client")
        authority.sign("kube-proxy", "/CN=system:kube-proxy")
        authority.sign("kubelet", f"/O=system:nodes/CN=system:node:{NODE}", f"IP:{network.NODE_ADDRESS}", f"DNS:{NODE}")
        for name in ("kubelet", "kube-proxy"):
            authority.kubeconfig(name, self._places.server)

    def _start(self, name: str, *arguments: str | Path) -> None:
        self.daemons.start(name, [self.binaries[name], *arguments], path=self.binaries.path)

    def _start_control_plane(self) -> None:
        pki, places = self.authority, self._places
        self._start("etcd", *components.etcd(places))
        self._start(
            "kube-apiserver",
            *components.api_server(
                places,
                f"--advertise-address={network.NODE_ADDRESS}",
                f"--service-cluster-ip-range={network.SERVICE_NETWORK}",
                f"--kubelet-client-certificate={pki.certificate('kubelet-client')}",
                f"--kubelet-client-key={pki.key('kubelet-client')}",
                "--kubelet-preferred-address-types=InternalIP",
            ),
        )
        self.daemons.wait_for("the API server becomes ready", lambda: self._ready("readyz"), daemon="kube-apiserver")
        self._start("kube-controller-manager", *components.controller_manager(places))
        self._start("kube-scheduler", *components.scheduler(places))

    def _start_node(self) -> None:
        self._start_containerd()
        kubelet = self.state / "kubelet.yaml"
        kubelet.write_text(yaml.safe_dump(self._kubelet_config()))
        self._start(
            "kubelet",
            f"--config={kubelet}",
            f"--kubeconfig={self.authority.folder / 'kubelet.kubeconfig'}",
            f"--root-dir={self.state / 'kubelet'}",
            f"--hostname-override={NODE}",
            f"--node-ip={network.NODE_ADDRESS}",
        )
        self._start(
            "kube-proxy",
            f"--kubeconfig={self.authority.folder / 'kube-proxy.kubeconfig'}",
            "--proxy-mode=iptables",
            "--conntrack-max-per-core=0",
            f"--cluster-cidr={network.POD_NETWORK}",
            f"--hostname-override={NODE}",
        )
        corefile = self.state / "Corefile"
        corefile.write_text(COREFILE.replace("{kubeconfig}", str(self.kubeconfig)))
        self._start("coredns", f"-conf={corefile}")
        self.daemons.wait_for("CoreDNS answers", _dns_answers, daemon="coredns")

    def _start_containerd(self) -> None:
        config = self.state / "containerd.toml"
        runc = "plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc"
        config.write_text(
            f"""\
version = 3
root = '{self.state}/containerd'
state = '{self.state}/containerd-run'
[grpc]
address = '{self.containerd_socket}'
[plugins.'io.containerd.cri.v1.images']
snapshotter = 'overlayfs'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{PAUSE}'
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['/usr/lib/cni']
conf_dir = '{self.state}/cni'
[{runc}]
runtime_type = 'io.containerd.runc.v2'
[{runc}.options]
SystemdCgroup = false
"""
        )
        self._start("containerd", f"--config={config}")
        self.daemons.wait_for("containerd answers", self._containerd_answers, daemon="containerd")
        archive = self.state / "pause.tar"
        pause_archive(self.binaries["pause"], archive)
        self.ctr("images", "import", archive)

    def _containerd_answers(self) -> bool:
        try:
            self.ctr("version")
        except ClusterError:
            return False
        return True

    def _kubelet_config(self) -> dict[str, object]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "x509": {"clientCAFile": str(self.authority.certificate("ca"))},
            },
            "tlsCertFile": str(self.authority.certificate("kubelet")),
            "tlsPrivateKeyFile": str(self.authority.key("kubelet")),
            "containerRuntimeEndpoint": f"unix://{self.containerd_socket}",
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": False,
            "failSwapOn": False,
            "cgroupsPerQOS": True,
            "enforceNodeAllocatable": [],
            "clusterDNS": [network.NODE_ADDRESS],
            "clusterDomain": "cluster.local",
            "resolvConf": "/etc/resolv.conf",
            "podLogsDir": str(self.state / "pod-logs"),
            "maxPods": 250,
            "registryPullQPS": 0,
            # Disks of test machines are full of other things; nothing here is worth evicting pods for.
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "crashLoopBackOff": {"maxContainerRestartPeriod": "10s"},
        }

    def _kill_containers(self) -> None:
        """End all pods at once: what is in the kubelet's cgroups, and the shims, which containerd started."""
        for group in _pod_groups():
            for folder, _, _ in os.walk(group):
                for pid in Path(folder, "cgroup.procs").read_text().split():
                    _kill(int(pid))
        marker = str(self.containerd_socket).encode()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue  # gone by itself
            if b"containerd-shim-runc-v2" in command and marker in command:
                _kill(int(process.name))

    def _ready(self, path: str) -> bool:
        return self.authority.answers(f"{self._places.server}/{path}")

    def _kubectl(self, *arguments: str, input: str | None = None) -> str:
        done = subprocess.run(
            [str(self.binaries["kubectl"]), f"--kubeconfig={self.kubeconfig}", *arguments],
            input=input,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise ClusterError(
                f"kubectl {' '.join(arguments)} failed: {done.stderr.strip()}. Logs are in {self.daemons.folder}"
            )
        return done.stdout


def _dns_answers() -> bool:
    try:
        socket.create_connection((network.NODE_ADDRESS, 53), timeout=1).close()
    except OSError:
        return False
    return True


def _pod_groups() -> list[Path]:
    """The groups under which the kubelet keeps all pods: one for each controller, or one alone with cgroup v2."""
    return [path for pattern in ("kubepods", "*/kubepods") for path in Path("/sys/fs/cgroup").glob(pattern)]


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _unmount_below(folder: Path) -> None:
    """Unmount everything below a folder; what dying processes unmount meanwhile is fine, too."""
    deadline = time.monotonic() + 10
    while mounts := _mounts_below(folder):
        refused = [
            done.stderr.strip()
            for mount in reversed(mounts)
            if (done := subprocess.run(["umount", "--lazy", mount], capture_output=True, text=True)).returncode != 0
        ]
        if refused and time.monotonic() > deadline:
            raise ClusterError(f"cannot unmount what is below {folder}: {'; '.join(refused)}")


def _mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [mount for line in lines if (mount := line.split()[1]).startswith(f"{folder}/")]


def _remove_cgroups() -> None:
    """The groups that the kubelet made; killed processes may take a moment to leave them."""
    deadline = time.monotonic() + 10
    for group in _pod_groups():
        for folder, _, _ in os.walk(group, topdown=False):
            while True:
                try:
                    os.rmdir(folder)
                    break
                except OSError as error:
                    if time.monotonic() > deadline:
                        raise ClusterError(f"cannot remove the cgroup {folder}: {error}") from error
                    time.sleep(0.05)


def _remove_traces(state: Path) -> None:
    """What kubelet and CNI write elsewhere, at places that cannot be chosen."""
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and str(link.readlink()).startswith(f"{state}/"):
            link.unlink()
    for result in Path("/var/lib/cni/results").glob(f"{network.CNI['name']}-*"):
        result.unlink()
