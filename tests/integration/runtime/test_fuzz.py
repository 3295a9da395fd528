# SPDX-License-Identifier: Apache-2.0
"""What nobody would send: requests made up from the OpenAPI description, and random bytes at each port.

Bounded, and the same each time: what is drawn depends on fixed seeds only.
"""

import base64
import contextlib
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from agent_runtime.adapters.registry import ADAPTERS
from kubeagents_api.access import AccessSettings, Principal
from kubeagents_api.model import LocalRef
from tests.integration.runtime.conftest import System
from tests.support.eventually import eventually
from tests.support.redis_server import RedisServer
from tests.support.runtime_process import RuntimeProcess

KEY = "the-key-of-the-admin"
EXAMPLES = 6
"""Of each operation, of those that fit its description and of those that do not."""
load_all_checks()
CHECKED = CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    ]
)
SEED = 20261121
CONNECTIONS = 120
GROWTH_BYTES = 24 * 1024 * 1024
"""What the process may have grown by after as many connections again, three times."""


def started(stack: contextlib.ExitStack, folder: Path, redis: RedisServer, **changes: Any) -> RuntimeProcess:
    """A CentralAgent with all its protocols."""
    process = System(stack, folder=folder, redis=redis).central(endpoints=dict.fromkeys(ADAPTERS, 0), **changes)

    def ready() -> bool:
        if process.running.poll() is not None:
            raise RuntimeError(f"it has ended: {process.lines}")
        return process.get("/readyz").status_code == 200

    eventually(ready, what="it is ready", timeout=120)
    return process


