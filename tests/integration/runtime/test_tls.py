# SPDX-License-Identifier: Apache-2.0
"""TLS of a real process: certificates that change as the kubelet changes them, and clients that show their own."""

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from agent_runtime.protos.kubeagents.v1 import kubeagents_pb2 as pb
from agent_runtime.protos.kubeagents.v1 import kubeagents_pb2_grpc as stubs
from kubeagents_api.access import AccessSettings, CertificateName, Principal
from kubeagents_api.model import LocalRef
from kubeagents_api.runtime_config import TlsConfig
from kubeagents_api.tls import ClientAuth
from tests.integration.runtime.conftest import System
from tests.integration.runtime.grpc_wire import SECONDS, port, task
from tests.integration.runtime.test_access import refused
from tests.support.certificates import Authority, Certificate
from tests.support.eventually import eventually
from tests.support.runtime_process import RuntimeProcess

ADMIN = "the-key-of-the-admin"
ACCESS = AccessSettings(
    principals=[
        Principal(name="root", role="admin", keys_from=LocalRef(name="root")),
        Principal(name="maria", role="viewer", certificates=[CertificateName(common_name="maria")]),
        Principal(
            name="shop", role="developer", certificates=[CertificateName(dns_name="shop.example.com")], queues=["main"]
        ),
    ]
)


