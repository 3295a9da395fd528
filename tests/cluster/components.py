# SPDX-License-Identifier: Apache-2.0
"""The command lines of the control plane's daemons, for a cluster with a node and for one without."""

from dataclasses import dataclass
from pathlib import Path

from tests.cluster.certificates import Authority

Command = list[str | Path]


@dataclass(frozen=True)
class Places:
    """Where the daemons keep their data, and where they listen."""

    state: Path
    authority: Authority
    api_port: int
    etcd_port: int
    etcd_peer_port: int

    @property
    def server(self) -> str:
        """The API server's URL on this machine."""
        return f"https://127.0.0.1:{self.api_port}"

    @property
    def etcd_url(self) -> str:
        return f"http://127.0.0.1:{self.etcd_port}"

    def kubeconfig(self, name: str) -> Path:
        return self.authority.folder / f"{name}.kubeconfig"


def sign(places: Places, *addresses: str) -> None:
    """The authority, and what the control plane and an administrator need of it. `addresses` are the API server's IPs
    besides that of the loopback."""
    authority = places.authority
    authority.create()
    authority.sign(
        "apiserver",
        "/CN=kube-apiserver",
        *(f"DNS:kubernetes{suffix}" for suffix in ("", ".default", ".default.svc", ".default.svc.cluster.local")),
        *(f"IP:{ip}" for ip in ("127.0.0.1", *addresses)),
    )
    for name, subject in (
        ("admin", "/O=system:masters/CN=admin"),
        ("kube-controller-manager", "/CN=system:kube-controller-manager"),
        ("kube-scheduler", "/CN=system:kube-scheduler"),
    ):
        authority.sign(name, subject)
        authority.kubeconfig(name, places.server)


def etcd(places: Places) -> Command:
    peers = f"http://127.0.0.1:{places.etcd_peer_port}"
    return [
        f"--data-dir={places.state / 'etcd'}",
        "--unsafe-no-fsync",  # nobody misses this cluster's data after a power cut
        f"--listen-client-urls={places.etcd_url}",
        f"--advertise-client-urls={places.etcd_url}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
        "--log-level=warn",
    ]


def api_server(places: Places, *more: str) -> Command:
    """`more` are arguments that depend on whether there are nodes."""
    pki = places.authority
    return [
        f"--etcd-servers={places.etcd_url}",
        f"--secure-port={places.api_port}",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged",
        f"--client-ca-file={pki.certificate('ca')}",
        f"--tls-cert-file={pki.certificate('apiserver')}",
        f"--tls-private-key-file={pki.key('apiserver')}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki.folder / 'service-accounts.pub'}",
        f"--service-account-signing-key-file={pki.key('service-accounts')}",
        "--profiling=false",
        *more,
    ]


def controller_manager(places: Places, *more: str) -> Command:
    pki = places.authority
    return [
        "--controllers=*,-nodeipam",
        f"--kubeconfig={places.kubeconfig('kube-controller-manager')}",
        f"--root-ca-file={pki.certificate('ca')}",
        f"--service-account-private-key-file={pki.key('service-accounts')}",
        "--use-service-account-credentials",
        *_BUSY,
        *more,
    ]


def scheduler(places: Places, *more: str) -> Command:
    return [f"--kubeconfig={places.kubeconfig('kube-scheduler')}", *_BUSY, *more]


_BUSY = ("--leader-elect=false", "--kube-api-qps=500", "--kube-api-burst=1000")
"""There is one of each, and a test's cluster has more to do in a minute than others on a day."""
