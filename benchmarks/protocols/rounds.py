# SPDX-License-Identifier: Apache-2.0
"""What is measured, in which order."""

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent_runtime.adapters.registry import ADAPTERS
from benchmarks.protocols.stage import KEY, Bare, Stage, bare, cpu_seconds, port_of
from kubeagents_api.endpoints import Endpoint
from tests.support.runtime_process import RuntimeProcess

CONNECTIONS: Final = (1, 16, 128)
STEADY_PER_SECOND: Final = 200.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Row:
    """A protocol, and the bare server that it is held against."""

    name: Endpoint
    wire: str
    bare: str
    bare_exchange: str


ROWS: Final = (
    Row("http", "http", "fastapi_server", "http.submit"),
    Row("websocket", "websocket", "websockets_server", "websocket.submit"),
    Row("grpc", "grpc", "grpc_server", "grpc.submit"),
    Row("mcp", "http", "fastapi_server", "http.submit"),
    Row("a2a", "http", "fastapi_server", "http.submit"),
)


@dataclass(frozen=True, slots=True)
class Extent:
    """How much."""

    rounds: int = 3
    seconds: float = 3.0
    steady_seconds: float = 10.0


def measure(stage: Stage, extent: Extent, *, names: list[str], say: Say) -> dict[str, Any]:
    """All figures of the rows with these names."""
    rows = [row for row in ROWS if row.name in names and row.name in ADAPTERS]
    found: dict[str, Any] = {row.name: {"bare": row.bare.removesuffix("_server")} for row in rows}
    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(stage.central())
        bares = {name: stack.enter_context(bare(name)) for name in {row.bare for row in rows}}
        for row in rows:
            say(f"{row.name}: submit, beside bare {found[row.name]['bare']}")
            found[row.name]["submit"] = _submit(stage, extent, row, hub, bares[row.bare])
        if "http" in names:
            say("http: submit with an API key, beside submit without")
            guarded = stack.enter_context(stage.central(guarded=True))
            found["http"]["guarded"] = _guarded(stage, extent, hub, guarded)
    with stage.central() as hub, stage.agent():
        for row in rows:
            say(f"{row.name}: submit to result")
            stage.empty()
            found[row.name]["result"] = _result(extent, row, hub)
    return found


def _submit(stage: Stage, extent: Extent, row: Row, hub: RuntimeProcess, other: Bare) -> dict[str, Any]:
    def ours(connections: int) -> dict[str, Any]:
        order = {"wire": row.wire, "exchange": f"{row.name}.submit", "port": port_of(hub, row.name)}
        return _load(hub.running.pid, **order, connections=connections, seconds=extent.seconds)

    def theirs(connections: int) -> dict[str, Any]:
        order = {"wire": row.wire, "exchange": row.bare_exchange, "port": other.port}
        return _load(other.process.pid, **order, connections=connections, seconds=extent.seconds)

    return _side_by_side(stage, extent, {"ours": ours, "bare": theirs})


def _guarded(stage: Stage, extent: Extent, hub: RuntimeProcess, guarded: RuntimeProcess) -> dict[str, Any]:
    def call(process: RuntimeProcess, key: str | None) -> Callable[[int], dict[str, Any]]:
        order = {"wire": "http", "exchange": "http.submit", "port": process.port, "key": key}
        return lambda count: _load(process.running.pid, **order, connections=count, seconds=extent.seconds)

    return _side_by_side(stage, extent, {"with a key": call(guarded, KEY), "without": call(hub, None)})


def _side_by_side(
    stage: Stage, extent: Extent, contenders: Mapping[str, Callable[[int], dict[str, Any]]]
) -> dict[str, Any]:
    """By number of connections and contender; the contenders in turns."""
    found: dict[str, Any] = {}
    for connections in CONNECTIONS:
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
        for _ in range(extent.rounds):
            for name, call in contenders.items():
                stage.empty()
                runs[name].append(call(connections))
        found[str(connections)] = {name: median(measured) for name, measured in runs.items()}
    return found


def _result(extent: Extent, row: Row, hub: RuntimeProcess) -> dict[str, Any]:
    order = {"wire": row.wire, "exchange": f"{row.name}.result", "port": port_of(hub, row.name)}
    pid = hub.running.pid
    found: dict[str, Any] = {}
    for connections in CONNECTIONS:
        runs = [_load(pid, **order, connections=connections, seconds=extent.seconds) for _ in range(extent.rounds)]
        found[str(connections)] = median(runs)
    steady = [
        _load(pid, **order, per_second=STEADY_PER_SECOND, seconds=extent.steady_seconds) for _ in range(extent.rounds)
    ]
    found["at_200_per_s"] = median(steady)
    return found


def median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each figure; the single rates stay."""
    figures = {name: statistics.median(run[name] for run in runs) for name in runs[0] if name != "exchanges"}
    rounded = {name: round(value, 3) for name, value in figures.items()}
    return {**rounded, "runs_per_second": [run["per_second"] for run in runs]}


def _load(pid: int, **order: Any) -> dict[str, Any]:
    """One run of the client. Raises RuntimeError, with what it says, if it fails."""
    before = cpu_seconds(pid)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.protocols.load"],
        input=json.dumps(order), capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the client has failed at {order}:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    used = cpu_seconds(pid) - before
    return found | {"server_us": used / found["exchanges"] * 1e6}
