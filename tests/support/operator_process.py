# SPDX-License-Identifier: Apache-2.0
"""`python -m kubeagents_operator` as a real process: started, asked over HTTP, stopped, killed, frozen."""

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

from tests.support.eventually import eventually

READY_SECONDS = 90.0
EXIT_SECONDS = 60.0


@dataclass
class OperatorProcess:
    """One replica. Entering starts it and does not wait; leaving kills it if it still runs."""

    kubeconfig: Path
    instance: str
    environment: dict[str, str]
    prefix: tuple[str, ...] = ()
    """A command that runs it, such as `unshare`."""
    process: subprocess.Popen[str] | None = None
    lines: list[dict[str, Any]] = field(default_factory=list)
    """What it has logged so far."""

    @property
    def running(self) -> subprocess.Popen[str]:
        assert self.process is not None, "not started"
        return self.process

    @property
    def port(self) -> int:
        """Where it listens, as it said itself; fails until then."""
        said = self.logged("probes and metrics are on port")
        assert said, f"{self.instance} has not said yet where it listens: {self.log()}"
        return int(said[-1]["message"].rpartition(" ")[2])

    def start(self) -> Self:
        self.lines.clear()
        self.process = subprocess.Popen(
            [*self.prefix, sys.executable, "-m", "kubeagents_operator"],
            env={
                **os.environ,
                "KUBECONFIG": str(self.kubeconfig),
                "KUBEAGENTS_INSTANCE": self.instance,
                "KUBEAGENTS_HTTP_HOST": "127.0.0.1",
                "KUBEAGENTS_HTTP_PORT": "0",
                "KUBEAGENTS_LOG_FORMAT": "json",
                **self.environment,
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()
        return self

    def ready(self) -> Self:
        """Wait until its caches are synced: it leads, or could."""
        eventually(self._is_ready, what=f"{self.instance} is ready", timeout=READY_SECONDS)
        return self

    def leading(self) -> Self:
        """Wait until it leads."""
        eventually(self.leads, what=f"{self.instance} leads", timeout=READY_SECONDS)
        return self

    def leads(self) -> bool:
        """Whether it says that it leads."""
        return self.metric("kubeagents_operator_is_leader") == 1

    def metric(self, name: str, **labels: str) -> float:
        """The sum of its samples of that name with these labels; 0 if there are none."""
        found = 0.0
        for line in self.get("/metrics").text.splitlines():
            if line.startswith("#"):
                continue
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(f'{k}="{v}"' in series for k, v in labels.items()):
                found += float(value)
        return found

    def get(self, path: str) -> httpx.Response:
        """GET from its port; fails while it does not listen."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=10, trust_env=False)
        except httpx.TransportError as error:
            raise AssertionError(f"{self.instance} does not answer: {error}") from error

    def freeze(self) -> None:
        """SIGSTOP: it does nothing, and does not know."""
        self.running.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.running.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        self.running.kill()
        self.exit_code()

    def stop(self) -> int:
        """SIGTERM, and wait for the end; the exit code."""
        self.running.terminate()
        return self.exit_code()

    def exit_code(self) -> int:
        """Wait for the end; what it has logged is complete then."""
        code = self.running.wait(timeout=EXIT_SECONDS)
        self._reader.join(timeout=EXIT_SECONDS)
        if self.running.stderr is not None:
            self.running.stderr.close()
        return code

    def logged(self, part: str) -> list[dict[str, Any]]:
        """The log lines whose message has this part."""
        return [line for line in list(self.lines) if part in line.get("message", "")]

    def log(self) -> str:
        """All that it has logged, to be read by people."""
        return "\n".join(
            " ".join(filter(None, (line.get("time"), line["level"], line["message"], line.get("traceback"))))
            for line in list(self.lines)
        )

    def _is_ready(self) -> bool:
        if self.running.poll() is not None:
            raise RuntimeError(f"{self.instance} has ended instead:\n{self.log()}")
        answer = self.get("/readyz")
        assert answer.status_code == 200, answer.text
        return True

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stderr is not None
        for line in process.stderr:
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.lines.append({"message": line.rstrip("\n"), "level": "raw"})

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        process = self.running
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(timeout=EXIT_SECONDS)
        self._reader.join(timeout=EXIT_SECONDS)
        if process.stderr is not None:
            process.stderr.close()
