# SPDX-License-Identifier: Apache-2.0
"""The way into a cluster: address and credentials from the kubeconfig, requests by plain HTTP.

The Kubernetes client is used for what only it can do, reading a kubeconfig with all its kinds of credentials.
"""

import base64
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from agent_runtime.cli.errors import CliError
from agent_runtime.cli.options import KEY_ENV, program_name
from kubeagents_api.labels import ADMIN_KEY, admin_secret

if TYPE_CHECKING:
    import httpx

_API = "/apis/kubeagents.dev/v1alpha1"
_SECONDS = 15.0


@dataclass(frozen=True)
class CentralAgent:
    """What its manifest says."""

    name: str
    url: str
    """Of the HTTP API, through the API server's service proxy."""
    names_callers: bool
    """Whether it says who may use it (`spec.access`). Otherwise the operator makes a key for it."""


@dataclass(frozen=True)
class Cluster:
    """A Kubernetes API server and how to talk to it."""

    context: str
    host: str
    namespace: str
    """The context's namespace."""
    connection: dict[str, Any] = field(repr=False)
    """Arguments for an HTTP client: TLS and credentials."""

    def central_agents(self, namespace: str) -> list[CentralAgent]:
        """The CentralAgents of a namespace, by name. Raises CliError."""
        listed = self.get(f"{_API}/namespaces/{quote(namespace, safe='')}/centralagents")
        services = f"{self.host}/api/v1/namespaces/{namespace}/services"
        found = []
        for item in listed["items"]:
            name, spec = item["metadata"]["name"], item["spec"]
            url = f"{services}/{'https' if spec.get('tls') else 'http'}:{name}-central:http/proxy"
            found.append(CentralAgent(name, url, names_callers="access" in spec))
        return sorted(found, key=lambda central: central.name)

    def admin_key(self, namespace: str, central: str) -> str | None:
        """The key that the operator has made for a CentralAgent; None if it has not. Raises CliError."""
        name = admin_secret(central)
        response = self._request(f"/api/v1/namespaces/{quote(namespace, safe='')}/secrets/{name}")
        if response.status_code == 404:
            return None
        if not response.is_success:
            raise CliError(
                f'CentralAgent "{central}" asks for a key, and Secret "{name}" in namespace "{namespace}", which has '
                f'one, cannot be read: the cluster of the context "{self.context}" answered {refusal(response)}\n'
                f"With a key of your own ({KEY_ENV} or --key-file) nobody needs it. Who may read the Secret makes keys "
                f"for others: {program_name()} keys create NAME --role developer"
            )
        try:
            return base64.b64decode(response.json()["data"][ADMIN_KEY]).decode().strip()
        except (ValueError, KeyError, TypeError):
            raise CliError(
                f'Secret "{name}" in namespace "{namespace}" has no entry "{ADMIN_KEY}" with a key: delete the Secret, '
                "the operator makes another one at once"
            ) from None

    def get(self, path: str) -> dict[str, Any]:
        """A JSON document of the API server. Raises CliError."""
        response = self._request(path)
        if response.is_success:
            document: dict[str, Any] = response.json()
            return document
        if response.status_code == 404 and path.startswith(_API):
            raise CliError(
                f'the cluster of the context "{self.context}" does not know Kubeagents: install its chart there, '
                "choose another --context, or say --server URL"
            )
        raise CliError(f'the cluster of the context "{self.context}" answered {refusal(response)}')

    def _request(self, path: str) -> "httpx.Response":
        import httpx

        try:
            with httpx.Client(base_url=self.host, timeout=_SECONDS, **self.connection) as client:
                return client.get(path)
        except httpx.HTTPError as error:
            raise CliError(self.unreachable(error)) from error

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
