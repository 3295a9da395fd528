# SPDX-License-Identifier: Apache-2.0
"""`python -m agent_runtime` as a real process: configured, started, asked over HTTP, stopped, killed, frozen."""

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from kubeagents_api.labels import CONFIG_ENV, INSTANCE_ENV, TERMINATION_LOG_ENV
from kubeagents_api.runtime_config import AgentConfig, CentralAgentConfig, render
from tests.support.eventually import eventually

READY_SECONDS = 120.0
EXIT_SECONDS = 30.0


@dataclass
class RuntimeProcess:
    """One process. Entering starts it and does not wait; leaving kills it if it still runs."""

    config: AgentConfig | CentralAgentConfig
    folder: Path
    """Where its configuration and termination log go. Must exist."""
    instance: str
    urls: list[str]
    """Redis URLs, one for each queue."""
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    lines: list[dict[str, Any]] = field(default_factory=list)
    """What it has logged so far."""

    def __post_init__(self) -> None:
        self.config_path = self.folder / f"{self.instance}.json"
        self.termination_log = self.folder / f"{self.instance}.termination"

    @property
    def port(self) -> int:
        """Where it listens, as it said itself; fails until then."""
        ports = [line["port"] for line in list(self.lines) if "port" in line]
        assert ports, f"{self.instance} has not said yet where it listens: {self.lines}"
        port: int = ports[0]
        return port

    @property
    def base_url(self) -> str:
        return f"{'https' if self._encrypted else 'http'}://127.0.0.1:{self.port}"

    @property
    def _encrypted(self) -> bool:
        return isinstance(self.config, CentralAgentConfig) and self.config.tls is not None

    @property
    def running(self) -> subprocess.Popen[str]:
        assert self.process is not None, "not started"
        return self.process

    def start(self) -> Self:
        self.config_path.write_text(render(self.config))
        variables = {f"KUBEAGENTS_QUEUE_{index}_URL": url for index, url in enumerate(self.urls)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent_runtime"],
            env={
                **os.environ,
                CONFIG_ENV: str(self.config_path),
                INSTANCE_ENV: self.instance,
                TERMINATION_LOG_ENV: str(self.termination_log),
                **variables,
                **self.environment,
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def ready(self) -> Self:
        """Wait until it says that it is ready."""
        eventually(self._is_ready, what=f"{self.instance} is ready", timeout=READY_SECONDS)
        return self

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        """GET from its port; fails while it does not listen."""
        try:
            return self._call("GET", path, params=parameters or None)
        except httpx.TransportError as error:
            raise AssertionError(f"{self.instance} does not answer: {error}") from error

    def post(self, path: str, body: Any) -> httpx.Response:
        """POST JSON to its port."""
        return self._call("POST", path, json=body)

    def delete(self, path: str, **parameters: Any) -> httpx.Response:
        """DELETE on its port."""
        return self._call("DELETE", path, params=parameters or None)

    def _call(self, method: str, path: str, **more: Any) -> httpx.Response:
        # Whose certificate it is, tests of TLS look at themselves.
        verify = not self._encrypted
        return httpx.request(method, self.base_url + path, timeout=60, trust_env=False, verify=verify, **more)

    def signal(self, number: signal.Signals) -> None:
        self.running.send_signal(number)

    def exit_code(self) -> int:
        """Wait for the end; what it has logged is complete then."""
        code = self.running.wait(timeout=EXIT_SECONDS)
        self._reader.join(timeout=EXIT_SECONDS)
        return code

    def logged(self, part: str) -> list[dict[str, Any]]:
        """The log lines whose message has this part."""
        return [line for line in list(self.lines) if part in line.get("message", "")]

    def termination(self) -> dict[str, str]:
        """What it left for the operator."""
        said: dict[str, str] = json.loads(self.termination_log.read_text())
        return said

    def _is_ready(self) -> bool:
        if self.running.poll() is not None:
            raise RuntimeError(f"{self.instance} has ended instead: {self.lines}")
        answer = self.get("/readyz")
        assert answer.status_code == 200, answer.text
        return True

    def _read(self) -> None:
        stderr = self.running.stderr
        assert stderr is not None
        for line in stderr:
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.lines.append({"message": line, "level": "unstructured"})

    def __enter__(self) -> Self:
        return self.start() if self.process is None else self

    def __exit__(self, *_: object) -> None:
        process = self.running
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(timeout=EXIT_SECONDS)
        self._reader.join(timeout=EXIT_SECONDS)
        if process.stderr is not None:
            process.stderr.close()
