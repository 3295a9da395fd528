# SPDX-License-Identifier: Apache-2.0
"""How the ports of a CentralAgent, or of an Agent, are encrypted, and whose certificates clients may show."""

from typing import Literal

from kubeagents_api.access import AccessSettings
from kubeagents_api.model import ApiModel, CertificateAuthority, LocalRef, Rule

ClientAuth = Literal["Optional", "Required"]
"""Whether clients must show a certificate."""


class TlsSettings(ApiModel):
    """TLS of all ports: 1.2 or newer."""

    secret_ref: LocalRef
    """The Secret with the certificate, of type `kubernetes.io/tls`: `tls.crt` and `tls.key`. A change of it needs no
    restart: connections that are made after it has reached the pods, usually within a minute, see the new one."""
    client_ca: CertificateAuthority | None = None
    """Who has signed the certificates that clients may show."""
    client_auth: ClientAuth = "Optional"
    """Whether clients must show one: with `Required`, only the probes and the metrics are open to who does not. gRPC
    knows no `Optional` certificates: there, `Optional` means that none is asked for."""

    rules = (
        Rule(
            cel="self.clientAuth != 'Required' || has(self.clientCa)",
            message="tls.clientAuth Required needs tls.clientCa: say who has signed the certificates of clients",
            holds=lambda t: t.client_auth != "Required" or t.client_ca is not None,
        ),
    )


CERTIFICATES_NEED_CA = Rule(
    cel="!has(self.access) || !has(self.access.principals) || "
    "!self.access.principals.exists(p, has(p.certificates)) || (has(self.tls) && has(self.tls.clientCa))",
    message="certificates of access.principals need tls.clientCa: say who has signed them",
    holds=lambda s: (
        s.access is None
        or all(p.certificates is None for p in s.access.principals)
        or (s.tls is not None and s.tls.client_ca is not None)
    ),
)
"""Of specs with `access` and `tls`."""


def tls_secrets(access: AccessSettings | None, tls: TlsSettings | None) -> dict[str, str]:
    """The Secrets with certificates, by where `runtime_config` looks for them."""
    issuers = access.issuers if access is not None else []
    files = {f"issuer-ca/{one.name}": one.ca.secret_ref.name for one in issuers if one.ca is not None}
    if tls is not None:
        files["server"] = tls.secret_ref.name
        if tls.client_ca is not None:
            files["client-ca"] = tls.client_ca.secret_ref.name
    return files
