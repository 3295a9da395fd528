# SPDX-License-Identifier: Apache-2.0
"""Who may do what over HTTP: keys of Secrets and keys that are made, roles, limits, the audit log."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from kubeagents_api.access import AccessSettings, Grant, Principal, RequestLimit, Role
from kubeagents_api.model import LocalRef
from kubeagents_api.task import ErrorBody
from tests.integration.runtime.conftest import System
from tests.support.eventually import eventually
from tests.support.redis_server import RedisServer
from tests.support.runtime_process import RuntimeProcess

ADMIN, DEVELOPER, VIEWER = "the-key-of-the-admin", "the-key-of-a-developer", "the-key-of-a-viewer"
BILLING, ORDERS, BUSY = "the-key-of-billing-1", "the-key-of-orders-1", "the-key-of-a-busy-one"


def principal(name: str, role: Role, **more: Any) -> Principal:
    return Principal(name=name, role=role, keys_from=LocalRef(name=name), **more)


ACCESS = AccessSettings(
    principals=[
        principal("root", "admin"),
        principal("dora", "developer"),
        principal("vera", "viewer"),
        principal("billing", "developer", agents=["billing"]),
        principal("orders", "developer", queues=["orders"]),
        principal("busy", "viewer", rate_limit=RequestLimit(requests=3, per_seconds=3600)),
    ]
)
KEYS = {"root": ADMIN, "dora": DEVELOPER, "vera": VIEWER, "billing": BILLING, "orders": ORDERS, "busy": BUSY}


class Client:
    """Calls one pod with a key."""

    def __init__(self, central: RuntimeProcess, key: str | None, *, header: str = "bearer") -> None:
        self.url = central.base_url
        self.headers = {}
        if key is not None:
            self.headers = {"x-api-key": key} if header == "own" else {"authorization": f"Bearer {key}"}

    def call(self, method: str, path: str, *, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        sent = {**self.headers, **(headers or {})}
        return httpx.request(method, self.url + path, headers=sent, timeout=30, trust_env=False, **more)

    def get(self, path: str, **query: Any) -> httpx.Response:
        return self.call("GET", path, params=query)

    def post(self, path: str, body: Any, *, headers: dict[str, str] | None = None) -> httpx.Response:
        return self.call("POST", path, json=body, headers=headers)

    def delete(self, path: str, **query: Any) -> httpx.Response:
        return self.call("DELETE", path, params=query)


@pytest.fixture
def keys_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    for name, key in KEYS.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "key").write_text(key)
    return folder


def start(system: System, folder: Path, instance: str = "hub-1", url: str | None = None) -> RuntimeProcess:
    queues = (system.queue(), system.queue("orders", index=1))
    urls = [url] * 2 if url is not None else None
    return system.central(*queues, instance=instance, urls=urls, access=ACCESS, keys_path=str(folder))


@pytest.fixture
def central(system: System, keys_folder: Path) -> RuntimeProcess:
    return start(system, keys_folder).ready()


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    body = ErrorBody.model_validate_json(answer.content)
    assert body.code == code
    return body.error


def audited(central: RuntimeProcess, *, at_least: int = 1, **fields: Any) -> list[dict[str, Any]]:
    """The entries with these fields, once there are so many: they are written in the background."""
    admin = Client(central, ADMIN)

    def found() -> list[dict[str, Any]]:
        entries = admin.get("/v1/audit", limit=1000).json()["entries"]
        fitting = [one for one in entries if all(one.get(name) == value for name, value in fields.items())]
        assert len(fitting) >= at_least, entries
        return fitting

    return eventually(found, what=f"audit entries with {fields}")


@pytest.mark.parametrize("header", ["bearer", "own"])
def test_a_key_opens_the_door(central: RuntimeProcess, header: str) -> None:
    answer = Client(central, DEVELOPER, header=header).post("/v1/tasks", {"payload": 1})

    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize("key", [None, "-", "not-a-key-of-anybody", "ka_abcdefghijkl_" + "x" * 43])
def test_without_a_valid_key_there_is_nothing(central: RuntimeProcess, key: str | None) -> None:
    answer = Client(central, key).post("/v1/tasks", {"payload": 1})

    sentence = refused(answer, 401, "UNAUTHENTICATED")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "x" * 43 not in sentence
    assert Client(central, ADMIN).get("/v1/queues/main").json()["queued"] == 0
    (entry, *_) = audited(central, outcome="denied", verb="call")
    assert (entry["code"], entry["address"]) == ("UNAUTHENTICATED", "127.0.0.1")


def test_probes_and_pages_need_none(central: RuntimeProcess) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/", "/docs", "/openapi.json"):
        assert Client(central, None).get(path).status_code == 200
    document = Client(central, None).get("/openapi.json").json()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
    assert "401" in document["paths"]["/v1/tasks"]["post"]["responses"]


def test_roles_differ(central: RuntimeProcess) -> None:
    viewer, developer, admin = (Client(central, key) for key in (VIEWER, DEVELOPER, ADMIN))
    refused(viewer.post("/v1/tasks", {"payload": 1}), 403, "FORBIDDEN")
    assert developer.post("/v1/tasks", {"id": "one", "payload": 1}).status_code == 201
    assert viewer.get("/v1/queues/main/tasks/one").status_code == 200
    sentence = refused(developer.post("/v1/queues/main/pause", {}), 403, "FORBIDDEN")
    assert "dora has the role developer" in sentence
    refused(developer.get("/v1/keys"), 403, "FORBIDDEN")
    assert admin.post("/v1/queues/main/pause", {}).json()["pausedBy"] == ["root"]
    assert developer.delete("/v1/queues/main/tasks/one").json()["state"] == "cancelled"


def test_only_an_admin_acts_in_the_name_of_others(central: RuntimeProcess) -> None:
    Client(central, DEVELOPER).post("/v1/tasks", {"id": "one"})
    Client(central, DEVELOPER).delete("/v1/queues/main/tasks/one", by="root")
    events = Client(central, ADMIN).get("/v1/queues/main/events").json()["events"]
    assert [event["by"] for event in events if event["kind"] == "cancelled"] == ["dora"]
    paused = Client(central, ADMIN).post("/v1/queues/main/pause", {"by": "maria"}).json()
    assert paused["pausedBy"] == ["maria"]


def test_a_role_for_one_queue_ends_there(central: RuntimeProcess) -> None:
    orders = Client(central, ORDERS)
    assert orders.post("/v1/tasks", {"payload": 1, "queue": "orders"}).status_code == 201
    assert orders.post("/v1/tasks", {"payload": 1}).json()["queue"] == "orders", "its first one"
    refused(orders.post("/v1/tasks", {"payload": 1, "queue": "main"}), 403, "FORBIDDEN")
    refused(orders.get("/v1/queues/main"), 403, "FORBIDDEN")
    assert [one["queue"] for one in orders.get("/v1/queues").json()] == ["orders"]
    assert [one["queue"] for one in orders.get("/v1/status").json()["queues"]] == ["orders"]


def test_a_role_for_one_agent_sees_its_tasks_only(central: RuntimeProcess) -> None:
    billing, developer = Client(central, BILLING), Client(central, DEVELOPER)
    refused(billing.post("/v1/tasks", {"payload": 1}), 403, "FORBIDDEN")
    refused(billing.post("/v1/tasks", {"payload": 1, "agent": "mail"}), 403, "FORBIDDEN")
    assert billing.post("/v1/tasks", {"id": "mine", "agent": "billing"}).status_code == 201
    developer.post("/v1/tasks", {"id": "other", "agent": "mail"})
    assert billing.get("/v1/queues/main/tasks/mine").status_code == 200
    refused(billing.get("/v1/queues/main/tasks/other"), 404, "TASK_NOT_FOUND")
    refused(billing.post("/v1/queues/main/results", {"ids": ["mine", "other"]}), 404, "TASK_NOT_FOUND")
    refused(billing.get("/v1/queues/main/tasks/other/stream"), 404, "TASK_NOT_FOUND")
    refused(billing.delete("/v1/queues/main/tasks/other"), 404, "TASK_NOT_FOUND")
    child = {"agent": "billing", "dependsOn": ["other"]}
    refused(billing.post("/v1/tasks", child), 404, "TASK_NOT_FOUND")
    family = [{"id": "parent", "agent": "billing"}, {"agent": "billing", "dependsOn": ["parent", "mine"]}]
    assert billing.post("/v1/tasks/batch", {"tasks": family}).status_code == 201
    refused(billing.get("/v1/queues/main/events"), 403, "FORBIDDEN")
    assert developer.get("/v1/queues/main/tasks/other").json()["state"] == "queued"


def test_who_calls_too_often_is_told_when_to_come_back(central: RuntimeProcess) -> None:
    busy = Client(central, BUSY)
    answers = [busy.get("/v1/queues/main") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    refused(answers[-1], 429, "RATE_LIMITED")
    assert int(answers[-1].headers["retry-after"]) > 1
    assert Client(central, VIEWER).get("/v1/queues/main").status_code == 200, "the others go on"
    assert audited(central, principal="busy")[0]["code"] == "RATE_LIMITED"


def test_a_key_that_is_made_holds_on_every_pod_until_it_is_revoked(
    system: System, central: RuntimeProcess, keys_folder: Path
) -> None:
    other = start(system, keys_folder, "hub-2").ready()
    admin = Client(central, ADMIN)
    answer = admin.post("/v1/keys", {"principal": "nightly", "role": "developer", "queues": ["orders"]})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    nightly = Client(other, made["key"])
    assert nightly.post("/v1/tasks", {"queue": "orders"}).status_code == 201
    refused(nightly.post("/v1/tasks", {"queue": "main"}), 403, "FORBIDDEN")
    (info,) = admin.get("/v1/keys").json()
    assert info == {name: value for name, value in made.items() if name != "key"}
    assert info["createdBy"] == "root"

    assert admin.delete(f"/v1/keys/{made['id']}").status_code == 204
    eventually(lambda: nightly.get("/v1/queues/orders").status_code == 401, what="the end of it everywhere")
    assert admin.get("/v1/keys").json() == []
    refused(admin.delete(f"/v1/keys/{made['id']}"), 404, "KEY_NOT_FOUND")


@pytest.mark.parametrize("path", ["tasks/long/stream", "events?after=%24"])
def test_a_stream_ends_when_its_key_is_revoked(central: RuntimeProcess, path: str) -> None:
    admin = Client(central, ADMIN)
    made = admin.post("/v1/keys", {"principal": "nightly", "role": "viewer"}).json()
    admin.post("/v1/tasks", {"id": "long"})
    headers = {**Client(central, made["key"]).headers, "accept": "text/event-stream"}
    address = f"{central.base_url}/v1/queues/main/{path}"
    with httpx.stream("GET", address, headers=headers, timeout=30, trust_env=False) as stream:
        admin.delete(f"/v1/keys/{made['id']}")
        text = "".join(stream.iter_text())

    assert "event: fault" in text
    assert "UNAUTHENTICATED" in text


def test_who_waits_for_a_result_is_sent_away_when_the_key_is_revoked(central: RuntimeProcess) -> None:
    admin = Client(central, ADMIN)
    made = admin.post("/v1/keys", {"principal": "nightly", "role": "viewer"}).json()
    admin.post("/v1/tasks", {"id": "long"})
    with ThreadPoolExecutor() as pool:
        path = "/v1/queues/main/tasks/long/result"
        waiting = pool.submit(Client(central, made["key"]).get, path, timeoutSeconds=25)
        eventually(lambda: waiting.running(), what="it waits")
        admin.delete(f"/v1/keys/{made['id']}")

        refused(waiting.result(timeout=30), 401, "UNAUTHENTICATED")


def test_a_key_expires(central: RuntimeProcess) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    made = Client(central, ADMIN).post("/v1/keys", {"principal": "x", "role": "viewer", "expiresAt": soon}).json()
    shown = Client(central, made["key"])

    eventually(lambda: shown.get("/v1/queues").status_code == 401, what="its end")


def test_a_key_of_a_secret_is_changed_without_a_restart(central: RuntimeProcess, keys_folder: Path) -> None:
    (keys_folder / "dora" / "next").write_text("another-key-of-dora")
    eventually(lambda: Client(central, "another-key-of-dora").get("/v1/queues").status_code == 200, what="the new one")
    assert Client(central, DEVELOPER).get("/v1/queues").status_code == 200
    (keys_folder / "dora" / "key").unlink()
    eventually(lambda: Client(central, DEVELOPER).get("/v1/queues").status_code == 401, what="the end of the old one")


def test_a_bad_key_request_makes_none(central: RuntimeProcess) -> None:
    admin = Client(central, ADMIN)
    refused(admin.post("/v1/keys", {"principal": "x", "role": "boss"}), 400, "INVALID_REQUEST")
    refused(admin.post("/v1/keys", {"principal": "a b", "role": "viewer"}), 400, "INVALID_REQUEST")
    refused(admin.post("/v1/keys", {"principal": "x", "role": "viewer", "expiresAt": "2026-01-01"}), 400,
            "INVALID_REQUEST")  # fmt: skip
    assert admin.get("/v1/keys").json() == []


def test_nothing_secret_is_kept_or_logged(central: RuntimeProcess, redis_server: RedisServer) -> None:
    admin = Client(central, ADMIN)
    made = admin.post("/v1/keys", {"principal": "nightly", "role": "viewer"}).json()
    Client(central, made["key"]).get("/v1/queues")
    Client(central, DEVELOPER).post("/v1/tasks", {"payload": "a payload of somebody"})
    entries = audited(central, verb="submit")
    kept = json.dumps(entries)
    with redis_server.client() as client:
        for name in client.scan_iter("*@*"):
            kind = client.type(name)
            kept += str(client.hgetall(name) if kind == "hash" else client.xrange(name) if kind == "stream" else "")

    secret = made["key"].rpartition("_")[2]
    for hidden in (secret, ADMIN, DEVELOPER, "a payload of somebody"):
        assert hidden not in kept
        assert hidden not in json.dumps(central.lines)
    assert made["id"] in kept


def test_the_audit_log_tells_who_did_what(central: RuntimeProcess) -> None:
    Client(central, DEVELOPER).post("/v1/tasks", {"id": "one"}, headers={"x-request-id": "request-7"})
    Client(central, VIEWER).post("/v1/queues/main/pause", {})

    (done,) = audited(central, principal="dora")
    assert {**done, "at": ""} == {
        "at": "",
        "principal": "dora",
        "key": "key",
        "address": "127.0.0.1",
        "protocol": "http",
        "request": "request-7",
        "verb": "submit",
        "queue": "main",
        "target": "one",
        "outcome": "done",
    }
    (denied,) = audited(central, principal="vera")
    assert (denied["verb"], denied["outcome"], denied["code"]) == ("pause", "denied", "FORBIDDEN")
    assert [line["audit"]["verb"] for line in central.logged("dora: submit done")] == ["submit"]
    refused(Client(central, DEVELOPER).get("/v1/audit"), 403, "FORBIDDEN")
    page = Client(central, ADMIN).get("/v1/audit", limit=1).json()
    rest = Client(central, ADMIN).get("/v1/audit", after=page["next"]).json()["entries"]
    assert page["entries"][0] not in rest


def test_while_redis_is_away_only_keys_of_secrets_are_known(
    system: System, durable_redis: RedisServer, keys_folder: Path
) -> None:
    central = start(system, keys_folder, url=durable_redis.url).ready()
    made = Client(central, ADMIN).post("/v1/keys", {"principal": "nightly", "role": "viewer"}).json()
    durable_redis.kill()
    durable_redis_answers = Client(central, made["key"]).get("/v1/agents")
    assert durable_redis_answers.status_code == 503
    assert Client(central, VIEWER).get("/v1/status").status_code == 200
    durable_redis.start()
    eventually(lambda: Client(central, made["key"]).get("/v1/queues").status_code == 200, what="all is well again")
    assert [one["verb"] for one in audited(central, principal="root", verb="make key")] == ["make key"]


def test_without_access_nobody_is_asked_and_no_keys_are_made(system: System) -> None:
    central = system.central().ready()
    assert central.get("/v1/queues").status_code == 200
    refused(central.post("/v1/keys", {"principal": "x", "role": "viewer"}), 409, "ACCESS_OPEN")
    assert "securitySchemes" not in central.get("/openapi.json").json()["components"]


def test_somebody_has_to_be_admin_of_everything() -> None:
    with pytest.raises(ValueError, match="no admin of all"):
        AccessSettings(principals=[principal("root", "admin", queues=["main"])])
    assert Grant(role="admin").queues is None