class Mounted:
    """A Secret as the kubelet mounts it: files are links into a folder, which is exchanged by turning one link."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._version = 0
        folder.mkdir(parents=True)

    def put(self, **files: bytes) -> None:
        self._version += 1
        version = self.folder / f"..version-{self._version}"
        version.mkdir()
        for name, content in files.items():
            (version / name.replace("_", ".")).write_bytes(content)
        link = self.folder / "..data_tmp"
        link.symlink_to(version.name)
        os.rename(link, self.folder / "..data")
        for name in files:
            entry = self.folder / name.replace("_", ".")
            if not entry.is_symlink():
                entry.symlink_to(f"..data/{entry.name}")

    def certificate(self, made: Certificate) -> None:
        self.put(tls_crt=made.certificate, tls_key=made.key)


@dataclass
class Place:
    """A process and the files around it."""

    central: RuntimeProcess
    ours: Authority
    clients: Authority
    server: Mounted
    client_ca: Mounted
    folder: Path

    def client(self, shown: Certificate | None = None, *, key: str | None = None) -> httpx.Client:
        """A client that believes our authority only."""
        context = self.ours.trusting(shown, self.folder / "shown" if shown is not None else None)
        return httpx.Client(
            base_url=self.central.base_url,
            verify=context,
            headers={"x-api-key": key} if key is not None else {},
            timeout=30,
            trust_env=False,
        )

    def get(self, path: str, shown: Certificate | None = None, *, key: str | None = None) -> httpx.Response:
        with self.client(shown, key=key) as client:
            return client.get(path)

    def seen(self, *, port: int | None = None) -> bytes:
        """The certificate that a new connection sees."""
        context = self.ours.trusting()
        if port is not None:
            context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection(("127.0.0.1", port or self.central.port), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as wrapped,
        ):
            found = wrapped.getpeercert(binary_form=True)
        assert found is not None
        return found


def start(system: System, folder: Path, client_auth: ClientAuth, **changes: Any) -> Place:
    ours, clients = Authority("servers"), Authority("clients")
    server, client_ca = Mounted(folder / "tls" / "server"), Mounted(folder / "tls" / "client-ca")
    server.certificate(ours.server())
    client_ca.put(ca_crt=clients.pem)
    keys = folder / "keys" / "root"
    keys.mkdir(parents=True)
    (keys / "key").write_text(ADMIN)
    tls = TlsConfig(
        certificate=str(server.folder / "tls.crt"),
        private_key=str(server.folder / "tls.key"),
        client_ca=str(client_ca.folder / "ca.crt"),
        client_auth=client_auth,
    )
    central = system.central(tls=tls, access=ACCESS, keys_path=str(keys.parent), **changes).ready()
    return Place(central, ours, clients, server, client_ca, folder)


@pytest.fixture
def place(system: System, tmp_path: Path) -> Place:
    return start(system, tmp_path, "Optional")


@pytest.fixture
def strict(system: System, tmp_path: Path) -> Place:
    return start(system, tmp_path, "Required")


@pytest.fixture
def raw(place: Place) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", place.central.port), timeout=30) as plain:
        yield plain


def der(certificate: Certificate) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.certificate.decode())


def test_a_task_goes_over_tls(place: Place) -> None:
    with place.client(key=ADMIN) as client:
        assert client.post("/v1/tasks", json={"payload": 1}).status_code == 201
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(place.central.base_url + "/healthz", trust_env=False)


def queues(
    place: Place, *options: str, key: str | None = ADMIN, scheme: str = "https"
) -> "subprocess.CompletedProcess[str]":
    """Asks for them by the command."""
    command = [sys.executable, "-m", "agent_runtime.cli.main", "get", "queues", *options]
    server = {"KUBEAGENTS_SERVER": f"{scheme}://localhost:{place.central.port}"}
    environment = {**os.environ, "NO_PROXY": "localhost", "COLUMNS": "160", **server}
    if key is not None:
        environment["KUBEAGENTS_KEY"] = key
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_the_commands_trust_a_private_authority_if_they_are_told_to(place: Place) -> None:
    ca_file = str(place.ours.write(place.folder / "ca.crt"))
    assert "name that one's with --ca-file" in queues(place).stderr
    done = queues(place, "--ca-file", ca_file)
    assert done.returncode == 0, done.stderr
    assert "main" in done.stdout


def test_the_commands_show_a_certificate(strict: Place) -> None:
    ca_file = str(strict.ours.write(strict.folder / "ca.crt"))
    strict.clients.client("maria").write(strict.folder / "maria")
    shown = [f"--cert-file={strict.folder}/maria/tls.crt", f"--cert-key-file={strict.folder}/maria/tls.key"]
    assert queues(strict, "--ca-file", ca_file).returncode == 1
    done = queues(strict, "--ca-file", ca_file, *shown, key=None)
    assert done.returncode == 0, done.stderr
    assert "main" in done.stdout


def test_certificates_that_cannot_be_used_are_a_wrong_use_of_a_command(place: Place) -> None:
    missing = queues(place, "--cert-file", "nowhere.pem")
    assert (missing.returncode, "nowhere.pem" in missing.stderr) == (2, True)
    plain = queues(place, "--ca-file", "ca.crt", scheme="http")
    assert (plain.returncode, "is not encrypted" in plain.stderr) == (2, True)


def test_who_speaks_no_tls_gets_no_answer_and_harms_nobody(place: Place, raw: socket.socket) -> None:
    raw.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    assert b"200 OK" not in raw.recv(1000)
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", place.central.port), timeout=30) as other:
            other.sendall(os.urandom(200))

    assert place.get("/healthz").status_code == 200
    assert [line for line in place.central.lines if "traceback" in line] == []


def test_a_certificate_is_renewed_without_a_restart(place: Place) -> None:
    with place.client() as old:
        assert old.get("/healthz").status_code == 200
        renewed = place.ours.server()
        place.server.certificate(renewed)

        eventually(lambda: place.seen() == der(renewed), what="new connections see the new certificate")
        assert old.get("/healthz").status_code == 200, "the old connection goes on"


def test_a_certificate_that_does_not_work_leaves_the_old_one_in_use(place: Place) -> None:
    before = place.seen()
    place.server.put(tls_crt=place.ours.server().certificate, tls_key=place.ours.server().key)
    eventually(lambda: place.central.logged("the old ones stay in use"), what="it is said")

    assert place.seen() == before
    metrics = place.get("/metrics").text
    assert 'kubeagents_tls_reloads_total{outcome="refused"} 1.0' in metrics
    assert "kubeagents_tls_certificate_expires_timestamp_seconds" in metrics

    repaired = place.ours.server()
    place.server.certificate(repaired)
    eventually(lambda: place.seen() == der(repaired), what="what works is taken")


def test_a_client_certificate_shows_who_one_is(place: Place) -> None:
    maria = place.clients.client("maria")
    shop = place.clients.client("x", dns_name="shop.example.com")

    assert place.get("/v1/queues/main", maria).status_code == 200
    with place.client(maria) as client:
        sentence = refused(client.post("/v1/tasks", json={"payload": 1}), 403, "FORBIDDEN")
        assert "maria has the role viewer" in sentence
    with place.client(shop) as client:
        assert client.post("/v1/tasks", json={"payload": 1}).status_code == 201
    entries = place.get("/v1/audit", key=ADMIN).json()["entries"]
    found = {entry["principal"]: entry["key"] for entry in entries if "principal" in entry}
    assert found["shop"].startswith("certificate ")


def test_a_certificate_of_nobody_opens_nothing(place: Place) -> None:
    sentence = refused(place.get("/v1/queues", place.clients.client("eve")), 401, "UNAUTHENTICATED")
    assert "(eve) is of nobody" in sentence
    sentence = refused(place.get("/v1/queues"), 401, "UNAUTHENTICATED")
    assert "an API key or a client certificate is needed" in sentence
    with pytest.raises(httpx.TransportError):  # of an authority that is not trusted: no connection at all
        place.get("/v1/queues", place.ours.client("maria"))


def test_a_key_that_is_shown_decides_over_the_certificate(place: Place) -> None:
    maria = place.clients.client("maria")

    assert place.get("/v1/keys", maria, key=ADMIN).status_code == 200
    refused(place.get("/v1/queues", maria, key="not-a-key-of-anybody"), 401, "UNAUTHENTICATED")


def test_another_authority_of_clients_needs_no_restart(place: Place) -> None:
    old, others = place.clients.client("maria"), Authority("others")
    new = others.client("maria")
    assert place.get("/v1/queues", old).status_code == 200

    place.client_ca.put(ca_crt=others.pem)
    eventually(lambda: place.central.logged("new TLS files are in use"), what="the new authority is taken")

    assert place.get("/v1/queues", new).status_code == 200
    with pytest.raises(httpx.TransportError):
        place.get("/v1/queues", old)


def test_where_certificates_are_required_the_probes_alone_are_open(strict: Place) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert strict.get(path).status_code == 200
    for path in ("/", "/docs", "/openapi.json", "/v1/queues"):
        sentence = refused(strict.get(path, key=ADMIN), 401, "UNAUTHENTICATED")
        assert "a client certificate is needed here" in sentence

    maria, eve = strict.clients.client("maria"), strict.clients.client("eve")
    assert strict.get("/v1/queues", maria).status_code == 200
    assert strict.get("/v1/keys", eve, key=ADMIN).status_code == 200
    assert strict.get("/", eve).status_code == 200
    refused(strict.get("/v1/queues", eve), 401, "UNAUTHENTICATED")


async def submitted(place: Place, shown: Certificate | None = None, *, key: str | None = None) -> str:
    """Queue a task over gRPC; its id."""
    parts = (shown.key, shown.certificate) if shown is not None else (None, None)
    credentials = grpc.ssl_channel_credentials(place.ours.pem, *parts)
    options = [("grpc.use_local_subchannel_pool", 1)]
    made: Any = stubs
    async with grpc.aio.secure_channel(f"localhost:{port(place.central)}", credentials, options=options) as channel:
        request = pb.SubmitRequest(task=task(1))
        metadata = (("x-api-key", key),) if key is not None else ()
        answer = await made.TasksStub(channel).Submit(request, timeout=SECONDS, metadata=metadata)
        return str(answer.id)


GRPC = {"http": 0, "grpc": 0}


async def test_grpc_has_the_same_certificates(system: System, tmp_path: Path) -> None:
    place = start(system, tmp_path, "Required", endpoints=GRPC)
    assert await submitted(place, place.clients.client("x", dns_name="shop.example.com"))
    with pytest.raises(grpc.aio.AioRpcError) as nobody:
        await submitted(place, place.clients.client("eve"))
    assert nobody.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(grpc.aio.AioRpcError) as without:
        await submitted(place, key=ADMIN)
    assert without.value.code() is grpc.StatusCode.UNAVAILABLE

    renewed = place.ours.server()
    place.server.certificate(renewed)
    eventually(lambda: place.seen(port=port(place.central)) == der(renewed), what="gRPC shows the new certificate")
    assert await submitted(place, place.clients.client("x", dns_name="shop.example.com"))


async def test_grpc_asks_for_no_certificate_that_is_optional(system: System, tmp_path: Path) -> None:
    place = start(system, tmp_path, "Optional", endpoints=GRPC)

    assert await submitted(place, key=ADMIN)
    with pytest.raises(grpc.aio.AioRpcError) as unseen:
        await submitted(place, place.clients.client("x", dns_name="shop.example.com"))
    assert unseen.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_websocket_has_the_certificate_of_its_connection(system: System, tmp_path: Path) -> None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus

    place = start(system, tmp_path, "Optional", endpoints={"http": 0, "websocket": 0})
    url = f"wss://localhost:{place.central.port}/v1/ws"
    shown = place.ours.trusting(place.clients.client("maria"), tmp_path / "maria")
    async with connect(url, ssl=shown, proxy=None):
        pass
    with pytest.raises(InvalidStatus, match="401"):
        async with connect(url, ssl=place.ours.trusting(), proxy=None):
            pass
