# SPDX-License-Identifier: Apache-2.0
"""The way into a cluster: address and credentials from the kubeconfig, requests by plain HTTP.

The Kubernetes client is used for what only it can do, reading a kubeconfig with all its kinds of credentials.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from agent_runtime.cli.errors import CliError

if TYPE_CHECKING:
    import httpx

_API = "/apis/kubeagents.dev/v1alpha1"
_SECONDS = 15.0


@dataclass(frozen=True)
class Cluster:
    """A Kubernetes API server and how to talk to it."""

    context: str
    host: str
    namespace: str
    """The context's namespace."""
    connection: dict[str, Any] = field(repr=False)
    """Arguments for an HTTP client: TLS and credentials."""

    def central_agents(self, namespace: str) -> dict[str, str]:
        """The CentralAgents in a namespace: name to URL of the HTTP API, through the API server's service proxy.

        Raises CliError.
        """
        listed = self.get(f"{_API}/namespaces/{quote(namespace, safe='')}/centralagents")
        services = f"{self.host}/api/v1/namespaces/{namespace}/services"
        found = {
            item["metadata"]["name"]: "https" if item.get("spec", {}).get("tls") else "http" for item in listed["items"]
        }
        return {name: f"{services}/{found[name]}:{name}-central:http/proxy" for name in sorted(found)}

    def get(self, path: str) -> dict[str, Any]:
        """A JSON document of the API server. Raises CliError."""
        import httpx

        try:
            with httpx.Client(base_url=self.host, timeout=_SECONDS, **self.connection) as client:
                response = client.get(path)
        except httpx.HTTPError as error:
            raise CliError(self.unreachable(error)) from error
        if response.is_success:
            document: dict[str, Any] = response.json()
            return document
        if response.status_code == 404 and path.startswith(_API):
            raise CliError(
                f'the cluster of the context "{self.context}" does not know Kubeagents: install its chart there, '
                "choose another --context, or say --server URL"
            )
        raise CliError(f'the cluster of the context "{self.context}" answered {refusal(response)}')

    def unreachable(self, error: Exception) -> str:
        """What to tell a user when the API server does not answer."""
        return (
            f'cannot reach the cluster of the context "{self.context}" at {self.host}: {error or type(error).__name__}'
        )


def refusal(response: "httpx.Response") -> str:
    """What the API server said, with its status code."""
    try:
        return f"{response.status_code}: {response.json()['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{response.status_code}"


def kubeconfig_path(explicit: Path | None) -> str | None:
    """The kubeconfig that would be read; None if there is none. KUBECONFIG may list several files."""
    if explicit is not None:
        return str(explicit)
    value = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    return value if any(Path(part).is_file() for part in value.split(os.pathsep)) else None


def load_cluster(path: str, *, context: str | None) -> Cluster:
    """Address and credentials of a context, by default the current one. Raises CliError."""
    import yaml
    from kubernetes import config
    from kubernetes.client import Configuration

    reader: Any = config  # it ships no types

    configuration = Configuration()
    try:
        contexts, current = reader.list_kube_config_contexts(config_file=path)
        reader.load_kube_config(
            config_file=path, context=context, client_configuration=configuration, persist_config=False
        )
    except reader.ConfigException as error:
        raise CliError(f"the kubeconfig {path} cannot be used: {error}") from error
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError) as error:
        raise CliError(f"the kubeconfig {path} cannot be read: {error}") from error
    chosen = next((c for c in contexts if c["name"] == context), None) if context else current
    details = chosen["context"] if chosen else {}
    return Cluster(
        context=context or current["name"],
        host=str(configuration.host).rstrip("/"),
        namespace=details.get("namespace") or "default",
        connection=_connection(configuration),
    )


def _connection(configuration: Any) -> dict[str, Any]:
    import ssl

    arguments: dict[str, Any] = {}
    if configuration.verify_ssl:
        tls = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    else:
        tls = ssl.create_default_context()
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    if configuration.cert_file:
        tls.load_cert_chain(configuration.cert_file, configuration.key_file)
    arguments["verify"] = tls
    token = configuration.get_api_key_with_prefix("BearerToken")
    if token:
        arguments["headers"] = {"Authorization": token}
    if configuration.proxy:
        arguments["proxy"] = configuration.proxy
    return arguments
