# SPDX-License-Identifier: Apache-2.0
"""The programs of the cluster, built from pinned Go modules and kept outside the checkout."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError, ClusterUnavailableError

HERE = Path(__file__).parent
KUBERNETES_VERSION = "v1.36.3"

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
"""Names of the one binary made from `kubernetes/main.go`."""

INSTALLED = (
    ("github.com/containerd/containerd/v2/cmd/containerd", "v2.4.2"),
    ("github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", "v2.4.2"),
    ("github.com/containerd/containerd/v2/cmd/ctr", "v2.4.2"),
    ("helm.sh/helm/v4/cmd/helm", "v4.3.1"),
    ("github.com/coredns/coredns", "v1.15.0"),
)
"""Main packages that build by themselves, each with the dependencies that its own module pins."""

KWOK = ("sigs.k8s.io/kwok/cmd/kwok", "v0.8.0")
"""Fake nodes. Built apart from the others, as nobody who runs containers needs it, nor waits for it."""

PACKAGES = {
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "ip": "iproute2",
    "conntrack": "conntrack",
    "socat": "socat",
    "openssl": "openssl",
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
}
"""Command or file -> the Debian package that brings it."""


@dataclass(frozen=True)
class Binaries:
    """A folder with all programs."""

    folder: Path

    def __getitem__(self, name: str) -> Path:
        return self.folder / name

    @property
    def path(self) -> str:
        """A PATH on which daemons find one another and the system's tools."""
        return f"{self.folder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def cache_folder() -> Path:
    """Where everything lives that is worth keeping between runs and checkouts."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "kubeagents"


def cache_key() -> str:
    """Changes whenever the programs would."""
    digest = hashlib.sha256()
    for path in sorted((HERE / "kubernetes").rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(HERE)}\0".encode() + path.read_bytes())
    digest.update(repr((KUBERNETES_VERSION, INSTALLED)).encode())
    return digest.hexdigest()[:16]


def build() -> Binaries:
    """The programs, built if need be: about 10 minutes on two cores, once for each set of versions."""
    folder = cache_folder() / "cluster" / cache_key()
    with lock(folder):
        if (folder / ".complete").exists():
            return Binaries(folder)
        if shutil.which("go") is None:
            raise ClusterUnavailableError("Go is not installed: it builds Kubernetes here. Install Go 1.26 or newer")
        print("Building Kubernetes, containerd, Helm and CoreDNS from Go modules (once, about 10 minutes)", flush=True)
        stamp = f"-X k8s.io/component-base/version.gitVersion={KUBERNETES_VERSION}"
        stamp += f" -X k8s.io/client-go/pkg/version.gitVersion={KUBERNETES_VERSION}"
        module = HERE / "kubernetes"
        _go("kubernetes", module, "build", "-ldflags", f"-s -w {stamp}", "-o", folder / "kubernetes", ".")
        _go("pause", module, "build", "-ldflags", "-s -w", "-o", folder / "pause", "./pause")
        for package, version in INSTALLED:
            name = package.rpartition("/")[2]
            _go(name, folder, "install", "-ldflags", "-s -w", f"{package}@{version}", GOBIN=str(folder))
        for name in COMPONENTS:
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to("kubernetes")
        (folder / ".complete").touch()
    return Binaries(folder)


def build_kwok() -> Path:
    """The program that plays nodes and their pods, built if need be: a minute on two cores, once."""
    package, version = KWOK
    folder = cache_folder() / "kwok" / version
    with lock(folder):
        if not (folder / ".complete").exists():
            if shutil.which("go") is None:
                raise ClusterUnavailableError("Go is not installed: it builds kwok here. Install Go 1.26 or newer")
            print("Building kwok from its Go module (once, about a minute)", flush=True)
            _go("kwok", folder, "install", "-ldflags", "-s -w", f"{package}@{version}", GOBIN=str(folder))
            (folder / ".complete").touch()
    return folder / "kwok"


def install_packages() -> None:
    """Install the Debian packages that are missing. Raises ClusterUnavailableError where that cannot be done."""
    missing = [package for command, package in PACKAGES.items() if shutil.which(command) is None]
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise ClusterUnavailableError(f"missing programs (Debian packages: {' '.join(missing)}), and no apt-get here")
    print(f"Installing Debian packages: {' '.join(missing)} (about a minute)", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *missing]):
        done = subprocess.run(["apt-get", *command], env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise ClusterError(f"apt-get {' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def _go(name: str, folder: Path, *arguments: str | Path, **environment: str) -> None:
    verb, *rest = [str(argument) for argument in arguments]
    begun = time.monotonic()
    print(f"  {name} …", end="", flush=True)
    done = subprocess.run(
        ["go", verb, "-trimpath", *rest],
        cwd=folder,
        env={**os.environ, "CGO_ENABLED": "0", **environment},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise ClusterError(f"building {name} failed:\n{done.stderr[-3000:]}")
    print(f" {time.monotonic() - begun:.0f} s", flush=True)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """One at a time, of all processes that ask for this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for another run to let go of {folder}", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
