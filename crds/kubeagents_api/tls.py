# SPDX-License-Identifier: Apache-2.0
"""How the ports of a CentralAgent are encrypted, and whose certificates clients may show."""

from typing import Literal

from kubeagents_api.model import ApiModel, CertificateAuthority, LocalRef, Rule

ClientAuth = Literal["Optional", "Required"]
"""Whether clients must show a certificate."""


class TlsSettings(ApiModel):
    """TLS of all ports of a CentralAgent: 1.2 or newer."""

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
