# SPDX-License-Identifier: Apache-2.0
"""The way through a kubeconfig, with a server that answers as the Kubernetes API server does.

What only a real one can show (its service proxy, its permissions) is tested on the cluster in tests/e2e.
"""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli.conftest import Finished

Run = Callable[..., Finished]

CENTRALS = "/apis/kubeagents.dev/v1alpha1/namespaces/{}/centralagents"
PROXY = "/api/v1/namespaces/team/services/http:{}-central:http/proxy"
ADMIN = "/api/v1/namespaces/team/secrets/{}-central-admin"
UNAUTHENTICATED = (401, {"error": "an API key is needed", "code": "UNAUTHENTICATED"})
STATS = {
    "queue": "tasks",
    "queued": 1,
    "running": 2,
    "scheduled": 0,
    "dead": 0,
    "succeededTotal": 3,
    "failedTotal": 0,
}


class ApiServer(ThreadingHTTPServer):
    """Answers GET requests from a table and remembers the credentials that came with them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, tuple[int, Any]] = {}
        self.tokens: set[str | None] = set()
        self.asked: list[tuple[str, str | None]] = []
        """Paths, and the API keys that came with them."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def has_centrals(self, namespace: str, *names: str, **spec: Any) -> None:
        items = [{"metadata": {"name": name}, "spec": spec} for name in names]
        self.answers[CENTRALS.format(namespace)] = (200, {"items": items})

    def has_key(self, central: str, key: str) -> None:
        self.answers[ADMIN.format(central)] = (200, {"data": {"key": base64.b64encode(key.encode()).decode()}})


class _Handler(BaseHTTPRequestHandler):
    server: ApiServer

    def do_GET(self) -> None:
        self.server.tokens.add(self.headers.get("Authorization"))
        self.server.asked.append((self.path, self.headers.get("x-api-key")))
        missing = {"kind": "Status", "message": f"{self.path} not found"}
        status, answer = self.server.answers.get(self.path, (404, missing))
        body = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture(name="api")
