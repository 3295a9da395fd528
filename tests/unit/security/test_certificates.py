# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime, timedelta

import pytest

from agent_runtime.security.caller import ClientCertificate
from agent_runtime.security.certificates import Certificates, parse_certificate
from kubeagents_api.access import CertificateName, Principal
from kubeagents_api.errors import UnauthenticatedError
from kubeagents_api.model import LocalRef
from tests.support.certificates import Authority

OURS = Authority()
SPIFFE = "spiffe://shop.example/billing"
PRINCIPALS = [
    Principal(name="root", role="admin", keys_from=LocalRef(name="root-keys")),
    Principal(name="maria", role="viewer", certificates=[CertificateName(common_name="Maria")]),
    Principal(
        name="billing",
        role="agent",
        agents=["billing"],
        certificates=[CertificateName(dns_name="Billing.example.com"), CertificateName(uri=SPIFFE)],
    ),
]


def shown(name: str, *, dns_name: str | None = None, uri: str | None = None) -> ClientCertificate:
    return parse_certificate(OURS.client(name, dns_name=dns_name, uri=uri).certificate.decode())


@pytest.mark.parametrize(
    ("certificate", "whose"),
    [
        (shown("Maria"), "maria"),
        (shown("x", dns_name="billing.example.com"), "billing"),
        (shown("x", dns_name="BILLING.example.com"), "billing"),
        (shown("x", uri=SPIFFE), "billing"),
        (shown("Maria", uri=SPIFFE), "maria"),
    ],
)
def test_a_certificate_is_of_whom_one_of_its_names_is(certificate: ClientCertificate, whose: str) -> None:
    caller = Certificates(PRINCIPALS).caller(certificate)

    assert caller.name == whose
    assert caller.key == f"certificate {certificate.serial}"


@pytest.mark.parametrize(
    "certificate",
    [
        shown("maria"),
        shown("root"),
        shown("billing.example.com"),
        shown(SPIFFE),
        shown("x", dns_name="www.billing.example.com"),
        shown("x", uri=f"{SPIFFE}/other"),
    ],
)
def test_a_certificate_with_other_names_is_of_nobody(certificate: ClientCertificate) -> None:
    with pytest.raises(UnauthenticatedError, match="is of nobody who may use this CentralAgent"):
        Certificates(PRINCIPALS).caller(certificate)


def test_a_certificate_that_has_expired_since_the_handshake_is_refused() -> None:
    expired = parse_certificate(OURS.client("Maria", valid=timedelta(seconds=-5)).certificate.decode())
    assert expired.not_after < datetime.now(UTC)

    with pytest.raises(UnauthenticatedError, match=r"client certificate \(Maria\) has expired"):
        Certificates(PRINCIPALS).caller(expired)


def test_where_nobody_has_a_certificate_none_is_asked_for() -> None:
    assert not Certificates(PRINCIPALS[:1])
    assert Certificates(PRINCIPALS)
