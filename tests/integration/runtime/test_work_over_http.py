# SPDX-License-Identifier: Apache-2.0
"""Agents outside of the cluster that poll over HTTP, and messages."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.integration.runtime.conftest import System, final, submit
from tests.support.eventually import eventually
from tests.support.runtime_process import RuntimeProcess

WORKER = {"agent": "billing", "instance": "laptop-1"}


@pytest.fixture
def central(system: System) -> RuntimeProcess:
    return system.central().ready()


def work(central: RuntimeProcess, call: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = central.post(f"/v1/queues/main/work/{call}", body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def held(claim: dict[str, Any]) -> dict[str, Any]:
    return {name: claim[name] for name in ("id", "token", "attempt", "maxAttempts", "timeoutSeconds")}


def test_an_agent_takes_tasks_says_how_far_they_are_and_settles_them(central: RuntimeProcess) -> None:
    assert work(central, "register", {"worker": WORKER})["queue"] == "main"
    beat = {"worker": WORKER, "version": "1", "concurrency": 2, "running": 0, "startedAtMs": 1}
    assert work(central, "beat", {"beat": beat}) == {"cordoned": False}
    assert central.get("/v1/agents/billing").json()["healthy"] == 1
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(work, central, "claim", {"worker": WORKER, "limit": 2, "waitSeconds": 30})
        (parent,) = submit(central, {"sum": 1}, agent="billing")
        (claim,) = waiting.result()["claims"]
    assert (claim["id"], claim["payload"]) == (parent, {"sum": 1})
    (child,) = submit(central, 2, dependsOn=[parent])
    said = [{"kind": "progress", "fraction": 0.5}, {"kind": "partial", "data": [1]}]
    assert work(central, "emit", {"claim": held(claim), "items": said}) == {"held": True}
    assert work(central, "extend", {"claims": [held(claim)]}) == {"lost": []}
    outcome = {"claim": held(claim), "result": {"total": 12}}
    assert work(central, "settle", {"outcomes": [outcome]}) == {"held": [True]}
    assert final(central, parent)[0]["result"] == {"total": 12}
    (claim,) = work(central, "claim", {"worker": WORKER, "waitSeconds": 30})["claims"]
    parents = work(central, "parents", {"claim": held(claim)})["parents"]
    assert (claim["id"], parents[parent]["result"]) == (child, {"total": 12})
    failure = {"code": "BROKEN", "message": "it broke", "permanent": True}
    assert work(central, "settle", {"outcomes": [{"claim": held(claim), "failure": failure}]}) == {"held": [True]}
    assert final(central, child)[0]["failures"][0]["code"] == "BROKEN"
    assert work(central, "leave", {"worker": WORKER}) == {}
    assert central.get("/v1/agents").json() == []


def test_a_claim_whose_client_hangs_up_takes_nothing(central: RuntimeProcess) -> None:
    url = f"{central.base_url}/v1/queues/main/work/claim"
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(url, json={"worker": WORKER, "waitSeconds": 60}, timeout=1, trust_env=False)
    metric = 'route="/v1/queues/{queue}/work/claim",status="499"'
    eventually(lambda: metric in central.get("/metrics").text, what="the server has noticed")
    submit(central, 1)
    assert central.get("/v1/queues/main").json()["queued"] == 1


def test_an_agent_hears_which_tasks_are_taken_away_from_it(central: RuntimeProcess) -> None:
    url = f"{central.base_url}/v1/queues/main/work/revoked"
    headers = {"accept": "application/x-ndjson"}
    (task,) = submit(central, 1)
    with httpx.stream("POST", url, json={"worker": WORKER}, headers=headers, timeout=60, trust_env=False) as answer:
        assert answer.status_code == 200
        (claim,) = work(central, "claim", {"worker": WORKER})["claims"]
        central.delete(f"/v1/queues/main/tasks/{task}")
        assert any(task in json.loads(line)["ids"] for line in answer.iter_lines())
    assert work(central, "extend", {"claims": [held(claim)]})["lost"] == [held(claim)]


def test_a_message_is_sent_received_and_answered(central: RuntimeProcess) -> None:
    sent = central.post("/v1/messages", {"to": "billing", "payload": "hello"})
    assert sent.status_code == 201
    received = central.post("/v1/messages/receive", {"agent": "billing", "waitSeconds": 30})
    (message,) = received.json()["claims"]
    assert (message["id"], message["type"], message["payload"]) == (sent.json()["id"], "message", "hello")
    work(central, "settle", {"outcomes": [{"claim": held(message), "result": "heard"}]})
    assert final(central, message["id"])[0]["result"] == "heard"


@pytest.mark.parametrize(
    ("call", "body"),
    [
        ("claim", {}),
        ("claim", {"worker": {"agent": "A", "instance": "a"}}),
        ("claim", {"worker": WORKER, "limit": 0}),
        ("settle", {"outcomes": []}),
        ("extend", {"claims": [{"id": "a", "token": "no hex", "attempt": 1, "maxAttempts": 1, "timeoutSeconds": 1}]}),
        ("emit", {"claim": {}, "items": []}),
        ("revoked", {"worker": WORKER, "more": 1}),
    ],
)
def test_what_is_malformed_is_refused(central: RuntimeProcess, call: str, body: dict[str, Any]) -> None:
    answer = central.post(f"/v1/queues/main/work/{call}", body)
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST")
