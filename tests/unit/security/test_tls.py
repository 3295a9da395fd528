# SPDX-License-Identifier: Apache-2.0
"""TLS files that change while the process runs; the handshakes are real, in memory."""

import logging
import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from agent_runtime.security.certificates import parse_certificate
from agent_runtime.security.tls import Tls
from kubeagents_api.errors import RuntimeConfigError
from kubeagents_api.runtime_config import TlsConfig
from tests.support.certificates import Authority

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
OURS, STRANGERS = Authority("ours"), Authority("strangers")


def files(folder: Path, *, clients: Authority | None = None) -> TlsConfig:
    OURS.server().write(folder)
    return TlsConfig(
        certificate=str(folder / "tls.crt"),
        private_key=str(folder / "tls.key"),
        client_ca=str(clients.write(folder / "ca.crt")) if clients is not None else None,
    )


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[bytes, bytes | None]:
    """The certificates that the client and the server have seen. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    waiting = [theirs, ours]
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
    assert not waiting, "the handshake does not end"
    seen = theirs.getpeercert(binary_form=True)
    assert seen is not None
    return seen, ours.getpeercert(binary_form=True)


def only(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    context.minimum_version = context.maximum_version = version
    return context


@pytest.mark.parametrize("version", VERSIONS)
def test_a_new_certificate_is_for_new_connections(
    tmp_path: Path, registry: CollectorRegistry, version: ssl.TLSVersion
) -> None:
    tls = Tls(files(tmp_path), registry=registry)
    first, _ = handshake(tls.context, only(OURS.trusting(), version))
    material = tls.material
    tls.look()
    assert tls.material is material

    renewed = OURS.server().write(tmp_path)
    tls.look()

    second, _ = handshake(tls.context, only(OURS.trusting(), version))
    assert first != second == ssl.PEM_cert_to_DER_cert(renewed.certificate.decode())
    assert (tls.material.certificate, tls.material.private_key) == (renewed.certificate, renewed.key)
    assert registry.get_sample_value("kubeagents_tls_reloads_total", {"outcome": "taken"}) == 1.0


def test_files_that_do_not_work_are_not_taken_and_it_is_said_once(
    tmp_path: Path, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    tls = Tls(files(tmp_path), registry=registry)
    first, _ = handshake(tls.context, OURS.trusting())

    (tmp_path / "tls.key").write_bytes(OURS.server().key)
    with caplog.at_level(logging.ERROR):
        tls.look()
        tls.look()

    assert handshake(tls.context, OURS.trusting())[0] == first
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "the old ones stay in use" in caplog.text
    assert "PRIVATE" not in caplog.text
    assert registry.get_sample_value("kubeagents_tls_reloads_total", {"outcome": "refused"}) == 1.0

    OURS.server().write(tmp_path)
    tls.look()
    assert handshake(tls.context, OURS.trusting())[0] != first


def test_files_that_are_gone_leave_the_old_ones_in_use(tmp_path: Path, registry: CollectorRegistry) -> None:
    tls = Tls(files(tmp_path), registry=registry)
    (tmp_path / "tls.crt").unlink()
    tls.look()

    handshake(tls.context, OURS.trusting())


@pytest.mark.parametrize("version", VERSIONS)
def test_the_authority_of_clients_can_be_replaced(
    tmp_path: Path, registry: CollectorRegistry, version: ssl.TLSVersion
) -> None:
    tls = Tls(files(tmp_path / "server", clients=STRANGERS), registry=registry)
    old = OURS.trusting(STRANGERS.client("maria"), tmp_path / "old")
    new = OURS.trusting(OURS.client("maria"), tmp_path / "new")
    _, shown = handshake(tls.context, only(old, version))
    assert shown is not None
    assert parse_certificate(ssl.DER_cert_to_PEM_cert(shown)).common_names == ("maria",)
    with pytest.raises(ssl.SSLError, match=r"verify failed|unknown ca"):
        handshake(tls.context, only(new, version))

    OURS.write(tmp_path / "server" / "ca.crt")
    tls.look()

    handshake(tls.context, only(new, version))
    with pytest.raises(ssl.SSLError, match=r"verify failed|unknown ca"):
        handshake(tls.context, only(old, version))


def test_a_client_may_show_no_certificate(tmp_path: Path, registry: CollectorRegistry) -> None:
    tls = Tls(files(tmp_path, clients=OURS), registry=registry)

    assert handshake(tls.context, OURS.trusting())[1] is None


def test_an_expired_certificate_of_a_client_is_refused(tmp_path: Path, registry: CollectorRegistry) -> None:
    tls = Tls(files(tmp_path, clients=OURS), registry=registry)
    expired = OURS.client("maria", valid=timedelta(seconds=-1))

    with pytest.raises(ssl.SSLError, match=r"certificate has expired|certificate expired"):
        handshake(tls.context, OURS.trusting(expired, tmp_path / "client"))


def test_old_versions_of_tls_are_refused(tmp_path: Path, registry: CollectorRegistry) -> None:
    assert Tls(files(tmp_path), registry=registry).context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("text", [b"", b"no certificate"])
def test_a_process_that_begins_with_bad_files_says_what_to_correct(
    tmp_path: Path, registry: CollectorRegistry, text: bytes
) -> None:
    config = files(tmp_path)
    (tmp_path / "tls.crt").write_bytes(text)

    with pytest.raises(RuntimeConfigError, match=r"correct the Secrets of spec.tls"):
        Tls(config, registry=registry)
