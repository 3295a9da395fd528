# SPDX-License-Identifier: Apache-2.0
"""TLS of the port for gRPC, from the files of the process.

gRPC's server knows to require a certificate of clients, or to ask for none.
"""

from typing import Any

import grpc

from agent_runtime.security import ClientCertificate, Material, Tls, parse_certificate


def server_credentials(tls: Tls) -> grpc.ServerCredentials:
    """For a server; each handshake uses the newest files."""
    given = tls.material

    def newest() -> grpc.ServerCertificateConfiguration | None:
        """Called in threads of gRPC, before each handshake; None if nothing has changed."""
        nonlocal given
        if (material := tls.material) is given:
            return None
        given = material
        return _configuration(material)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(given),
        newest,  # type: ignore[arg-type]  # its types do not know the None of its documentation
        require_client_authentication=tls.client_certificate_required,
    )


def client_certificate(context: Any) -> ClientCertificate | None:
    """What the client of a call has shown, and the handshake has verified."""
    for pem in context.auth_context().get("x509_pem_cert", ()):
        return parse_certificate(pem.decode())
    return None


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    pair = (material.private_key, material.certificate)
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=material.client_ca)
