# SPDX-License-Identifier: Apache-2.0
"""The node's network: one bridge, and everything that kube-proxy and CNI leave behind, undone."""

import contextlib
import json
import re
import subprocess
from pathlib import Path

BRIDGE = "kubeagents0"
NODE_ADDRESS = "10.244.0.1"
POD_NETWORK = "10.244.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"

CNI = {
    "cniVersion": "1.0.0",
    "name": "kubeagents",
    "plugins": [
        {
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/16", "gateway": NODE_ADDRESS}]],
                     "routes": [{"dst": "0.0.0.0/0"}]},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}  # fmt: skip


def up(cni_folder: Path, ipam_folder: Path) -> None:
    """Make the bridge with the node's address on it, and the CNI configuration."""
    if BRIDGE not in _run("ip", "-o", "link", "show", "type", "bridge"):
        _run("ip", "link", "add", BRIDGE, "type", "bridge")
        _run("ip", "addr", "add", f"{NODE_ADDRESS}/16", "dev", BRIDGE)
    _run("ip", "link", "set", BRIDGE, "up")
    for setting in ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"):
        path = Path("/proc/sys", setting)
        if path.exists():
            path.write_text("1")
    cni_folder.mkdir(parents=True, exist_ok=True)
    plugins = [dict(plugin) for plugin in CNI["plugins"]]  # type: ignore[call-overload]
    plugins[0]["ipam"] = {**plugins[0]["ipam"], "dataDir": str(ipam_folder)}
    (cni_folder / "10-kubeagents.conflist").write_text(json.dumps({**CNI, "plugins": plugins}, indent=1))


def down() -> None:
    """Remove the bridge, the pods' network namespaces, and the rules of kube-proxy and CNI."""
    for line in _run("ip", "netns", "list").splitlines():
        name = line.split()[0]
        if name.startswith("cni-"):
            _run("ip", "netns", "delete", name)
    with contextlib.suppress(subprocess.CalledProcessError):
        _run("ip", "link", "delete", BRIDGE)
    for family in ("iptables", "ip6tables"):
        undo = _undo(_run(f"{family}-save"))
        subprocess.run([f"{family}-restore", "--noflush"], input=undo, check=True, text=True, capture_output=True)


def _undo(saved: str) -> str:
    """What takes back our rules and chains, and nobody else's, from the output of iptables-save."""
    lines: list[str] = []
    for table in saved.split("COMMIT"):
        rules = [line for line in table.splitlines() if line.startswith("-A ")]
        masquerading = re.findall(rf'-A .*name: \\?"{CNI["name"]}\\?".* -j (CNI-\w+)', table)
        chains = {*re.findall(r"^:(KUBE-[\w-]+)", table, re.MULTILINE), *masquerading}
        if chains:
            lines.append(next(line for line in table.splitlines() if line.startswith("*")))
            jumps = [rule for rule in rules if chains & set(rule.split()) and rule.split()[1] not in chains]
            lines += [f"-D {rule.removeprefix('-A ')}" for rule in jumps]
            lines += [f"-F {chain}" for chain in sorted(chains)]
            lines += [f"-X {chain}" for chain in sorted(chains)]
            lines.append("COMMIT")
    return "\n".join(lines) + "\n"


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
