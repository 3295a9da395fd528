# SPDX-License-Identifier: Apache-2.0
"""A contender's process: what it costs, and what its metrics say."""

import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Contender:
    """One process. Leaving the block kills it."""

    command: list[str]
    environment: dict[str, str]
    log: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None
    _client: httpx.Client = field(default_factory=lambda: httpx.Client(trust_env=False, timeout=30))

    @property
    def running(self) -> "subprocess.Popen[bytes]":
        assert self.process is not None
        return self.process

    def start(self) -> Self:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env={**os.environ, **self.environment}, stdout=log, stderr=log
            )
        return self

    def stop(self) -> None:
        """In order."""
        self.running.send_signal(signal.SIGTERM)
        self.running.wait(timeout=60)

    def cpu_seconds(self) -> float:
        """Processor time so far, of all its threads."""
        fields = Path(f"/proc/{self.running.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def peak_megabytes(self) -> float:
        """The most memory it had so far."""
        lines = Path(f"/proc/{self.running.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

    def answers(self, path: str) -> bool:
        """Whether it answers with 200. Raises RuntimeError if it has ended."""
        if self.running.poll() is not None:
            raise RuntimeError(self._said())
        try:
            return self._client.get(f"http://127.0.0.1:{self.port}{path}").status_code == 200
        except httpx.TransportError:
            return False

    def metrics(self) -> dict[str, float]:
        """All samples of its metrics, by name and labels; none while it does not answer."""
        try:
            text = self._client.get(f"http://127.0.0.1:{self.port}/metrics").text
        except httpx.TransportError:
            return {}
        return {
            series: float(value)
            for line in text.splitlines()
            if not line.startswith("#")
            for series, _, value in [line.rpartition(" ")]
        }

    def _said(self) -> str:
        """Whether it still runs, and the end of its log."""
        ended = self.running.poll()
        state = "runs" if ended is None else f"has ended with {ended}"
        return f"{self.command[-1]} {state}:\n{self.log.read_text(errors='replace')[-3000:]}"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if error is not None:
            error.add_note(self._said())
        self.running.kill()
        self.running.wait()
        self._client.close()


def total(metrics: dict[str, float], name: str) -> float:
    """The sum of all samples of one name."""
    return sum(value for series, value in metrics.items() if series.partition("{")[0] == name)