def _api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(name="cli")
def _cli(api: ApiServer, run: Run, tmp_path: Path) -> Run:
    """A CLI whose kubeconfig leads to the server, in namespace `team`."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "work",
        "clusters": [{"name": "c", "cluster": {"server": api.url}}],
        "users": [{"name": "u", "user": {"token": "t0ken"}}],
        "contexts": [
            {"name": "work", "context": {"cluster": "c", "user": "u", "namespace": "team"}},
            {"name": "bare", "context": {"cluster": "c", "user": "u"}},
        ],
    }
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    return lambda *arguments, **more: run(*arguments, KUBECONFIG=str(kubeconfig), **more)


def test_the_central_agent_of_the_namespace_is_reached_through_the_service_proxy(api: ApiServer, cli: Run) -> None:
    api.has_centrals("team", "desk")
    api.answers[f"{PROXY.format('desk')}/v1/queues"] = (200, [STATS])
    done = cli("get", "queues")
    assert done.code == 0, done.err
    assert done.out.splitlines()[1].split() == ["tasks", "open", "1", "2", "0", "0", "3", "0", "-"]
    assert api.tokens == {"Bearer t0ken"}


def test_a_central_agent_with_tls_is_reached_by_https(api: ApiServer, cli: Run) -> None:
    items = [{"metadata": {"name": "desk"}, "spec": {"tls": {"secretRef": {"name": "desk-tls"}}}}]
    api.answers[CENTRALS.format("team")] = (200, {"items": items})
    api.answers["/api/v1/namespaces/team/services/https:desk-central:http/proxy/v1/queues"] = (200, [])
    done = cli("get", "queues")
    assert done.code == 0, done.err


def test_the_key_that_the_operator_made_is_used_with_the_rights_of_the_kubeconfig(api: ApiServer, cli: Run) -> None:
    api.has_centrals("team", "desk")
    api.has_key("desk", "made-by-the-operator\n")
    queues = f"{PROXY.format('desk')}/v1/queues"
    api.answers[queues] = (200, [STATS])
    assert cli("get", "queues").code == 0
    assert api.asked == [
        (CENTRALS.format("team"), None),
        (ADMIN.format("desk"), None),
        (queues, "made-by-the-operator"),
    ]
    api.answers[queues] = UNAUTHENTICATED
    assert 'that of Secret "desk-central-admin". If it was changed just now' in cli("get", "queues").err


def test_a_key_of_ones_own_goes_before_it_and_so_does_what_the_manifest_says(api: ApiServer, cli: Run) -> None:
    queues = f"{PROXY.format('desk')}/v1/queues"
    api.has_centrals("team", "desk")
    api.answers[queues] = (200, [STATS])
    assert cli("get", "queues", KUBEAGENTS_KEY="my-own-key-of-mine").code == 0
    assert api.asked[1:] == [(queues, "my-own-key-of-mine")]

    api.has_centrals("team", "desk", access={"principals": []})
    api.answers[queues] = UNAUTHENTICATED
    done = cli("get", "queues")
    assert done.code == 1
    assert api.asked[3:] == [(queues, None)]
    assert "an API key is needed\nPut the key into KUBEAGENTS_KEY, or into a file for --key-file" in done.err


def test_who_may_not_read_the_key_is_told_what_to_do(api: ApiServer, cli: Run) -> None:
    api.has_centrals("team", "desk")
    api.answers[ADMIN.format("desk")] = (403, {"kind": "Status", "message": "u may not get secrets"})
    done = cli("get", "queues")
    assert done.code == 1
    assert 'Secret "desk-central-admin" in namespace "team", which has one, cannot be read' in done.err
    assert "answered 403: u may not get secrets" in done.err
    assert "With a key of your own (KUBEAGENTS_KEY or --key-file) nobody needs it" in done.err
    api.answers[f"{PROXY.format('desk')}/openapi.json"] = (200, {"info": {"version": "9.9"}})
    assert "9.9" in cli("version").out

    api.answers[ADMIN.format("desk")] = (200, {"data": {"other": "eA=="}})
    assert 'has no entry "key" with a key: delete the Secret' in cli("get", "queues").err


def test_with_a_url_only_the_refusal_says_where_a_key_may_be(api: ApiServer, cli: Run) -> None:
    api.answers["/v1/queues"] = UNAUTHENTICATED
    done = cli("get", "queues", "--server", api.url)
    assert done.code == 1
    assert "an API key is needed\nPut the key into KUBEAGENTS_KEY, or into a file for --key-file." in done.err
    assert "  kubectl get secret NAME-central-admin -o jsonpath='{.data.key}' | base64 -d" in done.err


def test_of_several_central_agents_one_must_be_chosen(api: ApiServer, cli: Run) -> None:
    api.has_centrals("team", "desk", "annex")
    done = cli("get", "queues")
    assert done.code == 1
    assert 'namespace "team" has several CentralAgents (annex, desk): choose one with --central NAME' in done.err
    api.answers[f"{PROXY.format('annex')}/v1/queues"] = (200, [])
    assert cli("get", "queues", "--central", "annex").code == 0
    missing = cli("get", "queues", "--central", "attic")
    assert 'there is no CentralAgent "attic" in namespace "team" of the context "work"; there is: annex' in missing.err


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((200, {"items": []}), 'there is no CentralAgent in namespace "team" of the context "work": apply one'),
        ((404, "404 page not found"), "does not know Kubeagents: install its chart there"),
        ((403, {"kind": "Status", "message": "u may not list"}), "answered 403: u may not list"),
    ],
)
def test_what_the_api_server_refuses_is_told(api: ApiServer, cli: Run, answer: tuple[int, Any], message: str) -> None:
    api.answers[CENTRALS.format("team")] = answer
    done = cli("get", "queues")
    assert done.code == 1
    assert message in done.err


def test_a_central_agent_without_ready_pods_is_told(api: ApiServer, cli: Run) -> None:
    api.has_centrals("team", "desk")
    status = {"kind": "Status", "message": "no endpoints available for service"}
    api.answers[f"{PROXY.format('desk')}/v1/queues"] = (503, status)
    done = cli("get", "queues")
    assert done.code == 1
    assert "the Kubernetes API server answered 503: no endpoints available for service" in done.err
    assert "kubectl describe centralagent desk -n team" in done.err


def test_context_and_namespace_can_be_chosen(api: ApiServer, cli: Run) -> None:
    api.has_centrals("default")
    assert 'in namespace "default" of the context "bare"' in cli("get", "queues", "--context", "bare").err
    api.has_centrals("other")
    assert 'in namespace "other" of the context "work"' in cli("get", "queues", "-n", "other").err
    assert "cannot be used" in cli("get", "queues", "--context", "nope").err


def test_a_cluster_that_does_not_answer_is_told(api: ApiServer, cli: Run) -> None:
    api.shutdown()
    api.server_close()
    done = cli("get", "queues")
    assert done.code == 1
    assert f'cannot reach the cluster of the context "work" at {api.url}' in done.err


@pytest.mark.parametrize(
    "answer", [(200, "<html>Welcome</html>"), (200, {"no": "list"}), (502, "bad gateway"), (404, "not found")]
)
def test_something_that_is_no_central_agent_is_told(api: ApiServer, cli: Run, answer: tuple[int, Any]) -> None:
    api.answers["/v1/queues"] = answer
    done = cli("get", "queues", "--server", api.url)
    assert done.code == 1
    assert f"{api.url} (from --server) does not look like a CentralAgent: GET v1/queues answered" in done.err


def test_logs_of_all_pods_have_the_pods_names(api: ApiServer, cli: Run) -> None:
    selector = "labelSelector=kubeagents.dev%2Fname%3Decho%2Ckubeagents.dev%2Fkind+in+%28Agent%2CCentralAgent%29"
    running = {"state": {"running": {}}, "restartCount": 0}
    crashing = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 2}
    creating = {"state": {"waiting": {"reason": "ContainerCreating"}}, "restartCount": 0}
    states = {"echo-1": running, "echo-2": crashing, "echo-3": creating}
    pods = [{"metadata": {"name": n}, "status": {"containerStatuses": [s]}} for n, s in states.items()]
    api.answers[f"/api/v1/namespaces/team/pods?{selector}"] = (200, {"items": pods})
    for name in ("echo-1", "echo-2"):
        path = f"/api/v1/namespaces/team/pods/{name}/log?follow=false&tailLines=5"
        api.answers[path] = (200, f"first of {name}\nsecond\n")
    done = cli("logs", "echo", "--tail", "5")
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        "echo-1 │ first of echo-1",
        "echo-1 │ second",
        "echo-2 │ first of echo-2",
        "echo-2 │ second",
    ]


def test_logs_of_an_agent_without_pods_say_where_to_look(api: ApiServer, cli: Run) -> None:
    selector = "labelSelector=kubeagents.dev%2Fname%3Decho%2Ckubeagents.dev%2Fkind+in+%28Agent%2CCentralAgent%29"
    api.answers[f"/api/v1/namespaces/team/pods?{selector}"] = (200, {"items": []})
    done = cli("logs", "echo")
    assert done.code == 1
    assert 'there is no pod of an agent "echo" in namespace "team"' in done.err
    assert "kubectl get agents -n team" in done.err
