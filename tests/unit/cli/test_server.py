# SPDX-License-Identifier: Apache-2.0
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent_runtime.cli.errors import CliError
from agent_runtime.cli.options import Target
from agent_runtime.cli.server import find_server
from agent_runtime.cli.session import CentralEntry, Session, SessionFile

LOCAL = "http://127.0.0.1:8080"


RunSession = Callable[..., None]


@pytest.fixture
def run_session() -> Iterator[RunSession]:
    with ExitStack() as stack:

        def run(name: str, *centrals: CentralEntry) -> None:
            stack.callback(SessionFile(Session(id=name, pid=7, paths=(), centrals=centrals, logs=())).remove)

        yield run


def test_a_flag_goes_before_everything(monkeypatch: pytest.MonkeyPatch, run_session: RunSession) -> None:
    monkeypatch.setenv("KUBEAGENTS_SERVER", "http://from-env")
    run_session("a", CentralEntry("central", "default", LOCAL))
    assert find_server(Target(server="http://from-flag")).url == "http://from-flag"
    assert find_server(Target()).url == "http://from-env"
    monkeypatch.delenv("KUBEAGENTS_SERVER")
    found = find_server(Target())
    assert (found.url, found.source) == (LOCAL, "the running `kubeagents dev`, pid 7")


def test_something_that_is_no_url_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CliError, match="--server 'localhost:8080' is not a URL: write for example http://127"):
        find_server(Target(server="localhost:8080"))
    monkeypatch.setenv("KUBEAGENTS_SERVER", "nonsense")
    with pytest.raises(CliError, match="KUBEAGENTS_SERVER 'nonsense' is not a URL"):
        find_server(Target())


def test_without_any_server_the_error_says_what_was_tried_and_what_to_do() -> None:
    with pytest.raises(CliError) as caught:
        find_server(Target())
    assert str(caught.value) == (
        "found no server: neither --server nor KUBEAGENTS_SERVER is set; no `kubeagents dev` runs; there is no "
        "kubeconfig.\nStart one with `kubeagents dev examples/01-quickstart`, or say where it is with --server URL "
        "or a kubeconfig"
    )


def test_several_local_central_agents_must_be_told_apart(run_session: RunSession) -> None:
    run_session("a", CentralEntry("one", "default", LOCAL), CentralEntry("two", "prod", "http://127.0.0.1:8081"))
    with pytest.raises(CliError, match="choose one with --central, --namespace or --server") as caught:
        find_server(Target())
    assert "default/one  --server http://127.0.0.1:8080  (pid 7)" in str(caught.value)
    assert find_server(Target(central="two")).url == "http://127.0.0.1:8081"
    assert find_server(Target(namespace="default")).url == LOCAL
    with pytest.raises(CliError, match="the running `kubeagents dev` has no such CentralAgent"):
        find_server(Target(central="three"))


def test_kubectl_agents_never_means_a_local_session(monkeypatch: pytest.MonkeyPatch, run_session: RunSession) -> None:
    run_session("a", CentralEntry("central", "default", LOCAL))
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/kubectl-agents"])
    with pytest.raises(CliError, match="there is no kubeconfig"):
        find_server(Target())


def test_naming_a_context_skips_the_local_session(tmp_path: Path, run_session: RunSession) -> None:
    run_session("a", CentralEntry("central", "default", LOCAL))
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text("apiVersion: v1\nkind: Config\nclusters: []\ncontexts: []\nusers: []\n")
    with pytest.raises(CliError, match=rf"the kubeconfig {kubeconfig} cannot be used: "):
        find_server(Target(kubeconfig=kubeconfig, context="prod"))


def test_a_kubeconfig_that_cannot_be_read_is_an_error_not_a_traceback(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text("clusters: [")
    with pytest.raises(CliError, match=r"the kubeconfig .* cannot be read"):
        find_server(Target(kubeconfig=kubeconfig))
    with pytest.raises(CliError, match=r"the kubeconfig .*missing cannot be used"):
        find_server(Target(kubeconfig=tmp_path / "missing"))
