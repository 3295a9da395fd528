# SPDX-License-Identifier: Apache-2.0
"""`kubeagents keys` and `kubeagents audit` against a pod that asks for keys."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kubeagents_api.access import AccessSettings, Principal
from kubeagents_api.model import LocalRef
from tests.integration.runtime.conftest import System
from tests.support.eventually import eventually
from tests.support.runtime_process import RuntimeProcess

ADMIN = "the-key-of-the-admin"
ACCESS = AccessSettings(principals=[Principal(name="root", role="admin", keys_from=LocalRef(name="root"))])


class Shell:
    """Runs commands against one pod."""

    def __init__(self, central: RuntimeProcess) -> None:
        self._environment = {**os.environ, "KUBEAGENTS_SERVER": central.base_url, "COLUMNS": "160"}
        self._environment.pop("KUBEAGENTS_KEY", None)

    def run(self, *arguments: str, key: str | None = ADMIN) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "agent_runtime.cli.main", *arguments]
        environment = self._environment if key is None else {**self._environment, "KUBEAGENTS_KEY": key}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    def out(self, *arguments: str, key: str | None = ADMIN) -> str:
        done = self.run(*arguments, key=key)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def shell(system: System, tmp_path: Path) -> Shell:
    (tmp_path / "keys" / "root").mkdir(parents=True)
    (tmp_path / "keys" / "root" / "key").write_text(ADMIN)
    return Shell(system.central(access=ACCESS, keys_path=str(tmp_path / "keys")).ready())


def test_a_key_is_made_used_and_revoked(shell: Shell) -> None:
    made = shell.run("keys", "create", "nightly", "--role", "developer", "--queue", "main", "--expires", "90d")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert key.startswith("ka_")
    assert "shown this once" in made.stderr

    shell.out("submit", "1", key=key)
    listed = shell.out("keys", "list")
    row = listed.splitlines()[1].split()
    assert row[1:5] == ["nightly", "developer", "main", "all"]
    assert key not in listed

    assert "is revoked" in shell.out("keys", "revoke", row[0])
    eventually(lambda: shell.run("get", "queues", key=key).returncode == 1, what="the end of the key")


def test_without_a_key_it_says_where_to_put_one(shell: Shell) -> None:
    done = shell.run("get", "queues", key=None)

    assert done.returncode == 1
    assert "an API key is needed" in done.stderr
    assert "KUBEAGENTS_KEY" in done.stderr


def test_a_key_may_be_in_a_file(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(ADMIN + "\n")
    assert "main" in shell.out("get", "queues", "--key-file", str(tmp_path / "key"), key=None)

    done = shell.run("get", "queues", "--key-file", str(tmp_path / "none"), key=None)
    assert done.returncode == 2
    assert "cannot be read" in done.stderr


@pytest.mark.parametrize("key", ["schlüssel-mit-umlaut", "two\nlines-in-a-key"])
def test_what_can_be_no_key_is_an_error_that_does_not_show_it(shell: Shell, key: str) -> None:
    done = shell.run("get", "queues", key=key)

    assert done.returncode == 2
    assert done.stderr == "error: there is no API key in KUBEAGENTS_KEY: one is printable ASCII without spaces\n"


def test_the_audit_log_is_shown(shell: Shell) -> None:
    key = shell.out("keys", "create", "vera", "--role", "viewer").strip()
    shell.run("queue", "pause", "main", key=key)
    shell.out("queue", "pause", "main")

    def rows() -> list[list[str]]:
        found = [line.split() for line in shell.out("audit").splitlines()[1:]]
        assert len(found) == 3
        return found

    found = eventually(rows, what="three entries")
    assert [row[1] for row in found] == ["root", "vera", "root"]
    assert "FORBIDDEN" in found[1]
    (denied,) = json.loads(shell.out("audit", "--denied", "-o", "json"))
    assert (denied["principal"], denied["verb"], denied["outcome"]) == ("vera", "pause", "denied")


def test_wrong_usage_names_the_option(shell: Shell) -> None:
    assert shell.run("keys", "create", "x").returncode == 2
    done = shell.run("keys", "create", "x", "--role", "boss")
    assert done.returncode == 2
    assert "developer" in done.stderr
    assert shell.run("keys", "create", "x", "--role", "viewer", "--expires", "soon").returncode == 2
    done = shell.run("keys", "create", "no such name", "--role", "viewer")
    assert done.returncode == 1
    assert "principal" in done.stderr
