# SPDX-License-Identifier: Apache-2.0
"""Tokens of a real issuer: its keys change, it goes away and comes back, and the process goes on."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kubeagents_api.access import AccessSettings, ClaimGrant, Issuer, Principal
from kubeagents_api.model import LocalRef
from tests.integration.runtime.conftest import System
from tests.integration.runtime.test_access import Client, audited, refused
from tests.support.certificates import Authority
from tests.support.eventually import eventually
from tests.support.issuer import AUDIENCE, TokenIssuer
from tests.support.runtime_process import RuntimeProcess

ADMIN = "the-key-of-the-admin"
GRANTS = [
    ClaimGrant(claim="groups", values=["platform"], role="admin"),
    ClaimGrant(claim="groups", values=["shop"], role="developer", queues=["main"]),
]


@pytest.fixture
def issuer(tmp_path: Path) -> TokenIssuer:
    """Not yet there; its address is known."""
    authority = Authority("the issuer")
    authority.write(tmp_path / "issuer-ca.crt")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return TokenIssuer(authority, tmp_path / "issuer", port=port)


@pytest.fixture
def answering(issuer: TokenIssuer) -> Iterator[TokenIssuer]:
    with issuer:
        yield issuer


def start(system: System, issuer: TokenIssuer, folder: Path, **settings: Any) -> RuntimeProcess:
    (folder / "keys" / "root").mkdir(parents=True)
    (folder / "keys" / "root" / "key").write_text(ADMIN)
    access = AccessSettings(
        principals=[Principal(name="root", role="admin", keys_from=LocalRef(name="root"))],
        issuers=[Issuer(name="corp", url=issuer.url, audiences=[AUDIENCE], grants=GRANTS, **settings)],
    )
    return system.central(
        access=access,
        keys_path=str(folder / "keys"),
        issuer_ca={"corp": str(folder / "issuer-ca.crt")},
        environment={"NO_PROXY": "localhost"},
    ).ready()


@pytest.fixture
def central(system: System, answering: TokenIssuer, tmp_path: Path) -> RuntimeProcess:
    return start(system, answering, tmp_path)


def submit(central: RuntimeProcess, token: str) -> httpx.Response:
    return Client(central, token).post("/v1/tasks", {"payload": 1})


def test_a_token_opens_the_door_as_a_key_does(central: RuntimeProcess, answering: TokenIssuer) -> None:
    maria = Client(central, answering.token("maria", groups=["shop"], jti="token-1"))

    assert maria.post("/v1/tasks", {"payload": 1}).status_code == 201
    sentence = refused(maria.post("/v1/queues/main/pause", {}), 403, "FORBIDDEN")
    assert "corp:maria has the role developer" in sentence
    root = Client(central, answering.token("rita", groups=["platform"]), header="own")
    assert root.post("/v1/queues/main/pause", {}).json()["pausedBy"] == ["corp:rita"]
    assert Client(central, ADMIN).get("/v1/keys").status_code == 200
    (entry, *_) = audited(central, verb="submit", outcome="done")
    assert (entry["principal"], entry["key"]) == ("corp:maria", "token-1")


def test_what_is_wrong_with_a_token_is_said(central: RuntimeProcess, answering: TokenIssuer) -> None:
    def sentence(token: str, status: int = 401, code: str = "UNAUTHENTICATED") -> str:
        said = refused(submit(central, token), status, code)
        assert token.rpartition(".")[2] not in said
        return said

    assert "has expired" in sentence(answering.token("maria", groups=["shop"], seconds=-60))
    assert "its audience (aud)" in sentence(answering.token("maria", groups=["shop"], aud="others"))
    assert "no such key" in sentence(answering.token("maria", groups=["shop"], headers={"kid": "made-up"}))
    assert "no grant" in sentence(answering.token("maria"), 403, "FORBIDDEN")
    assert Client(central, ADMIN).get("/v1/queues/main").json()["queued"] == 0
    audited(central, at_least=4, outcome="denied", verb="call")


def test_keys_of_the_issuer_change_without_a_restart(central: RuntimeProcess, answering: TokenIssuer) -> None:
    old = answering.token("maria", groups=["shop"])
    assert submit(central, old).status_code == 201

    answering.rotate("second", keep=True, algorithm="RS256")
    both = answering.token("maria", groups=["shop"])
    assert submit(central, both).status_code == 201
    assert submit(central, old).status_code == 201, "the old key is still published"

    answering.rotate("third")
    assert submit(central, answering.token("maria", groups=["shop"])).status_code == 201
    assert "no such key" in refused(submit(central, old), 401, "UNAUTHENTICATED")


def test_keys_that_do_not_exist_do_not_make_the_issuer_busy(central: RuntimeProcess, answering: TokenIssuer) -> None:
    assert submit(central, answering.token("maria", groups=["shop"])).status_code == 201
    before = answering.asked.count("/keys")
    for number in range(50):
        made_up = answering.token("eve", groups=["shop"], headers={"kid": f"made-up-{number}"})
        refused(submit(central, made_up), 401, "UNAUTHENTICATED")

    assert answering.asked.count("/keys") - before < 25


def test_while_the_issuer_is_away_its_known_keys_go_on(system: System, issuer: TokenIssuer, tmp_path: Path) -> None:
    with issuer:
        central = start(system, issuer, tmp_path)
        assert submit(central, issuer.token("maria", groups=["shop"])).status_code == 201

    assert submit(central, issuer.token("maria", groups=["shop"])).status_code == 201
    issuer.rotate("second")
    answer = submit(central, issuer.token("maria", groups=["shop"]))
    refused(answer, 503, "ISSUER_UNAVAILABLE")
    assert int(answer.headers["retry-after"]) >= 1
    assert Client(central, ADMIN).get("/v1/queues").status_code == 200, "keys do not need it"


def test_an_issuer_that_comes_late_is_waited_for(system: System, issuer: TokenIssuer, tmp_path: Path) -> None:
    central = start(system, issuer, tmp_path)
    token = issuer.token("maria", groups=["shop"])
    refused(submit(central, token), 503, "ISSUER_UNAVAILABLE")

    with issuer:
        eventually(lambda: submit(central, token).status_code == 201, what="the token is accepted")


def test_an_issuer_that_does_not_answer_holds_nobody_up(system: System, issuer: TokenIssuer, tmp_path: Path) -> None:
    port = int(issuer.url.split(":")[2].split("/")[0])
    with socket.create_server(("127.0.0.1", port)):  # connects, and says nothing
        central = start(system, issuer, tmp_path)
        refused(submit(central, issuer.token("maria", groups=["shop"])), 503, "ISSUER_UNAVAILABLE")


def test_an_issuer_with_a_certificate_of_somebody_else_is_not_believed(
    system: System, answering: TokenIssuer, tmp_path: Path
) -> None:
    Authority("somebody else").write(tmp_path / "issuer-ca.crt")
    central = start(system, answering, tmp_path)

    refused(submit(central, answering.token("maria", groups=["shop"])), 503, "ISSUER_UNAVAILABLE")
    assert any("CERTIFICATE_VERIFY_FAILED" in line["message"] for line in central.logged("cannot be fetched"))


def test_the_keys_may_be_at_an_address_of_their_own(system: System, answering: TokenIssuer, tmp_path: Path) -> None:
    port = answering.url.split(":")[2].split("/")[0]
    central = start(system, answering, tmp_path, jwks_url=f"https://localhost:{port}/keys")

    assert submit(central, answering.token("maria", groups=["shop"])).status_code == 201
    assert set(answering.asked) == {"/keys"}


def test_a_stream_ends_when_its_token_ends(central: RuntimeProcess, answering: TokenIssuer) -> None:
    Client(central, ADMIN).post("/v1/tasks", {"id": "one", "payload": 1})
    token = answering.token("maria", groups=["shop"], seconds=1)
    headers = {"authorization": f"Bearer {token}", "accept": "text/event-stream"}
    url = f"{central.base_url}/v1/queues/main/tasks/one/stream"
    with httpx.stream("GET", url, headers=headers, timeout=60, trust_env=False) as answer:
        assert answer.status_code == 200
        said = "\n".join(answer.iter_lines())

    assert "what corp:maria has shown (token) is not valid any more" in said
    assert "UNAUTHENTICATED" in said
