# SPDX-License-Identifier: Apache-2.0
"""Which server a command talks to.

    --server URL  >  $KUBEAGENTS_SERVER  >  a running `kubeagents dev`  >  the kubeconfig's context

The first that is there is taken, and it is an error if it does not work: falling through to another system would be
worse than failing. `--context` and `--kubeconfig` (and being called as `kubectl agents`) skip the local sessions;
`--namespace` and `--central` choose among the CentralAgents of a place.

A key is what the user gives. Without one, by way of the kubeconfig, it is that of the Secret that the operator makes
for a CentralAgent without `spec.access`, if the user may read it.
"""

from dataclasses import dataclass, field
from typing import Any

from agent_runtime.cli import session
from agent_runtime.cli.errors import EXIT_USAGE, CliError
from agent_runtime.cli.kubeconfig import Cluster, kubeconfig_path, load_cluster
from agent_runtime.cli.options import KEY_ENV, SERVER_ENV, Target, api_key, is_kubectl_plugin, server_from_environment
from kubeagents_api.labels import ADMIN_KEY, admin_secret

_OWN_KEY = f"Put the key into {KEY_ENV}, or into a file for --key-file"


@dataclass(frozen=True)
class Server:
    """Where a CentralAgent's HTTP API is, how it was found, and what to do if it does not answer."""

    url: str
    source: str
    advice: str
    connection: dict[str, Any] = field(default_factory=dict, repr=False)
    """Arguments for the HTTP client: TLS, and credentials for what is on the way."""
    key: str | None = field(default=None, repr=False)
    """API key for the CentralAgent."""
    key_advice: str = ""
    """What to do if it wants another key, or one at all."""

    def describe(self) -> str:
        """The server, for messages."""
        return f"{self.url} (from {self.source})"


def find_server(target: Target, *, needs_key: bool = True) -> Server:
    """The CentralAgent that a command talks to. Raises CliError that says what was tried.

    Without `needs_key`, what the command asks for needs none, so none is looked for in the cluster.
    """
    key = api_key(target)
    if target.server is not None:
        return _given(target.server, "--server", key, target)
    if (url := server_from_environment()) is not None and not target.names_a_cluster:
        return _given(url, SERVER_ENV, key, target)
    if target.shows_certificates:
        raise CliError(
            f"--ca-file, --cert-file and --cert-key-file are for a server given by --server or {SERVER_ENV}: by way of "
            "the kubeconfig, its own certificates are used",
            exit_code=EXIT_USAGE,
        )
    tried = [f"neither --server nor {SERVER_ENV} is set"]
    if not target.names_a_cluster and not is_kubectl_plugin():
        local = _in_sessions(target, tried, key)
        if local is not None:
            return local
    cluster = find_cluster(target)
    if cluster is None:
        tried.append("there is no kubeconfig")
        raise CliError(
            f"found no server: {'; '.join(tried)}.\nStart one with `kubeagents dev examples/01-quickstart`, or say "
            "where it is with --server URL or a kubeconfig"
        )
    return _in_cluster(target, cluster, key, needs_key=needs_key)


def find_cluster(target: Target) -> Cluster | None:
    """The cluster of the kubeconfig; None if there is no kubeconfig. Raises CliError if it cannot be used."""
    path = kubeconfig_path(target.kubeconfig)
    return None if path is None else load_cluster(path, context=target.context)


def _given(url: str, source: str, key: str | None, target: Target) -> Server:
    if not url.startswith(("http://", "https://")):
        raise CliError(f"{source} {url!r} is not a URL: write for example http://127.0.0.1:8080")
    connection: dict[str, Any] = {}
    if target.shows_certificates:
        if not url.startswith("https://"):
            raise CliError(f"{source} {url!r} is not encrypted, so certificates are of no use", exit_code=EXIT_USAGE)
        from agent_runtime.client.endpoints import EndpointError, Trust

        try:
            connection = {"verify": Trust(target.ca_file, target.cert_file, target.cert_key_file).context()}
        except EndpointError as error:
            raise CliError(str(error), exit_code=EXIT_USAGE) from error
    return Server(
        url=url,
        source=source,
        advice="Check that a CentralAgent listens at this URL.",
        connection=connection,
        key=key,
        key_advice=f"{_OWN_KEY}. If the CentralAgent NAME has no spec.access, its key is in a Secret:\n"
        f"  kubectl get secret {admin_secret('NAME')} -o jsonpath='{{.data.{ADMIN_KEY}}}' | base64 -d",
    )


def _in_sessions(target: Target, tried: list[str], key: str | None) -> Server | None:
    sessions = session.running_sessions()
    found = [
        (running, central)
        for running in sessions
        for central in running.centrals
        if target.namespace in (None, central.namespace) and target.central in (None, central.name)
    ]
    if not found:
        tried.append(
            "the running `kubeagents dev` has no such CentralAgent" if sessions else "no `kubeagents dev` runs"
        )
        return None
    if len(found) > 1:
        listed = "\n".join(f"  {c.namespace}/{c.name}  --server {c.url}  (pid {s.pid})" for s, c in found)
        raise CliError(
            f"several local CentralAgents run; choose one with --central, --namespace or --server:\n{listed}"
        )
    running, central = found[0]
    return Server(
        url=central.url,
        source=f"the running `kubeagents dev`, pid {running.pid}",
        advice="It may still be starting or already stopping: look at its terminal.",
        key=key,
    )


def _in_cluster(target: Target, cluster: Cluster, key: str | None, *, needs_key: bool) -> Server:
    namespace = target.namespace or cluster.namespace
    centrals = {central.name: central for central in cluster.central_agents(namespace)}
    names = list(centrals)
    if target.central is not None:
        if target.central not in names:
            raise CliError(
                f'there is no CentralAgent "{target.central}" in namespace "{namespace}" of the context '
                f'"{cluster.context}"' + (f"; there is: {', '.join(names)}" if names else "")
            )
        names = [target.central]
    if not names:
        raise CliError(
            f'there is no CentralAgent in namespace "{namespace}" of the context "{cluster.context}": '
            "apply one, or choose another namespace with -n"
        )
    if len(names) > 1:
        raise CliError(
            f'namespace "{namespace}" has several CentralAgents ({", ".join(names)}): choose one with --central NAME'
        )
    key_advice = _OWN_KEY
    if key is None and needs_key and not centrals[names[0]].names_callers:
        key = cluster.admin_key(namespace, names[0])
        key_advice = (
            f'The key is that of Secret "{admin_secret(names[0])}". If it was changed just now, the pods have it '
            "within a minute"
        )
    return Server(
        url=centrals[names[0]].url,
        source=f'context "{cluster.context}", CentralAgent {namespace}/{names[0]}',
        advice=f"See `kubectl describe centralagent {names[0]} -n {namespace}`; the user of the kubeconfig needs the "
        "right to get and create services/proxy there.",
        connection=cluster.connection,
        key=key,
        key_advice=key_advice,
    )
