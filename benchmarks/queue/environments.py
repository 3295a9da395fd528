# SPDX-License-Identifier: Apache-2.0
"""An isolated environment for each contender, made from the pins in its folder under build/bench/envs/."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.queue.contenders import Contender, Kind

ROOT = Path(__file__).parents[2]
PEERS = Path(__file__).parent / "peers"
ENVIRONMENTS = ROOT / "build" / "bench" / "envs"
UV = ROOT / ".venv-uv" / "bin" / "uv"
INSTALL_SECONDS = 300


class ContenderError(Exception):
    """A contender cannot be installed, or does not do what it should. The others go on."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What runs a contender's program."""

    command: tuple[str, ...]


def prepare(contender: Contender) -> Environment:
    """Install what the contender needs, unless it is there. Raises ContenderError, with the installer's words."""
    program = f"benchmarks.queue.peers.{contender.name}.driver"
    match contender.kind:
        case Kind.OURS | Kind.PROTOTYPE:
            return Environment((sys.executable, "-m", program))
        case Kind.PYTHON:
            return Environment((str(_python(contender.name)), "-m", program))
        case Kind.NODE:
            return Environment(("node", str(_node(contender.name))))


def _python(name: str) -> Path:
    folder, pins = ENVIRONMENTS / name, PEERS / name / "requirements.txt"
    python = folder / "bin" / "python"
    if _stale(folder, [pins]):
        uv = str(UV) if UV.exists() else "uv"
        _run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
        _run([uv, "pip", "sync", "--quiet", "--require-hashes", "--python", str(python), str(pins)])
        _made(folder, [pins])
    return python


def _node(name: str) -> Path:
    folder = ENVIRONMENTS / name
    pins = [PEERS / name / "package.json", PEERS / name / "package-lock.json"]
    for command in ("node", "npm"):
        if shutil.which(command) is None:
            raise ContenderError(f"{command} is not installed")
    if _stale(folder, pins):
        folder.mkdir(parents=True, exist_ok=True)
        for file in pins:
            shutil.copy(file, folder)
        # Takes what the lock says and checks its hashes. Not `npm ci`: that refuses a lock without the builds of an
        # optional part for systems that the lock's maker could not get. Nothing needs a script at installation.
        _run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"], folder=folder)
        _made(folder, pins)
    # Node looks for modules beside the program, wherever it was called from.
    return Path(shutil.copy(PEERS / name / "driver.js", folder))


def _stale(folder: Path, pins: Sequence[Path]) -> bool:
    made = folder / ".made"
    return not made.exists() or made.read_text(encoding="utf-8") != _digest(pins)


def _made(folder: Path, pins: Sequence[Path]) -> None:
    (folder / ".made").write_text(_digest(pins), encoding="utf-8")


def _digest(pins: Sequence[Path]) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in pins)).hexdigest()


def _run(command: list[str], *, folder: Path = ROOT) -> None:
    settings = {"UV_SYSTEM_CERTS": "true", **os.environ}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ContenderError(f"`{' '.join(command)}`: {error}") from error
    if done.returncode:
        raise ContenderError(f"`{' '.join(command)}` failed: {(done.stderr or done.stdout).strip()[-500:]}")
