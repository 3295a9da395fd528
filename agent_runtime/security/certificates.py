# SPDX-License-Identifier: Apache-2.0
"""Client certificates: who shows one that an authority of clients has signed is who it says.

The signature has been verified by the handshake. What is left is whether it is still valid, as connections may live for
long, and whose it is.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from cryptography import x509
from cryptography.x509.oid import NameOID

from agent_runtime.security.caller import Caller, ClientCertificate
from kubeagents_api.access import Principal
from kubeagents_api.errors import UnauthenticatedError


@lru_cache(maxsize=1024)
def parse_certificate(pem: str) -> ClientCertificate:
    """The certificate in a PEM text. Raises ValueError."""
    found = x509.load_pem_x509_certificate(pem.encode())
    common = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    return ClientCertificate(
        serial=f"{found.serial_number:x}",
        common_names=tuple(str(one.value) for one in common),
        dns_names=tuple(name.lower() for name in names.get_values_for_type(x509.DNSName)),
        uris=tuple(names.get_values_for_type(x509.UniformResourceIdentifier)),
        not_after=found.not_valid_after_utc,
    )


class Certificates:
    """Tells whose certificate it is."""

    def __init__(self, principals: Sequence[Principal]) -> None:
        self._principals = [one for one in principals if one.certificates is not None]

    def __bool__(self) -> bool:
        return bool(self._principals)

    def caller(self, certificate: ClientCertificate) -> Caller:
        """Whose it is: that of the first principal that has one of its names. Raises UnauthenticatedError."""
        if datetime.now(UTC) >= certificate.not_after:
            raise UnauthenticatedError(f"the client certificate ({certificate.title}) has expired")
        for principal in self._principals:
            if _fits(certificate, principal):
                key = f"certificate {certificate.serial}"
                return Caller.of(principal.name, principal, rate_limit=principal.rate_limit, key=key)
        raise UnauthenticatedError(
            f"the client certificate ({certificate.title}) is of nobody who may use this CentralAgent"
        )


def _fits(certificate: ClientCertificate, principal: Principal) -> bool:
    return any(
        one.common_name in certificate.common_names
        or (one.dns_name is not None and one.dns_name.lower() in certificate.dns_names)
        or one.uri in certificate.uris
        for one in principal.certificates or ()
    )