@pytest.fixture(scope="module")
def redis(redis_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(redis_binary, tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def open_central(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuntimeProcess]:
    with contextlib.ExitStack() as stack:
        yield started(stack, tmp_path_factory.mktemp("open"), redis)


@pytest.fixture(scope="module")
def guarded_central(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RuntimeProcess]:
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "keys" / "root").mkdir(parents=True)
    (folder / "keys" / "root" / "key").write_text(KEY)
    principal = Principal(name="root", role="admin", keys_from=LocalRef(name="root"))
    with contextlib.ExitStack() as stack:
        access = AccessSettings(principals=[principal])
        yield started(stack, folder, redis, access=access, keys_path=str(folder / "keys"))


@pytest.fixture(params=["open", "guarded"])
def central(request: pytest.FixtureRequest) -> Iterator[RuntimeProcess]:
    """Each of them. Nothing may leave a traceback in its log, and it still answers."""
    process: RuntimeProcess = request.getfixturevalue(f"{request.param}_central")
    begun = len(process.lines)
    yield process
    assert process.running.poll() is None, process.lines[-3:]
    assert process.get("/readyz").status_code == 200
    faults = [
        line for line in process.lines[begun:] if "traceback" in line or line["level"] in ("error", "unstructured")
    ]
    assert faults == []


def headers(central: RuntimeProcess) -> dict[str, str]:
    return {"authorization": f"Bearer {KEY}"} if getattr(central.config, "access", None) else {}


def soon(case: Any) -> Any:
    """The case with a queue that is there, and without long waits."""
    if case.path_parameters and "queue" in case.path_parameters:
        case.path_parameters["queue"] = "main"
    for place in (case.query, case.body):
        if isinstance(place, dict):
            for name in ("timeoutSeconds", "waitSeconds"):
                if isinstance(place.get(name), int | float) and 0 < place[name] <= 300:
                    place[name] = 0
    return case


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fitting", "unfit"])
def test_every_operation_answers_as_openapi_says(central: RuntimeProcess, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{central.base_url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    operations = [operation for operation in operations if not operation.path.endswith("/work/revoked")]  # has no end
    assert len(operations) > 20
    statuses: Counter[int] = Counter()
    with httpx.Client(base_url=central.base_url, headers=headers(central), trust_env=False) as undo:
        for operation in operations:
            try:
                _try(operation, mode, headers(central), statuses)
            except Unsatisfiable:
                assert mode is GenerationMode.NEGATIVE, "what takes nothing cannot be asked wrongly"
            for gate in ("open", "resume"):
                undo.post(f"/v1/queues/main/{gate}", json={})
    assert statuses.total() >= 100, statuses
    assert statuses[400 if mode is GenerationMode.NEGATIVE else 200] >= 20, statuses


def _try(operation: Any, mode: GenerationMode, headers: dict[str, str], statuses: Counter[int]) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case: Any) -> None:
        sent = soon(case)
        answer = sent.call(headers=headers, timeout=60)
        statuses[answer.status_code] += 1
        sent.validate_response(answer, checks=CHECKED)

    check()


def resident_bytes(central: RuntimeProcess) -> int:
    lines = Path(f"/proc/{central.running.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024


def ports(central: RuntimeProcess) -> dict[str, int]:
    return next(line["ports"] for line in central.lines if "ports" in line)


def send(port: int, content: bytes, *, hello: bytes = b"") -> bytes:
    """Send bytes and read what comes, until it ends or nothing comes for a moment."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        received = b""
        with contextlib.suppress(OSError):
            if hello:
                connection.sendall(hello)
                received += connection.recv(65536)
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(0.2)
            while part := connection.recv(65536):
                received += part
        return received


def some_bytes(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((1, 7, 64, 1000, 20_000)))


def http_bytes(rng: random.Random) -> bytes:
    """None, some, or nearly all of a request."""
    method = rng.choice(("GET", "POST", "PRI", "DELETE", "\x00"))
    path = rng.choice(("/v1/tasks", "/mcp", "/a2a/x", "/v1/ws", "*", "/%ff", "//", "/v1/queues/%00/tasks/x"))
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\n".encode("latin-1")
    length = rng.choice((b"5", b"-1", b"99999999999999999999", b"0x5", b""))
    return rng.choice(
        (
            some_bytes(rng),
            head + some_bytes(rng),
            head + b"content-type: application/json\r\ncontent-length: " + length + b"\r\n\r\n" + some_bytes(rng),
            head + b"transfer-encoding: chunked\r\n\r\n" + some_bytes(rng),
            head + b"x: " + rng.randbytes(100).replace(b"\n", b"") + b"\r\n\r\n",
        )
    )


def grpc_bytes(rng: random.Random) -> bytes:
    """None, some, or nearly all of HTTP/2."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    size = rng.choice((0, 1, 100, 16_384))
    frame = struct.pack("!HBBBI", size >> 8, size & 255, rng.randrange(12), rng.randrange(256), rng.randrange(4))
    settings_frame = struct.pack("!HBBBI", 0, 0, 4, 0, 0)
    return rng.choice(
        (some_bytes(rng), preface + some_bytes(rng), preface + settings_frame + frame + rng.randbytes(size))
    )


def zeromq_bytes(rng: random.Random) -> bytes:
    """None, some, or nearly all of ZMTP."""
    greeting = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
    ready = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
    return rng.choice((some_bytes(rng), greeting + some_bytes(rng), greeting + ready + some_bytes(rng)))


def frame_bytes(rng: random.Random) -> bytes:
    """Frames of a WebSocket, right or wrong ones."""
    payload = rng.choice((some_bytes(rng), b'{"id": "1", "call": "submit", "params": ' + some_bytes(rng) + b"}"))
    size = min(len(payload), 125)
    opcode = rng.choice((0x81, 0x82, 0x01, 0x80, 0x88, 0x89, 0x8A, 0x83, 0xFF))
    return (
        bytes([opcode, rng.choice((0x80, 0)) | size]) + bytes(4) + payload[:size] + rng.choice((b"", some_bytes(rng)))
    )


def handshake(central: RuntimeProcess) -> bytes:
    key = base64.b64encode(bytes(16)).decode()
    more = "".join(f"{name}: {value}\r\n" for name, value in headers(central).items())
    return (
        f"GET /v1/ws HTTP/1.1\r\nhost: 127.0.0.1:{central.port}\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        f"sec-websocket-key: {key}\r\nsec-websocket-version: 13\r\n{more}\r\n"
    ).encode()


WIRES: dict[str, Callable[[random.Random], bytes]] = {
    "http": http_bytes,
    "websocket": frame_bytes,
    "grpc": grpc_bytes,
    "zeromq": zeromq_bytes,
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("wire", [wire for wire in WIRES if wire in ADAPTERS])
def test_random_bytes_neither_break_it_nor_make_it_grow(central: RuntimeProcess, wire: str) -> None:
    rng = random.Random(SEED)
    port = ports(central).get(wire, central.port)
    hello = handshake(central) if wire == "websocket" else b""

    def batch() -> list[bytes]:
        return [send(port, WIRES[wire](rng), hello=hello) for _ in range(CONNECTIONS)]

    answers = batch()
    if wire == "websocket":
        assert all(answer.startswith(b"HTTP/1.1 101") for answer in answers)
    for answer in answers:
        assert b"Traceback" not in answer
        assert not answer.startswith(b"HTTP/1.1 5"), answer
    warm = resident_bytes(central)
    for _ in range(3):
        batch()
    assert resident_bytes(central) - warm < GROWTH_BYTES
