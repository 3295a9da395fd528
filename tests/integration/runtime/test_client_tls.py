# SPDX-License-Identifier: Apache-2.0
"""The Python client over TLS: whom it trusts, and how it shows itself."""

from pathlib import Path

import pytest

from agent_runtime.client import AgentClient, UnknownServerError
from kubeagents_api.errors import ForbiddenError, UnauthenticatedError
from tests.integration.runtime.conftest import System
from tests.integration.runtime.test_client import WIRES, port_of
from tests.integration.runtime.test_tls import start
from tests.support.certificates import Authority

SCHEMES = {"grpc": "grpcs", "websocket": "wss", "http": "https"}


@pytest.mark.parametrize("wire", WIRES)
async def test_a_client_knows_its_server_and_shows_its_certificate(system: System, wire: str, tmp_path: Path) -> None:
    # On gRPC a server either requires a certificate or asks for none.
    endpoints = {"http": 0, "websocket": 0, "grpc": 0}
    place = start(system, tmp_path, "Required" if wire == "grpc" else "Optional", endpoints=endpoints)
    url = f"{SCHEMES[wire]}://localhost:{port_of(place.central, wire)}"
    ca = place.ours.write(tmp_path / "ca.pem")
    place.clients.client("shop", dns_name="shop.example.com").write(tmp_path / "shop")
    place.clients.client("maria").write(tmp_path / "maria")

    def shown_by(name: str, authority: Path = ca) -> AgentClient:
        folder = tmp_path / name
        return AgentClient(url, ca_file=authority, cert_file=folder / "tls.crt", cert_key_file=folder / "tls.key")

    async with shown_by("shop") as client:
        assert (await client.submit()).queue == "main"
    async with shown_by("maria") as client:
        with pytest.raises(ForbiddenError, match="maria"):
            await client.submit()
    if wire != "grpc":
        async with AgentClient(url, ca_file=ca) as client:
            with pytest.raises(UnauthenticatedError):
                await client.submit()
    stranger = Authority("strangers").write(tmp_path / "strangers.pem")
    async with shown_by("shop", stranger) as client:
        with pytest.raises(UnknownServerError, match="is not trusted"):
            await client.submit()
